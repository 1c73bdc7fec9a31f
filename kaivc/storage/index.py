"""The catalog's index: which packs there are, and where each object lies."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from kaivc.storage.catalog import Catalog, Kinds, checked, checksum, damaged


class PackState(StrEnum):
    """What may be done with a pack."""

    OPEN = "open"
    SEALED = "sealed"
    FAILED = "failed"
    CONDEMNED = "condemned"


class PackRow(NamedTuple):
    """One pack; nothing past ``committed`` is named by anything."""

    id: int
    agent: int
    name: str
    state: str
    committed: int


class ObjectRow(NamedTuple):
    """Where an object's record lies; ``kind`` is a RecordKind, ``size`` that of the whole object.

    ``base`` is the id of the object that the record is encoded with, None for none. ``within`` is where the object
    begins in the content of a block, whose offset and length these are; -1 if it has a record of its own.
    """

    id: bytes
    kind: int
    pack: int
    offset: int
    length: int
    size: int
    base: bytes | None = None
    within: int = -1


MAX_ID = 32
"""Bytes of the longest id."""

AT_ONCE = 64
"""Ids that one query asks for."""
_ANY_OF = f"agent = ? AND id IN ({', '.join('?' * AT_ONCE)})"
_PACK = "SELECT id, agent, name, state, committed, checksum FROM packs WHERE "
_PACK_KINDS: Kinds = (int, int, str, str, int)
_OBJECT = "SELECT id, kind, pack, offset, length, size, base, within, checksum FROM objects WHERE "
_OBJECT_KINDS: Kinds = (bytes, int, int, int, int, int, (bytes, type(None)), int)


def packs(catalog: Catalog, agent: int) -> list[PackRow]:
    """The packs of an agent, oldest first."""
    rows = catalog.rows(_PACK + "agent = ? ORDER BY id", (agent,))
    return [PackRow(*checked(row, f"pack {row[2]}", _PACK_KINDS)) for row in rows]


def fail_pack(db: sqlite3.Connection, number: int) -> None:
    """Note that nothing is written to a pack any more; what was committed of it stays so."""
    row = db.execute(_PACK + "id = ?", (number,)).fetchone()
    if row is not None:
        pack = PackRow(*checked(row, f"pack {row[2]}", _PACK_KINDS))
        put_pack(db, pack._replace(state=PackState.FAILED.value))


def put_pack(db: sqlite3.Connection, pack: PackRow) -> int:
    """Write a pack's row; an ``id`` of 0 makes a new one. Returns the id."""
    number = pack.id
    if not number:
        number = db.execute("SELECT coalesce(max(id), 0) + 1 FROM packs").fetchone()[0]
    row = pack._replace(id=number)
    sql = "UPDATE packs SET state = ?, committed = ?, checksum = ? WHERE id = ? AND agent = ? AND name = ?"
    if not db.execute(sql, (row.state, row.committed, checksum(*row), row.id, row.agent, row.name)).rowcount:
        db.execute("INSERT OR REPLACE INTO packs VALUES (?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))
    return number


def find(catalog: Catalog, agent: int, oid: bytes) -> ObjectRow | None:
    """Where an object lies."""
    row = catalog.row(_OBJECT + "agent = ? AND id = ?", (agent, oid))
    if row is not None and row[0] != oid:  # a damaged page leads to a row that is whole, and another
        raise damaged(f"object {oid.hex()}")
    return ObjectRow(*checked(row, f"object {oid.hex()}", _OBJECT_KINDS)) if row else None


def find_all(catalog: Catalog, agent: int, oids: Iterable[bytes]) -> dict[bytes, ObjectRow]:
    """Where those objects lie that are there, by id."""
    wanted, found = list(oids), {}
    for start in range(0, len(wanted), AT_ONCE):
        group = wanted[start : start + AT_ONCE]
        group += group[-1:] * (AT_ONCE - len(group))  # one text of the query for all
        for row in catalog.rows(_OBJECT + _ANY_OF, (agent, *group)):
            it = ObjectRow(*checked(row, _named(row), _OBJECT_KINDS))
            found[it.id] = it
    return found


def every(catalog: Catalog, agent: int) -> list[ObjectRow]:
    """Where all objects of an agent lie, in the order of packs."""
    rows = catalog.rows(_OBJECT + "agent = ? ORDER BY pack, offset", (agent,))
    return [ObjectRow(*checked(row, _named(row), _OBJECT_KINDS)) for row in rows]


def by_record(rows: Iterable[ObjectRow]) -> list[list[ObjectRow]]:
    """Rows in the order of packs, those together that point at one block."""
    found: dict[tuple[int, int], list[ObjectRow]] = {}
    for row in sorted(rows, key=lambda row: (row.pack, row.offset, row.within)):
        found.setdefault((row.pack, row.offset), []).append(row)
    return list(found.values())


def stored_bytes(rows: Iterable[ObjectRow]) -> int:
    """The bytes of the records that rows point at, those of a block once."""
    return sum({(row.pack, row.offset): row.length for row in rows}.values())


def _named(row: Sequence[Any]) -> str:
    return f"object {row[0].hex() if isinstance(row[0], bytes) else row[0]!r:.40}"


def beginning(catalog: Catalog, agent: int, digits: str, width: int, kind: int, limit: int) -> list[bytes]:
    """The ids, ``width`` bytes long, of objects of a kind whose hex begins with ``digits``; ``limit`` at most."""
    low, high = (bytes.fromhex(digits.ljust(2 * MAX_ID, fill))[:width] for fill in "0f")
    rows = catalog.rows(
        _OBJECT + "agent = ? AND id >= ? AND id <= ? AND kind = ? ORDER BY id LIMIT ?",
        (agent, low, high, kind, limit),
    )
    found = [ObjectRow(*checked(row, _named(row), _OBJECT_KINDS)).id for row in rows]
    return [oid for oid in found if oid.hex().startswith(digits)]


def put_objects(db: sqlite3.Connection, agent: int, rows: Iterable[ObjectRow]) -> None:
    """Write objects' rows; one that is there stays."""
    db.executemany(
        "INSERT OR IGNORE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((agent, *row, checksum(*row)) for row in rows),
    )


def move_objects(db: sqlite3.Connection, agent: int, moves: Iterable[tuple[ObjectRow, int, int]]) -> None:
    """Let objects' rows point at another (pack, offset); one that points elsewhere by now stays."""
    db.executemany(
        "UPDATE objects SET pack = ?, offset = ?, checksum = ? WHERE agent = ? AND id = ? AND pack = ? AND offset = ?",
        [
            (pack, offset, checksum(*row._replace(pack=pack, offset=offset)), agent, row.id, row.pack, row.offset)
            for row, pack, offset in moves
        ],
    )


def drop_objects(db: sqlite3.Connection, agent: int, rows: Iterable[ObjectRow]) -> None:
    """Forget objects."""
    db.executemany("DELETE FROM objects WHERE agent = ? AND id = ?", [(agent, row.id) for row in rows])


def drop_pack(db: sqlite3.Connection, number: int) -> None:
    """Forget a pack whose file is gone."""
    db.execute("DELETE FROM packs WHERE id = ?", (number,))


def used_packs(db: sqlite3.Connection, agent: int) -> set[int]:
    """The packs that an object or an op record of the agent is said to lie in."""
    rows = db.execute(
        "SELECT DISTINCT pack FROM objects WHERE agent = ? "
        "UNION SELECT DISTINCT pack FROM ops WHERE agent = ? AND pack IS NOT NULL",
        (agent, agent),
    )
    return {number for (number,) in rows}
