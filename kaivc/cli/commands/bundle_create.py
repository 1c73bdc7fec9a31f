"""``kai bundle create``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape_path
from kaivc.cli.invocation import Invocation

if TYPE_CHECKING:
    from kaivc.ops.bundle_create import Bundled


def bundle_create(
    door: Invocation,
    file: Annotated[str, Argument(metavar="FILE", help="The file to write; one that is there is replaced.")],
    agents: Annotated[
        list[str] | None, Argument(metavar="[AGENT]...", help="The agents; all that have a version unless said.")
    ] = None,
    since: Annotated[
        str | None,
        Option("--since", metavar="REV", help="Leave out what is behind a revision, which the other side has."),
    ] = None,
) -> None:
    """Put agents into one file, for a disk or a mail."""
    done = door.open().bundle(file, agents or (), since=since)
    door.answer(
        lambda: {
            **render.plain(done),
            "path": render.path(done.path),
            "agents": [render.plain(it) for it in done.agents],
        },
        lambda: _text(done),
    )


def _text(done: Bundled) -> Iterator[str]:
    for it in done.agents:
        behind = f", behind {it.since[: render.SHORT]}" if it.since else ""
        yield f"{it.agent}: {render.counted(it.versions, 'version')}, {render.counted(it.records, 'record')}{behind}"
    yield f"{escape_path(done.path)} holds {render.counted(len(done.agents), 'agent')}, {render.size(done.size)}"
