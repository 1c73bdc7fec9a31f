"""``kai mirror``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, remotes, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.api import Home
    from kaivc.ops.mirror import Mirrored


def mirror(
    door: Invocation,
    remote: Annotated[str, Argument(metavar="REMOTE", help="The remote: a git host of the other hash format.")],
    agents: Annotated[
        list[str] | None, Argument(metavar="[AGENT]...", help="The agents; all that have a version unless said.")
    ] = None,
    object_format: Annotated[
        str, Option("--object-format", metavar="FORMAT", help="How the host hashes: sha1 or sha256.")
    ] = "sha1",
    dry_run: arguments.DryRun = False,
) -> None:
    """Keep a re-encoded copy at a git host of the other hash format.

    One way: files and words are the same, ids are others, and nothing is ever taken from there.
    """
    home = door.open()
    done = home.mirror(remote, object_format, agents or (), dry_run=dry_run, ask=remotes.ask(door))
    door.answer(lambda: _document(done), lambda: _text(home, done, door.paint, dry_run=dry_run))


def _document(done: Mirrored) -> render.Document:
    agents = [{**render.plain(it), "refs": [render.plain(one) for one in it.refs]} for it in done.agents]
    return {**render.plain(done), "agents": agents}


def _text(home: Home, done: Mirrored, paint: Paint, *, dry_run: bool) -> Iterator[str]:
    yield f"to {escape(done.url)}, as {done.object_format}"
    for it in done.agents:
        moves = ((one.ref, one.old, one.new) for one in it.refs)
        yield from remotes.lines(home, it.agent, moves, paint, f"  {it.agent}@")
        refs = render.counted(len(it.refs), "ref")
        if not it.refs:
            yield f"{it.agent}: {done.remote} has all of it"
        elif dry_run:
            yield f"{it.agent}: {refs} would move at {done.remote} (dry run: nothing was sent)"
        else:
            yield f"{it.agent}: {refs} moved at {done.remote}, {render.size(it.size)} sent"
