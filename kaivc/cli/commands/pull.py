"""``kai pull``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kaivc.cli import arguments, remotes, render
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.pull import Pulled


def pull(
    door: Invocation,
    agent: arguments.Agent,
    remote: remotes.Remote = None,
    reason: arguments.Reason = "",
    live: arguments.Live = False,
    op_id: arguments.OpId = None,
) -> None:
    """Fetch an agent, adopt its new versions, and follow `current`.

    An agent that is not here yet is made. `current` moves only if nobody moved it here since it
    was last fetched or pushed; `kai undo` takes the move back.
    """
    home = door.open()
    done = home.pull(agent, remotes.chosen(home, remote), reason=reason, live=live, op_id=op_id, ask=remotes.ask(door))
    door.answer(lambda: render.plain(done), lambda: _text(done, door.paint))


def _text(done: Pulled, paint: Paint) -> Iterator[str]:
    for tag in done.adopted:
        yield f"{escape(tag)} {paint('green', '[new]')}"
    moved = done.from_version != done.to_version
    now = paint("yellow", done.to_version or "-")
    if moved:
        yield f"current {done.from_version} -> {now}" if done.from_version else f"current {paint('green', '[new]')}"
    what = f"made agent {done.agent}" if done.made else done.agent
    if not (done.adopted or moved):
        yield f"{what}: nothing new at {done.remote}; {now} is in force"
        return
    versions = render.counted(len(done.adopted), "new version")
    yield f"{what}: {versions}, {render.counted(done.objects, 'object')} from {done.remote}; {now} is in force"
    if done.backup is not None:
        yield f"the workspace as it was is in {done.backup}"
