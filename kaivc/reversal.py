"""The move that reverses an entry of the reflog of ``current``."""

from __future__ import annotations

from collections.abc import Sequence

from kaivc import retention, versions
from kaivc.errors import NoSuchRevision, NothingToUndo
from kaivc.movement import Move
from kaivc.names import ReflogEntry, backup_ref
from kaivc.repository import Repository
from kaivc.versions import AgentVersion


def undoable(entries: Sequence[ReflogEntry]) -> ReflogEntry | None:
    """The newest move that is neither undone nor itself an undo, of the entries of ``current``, newest first."""
    undone = {entry.undoes for entry in entries if entry.verb == "undo"}
    return next((entry for entry in entries if entry.verb != "undo" and entry.seq not in undone), None)


def redoable(entries: Sequence[ReflogEntry]) -> ReflogEntry | None:
    """The newest undo that is not redone, if nothing else moved since."""
    redone = {entry.undoes for entry in entries if entry.verb == "redo"}
    for entry in entries:
        if entry.verb == "undo" and entry.seq not in redone:
            return entry
        if entry.verb not in ("undo", "redo"):
            break
    return None


def move(repo: Repository, verb: str, entry: ReflogEntry, reason: str, *, live: bool) -> Move:
    """Back to where ``current`` was before ``entry``, the workspace too if the entry's move wrote it."""
    if entry.old is None:
        raise NothingToUndo(
            f"the first version of {repo.name} cannot be undone: `current` would point nowhere",
            unchanged="nothing moved",
        )
    to = versions.describe(repo, entry.old)
    text = reason.strip() or f"{verb} of {entry.verb} (entry {entry.seq})"
    return Move(verb, text, to, _workspace_before(repo, entry, to), undoes=entry.seq, live=live)


def _workspace_before(repo: Repository, entry: ReflogEntry, to: AgentVersion) -> AgentVersion | None:
    if not entry.workspace:
        return None
    # A clean workspace has a backup of the entry's own number if it was written to while it was replaced.
    name = backup_ref(repo.name, entry.backup if entry.backup is not None else entry.seq)
    oid = repo.ref(name)
    if oid is None and entry.backup is None and not retention.collected(repo, name):
        return to
    if oid is None:
        raise NoSuchRevision(
            f"the backup of entry {entry.seq} is collected",
            unchanged="nothing moved",
            hint=f"`kai rollback {repo.name} --to {to.tag}` goes there without it",
        )
    return versions.describe(repo, oid)
