"""``kai restore``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.invocation import Invocation


def restore(
    door: Invocation,
    agent: arguments.Agent,
    paths: Annotated[
        list[str] | None,
        Argument(metavar="[PATH...]", help="Files and directories, from the top of the workspace; all unless said."),
    ] = None,
    source: Annotated[str, Option("--from", metavar="REV", help="The version to take them from.")] = "current",
    dry_run: arguments.DryRun = False,
    live: arguments.Live = False,
    op_id: arguments.OpId = None,
) -> None:
    """Bring files of a version into the workspace.

    `current` stays. What no version holds is saved as a backup first.
    """
    plan = door.agent(agent).restore(*(paths or ()), source=source, dry_run=dry_run, live=live, op_id=op_id)
    door.answer(lambda: render.moved(plan), lambda: render.move_text(plan, door.paint, dry_run=dry_run))
