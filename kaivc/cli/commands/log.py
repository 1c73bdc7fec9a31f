"""``kai log``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Option
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.log import History


def log(
    door: Invocation,
    revision: arguments.AgentRev,
    limit: arguments.Limit = None,
    oneline: Annotated[bool, Option("--oneline", help="One line for each version.")] = False,
) -> None:
    """Show a version and those before it, newest first."""
    from kaivc.revisions import split

    agent, rev = split(revision)
    history = door.agent(agent).log(rev or "current", limit=limit)
    door.answer(
        lambda: {**render.plain(history), "versions": render.versions(history.versions)},
        lambda: _short(history, door.paint) if oneline else _long(history, door.paint),
    )


def _short(history: History, paint: Paint) -> Iterator[str]:
    width = max(len(it.tag) for it in history.versions)
    for it in history.versions:
        current = it.commit == history.current
        mark = f"{paint('green', '(current)')} " if current else ""
        name = paint("yellow", f"{it.commit[: render.SHORT]} {it.tag:<{width}}")
        yield f"{'*' if current else ' '} {name} {mark}{render.subject(it.notes)}"


def _long(history: History, paint: Paint) -> Iterator[str]:
    for number, it in enumerate(history.versions):
        lines = [
            *render.heading(it, paint, in_force=it.commit == history.current),
            *render.indented(it.notes),
        ]
        yield from lines[: None if number + 1 < len(history.versions) else -1]
