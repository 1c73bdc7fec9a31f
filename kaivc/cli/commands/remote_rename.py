"""``kai remote rename``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli import render
from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation


def remote_rename(
    door: Invocation,
    old: Annotated[str, Argument(metavar="REMOTE", help="What it is called.")],
    new: Annotated[str, Argument(metavar="NEW", help="What to call it.")],
) -> None:
    """Give a remote another name; all that is known of it goes along."""
    done = door.open().remote_rename(old, new)
    refs = render.counted(done.refs, "ref")
    door.answer(
        lambda: render.plain(done), lambda: [f"{done.former} ({escape(done.url)}) is {done.name} now ({refs} moved)"]
    )
