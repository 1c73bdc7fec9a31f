"""One move of ``current``, or of the workspace alone: prepare, bytes, names, effects.

Rollback, undo, redo and restore are this with other words.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kaivc import intents, keeping, leases, materialise, paths, plans, revisions, trees, versions, workspace
from kaivc.capture import Capture, Capturer
from kaivc.errors import ChecksumMismatch, InvalidManifest, InvalidRollbackVersion, KaiError, TooLarge
from kaivc.manifest import DEFAULT, Manifest
from kaivc.names import Absent, Exactly, ObjectId, RefUpdate, backup_ref, check_op_id, current_ref
from kaivc.plans import Planner, RestorePlan
from kaivc.records import dataclass, replace
from kaivc.repository import Intent, Repository
from kaivc.roots import live_manifest
from kaivc.sinks import HashSink
from kaivc.sqlitefiles import Guards
from kaivc.storage import caches, journal
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter
from kaivc.trees import Files, show
from kaivc.versions import AgentVersion, Draft
from kaivc.views import View, ViewDamaged


@dataclass(frozen=True)
class Move:
    """What is wanted.

    ``to`` of None leaves ``current``; ``files_of`` of None leaves the workspace; ``only`` bounds a restore to paths.
    Files and directories of ``keep`` stay as they are, as though their class said so.
    """

    verb: str
    reason: str
    to: AgentVersion | None
    files_of: AgentVersion | None
    undoes: int | None = None
    only: frozenset[bytes] | None = None
    keep: tuple[str | bytes, ...] = ()
    force: bool = False
    live: bool = False
    op_id: str | None = None


@dataclass(frozen=True)
class MovePlan:
    """What a move would do, or did. Paths as ``os.fsdecode`` gives them; ``seq`` is that of its reflog entry.

    ``source`` is the version, snapshot or backup whose files the workspace gets; None if it is left alone, or not known
    any more.
    """

    agent: str
    verb: str
    from_version: str
    to_version: str
    from_commit: str
    to_commit: str
    source: str | None
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


def landed_before(repo: Repository, op_id: str | None) -> MovePlan | None:
    """What an operation of that id did, if it landed: repeating it does nothing more."""
    if check_op_id(op_id) is None or op_id is None:
        return None
    seq = journal.op_seq(repo.catalog, repo.id, op_id)
    if seq is None:
        return None
    moved = journal.reflog_of(repo.catalog, repo.id, seq)
    names = repo.names_of(current_ref(repo.name))
    entry = next((it for it in moved if it.ref in names), None)
    here = versions.current(repo)
    old = versions.describe(repo, entry.old) if entry and entry.old else here
    new = versions.describe(repo, entry.new) if entry and entry.new else here
    return MovePlan(
        agent=repo.name,
        verb=moved[0].verb if moved else "restore",
        from_version=old.tag,
        to_version=new.tag,
        from_commit=old.commit,
        to_commit=new.commit,
        source=None,
        reason=moved[0].reason if moved else "",
        writes=(),
        removes=(),
        kept=(),
        saved=(),
        notices=("this operation had landed before",),
        backup=f"backups/{entry.backup}" if entry and entry.backup else None,
        op_id=op_id,
        seq=seq,
        applied=True,
    )


class Mover:
    """Plans and carries out one move, under the agent's lock."""

    def __init__(self, repo: Repository, move: Move) -> None:
        versions.check_notes(move.reason)
        repo.require_live()
        self._repo = repo
        self._move = move
        self._whole = True
        self._left, self._left_manifest, self._left_files = self._look()
        self._op_id = check_op_id(move.op_id) or repo.new_op_id()

    def _look(self) -> tuple[AgentVersion, Manifest, Files]:
        """The version that is left. One that cannot be read must not stand in the way of a good one."""
        repo = self._repo
        try:
            left = versions.current(repo)
            return left, versions.manifest_of(repo, left.tree_oid), trees.flatten(repo.store, left.tree_oid)
        except (ChecksumMismatch, InvalidManifest, TooLarge):
            self._whole = False
            return versions.unreadable(repo, repo.current or ObjectId(b"")), DEFAULT, {}

    def dry_run(self) -> MovePlan:
        """What ``apply`` would do; nothing is written."""
        capturer = self._capturer(None)
        capture = self._capture(capturer)
        with self._corrupt():
            self._check_target()
        plan = self._plan(capture, capturer)
        dirty = self._dirty(capture, plan)
        self._require_saved(capture, plan, dirty)
        return self._describe(capture, plan, dirty)

    def apply(self) -> MovePlan:
        """Do it; typed errors before the transaction leave everything as it was."""
        repo, move = self._repo, self._move
        repo.vfs.make_dirs(repo.workspace, repo.home.dir_mode)
        with (
            leases.held_still(repo, self._live_manifest(), live=move.live or move.files_of is None),
            StoreWriter(repo.store) as writer,
            Guards(repo.settings.lock_wait, repo.home.sleep) as guards,
        ):
            self._bring(writer)
            capturer = self._capturer(writer)
            capture = self._capture(capturer)
            with self._corrupt():
                mended = self._make_view()
            plan = self._plan(capture, capturer)
            if not move.live:
                plan = self._guard(capture, plan, writer, guards)
            dirty = self._dirty(capture, plan)
            if mended:
                capture.left_out.append(f"the views of {', '.join(mended)} shared a damaged file: see `kai verify`")
            if self._is_there_already(plan):
                return self._describe(capture, plan, dirty)
            self._require_saved(capture, plan, dirty)
            workspace.check_space(repo, plan)
            with self._corrupt():
                workspace.stage(repo, plan)
            if plan:
                workspace.rehearse(repo, plan)
            done = self._land(writer, capture, plan, dirty)
            intents.finish_landed(repo, f"{repo.name} is moved: its log has it as entry {done.seq}")
        if move.to is not None:
            keeping.evict_if_possible(repo)
        return done

    def _is_there_already(self, plan: RestorePlan) -> bool:
        to = self._move.to
        return self._move.undoes is None and (to is None or to.oid == self._left.oid) and not plan

    # ------------------------------------------------------------ prepare

    def _bring(self, writer: StoreWriter) -> None:
        """Add what the target needs, if the store does not have it yet."""

    def _beside(self) -> list[RefUpdate]:
        """What moves together with ``current``."""
        return []

    def _capturer(self, writer: StoreWriter | None) -> Capturer:
        sink = writer or HashSink(self._repo.home.format)
        return Capturer(
            self._repo, sink, self._left_files, spare=self._left_manifest, base_manifest=self._left_manifest
        )

    def _capture(self, capturer: Capturer) -> Capture:
        if self._move.files_of is None:
            return Capture(files=dict(self._left_files), manifest=self._left_manifest)
        return capturer.run()

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
        if wanted is not None:
            for entry in trees.flatten(self._repo.store, wanted.tree_oid).values():
                self._repo.store.require(entry.oid)

    @contextmanager
    def _corrupt(self) -> Iterator[None]:
        """A target whose stored bytes are damaged is no version to go to."""
        wanted = self._move.files_of or self._move.to
        try:
            yield
        except ViewDamaged:
            raise
        except ChecksumMismatch as error:
            tag = wanted.tag if wanted else "the target"
            raise InvalidRollbackVersion(
                f"{tag} of {self._repo.name} is corrupt: {error.what}",
                unchanged="nothing moved",
                hint=error.hint,
                revision=tag,
            ) from error

    def _make_view(self) -> list[str]:
        if self._move.to is None:
            return []
        return View(self._repo, self._move.to).ensure(force=self._move.force)

    def _plan(self, capture: Capture, capturer: Capturer) -> RestorePlan:
        target = self._move.files_of
        if target is None:
            return RestorePlan(self._op_id, self._left.oid, (), (), {})
        manifest = self._manifest_of(target)
        with self._corrupt():
            files = trees.flatten(self._repo.store, target.tree_oid)
            materialise.check_tree_links(self._repo.store, files, backup=target.is_backup)
            beside = plans.none_of_it(self._repo, capture.files, self._left_files, files)
        planner = Planner(self._repo, capture, self._left.oid, files, self._left_manifest, manifest, capturer.add)
        known = capture.files.keys() | files.keys()
        where = f"neither in the workspace nor in {revisions.name_of(self._repo, target)}"
        keep = paths.chosen(self._move.keep, known, where, unchanged="nothing moved")
        move, only = self._move, self._move.only
        beside = beside if only is None else frozenset()
        return planner.plan(self._op_id, only=only, keep=keep, beside=beside, live=move.live, force=move.force)

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
            oid = writer.put_blob(guards.source(full), os.path.getsize(full), left[path].oid)
            left[path] = capture.files[path] = left[path]._replace(oid=oid)
        return replace(plan, left=left)

    def _dirty(self, capture: Capture, plan: RestorePlan) -> tuple[bytes, ...]:
        """The paths that a backup must hold because no version does."""
        difference = plans.difference(capture.files, self._left_files, capture.manifest, self._left_manifest)
        lost = {change.path for change in difference.changes}
        if self._move.only is not None:
            lost = set()
        lost |= {path for path, entry in plan.left.items() if self._left_files.get(path) != entry}
        return tuple(sorted(lost))

    def _require_saved(self, capture: Capture, plan: RestorePlan, dirty: tuple[bytes, ...]) -> None:
        """Raise ChecksumMismatch if the backup would name damaged bytes, whose only good copy is to be overwritten.

        What the index names already is not stored again: that is read back.
        """
        going = {write.path for write in plan.writes} | set(plan.removes)
        for path in sorted(going.intersection(dirty) & capture.files.keys()):
            oid = capture.files[path].oid
            try:
                if self._repo.store.contains(oid):
                    self._repo.store.check(oid)
            except ChecksumMismatch as error:
                raise ChecksumMismatch(
                    f"{show(path)} would be overwritten, and what the store has of it is damaged: {error.what}",
                    unchanged="nothing moved",
                    hint="`kai fsck --repair` takes its bytes from the workspace; then run the command again",
                    path=show(path),
                ) from error

    # ------------------------------------------------------------ bytes and names

    def _land(self, writer: StoreWriter, capture: Capture, plan: RestorePlan, dirty: tuple[bytes, ...]) -> MovePlan:
        repo, move = self._repo, self._move
        now = repo.home.clock.now_ns()
        seq = repo.row().op_seq + 1
        number = seq if dirty and plan else None
        updates = self._beside()
        if move.to is not None:
            updates.append(
                RefUpdate(current_ref(repo.name), Exactly(self._left.oid), move.to.oid, repo.home.actor, move.reason)
            )
        if number is not None:
            commit = self._backup(writer, capture, now)
            updates.append(RefUpdate(backup_ref(repo.name, number), Absent(), commit, repo.home.actor, move.reason))
        todo: list[Intent] = [intents.link()] if move.to is not None else []
        if plan:
            todo.append(intents.restore(plan, seq))
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
        done = self._describe(capture, plan, dirty)
        landed = repo.land(
            writer,
            updates,
            op,
            todo,
            lambda db: caches.put_known_files(
                db, repo.id, {name: capture.known.get(name, {}) for name in capture.changed}, repo.home.boot
            ),
        )
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
            self._left if self._whole else None,
            None,
            notes,
            "rollback",
            self._repo.home.actor,
            max(0, now_ns // 1_000_000_000),
        )
        return versions.write_commit(writer, draft, self._repo.store, fold=False)

    def _describe(self, capture: Capture, plan: RestorePlan, dirty: tuple[bytes, ...]) -> MovePlan:
        to = self._move.to or self._left
        return MovePlan(
            agent=self._repo.name,
            verb=self._move.verb,
            from_version=self._left.tag,
            to_version=to.tag,
            from_commit=self._left.commit,
            to_commit=to.commit,
            source=revisions.name_of(self._repo, self._move.files_of) if self._move.files_of else None,
            reason=self._move.reason,
            writes=tuple(os.fsdecode(write.path) for write in plan.writes),
            removes=tuple(os.fsdecode(path) for path in plan.removes),
            kept=tuple(os.fsdecode(path) for path in plan.kept),
            saved=tuple(os.fsdecode(path) for path in dirty) if plan else (),
            notices=tuple(capture.notices()),
        )
