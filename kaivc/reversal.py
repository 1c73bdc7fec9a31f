"""The move that reverses an entry of the reflog of ``current``."""

from __future__ import annotations

from kaivc import versions
from kaivc.errors import NoSuchRevision, NothingToUndo
from kaivc.movement import Move
from kaivc.names import ReflogEntry, backup_ref
from kaivc.repository import Repository
from kaivc.versions import AgentVersion


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
    oid = repo.ref(backup_ref(repo.name, entry.backup if entry.backup is not None else entry.seq))
    if oid is None and entry.backup is None:
        return to
    if oid is None:
        raise NoSuchRevision(
            f"the backup of entry {entry.seq} is collected",
            unchanged="nothing moved",
            hint=f"`kai rollback {repo.name} --to {to.tag}` goes there without it",
        )
    return versions.describe(repo, oid)
