"""One move of ``current``, or of the workspace alone: prepare, bytes, names, effects.

Rollback, undo, redo and restore are this with other words.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from kaivc import intents, leases, plans, trees, versions, views, workspace
from kaivc.capture import Capture, Capturer
from kaivc.errors import ChecksumMismatch, InvalidManifest, InvalidRollbackVersion, KaiError
from kaivc.manifest import Manifest
from kaivc.names import Absent, Exactly, ObjectId, RefUpdate, backup_ref, current_ref
from kaivc.plans import Planner, RestorePlan
from kaivc.repository import Intent, Repository
from kaivc.roots import live_manifest
from kaivc.sinks import HashSink
from kaivc.sqlitefiles import Guards
from kaivc.storage import caches
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter
from kaivc.versions import AgentVersion, Draft
from kaivc.views import View


@dataclass(frozen=True)
class Move:
    """What is wanted.

    ``to`` of None leaves ``current``; ``files_of`` of None leaves the workspace; ``only`` bounds a restore to paths.
    """

    verb: str
    reason: str
    to: AgentVersion | None
    files_of: AgentVersion | None
    undoes: int | None = None
    only: frozenset[bytes] | None = None
    force: bool = False
    live: bool = False
    op_id: str | None = None


@dataclass(frozen=True)
class MovePlan:
    """What a move would do, or did. Paths as ``os.fsdecode`` gives them; ``seq`` is that of its reflog entry."""

    agent: str
    verb: str
    from_version: str
    to_version: str
    from_commit: str
    to_commit: str
    reason: str
    writes: tuple[str, ...]
    removes: tuple[str, ...]
    kept: tuple[str, ...]
    saved: tuple[str, ...]
    notices: tuple[str, ...]
    backup: str | None = None
    op_id: str | None = None
    seq: int | None = None
    applied: bool = False


class Mover:
    """Plans and carries out one move, under the agent's lock."""

    def __init__(self, repo: Repository, move: Move) -> None:
        self._repo = repo
        self._move = move
        self._left = versions.current(repo)
        self._left_manifest = versions.manifest_of(repo, self._left.tree_oid)
        self._left_files = trees.flatten(repo.store, self._left.tree_oid)
        self._op_id = move.op_id or repo.new_op_id()

    def dry_run(self) -> MovePlan:
        """What ``apply`` would do; nothing is written."""
        capture = self._capture(None)
        self._check_target()
        plan = self._plan(capture)
        return self._describe(capture, plan, self._dirty(capture, plan))

    def apply(self) -> MovePlan:
        """Do it; typed errors before the transaction leave everything as it was."""
        repo, move = self._repo, self._move
        repo.vfs.make_dirs(repo.workspace, repo.home.dir_mode)
        with (
            leases.held_still(repo, self._live_manifest(), live=move.live or move.files_of is None),
            StoreWriter(repo.store) as writer,
            Guards(repo.settings.lock_wait, repo.home.sleep) as guards,
        ):
            capture = self._capture(writer)
            self._check_target()
            self._make_view()
            plan = self._plan(capture)
            if not move.live:
                plan = self._guard(capture, plan, writer, guards)
            dirty = self._dirty(capture, plan)
            if self._is_there_already(plan):
                return self._describe(capture, plan, dirty)
            workspace.check_space(repo, plan)
            workspace.stage(repo, plan)
            done = self._land(writer, capture, plan, dirty)
            intents.finish(repo, guarded=True)
        if move.to is not None:
            views.evict(repo)
        return done

    def _is_there_already(self, plan: RestorePlan) -> bool:
        to = self._move.to
        return self._move.undoes is None and (to is None or to.oid == self._left.oid) and not plan

    # ------------------------------------------------------------ prepare

    def _capture(self, writer: StoreWriter | None) -> Capture:
        if self._move.files_of is None:
            return Capture(files=dict(self._left_files), manifest=self._left_manifest)
        sink = writer or HashSink(self._repo.home.format)
        return Capturer(self._repo, sink, self._left_files, spare=self._left_manifest).run()

    def _live_manifest(self) -> Manifest:
        """The manifest that a running agent was started with, as far as it can be read."""
        try:
            fd = os.open(self._repo.workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return self._left_manifest
        try:
            return live_manifest(fd)
        except KaiError:
            return self._left_manifest
        finally:
            os.close(fd)

    def _check_target(self) -> None:
        """Everything that the workspace will get is in the store."""
        wanted = self._move.files_of or self._move.to
        if wanted is None:
            return
        try:
            for entry in trees.flatten(self._repo.store, wanted.tree_oid).values():
                self._repo.store.require(entry.oid)
        except ChecksumMismatch as error:
            raise InvalidRollbackVersion(
                f"{wanted.tag} of {self._repo.name} is corrupt: {error.what}",
                unchanged="nothing moved",
                hint=error.hint,
                revision=wanted.tag,
            ) from error

    def _make_view(self) -> None:
        if self._move.to is not None:
            View(self._repo, self._move.to).ensure(force=self._move.force)

    def _plan(self, capture: Capture) -> RestorePlan:
        target = self._move.files_of
        if target is None:
            return RestorePlan(self._op_id, self._left.oid, (), (), {})
        manifest = self._manifest_of(target)
        files = trees.flatten(self._repo.store, target.tree_oid)
        planner = Planner(self._repo, capture, self._left.oid, files, self._left_manifest, manifest)
        return planner.plan(self._op_id, only=self._move.only, live=self._move.live)

    def _manifest_of(self, target: AgentVersion) -> Manifest:
        """A backup may hold a manifest that was being written."""
        try:
            return versions.manifest_of(self._repo, target.tree_oid)
        except InvalidManifest:
            return self._left_manifest

    def _guard(self, capture: Capture, plan: RestorePlan, writer: StoreWriter, guards: Guards) -> RestorePlan:
        """Lock the databases that change; read those again that a writer reached first."""
        left = dict(plan.left)
        for path in workspace.guard_databases(self._repo, capture, plan, guards):
            full = os.path.join(os.fsencode(self._repo.workspace), path)
            oid = writer.put_blob(guards.source(full), os.path.getsize(full))
            left[path] = capture.files[path] = left[path]._replace(oid=oid)
        return replace(plan, left=left)

    def _dirty(self, capture: Capture, plan: RestorePlan) -> tuple[bytes, ...]:
        """The paths that a backup must hold because no version does."""
        difference = plans.difference(capture, self._left_files, self._left_manifest)
        lost = {change.path for change in difference.changes}
        if self._move.only is not None:
            lost = set()
        lost |= {path for path, entry in plan.left.items() if self._left_files.get(path) != entry}
        return tuple(sorted(lost))

    # ------------------------------------------------------------ bytes and names

    def _land(self, writer: StoreWriter, capture: Capture, plan: RestorePlan, dirty: tuple[bytes, ...]) -> MovePlan:
        repo, move = self._repo, self._move
        now = repo.home.clock.now_ns()
        number = repo.row().op_seq + 1 if dirty and plan else None
        updates = []
        if move.to is not None:
            updates.append(
                RefUpdate(current_ref(repo.name), Exactly(self._left.oid), move.to.oid, repo.home.actor, move.reason)
            )
        if number is not None:
            commit = self._backup(writer, capture, now)
            updates.append(RefUpdate(backup_ref(repo.name, number), Absent(), commit, repo.home.actor, move.reason))
        todo: list[Intent] = [intents.link()] if move.to is not None else []
        if plan:
            todo.append(intents.restore(plan, number))
        if move.to is not None:
            todo.append(intents.log())
        op = Op(
            move.verb,
            self._op_id,
            str(repo.home.actor),
            now,
            move.reason,
            move.undoes,
            number,
            workspace=bool(plan),
        )
        landed = repo.land(
            writer,
            updates,
            op,
            todo,
            lambda db: caches.put_known_files(
                db, repo.id, {name: capture.known.get(name, {}) for name in capture.changed}
            ),
        )
        done = self._describe(capture, plan, dirty)
        return replace(
            done,
            backup=f"backups/{number}" if number is not None else None,
            op_id=self._op_id,
            seq=landed.seq,
            applied=True,
        )

    def _backup(self, writer: StoreWriter, capture: Capture, now_ns: int) -> ObjectId:
        target = self._move.to or self._move.files_of
        notes = f"The workspace as {self._move.verb} left it" + (f" for {target.tag}" if target else "")
        draft = Draft(
            capture.files,
            capture.manifest,
            self._left,
            None,
            notes,
            "rollback",
            self._repo.home.actor,
            now_ns // 1_000_000_000,
        )
        return versions.write_commit(writer, draft, fold=False)

    def _describe(self, capture: Capture, plan: RestorePlan, dirty: tuple[bytes, ...]) -> MovePlan:
        to = self._move.to or self._left
        return MovePlan(
            agent=self._repo.name,
            verb=self._move.verb,
            from_version=self._left.tag,
            to_version=to.tag,
            from_commit=self._left.commit,
            to_commit=to.commit,
            reason=self._move.reason,
            writes=tuple(os.fsdecode(write.path) for write in plan.writes),
            removes=tuple(os.fsdecode(path) for path in plan.removes),
            kept=tuple(os.fsdecode(path) for path in plan.kept),
            saved=tuple(os.fsdecode(path) for path in dirty) if plan else (),
            notices=tuple(capture.notices()),
        )
