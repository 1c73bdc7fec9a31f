"""Send an agent's versions to a remote, and let its ``current`` follow."""

from __future__ import annotations

from collections.abc import Sequence

from kaivc import landing, remotelist
from kaivc.errors import NoSuchRevision, NoVersionYet, RefusedByRemote
from kaivc.names import check_op_id, current_ref, heads_prefix, nearest
from kaivc.records import dataclass
from kaivc.remotes import connect
from kaivc.remotes.base import Can, Context, Push, Sent
from kaivc.remotes.planning import PushPlan, plan_push
from kaivc.remotes.tracking import (
    conflict_error,
    head_or_empty,
    look,
    note,
    note_pushed,
    noting,
    require_format,
)
from kaivc.repository import OpenHome, Repository
from kaivc.wire import Head


@dataclass(frozen=True)
class PushedRef:
    """One ref that moved, or would; ids in hex, None for not there."""

    ref: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Pushed:
    """What a push moved, or with ``applied`` false would move; ``size`` is the bytes that travelled."""

    agent: str
    remote: str
    url: str
    refs: tuple[PushedRef, ...]
    size: int
    seq: int | None
    applied: bool


def push(  # noqa: PLR0913 - a keyword for each option of the verb
    home: OpenHome,
    context: Context,
    remote: str,
    agent: str,
    *,
    refs: Sequence[str] = (),
    delete: Sequence[str] = (),
    reason: str = "",
    dry_run: bool = False,
    op_id: str | None = None,
) -> Pushed:
    """Send all versions and ``current``, and the snapshots and backups of ``refs``; ``delete`` removes snapshots.

    A backup is a snapshot over there: its number is that of an operation of this home.

    ``current`` over there moves only from where this home last saw it: Diverged otherwise, and nothing is sent.
    VersionConflict for numbers that are other versions over there, once all else is done.
    """
    check_op_id(op_id)
    repo = home.repository(agent)
    repo.require_live()
    home.require_writable()
    if repo.current is None:
        raise NoVersionYet(f"agent {agent} has no version yet", hint=f"make one with `kai commit {agent}`", agent=agent)
    also = [_ref(repo, it) for it in refs]
    gone = [heads_prefix(agent) + it.removeprefix(heads_prefix(agent)) for it in delete]
    found = remotelist.find(home, remote)
    far = connect(context, found.url)
    try:
        require_format(home, far, remote)
        head = head_or_empty(home, remote, far, agent)
        if op_id is None:  # else it may be a repetition: they are gone then
            _require_there(remote, head, gone)
        plan = plan_push(repo, remote, head.refs, also, gone)
        sent = Sent(())
        if plan.updates and (not dry_run or Can.WRITE not in far.can):  # who takes nothing says so
            why = reason.strip() or f"push from {home.actor.name}"
            wanted = Push(op_id or repo.new_op_id(), str(home.actor), why, plan.updates)
            sent = far.send(repo, wanted, head.refs)
            with noting(f"{len(sent.moved)} refs moved over there"):
                now = look(home, remote, far, agent)
                moved = {it.ref: it.new for it in plan.updates if it.ref in sent.moved}
                note_pushed(repo, remote, moved, now)
                note(home, remote, far, now)
    finally:
        far.close()
    _say_refused(remote, plan, sent)
    if plan.conflicts:
        rest = f"nothing was sent; of all else, {_counted(plan.updates)} would move"
        if not dry_run:
            rest = f"all else is done: {_counted(sent.moved)} moved"
        raise conflict_error(agent, remote, plan.conflicts, rest)
    rows = tuple(
        PushedRef(it.ref, it.old.hex() if it.old else None, it.new.hex() if it.new else None)
        for it in plan.updates
        if dry_run or it.ref in sent.moved
    )
    seq = sent.outcome.seq if sent.outcome else None
    return Pushed(agent, remote, remotelist.shown(found.url), rows, sent.size, seq, applied=bool(sent.moved))


def _ref(repo: Repository, text: str) -> str:
    """The ref of a snapshot or backup that is named: ``snapshots/ID``, ``backups/N``."""
    prefix = heads_prefix(repo.name)
    name = prefix + text.removeprefix(prefix)
    known = [it for it in repo.refs(prefix) if it != current_ref(repo.name)]
    if name not in known or not landing.may_travel(repo.name, landing.name_elsewhere(repo.name, name)):
        names = [it.removeprefix(prefix) for it in known]
        close = nearest(text, names)
        raise NoSuchRevision(
            f"{repo.name} has no {text!r:.100} that can be pushed",
            unchanged="nothing was sent",
            hint=f"did you mean {', '.join(close)}?" if close else "versions and `current` go by themselves",
            nearest=close,
        )
    return name


def _require_there(remote: str, head: Head, gone: Sequence[str]) -> None:
    """Raise NoSuchRevision unless all that is to be removed is over there."""
    prefix = heads_prefix(head.agent)
    for ref in gone:
        if ref not in head.refs:
            text = ref.removeprefix(prefix)
            close = nearest(text, [it.removeprefix(prefix) for it in head.refs if it.startswith(prefix)])
            raise NoSuchRevision(
                f"{head.agent} at {remote} has no {text!r:.100}",
                unchanged="nothing was sent",
                hint=f"did you mean {', '.join(close)}?" if close else f"`kai fetch {remote}` shows what it has",
                nearest=close,
            )


def _counted(refs: Sequence[object]) -> str:
    return f"{len(refs)} ref{'' if len(refs) == 1 else 's'}"


def _say_refused(remote: str, plan: PushPlan, sent: Sent) -> None:
    if not sent.refused:
        return
    ref, why = next(iter(sent.refused.items()))
    raise RefusedByRemote(
        f"{remote} refused {ref}: {why}",
        unchanged=f"{len(sent.moved)} of {len(plan.updates)} refs moved over there",
        hint="do what it asks for, then run the command again",
        refused=dict(sent.refused),
        moved=list(sent.moved),
    )
