"""``kai rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kaivc.cli import arguments, picker, render
from kaivc.cli.failures import report
from kaivc.cli.invocation import Invocation
from kaivc.errors import InvalidRollbackVersion

if TYPE_CHECKING:
    from kaivc.api import Agent
    from kaivc.movement import MovePlan


def rollback(
    ctx: typer.Context,
    agent: arguments.Agent,
    to: Annotated[
        str | None, typer.Option("--to", metavar="REV", help="The version; without it, a terminal offers a choice.")
    ] = None,
    reason: arguments.Reason = "",
    dry_run: arguments.DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Make a damaged view anew from the store.")] = False,
    live: arguments.Live = False,
    op_id: arguments.OpId = None,
) -> None:
    """Go to another version, earlier or later.

    `current` points at it then, and the workspace holds its files; what no version
    holds is saved first. `kai undo` takes it back.
    """
    door: Invocation = ctx.obj
    known = door.agent(agent)

    def move(rev: str) -> MovePlan:
        return known.rollback(rev, reason=reason, dry_run=dry_run, force=force, live=live, op_id=op_id)

    try:
        plan = move(_named(to, known))
    except InvalidRollbackVersion as error:
        if door.json or "nearest" not in error.facts or not picker.possible():
            raise
        if to is not None:
            report(error, door)
        plan = move(picker.pick(known))
    door.answer(lambda: render.moved(plan), lambda: render.move_text(plan, door.paint, dry_run=dry_run))


def _named(to: str | None, agent: Agent) -> str:
    if to is not None:
        return to
    newest = [it.tag for it in (agent.current, *reversed(agent.versions()))][1:4]
    raise InvalidRollbackVersion(
        "no version is named",
        unchanged="nothing moved",
        hint=f"name one with --to: {', '.join(newest)}",
        nearest=newest,
    )
