"""A committed snapshot made a version: a move of ``current`` to a version that the same transaction makes."""

from __future__ import annotations

import os
import sqlite3

from kaivc import intents, materialise, plans, snapshots, trees, versions
from kaivc.capture import Capture, Capturer
from kaivc.errors import InvalidName, LostRace
from kaivc.manifest import Manifest
from kaivc.movement import Move, MovePlan, Mover
from kaivc.names import (
    Absent,
    Actor,
    Exactly,
    ObjectId,
    RefUpdate,
    Version,
    backup_ref,
    current_ref,
    version_ref,
)
from kaivc.plans import Planner, RestorePlan
from kaivc.records import dataclass, replace
from kaivc.repository import Intent, Repository
from kaivc.sinks import HashSink
from kaivc.storage import caches
from kaivc.storage.gitobjects import Entry
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter
from kaivc.versions import AgentVersion, Draft

VERB = "promote"


@dataclass(frozen=True)
class Promotion:
    """What is wanted: the snapshot's commit, and what the version is to be called and said to be."""

    snapshot: AgentVersion
    name: str
    number: Version
    highest: Version | None
    notes: str
    author: Actor
    time: int
    with_state: bool
    force: bool
    live: bool
    op_id: str | None


class Promoter(Mover):
    """Plans and carries out one promotion, under the agent's lock."""

    def __init__(self, repo: Repository, wanted: Promotion) -> None:
        reason = wanted.notes.split("\n", 1)[0]
        move = Move(
            VERB, reason, None, wanted.snapshot, force=wanted.force, live=wanted.live, op_id=wanted.op_id
        )  # fmt: skip
        super().__init__(repo, move)
        self._wanted = wanted
        self._base = self._require_base()
        self._manifest: Manifest = versions.manifest_of(repo, wanted.snapshot.tree_oid)
        self._files: dict[bytes, Entry] = {}
        self.commit: ObjectId | None = None

    def _require_base(self) -> AgentVersion:
        """What the snapshot was made of; LostRace unless that is in force, or it is forced."""
        base = versions.parent(self._repo, self._wanted.snapshot)
        if base is None:
            raise InvalidName(f"snapshots/{self._wanted.name} was made of nothing", unchanged="nothing moved")
        if base.oid != self._left.oid and not self._wanted.force:
            raise LostRace(
                f"`current` of {self._repo.name} is {self._left.tag}, and snapshots/{self._wanted.name} was made of"
                f" {base.tag}",
                unchanged="nothing moved",
                hint=f"test it on {self._left.tag} again; or --force promotes what was made of {base.tag} as it is",
                ref=current_ref(self._repo.name),
                expected=base.commit,
                found=self._left.commit,
            )
        return base

    @property
    def name(self) -> str:
        """The snapshot's id."""
        return self._wanted.name

    def changes(self) -> tuple[tuple[str, str], ...]:
        """(letter, path) of the files of the version against what it is made of."""
        rows = trees.compare(trees.flatten(self._repo.store, self._base.tree_oid), self._files)
        return tuple((row.status, os.fsdecode(row.path)) for row in rows)

    # ------------------------------------------------------------ as of a move, but for

    def _is_there_already(self, plan: RestorePlan) -> bool:  # noqa: ARG002 - a version is made in any case
        return False

    def _capturer(self, writer: StoreWriter | None) -> Capturer:
        """Of a workspace whose state becomes that of a version nothing is passed over."""
        if self._wanted.with_state:
            return super()._capturer(writer)
        sink = writer or HashSink(self._repo.home.format)
        return Capturer(self._repo, sink, self._left_files, base_manifest=self._left_manifest)

    def _plan(self, capture: Capture, capturer: Capturer) -> RestorePlan:
        repo, wanted = self._repo, self._wanted
        with self._corrupt():
            found = trees.flatten(repo.store, wanted.snapshot.tree_oid)
            self._files = dict(found)
            if not wanted.with_state:
                self._files = snapshots.with_state_of(found, capture.files, self._manifest)
            self._check_links(capture)
            beside = plans.none_of_it(repo, capture.files, self._left_files, self._files)
        planner = Planner(
            repo, capture, self._left.oid, self._files, self._left_manifest, self._manifest, capturer.add
        )  # fmt: skip
        return planner.plan(self._op_id, beside=beside, live=wanted.live, force=wanted.force)

    def _check_links(self, capture: Capture) -> None:
        def target(oid: ObjectId) -> bytes:
            known = capture.links.get(oid)
            return known if known is not None else materialise.link_target(self._repo.store, oid)

        trees.check_links(self._files, target)

    def _dirty(self, capture: Capture, plan: RestorePlan) -> tuple[bytes, ...]:
        """What the version that is made holds is not lost."""
        return tuple(path for path in super()._dirty(capture, plan) if capture.files.get(path) != self._files.get(path))

    def _describe(self, capture: Capture, plan: RestorePlan, dirty: tuple[bytes, ...]) -> MovePlan:
        done = super()._describe(capture, plan, dirty)
        commit = self.commit.hex() if self.commit else ""
        return replace(done, to_version=self._wanted.number.tag, to_commit=commit)

    def _land(self, writer: StoreWriter, capture: Capture, plan: RestorePlan, dirty: tuple[bytes, ...]) -> MovePlan:
        repo, wanted = self._repo, self._wanted
        draft = Draft(
            self._files, self._manifest, self._base, wanted.number, wanted.notes, "manual", wanted.author, wanted.time
        )  # fmt: skip
        self.commit = versions.write_commit(writer, draft, repo.store)
        tag = versions.write_tag(repo, writer, draft, wanted.number, self.commit)
        now, seq, reason = repo.home.clock.now_ns(), repo.row().op_seq + 1, self._move.reason
        number = seq if dirty and plan else None
        updates = [
            RefUpdate(current_ref(repo.name), Exactly(self._left.oid), self.commit, wanted.author, reason),
            RefUpdate(version_ref(repo.name, wanted.number), Absent(), tag, wanted.author, reason),
        ]
        if number is not None:
            backup = self._backup(writer, capture, now)
            updates.append(RefUpdate(backup_ref(repo.name, number), Absent(), backup, wanted.author, reason))
        todo: list[Intent] = [intents.link(), *([intents.restore(plan, seq)] if plan else []), intents.log()]
        op = Op(VERB, self._op_id, str(wanted.author), now, reason, None, number, workspace=bool(plan))
        known = {name: capture.known.get(name, {}) for name in capture.changed}
        highest = max(wanted.number, wanted.highest or wanted.number)

        def note(db: sqlite3.Connection) -> None:
            caches.put_known_files(db, repo.id, known, repo.home.boot)
            caches.put_highest(db, repo.id, seq, str(highest))

        done = self._describe(capture, plan, dirty)
        landed = repo.land(writer, updates, op, todo, note)
        capture.known.clear()
        backup_name = f"backups/{number}" if number is not None else None
        return replace(done, backup=backup_name, op_id=self._op_id, seq=landed.seq, applied=True)


def changed(repo: Repository, base: AgentVersion, commit: AgentVersion) -> tuple[tuple[str, str], ...]:
    """(letter, path) of a new version against what it was made of."""
    rows = trees.compare(trees.flatten(repo.store, base.tree_oid), trees.flatten(repo.store, commit.tree_oid))
    return tuple((row.status, os.fsdecode(row.path)) for row in rows)
