"""The checking core: records and rows, no versions.

::

    check_catalog(db)                    every row of every table against its checksum, and the tables among each other
    check_agent(store, db, agent, ...)   packs, index, every object's hash, the chain of op records, reflog and refs

Nothing raises for what is damaged: each thing found is a ``Damage``, and the rest is still looked at. Both work on one
reading connection of ``salvage.connect``, one snapshot of the catalog, beside writers. ``inspection.py`` says which
agents, versions and paths a damage takes with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from kaivc.errors import ChecksumMismatch, StorageError, TooLarge
from kaivc.names import ObjectId
from kaivc.ports import Progress
from kaivc.records import replace
from kaivc.storage import salvage
from kaivc.storage.catalog import FORMATS, AgentRow
from kaivc.storage.chaincheck import Chain
from kaivc.storage.damage import AgentCheck, Damage, Severity
from kaivc.storage.packcheck import Packs
from kaivc.storage.salvage import Row, Unreadable, good_rows
from kaivc.storage.store import ObjectStore
from kaivc.vfs import unless_short

# ---------------------------------------------------------------- the catalog


def check_catalog(db: sqlite3.Connection) -> Iterator[Damage]:
    """SQLite's own check, then every row of every table."""
    for said in salvage.integrity(db):
        yield Damage("catalog", f"SQLite says: {said}")
    known: set[int] = set()
    orphans: dict[tuple[str, Any], list[Row]] = {}
    meta: dict[str, Any] = {}
    for table in salvage.TABLES:
        for row in salvage.rows(db, table):
            if isinstance(row, Unreadable):
                yield Damage("catalog", f"the table {table} cannot be read: {row.why}", row=table)
                continue
            if not row.whole:
                yield _row_damage(row, "does not fit its checksum or the types of its columns")
            if table == "meta":
                meta[row.values["key"]] = row.values["value"]
            elif table == "agents":
                known.add(row.values["id"])
            elif row.values["agent"] not in known:
                orphans.setdefault((table, row.values["agent"]), []).append(row)
    for of_one in orphans.values():
        more = f", as do {len(of_one) - 1} more" if len(of_one) > 1 else ""
        yield _row_damage(of_one[0], f"belongs to no agent{more}")
    yield from _check_meta(meta)


def _check_meta(meta: dict[str, Any]) -> Iterator[Damage]:
    for key in ("format", "home_id", "object_format", "shared"):
        if key not in meta:
            yield Damage("catalog", f"the row {key} of meta is missing", row=f"meta {key}")
    for key in sorted(meta.keys() - {"format", "home_id", "object_format", "shared"}):
        yield Damage("catalog", f"meta has a row of the unknown key {key!r}", row=f"meta {key}")
    if "object_format" in meta and meta["object_format"] not in FORMATS:
        yield Damage("catalog", f"{meta['object_format']!r:.40} is no object format", row="meta object_format")
    if meta.get("shared") not in (0, 1, None):
        yield Damage("catalog", f"`shared` is {meta['shared']!r:.40}", row="meta shared")


def _row_damage(row: Row, what: str) -> Damage:
    severity = Severity.DAMAGE if row.table in salvage.MATTERS else Severity.WARNING
    return Damage(
        "catalog", f"a row of {row.table} {what} ({row.name})", row=f"{row.table} {row.name}", severity=severity
    )


def agents(db: sqlite3.Connection) -> list[AgentRow]:
    """The agents whose rows are whole, by name."""
    found = [AgentRow(**values) for values in good_rows(db, "agents")]
    return sorted(found, key=lambda it: it.name)


# ---------------------------------------------------------------- one agent


def check_agent(store: ObjectStore, db: sqlite3.Connection, agent: AgentRow, progress: Progress) -> AgentCheck:
    """Packs, index, objects, op records, reflog and refs of one agent."""
    check = AgentCheck(agent.name)
    store.forget()
    packs = Packs(check, store, db, progress)
    packs.run()
    for oid, cause in check.causes.items():
        check.holders.setdefault(cause.hex(), []).append(oid.hex())
    _check_chunk_lists(check, store, packs.chunk_lists, progress)
    Chain(check, store.place, db, agent, packs).run()
    packs.close()
    return check


def _check_chunk_lists(check: AgentCheck, store: ObjectStore, listed: list[bytes], progress: Progress) -> None:
    for number, oid in enumerate(listed):
        progress("checking large files", number, len(listed))
        bad = _bad_chunk(check, store, oid)
        if bad is not None:
            check.bad[oid] = bad
            continue
        try:
            store.check(ObjectId(oid))
        except ChecksumMismatch as error:
            check.bad[oid] = Damage("object", error.what, check.agent, object=oid.hex())
            check.damages.append(check.bad[oid])
        except (StorageError, TooLarge) as error:
            unless_short(error)
            check.damages.append(Damage("object", error.what, check.agent, object=oid.hex()))


def _bad_chunk(check: AgentCheck, store: ObjectStore, oid: bytes) -> Damage | None:
    """The damage of the first chunk of a blob that the packs gave away; each one is noted with the blob."""
    try:
        listed = store.chunk_list(store.require(oid))
    except (ChecksumMismatch, StorageError, TooLarge):
        return None
    bad = [chunk_id for chunk_id, _ in listed if chunk_id in check.bad]
    for chunk_id in bad:
        check.holders.setdefault(check.causes.get(chunk_id, chunk_id).hex(), []).append(oid.hex())
    return replace(check.bad[bad[0]], object=oid.hex()) if bad else None
