"""Reverse the newest undo."""

from __future__ import annotations

from kaivc import intents, reversal
from kaivc.errors import NothingToUndo
from kaivc.movement import MovePlan, Mover, landed_before
from kaivc.names import ReflogEntry, current_ref
from kaivc.records import replace
from kaivc.repository import Repository


def redo(
    repo: Repository, *, reason: str = "", dry_run: bool = False, live: bool = False, op_id: str | None = None
) -> MovePlan:
    """Reverse the newest undo that is not redone, if nothing else moved since; NothingToUndo otherwise."""
    if dry_run:
        return Mover(repo, reversal.move(repo, "redo", _candidate(repo), reason, live=live)).dry_run()
    with repo.lock():
        intents.finish(repo, live=live)
        done = landed_before(repo, op_id)
        if done is not None:
            return done
        move = replace(reversal.move(repo, "redo", _candidate(repo), reason, live=live), op_id=op_id)
        return Mover(repo, move).apply()


def _candidate(repo: Repository) -> ReflogEntry:
    entry = reversal.redoable(repo.reflog(current_ref(repo.name)))
    if entry is None:
        raise NothingToUndo(
            f"{repo.name} has no undo to redo",
            unchanged="nothing moved",
            hint="any other move clears what can be redone",
        )
    return entry
