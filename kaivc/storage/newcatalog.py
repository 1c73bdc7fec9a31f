"""A whole new catalog, written aside and put in the place of the old one.

The old one is linked into the quarantine before it goes. While no catalog is in place the new one lies, whole and
synced, beside it: whoever finds it so finishes the swap.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kaivc.errors import LockTimeout
from kaivc.layout import Layout
from kaivc.records import dataclass, field
from kaivc.storage import index, journal
from kaivc.storage.catalog import AgentRow, Catalog, checksum, put_agent
from kaivc.storage.index import ObjectRow, PackRow
from kaivc.storage.journal import Move, Op
from kaivc.storage.rechain import Link
from kaivc.vfs import Vfs

SIDES = ("", "-wal", "-shm", "-journal")


@dataclass
class NewAgent:
    """All rows of one agent; ``objects`` and ``links`` name packs by their names."""

    row: AgentRow
    former: list[str] = field(default_factory=list)
    packs: list[PackRow] = field(default_factory=list)
    objects: dict[bytes, tuple[str, ObjectRow]] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the reflog whose op records are lost."""
    refs: dict[str, bytes] = field(default_factory=dict)
    intents: list[tuple[str, bytes]] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    """What the repair itself moves, as one more op."""


def write(path: str, meta: dict[str, Any], home_id: str, agents: list[NewAgent], op: Op) -> None:
    """Write a new catalog at ``path``, where nothing is; synced when this returns."""
    catalog = Catalog.create(path, meta)
    try:
        with catalog.transaction() as db:
            for agent in agents:
                for pack in agent.packs:
                    if pack.id:  # those that keep their numbers come before those that get new ones
                        index.put_pack(db, pack)
            for agent in agents:
                _put(db, agent, home_id, op)
    finally:
        catalog.close()


def _put(db: sqlite3.Connection, agent: NewAgent, home_id: str, op: Op) -> None:
    number = agent.row.id
    put_agent(db, agent.row)
    for name in agent.former:
        db.execute("INSERT OR IGNORE INTO former VALUES (?, ?, ?)", (name, number, checksum(name, number)))
    packs = {row.name: index.put_pack(db, row) for row in agent.packs}
    index.put_objects(db, number, (row._replace(pack=packs[name]) for name, row in agent.objects.values()))
    for link in agent.links:
        at = (None, None) if link.place is None else (packs[link.place.pack], link.place.offset)
        values = (number, link.record.seq, link.record.op.op_id, link.record.digest)
        payload = link.payload if link.place is None else None
        db.execute("INSERT INTO ops VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, payload, *at))
        journal.put_reflog(db, number, link.record.seq, link.record.op, list(link.record.moves))
    for row in agent.kept:
        _keep(db, number, row)
    for ref, oid in agent.refs.items():
        journal.put_ref(db, number, ref, oid)
    for kind, payload in agent.intents:
        journal.put_intent(db, number, kind, payload)
    if agent.moves:
        journal.append_op(db, home_id, agent.row, op, agent.moves)


def _keep(db: sqlite3.Connection, number: int, row: dict[str, Any]) -> None:
    op = Op(
        **{key: row[key] for key in ("verb", "op_id", "actor", "time_ns", "reason", "undoes", "backup", "workspace")}
    )
    journal.put_reflog(db, number, row["seq"], op, [Move(row["ref"], row["old"], row["new"])], row["ord"])


# ---------------------------------------------------------------- the swap


@contextmanager
def writers_kept_out(path: str, wait: float) -> Iterator[None]:
    """Hold the old catalog's own write lock, if it is still one: who waits for it will see the new one.

    LockTimeout when another process writes for longer than ``wait`` seconds.
    """
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    db = None
    try:
        db = sqlite3.connect(f"file:{quoted}?mode=rw", uri=True, isolation_level=None, timeout=wait)
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        if (getattr(error, "sqlite_errorname", "") or "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            if db is not None:
                db.close()
            raise LockTimeout(
                "another process has been writing the catalog for too long",
                unchanged="nothing was repaired",
                hint="run the command again",
            ) from error
    try:
        yield
    finally:
        if db is not None:
            with suppress(sqlite3.Error):
                if db.in_transaction:
                    db.execute("ROLLBACK")
            db.close()


def offer(vfs: Vfs, layout: Layout, temporary: str, *, shared: bool) -> None:
    """Give a catalog that is written its waiting name: from here on it can only come in force."""
    if shared:
        vfs.share(temporary)
    fd = vfs.open_append(temporary)
    try:
        vfs.sync(fd)
    finally:
        vfs.close(fd)
    vfs.rename(temporary, layout.repaired)
    vfs.sync_dir(layout.kai)


def is_cut(layout: Layout) -> bool:
    """Whether a swap was cut: the old catalog is gone, and the new one waits."""
    return os.path.lexists(layout.repaired) and not os.path.lexists(layout.catalog)


def swap(vfs: Vfs, layout: Layout, quarantine: str) -> None:
    """Put the waiting catalog in place. Done again after a cut it ends the same.

    The log of the old one must be gone before the new one has its name: SQLite would take it for the new one's.
    """
    old = [layout.catalog + side for side in SIDES if os.path.lexists(layout.catalog + side)]
    if old:
        vfs.make_dirs(quarantine)
        for path in old:
            kept = os.path.join(quarantine, os.path.basename(path))
            if os.path.isdir(path) and not os.path.islink(path):
                vfs.rename(path, kept)  # one cannot be linked, nor has it ever been a catalog
            elif not os.path.lexists(kept):
                vfs.link(path, kept)
        vfs.sync_dir(quarantine)
        vfs.sync_dir(layout.quarantine)
        for path in old:
            vfs.unlink(path, missing_ok=True)
        vfs.sync_dir(layout.kai)
    vfs.rename(layout.repaired, layout.catalog)
    vfs.sync_dir(layout.kai)
