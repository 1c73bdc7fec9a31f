"""``kai checkout``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation


def checkout(
    door: Invocation,
    revision: arguments.AgentRev,
    directory: Annotated[str, Argument(metavar="DIR", help="Where to: absent or empty.")],
) -> None:
    """Write the files of a version to a directory of their own."""
    from kaivc.revisions import split

    agent, rev = split(revision)
    done = door.agent(agent).checkout(rev or "current", directory)
    files = render.counted(done.files, "file")
    door.answer(
        lambda: render.plain(done),
        lambda: [f"{done.agent} {done.version} is in {escape(done.path)} ({files})"],
    )
