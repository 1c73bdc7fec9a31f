"""The ids that objects have in the other hash format: a cache that the first ``kai mirror`` makes.

A row that is gone or damaged costs hashing its object again, and nothing else. Schema: docs/format/catalog.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from kaivc.storage.catalog import Catalog, checksum

TABLE = """CREATE TABLE IF NOT EXISTS mirrors (agent INTEGER NOT NULL, format TEXT NOT NULL, id BLOB NOT NULL,
    other BLOB NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (agent, format, id)) WITHOUT ROWID"""
INDEX = "CREATE INDEX IF NOT EXISTS mirrors_by_other ON mirrors (agent, format, other)"
AT_ONCE = 64
_ANY = ", ".join("?" * AT_ONCE)


def find(catalog: Catalog, agent: int, object_format: str, oids: Iterable[bytes]) -> dict[bytes, bytes]:
    """The other ids of objects, of those that are known."""
    return _find(catalog, agent, object_format, oids, "id")


def origins(catalog: Catalog, agent: int, object_format: str, others: Iterable[bytes]) -> dict[bytes, bytes]:
    """The objects that have these ids in the other format, by those."""
    return {other: oid for oid, other in _find(catalog, agent, object_format, others, "other").items()}


def _find(catalog: Catalog, agent: int, object_format: str, keys: Iterable[bytes], by: str) -> dict[bytes, bytes]:
    wanted = list(keys)
    found: dict[bytes, bytes] = {}
    if not wanted or catalog.row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'mirrors'") is None:
        return {}
    sql = f"SELECT id, other, checksum FROM mirrors WHERE agent = ? AND format = ? AND {by} IN ({_ANY})"  # noqa: S608
    for start in range(0, len(wanted), AT_ONCE):
        group = wanted[start : start + AT_ONCE]
        group += group[-1:] * (AT_ONCE - len(group))  # one text of the query for all
        rows = catalog.rows(sql, (agent, object_format, *group))
        found |= {row[0]: row[1] for row in rows if _is_whole(row, object_format)}
    return found


def _is_whole(row: Sequence[object], object_format: str) -> bool:
    oid, other, stored = row
    return isinstance(oid, bytes) and isinstance(other, bytes) and checksum(object_format, oid, other) == stored


def put(catalog: Catalog, agent: int, object_format: str, pairs: Mapping[bytes, bytes]) -> None:
    """Note other ids, by the ids that objects have here."""
    with catalog.transaction(durable=False) as db:
        _make(db)
        db.executemany(
            "INSERT OR REPLACE INTO mirrors VALUES (?, ?, ?, ?, ?)",
            [(agent, object_format, oid, other, checksum(object_format, oid, other)) for oid, other in pairs.items()],
        )


def _make(db: sqlite3.Connection) -> None:
    db.execute(TABLE)
    db.execute(INDEX)
