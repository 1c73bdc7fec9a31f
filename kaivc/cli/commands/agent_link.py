"""``kai agent link``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape_path
from kaivc.cli.invocation import Invocation


def agent_link(
    door: Invocation,
    agent: arguments.Agent,
    directory: Annotated[str, Argument(metavar="DIR", help="Where its workspace is now.")],
) -> None:
    """Tell where a linked workspace lies now.

    For an agent made with `kai new --link`, whose directory was moved or made anew.
    """
    done = door.open().link(agent, directory)
    door.answer(
        lambda: {**render.plain(done), "workspace": render.path(done.workspace), "before": render.path(done.before)},
        lambda: [f"the workspace of {done.agent} is {escape_path(done.workspace)}"],
    )
