"""An agent's history in the other hash format: the same files and words under other ids, always the same ones.

A blob keeps its bytes; a tree, a commit and a tag name others by their other ids. The message of a commit gets one more
trailer at its end, ``Kai-Origin: FORMAT:ID``, that of a tag a last paragraph of it: so anybody can find what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kaivc import gitpacks
from kaivc.errors import ChecksumMismatch
from kaivc.gitpacks import Entry, PackPlan
from kaivc.names import ObjectId
from kaivc.records import replace
from kaivc.repository import Repository
from kaivc.storage import mirrors
from kaivc.storage.gitobjects import DIRECTORY, Kind, ObjectFormat, encode_commit, encode_tag, encode_tree

TRAILER = "Kai-Origin"
NOTED_AT_ONCE = 20_000


class Reencoder:
    """Knows, and finds out, the ids of an agent's objects in the format ``other``."""

    def __init__(self, repo: Repository, other: ObjectFormat) -> None:
        self._repo = repo
        self._store = repo.store
        self.other = other
        self._known: dict[bytes, bytes] = {}
        self._fresh: dict[bytes, bytes] = {}
        self.made = 0

    # ------------------------------------------------------------ ids

    def origins(self, others: Iterable[bytes]) -> dict[bytes, bytes]:
        """The commits and tags here that have these ids over there, as far as an earlier run noted them."""
        return mirrors.origins(self._repo.catalog, self._repo.id, self.other.name, others)

    def ids(self, oids: Sequence[bytes]) -> dict[bytes, bytes]:
        """The other ids of commits and tags; what they lead to is read and hashed unless an earlier run did."""
        for oid in oids:
            self._commits(ObjectId(oid))
        self._note()
        return {oid: self._known[oid] for oid in oids}

    def _commits(self, oid: ObjectId) -> None:
        """A commit or tag, with all that is behind it, oldest first."""
        if self._has(oid):
            return
        todo = [oid]
        while todo:
            at = todo[-1]
            before = self._before(at)
            if before is not None and not self._has(before):
                todo.append(before)
                continue
            if not self._has(at):
                self._add(at, self._kind(at), self._text(at))
            todo.pop()

    def _kind(self, oid: ObjectId) -> Kind:
        return self._store.kind(oid)

    def _before(self, oid: ObjectId) -> ObjectId | None:
        if self._kind(oid) is Kind.TAG:
            return self._store.tag(oid).target
        return self._store.commit(oid).parent

    def _has(self, oid: bytes) -> bool:
        if oid not in self._known:
            self._known.update(mirrors.find(self._repo.catalog, self._repo.id, self.other.name, [oid]))
        return oid in self._known

    def _add(self, oid: bytes, kind: Kind, data: bytes) -> None:
        self._put(oid, self.other.hash(kind, data))

    def _put(self, oid: bytes, other: bytes) -> None:
        self._known[oid] = self._fresh[oid] = other
        self.made += 1
        if len(self._fresh) >= NOTED_AT_ONCE:
            self._note()
        self._repo.home.progress("re-encoding", self.made, None)

    def _note(self) -> None:
        """Keep what was found out: nothing of it can change."""
        fresh, self._fresh = self._fresh, {}
        if fresh and not self._repo.home.read_only:
            mirrors.put(self._repo.catalog, self._repo.id, self.other.name, fresh)

    # ------------------------------------------------------------ objects

    def _text(self, oid: ObjectId) -> bytes:
        """The other bytes of a commit or tag whose ids are known."""
        origin = f"{TRAILER}: {self._repo.home.format.name}:{oid.hex()}\n"
        if self._kind(oid) is Kind.TAG:
            tag = self._store.tag(oid)
            message = f"{tag.message.rstrip(chr(10))}\n\n{origin}".lstrip("\n")
            return encode_tag(replace(tag, target=ObjectId(self._known[tag.target]), message=message))
        commit = self._store.commit(oid)
        self._tree(commit.tree)
        parent = None if commit.parent is None else ObjectId(self._known[commit.parent])
        tree = ObjectId(self._known[commit.tree])
        return encode_commit(replace(commit, tree=tree, parent=parent, message=commit.message + origin))

    def _tree(self, oid: ObjectId) -> None:
        """Find out the id of a tree, and of all below it; trees are nested no deeper than their reader allows."""
        if self._has(oid):
            return
        entries = self._store.tree(oid)
        unknown = [entry.oid for _, entry in entries if entry.oid not in self._known]
        self._known.update(mirrors.find(self._repo.catalog, self._repo.id, self.other.name, unknown))
        for _, entry in entries:
            if entry.mode == DIRECTORY:
                self._tree(entry.oid)
            elif entry.oid not in self._known:
                self._blob(entry.oid)
        self._add(oid, Kind.TREE, self._tree_text(oid))

    def _tree_text(self, oid: ObjectId) -> bytes:
        entries = (
            (name, entry._replace(oid=ObjectId(self._known[entry.oid]))) for name, entry in self._store.tree(oid)
        )
        return encode_tree(entries)

    def _blob(self, oid: ObjectId) -> None:
        """Hash a file both ways: what is damaged here gets no good name over there."""
        size = self._store.size(oid)
        mine, other = self._repo.home.format.header(Kind.BLOB, size), self.other.header(Kind.BLOB, size)
        for piece in self._store.stream(oid):
            mine.update(piece)
            other.update(piece)
        if mine.digest() != oid:
            raise ChecksumMismatch(
                f"the stored bytes of {oid.hex()} are not those of its id",
                unchanged="nothing was sent",
                hint=f"`kai fsck {self._repo.name}` says which versions are hit",
                object=oid.hex(),
            )
        self._put(oid, other.digest())

    # ------------------------------------------------------------ packs

    def written(self, plan: PackPlan) -> Iterator[bytes]:
        """The bytes of a pack of the objects of a plan, which names them by their ids here, as they are over there."""
        return gitpacks.written(self.other, len(plan.rows), self._entries(plan))

    def _entries(self, plan: PackPlan) -> Iterator[Entry]:
        for row, entry in zip(plan.rows, gitpacks.entries(self._repo, plan), strict=True):
            if entry.base:
                yield entry._replace(base=self._id(entry.base))
            elif entry.kind is Kind.BLOB:
                yield entry
            else:
                oid = ObjectId(row.id)
                self._learn(oid, entry.kind)
                data = self._tree_text(oid) if entry.kind is Kind.TREE else self._text(oid)
                yield Entry(entry.kind, len(data), [data])

    def _id(self, blob: bytes) -> bytes:
        """The other id of a file; one that this pack is of, or that the other side has."""
        if not self._has(blob):
            self._blob(ObjectId(blob))
        return self._known[blob]

    def _learn(self, oid: ObjectId, kind: Kind) -> None:
        """Have the ids at hand that an object names."""
        if kind is Kind.TREE:
            named = [entry.oid for _, entry in self._store.tree(oid)]
        elif kind is Kind.TAG:
            named = [self._store.tag(oid).target]
        else:
            commit = self._store.commit(oid)
            named = [commit.tree, *([commit.parent] if commit.parent else [])]
        unknown = [it for it in named if it not in self._known]
        self._known.update(mirrors.find(self._repo.catalog, self._repo.id, self.other.name, unknown))
        for it in named:  # what is noted may be damaged
            if it not in self._known:
                find = {Kind.BLOB: self._blob, Kind.TREE: self._tree}.get(self._kind(it), self._commits)
                find(it)
