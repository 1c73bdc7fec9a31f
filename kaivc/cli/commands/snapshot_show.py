"""``kai snapshot show``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.snapshot_show import SnapshotShown


def snapshot_show(door: Invocation, snapshot: Annotated[str, arguments.SNAPSHOT]) -> None:
    """Show how a test ended, and what it changed."""
    from kaivc.cli import snapshots

    agent, name = door.open().with_snapshot(snapshot)
    found = agent.snapshot_show(name)
    door.answer(
        lambda: {
            **snapshots.document(found.snapshot),
            "changes": snapshots.changes(found.changes),
            "refusals": list(found.refusals),
        },
        lambda: _text(found, door.paint),
    )


def _text(found: SnapshotShown, paint: Paint) -> Iterator[str]:
    from kaivc.cli import snapshots

    it = found.snapshot
    yield snapshots.line(it, paint)
    if it.commit is not None:
        yield f"Commit:  {it.commit[:12]}"
    if it.trial is not None:
        yield f"Command: {escape(' '.join(it.trial.command))}"
        yield from snapshots.ending(it.trial, paint)
        if it.trial.problem:
            yield paint("red", escape(it.trial.problem))
    yield from snapshots.change_lines(found.changes, paint)
    yield from snapshots.refusals(found.refusals, paint)
