"""``kai fetch``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kaivc.cli import remotes, render
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.api import Home
    from kaivc.ops.fetch import FetchedAll
    from kaivc.remotes.tracking import Fetched


def fetch(door: Invocation, remote: remotes.Remote = None, agent: remotes.Agents = None) -> None:
    """Bring what a remote has, and note where its refs are.

    Nothing of an agent moves: `kai pull` adopts versions and follows `current`.
    """
    home = door.open()
    done = home.fetch(remotes.chosen(home, remote), agent or (), ask=remotes.ask(door))
    door.answer(lambda: _document(done), lambda: _text(home, done, door.paint))


def _document(done: FetchedAll) -> render.Document:
    return {**render.plain(done), "agents": [_agent(it) for it in done.agents]}


def _agent(it: Fetched) -> render.Document:
    document = render.plain(it)
    del document["remote"]
    document["changes"] = [render.plain(one) for one in it.changes]
    document["conflicts"] = [{"version": one.version, "ours": one.ours, "theirs": one.theirs} for one in it.conflicts]
    return document


def _text(home: Home, done: FetchedAll, paint: Paint) -> Iterator[str]:
    moved = [it for it in done.agents if it.changes]
    if moved:
        yield f"from {escape(done.url)}"
    for it in moved:
        moves = ((one.ref, one.old, one.new) for one in it.changes)
        yield from remotes.lines(home, it.agent, moves, paint, f"  {it.agent}@", ids=True)
    for it in done.agents:
        for one in it.conflicts:
            said = (
                f"{it.agent}@{escape(one.version)} is {one.ours[: render.SHORT]} here and {one.theirs[: render.SHORT]}"
            )
            yield paint("red", f"{said} at {done.remote}: see `kai renumber`")
    if done.absent:
        yield from render.notices([f"not here: {', '.join(done.absent)}; `kai pull AGENT` brings one"], paint)
    refs, objects = sum(len(it.changes) for it in moved), sum(it.objects for it in moved)
    came = f"{render.counted(refs, 'ref')} moved, {render.counted(objects, 'object')} came"
    yield f"{done.remote}: {came}" if moved else f"{done.remote}: nothing new"
