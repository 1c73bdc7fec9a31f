"""Let ``current`` point at another version, and bring the workspace there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from kaivc import intents, revisions
from kaivc.errors import ChecksumMismatch, InvalidRollbackVersion, NoSuchRevision, NoVersionYet
from kaivc.movement import Move, MovePlan, Mover, landed_before
from kaivc.names import Version, version_ref
from kaivc.paths import clean
from kaivc.repository import Repository
from kaivc.trees import show
from kaivc.versions import AgentVersion


def rollback(
    repo: Repository,
    to: str,
    *,
    reason: str = "",
    dry_run: bool = False,
    force: bool = False,
    live: bool = False,
    keep: Sequence[str | bytes] = (),
    op_id: str | None = None,
) -> MovePlan:
    """Move to a version that a tag names; a dirty workspace is saved as a backup first.

    ``force`` makes a damaged view anew, ``live`` goes on beside a running agent, files and directories of ``keep`` stay
    in the workspace as they are. Raises InvalidRollbackVersion, ChecksumMismatch, Incompatible, AgentBusy, or
    NoSuchPath for a path to keep that neither side has; nothing moves then.
    """
    move = partial(_move, repo, to, reason, force=force, live=live, keep=tuple(keep), op_id=op_id)
    if dry_run:
        return Mover(repo, move()).dry_run()
    with repo.lock():
        intents.finish(repo, live=live)
        return landed_before(repo, op_id) or Mover(repo, move()).apply()


def _move(
    repo: Repository,
    to: str,
    reason: str,
    *,
    force: bool,
    live: bool,
    keep: tuple[str | bytes, ...],
    op_id: str | None,
) -> Move:
    target = _target(repo, to)
    reason = reason.strip() or f"rollback to {target.tag}"
    if keep:
        reason += "; keeps " + ", ".join(show(clean(path, "nothing moved")) for path in keep)
    return Move("rollback", reason, target, target, keep=keep, force=force, live=live, op_id=op_id)


def _target(repo: Repository, to: str) -> AgentVersion:
    try:
        target = revisions.resolve(repo, to)
    except (NoSuchRevision, NoVersionYet) as error:
        raise InvalidRollbackVersion(error.what, unchanged="nothing moved", hint=error.hint, **error.facts) from error
    except ChecksumMismatch as error:
        raise InvalidRollbackVersion(
            f"{to} of {repo.name} is corrupt: {error.what}", unchanged="nothing moved", hint=error.hint
        ) from error
    if target.version is None or repo.ref(version_ref(repo.name, Version.parse(target.version))) is None:
        raise InvalidRollbackVersion(
            f"{to} is no version: `current` points at versions only",
            unchanged="nothing moved",
            hint=_instead(repo, to),
            revision=to,
        )
    return target


def _instead(repo: Repository, to: str) -> str:
    restore = f"`kai restore {repo.name} --from {to}` brings its files into the workspace"
    _, branch, name = to.rpartition("snapshots/")
    return f"`kai snapshot promote {repo.name}@{name}` makes it a version; {restore}" if branch else restore
