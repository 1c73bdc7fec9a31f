"""``kai remote add``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli import render
from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation


def remote_add(
    door: Invocation,
    name: Annotated[str, Argument(metavar="NAME", help="What to call it.")],
    url: Annotated[str, Argument(metavar="URL", help="A path, a URL, or a bundle.")],
) -> None:
    """Note where another home, a git repository or a bundle is.

    Nothing is asked of it yet.
    """
    done = door.open().remote_add(name, url)
    kind = " (git)" if done.is_git else ""
    door.answer(lambda: render.plain(done), lambda: [f"{done.name} is {escape(done.url)}{kind}"])
