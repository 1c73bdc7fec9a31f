"""Remove an agent; its name, its versions and its history stay."""

from __future__ import annotations

import os

from kaivc import intents, leases, relocation, standing, trees, versions
from kaivc.capture import Capture, Capturer
from kaivc.errors import ChecksumMismatch, InvalidManifest, LinkLost, TooLarge
from kaivc.manifest import DEFAULT, Manifest
from kaivc.names import Absent, Exactly, ObjectId, RefUpdate, backup_ref, current_ref
from kaivc.records import dataclass, replace
from kaivc.repository import Intent, OpenHome, Repository
from kaivc.sinks import BlobSink, HashSink
from kaivc.storage import caches, journal
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter
from kaivc.trees import Files
from kaivc.versions import AgentVersion, Draft


@dataclass(frozen=True)
class Removed:
    """What a removal does, or did. Paths as ``os.fsdecode`` gives them.

    ``backup`` holds the workspace as it was, if no version did; ``saved`` are the paths that differ from ``version``.
    ``unsaved`` is what no backup holds (ignored files, secrets): with the rest of the workspace it is ``kept_in`` a
    directory. ``left`` is a linked workspace, which stays as it is.
    """

    agent: str
    version: str | None
    versions: int
    backup: str | None
    saved: tuple[str, ...]
    unsaved: tuple[str, ...]
    kept_in: str | None
    left: str | None
    notices: tuple[str, ...]
    op_id: str | None = None
    seq: int | None = None
    applied: bool = False


def agent_remove(home: OpenHome, name: str, *, reason: str = "", dry_run: bool = False) -> Removed:
    """Take away an agent's directory; what its workspace holds and no version does is saved as a backup first.

    Its versions can still be read and forked, its name is not used again. Raises NoSuchAgent, AgentBusy while it runs,
    and what a capture raises; nothing is removed then.
    """
    repo = home.repository(name)
    if home.catalog.agent(name) and repo.row().removed_ns:
        return _finish(repo)
    versions.check_notes(reason)
    if dry_run:
        return _Removal(repo, HashSink(home.format)).plan
    with repo.lock(), leases.kept_out(repo):
        repo = repo.linked_now()
        intents.finish(repo)
        with StoreWriter(repo.store) as writer:
            removal = _Removal(repo, writer)
            done = removal.land(writer, reason.strip() or f"removed {name}")
        intents.finish_landed(repo, f"{name} is removed")
    return replace(done, kept_in=_aside(repo))


def _finish(repo: Repository) -> Removed:
    """A removal that was cut is finished; one that was not is an error."""
    with repo.lock(removed=True):
        if not standing.pending(repo):
            repo.require_live()
        intents.finish(repo)
    seq = repo.row().op_seq
    tag = versions.current(repo).version if repo.current else None
    backup = f"backups/{seq}" if repo.ref(backup_ref(repo.name, seq)) else None
    said = ("it was removed before; what was left to do is done",)
    return Removed(
        repo.name, tag, len(versions.numbers(repo)), backup, (), (), _aside(repo), None, said, seq=seq, applied=True
    )


def _aside(repo: Repository) -> str | None:
    path = repo.layout.removed(repo.name)
    return path if os.path.isdir(path) else None


class _Removal:
    """What a removal would do; under the lock, ``land`` does it."""

    def __init__(self, repo: Repository, sink: BlobSink) -> None:
        self._repo = repo
        self._version, self._manifest, self._files = self._look()
        self._notices: list[str] = []
        self._capture = self._read(sink)
        captured = self._capture.files if self._capture else {}
        changes = trees.compare(self._files, captured) if self._capture else []
        self._saved = tuple(os.fsdecode(change.path) for change in changes)
        # An empty workspace, or none, is nothing that a version lacks.
        self._needs_backup = bool(captured) and captured != self._files
        linked = repo.name in repo.home.local.workspaces
        self.plan = Removed(
            agent=repo.name,
            version=self._version.version if self._version else None,
            versions=len(versions.numbers(repo)),
            backup=f"backups/{repo.row().op_seq + 1}" if self._needs_backup else None,
            saved=self._saved,
            unsaved=() if linked else self._unsaved(),
            kept_in=None,
            left=repo.home.local.workspaces.get(repo.name),
            notices=(*(self._capture.notices() if self._capture else ()), *self._notices),
        )
        if self.plan.unsaved:
            self.plan = replace(self.plan, kept_in=repo.layout.removed(repo.name))

    def _look(self) -> tuple[AgentVersion | None, Manifest, Files]:
        """The version in force. One that cannot be read holds nothing, and must not stand in the way."""
        repo = self._repo
        if repo.current is None:
            return None, DEFAULT, {}
        try:
            version = versions.current(repo)
            return version, versions.manifest_of(repo, version.tree_oid), trees.flatten(repo.store, version.tree_oid)
        except (ChecksumMismatch, InvalidManifest, TooLarge):
            return None, DEFAULT, {}

    def _read(self, sink: BlobSink) -> Capture | None:
        try:
            there = os.path.isdir(self._repo.workspace)
        except LinkLost as error:
            self._notices.append(f"{error.what}: nothing of it was saved")
            return None
        if not there:
            self._notices.append("the workspace is not there: nothing of it was saved")
            return None
        return Capturer(self._repo, sink, self._files, spare=self._manifest, base_manifest=self._manifest).run()

    def _unsaved(self) -> tuple[str, ...]:
        if self._capture is None:
            return ()
        root, capture = os.fsencode(self._repo.workspace), self._capture
        found = relocation.unsaved(self._repo, root, capture.files, capture.manifest, capture.known)
        return tuple(sorted(map(os.fsdecode, found)))

    def land(self, writer: StoreWriter, reason: str) -> Removed:
        """Save what must be saved, and let the agent be removed."""
        repo, actor, now = self._repo, self._repo.home.actor, self._repo.home.clock.now_ns()
        current, capture = repo.current, self._capture
        seq = repo.row().op_seq + 1
        saved = current if capture else None
        updates = []
        if current is not None:  # so that the log of refs tells of it
            updates.append(RefUpdate(current_ref(repo.name), Exactly(current), current, actor, reason))
        if capture and self._needs_backup:
            saved = self._backup(writer, capture, now)
            updates.append(RefUpdate(backup_ref(repo.name, seq), Absent(), saved, actor, reason))
        number = seq if self._needs_backup else None
        op = Op(journal.REMOVE, repo.new_op_id(), str(actor), now, reason, backup=number)
        known = {name: capture.known.get(name, {}) for name in capture.changed} if capture else {}
        todo: list[Intent] = [relocation.remove(saved)]
        landed = repo.land(
            writer,
            updates,
            op,
            todo,
            lambda db: caches.put_known_files(db, repo.id, known, repo.home.boot),
            become=lambda row: row._replace(removed_ns=now),
        )
        return replace(self.plan, op_id=op.op_id, seq=landed.seq, applied=True)

    def _backup(self, writer: StoreWriter, capture: Capture, now_ns: int) -> ObjectId:
        draft = Draft(
            capture.files,
            capture.manifest,
            self._version,
            None,
            f"The workspace of {self._repo.name} as its removal found it",
            "rollback",
            self._repo.home.actor,
            max(0, now_ns // 1_000_000_000),
        )
        return versions.write_commit(writer, draft, self._repo.store, fold=False)
