"""The catalog's caches: views and their seals, and what is known of workspace files.

Nothing here is needed to be right: a row that is gone or damaged is as one that never was, and costs a re-hash.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

import msgpack

from kaivc.storage.catalog import Catalog, checksum


class Seal(NamedTuple):
    """The inode of a view's file as it was when its bytes were known to be those of ``oid``."""

    dev: int
    inode: int
    oid: bytes
    size: int
    mode: int
    mtime_ns: int
    ctime_ns: int


class ViewRow(NamedTuple):
    """A view; ``used`` grows with each use of any view, ``verified_ns`` is when it was last fully re-hashed.

    ``own_bytes`` were written for it; the rest of its files are links to those of other views.
    """

    tag: str
    used: int
    verified_ns: int
    own_bytes: int


class Known(NamedTuple):
    """A workspace file as it was when its bytes were those of ``oid``; ``signature`` is of it and its WAL."""

    signature: tuple[int, ...]
    oid: bytes
    taken_ns: int


def views(catalog: Catalog, agent: int) -> list[ViewRow]:
    """The views of an agent, most recently used first; damaged rows are left out."""
    rows = catalog.rows(
        "SELECT tag, used, verified_ns, own_bytes, checksum FROM views WHERE agent = ? ORDER BY used DESC", (agent,)
    )
    return [ViewRow(*row[:-1]) for row in rows if checksum(*row[:-1]) == row[-1]]


def put_view(db: sqlite3.Connection, agent: int, tag: str, verified_ns: int, own_bytes: int) -> None:
    """Note that a view was made, verified or used."""
    used = db.execute("SELECT coalesce(max(used), 0) + 1 FROM views WHERE agent = ?", (agent,)).fetchone()[0]
    row = ViewRow(tag, used, verified_ns, own_bytes)
    db.execute("INSERT OR REPLACE INTO views VALUES (?, ?, ?, ?, ?, ?)", (agent, *row, checksum(*row)))


def drop_view(db: sqlite3.Connection, agent: int, tag: str) -> None:
    """Forget a view."""
    db.execute("DELETE FROM views WHERE agent = ? AND tag = ?", (agent, tag))


def seals(catalog: Catalog, agent: int) -> dict[tuple[int, int], Seal]:
    """All seals of an agent by (dev, inode); damaged ones are left out."""
    rows = catalog.rows(
        "SELECT dev, inode, oid, size, mode, mtime_ns, ctime_ns, checksum FROM seals WHERE agent = ?",
        (agent,),
    )
    return {(row[0], row[1]): Seal(*row[:-1]) for row in rows if checksum(*row[:-1]) == row[-1]}


def put_seals(db: sqlite3.Connection, agent: int, rows: Iterable[Seal]) -> None:
    """Write seals."""
    db.executemany(
        "INSERT OR REPLACE INTO seals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(agent, *row, checksum(*row)) for row in rows],
    )


def drop_seals(db: sqlite3.Connection, agent: int, inodes: Iterable[tuple[int, int]]) -> None:
    """Forget seals of inodes that are gone."""
    db.executemany("DELETE FROM seals WHERE agent = ? AND dev = ? AND inode = ?", [(agent, *inode) for inode in inodes])


def forget(db: sqlite3.Connection, agent: int) -> None:
    """Forget all views, seals and known files of an agent."""
    db.execute("DELETE FROM views WHERE agent = ?", (agent,))
    db.execute("DELETE FROM seals WHERE agent = ?", (agent,))
    db.execute("DELETE FROM stat_cache WHERE agent = ?", (agent,))


def known_files(catalog: Catalog, agent: int) -> dict[bytes, dict[bytes, Known]]:
    """What is known of the files of each directory of a workspace; damaged rows are left out."""
    found: dict[bytes, dict[bytes, Known]] = {}
    rows = catalog.rows("SELECT dir, data, checksum FROM stat_cache WHERE agent = ?", (agent,))
    for directory, data, stored in rows:
        if checksum(directory, data) == stored:
            listing = msgpack.unpackb(data, use_list=False)
            found[directory] = {name: Known(signature, oid, taken) for name, signature, oid, taken in listing}
    return found


def put_known_files(db: sqlite3.Connection, agent: int, files: dict[bytes, dict[bytes, Known]]) -> None:
    """Write what is known of the files of some directories; an empty one is forgotten."""
    for directory, listing in files.items():
        if not listing:
            db.execute("DELETE FROM stat_cache WHERE agent = ? AND dir = ?", (agent, directory))
            continue
        data = msgpack.packb([(name, *known) for name, known in listing.items()])
        db.execute(
            "INSERT OR REPLACE INTO stat_cache VALUES (?, ?, ?, ?)",
            (agent, directory, data, checksum(directory, data)),
        )
