"""``kai new``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.forking import Forked
    from kaivc.ops.new import AgentMade


def new(
    door: Invocation,
    name: Annotated[str, Argument(metavar="NAME", help="What to call it.")],
    source: Annotated[
        str | None,
        Option(
            "--from",
            metavar="AGENT@REV|DIR",
            help="Begin with the versions up to REV of AGENT; or fill its workspace with a copy of DIR.",
        ),
    ] = None,
    link: Annotated[str | None, Option("--link", metavar="DIR", help="Let DIR itself be its workspace.")] = None,
) -> None:
    """Make an agent: empty, of a directory, or a fork of another."""
    if source is not None and link is not None:
        raise Misuse("--from and --link exclude each other", hint="give one of them")
    made = door.open().make(name, source=source, link=link)
    door.answer(lambda: _document(made), lambda: _text(made, door.paint))


def _document(made: AgentMade) -> render.Document:
    return {**render.plain(made), "forked": None if made.forked is None else render.plain(made.forked)}


def _text(made: AgentMade, paint: Paint) -> Iterator[str]:
    held = f", with {render.counted(made.files, 'file')}" if made.files else ""
    yield f"made agent {made.agent}; its workspace is {escape(made.workspace)}{held}"
    if made.forked is not None:
        yield from _forked(made.forked, paint)
    if made.forked is None or made.forked.current is None:
        yield f"make its first version with `kai commit {made.agent}`"
    yield from render.notices(made.notices, paint)


def _forked(it: Forked, paint: Paint) -> Iterator[str]:
    number = render.counted(len(it.versions), "version")
    at = f"; {paint('yellow', it.current)} is in force" if it.current else ""
    yield f"it is a fork of {it.agent}@{it.revision} {it.commit[: render.SHORT]}, with {number}{at}"
    if it.kept_as is not None:
        yield f"its workspace differs from that: it is what {it.kept_as} holds"
    yield f"  {render.size(it.shared_bytes)} shared with {it.agent}, {render.size(it.copied_bytes)} copied"
