"""``kai agent rename``."""

from __future__ import annotations

from typing import Annotated

import typer

from kaivc.cli import arguments, render
from kaivc.cli.escape import escape_path
from kaivc.cli.invocation import Invocation


def agent_rename(
    ctx: typer.Context,
    old: Annotated[str, typer.Argument(metavar="OLD", help="What it is called.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What to call it.")],
    reason: arguments.Reason = "",
) -> None:
    """Give an agent another name; nobody else may have the old one.

    Its versions, its history and its workspace go along; numbers count on.
    """
    door: Invocation = ctx.obj
    done = door.open().rename(old, new, reason=reason)
    refs = render.counted(done.refs, "ref")
    door.answer(
        lambda: {**render.plain(done), "workspace": render.path(done.workspace)},
        lambda: [
            f"{done.former} is {done.agent} now ({refs} moved)",
            f"its workspace is {escape_path(done.workspace)}",
        ],
    )
