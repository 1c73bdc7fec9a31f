"""``kai redo``."""

from __future__ import annotations

from kaivc.cli import arguments, render
from kaivc.cli.invocation import Invocation


def redo(
    door: Invocation,
    agent: arguments.Agent,
    reason: arguments.Reason = "",
    dry_run: arguments.DryRun = False,
    live: arguments.Live = False,
    op_id: arguments.OpId = None,
) -> None:
    """Reverse the newest undo.

    Any other move since then leaves nothing to redo.
    """
    plan = door.agent(agent).redo(reason=reason, dry_run=dry_run, live=live, op_id=op_id)
    door.answer(lambda: render.moved(plan), lambda: render.move_text(plan, door.paint, dry_run=dry_run))
