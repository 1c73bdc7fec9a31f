"""Make a version of the workspace."""

from __future__ import annotations

import os
import sqlite3

from kaivc import intents, leases, trees, versions
from kaivc.capture import Capture, Capturer
from kaivc.errors import InvalidName, NothingToCommit, UnsettledFile
from kaivc.manifest import DEFAULT
from kaivc.names import (
    Absent,
    Actor,
    Exactly,
    ObjectId,
    RefUpdate,
    Version,
    check_op_id,
    current_ref,
    version_ref,
)
from kaivc.records import dataclass
from kaivc.repository import Landed, Repository
from kaivc.storage import caches, journal
from kaivc.storage.gitobjects import LAST_SECOND
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter
from kaivc.trees import Files
from kaivc.versions import SNAPSHOT_TYPES, AgentVersion, Draft


@dataclass(frozen=True)
class Committed:
    """A version that landed. ``changes`` are (letter, path) against its parent."""

    version: AgentVersion
    changes: tuple[tuple[str, str], ...]
    files: int
    notices: tuple[str, ...]
    op_id: str
    seq: int


def commit(  # noqa: PLR0913 - a keyword for each flag
    repo: Repository,
    *,
    bump: str | None = None,
    version: str | None = None,
    notes: str = "",
    author: Actor | None = None,
    snapshot_type: str = "manual",
    time: int | None = None,
    allow_empty: bool = False,
    op_id: str | None = None,
) -> Committed:
    """Record the workspace as a version and let ``current`` point at it.

    ``version`` names the number, else ``bump`` (major, minor, patch) counts from the highest one known. ``time`` is in
    whole seconds UTC. Raises VersionTaken, NothingToCommit, and what a capture raises; nothing is visible then.
    """
    if bump is not None and version is not None:
        raise InvalidName("a version number and a bump exclude each other", hint="give one of them")
    if snapshot_type not in SNAPSHOT_TYPES[:2]:
        raise InvalidName(f"{snapshot_type!r} is no type for a commit", hint="use auto or manual")
    versions.check_notes(notes)
    check_op_id(op_id)
    wanted = Version.parse(version) if version is not None else None
    with repo.lock():
        intents.finish(repo)
        if op_id is not None and (done := _landed_before(repo, op_id)):
            return done
        highest = versions.highest(repo)
        committer = _Committer(repo, author or repo.home.actor, time, highest)
        number = versions.choose_number(repo, wanted, bump, highest)
        return committer.run(number, notes, snapshot_type, op_id, allow_empty=allow_empty)


def _landed_before(repo: Repository, op_id: str) -> Committed | None:
    seq = journal.op_seq(repo.catalog, repo.id, op_id)
    if seq is None:
        return None
    moved = journal.reflog_of(repo.catalog, repo.id, seq)
    names = repo.names_of(current_ref(repo.name))
    new = next((entry.new for entry in moved if entry.ref in names), None)
    if new is None:
        raise InvalidName(f"operation {op_id!r} was no commit", hint="use another --op-id")
    version = versions.describe(repo, new)
    files = trees.flatten(repo.store, version.tree_oid)
    return Committed(version, (), len(files), ("this operation had landed before",), op_id, seq)


class _Committer:
    def __init__(self, repo: Repository, author: Actor, time: int | None, highest: Version | None) -> None:
        self._repo = repo
        self._author = author
        self._highest = highest
        self._now = repo.home.clock.now_ns()
        self._time = self._now // 1_000_000_000 if time is None else time
        if self._time < 0:
            raise InvalidName("the clock stands before 1970", unchanged="nothing was committed", hint="set the clock")
        if self._time > LAST_SECOND:  # no commit that says so could be read
            raise InvalidName("the time is past the year 9999", unchanged="nothing was committed", hint="set the clock")
        self._parent = versions.describe(repo, repo.current) if repo.current else None
        self._base: Files = trees.flatten(repo.store, self._parent.tree_oid) if self._parent else {}

    def run(
        self, number: Version, notes: str, snapshot_type: str, op_id: str | None, *, allow_empty: bool
    ) -> Committed:
        repo = self._repo
        with StoreWriter(repo.store) as writer:
            capture = self._capture(writer)
            if self._parent and capture.files == self._base and not allow_empty:
                raise NothingToCommit(
                    f"the workspace of {repo.name} is as {self._parent.tag} has it",
                    unchanged="nothing was committed",
                    hint="--allow-empty makes a version all the same",
                )
            draft = Draft(
                capture.files,
                capture.manifest,
                self._parent,
                number,
                notes.strip() or f"{repo.name} {number.tag}",
                snapshot_type,
                self._author,
                self._time,
            )
            oid = versions.write_commit(writer, draft, repo.store)
            landed = self._land(writer, capture, draft, number, oid, op_id)
            capture.known.clear()  # the catalog has it
        with intents.landed(f"{repo.name} {number.tag} is committed as {oid.hex()[:12]}"):
            intents.finish(repo, guarded=True, evict=True)
            changes = trees.compare(self._base, capture.files)
            return Committed(
                versions.describe(repo, oid),
                tuple((change.status, os.fsdecode(change.path)) for change in changes),
                len(capture.files),
                tuple(capture.notices()),
                landed.op.op_id,
                landed.seq,
            )

    def _capture(self, writer: StoreWriter) -> Capture:
        repo = self._repo
        try:
            return self._capturer(writer).run()
        except UnsettledFile:
            manifest = versions.manifest_of(repo, self._parent.tree_oid) if self._parent else None
            if manifest is None or manifest.quiesce is None or not leases.is_running(repo):
                raise
            with leases.quiesced(repo, manifest):
                return self._capturer(writer).run()

    def _capturer(self, writer: StoreWriter) -> Capturer:
        manifest = versions.manifest_of(self._repo, self._parent.tree_oid) if self._parent else DEFAULT
        return Capturer(self._repo, writer, self._base, base_manifest=manifest)

    def _land(
        self, writer: StoreWriter, capture: Capture, draft: Draft, number: Version, oid: ObjectId, op_id: str | None
    ) -> Landed:
        repo = self._repo
        tag = versions.write_tag(repo, writer, draft, number, oid)
        reason = draft.notes.split("\n", 1)[0]
        expect = Exactly(self._parent.oid) if self._parent else Absent()
        updates = [
            RefUpdate(current_ref(repo.name), expect, oid, self._author, reason),
            RefUpdate(version_ref(repo.name, number), Absent(), tag, self._author, reason),
        ]
        op = Op("commit", op_id or repo.new_op_id(), str(self._author), self._now, reason)
        known = {name: capture.known.get(name, {}) for name in capture.changed}
        highest, seq = max(number, self._highest or number), repo.row().op_seq + 1

        def note(db: sqlite3.Connection) -> None:
            caches.put_known_files(db, repo.id, known, repo.home.boot)
            caches.put_highest(db, repo.id, seq, str(highest))

        landed = repo.land(writer, updates, op, [intents.link(), intents.log()], note)
        repo.remembered.highest = landed.seq, highest
        return landed
