"""``kai snapshot drop``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, render
from kaivc.cli.escape import escape_path
from kaivc.cli.invocation import Invocation

if TYPE_CHECKING:
    from kaivc.ops.snapshot_drop import SnapshotDropped


def snapshot_drop(
    door: Invocation,
    snapshot: Annotated[str, arguments.SNAPSHOT],
    reason: arguments.Reason = "",
    dry_run: arguments.DryRun = False,
) -> None:
    """Drop a snapshot: its branch, or the layer that waits."""
    agent, name = door.open().with_snapshot(snapshot)
    done = agent.snapshot_drop(name, reason=reason, dry_run=dry_run)
    kept = None if done.kept is None else render.path(done.kept)
    door.answer(lambda: {**render.plain(done), "kept": kept}, lambda: _text(done, dry_run=dry_run))


def _text(done: SnapshotDropped, *, dry_run: bool) -> Iterator[str]:
    yield f"{done.agent}: snapshot {done.id} dropped" + (" (dry run: nothing was dropped)" if dry_run else "")
    if done.commit is not None:
        yield f"its commit was {done.commit[: render.SHORT]}"
    if done.kept is not None:
        yield f"its layer was {escape_path(done.kept)}"
