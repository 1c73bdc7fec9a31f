"""Read a catalog row by row, whatever state it is in.

Nothing here raises for a damaged row or page: what can be read is given, what cannot is said. The connection reads
one snapshot and never writes.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

from kaivc.errors import LockTimeout
from kaivc.storage import readonly
from kaivc.storage.catalog import SCHEMA, checksum

WAIT = 5.0
"""Seconds that a reader waits for a catalog that is being recovered."""


class Table(NamedTuple):
    """What a table's rows hold; ``checked`` are the columns under the checksum, ``key`` those that it is ordered by."""

    columns: tuple[str, ...]
    checked: tuple[str, ...]
    key: tuple[str, ...]


def _table(columns: str, key: str, unchecked: str = "") -> Table:
    names = tuple(columns.split())
    checked = () if unchecked == "*" else tuple(name for name in names if name not in unchecked.split())
    return Table(names, checked, tuple(key.split()))


TABLES = {
    "meta": _table("key value", "key", "*"),
    "agents": _table("id name created_ns op_seq op_head removed_ns", "id"),
    "former": _table("name agent", "name"),
    "packs": _table("id agent name state committed", "id"),
    "objects": _table("agent id kind pack offset length size base within", "agent id", "agent"),
    "refs": _table("agent name oid", "agent name", "agent"),
    "ops": _table("agent seq op_id digest payload pack offset", "agent seq", "*"),
    "reflog": _table(
        "agent seq ord ref old new actor time_ns reason verb op_id undoes backup workspace", "agent seq ord", "agent"
    ),
    "intents": _table("id agent kind payload", "id", "id"),
    "views": _table("agent tag used verified_ns own_bytes born seen", "agent tag", "agent"),
    "seals": _table("agent dev inode oid size mode mtime_ns ctime_ns", "agent dev inode", "agent"),
    "boots": _table("agent boot", "agent"),
    "highest": _table("agent seq version", "agent"),
    "stat_cache": _table("agent dir data", "agent dir", "agent"),
}
"""Every table of the catalog; one without checked columns has no checksum."""

MATTERS = ("meta", "agents", "former", "packs", "objects", "refs", "ops", "reflog", "intents")
"""The tables that are no caches."""


_TYPES = {"INTEGER": int, "TEXT": str, "BLOB": bytes}


def _types() -> dict[tuple[str, str], tuple[type, ...]]:
    """What the columns hold, by table and column: SQLite itself takes a value of any type."""
    found: dict[tuple[str, str], tuple[type, ...]] = {}
    for table, columns in re.findall(r"CREATE TABLE (\w+) \((.*?)\)[^,)]*;", SCHEMA, re.DOTALL):
        for name, kind, rule in re.findall(r"(\w+) (INTEGER|TEXT|BLOB)( NOT NULL| PRIMARY KEY|)", columns):
            found[table, name] = (_TYPES[kind],) if rule else (_TYPES[kind], type(None))
    return found


TYPES = _types()


class Row(NamedTuple):
    """A row by the names of its columns; ``whole`` says whether it fits its checksum and its columns' types."""

    table: str
    values: dict[str, Any]
    whole: bool

    @property
    def name(self) -> str:
        """The row's key in words."""
        return " ".join(_show(self.values[name]) for name in TABLES[self.table].key)


class Unreadable(NamedTuple):
    """A table, or a part of it, that SQLite cannot read."""

    table: str
    why: str


def _show(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return ascii(value)[1:-1] if isinstance(value, str) else str(value)


def connect(path: str, scratch: str = "/tmp") -> sqlite3.Connection:  # noqa: S108 - only a private directory is made
    """A reading connection to a catalog; sqlite3.Error if there is none to be had, LockTimeout while it is held.

    Where the home cannot be written, a private copy may go below ``scratch``.
    """
    if not os.path.exists(path):
        raise sqlite3.OperationalError("it is missing")
    if not os.path.isfile(path):  # SQLite would wait for whoever writes into a pipe
        raise sqlite3.OperationalError("it is no file")
    if not os.path.isfile(path):  # SQLite would wait for whoever writes into a pipe
        raise sqlite3.OperationalError("it is no file")
    try:
        return _connect(path, scratch)
    except sqlite3.Error as error:
        if (getattr(error, "sqlite_errorname", "") or "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise LockTimeout(
                "another process holds the catalog for too long",
                unchanged="nothing was written",
                hint="run the command again",
            ) from error
        raise


def _connect(path: str, scratch: str) -> sqlite3.Connection:
    if readonly.obstacle(path):
        try:
            db = readonly.connect(path, WAIT, scratch).connection
        except readonly.NotReadable as error:
            raise sqlite3.OperationalError(str(error)) from error
    else:
        quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        db = sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, isolation_level=None, timeout=WAIT)
    db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        db.execute("PRAGMA query_only=ON")
        db.execute("PRAGMA trusted_schema=OFF")
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except UnicodeDecodeError as error:  # what SQLite says of a damaged schema quotes it
        db.close()
        raise sqlite3.DatabaseError("its tables are not described by text") from error
    except BaseException:
        db.close()
        raise
    return db


def rows(db: sqlite3.Connection, table: str, where: str = "", args: tuple[Any, ...] = ()) -> Iterator[Row | Unreadable]:
    """The rows of a table in the order of its key; what lies behind an unreadable page is read from the other end."""
    shape = TABLES[table]
    seen: set[tuple[Any, ...]] | None = None
    try:
        last = None
        for row in _select(db, table, where, args, ""):
            last = row
            yield row
        return
    except sqlite3.Error as error:
        yield Unreadable(table, str(error))
        stop = None if last is None else tuple(last.values[name] for name in shape.key)
        seen = {stop} if stop is not None else set()
    back = []
    try:
        for row in _select(db, table, where, args, " DESC"):
            if tuple(row.values[name] for name in shape.key) in seen:
                break
            back.append(row)
    except sqlite3.Error:
        pass
    yield from reversed(back)


def good_rows(
    db: sqlite3.Connection, table: str, where: str = "", args: tuple[Any, ...] = ()
) -> Iterator[dict[str, Any]]:
    """The rows that can be read and fit their checksum; by column."""
    for row in rows(db, table, where, args):
        if isinstance(row, Row) and row.whole:
            yield row.values


def _select(db: sqlite3.Connection, table: str, where: str, args: tuple[Any, ...], order: str) -> Iterator[Row]:
    shape = TABLES[table]
    columns = ", ".join(shape.columns) + (", checksum" if shape.checked else "")
    by = ", ".join(f"{name}{order}" for name in shape.key)
    for values in db.execute(f"SELECT {columns} FROM {table} {where} ORDER BY {by}", args):  # noqa: S608 - own names
        named = dict(zip(shape.columns, values, strict=False))
        typed = all(isinstance(value, TYPES.get((table, name), object)) for name, value in named.items())
        whole = typed and (not shape.checked or _fits([named[name] for name in shape.checked], values[-1]))
        yield Row(table, named, whole)


def _fits(values: list[Any], stored: object) -> bool:
    try:
        return checksum(*values) == stored
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError):
        return False


def integrity(db: sqlite3.Connection) -> list[str]:
    """What SQLite itself says is wrong with the file."""
    try:
        said = [str(row[0]) for row in db.execute("PRAGMA integrity_check(20)")]
    except sqlite3.Error as error:
        return [str(error)]
    return [] if said == ["ok"] else said
