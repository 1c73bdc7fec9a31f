"""List the snapshots of an agent: committed ones, failed ones that wait, and those under test."""

from __future__ import annotations

from kaivc import snapshots
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.snapshots import Snapshot


@dataclass(frozen=True)
class SnapshotList:
    """The snapshots, oldest first."""

    agent: str
    snapshots: tuple[Snapshot, ...]


def snapshot_list(repo: Repository) -> SnapshotList:
    """List the snapshots of an agent; ChecksumMismatch if the commit of one is damaged."""
    return SnapshotList(repo.name, tuple(snapshots.every(repo)))
