"""A group of ref updates, all or none, with their reflog."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from kaivc.errors import LostRace, VersionTaken
from kaivc.names import Absent, Exactly, ObjectId, RefUpdate
from kaivc.storage import journal
from kaivc.storage.catalog import AgentRow, Catalog
from kaivc.storage.journal import Move, Op


def apply(
    catalog: Catalog,
    db: sqlite3.Connection,
    home_id: str,
    agent: AgentRow,
    updates: Sequence[RefUpdate],
    op: Op,
) -> tuple[int, bytes]:
    """Within a transaction, move the refs and log it; the op's number and its record.

    Raises LostRace, or VersionTaken for a tag, when one of them is not what was expected; then none moves.
    """
    moves = []
    for update in updates:
        found = journal.ref(catalog, agent.id, update.name)
        _check(update, found)
        moves.append(Move(update.name, found, update.new))
        journal.put_ref(db, agent.id, update.name, update.new)
    return journal.append_op(db, home_id, agent, op, moves)


def _check(update: RefUpdate, found: ObjectId | None) -> None:
    expect = update.expect
    if isinstance(expect, Absent) and found is not None:
        _refuse_present(update, found)
    if isinstance(expect, Exactly) and found != expect.oid:
        raise LostRace(
            f"{update.name} is not where it was: another command moved it",
            unchanged="nothing moved",
            hint="look at `kai reflog`, then run the command again",
            ref=update.name,
            expected=expect.oid.hex(),
            found=found.hex() if found else None,
        )


def _refuse_present(update: RefUpdate, found: ObjectId) -> None:
    facts = {"ref": update.name, "found": found.hex()}
    if update.name.startswith("refs/tags/"):
        name = update.name.removeprefix("refs/tags/").replace("/", "@", 1)
        raise VersionTaken(
            f"{name} is taken by {found.hex()[:12]}",
            unchanged="nothing was committed",
            hint="a version number is used once; choose another, or use --bump",
            **facts,
        )
    raise LostRace(f"{update.name} is there already", unchanged="nothing moved", hint="run the command again", **facts)
