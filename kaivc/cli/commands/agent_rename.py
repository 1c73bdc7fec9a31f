"""``kai agent rename``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape_path
from kaivc.cli.invocation import Invocation


def agent_rename(
    door: Invocation,
    old: Annotated[str, Argument(metavar="OLD", help="What it is called.")],
    new: Annotated[str, Argument(metavar="NEW", help="What to call it.")],
    reason: arguments.Reason = "",
) -> None:
    """Give an agent another name; nobody else may have the old one.

    Its versions, its history and its workspace go along; numbers count on.
    """
    done = door.open().rename(old, new, reason=reason)
    refs = render.counted(done.refs, "ref")
    door.answer(
        lambda: {**render.plain(done), "workspace": render.path(done.workspace)},
        lambda: [
            f"{done.former} is {done.agent} now ({refs} moved)",
            f"its workspace is {escape_path(done.workspace)}",
        ],
    )
