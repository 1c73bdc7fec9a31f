"""Compare the packs of one agent with its index, and every record with its checksums and its id."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from kaivc.errors import ChecksumMismatch, Collected, StorageFailed, UnknownFormat
from kaivc.ports import Progress
from kaivc.records import replace
from kaivc.storage import packscan
from kaivc.storage.bases import DEEPEST
from kaivc.storage.damage import AgentCheck, Damage, Severity
from kaivc.storage.index import ObjectRow, PackState
from kaivc.storage.journal import digest_op
from kaivc.storage.pack import LARGEST, MAGIC, TRAILER, Header, PackReader, RecordKind, encode
from kaivc.storage.packscan import Delta, Gap, Record
from kaivc.storage.salvage import good_rows
from kaivc.storage.store import ObjectStore
from kaivc.vfs import unless_short

Rows = dict[tuple[int, int], dict[str, Any]]
"""The index's rows of one pack, by offset and place within a block."""


def _objects_by_pack(db: sqlite3.Connection, agent: int) -> dict[int, Rows]:
    found: dict[int, Rows] = {}
    for values in good_rows(db, "objects", "WHERE agent = ?", (agent,)):
        found.setdefault(values["pack"], {})[values["offset"], values["within"]] = values
    return found


class Packs:
    """Reads each pack once, whole, and compares it with the index.

    Then ``chunk_lists`` holds the ids of the large blobs, and ``ops`` where op records lie, by digest: (pack, offset);
    ``unnamed`` are the contents of op records in files that the catalog does not name, by digest.
    """

    def __init__(self, check: AgentCheck, store: ObjectStore, db: sqlite3.Connection, progress: Progress) -> None:
        self._check = check
        self._place = place = store.place
        self._boot = store.vfs.boot_id()
        self._db = db
        self._progress = progress
        self._store = store
        self._rows = _objects_by_pack(db, place.agent_id)
        self._deltas: list[tuple[str, ObjectRow]] = []
        self._bases = {
            row["id"]: row["base"] for rows in self._rows.values() for row in rows.values() if row["base"] is not None
        }
        self._readers: dict[int, PackReader] = {}
        self.names: dict[int, str] = {}
        self.chunk_lists: list[bytes] = []
        self.ops: dict[bytes, tuple[int, int]] = {}
        self.unnamed: dict[bytes, bytes] = {}

    def run(self) -> None:
        """Look at every pack; what is found goes to the check."""
        done = 0
        for values in good_rows(self._db, "packs", "WHERE agent = ?", (self._place.agent_id,)):
            self.names[values["id"]] = values["name"]
            self._one(values)
            done += values["committed"]
            self._progress("checking packs", done, None)
        for number in sorted(self._rows.keys() - self.names.keys()):
            for row in self._rows[number].values():
                self._lost(row, f"the index says pack {number}, and there is none of that number", None)
        self._check_deltas()
        self._strays()

    def close(self) -> None:
        """Close what is open."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def read(self, pack: int, offset: int) -> bytes:
        """The content of a record that was found whole; ChecksumMismatch or OSError otherwise."""
        reader = self._readers.get(pack)
        if reader is None:
            self.close()
            path = self._place.layout.pack(self._place.agent, self.names[pack])
            reader = self._readers[pack] = packscan.open_reader(path)
        return reader.payload(reader.header(offset))

    def _say(self, what: str, pack: str, **more: Any) -> None:  # noqa: ANN401 - fields of Damage
        self._check.damages.append(Damage("pack", what, self._place.agent, pack, **more))

    def _one(self, pack: dict[str, Any]) -> None:
        name, rows = pack["name"], self._rows.get(pack["id"], {})
        if pack["state"] not in set(PackState):
            self._say(f"the pack's state is {pack['state']!r:.40}", name)
        if pack["state"] == PackState.CONDEMNED and not rows:
            return  # named by nothing, and gone as soon as nobody reads it
        try:
            reader = packscan.open_reader(self._place.layout.pack(self._place.agent, name))
        except OSError as error:
            unless_short(error)
            what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error.strerror}"
            self._say(f"the pack {what}", name)
            for row in rows.values():
                self._lost(row, f"its pack {what}", name)
            return
        try:
            self._scan(reader, pack, rows)
        except StorageFailed as error:
            unless_short(error)
            self._say(f"the pack cannot be read: {error.what}", name)
        finally:
            reader.close()

    def _scan(self, reader: PackReader, pack: dict[str, Any], rows: Rows) -> None:
        name, committed, size = pack["name"], pack["committed"], packscan.size(reader)
        if not packscan.magic_is_whole(reader):
            self._say("the file does not begin as a pack does", name, offset=0, end=len(MAGIC))
        if size < committed:
            self._say(f"the pack ends at byte {size}, {committed} were committed", name, offset=size, end=committed)
        headers: list[Header] = []
        footer: Record | None = None
        whole = True
        for item in packscan.survey(reader, len(MAGIC), min(size, committed)):
            if isinstance(item, Gap):
                whole = False
                self._gap(item, name, rows)
                continue
            if isinstance(item, Record) and item.header.kind == RecordKind.FOOTER:
                footer = item
                continue
            headers.append(item.header)
            self._objects(item, pack["id"], name, rows)
        for row in rows.values():
            self._lost(row, "no whole record lies where the index says", name)
        if pack["state"] == PackState.SEALED:
            self._sealed(reader, name, min(size, committed), headers, footer, whole=whole)
        self._tail(reader, pack, size)

    def _objects(self, item: Record | Delta, pack: int, name: str, rows: Rows) -> None:
        """Compare what a whole record holds with its ids and the index; a delta is left for later."""
        offset = item.header.where.offset
        if isinstance(item, Record):
            for within, record in packscan.objects_in(item):
                self._record(record, pack, name, rows.pop((offset, within), None))
            return
        row = rows.pop((offset, -1), None)
        if self._indexed(item.header, name, row) and row is not None:
            self._deltas.append((name, ObjectRow(**{key: row[key] for key in ObjectRow._fields})))

    def _gap(self, gap: Gap, name: str, rows: Rows) -> None:
        own = rows.get((gap.offset, -1))
        oid = gap.id or (own["id"] if own else None)
        self._say(gap.why, name, offset=gap.offset, end=gap.end, object=oid.hex() if oid else None)
        for row in [rows.pop(key) for key in sorted(rows) if gap.offset <= key[0] < gap.end]:
            self._check.bad[row["id"]] = Damage(
                "object", gap.why, self._place.agent, name, row["offset"], gap.end, row["id"].hex()
            )

    def _record(self, record: Record, pack: int, name: str, row: dict[str, Any] | None) -> None:
        header = record.header
        self._check.records += 1
        true = packscan.true_id(record, self._place.format)
        offset, end = header.where.offset, record.end
        if true is not None and true != header.id:
            what = f"the stored bytes are those of {true.hex()}, not of {header.id.hex()}"
            self._say(
                what, name, offset=offset, end=end, object=header.id.hex(), expected=header.id.hex(), found=true.hex()
            )
            if row is not None:
                self._check.bad[row["id"]] = Damage(
                    "object", what, self._place.agent, name, offset, end, row["id"].hex()
                )
            return
        if header.kind == RecordKind.OP:
            self.ops[header.id] = (pack, offset)
        if self._indexed(header, name, row) and header.kind == RecordKind.CHUNK_LIST:
            self.chunk_lists.append(header.id)

    def _indexed(self, header: Header, name: str, row: dict[str, Any] | None) -> bool:
        """Whether the index points at a record, and says what it is."""
        if row is None:
            return False
        self._check.objects += 1
        self._check.size += row["size"]
        size_fits = header.kind == RecordKind.CHUNK_LIST or row["size"] == header.size
        stated = (row["id"], row["kind"], row["length"], row["base"])
        if stated == (header.id, header.kind, header.where.length, header.base) and size_fits:
            return True
        self._lost(row, "the index points at another record", name)
        return False

    # ------------------------------------------------------------ records that need another

    def _check_deltas(self) -> None:
        """Re-hash the records that have a base, now that what is wrong with any record itself is known."""
        for number, (name, row) in enumerate(self._deltas):
            self._progress("checking records that need another", number, len(self._deltas))
            self._check.records += 1
            cause = self._cause(row)
            if cause is not None:
                bad = self._check.bad[cause]
                self._check.causes[row.id] = cause
                self._check.bad[row.id] = replace(bad, what=f"{bad.what}; needed for this", object=row.id.hex())
                continue
            what = self._problem(row)
            if what is not None:
                end = row.offset + row.length
                damage = Damage("object", what, self._place.agent, name, row.offset, end, row.id.hex())
                self._check.damages.append(damage)
                self._check.bad[row.id] = damage
            elif row.kind == RecordKind.CHUNK_LIST:
                self.chunk_lists.append(row.id)

    def _cause(self, row: ObjectRow) -> bytes | None:
        """The bad object that a record cannot be read without."""
        below = row.base
        for _ in range(DEEPEST):
            if below is None or below in self._check.bad:
                break
            below = self._bases.get(below)
        return self._check.causes.get(below, below) if below in self._check.bad else None

    def _problem(self, row: ObjectRow) -> str | None:
        try:
            data = self._store.record(row, LARGEST[RecordKind.CHUNK_LIST])
        except (ChecksumMismatch, StorageFailed, UnknownFormat, Collected) as error:
            unless_short(error)
            return packscan.why(error)
        true = packscan.true_id_of(row.kind, data, self._place.format)
        if true in (None, row.id):
            return None
        return f"the stored bytes are those of {true.hex() if true else ''}, not of {row.id.hex()}"

    def _lost(self, row: dict[str, Any], what: str, name: str | None) -> None:
        damage = Damage(
            "index", what, self._place.agent, name, row["offset"], row["offset"] + row["length"], row["id"].hex()
        )
        self._check.damages.append(damage)
        self._check.bad[row["id"]] = damage

    def _sealed(
        self, reader: PackReader, name: str, end: int, headers: list[Header], footer: Record | None, *, whole: bool
    ) -> None:
        stated = packscan.footer_offset(reader, end)
        if footer is None:
            if whole:
                self._say("the sealed pack has no footer", name, offset=end, end=end)
        elif stated != footer.header.where.offset:
            what = (
                "the sealed pack has no trailer" if stated is None else "the trailer points elsewhere than the footer"
            )
            self._say(what, name, offset=footer.end, end=end)
        if footer is not None and whole and packscan.footer_of(headers) != footer.data:
            self._say("the footer lists other records", name, offset=footer.header.where.offset, end=footer.end)
        if footer is not None and footer.end + TRAILER.size != end:
            self._say("the sealed pack does not end with its trailer", name, offset=footer.end, end=end)

    def _tail(self, reader: PackReader, pack: dict[str, Any], size: int) -> None:
        """What lies past the committed end is named by nothing, but may hold the newest op records."""
        for item in packscan.survey(reader, max(pack["committed"], len(MAGIC)), size):
            if (
                isinstance(item, Record)
                and item.header.kind == RecordKind.OP
                and digest_op(item.data) == item.header.id
            ):
                self.ops.setdefault(item.header.id, (pack["id"], item.header.where.offset))
            elif isinstance(item, Gap):
                severity = Severity.NOTE
                what = "bytes past the committed end are no whole record: of a command that was cut, or still at work"
                if pack["state"] == PackState.OPEN and item.end - item.offset in self._lengths():
                    severity = Severity.DAMAGE if self._started_before() else Severity.WARNING
                    what = "the newest op record is damaged here; the catalog still holds it"
                self._say(what, pack["name"], offset=item.offset, end=item.end, severity=severity)

    def _started_before(self) -> bool:
        """Whether nothing has been written since the machine was started that a power cut could have taken."""
        rows = good_rows(self._db, "boots", "WHERE agent = ?", (self._place.agent_id,))
        return [row["boot"] for row in rows] == [self._boot]

    def _lengths(self) -> set[int]:
        """How long the records of ops are that the catalog holds: what a cut command leaves is shorter."""
        rows = good_rows(self._db, "ops", "WHERE agent = ? AND payload IS NOT NULL", (self._place.agent_id,))
        return {
            len(encode(RecordKind.OP, row["digest"], row["payload"], 1))
            for row in rows
            if isinstance(row["digest"], bytes) and isinstance(row["payload"], bytes)
        }

    def _strays(self) -> None:
        try:
            there = sorted(os.listdir(self._place.layout.pack_dir(self._place.agent)))
        except FileNotFoundError:
            there = []
        except OSError as error:
            unless_short(error)
            self._check.damages.append(
                Damage("pack", f"the directory of the packs cannot be read: {error.strerror}", self._place.agent)
            )
            return
        known = {name + ".pack" for name in self.names.values()}
        for name in there:
            if name not in known:
                what = "the catalog knows nothing of this file: of a command that was cut, or still at work"
                self._say(what, name.removesuffix(".pack"), severity=Severity.NOTE)
                self._operations_of(name)

    def _operations_of(self, file: str) -> None:
        """A catalog that is older than the packs does not name the file that holds the newest operations."""
        try:
            reader = packscan.open_reader(os.path.join(self._place.layout.pack_dir(self._place.agent), file))
        except OSError as error:
            unless_short(error)
            return
        try:
            for item in packscan.survey(reader, len(MAGIC), packscan.size(reader)):
                if isinstance(item, Record) and item.header.kind == RecordKind.OP:
                    self.unnamed[digest_op(item.data)] = item.data
        except StorageFailed:
            return
        finally:
            reader.close()
