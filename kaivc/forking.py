"""Fork an agent: one that begins with the versions up to a revision of another, and shares its sealed packs.

A sealed pack never changes, so a second name for it (a hard link) is as good as a copy, and outlives the first. What
lies in a pack that may still grow is copied. Every record that the fork will need is read and compared first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from kaivc import intents, making, revisions, trees, versions
from kaivc.errors import ChecksumMismatch, InvalidManifest, StorageFailed
from kaivc.making import Beginning
from kaivc.manifest import DEFAULT, Manifest
from kaivc.names import (
    Absent,
    ObjectId,
    RefName,
    RefUpdate,
    Version,
    backup_ref,
    current_ref,
    heads_prefix,
    version_ref,
)
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.storage import index
from kaivc.storage.gitobjects import DIRECTORY, Kind, MalformedObject, Tag, encode_tag
from kaivc.storage.index import ObjectRow, PackRow, PackState
from kaivc.storage.journal import Op
from kaivc.storage.pack import RecordKind
from kaivc.storage.writer import StoreWriter
from kaivc.trees import MAX_DEPTH, Files, show
from kaivc.versions import AgentVersion

FIRST = 1
"""The number of a new agent's first operation."""

Shared = list[tuple[PackRow, list[ObjectRow]]]


@dataclass(frozen=True)
class Forked:
    """What a fork took along.

    ``revision`` of ``agent`` is what was asked for, ``current`` the version in force in the fork (None if the revision
    comes after no version), ``kept_as`` the branch that holds the revision if it is no version itself. Bytes are those
    of records: in packs that both have, and copied.
    """

    agent: str
    revision: str
    commit: str
    current: str | None
    versions: tuple[str, ...]
    kept_as: str | None
    objects: int
    shared_bytes: int
    copied_bytes: int


def fork(source: Repository, rev: str, name: str) -> tuple[Forked, int]:
    """Make the agent ``name`` of a revision of ``source``; what it took along, and its number of files.

    The name is held, and free. ``source`` may be removed, and is held meanwhile, so that nothing collects what the
    revision names. ChecksumMismatch names the version and the path whose record is damaged; nothing is
    made then.
    """
    home = source.home
    with StoreWriter(making.newborn(home, name).store) as writer:
        with source.lock(removed=True):
            start = revisions.resolve(source, rev)
            ancestry = _Walk(source).run(start)
            with making.prepared(home, name) as workspace:
                making.prepare_packs(home, name)
                files = making.fill(source.store, workspace, *_workspace_of(source, start), home)
                shared = _share(source, name, ancestry.rows)
                copied = _copy(source, writer, ancestry.rows, {row.id for row, _ in shared})
                names = _Names(source, start, name, ancestry)
                beginning = names.beginning(writer, shared)
                home.vfs.sync_disk()
        making.begin(home, name, writer, beginning)
    forked = Forked(
        agent=source.name,
        revision=start.tag,
        commit=start.commit,
        current=names.in_force.tag if names.in_force else None,
        versions=tuple(str(number) for number in sorted(names.numbers)),
        kept_as=names.kept_as,
        objects=len(ancestry.rows),
        shared_bytes=sum(index.stored_bytes(rows) for _, rows in shared),
        copied_bytes=copied,
    )
    return forked, files


def _workspace_of(source: Repository, start: AgentVersion) -> tuple[Files, Manifest]:
    files = trees.flatten(source.store, start.tree_oid)
    try:
        return files, versions.manifest_of(source, start.tree_oid)
    except InvalidManifest:  # a backup may hold one that was being written
        return files, DEFAULT


# ---------------------------------------------------------------- what can be reached


@dataclass(frozen=True)
class Ancestry:
    """The commits from a revision back to the first, and where every record that they need lies."""

    commits: tuple[AgentVersion, ...]
    tags: Mapping[ObjectId, Tag]
    rows: Mapping[bytes, ObjectRow]


class _Walk:
    """Reads everything that can be reached; the first record that is not whole ends it."""

    def __init__(self, source: Repository) -> None:
        self._source = source
        self._store = source.store
        self._rows: dict[bytes, ObjectRow] = {}
        self._bases: dict[bytes, ObjectRow] = {}

    def run(self, start: AgentVersion) -> Ancestry:
        self._store.forget()
        commits: list[AgentVersion] = []
        tags: dict[ObjectId, Tag] = {}
        oid: ObjectId | None = start.oid
        while oid is not None:
            with self._blamed(commits[-1].parent or "the first" if commits else start.tag, b""):
                self._strict(oid)
                version = versions.describe(self._source, oid)
            with self._blamed(version.tag, b""):
                tag = self._tag_of(version)
            if tag is not None:
                tags[oid] = tag
            self._tree(version.tag, version.tree_oid, b"")
            commits.append(version)
            oid = ObjectId(bytes.fromhex(version.parent_commit)) if version.parent_commit else None
        return Ancestry(tuple(commits), tags, self._bases | self._rows)

    def _tag_of(self, version: AgentVersion) -> Tag | None:
        """The tag that makes a commit a version, if one does."""
        if version.version is None:
            return None
        found = self._source.ref(version_ref(self._source.name, Version.parse(version.version)))
        if found is None:
            return None
        self._store.check(found)
        tag = self._store.tag(found)
        return tag if tag.target == version.oid else None

    def _tree(self, tag: str, oid: ObjectId, prefix: bytes) -> None:
        if oid in self._rows:
            return
        with self._blamed(tag, prefix):
            if prefix.count(b"/") > MAX_DEPTH:
                raise MalformedObject("a tree that is deeper than any disk")
            self._strict(oid)
            entries = self._store.tree(oid)
        for name, entry in entries:
            if entry.mode == DIRECTORY:
                self._tree(tag, entry.oid, prefix + name + b"/")
            elif entry.oid not in self._rows:
                with self._blamed(tag, prefix + name):
                    self._blob(entry.oid)

    def _strict(self, oid: ObjectId) -> None:
        """What everything else hangs on is re-hashed."""
        self._store.check(oid)
        self._note(self._store.require(oid))

    def _blob(self, oid: ObjectId) -> None:
        """Contents are compared with their records' checksums, each once."""
        row = self._store.require(oid)
        if row.kind == RecordKind.CHUNK_LIST:
            self._chunks(row)
        elif row.kind == RecordKind.BLOB:
            for _ in self._store.stream(oid):
                pass
        else:
            raise ChecksumMismatch(f"object {oid.hex()} is no blob")
        self._note(row)

    def _chunks(self, row: ObjectRow) -> None:
        for chunk, _ in self._store.chunk_list(row):
            if chunk not in self._rows:
                found = self._store.require(chunk)
                self._store.record(found)
                self._note(found)

    def _note(self, row: ObjectRow) -> None:
        """Take a record along, with all that it is encoded with; a list of chunks is nothing without them."""
        self._rows[row.id] = row
        self._source.home.progress("reading", len(self._rows), None)
        while row.base is not None and row.base not in self._bases:
            below = self._store.require(row.base)
            self._bases[below.id] = row = below
            if row.kind == RecordKind.CHUNK_LIST and row.id not in self._rows:
                self._chunks(row)

    @contextmanager
    def _blamed(self, tag: str, path: bytes) -> Iterator[None]:
        try:
            yield
        except ChecksumMismatch as error:
            at = f"{tag} {show(path)}".rstrip()
            raise ChecksumMismatch(
                f"{self._source.name} cannot be forked, for {at} is damaged: {error.what}",
                unchanged="nothing was made",
                hint=f"see all that is hit with `kai verify {self._source.name}`; "
                "a version that does not come after a damaged one can be forked",
                agent=self._source.name,
                version=tag,
                path=show(path),
            ) from error


# ---------------------------------------------------------------- bytes


def _share(source: Repository, name: str, rows: Mapping[bytes, ObjectRow]) -> Shared:
    """Link the sealed packs that hold some of ``rows``; each with those that it holds.

    Where a link cannot be had (another disk, another owner, too many) the pack is left out.
    """
    held: dict[int, list[ObjectRow]] = {}
    for row in rows.values():
        held.setdefault(row.pack, []).append(row)
    layout, shared = source.layout, []
    for pack in index.packs(source.catalog, source.id):
        if pack.id in held and pack.state == PackState.SEALED:
            with suppress(StorageFailed):
                source.vfs.link(layout.pack(source.name, pack.name), layout.pack(name, pack.name))
                shared.append((pack, held[pack.id]))
    return shared


def _copy(source: Repository, writer: StoreWriter, rows: Mapping[bytes, ObjectRow], shared: set[int]) -> int:
    """Copy the records that lie in no shared pack; their bytes."""
    wanted = index.by_record(row for row in rows.values() if row.pack not in shared)
    for number, group in enumerate(wanted):
        source.home.progress("copying", number, len(wanted))
        writer.copy(group, source.store.stored(group[0]))
    return sum(group[0].length for group in wanted)


# ---------------------------------------------------------------- names


class _Names:
    """What a fork's refs are, and the operation that makes them."""

    def __init__(self, source: Repository, start: AgentVersion, name: str, ancestry: Ancestry) -> None:
        self._source = source
        self._start = start
        self._name = name
        self._tags = ancestry.tags
        tagged = [version for version in ancestry.commits if version.oid in ancestry.tags]
        self.in_force = tagged[0] if tagged else None
        self.numbers = {Version.parse(version.version): version for version in tagged if version.version}
        self._branch = None if start.oid in ancestry.tags else self._branch_of_start()
        self.kept_as = self._branch.removeprefix(heads_prefix(name)) if self._branch else None

    def _branch_of_start(self) -> RefName:
        """A snapshot keeps its name; what else is no version is the new agent's first backup."""
        heads = heads_prefix(self._source.name)
        for ref, oid in self._source.refs(heads + "snapshots/").items():
            if oid == self._start.oid:
                return RefName(heads_prefix(self._name) + ref.removeprefix(heads))
        return backup_ref(self._name, FIRST)

    def beginning(self, writer: StoreWriter, shared: Sequence[tuple[PackRow, Sequence[ObjectRow]]]) -> Beginning:
        """Add the tags, which say the new name, and state what the new agent begins with."""
        home, start = self._source.home, self._start
        reason = f"from {self._source.name}@{start.tag} ({start.commit})"
        moves: dict[RefName, ObjectId] = {}
        if self.in_force is not None:
            moves[current_ref(self._name)] = self.in_force.oid
        for number in sorted(self.numbers):
            tag = self._tags[self.numbers[number].oid]
            ref = version_ref(self._name, number)
            text = Tag(tag.target, ref.removeprefix("refs/tags/"), tag.who, tag.time, tag.message)
            moves[ref] = writer.put(Kind.TAG, encode_tag(text))
        if self._branch is not None:
            moves[self._branch] = start.oid
        updates = [RefUpdate(ref, Absent(), oid, home.actor, reason) for ref, oid in moves.items()]
        op_id = self._source.new_op_id()
        op = Op("fork", op_id, str(home.actor), home.clock.now_ns(), reason, workspace=True)
        todo = [intents.link(), intents.log()] if self.in_force is not None else []
        return Beginning(op, updates, todo, shared)
