"""Test a version in a snapshot: run its check in a throw-away layer, and say what that changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from kaivc import (
    adminlog,
    intents,
    layer,
    leases,
    revisions,
    sandboxes,
    scratch,
    snapshots,
    trees,
    trials,
    versions,
    views,
)
from kaivc.capture import Capture
from kaivc.errors import InvalidName, IsolationFailed, KaiError, NoEntry, StorageError
from kaivc.layer import Layer, LayerChange, Lower
from kaivc.manifest import Manifest
from kaivc.names import Absent, Actor, ObjectId, RefUpdate, snapshot_ref
from kaivc.records import dataclass, replace
from kaivc.repository import Repository
from kaivc.sandboxes.base import End, Ended, Form, Job, Limits, Sandbox
from kaivc.scratch import Scratch
from kaivc.settings import Isolation
from kaivc.sinks import BlobSink, HashSink
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter
from kaivc.trials import Status, Trial
from kaivc.versions import AgentVersion, Draft

TAIL = 64 << 10
"""Bytes of the output that the result keeps: the last ones."""
SHOWN = 200
MEASURED: Final = ("exit_code", "seconds", "cpu_seconds", "peak_memory", "left_running")
"""What a trial's record says as the sandbox does."""
RECORDED: Final = ("id", "base", "state", "status", "backend", "level", "ended_by", *MEASURED)
"""What the result says as the trial's record does."""
NANO = 1_000_000_000

Say = Callable[[bytes], None]


@dataclass(frozen=True)
class SnapshotTested:
    """How a test ended, and what it changed.

    ``version`` is what people call what was tested, ``base`` its commit. ``snapshot`` and ``commit`` are None unless
    the layer was committed, ``kept`` unless it waits in a directory; ``problem`` says why it was not committed though
    that was ``wanted``. ``output`` is the end of what the command said, of ``output_bytes`` in all.
    """

    agent: str
    id: str
    version: str
    base: str
    state: str
    command: tuple[str, ...]
    status: str
    backend: str
    level: str
    ended_by: str
    exit_code: int
    seconds: float
    cpu_seconds: float
    peak_memory: int
    left_running: int
    changes: tuple[LayerChange, ...]
    refusals: tuple[str, ...]
    ignored: tuple[bytes, ...]
    notices: tuple[str, ...]
    output: bytes
    output_bytes: int
    wanted: bool
    snapshot: str | None = None
    commit: str | None = None
    kept: str | None = None
    problem: str | None = None
    op_id: str | None = None
    seq: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the test passed, and was committed if that was asked for."""
        return self.status == Status.PASSED and (self.commit is not None or not self.wanted)


def snapshot_test(
    repo: Repository,
    rev: str,
    command: Sequence[str] = (),
    *,
    state: str = snapshots.COMMITTED,
    commit: bool = False,
    author: Actor | None = None,
    time: int | None = None,
    say: Say | None = None,
) -> SnapshotTested:
    """Run ``command``, or the check of the manifest, over the files of ``rev``; keep what it changed if it passes.

    ``state`` says whose state the files have, the version's or (``live``) the workspace's. ``say`` is given what the
    command prints, as it is. Raises IsolationFailed, InvalidManifest for a manifest that loosens, NoEntry, and what
    finding and reading a version raises; nothing ran then.
    """
    if state not in snapshots.STATES:
        raise InvalidName(f"{state!r} is no state to test with", hint=f"use {' or '.join(snapshots.STATES)}")
    repo.home.require_writable()
    repo.require_live()
    scratch.collect(repo.home)
    try:
        return _Test(repo, rev, tuple(command), state, author or repo.home.actor, time, commit=commit).run(say)
    except IsolationFailed as error:
        adminlog.note(repo.home, repo.name, error)
        raise


class _Tail:
    """The end of what a command says, and how much it was."""

    def __init__(self, say: Say | None) -> None:
        self.data = bytearray()
        self.size = 0
        self._say = say

    def __call__(self, piece: bytes) -> None:
        self.size += len(piece)
        self.data += piece
        del self.data[:-TAIL]
        if self._say is not None:
            self._say(piece)


class _Test:
    def __init__(
        self,
        repo: Repository,
        rev: str,
        command: tuple[str, ...],
        state: str,
        actor: Actor,
        time: int | None,
        *,
        commit: bool,
    ) -> None:
        self._repo = repo
        self._state = state
        self._actor = actor
        self._time = time
        self._base: AgentVersion = revisions.resolve(repo, rev)
        self._name = revisions.name_of(repo, self._base)
        self._manifest: Manifest = versions.manifest_of(repo, self._base.tree_oid)
        self._isolation: Isolation = snapshots.isolation_of(repo, self._manifest)
        self._command = command or self._manifest.check or ()
        self._wanted = commit or self._isolation.commit_changes
        self._require()
        self._capture: Capture | None = None

    def _require(self) -> None:
        if not self._isolation.enable:
            raise IsolationFailed(
                f"isolation is switched off for {self._repo.name}: nothing is tested without it",
                unchanged="nothing ran",
                hint=f"take `isolation.enable: false` out of {self._repo.layout.config}, the user's config or kai.yaml",
                guard="enable",
                why="isolation.enable is false",
            )
        if not self._command:
            raise NoEntry(
                f"nothing says how to test {self._name} of {self._repo.name}",
                unchanged="nothing ran",
                hint="name a `check` in kai.yaml, or give a command after --",
                agent=self._repo.name,
            )
        if any("\0" in word for word in self._command):
            raise InvalidName("a command cannot hold a NUL", unchanged="nothing ran")
        if not self._command[0]:
            raise InvalidName("a command needs a name: its first word is empty", unchanged="nothing ran")

    # ------------------------------------------------------------ a straight line down and back

    def run(self, say: Say | None) -> SnapshotTested:
        repo = self._repo
        sandbox, ability = sandboxes.chosen(self._isolation.require)
        place = scratch.place_for(repo.home, self._isolation.temp_dir)
        trial = self._ready(place, sandbox, str(ability.level))
        with self._recorded(trial) as state:
            with ExitStack() as stack, scratch.made(repo.home, place, trial.id) as here:
                with repo.lock():
                    intents.finish(repo)
                    stack.enter_context(leases.testing(repo))
                    lower = self._lay(here)
                tail = _Tail(say)
                trial = state.put(replace(trial, status=Status.TESTING.value))
                ended = sandbox.run(self._job(lower, here), tail)
                trial = state.put(self._ended(trial, ended, here))
                try:
                    done = self._judge(state, trial, ended, lower, tail)
                except (KaiError, OSError) as error:
                    self._keep(state, trial, here, Status.ERROR, str(error))
                    raise
                if done.commit is None and not done.ok:
                    kept = self._keep(state, trial, here, Status(done.status), done.problem)
                    done = replace(done, kept=kept)
            if done.commit is not None:
                with intents.landed(f"{done.snapshot} is committed"):  # its record is put right by the next one
                    state.put(replace(trials.read(repo.layout, repo.name, trial.id) or trial, scratch=None))
            return done

    def _ready(self, place: str, sandbox: Sandbox, level: str) -> Trial:
        now = self._repo.home.clock.now_ns()
        name = scratch.new_id(now)
        return Trial(
            id=name,
            status=Status.READY.value,
            base=self._base.commit,
            base_version=self._base.version,
            state=self._state,
            command=tuple(word[: trials.MAX_COMMAND // len(self._command)] for word in self._command),
            uid=os.geteuid(),
            actor=str(self._actor),
            created_ns=now,
            scratch=os.path.join(place, name),
            backend=sandbox.name,
            level=level,
        )

    @contextmanager
    def _recorded(self, trial: Trial) -> Iterator[_Record]:
        record = _Record(self._repo)
        record.put(trial)
        try:
            yield record
        finally:
            if not record.stays:
                with suppress(StorageError):
                    trials.remove(self._repo.vfs, self._repo.layout, self._repo.name, trial.id)

    def _keep(self, record: _Record, trial: Trial, here: Scratch, status: Status, problem: str | None) -> str | None:
        """Let a failed layer wait until it is dropped, where that is wanted."""
        if self._isolation.rollback_on_error:
            return None
        scratch.keep(self._repo.home, here)
        record.put(replace(trial, status=status.value, problem=problem and problem[: trials.MAX_COMMAND]))
        record.stays = True
        return here.path

    # ------------------------------------------------------------ what the command finds

    def _lay(self, here: Scratch) -> Lower:
        """What lies below the layer: the view, where the version has one, else files laid out for it."""
        repo, base = self._repo, self._base
        files = trees.flatten(repo.store, base.tree_oid)
        if self._state == snapshots.LIVE:
            spool = snapshots.Spool(repo, f"{here.path}/spool")
            files, self._capture = snapshots.live_files(repo, base, self._manifest, spool)
            snapshots.lay_out(repo, base, files, here.lower, spool)
            scratch.remove(repo.vfs, f"{here.path}/spool")
        elif base.version is not None:
            return Lower(views.load(repo, base), files, self._manifest)
        else:
            snapshots.lay_out(repo, base, files, here.lower)
        return Lower(here.lower, files, self._manifest)

    def _job(self, lower: Lower, here: Scratch) -> Job:
        environ = self._repo.home.environ
        passed = {name: environ[name] for name in self._isolation.env if name in environ}
        return Job(self._command, passed, lower.path, here.layer, Limits(**self._isolation.limits))

    # ------------------------------------------------------------ how it ended

    def _ended(self, trial: Trial, ended: Ended, here: Scratch) -> Trial:
        passed = ended.by is End.ITSELF and ended.exit_code == 0
        return replace(
            trial,
            status=(Status.PASSED if passed else Status.FAILED).value,
            ended_by=ended.by.value,
            whole=ended.form is Form.COPY,
            top=os.path.relpath(ended.top, here.path),
            **{name: getattr(ended, name) for name in MEASURED},
        )

    def _judge(self, record: _Record, trial: Trial, ended: Ended, lower: Lower, tail: _Tail) -> SnapshotTested:
        passed = trial.status == Status.PASSED
        left = f"it {_left(ended.left_running)}" if ended.left_running else ""
        if not (self._wanted and passed) or left:
            found = self._read(lower, ended, HashSink(self._repo.home.format))
            return self._told(trial, found, tail, left)
        with self._repo.lock(), StoreWriter(self._repo.store) as writer:
            intents.finish(self._repo)
            found = self._read(lower, ended, writer)
            if found.refusals:
                return self._told(trial, found, tail, f"{found.refusals[0]}")
            return self._commit(record, writer, self._told(trial, found, tail, ""), found, lower)

    def _read(self, lower: Lower, ended: Ended, sink: BlobSink) -> Layer:
        most = self._isolation.written + (_size(lower.path) if ended.form is Form.COPY else 0)
        return layer.read(self._repo, lower, ended.top, whole=ended.form is Form.COPY, sink=sink, most=most)

    def _told(self, trial: Trial, found: Layer, tail: _Tail, obstacle: str) -> SnapshotTested:
        notices = list(self._capture.notices()) if self._capture else []
        notices += found.notices
        if trial.left_running:
            notices.append(f"the command {_left(trial.left_running)}")
        return SnapshotTested(
            agent=self._repo.name,
            version=self._name,
            command=self._command,
            **{name: getattr(trial, name) for name in RECORDED},
            changes=found.changes,
            refusals=tuple(str(it) for it in found.refusals),
            ignored=found.ignored,
            notices=tuple(notices),
            output=bytes(tail.data),
            output_bytes=tail.size,
            wanted=self._wanted,
            problem=(obstacle or "the test failed") if self._wanted else None,
        )

    # ------------------------------------------------------------ the branch

    def _commit(
        self, record: _Record, writer: StoreWriter, done: SnapshotTested, found: Layer, lower: Lower
    ) -> SnapshotTested:
        """Make the layer a branch: one transaction, after what is known of the test is on the disk."""
        repo = self._repo
        snapshots.take_in(lower, trees.flatten(repo.store, self._base.tree_oid), writer)
        now = repo.home.clock.now_ns()
        name = snapshots.BRANCH + done.id
        said = trees.show(os.fsencode(" ".join(self._command)))
        notes = f"Snapshot {done.id} of {self._name}\n\nTested with: {said[:SHOWN]}"
        draft = Draft(
            found.files,
            found.manifest,
            self._base,
            None,
            notes,
            "manual",
            self._actor,
            now // NANO if self._time is None else self._time,
        )
        oid: ObjectId = versions.write_commit(writer, draft, repo.store)
        reason = f"snapshot {done.id} of {self._name}"
        op = Op("snapshot", repo.new_op_id(), str(self._actor), now, reason)
        landed = repo.land(
            writer, [RefUpdate(snapshot_ref(repo.name, done.id), Absent(), oid, self._actor, reason)], op
        )  # fmt: skip
        record.stays = True
        return replace(
            done, snapshot=name, commit=oid.hex(), problem=None, op_id=landed.op.op_id, seq=landed.seq
        )  # fmt: skip


def _size(top: str) -> int:
    """How long the files below a directory of ours are together."""
    return sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(top) for name in names)


def _left(running: int) -> str:
    some = "a process running, which was" if running == 1 else f"{running} processes running, which were"
    return f"left {some} ended"


class _Record:
    """The record of a test that is at work; unless it ``stays`` it goes with the layer."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self.stays = False

    def put(self, trial: Trial) -> Trial:
        """Write it down."""
        trials.write(self._repo.vfs, self._repo.layout, self._repo.name, trial)
        return trial
