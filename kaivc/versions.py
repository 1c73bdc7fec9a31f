"""Versions: what a commit says of itself, how one is written, and which there are.

A commit's message is the notes, then one last paragraph of trailers. A checksum is SHA-256 over the records that
``git ls-tree -r -z --full-tree COMMIT`` prints, kept to the paths of a class.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime

from kaivc import manifest as manifests
from kaivc import trees
from kaivc.errors import ChecksumMismatch, InvalidManifest, InvalidName, NoSuchRevision, NoVersionYet, VersionTaken, hit
from kaivc.manifest import MANIFEST, FileClass, Manifest
from kaivc.names import FIRST_VERSION, WITHDRAWN, Actor, ObjectId, RefName, Version, tag_name, tags_prefix, version_ref
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.storage import caches, journal
from kaivc.storage.gitobjects import (
    EXECUTABLE,
    FILE,
    Commit,
    Kind,
    MalformedObject,
    ObjectSink,
    Tag,
    clean_message,
    encode_commit,
    encode_tag,
)
from kaivc.storage.store import ObjectStore
from kaivc.trees import Files
from kaivc.yamltext import MAX_BYTES

TRAILERS = (
    "Kai-Format",
    "Kai-Version",
    "Kai-Parent-Version",
    "Kai-Snapshot-Type",
    "Kai-State-Checksum",
    "Kai-Config-Checksum",
)
FORMAT = "1"
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}\Z")
SNAPSHOT_TYPES = ("auto", "manual", "rollback")
MAX_NOTES = 64 << 10
SHORT = 12
"""Digits that stand for a commit in what people read."""
DESCRIBED = 16
"""How many versions are kept described: a commit asks ten times for the old one and the new."""


@dataclass(frozen=True)
class AgentVersion:
    """A version, or a backup (then ``version`` is None). Ids in hex, ``created`` as RFC 3339 UTC."""

    agent: str
    version: str | None
    commit: str
    tree: str
    parent_commit: str | None
    parent: str | None
    created: str
    author: str
    notes: str
    snapshot_type: str
    agent_state_checksum: str
    config_checksum: str

    @property
    def oid(self) -> ObjectId:
        """The raw id of the commit."""
        return ObjectId(bytes.fromhex(self.commit))

    @property
    def tree_oid(self) -> ObjectId:
        """The raw id of the tree."""
        return ObjectId(bytes.fromhex(self.tree))

    @property
    def is_backup(self) -> bool:
        """Whether it holds what a rollback left, as it was, and not what a version may hold."""
        return self.version is None and self.snapshot_type == "rollback"

    @property
    def tag(self) -> str:
        """``v1.2.3``; the first digits of the hash for what has no number."""
        return f"v{self.version}" if self.version else self.commit[:SHORT]

    def snapshot_meta(self) -> dict[str, str | None]:
        """What ``snapshot_meta.json`` holds."""
        return {
            "version": self.version,
            "created": self.created,
            "commit_hash": self.commit,
            "parent": self.parent,
            "snapshot_type": self.snapshot_type,
            "notes": self.notes,
            "agent_state_checksum": self.agent_state_checksum,
            "config_checksum": self.config_checksum,
        }


# ---------------------------------------------------------------- checksums


def checksum(files: Files, manifest: Manifest, kind: FileClass) -> str:
    """The checksum of the files of a class; of nothing if there is none."""
    digest = hashlib.sha256()
    for path in sorted(files):
        if manifest.file_class(path) is kind:
            entry = files[path]
            digest.update(b"%06o blob %s\t%s\0" % (entry.mode, entry.oid.hex().encode(), path))
    return "sha256:" + digest.hexdigest()


def manifest_of(repo: Repository, tree: ObjectId) -> Manifest:
    """The manifest that stands in a tree, or the default; InvalidManifest if it cannot be read."""
    entry = trees.find(repo.store, tree, MANIFEST)
    if entry is None:
        return manifests.DEFAULT
    if entry.mode not in (FILE, EXECUTABLE):
        raise InvalidManifest(f"{MANIFEST.decode()} is no plain file")
    if repo.store.size(entry.oid) > MAX_BYTES:
        raise InvalidManifest(f"{MANIFEST.decode()} has more than {MAX_BYTES} bytes")
    return manifests.parse(repo.store.read(entry.oid, Kind.BLOB), MANIFEST.decode())


# ---------------------------------------------------------------- writing


@dataclass(frozen=True)
class Draft:
    """What a new commit will say; ``version`` of None makes a backup. ``time`` in whole seconds UTC."""

    files: Files
    manifest: Manifest
    parent: AgentVersion | None
    version: Version | None
    notes: str
    snapshot_type: str
    actor: Actor
    time: int


def check_notes(notes: str) -> str:
    """Return notes that a commit can hold; InvalidName otherwise."""
    try:
        size = len(notes.encode())
    except UnicodeEncodeError as error:
        raise InvalidName("the notes are not valid Unicode", unchanged="nothing was committed") from error
    if "\0" in notes or size > MAX_NOTES:
        raise InvalidName(
            f"the notes hold a NUL or more than {MAX_NOTES} bytes",
            unchanged="nothing was committed",
            hint="shorten them; a file of the agent may hold the rest",
        )
    return notes


def write_commit(sink: ObjectSink, draft: Draft, store: ObjectStore, *, fold: bool = True) -> ObjectId:
    """Add the trees and the commit of a draft, whose parent is in ``store``; the commit's id."""
    before = None
    with suppress(ChecksumMismatch):  # what is damaged is not built upon
        before = trees.directories(store, draft.parent.tree_oid) if draft.parent else None
    commit = compose(sink, draft, fold=fold, before=before)
    # It stands alone: what damages one version's commit must not hide those after it.
    return sink.put(Kind.COMMIT, encode_commit(commit))


def compose(
    sink: ObjectSink, draft: Draft, *, fold: bool = True, before: Mapping[bytes, ObjectId] | None = None
) -> Commit:
    """Add the trees of a draft, in which ``before`` are those of its parent; the commit that is to be."""
    tree = trees.build(sink, draft.files, fold=fold, before=before)
    values = {
        "Kai-Format": FORMAT,
        "Kai-Version": str(draft.version) if draft.version else "",
        "Kai-Parent-Version": (draft.parent.version or "") if draft.parent else "",
        "Kai-Snapshot-Type": draft.snapshot_type,
        "Kai-State-Checksum": checksum(draft.files, draft.manifest, FileClass.STATE),
        "Kai-Config-Checksum": checksum(draft.files, draft.manifest, FileClass.CONFIG),
    }
    trailers = "\n".join(f"{name}: {value}" for name, value in values.items() if value)
    message = clean_message(draft.notes) + "\n" + trailers + "\n"
    parent = draft.parent.oid if draft.parent else None
    return Commit(tree, parent, str(draft.actor), draft.time, message)


def write_tag(repo: Repository, sink: ObjectSink, draft: Draft, version: Version, commit: ObjectId) -> ObjectId:
    """Add the annotated tag of a version; the tag's id."""
    name = version_ref(repo.name, version).removeprefix("refs/tags/")
    tag = Tag(commit, name, str(draft.actor), draft.time, clean_message(draft.notes))
    return sink.put(Kind.TAG, encode_tag(tag))  # it stands alone: it says what a damaged commit was


# ---------------------------------------------------------------- reading


def describe(repo: Repository, oid: ObjectId) -> AgentVersion:
    """What a commit says; ChecksumMismatch if it is damaged, or none of ours."""
    kept = repo.store.described
    found: AgentVersion | None = kept.get(oid)
    if found is None:
        with hit(f"commit {oid.hex()[:SHORT]} of {repo.name}", agent=repo.name, commit=oid.hex()):
            found = of_commit(repo.name, oid, repo.store.commit(oid))
        while len(kept) >= DESCRIBED:
            del kept[next(iter(kept))]
        kept[oid] = found
    return found


def of_commit(agent: str, oid: ObjectId, commit: Commit) -> AgentVersion:
    """What a commit says, once it is read; MalformedObject if it is none of ours."""
    notes, trailers = parse_message(commit.message)
    return AgentVersion(
        agent=agent,
        version=trailers.get("Kai-Version"),
        commit=oid.hex(),
        tree=commit.tree.hex(),
        parent_commit=commit.parent.hex() if commit.parent else None,
        parent=trailers.get("Kai-Parent-Version"),
        created=rfc3339(commit.time),
        author=commit.who,
        notes=notes,
        snapshot_type=trailers["Kai-Snapshot-Type"],
        agent_state_checksum=trailers["Kai-State-Checksum"],
        config_checksum=trailers["Kai-Config-Checksum"],
    )


def parent(repo: Repository, version: AgentVersion) -> AgentVersion | None:
    """What came before a version; raises what ``describe`` raises."""
    return describe(repo, ObjectId(bytes.fromhex(version.parent_commit))) if version.parent_commit else None


def ancestors(repo: Repository, version: AgentVersion) -> Iterator[AgentVersion]:
    """The versions before one, newest first; MalformedObject for one that comes before itself, and as ``describe``."""
    seen = {version.commit}
    at = parent(repo, version)
    while at is not None:
        if at.commit in seen:
            raise MalformedObject(f"commit {at.commit[:SHORT]} of {repo.name} comes before itself")
        seen.add(at.commit)
        yield at
        at = parent(repo, at)


def parse_message(message: str) -> tuple[str, dict[str, str]]:
    """The notes and the trailers; MalformedObject unless each needed one is there once, in order."""
    notes, _, last = message.rstrip("\n").rpartition("\n\n")
    pairs = [line.partition(": ") for line in last.split("\n")]
    names = [name for name, _, _ in pairs]
    needed = {"Kai-Format", "Kai-Snapshot-Type", "Kai-State-Checksum", "Kai-Config-Checksum"}
    if names != [name for name in TRAILERS if name in names] or not needed <= set(names):
        raise MalformedObject("a commit's message does not end with the trailers of a version")
    trailers = {name: value for name, _, value in pairs}
    if trailers["Kai-Snapshot-Type"] not in SNAPSHOT_TYPES:
        raise MalformedObject(f"a commit of type {trailers['Kai-Snapshot-Type']!r:.80}")
    if trailers["Kai-Format"] != FORMAT:
        raise MalformedObject(f"a commit of format {trailers['Kai-Format']!r:.80}")
    for name in ("Kai-State-Checksum", "Kai-Config-Checksum"):
        if not _CHECKSUM.match(trailers[name]):
            raise MalformedObject(f"a commit with {name} {trailers[name]!r:.80}")
    for name in ("Kai-Version", "Kai-Parent-Version"):
        if name in trailers:
            try:
                Version.parse(trailers[name])
            except InvalidName as error:
                raise MalformedObject(f"a commit of version {trailers[name]!r:.80}") from error
    return notes, trailers


def rfc3339(seconds: int) -> str:
    """A time as ``2026-11-01T12:00:00Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unreadable(repo: Repository, oid: ObjectId) -> AgentVersion:
    """What stands for a commit whose bytes are damaged: its id, and nothing else."""
    return AgentVersion(repo.name, None, oid.hex(), "", None, None, "", "", "", "", "", "")


def numbers(repo: Repository) -> list[Version]:
    """The numbers of all versions, lowest first."""
    prefix = tags_prefix(repo.name)
    return sorted((Version.parse(name.removeprefix(prefix)) for name in repo.refs(prefix)), key=lambda it: it.key)


def highest(repo: Repository) -> Version | None:
    """The highest number of any version: what is noted, and what was named since. Under the agent's lock."""
    if repo.remembered.highest is not None and repo.remembered.highest[0] == repo.row().op_seq:
        return repo.remembered.highest[1]
    noted, prefix = caches.highest(repo.catalog, repo.id), tags_prefix(repo.name)
    if noted is not None and noted[0] <= repo.row().op_seq:
        since = journal.made_since(repo.catalog, repo.id, prefix, noted[0])
        with suppress(InvalidName):
            return max(map(Version.parse, [noted[1], *(name.removeprefix(prefix) for name in since)]))
    return max([*numbers(repo), *_numbers_elsewhere(repo)], default=None)


def _numbers_elsewhere(repo: Repository) -> Iterator[Version]:
    """The numbers of versions that a remote was seen to have, and of those that were withdrawn."""
    for name in _refs_elsewhere(repo):
        with suppress(InvalidName):
            yield Version.parse(name.rsplit("/", 1)[1])


def _refs_elsewhere(repo: Repository) -> list[RefName]:
    names = [*repo.refs("refs/remotes/"), *repo.refs(WITHDRAWN)]
    return [name for name in names if tag_name(name) is not None]


def choose_number(repo: Repository, wanted: Version | None, bump: str | None, last: Version | None) -> Version:
    """The number of a new version: ``wanted``, VersionTaken if it is not free; else ``bump`` counts from ``last``."""
    if wanted is None:
        FIRST_VERSION.bump(bump or "patch")
        return last.bump(bump or "patch") if last else FIRST_VERSION
    tag = repo.ref(version_ref(repo.name, wanted))
    if tag is not None:
        raise VersionTaken(
            f"{repo.name}@{wanted.tag} is taken by {repo.store.tag(tag).target.hex()[:SHORT]}",
            unchanged="nothing was committed",
            hint="a version number is used once; choose another, or use --bump",
            version=str(wanted),
        )
    elsewhere = next((name for name in _refs_elsewhere(repo) if name.rsplit("/", 1)[1] == wanted.tag), None)
    if elsewhere is not None:
        where = "was withdrawn here" if elsewhere.startswith(WITHDRAWN) else f"is known at {elsewhere.split('/')[2]}"
        raise VersionTaken(
            f"{repo.name}@{wanted.tag} {where}",
            unchanged="nothing was committed",
            hint="a version number is used once; choose another, or use --bump",
            version=str(wanted),
        )
    return wanted


@dataclass(frozen=True)
class DamagedVersion:
    """A version that cannot be read: its number, its commit as far as the tag still says it, and why."""

    version: str
    commit: str | None
    problem: str


def every(repo: Repository) -> tuple[list[AgentVersion], list[DamagedVersion]]:
    """All versions, lowest number first: those that can be read, and those that cannot."""
    good: list[AgentVersion] = []
    bad: list[DamagedVersion] = []
    prefix = tags_prefix(repo.name)
    for name in journal.ref_names(repo.catalog, repo.id, prefix):
        try:
            good.append(of_tag(repo, name))
        except ChecksumMismatch as error:
            number = name.removeprefix(prefix).removeprefix("v")
            bad.append(DamagedVersion(number, _target(repo, name), error.what))
    return sorted(good, key=_number), sorted(bad, key=_number)


def _number(it: AgentVersion | DamagedVersion) -> tuple[int, Version | str]:
    """What to sort by; names that are no numbers, which a damaged row may have, come last."""
    try:
        return 0, Version.parse(it.version or "")
    except InvalidName:
        return 1, it.version or ""


def _target(repo: Repository, name: RefName) -> str | None:
    try:
        oid = repo.ref(name)
        return repo.store.tag(oid).target.hex() if oid else None
    except ChecksumMismatch:
        return None


def of_tag(repo: Repository, name: RefName) -> AgentVersion:
    """The version that a tag names; ChecksumMismatch if one of them is damaged, or if they disagree."""
    oid = repo.ref(name)
    if oid is None:
        raise NoSuchRevision(f"there is no {name}", ref=name)
    number = name.removeprefix(tags_prefix(repo.name))
    with hit(number, agent=repo.name, version=number):
        tag = repo.store.tag(oid)
        version = describe(repo, tag.target)
        if tag.name != name.removeprefix("refs/tags/") or tag.name != f"{repo.name}/v{version.version}":
            raise MalformedObject(f"the tag {name} names {tag.name!r:.120}, its commit says {version.version}")
    return version


def current(repo: Repository) -> AgentVersion:
    """The version in force; NoVersionYet if there is none."""
    oid = repo.current
    if oid is None:
        raise NoVersionYet(
            f"agent {repo.name} has no version yet",
            hint=f"make one with `kai commit {repo.name}`",
            agent=repo.name,
        )
    with hit("the version in force", agent=repo.name):
        return describe(repo, oid)
