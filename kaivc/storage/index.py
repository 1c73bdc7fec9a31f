"""The catalog's index: which packs there are, and where each object lies."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from kaivc.storage.catalog import Catalog, checked, checksum


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
    """Where an object's record lies; ``kind`` is a RecordKind, ``size`` that of the whole object."""

    id: bytes
    kind: int
    pack: int
    offset: int
    length: int
    size: int


_PACK = "SELECT id, agent, name, state, committed, checksum FROM packs WHERE "
_OBJECT = "SELECT id, kind, pack, offset, length, size, checksum FROM objects WHERE "


def packs(catalog: Catalog, agent: int) -> list[PackRow]:
    """The packs of an agent, oldest first."""
    rows = catalog.rows(_PACK + "agent = ? ORDER BY id", (agent,))
    return [PackRow(*checked(row, f"pack {row[2]}")) for row in rows]


def put_pack(db: sqlite3.Connection, pack: PackRow) -> int:
    """Write a pack's row; an ``id`` of 0 makes a new one. Returns the id."""
    number = pack.id
    if not number:
        number = db.execute("SELECT coalesce(max(id), 0) + 1 FROM packs").fetchone()[0]
    row = pack._replace(id=number)
    db.execute("INSERT OR REPLACE INTO packs VALUES (?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))
    return number


def find(catalog: Catalog, agent: int, oid: bytes) -> ObjectRow | None:
    """Where an object lies."""
    row = catalog.row(_OBJECT + "agent = ? AND id = ?", (agent, oid))
    return ObjectRow(*checked(row, f"object {oid.hex()}")) if row else None


def every(catalog: Catalog, agent: int) -> list[ObjectRow]:
    """Where all objects of an agent lie, in the order of packs."""
    rows = catalog.rows(_OBJECT + "agent = ? ORDER BY pack, offset", (agent,))
    return [ObjectRow(*checked(row, f"object {row[0].hex()}")) for row in rows]


def put_objects(db: sqlite3.Connection, agent: int, rows: Iterable[ObjectRow]) -> None:
    """Write objects' rows; one that is there stays."""
    db.executemany(
        "INSERT OR IGNORE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(agent, *row, checksum(*row)) for row in rows],
    )
