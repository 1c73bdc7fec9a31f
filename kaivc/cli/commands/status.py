"""``kai status``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, render
from kaivc.cli.agents import Answers, each
from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape, escape_path
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.status import Status

Rows = tuple[tuple[str, str, str], ...]


def status(
    door: Invocation,
    agent: Annotated[str | None, Argument(metavar="[AGENT]", help="The agent; all unless said.")] = None,
    exit_code: arguments.ExitCode = False,
) -> int:
    """Show how the workspace stands to the version in force."""
    found = each(door, agent, lambda it: it.status())
    door.answer(
        lambda: {"agents": [_document(it) for it in found.results], "failed": found.documents()},
        lambda: _text(found, door.paint),
    )
    found.raise_first(door)
    return int(exit_code and any(it.dirty for it in found.results))


def _document(it: Status) -> render.Document:
    return {**render.plain(it), "changes": render.changes(it.changes), "kept": render.changes(it.kept)}


def _text(found: Answers[Status], paint: Paint) -> Iterator[str]:
    for number, it in enumerate(found.results):
        if number:
            yield ""
        yield from _one(it, paint)
    if found.empty:
        yield "there are no agents; `kai new NAME` makes one"


def _one(it: Status, paint: Paint) -> Iterator[str]:
    at = f"v{it.version} ({(it.commit or '')[: render.SHORT]})" if it.version else "no version yet"
    yield f"{paint('bold', it.agent)}: {at}{', running' if it.running else ''}"
    if it.changes:
        yield from _by_class(it.changes, paint, "the workspace differs from current:" if it.version else "to commit:")
    else:
        yield "the workspace is as current has it" if it.version else "the workspace is empty"
    if it.kept:
        yield from _by_class(it.kept, paint, "kept by a rollback:")
    if not it.linked:
        yield paint("red", "the link `current` does not point there; the next command that writes mends it")
    if it.pending:
        yield f"left to be done by the next command that writes: {escape(', '.join(it.pending))}"
    yield from render.notices(it.notices, paint)


def _by_class(rows: Rows, paint: Paint, title: str) -> Iterator[str]:
    yield title
    for kind in sorted({row[1] for row in rows}):
        yield f"  {kind}"
        for letter, of, name in rows:
            if of == kind:
                yield paint("red", f"    {render.WORDS[letter] + ':':<12}{escape_path(name)}")
