"""Show what a snapshot was made of, how its test ended, and what it changed."""

from __future__ import annotations

from kaivc import snapshots
from kaivc.layer import LayerChange
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.snapshots import Snapshot


@dataclass(frozen=True)
class SnapshotShown:
    """A snapshot, what it changed, and what of that no version could hold."""

    snapshot: Snapshot
    changes: tuple[LayerChange, ...]
    refusals: tuple[str, ...]


def snapshot_show(repo: Repository, name: str) -> SnapshotShown:
    """Show a snapshot, committed or kept; of one under test, what is known. NoSuchRevision, with the nearest."""
    found = snapshots.find(repo, name)
    changes, refusals = snapshots.changes(repo, found)
    return SnapshotShown(found, tuple(changes), tuple(refusals))
