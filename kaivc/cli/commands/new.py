"""``kai new``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from kaivc.cli import render
from kaivc.cli.escape import escape
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.new import AgentMade


def new(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    source: Annotated[
        str | None, typer.Option("--from", metavar="DIR", help="Fill its workspace with a copy of DIR.")
    ] = None,
    link: Annotated[str | None, typer.Option("--link", metavar="DIR", help="Let DIR itself be its workspace.")] = None,
) -> None:
    """Make an agent; it has no version until the first commit."""
    if source is not None and link is not None:
        raise Misuse("--from and --link exclude each other", hint="give one of them")
    door: Invocation = ctx.obj
    made = door.open().make(name, source=source, link=link)
    door.answer(lambda: render.plain(made), lambda: _text(made, door.paint))


def _text(made: AgentMade, paint: Paint) -> Iterator[str]:
    held = f", with {render.counted(made.files, 'file')}" if made.files else ""
    yield f"made agent {made.agent}; its workspace is {escape(made.workspace)}{held}"
    yield f"make its first version with `kai commit {made.agent}`"
    yield from render.notices(made.notices, paint)
