"""The catalog's caches: views and their seals, and what is known of workspace files.

Nothing here is needed to be right: a row that is gone or damaged is as one that never was, and costs a re-hash.
"""

from __future__ import annotations

import itertools
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

    ``own_bytes`` were written for it; the rest of its files are links to those of other views. ``born`` names the
    start of the machine since which it was made, ``seen`` that since which it was last fully re-hashed: views are not
    synced, so what was seen before another start may have been cut by it.
    """

    tag: str
    used: int
    verified_ns: int
    own_bytes: int
    born: str = ""
    seen: str = ""


SIGNATURE = 5
"""Numbers that tell of a file whether it changed; of a database with a log there are twice as many."""


class Known(NamedTuple):
    """A workspace file as it was when its bytes were those of ``oid``; ``signature`` is of it and its WAL."""

    signature: tuple[int, ...]
    oid: bytes
    taken_ns: int


def views(catalog: Catalog, agent: int) -> list[ViewRow]:
    """The views of an agent, most recently used first; damaged rows are left out."""
    rows = catalog.rows(
        "SELECT tag, used, verified_ns, own_bytes, born, seen, checksum FROM views WHERE agent = ? ORDER BY used DESC",
        (agent,),
    )
    return [ViewRow(*row[:-1]) for row in rows if checksum(*row[:-1]) == row[-1]]


def view(catalog: Catalog, agent: int, tag: str) -> ViewRow | None:
    """One view; None if it is not known, or its row damaged."""
    row = catalog.row(
        "SELECT tag, used, verified_ns, own_bytes, born, seen, checksum FROM views WHERE agent = ? AND tag = ?",
        (agent, tag),
    )
    return ViewRow(*row[:-1]) if row is not None and row[0] == tag and checksum(*row[:-1]) == row[-1] else None


def put_view(db: sqlite3.Connection, agent: int, view: ViewRow) -> None:
    """Note that a view was made, verified or used; its ``used`` is that of now."""
    used = db.execute("SELECT coalesce(max(used), 0) + 1 FROM views WHERE agent = ?", (agent,)).fetchone()[0]
    row = view._replace(used=used)
    db.execute("INSERT OR REPLACE INTO views VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (agent, *row, checksum(*row)))


def drop_view(db: sqlite3.Connection, agent: int, tag: str) -> None:
    """Forget a view."""
    db.execute("DELETE FROM views WHERE agent = ? AND tag = ?", (agent, tag))


def seals(catalog: Catalog, agent: int) -> dict[tuple[int, int], Seal]:
    """All seals of an agent by (dev, inode); damaged ones are left out."""
    rows = catalog.rows(
        "SELECT dev, inode, oid, size, mode, mtime_ns, ctime_ns, checksum FROM seals WHERE agent = ?",
        (agent,),
    )
    found: dict[tuple[int, int], Seal] = {}
    same: dict[int, int] = {}  # there may be very many: the numbers that they share are kept once
    while rows:
        *fields, stored = rows.pop()
        if checksum(*fields) == stored:
            dev, inode, oid, size, mode, *times = fields
            dev = same.setdefault(dev, dev)
            found[dev, inode] = Seal(dev, inode, oid, size, same.setdefault(mode, mode), *times)
    return found


def put_seals(db: sqlite3.Connection, agent: int, rows: Iterable[Seal]) -> None:
    """Write seals."""
    db.executemany(
        "INSERT OR REPLACE INTO seals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((agent, *row, checksum(*row)) for row in rows),
    )


def drop_seals(db: sqlite3.Connection, agent: int, inodes: Iterable[tuple[int, int]]) -> None:
    """Forget seals of inodes that are gone."""
    db.executemany("DELETE FROM seals WHERE agent = ? AND dev = ? AND inode = ?", [(agent, *inode) for inode in inodes])


def forget(db: sqlite3.Connection, agent: int) -> None:
    """Forget all views, seals and known files of an agent."""
    db.execute("DELETE FROM views WHERE agent = ?", (agent,))
    db.execute("DELETE FROM seals WHERE agent = ?", (agent,))
    db.execute("DELETE FROM boots WHERE agent = ?", (agent,))
    db.execute("DELETE FROM highest WHERE agent = ?", (agent,))
    db.execute("DELETE FROM stat_cache WHERE agent = ?", (agent,))


def settled(catalog: Catalog, agent: int) -> str:
    """The start of the machine since which a writer has looked after what is not synced; empty if none has."""
    row = catalog.row("SELECT agent, boot, checksum FROM boots WHERE agent = ?", (agent,))
    return str(row[1]) if row is not None and checksum(*row[:-1]) == row[-1] else ""


def put_settled(db: sqlite3.Connection, agent: int, boot: str) -> None:
    """Note that a writer has looked after what is not synced."""
    db.execute(
        "INSERT INTO boots VALUES (?, ?, ?) ON CONFLICT (agent) DO UPDATE SET boot = excluded.boot, "
        "checksum = excluded.checksum WHERE checksum <> excluded.checksum OR boot <> excluded.boot",
        (agent, boot, checksum(agent, boot)),
    )


def highest(catalog: Catalog, agent: int) -> tuple[int, str] | None:
    """The highest version number among those that operations up to the given one named; None if nobody noted it."""
    row = catalog.row("SELECT agent, seq, version, checksum FROM highest WHERE agent = ?", (agent,))
    if row is None or checksum(*row[:-1]) != row[-1] or type(row[1]) is not int or not isinstance(row[2], str):
        return None
    return row[1], row[2]


def drop_highest(db: sqlite3.Connection, agent: int) -> None:
    """Forget the highest version number: more numbers are known than it was counted from."""
    db.execute("DELETE FROM highest WHERE agent = ?", (agent,))


def put_highest(db: sqlite3.Connection, agent: int, seq: int, version: str) -> None:
    """Note the highest version number up to an operation."""
    values = (agent, seq, version)
    db.execute("INSERT OR REPLACE INTO highest VALUES (?, ?, ?, ?)", (*values, checksum(*values)))


Listings = dict[bytes, tuple[bytes, dict[bytes, Known]]]
"""What rows of the stat cache were decoded to, by directory, with the bytes that they were decoded from."""


def known_files(
    catalog: Catalog, agent: int, boot: str, decoded: Listings | None = None
) -> dict[bytes, dict[bytes, Known]]:
    """What is known of the files of each directory of a workspace; damaged rows are left out.

    So is what was learnt before the start of the machine that ``boot`` names: a file may have lost bytes since then
    without looking changed. ``decoded`` is what this process has seen before, and will see again.
    """
    decoded = {} if decoded is None else decoded
    found: dict[bytes, dict[bytes, Known]] = {}
    rows = catalog.rows("SELECT dir, data, checksum FROM stat_cache WHERE agent = ?", (agent,))
    for directory, data, stored in rows:
        before = decoded.get(directory) if isinstance(directory, bytes) else None
        if before is not None and before[0] == data:
            found[directory] = before[1]
        elif isinstance(directory, bytes) and isinstance(data, bytes) and checksum(directory, data) == stored:
            learnt, listing = _listing(data)
            if learnt == boot:
                found[directory] = listing
                decoded[directory] = (data, listing)
    for gone in decoded.keys() - found.keys():
        decoded.pop(gone, None)
    return found


def _listing(data: bytes) -> tuple[object, dict[bytes, Known]]:
    """When a directory's files were learnt, and what; nothing for what is no listing."""
    try:
        learnt, rows = msgpack.unpackb(data, use_list=False, max_ext_len=0)
        names, signatures, oids, taken = zip(*rows, strict=True)
        numbers = itertools.chain(taken, *signatures)
        fits = set(map(len, signatures)) <= {SIGNATURE, 2 * SIGNATURE}
    except (ValueError, TypeError, msgpack.UnpackException):
        return None, {}
    if not fits or set(map(type, numbers)) - {int} or set(map(type, itertools.chain(names, oids))) - {bytes}:
        return learnt, {}
    return learnt, dict(zip(names, map(Known, signatures, oids, taken), strict=True))


def put_known_files(db: sqlite3.Connection, agent: int, files: dict[bytes, dict[bytes, Known]], boot: str) -> None:
    """Write what is known of the files of some directories since a start of the machine; an empty one is forgotten."""
    for directory, listing in files.items():
        if not listing:
            db.execute("DELETE FROM stat_cache WHERE agent = ? AND dir = ?", (agent, directory))
            continue
        data = msgpack.packb((boot, [(name, *known) for name, known in listing.items()]))
        db.execute(
            "INSERT OR REPLACE INTO stat_cache VALUES (?, ?, ?, ?)",
            (agent, directory, data, checksum(directory, data)),
        )
