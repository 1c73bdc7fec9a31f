"""Reverse the newest move of ``current``."""

from __future__ import annotations

from kaivc import intents, reversal
from kaivc.errors import NothingToUndo
from kaivc.movement import MovePlan, Mover, landed_before
from kaivc.names import ReflogEntry, current_ref
from kaivc.records import replace
from kaivc.repository import Repository


def undo(
    repo: Repository, *, reason: str = "", dry_run: bool = False, live: bool = False, op_id: str | None = None
) -> MovePlan:
    """Reverse the newest move that is neither undone nor itself an undo; a new entry that names it.

    NothingToUndo if there is none.
    """
    if dry_run:
        return Mover(repo, reversal.move(repo, "undo", _candidate(repo), reason, live=live)).dry_run()
    with repo.lock():
        intents.finish(repo, live=live)
        done = landed_before(repo, op_id)
        if done is not None:
            return done
        move = replace(reversal.move(repo, "undo", _candidate(repo), reason, live=live), op_id=op_id)
        return Mover(repo, move).apply()


def _candidate(repo: Repository) -> ReflogEntry:
    entry = reversal.undoable(repo.reflog(current_ref(repo.name)))
    if entry is None:
        raise NothingToUndo(f"{repo.name} has no move to undo", unchanged="nothing moved", hint="see `kai reflog`")
    return entry
