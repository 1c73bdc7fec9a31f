"""Drop a snapshot: its branch, its record, and its layer if that was kept."""

from __future__ import annotations

import os
from contextlib import suppress

from kaivc import intents, scratch, snapshots, trials
from kaivc.errors import AgentBusy, StorageError
from kaivc.names import Exactly, ObjectId, RefUpdate, snapshot_ref
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.snapshots import Snapshot
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter


@dataclass(frozen=True)
class SnapshotDropped:
    """A snapshot that went: ``commit`` of one that was committed, and ``kept`` of one that waited; None otherwise."""

    agent: str
    id: str
    commit: str | None
    kept: str | None
    op_id: str | None = None
    seq: int | None = None
    applied: bool = False


def snapshot_drop(repo: Repository, name: str, *, reason: str = "", dry_run: bool = False) -> SnapshotDropped:
    """Take a snapshot away; what a committed one held can be found in the log for `snapshots.expire`.

    NoSuchRevision, with the nearest; AgentBusy while it is under test. Nothing goes then.
    """
    if dry_run:
        return _told(_idle(repo, name))
    repo.home.require_writable()
    scratch.collect(repo.home)
    with repo.lock():
        intents.finish(repo)
        found = _idle(repo, name)
        done = _told(found, applied=True)
        if found.commit is not None:
            done = _unbranch(repo, found, reason.strip() or f"snapshot {found.id} dropped")
        _clear(repo, found)
    return done


def _idle(repo: Repository, name: str) -> Snapshot:
    found = snapshots.find(repo, name)
    if found.running:
        raise AgentBusy(
            f"snapshot {found.id} of {repo.name} is under test",
            unchanged="nothing was dropped",
            hint="let it end, or stop it",
            agent=repo.name,
            snapshot=found.id,
        )
    return found


def _told(found: Snapshot, *, applied: bool = False) -> SnapshotDropped:
    return SnapshotDropped(found.agent, found.id, found.commit, found.kept, applied=applied)


def _unbranch(repo: Repository, found: Snapshot, reason: str) -> SnapshotDropped:
    now, actor = repo.home.clock.now_ns(), repo.home.actor
    old = ObjectId(bytes.fromhex(found.commit or ""))
    update = RefUpdate(snapshot_ref(repo.name, found.id), Exactly(old), None, actor, reason)
    with StoreWriter(repo.store) as writer:
        landed = repo.land(writer, [update], Op("snapshot", repo.new_op_id(), str(actor), now, reason))
    return SnapshotDropped(
        found.agent, found.id, found.commit, found.kept, landed.op.op_id, landed.seq, applied=True
    )  # fmt: skip


def _clear(repo: Repository, found: Snapshot) -> None:
    """The layer first: a record without one is a left-over, which the next command takes away."""
    if found.kept is not None and (found.trial is None or found.trial.uid == os.geteuid()):
        scratch.remove(repo.vfs, found.kept)
    with suppress(StorageError):
        trials.remove(repo.vfs, repo.layout, repo.name, found.id)
