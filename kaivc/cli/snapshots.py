"""Snapshots and what they changed, as documents and as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kaivc.cli import render
from kaivc.cli.escape import escape, escape_path
from kaivc.cli.terminal import Paint
from kaivc.records import values

if TYPE_CHECKING:
    from kaivc.layer import LayerChange
    from kaivc.ops.snapshot_test import SnapshotTested
    from kaivc.snapshots import Snapshot
    from kaivc.trials import Trial

MEASURED = (
    "backend", "level", "ended_by", "exit_code", "seconds", "cpu_seconds", "peak_memory", "left_running", "problem",
)  # fmt: skip
"""What is known of a test that has ended; null of one that has not, or of which no record is there."""


def document(it: Snapshot) -> render.Document:
    """One snapshot."""
    trial = it.trial
    return {
        "agent": it.agent,
        "id": it.id,
        "status": it.status,
        "running": it.running,
        "version": it.version,
        "base": it.base,
        "created": it.created,
        "snapshot": it.name if it.commit else None,
        "commit": it.commit,
        "kept": None if it.kept is None else render.path(it.kept),
        "state": trial.state if trial else None,
        "command": None if trial is None else [escape(word) for word in trial.command],
        "actor": trial.actor if trial else None,
        **{name: getattr(trial, name) if trial else None for name in MEASURED},
    }


def tested(it: SnapshotTested) -> render.Document:
    """How a test ended."""
    return {
        **values(it),
        "command": [escape(word) for word in it.command],
        "changes": changes(it.changes),
        "refusals": list(it.refusals),
        "ignored": render.paths(it.ignored),
        "notices": list(it.notices),
        "output": it.output.decode("utf-8", "backslashreplace"),
        "kept": None if it.kept is None else render.path(it.kept),
        "ok": it.ok,
    }


def changes(rows: Sequence[LayerChange]) -> list[render.Document]:
    """What became of each path."""
    return [{"status": row.status, "before": row.before, "after": row.after, **render.path(row.path)} for row in rows]


# ---------------------------------------------------------------- text


def line(it: Snapshot, paint: Paint) -> str:
    """A snapshot on one line."""
    status = "testing" if it.running else it.status
    color = {"passed": "green", "failed": "red", "error": "red"}.get(status, "yellow")
    where = it.name if it.commit else "its layer waits" if it.kept else ""
    name = paint("yellow", f"{it.agent}@{it.id}")
    return f"{name}  {paint(color, status.ljust(7))}  of {it.version}  {it.created}  {where}".rstrip()


def change_lines(rows: Sequence[LayerChange], paint: Paint) -> Iterator[str]:
    """Letters, paths and sizes; past so many only their number."""
    for row in rows[: render.MANY]:
        letter = next(iter(render.name_status([(row.status, "")], paint))).rstrip()
        yield f"{letter}  {escape_path(row.path)}{_sizes(row)}"
    if len(rows) > render.MANY:
        yield f"  ... and {len(rows) - render.MANY} more"


def _sizes(row: LayerChange) -> str:
    known = [render.size(it) for it in (row.before, row.after) if it is not None]
    return f" ({' -> '.join(known)})" if known else ""


def ending(it: SnapshotTested | Trial, paint: Paint) -> Iterator[str]:
    """How the command ended, and what it took."""
    if it.ended_by is None or it.seconds is None:
        return
    how = f"ended with {it.exit_code}" if it.ended_by == "itself" else _CUT.get(it.ended_by, it.ended_by)
    took = f"{it.seconds:.2f} s, {it.cpu_seconds or 0:.2f} s of CPU, {render.size(it.peak_memory or 0)} at most"
    yield f"{paint('green' if it.status == 'passed' else 'red', it.status)}: {how} after {took}"
    yield paint("dim", f"in {it.backend} ({it.level})")


_CUT = {
    "time": "was ended when its time was up",
    "memory": "was ended for the memory that it took",
    "output": "was ended for what it printed",
    "written": "was ended for what it wrote",
    "inodes": "was ended for the files that it made",
    "interrupt": "was interrupted",
}


def refusals(lines: Sequence[str], paint: Paint) -> Iterator[str]:
    """What no version could hold."""
    for said in lines[: render.MANY]:
        yield paint("red", f"  !  {escape(said)}")
    if len(lines) > render.MANY:
        yield f"  ... and {len(lines) - render.MANY} more"
