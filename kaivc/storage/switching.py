"""Carry a plan of ``gc.py`` out: copy what stays, switch within one transaction, unlink.

Nothing is written before the switch but copies that nobody names; a cut leaves them to the next gc.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

from kaivc.errors import ChecksumMismatch, InternalError, StorageFailed, UnknownFormat
from kaivc.ports import Progress
from kaivc.storage import index, journal, packscan
from kaivc.storage.gc import Contents, moved_on, pack_path
from kaivc.storage.index import ObjectRow, PackState
from kaivc.storage.journal import OpRow
from kaivc.storage.pack import PackReader, RecordKind
from kaivc.storage.store import ObjectStore
from kaivc.storage.writer import StoreWriter

# ---------------------------------------------------------------- copy


class Copier:
    """Copies records that stay out of packs that go, as they are stored, into new packs that nobody names yet."""

    def __init__(self, store: ObjectStore, contents: Contents, writer: StoreWriter, progress: Progress) -> None:
        self._store = store
        self._contents = contents
        self._writer = writer
        self._progress = progress
        self._packs = {pack.name: pack.id for pack in contents.packs}
        self.left: dict[str, str] = {}
        """What is wrong with each pack that is left as it is, by its name."""
        self.bytes = 0
        self.rescued = 0

    def pack(self, name: str, rows: Iterable[ObjectRow], *, ops: bool = True) -> None:
        """Copy what stays of one pack, once all of it is known to be whole; otherwise put it down in ``left``."""
        number = self._packs[name]
        wanted = index.by_record(rows)
        chain = [op for op in self._contents.ops if op.pack == number] if ops else []
        if not wanted and not chain:
            return
        try:
            reader = PackReader.open(pack_path(self._store, name))
        except (FileNotFoundError, StorageFailed, UnknownFormat) as error:
            self.left[name] = str(error)
            return
        self._store.forget()  # what is copied is what was looked at
        try:
            problem = self._problem(reader, [row for group in wanted for row in group], chain)
            if problem is not None:
                self.left[name] = f"pack {name} is damaged and stays: {problem}"
                return
            for group in wanted:
                self._writer.move(group, self._raw(reader, group[0].offset, group[0].length))
            for op in chain:
                where = reader.header(op.offset or 0).where
                self._writer.move_op(op.seq, self._raw(reader, where.offset, where.length))
        finally:
            reader.close()

    def rescue(self, name: str, rows: Iterable[ObjectRow]) -> None:
        """Copy records that have been taken up again since the plan; ``rescued`` counts their bytes."""
        before = self.bytes
        if name not in self.left:
            self.pack(name, rows, ops=False)
        self.rescued += self.bytes - before

    def _problem(self, reader: PackReader, rows: list[ObjectRow], chain: list[OpRow]) -> str | None:
        try:
            for row in rows:
                self._progress("checking", row.offset, None)
                data = self._content(reader, row)
                if row.kind == RecordKind.CHUNK_LIST:
                    self._check_list(row)
                elif data is None or packscan.true_id_of(row.kind, data, self._store.format) != row.id:
                    return f"the bytes of {row.id.hex()} are not those of its id"
            for op in chain:
                if journal.digest_op(reader.payload(reader.header(op.offset or 0))) != op.digest:
                    return f"operation {op.seq} is not what the chain says"
        except (ChecksumMismatch, UnknownFormat, StorageFailed) as error:
            return error.what
        return None

    def _content(self, reader: PackReader, row: ObjectRow) -> bytes | None:
        """What lies where a row says; None if that is another record."""
        if row.within >= 0:
            return self._store.record(row)
        header = reader.header(row.offset)
        if (header.id, header.kind, header.where.length) != (row.id, row.kind, row.length):
            return None
        if header.base is None:
            return reader.payload(header)
        reader.stored(header)
        return self._store.record(row)

    def _check_list(self, row: ObjectRow) -> None:
        """A list's own checksum guards its bytes; the blob that it makes is not read again for its hash."""
        if sum(size for _, size in self._store.chunk_list(row)) != row.size:
            raise ChecksumMismatch(f"the chunks of {row.id.hex()} do not add up to its size")

    def _raw(self, reader: PackReader, offset: int, length: int) -> bytes:
        self.bytes += length
        self._progress("copying", self.bytes, None)
        return reader.whole(offset, length)[1]


# ---------------------------------------------------------------- switch


def check_base(store: ObjectStore, contents: Contents, going: Collection[str]) -> None:
    """Raise LostRace unless the catalog, under the agent's lock, is one that went on from ``contents``.

    The packs that are ``going`` must be as they were.
    """
    catalog, before = store.catalog, contents.agent
    now = catalog.agent(before.name)
    goes_on = now is not None and now.id == before.id and now.op_seq >= before.op_seq
    if goes_on and before.op_seq:
        goes_on = journal.op_digest(catalog, before.id, before.op_seq) == before.op_head
    packs = {pack.id: pack for pack in index.packs(catalog, before.id)}
    if not goes_on or any(packs.get(pack.id) != pack for pack in contents.packs if pack.name in going):
        raise moved_on(before.name)


def switch(
    store: ObjectStore, db: sqlite3.Connection, contents: Contents, dead: Iterable[ObjectRow], packs: Collection[str]
) -> None:
    """Within the transaction: forget what is dead and condemn packs, which nothing may point into any more."""
    agent = store.place.agent_id
    index.drop_objects(db, agent, dead)
    gone = [pack for pack in contents.packs if pack.name in packs]
    for pack in gone:
        index.put_pack(db, pack._replace(state=PackState.CONDEMNED.value))
    used = index.used_packs(db, agent) & {pack.id for pack in gone}
    if used:
        raise InternalError(f"packs {sorted(used)} were to be removed, and are still in use", unchanged="nothing moved")


def unlink(store: ObjectStore, leftover: Iterable[str], progress: Progress) -> None:
    """Under the agent's lock, remove the files of condemned packs, and of packs that no row names."""
    agent = store.place.agent_id
    rows = {pack.name: pack for pack in index.packs(store.catalog, agent)}
    condemned = [pack for pack in rows.values() if pack.state == PackState.CONDEMNED]
    names = [pack.name for pack in condemned] + [name for name in leftover if name not in rows]
    if not names:
        return
    store.close()
    for count, name in enumerate(names):
        progress("removing packs", count, len(names))
        store.vfs.unlink(pack_path(store, name), missing_ok=True)
    store.vfs.sync_dir(store.place.layout.pack_dir(store.place.agent))
    with store.catalog.transaction() as db:
        for pack in condemned:
            index.drop_pack(db, pack.id)
