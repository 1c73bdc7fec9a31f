"""StoreWriter: adds the objects of one agent, appended and synced first, named by one transaction after."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

import msgpack

from kaivc.errors import ChecksumMismatch, KaiError, StorageError, StorageFailed, TooLarge
from kaivc.names import ObjectId
from kaivc.records import dataclass, replace
from kaivc.storage import bases, blocks, index, journal
from kaivc.storage.bases import Link
from kaivc.storage.catalog import damaged, older_than
from kaivc.storage.chunking import Listing, Source, cut
from kaivc.storage.gitobjects import Kind
from kaivc.storage.index import ObjectRow, PackRow, PackState
from kaivc.storage.journal import OpRow
from kaivc.storage.pack import (
    LARGEST,
    MAX_BASE,
    Base,
    Encoded,
    Header,
    PackWriter,
    RecordKind,
    encode,
    encode_after,
    encode_block,
)
from kaivc.storage.store import ObjectStore

TRIES = 5
"""How often another name is taken for a new pack."""


@dataclass
class _OpenPack:
    row: PackRow
    writer: PackWriter


class StoreWriter:
    """Adds objects: appended and synced first, named by one transaction after.

    Use it as a context; ``sync`` before the transaction, ``record`` within it, ``append_op`` after it. With ``fresh``
    it goes on with no pack that is there.
    """

    def __init__(self, store: ObjectStore, *, fresh: bool = False) -> None:
        self._store = store
        self._fresh = fresh
        self._place = store.place
        self._pack: _OpenPack | None = None
        self._done: list[PackRow] = []
        self._new: dict[bytes, tuple[str, ObjectRow]] = {}
        self._links: dict[bytes, Link] = {}
        self._small: dict[bytes, tuple[int, bytes, bytes]] = {}
        self._small_size = 0
        self._packs: list[PackRow] | None = None
        self._unpacked: list[OpRow] | None = None
        self._moved: list[tuple[str, ObjectRow, int]] = []
        self._adopted: list[tuple[str, int, int]] = []
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._pack is None:
            return
        with suppress(StorageError):  # what counts is synced; what was to ride behind it the catalog has
            self._pack.writer.close()
        if self._pack.writer.failed and self._pack.row.id:
            with suppress(KaiError), self._store.catalog.transaction() as db:  # else the next writer finds a torn tail
                index.fail_pack(db, self._pack.row.id)

    # ------------------------------------------------------------ adding

    def contains(self, oid: bytes) -> bool:
        """Whether the object is stored, or will be."""
        if oid in self._new or oid in self._small:
            return True
        return bool(self._known_packs()) and self._store.find(oid) is not None

    def _known_packs(self) -> list[PackRow]:
        """The packs that are there: under the agent's lock no other writer adds to them."""
        if self._packs is None:
            self._packs = index.packs(self._store.catalog, self._place.agent_id)
        return self._packs

    def _unpacked_ops(self) -> list[OpRow]:
        """The op records that no pack is known to hold."""
        if self._unpacked is None:
            self._unpacked = journal.unpacked_ops(self._store.catalog, self._place.agent_id)
        return self._unpacked

    def _forget(self) -> None:
        """Ask again what the catalog holds: it changes."""
        self._packs = self._unpacked = None

    def put(self, kind: Kind, data: bytes, like: bytes | None = None) -> ObjectId:
        """Add a whole object; its id. ``like`` is the id of one that perhaps holds most of it: the one before it."""
        oid = self._store.format.hash(kind, data)
        # Two commits or tags are hardly ever the same; of one that is, the catalog keeps the record that it knows.
        if oid not in self._new and (kind in (Kind.COMMIT, Kind.TAG) or not self.contains(oid)):
            self._add(RecordKind(kind), oid, data, len(data), like)
            self._store.contents.put(oid, data, proven=True)
        return oid

    def put_blob(self, source: Source, size: int, like: ObjectId | None = None) -> ObjectId:
        """Add a blob of ``size`` bytes that are read from ``source``; its id.

        ``like`` is a blob that perhaps holds most of them. Raises StorageError's relatives, and whatever ``source``
        raises.
        """
        if size <= self._store.settings.chunks_threshold:
            return self.put(Kind.BLOB, _read_all(source, size), like)
        digest = self._store.format.header(Kind.BLOB, size)
        listing: list[tuple[bytes, int]] = []
        for batch in cut(source, self._listing(like), digest.update):
            listing += ((piece.id, len(piece.data)) for piece in batch)
            fresh = [piece for piece in batch if not piece.is_old and piece.id not in self._new]
            if not fresh:
                continue
            there = self._store.look_up(id_ for piece in fresh for id_ in (piece.id, piece.like) if id_ is not None)
            for piece in fresh:
                if piece.id not in there and piece.id not in self._new:
                    self._add(RecordKind.CHUNK, piece.id, piece.data, len(piece.data), piece.like)
        if sum(length for _, length in listing) != size:
            raise StorageFailed(f"a source gave another count of bytes than the {size} that it was said to have")
        oid = ObjectId(digest.digest())
        if not self.contains(oid):
            packed = msgpack.packb(listing)
            if len(packed) > LARGEST[RecordKind.CHUNK_LIST]:
                raise TooLarge(f"a file of {size} bytes has too many chunks", unchanged="nothing was committed")
            self._add(RecordKind.CHUNK_LIST, oid, packed, size, like)
        return oid

    def _listing(self, oid: ObjectId | None) -> Listing:
        """How a blob is cut; nothing if it is not there, or is no large one."""
        row = None if oid is None else self._store.find(oid)
        return self._store.chunk_list(row) if row is not None and row.kind == RecordKind.CHUNK_LIST else ()

    def put_record(self, kind: RecordKind, id_: bytes, data: bytes, size: int) -> None:
        """Add the content of a record that was checked elsewhere, encoded by itself; ``size`` is the object's.

        Whether the agent has it is the caller's to ask: the store may see what has only arrived.
        """
        if id_ not in self._new:
            self._add_record(kind, id_, data, size, None)

    def copy(self, rows: Iterable[ObjectRow], record: bytes) -> None:
        """Add a whole record of another agent's store, as it is stored there; the one that it needs is added too."""
        name, offset = self._append(record)
        for row in rows:
            self._new[row.id] = (name, row._replace(pack=0, offset=offset))

    def _add(
        self, kind: RecordKind, id_: bytes, data: bytes | memoryview, size: int, like: bytes | None = None
    ) -> None:
        small = 0 < len(data) <= blocks.SMALL  # where an empty one lies, the next one begins
        if like is None and kind == RecordKind.BLOB and small and isinstance(data, bytes):
            self._gather(kind, id_, data)
            return
        self._add_record(kind, id_, data, size, like)

    def _gather(self, kind: RecordKind, id_: bytes, data: bytes) -> None:
        """Keep a small object until there are enough for a block."""
        if self._small_size + len(data) > blocks.MAX_BLOCK or len(self._small) >= blocks.MAX_MEMBERS:
            self._add_small()
        self._small[id_] = (kind, id_, data)
        self._small_size += len(data)
        self._links[id_] = Link(id_, kind, len(data), None, 0)

    def _add_small(self) -> None:
        """Add the small objects that wait for each other: as a block, or a few as records of their own."""
        members, self._small, self._small_size = list(self._small.values()), {}, 0
        if len(members) < blocks.FEWEST:
            for kind, id_, data in members:
                self._add_record(RecordKind(kind), id_, data, len(data), None)
            return
        record = encode_block(members, self._store.settings.compress_level)
        name, offset = self._append(record)
        within = 0
        for kind, id_, data in members:
            self._new[id_] = (name, ObjectRow(id_, kind, 0, offset, len(record), len(data), None, within))
            within += len(data)

    def _add_record(
        self, kind: RecordKind, id_: bytes, data: bytes | memoryview, size: int, like: bytes | None
    ) -> None:
        base = None if like is None else self._base(kind, len(data), like)
        level = self._store.settings.compress_level
        if base is None:
            encoded = Encoded(encode(kind, id_, data, level), None, 0)
        else:
            encoded = encode_after(base, kind, id_, data, level)
        name, offset = self._append(encoded.record)
        self._new[id_] = (name, ObjectRow(id_, kind, 0, offset, len(encoded.record), size, encoded.base))
        self._links[id_] = Link(id_, kind, len(data), encoded.base, encoded.ordinal)

    def _base(self, kind: RecordKind, size: int, like: bytes) -> Base | None:
        """What a new record that comes after ``like`` is encoded with; a base that is damaged is none."""
        if not bases.SMALLEST <= size <= MAX_BASE:
            return None
        with suppress(ChecksumMismatch, StorageError):
            found = bases.choose(like, lambda oid: self._links.get(oid) or self._store.link(oid))
            if found is None:
                return None
            base, ordinal = found
            if base.id in self._links:
                content = self._store.contents.get(base.id, proven=True)
            elif 0 < base.size <= MAX_BASE and bases.suits(kind, base.kind):
                content = self._store.proven(base.id, base.kind)
            else:
                content = None
            return Base(base.id, content, ordinal) if content and bases.suits(kind, base.kind) else None
        return None

    def discard(self) -> None:
        """Give up before the transaction: remove the packs that were begun here, and that nothing names."""
        if self._numbers:
            return  # it may have landed
        begun = [row.name for row in self._done if not row.id]
        if self._pack is not None and not self._pack.row.id:
            begun.append(self._pack.row.name)
            pack, self._pack = self._pack, None
            pack.writer.abandon()
        for name in begun:
            with suppress(StorageError):
                self._store.vfs.unlink(self._place.layout.pack(self._place.agent, name), missing_ok=True)

    # ------------------------------------------------------------ records as they are stored

    def move(self, rows: Iterable[ObjectRow], record: bytes) -> None:
        """Add the whole record that ``rows`` point at; the transaction lets them point here, if they still are so."""
        name, offset = self._append(record)
        self._moved += ((name, row, offset) for row in rows)

    def move_op(self, seq: int, record: bytes) -> None:
        """Add the whole record of an op; the transaction lets the chain point here."""
        name, offset = self._append(record)
        self._adopted.append((name, seq, offset))

    def _append(self, record: bytes) -> tuple[str, int]:
        pack = self._open_pack()
        where = pack.writer.append(record)
        if pack.writer.end >= self._store.settings.packs_seal_at:
            self._seal()
        return pack.row.name, where.offset

    # ------------------------------------------------------------ packs

    def _open_pack(self) -> _OpenPack:
        if self._pack is None:
            self._pack = (None if self._fresh else self._take()) or self._create()
        return self._pack

    def _take(self) -> _OpenPack | None:
        store = self._store
        settled = {row.name for row in self._done}
        for row in self._known_packs():
            if row.state == PackState.OPEN and row.name not in settled and (taken := self._try(row)):
                if taken.writer.end < store.settings.packs_seal_at:
                    return taken
                self._pack = taken
                self._seal()
        return None

    def _try(self, row: PackRow) -> _OpenPack | None:
        path = self._place.layout.pack(self._place.agent, row.name)
        if not os.path.exists(path):
            return None
        fd = self._store.vfs.lock(path)
        if fd is None:
            return None
        writer = PackWriter(self._store.vfs, fd, path, row.committed)
        try:
            tail = writer.tail(row.committed)
            sealed = any(header.kind == RecordKind.FOOTER for header in tail)
            self._adopt(row.name, writer, tail)
            if sealed:
                writer.sync()  # who wrote the seal may have been cut before that
        except ChecksumMismatch:
            writer.close()
            self._done.append(row._replace(state=PackState.FAILED.value))
            return None
        except BaseException:
            writer.abandon()
            raise
        if sealed:
            # Sealed by a writer that was cut before its transaction.
            self._done.append(row._replace(state=PackState.SEALED.value, committed=writer.end))
            writer.close()
            return None
        return _OpenPack(row, writer)

    def _adopt(self, name: str, writer: PackWriter, tail: list[Header]) -> None:
        """Op records ride behind the transaction that made them: note those that are in the pack already."""
        found = [header for header in tail if header.kind == RecordKind.OP]
        if not found:
            return
        wanted = {row.digest: row.seq for row in self._unpacked_ops()}
        for header in found:
            if journal.digest_op(writer.payload(header)) != header.id:
                continue
            if header.id in wanted:
                self._adopted.append((name, wanted[header.id], header.where.offset))
            elif not journal.is_known(self._store.catalog, header.id):
                # A record is appended after its transaction. To write on would bury what it names.
                raise older_than(self._place.agent)

    def _create(self) -> _OpenPack:
        layout, vfs = self._place.layout, self._store.vfs
        directory = layout.pack_dir(self._place.agent)
        vfs.make_dirs(directory)
        for more in range(TRIES, -1, -1):
            name = os.urandom(8).hex()
            try:
                writer = PackWriter.create(vfs, layout.pack(self._place.agent, name))
                break
            except BlockingIOError:  # a gc that makes its plan looks at each file whose lock is free
                if not more:
                    raise
        try:
            vfs.sync_dir(directory)
            vfs.sync_dir(layout.packs)
        except BaseException:
            writer.abandon()  # a lock that outlives the error would keep the file from gc
            raise
        return _OpenPack(PackRow(0, self._place.agent_id, name, PackState.OPEN.value, 0), writer)

    def _seal(self) -> None:
        pack = self._pack
        if pack is None:
            return
        self._append_missing_ops(pack)
        pack.writer.seal()
        self._done.append(pack.row._replace(state=PackState.SEALED.value, committed=pack.writer.end))
        pack.writer.close()
        self._pack = None

    def _append_missing_ops(self, pack: _OpenPack) -> None:
        adopted = {seq for _, seq, _ in self._adopted}
        for row in self._unpacked_ops():
            if row.seq not in adopted and row.payload is not None:
                if journal.digest_op(row.payload) != row.digest:
                    raise damaged(f"operation {row.seq}")
                where = pack.writer.add(RecordKind.OP, row.digest, row.payload, self._store.settings.compress_level)
                self._adopted.append((pack.row.name, row.seq, where.offset))

    # ------------------------------------------------------------ making it count

    def sync(self) -> None:
        """Return when every added object, and every op record so far, is on the disk."""
        self._add_small()
        pack = self._open_pack()
        self._append_missing_ops(pack)
        pack.writer.sync()

    def record(self, db: sqlite3.Connection, agent: int | None = None) -> None:
        """Name what was added, within the transaction; ``agent`` is the number of one that is made in it."""
        self._forget()
        if agent is not None:
            self._belong_to(agent)
        rows = list(self._done)
        if self._pack is not None:
            rows.append(self._pack.row._replace(committed=self._pack.writer.synced))
        for row in rows:
            self._numbers[row.name] = index.put_pack(db, row)
        if self._pack is not None:
            self._pack.row = self._pack.row._replace(id=self._numbers[self._pack.row.name])
        agent = self._place.agent_id
        index.put_objects(db, agent, (row._replace(pack=self._numbers[name]) for name, row in self._new.values()))
        index.move_objects(db, agent, ((row, self._numbers[name], offset) for name, row, offset in self._moved))
        for name, seq, offset in self._adopted:
            journal.op_packed(db, agent, seq, self._numbers[name], offset)

    def _belong_to(self, agent: int) -> None:
        self._place = replace(self._place, agent_id=agent)
        self._done = [row._replace(agent=agent) for row in self._done]
        if self._pack is not None:
            self._pack.row = self._pack.row._replace(agent=agent)

    def append_op(self, record: bytes) -> None:
        """Append an op record behind its transaction; it rides on the next sync, the catalog holds it until then."""
        self._forget()
        self._new.clear()  # the catalog knows what was added
        self._links.clear()
        pack = self._open_pack()
        try:
            pack.writer.add(RecordKind.OP, journal.digest_op(record), record, self._store.settings.compress_level)
            pack.writer.flush()
        except StorageError:
            return  # The transaction stands; the next writer appends the record from the catalog.


def _read_all(source: Source, size: int) -> bytes:
    parts = []
    left = size + 1
    while left > 0 and (part := source.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
