"""``kai push``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, remotes, render
from kaivc.cli.arguments import Option
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.api import Home
    from kaivc.ops.push import Pushed


def push(
    door: Invocation,
    agent: arguments.Agent,
    remote: remotes.Remote = None,
    ref: Annotated[
        list[str] | None,
        Option("--ref", metavar="REF", help="Send a snapshot or a backup too, as `snapshots/ID`; may be repeated."),
    ] = None,
    delete: Annotated[
        list[str] | None, Option("--delete", metavar="REF", help="Remove a snapshot over there; may be repeated.")
    ] = None,
    reason: arguments.Reason = "",
    dry_run: arguments.DryRun = False,
    op_id: arguments.OpId = None,
) -> None:
    """Send an agent's versions to a remote; its `current` follows.

    `current` over there moves only from where it was last fetched or pushed.
    """
    home = door.open()
    done = home.push(
        agent,
        remotes.chosen(home, remote),
        refs=ref or (),
        delete=delete or (),
        reason=reason,
        dry_run=dry_run,
        op_id=op_id,
        ask=remotes.ask(door),
    )
    door.answer(
        lambda: {**render.plain(done), "refs": [render.plain(it) for it in done.refs]},
        lambda: _text(home, done, door.paint, dry_run=dry_run),
    )


def _text(home: Home, done: Pushed, paint: Paint, *, dry_run: bool) -> Iterator[str]:
    if not done.refs:
        yield f"{done.agent}: {done.remote} has all of it"
        return
    yield f"to {escape(done.url)}"
    moves = ((it.ref, it.old, it.new) for it in done.refs)
    yield from remotes.lines(home, done.agent, moves, paint, "  ")
    refs = render.counted(len(done.refs), "ref")
    if dry_run:
        yield f"{done.agent}: {refs} would move at {done.remote} (dry run: nothing was sent)"
    else:
        yield f"{done.agent}: {refs} moved at {done.remote}, {render.size(done.size)} sent"
