"""Plan the collection of what nothing reaches: look, mark, weigh the packs.

Over records only: which names are roots is said by the caller. A plan is a value; ``switching.py`` carries it out. The
whole algorithm stands in docs/design/collection.md.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

from kaivc.errors import ChecksumMismatch, LostRace, UnknownFormat
from kaivc.names import ObjectId, ReflogEntry, RefName
from kaivc.ports import Progress
from kaivc.records import dataclass
from kaivc.storage import index, journal, packscan
from kaivc.storage.catalog import AgentRow
from kaivc.storage.gitobjects import DIRECTORY, decode_commit, decode_tag, decode_tree
from kaivc.storage.index import ObjectRow, PackRow, PackState
from kaivc.storage.journal import OpRow
from kaivc.storage.pack import MAGIC, PackReader, RecordKind
from kaivc.storage.packscan import Gap, Record
from kaivc.storage.store import ObjectStore

SHARE = 0.25
"""A pack is rewritten when at least this share of it is dead, ..."""
WORTH = 4096
"""... and at least so many bytes, a block of most disks."""
MERGE = 8
"""So many packs of less than a quarter of ``packs.seal_at`` are made one."""
SUFFIX = ".pack"


# ---------------------------------------------------------------- what there is


@dataclass(frozen=True)
class Contents:
    """One consistent look at an agent: its names and all rows; ``held`` are open packs that no writer is at."""

    agent: AgentRow
    refs: Mapping[RefName, ObjectId]
    log: tuple[ReflogEntry, ...]
    rows: Mapping[bytes, ObjectRow]
    ops: tuple[OpRow, ...]
    packs: tuple[PackRow, ...]
    files: frozenset[str]
    held: frozenset[str]


@contextmanager
def hold_open_packs(store: ObjectStore) -> Iterator[dict[str, int]]:
    """Keep writers off the agent's open packs that are free: the descriptor that locks each, by the pack's name."""
    held: dict[str, int] = {}
    try:
        for pack in index.packs(store.catalog, store.place.agent_id):
            if pack.state == PackState.OPEN and (fd := _lock(store, pack.name)) is not None:
                held[pack.name] = fd
        yield held
    finally:
        release(held, list(held))


def release(held: dict[str, int], names: Iterable[str]) -> None:
    """Let writers have packs again."""
    for name in names:
        os.close(held.pop(name))


def pack_path(store: ObjectStore, name: str) -> str:
    """Where the file of a pack lies."""
    return store.place.layout.pack(store.place.agent, name)


def _lock(store: ObjectStore, name: str) -> int | None:
    """Lock a pack's file; None if a writer is at it, or it is not there. The file is opened to be read only."""
    try:
        fd = os.open(pack_path(store, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        store.vfs.flock(fd)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def look(store: ObjectStore, agent: str, held: Collection[str]) -> Contents:
    """Read all of an agent's names and rows as they are at one moment."""
    catalog, number = store.catalog, store.place.agent_id
    directory = store.place.layout.pack_dir(store.place.agent)
    listed = _files(directory) if os.path.isdir(directory) else []
    with catalog.snapshot():
        row = catalog.agent(agent)
        if row is None or row.id != number:
            raise moved_on(agent)
        return Contents(
            agent=row,
            refs=journal.refs(catalog, number, "refs/"),
            log=tuple(journal.reflog(catalog, number)),
            rows={row.id: row for row in index.every(catalog, number)},
            ops=tuple(journal.ops(catalog, number)),
            packs=tuple(index.packs(catalog, number)),
            files=frozenset(name.removesuffix(SUFFIX) for name in listed if name.endswith(SUFFIX)),
            held=frozenset(held),
        )


def _files(directory: str) -> list[str]:
    """The names of the plain files: anything else is no pack, and not what a command left."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]


def moved_on(agent: str) -> LostRace:
    """The error for names and rows that are not those that were looked at."""
    return LostRace(
        f"{agent} was renamed or its catalog rebuilt while it was looked through",
        unchanged="nothing was collected",
        hint="run the command again",
        agent=agent,
    )


# ---------------------------------------------------------------- mark


class Marker:
    """Finds what can be reached.

    What is missing or damaged and leads on (a commit, a tree) stops the mark with ChecksumMismatch: below it may lie
    what only a copy of it would find again. A missing file leads nowhere: it is put down in ``missing``.
    """

    def __init__(self, store: ObjectStore, rows: Mapping[bytes, ObjectRow], progress: Progress) -> None:
        self._store = store
        self._rows = rows
        self._progress = progress
        self._width = store.format.width
        self._count = 0
        self.missing: set[bytes] = set()

    def reach(self, roots: Iterable[bytes], known: Collection[bytes]) -> set[bytes]:
        """The ids of all that roots lead to, without ``known``: of those, everything below is known too."""
        found: set[bytes] = set()
        todo: list[tuple[bytes, bool]] = [(oid, True) for oid in roots]
        bases: list[tuple[bytes, bool]] = []  # what is there as a base alone, a fork may have without all that it names
        while todo or bases:
            needed = bool(todo)
            oid, matters = todo.pop() if needed else bases.pop()
            if oid in found or oid in known:
                continue
            row = self._row(oid, leads_on=needed and matters)
            if row is None:
                if needed or matters:
                    self.missing.add(oid)
                continue
            found.add(row.id)
            self._count += 1
            self._progress("marking", self._count, None)
            if row.base is not None:  # without it the record cannot be read
                bases.append((row.base, True))
            if needed:
                todo += self._below(row)
            else:
                bases += [(below, False) for below, _ in self._below(row)]
        return found

    def _row(self, oid: bytes, *, leads_on: bool) -> ObjectRow | None:
        row = self._rows.get(oid)
        if row is None:
            row = self._store.require(oid) if leads_on else self._store.find(oid)
        return row

    def _below(self, row: ObjectRow) -> Iterator[tuple[bytes, bool]]:
        if row.kind == RecordKind.TREE:
            for _, entry in decode_tree(self._store.record(row), self._width):
                yield entry.oid, entry.mode == DIRECTORY
        elif row.kind == RecordKind.CHUNK_LIST:
            yield from ((chunk, False) for chunk, _ in self._store.chunk_list(row))
        elif row.kind == RecordKind.COMMIT:
            commit = decode_commit(self._store.record(row), self._width)
            yield commit.tree, True
            if commit.parent:
                yield commit.parent, True
        elif row.kind == RecordKind.TAG:
            yield decode_tag(self._store.record(row), self._width).target, True


# ---------------------------------------------------------------- plan


@dataclass(frozen=True)
class PackPlan:
    """A pack that goes. ``bytes`` are those of its file, ``keeps`` those of records that are copied out of it.

    ``shared``: the file has another name, with a fork, and gives nothing back.
    """

    name: str
    bytes: int
    keeps: int
    objects: int
    shared: bool = False

    @property
    def back(self) -> int:
        """The bytes that come back."""
        return 0 if self.shared else self.bytes - self.keeps


@dataclass(frozen=True)
class StorePlan:
    """What becomes of an agent's records and packs.

    ``delete`` are packs of which nothing stays, ``rewrite`` those whose rest is copied, ``leftover`` files of packs
    that commands left which were cut, and that no row names. ``findings`` are for fsck; ``blocked`` says that for one
    of them nothing may be collected.
    """

    live: frozenset[bytes] = frozenset()
    dead: tuple[ObjectRow, ...] = ()
    delete: tuple[PackPlan, ...] = ()
    rewrite: tuple[PackPlan, ...] = ()
    leftover: tuple[PackPlan, ...] = ()
    findings: tuple[str, ...] = ()
    blocked: bool = False

    @property
    def back(self) -> int:
        """The bytes that come back."""
        return sum(pack.back for pack in (*self.delete, *self.rewrite, *self.leftover))

    @property
    def packs(self) -> tuple[PackPlan, ...]:
        """All packs that go, but for leftovers."""
        return (*self.delete, *self.rewrite)


def plan(store: ObjectStore, contents: Contents, live: Collection[bytes]) -> StorePlan:
    """What is dead, and which packs go for it. A pack with damage in what it lists stays; see ``findings``."""
    found = _Packs(store, contents, live)
    unknown = found.unknown_operations()
    if unknown:
        return StorePlan(live=frozenset(live), findings=tuple(unknown), blocked=True)
    dead = tuple(row for oid, row in contents.rows.items() if oid not in live)
    delete, rewrite = found.weigh()
    return StorePlan(
        frozenset(live), dead, tuple(delete), tuple(rewrite), tuple(found.leftover()), tuple(found.findings)
    )


class _Packs:
    def __init__(self, store: ObjectStore, contents: Contents, live: Collection[bytes]) -> None:
        self._store = store
        self._contents = contents
        self.findings: list[str] = []
        self._live: dict[int, int] = {}
        self._objects: dict[int, int] = {}
        for group in index.by_record(row for oid, row in contents.rows.items() if oid in live):
            row = group[0]  # a block stays as long as one of its objects does
            self._live[row.pack] = self._live.get(row.pack, 0) + row.length
            self._objects[row.pack] = self._objects.get(row.pack, 0) + len(group)
        self._ops: dict[int, list[OpRow]] = {}
        for op in contents.ops:
            if op.pack is not None:
                self._ops.setdefault(op.pack, []).append(op)
        self._named = {pack.name: pack for pack in contents.packs}

    # ------------------------------------------------------------ packs that know more than the catalog

    def unknown_operations(self) -> list[str]:
        """Packs that hold operations which the catalog does not know.

        Then the catalog is older than they are, or was lost, and what it takes for dead may be what they name.
        """
        return [
            f"pack {name} holds operations that the catalog does not know: `kai fsck --repair` adopts them "
            "if they go on from those that it knows; if not, the pack is another home's, and does not belong here"
            for name in sorted(self._contents.files)
            if self._holds_unknown(name)
        ]

    @cached_property
    def _known_operations(self) -> set[bytes]:
        return journal.digests(self._store.catalog)

    def _holds_unknown(self, name: str) -> bool:
        pack = self._named.get(name)
        if pack is not None and (
            pack.state in (PackState.SEALED, PackState.CONDEMNED)
            or (pack.state == PackState.OPEN and name not in self._contents.held)
        ):
            return False
        fd = _lock(self._store, name) if pack is None or pack.state != PackState.OPEN else None
        if pack is None and fd is None:
            return False  # a writer's, before its transaction
        try:
            return self._unknown_past(name, pack.committed if pack else len(MAGIC))
        finally:
            if fd is not None:
                os.close(fd)

    def _unknown_past(self, name: str, start: int) -> bool:
        try:
            reader = packscan.open_reader(pack_path(self._store, name))
        except OSError:
            return False
        try:
            for found in packscan.survey(reader, start, packscan.size(reader)):
                kind = found.kind if isinstance(found, Gap) else found.header.kind
                oid = found.id if isinstance(found, Gap) else found.header.id
                whole = isinstance(found, Record) and journal.digest_op(found.data) == oid
                if kind == RecordKind.OP and whole and oid not in self._known_operations:
                    return True
        finally:
            reader.close()
        return False

    # ------------------------------------------------------------ which packs go

    def weigh(self) -> tuple[list[PackPlan], list[PackPlan]]:
        """The packs to delete, and those to rewrite."""
        delete: list[PackPlan] = []
        rewrite: list[PackPlan] = []
        small: list[PackPlan] = []
        for pack in self._contents.packs:
            status = self._status(pack)
            if status is None:
                continue
            shared = status.st_nlink > 1
            if pack.id not in self._live and pack.id not in self._ops:
                delete.append(PackPlan(pack.name, status.st_size, 0, 0, shared))
            elif not shared:
                it = self._weighed(pack, status.st_size)
                if it is None:
                    continue
                worth = max(WORTH, SHARE * it.bytes)
                if it.bytes - it.keeps - self._overhead(pack, it.bytes) >= worth:
                    rewrite.append(it)
                elif it.bytes < self._store.settings.packs_seal_at // 4:
                    small.append(it)
        return delete, rewrite + (small if len(small) >= MERGE else [])

    def _status(self, pack: PackRow) -> os.stat_result | None:
        """The file of a pack that may go; None if a writer is at it, or it is not there."""
        if pack.state == PackState.CONDEMNED or (pack.state == PackState.OPEN and pack.name not in self._contents.held):
            return None
        try:
            return os.stat(pack_path(self._store, pack.name))
        except FileNotFoundError:
            if pack.id in self._live or pack.id in self._ops:
                self.findings.append(f"pack {pack.name} is missing: `kai fsck` says what is hit")
            return None

    def _weighed(self, pack: PackRow, size: int) -> PackPlan | None:
        keeps = self._live.get(pack.id, 0)
        if size - keeps < WORTH and size >= self._store.settings.packs_seal_at // 4:
            return None
        try:
            keeps += sum(self._op_lengths(pack))
        except (ChecksumMismatch, UnknownFormat, FileNotFoundError) as error:
            self.findings.append(str(error))
            return None
        return PackPlan(pack.name, size, keeps, self._objects.get(pack.id, 0))

    def _op_lengths(self, pack: PackRow) -> Iterator[int]:
        if pack.id in self._ops:
            reader = PackReader.open(pack_path(self._store, pack.name))
            try:
                for op in self._ops[pack.id]:
                    yield reader.header(op.offset or 0).where.length
            finally:
                reader.close()

    def _overhead(self, pack: PackRow, size: int) -> int:
        """The bytes of a pack that are no record of anything."""
        if pack.state != PackState.SEALED:
            return len(MAGIC)
        reader = packscan.open_reader(pack_path(self._store, pack.name))
        try:
            footer = packscan.footer_offset(reader, size)
        finally:
            reader.close()
        return len(MAGIC) + (size - footer if footer is not None and footer < size else 0)

    # ------------------------------------------------------------ what cut commands left

    def leftover(self) -> Iterator[PackPlan]:
        """Files of packs that no row names, or that were condemned and not unlinked."""
        condemned = {pack.name for pack in self._contents.packs if pack.state == PackState.CONDEMNED}
        if any(pack.name not in self._contents.files | condemned for pack in self._contents.packs):
            return  # a pack is missing: what stands in its place may be a copy that an older catalog does not name
        for name in sorted((self._contents.files - self._named.keys()) | condemned):
            fd = _lock(self._store, name)
            if fd is None and name not in condemned:
                continue  # a writer's, before its transaction
            try:
                status = os.fstat(fd) if fd is not None else None
                shared = status is not None and status.st_nlink > 1
                yield PackPlan(name, status.st_size if status else 0, 0, 0, shared)
            finally:
                if fd is not None:
                    os.close(fd)
