"""Follow what refs name, tag to commit to tree to blob, and say which paths of which versions a bad object takes.

::

    walk = Walk(repo)                       # each object is re-hashed once
    for root in roots(repo.name, refs):
        walk.root(root)
    walk.findings()                         # one for each bad object and path, with all versions that hold it

Nothing raises for what is damaged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from kaivc import findings, materialise, trees, versions
from kaivc.errors import KaiError
from kaivc.findings import Finding
from kaivc.manifest import FileClass
from kaivc.names import ObjectId, current_ref, heads_prefix, tag_name, tags_prefix
from kaivc.records import replace
from kaivc.repository import Repository
from kaivc.storage.damage import Damage
from kaivc.storage.gitobjects import DIRECTORY, Commit, Kind, Tag, encode_commit, encode_tag
from kaivc.trees import MAX_DEPTH, Files
from kaivc.vfs import unless_short

MANY = 100
"""So many paths of one version are named for a damaged directory; a few that hold each other may have 2^100."""
SHOWN = 200

ProblemOf = Callable[[ObjectId], Damage | None]


class Known(Protocol):
    """Objects that need not be followed: they are whole, with all that they lead to."""

    def has(self, oid: bytes, kind: Kind) -> bool:
        """Whether an object of that kind is one of them."""


class Root(NamedTuple):
    """A ref that versions are found by; ``label`` as ``v1.2.0``, ``backups/7``, ``current``."""

    label: str
    ref: str
    oid: ObjectId

    @property
    def is_tag(self) -> bool:
        """Whether it names a tag object."""
        return tag_name(self.ref) is not None


def roots(agent: str, refs: Mapping[str, bytes]) -> list[Root]:
    """What the refs of an agent name, versions first."""
    prefixes = (tags_prefix(agent), heads_prefix(agent))
    found = []
    for prefix in prefixes:
        found += [
            Root(name.removeprefix(prefix), name, ObjectId(oid))
            for name, oid in refs.items()
            if name.startswith(prefix)
        ]
    rest = [Root(name, name, ObjectId(oid)) for name, oid in refs.items() if not name.startswith(prefixes)]
    return sorted(found, key=lambda root: (not root.is_tag, root.ref == current_ref(agent), root.ref)) + rest


class Walk:
    """What is reachable from some roots, each object looked at once.

    ``problem_of`` says what is wrong with an object, None if it is whole; without it each one is re-hashed. What is
    ``known`` is not followed. In what came from ``abroad`` a link that leads out is bad in a backup too.
    """

    def __init__(
        self,
        repo: Repository,
        problem_of: ProblemOf | None = None,
        known: Known | None = None,
        *,
        abroad: bool = False,
    ) -> None:
        self._repo = repo
        self._trusted = known
        self._abroad = abroad
        repo.store.forget()
        self._problem_of = problem_of or self._rehash
        self._known: dict[bytes, Damage | None] = {}
        self._clean: set[bytes] = set()
        self._hits: dict[tuple[bytes, bytes | None], list[str]] = {}
        self._said: list[Finding] = []
        self._versions: dict[bytes, str] = {}
        self._walked: set[bytes] = set()
        self._again: dict[bytes, int] = {}
        self._files: set[bytes] = set()
        self.size = 0

    @property
    def reached(self) -> frozenset[bytes]:
        """The ids of all git objects that were followed, bad ones included."""
        return frozenset(self._known)

    def findings(self) -> list[Finding]:
        """All that was found, in the order in which it was."""
        found = []
        for (oid, path), labels in self._hits.items():
            damage = self._known[oid]
            if damage is not None:
                hit = findings.of(damage, tuple(dict.fromkeys(labels)), None if path is None else os.fsdecode(path))
                found.append(replace(hit, where="store", object=oid.hex()))
        return found + self._said

    # ------------------------------------------------------------ from refs

    def all(self, found: list[Root]) -> None:
        """Follow every root, then the parents that no root names."""
        commits = [(root, self.root(root)) for root in found]
        for root, commit in commits:
            self.parents(root.label, commit)

    def root(self, root: Root) -> Commit | None:
        """Follow one ref; its commit if that can be read."""
        if root.is_tag:
            return self._tagged(root)
        if root.ref == current_ref(self._repo.name):
            named = self._versions.get(root.oid)
            if named is None and self._object(root.oid, root.label, None):
                self._say("ref", f"{root.ref} points at {root.oid.hex()}, which no version tag names", root.label)
            return self.commit(root.label, root.oid) if named is None else None
        return self.commit(root.label, root.oid)

    def _tagged(self, root: Root) -> Commit | None:
        if not self._is_trusted(root.oid, Kind.TAG) and not self._object(root.oid, root.label, None):
            return None
        try:
            data = self._repo.store.read(root.oid, Kind.TAG)
            tag = self._repo.store.tag(root.oid)
            if encode_tag(tag) != data:
                self._say("tag", "the tag is not as kaivc writes one", root.label, object=root.oid.hex())
        except KaiError as error:
            unless_short(error)
            self._say("tag", error.what, root.label, object=root.oid.hex())
            return None
        self._versions[tag.target] = root.label
        commit = self.commit(root.label, tag.target)
        self._compare(root, tag)
        return commit

    def _compare(self, root: Root, tag: Tag) -> None:
        """The tag says what its ref, and its commit, say."""
        name = tag_name(root.ref)
        if tag.name != name:
            self._say("tag", f"the tag of {name} says that it is {tag.name!r:.120}", root.label, object=root.oid.hex())
        try:
            version = versions.describe(self._repo, tag.target)
        except KaiError as error:
            unless_short(error)
            return  # said of the commit
        told = {
            "the version": ((name or "").rsplit("/", 1)[-1], f"v{version.version}"),
            "the tagger": (version.author, tag.who),
            "the time": (version.created, versions.rfc3339(tag.time)),
            "the message": (version.notes.strip("\n"), tag.message.strip("\n")),
        }
        for what, (expected, found) in told.items():
            if found != expected:
                problem = f"{what} of the tag is not that of its commit"
                self._say("tag", problem, root.label, object=root.oid.hex(), expected=expected, found=found)

    # ------------------------------------------------------------ from commits

    def commit(self, label: str, oid: ObjectId) -> Commit | None:
        """Follow a commit to its files, and compare what it says of itself with them; None if it cannot be read."""
        self._walked.add(oid)
        if self._is_trusted(oid, Kind.COMMIT) or not self._object(oid, label, None):
            return None
        try:
            commit = self._repo.store.commit(oid)
            if encode_commit(commit) != self._repo.store.read(oid, Kind.COMMIT):
                self._say("commit", "the commit is not as kaivc writes one", label, object=oid.hex())
        except KaiError as error:
            unless_short(error)
            self._say("commit", error.what, label, object=oid.hex())
            return None
        self._again.clear()
        if self._tree(label, commit.tree, b"", 0):
            try:
                files = trees.flatten(self._repo.store, commit.tree)
                is_backup = versions.of_commit(self._repo.name, oid, commit).is_backup and not self._abroad
                materialise.check_tree_links(self._repo.store, files, backup=is_backup)
            except KaiError as error:
                unless_short(error)
                self._say("commit", error.what, label, object=oid.hex())
            else:
                self._metadata(label, oid, commit, files)
        return commit

    def parents(self, label: str, commit: Commit | None) -> None:
        """Follow the parents of a commit that were not followed yet."""
        back = 0
        while commit is not None and commit.parent is not None and commit.parent not in self._walked:
            back += 1
            commit = self.commit(f"{label}~{back}", commit.parent)

    def _metadata(self, label: str, oid: ObjectId, commit: Commit, files: Files) -> None:
        """The trailers against the files and the parent."""
        try:
            version = versions.describe(self._repo, oid)
        except KaiError as error:
            unless_short(error)
            self._say("commit", error.what, label, object=oid.hex())
            return
        self._parent_version(label, oid, commit, version.parent)
        if version.version is None:
            return  # saved as it was, maybe with a manifest that was being written
        try:
            manifest = versions.manifest_of(self._repo, commit.tree)
        except KaiError as error:
            unless_short(error)
            self._say("commit", error.what, label, path="kai.yaml", object=oid.hex())
            return
        stated = {FileClass.STATE: version.agent_state_checksum, FileClass.CONFIG: version.config_checksum}
        for kind, checksum in stated.items():
            found = versions.checksum(files, manifest, kind)
            if found != checksum:
                what = f"the commit states {kind.value} checksum {checksum}, its files give {found}"
                self._say("commit", what, label, object=oid.hex(), expected=checksum, found=found)

    def _parent_version(self, label: str, oid: ObjectId, commit: Commit, stated: str | None) -> None:
        found = None
        if commit.parent is not None:
            try:
                found = versions.describe(self._repo, commit.parent).version
            except KaiError as error:
                unless_short(error)
                return  # said of the parent
        if found != stated:
            what = f"the commit states parent version {stated}, its parent is {found}"
            self._say("commit", what, label, object=oid.hex())

    # ------------------------------------------------------------ objects

    def _tree(self, label: str, oid: ObjectId, prefix: bytes, depth: int) -> bool:
        """Follow a tree; whether all below it is whole."""
        if oid in self._clean or self._is_trusted(oid, Kind.TREE):
            return True
        self._again[oid] = self._again.get(oid, 0) + 1
        if self._again[oid] > MANY:
            return False  # a damaged directory that stands in so many places: some of them are named
        if not self._object(oid, label, prefix or None):
            return False
        if depth > MAX_DEPTH:
            self._say("commit", "a tree is nested too deep", label, path=os.fsdecode(prefix[:SHOWN]), object=oid.hex())
            return False
        try:
            entries = self._repo.store.tree(oid)
        except KaiError as error:
            unless_short(error)
            self._say("commit", error.what, label, path=os.fsdecode(prefix) or None, object=oid.hex())
            return False
        whole = True
        for name, entry in entries:
            if entry.mode == DIRECTORY:
                whole &= self._tree(label, entry.oid, prefix + name + b"/", depth + 1)
            else:
                whole &= self._file(entry.oid, label, prefix + name)
        if whole:
            self._clean.add(oid)
        return whole

    def _file(self, oid: ObjectId, label: str, path: bytes) -> bool:
        if self._is_trusted(oid, Kind.BLOB):
            return True
        if not self._object(oid, label, path):
            return False
        if oid not in self._files:
            if self._repo.store.kind(oid) is not Kind.BLOB:
                what = "what is said to be a file there is none"
                self._say("commit", what, label, path=os.fsdecode(path), object=oid.hex())
                return False
            self._files.add(oid)
        return True

    def _is_trusted(self, oid: ObjectId, kind: Kind) -> bool:
        return self._trusted is not None and self._trusted.has(oid, kind)

    def _object(self, oid: ObjectId, label: str, path: bytes | None) -> bool:
        if oid not in self._known:
            self._known[oid] = self._problem_of(oid)
            self._repo.home.progress("following versions", len(self._known), None)
        if self._known[oid] is None:
            return True
        self._hits.setdefault((oid, path), []).append(label)
        return False

    def _rehash(self, oid: ObjectId) -> Damage | None:
        try:
            self._repo.store.check(oid)
            self.size += self._repo.store.size(oid)
        except KaiError as error:
            unless_short(error)
            facts = error.facts
            pack, offset = facts.get("pack"), facts.get("offset")
            return Damage(
                "object",
                error.what,
                self._repo.name,
                pack if isinstance(pack, str) else None,
                offset if isinstance(offset, int) else None,
                object=oid.hex(),
            )
        return None

    def _say(self, where: str, what: str, label: str, **more: str | None) -> None:
        """Note a finding; ``more`` are its path, object, expected and found."""
        self._said.append(replace(Finding(where, what, self._repo.name, (label,)), **more))  # type: ignore[arg-type]
