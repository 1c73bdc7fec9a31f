"""``kai remote remove``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli import render
from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation


def remote_remove(
    door: Invocation, name: Annotated[str, Argument(metavar="REMOTE", help="What it is called.")]
) -> None:
    """Forget a remote; versions that came from it stay."""
    done = door.open().remote_remove(name)
    refs = render.counted(done.refs, "ref")
    door.answer(lambda: render.plain(done), lambda: [f"{done.name} ({escape(done.url)}) is forgotten, with {refs}"])
