"""``kai snapshot AGENT --test REV``."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape
from kaivc.cli.failures import INTERRUPTED
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.snapshot_test import SnapshotTested


def snapshot(
    door: Invocation,
    agent: arguments.Agent,
    test: Annotated[str, Option("--test", metavar="REV", help="The version to test.")],
    command: Annotated[
        list[str] | None, Argument(metavar="[-- CMD...]", help="What to run; the manifest's check unless said.")
    ] = None,
    state: Annotated[
        Literal["committed", "live"], Option("--state", help="Whose state it finds: the version's, or the workspace's.")
    ] = "committed",
    commit: Annotated[bool, Option("--commit", help="If it passes, keep what it changed as a branch.")] = False,
) -> int:
    """Test a version in a throw-away layer, apart from all else.

    The version never changes. What the command writes is shown, and discarded
    unless --commit is given. Exit with 1 if it fails.
    """
    done = door.agent(agent).snapshot_test(
        test, *(command or ()), state=state, commit=commit, say=None if door.json else _relay()
    )
    from kaivc.cli import snapshots

    door.answer(lambda: snapshots.tested(done), lambda: _text(done, door.paint))
    if done.ended_by == "interrupt":
        return INTERRUPTED
    return 0 if done.ok else 1


def _relay() -> Callable[[bytes], None]:
    """What the command prints goes to stderr line by line: its control sequences are shown, and not obeyed."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def say(piece: bytes) -> None:
        text = decoder.decode(piece)
        sys.stderr.write("\n".join(escape(it.expandtabs()) for it in text.replace("\r\n", "\n").split("\n")))
        sys.stderr.flush()

    return say


def _text(done: SnapshotTested, paint: Paint) -> Iterator[str]:
    from kaivc.cli import snapshots

    yield f"{done.agent}: test of {paint('yellow', done.version)}"
    yield from snapshots.ending(done, paint)
    yield from snapshots.change_lines(done.changes, paint)
    if not done.changes:
        yield "it changed nothing"
    yield from snapshots.refusals(done.refusals, paint)
    if done.ignored:
        yield from render.notices([f"left out: {render.counted(len(done.ignored), 'ignored path')}"], paint)
    yield from render.notices(done.notices, paint)
    if done.snapshot is not None:
        yield f"kept as {done.agent}@{done.snapshot}; `kai snapshot promote {done.id}` makes it a version"
    elif done.problem is not None:
        yield paint("red", f"not committed: {escape(done.problem)}")
    if done.kept is not None:
        yield f"its layer waits: `kai snapshot show {done.id}`, `kai snapshot drop {done.id}`"
