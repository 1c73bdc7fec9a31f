"""``kai snapshot list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from kaivc.cli import agents
from kaivc.cli.arguments import Argument
from kaivc.cli.invocation import Invocation

if TYPE_CHECKING:
    from kaivc.ops.snapshot_list import SnapshotList


def snapshot_list(
    door: Invocation,
    agent: Annotated[str | None, Argument(metavar="[AGENT]", help="The agent; all unless said.")] = None,
) -> None:
    """List the snapshots that are kept, and those under test."""
    from kaivc.cli import snapshots

    answers: agents.Answers[SnapshotList] = agents.each(door, agent, lambda it: it.snapshot_list())
    found = [it for known in answers.results for it in known.snapshots]
    door.answer(
        lambda: {"snapshots": [snapshots.document(it) for it in found], "failed": answers.documents()},
        lambda: [snapshots.line(it, door.paint) for it in found] or ["there is no snapshot"],
    )
    answers.raise_first(door)
