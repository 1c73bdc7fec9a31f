"""Agent: the verbs of one agent, with typed results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from kaivc import __version__
from kaivc import versions as known_versions
from kaivc.errors import InvalidName
from kaivc.names import Actor
from kaivc.records import dataclass
from kaivc.repository import OpenHome, Repository
from kaivc.versions import AgentVersion

if TYPE_CHECKING:
    from pathlib import Path

    from kaivc.movement import MovePlan
    from kaivc.ops.cat import StoredFile
    from kaivc.ops.checkout import CheckedOut
    from kaivc.ops.commit import Committed
    from kaivc.ops.diff import Diff
    from kaivc.ops.export import Exported
    from kaivc.ops.gc import Collected, GcPlan
    from kaivc.ops.log import History
    from kaivc.ops.ls_tree import TreeListing
    from kaivc.ops.reflog import Reflog
    from kaivc.ops.renumber import Renumbered
    from kaivc.ops.rev_parse import Parsed
    from kaivc.ops.run import Ran
    from kaivc.ops.show import Shown
    from kaivc.ops.snapshot_drop import SnapshotDropped
    from kaivc.ops.snapshot_list import SnapshotList
    from kaivc.ops.snapshot_promote import SnapshotPromoted
    from kaivc.ops.snapshot_show import SnapshotShown
    from kaivc.ops.snapshot_test import SnapshotTested
    from kaivc.ops.status import Status
    from kaivc.ops.verify import Verified
    from kaivc.ops.versions import VersionList
    from kaivc.report import AuditReport

EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"
MAX_EPOCH_DIGITS = 11


@dataclass(frozen=True)
class Agent:
    """One agent: its versions, its workspace, its log."""

    repository: Repository

    @property
    def name(self) -> str:
        """Its name."""
        return self.repository.name

    @property
    def workspace(self) -> Path:
        """The live directory."""
        from pathlib import Path

        return Path(self.repository.workspace)

    @property
    def current(self) -> AgentVersion:
        """The version in force; NoVersionYet if there is none."""
        return known_versions.current(self.repository)

    def commit(
        self,
        *,
        bump: str | None = None,
        version: str | None = None,
        notes: str = "",
        author: str | Actor | None = None,
        snapshot_type: str = "manual",
        allow_empty: bool = False,
        op_id: str | None = None,
    ) -> AgentVersion:
        """Record the workspace as a version; the version."""
        return self.record(
            bump=bump,
            version=version,
            notes=notes,
            author=author,
            snapshot_type=snapshot_type,
            allow_empty=allow_empty,
            op_id=op_id,
        ).version

    def record(
        self,
        *,
        bump: str | None = None,
        version: str | None = None,
        notes: str = "",
        author: str | Actor | None = None,
        snapshot_type: str = "manual",
        allow_empty: bool = False,
        op_id: str | None = None,
    ) -> Committed:
        """As ``commit``, with what there is to say of it."""
        from kaivc.ops.commit import commit

        require(self.repository.home, "version", self.name)
        return commit(
            self.repository,
            bump=bump,
            version=version,
            notes=notes,
            author=Actor.parse(author) if isinstance(author, str) else author,
            snapshot_type=snapshot_type,
            time=epoch(self.repository.home.environ),
            allow_empty=allow_empty,
            op_id=op_id,
        )

    def status(self) -> Status:
        """How the workspace stands to ``current``."""
        from kaivc.ops.status import status

        return status(self.repository)

    def log(self, rev: str = "current", *, limit: int | None = None) -> History:
        """A version and its parents."""
        from kaivc.ops.log import log

        return log(self.repository, rev, limit=limit)

    def versions(self) -> VersionList:
        """All versions as a sequence, lowest number first; its ``damaged`` names those that cannot be read."""
        from kaivc.ops.versions import versions

        return versions(self.repository)

    def show(self, rev: str = "current") -> Shown:
        """What a version says and holds."""
        from kaivc.ops.show import show

        return show(self.repository, rev)

    def cat(self, path: str | bytes, rev: str = "current") -> StoredFile:
        """One file of a version."""
        from kaivc.ops.cat import cat

        return cat(self.repository, path, rev)

    def ls_tree(
        self,
        rev: str = "current",
        *paths: str | bytes,
        recursive: bool = False,
        show_trees: bool = False,
        only_trees: bool = False,
        sizes: bool = False,
    ) -> TreeListing:
        """What a version's directories hold."""
        from kaivc.ops.ls_tree import ls_tree

        return ls_tree(
            self.repository,
            rev,
            paths,
            recursive=recursive,
            show_trees=show_trees,
            only_trees=only_trees,
            sizes=sizes,
        )

    def rev_parse(self, rev: str = "current") -> Parsed:
        """The ids behind a revision."""
        from kaivc.ops.rev_parse import rev_parse

        return rev_parse(self.repository, rev)

    def diff(self, old: str = "current", new: str | None = None) -> Diff:
        """What differs between two revisions, or between one and the workspace."""
        from kaivc.ops.diff import diff

        return diff(self.repository, old, new)

    def rollback(
        self,
        to: str,
        *,
        reason: str = "",
        dry_run: bool = False,
        force: bool = False,
        live: bool = False,
        keep: Sequence[str | bytes] = (),
        op_id: str | None = None,
    ) -> MovePlan:
        """Let ``current`` point at another version, and bring the workspace there, but for what is to ``keep``."""
        from kaivc.ops.rollback import rollback

        if not dry_run:
            require(self.repository.home, "current", self.name)
        return rollback(
            self.repository, to, reason=reason, dry_run=dry_run, force=force, live=live, keep=keep, op_id=op_id
        )

    def renumber(
        self,
        rev: str,
        *,
        to: str | None = None,
        bump: str | None = None,
        reason: str = "",
        op_id: str | None = None,
    ) -> Renumbered:
        """Give a version that was never pushed another number; its files, parent and notes stay."""
        from kaivc.ops.renumber import renumber

        require(self.repository.home, "version", self.name)
        return renumber(self.repository, rev, to=to, bump=bump, reason=reason, op_id=op_id)

    def undo(
        self, *, reason: str = "", dry_run: bool = False, live: bool = False, op_id: str | None = None
    ) -> MovePlan:
        """Reverse the newest move of ``current``."""
        from kaivc.ops.undo import undo

        if not dry_run:
            require(self.repository.home, "current", self.name)
        return undo(self.repository, reason=reason, dry_run=dry_run, live=live, op_id=op_id)

    def redo(
        self, *, reason: str = "", dry_run: bool = False, live: bool = False, op_id: str | None = None
    ) -> MovePlan:
        """Reverse the newest undo."""
        from kaivc.ops.redo import redo

        if not dry_run:
            require(self.repository.home, "current", self.name)
        return redo(self.repository, reason=reason, dry_run=dry_run, live=live, op_id=op_id)

    def restore(
        self,
        *paths: str | bytes,
        source: str = "current",
        reason: str = "",
        dry_run: bool = False,
        live: bool = False,
        op_id: str | None = None,
    ) -> MovePlan:
        """Bring files of a version back into the workspace."""
        from kaivc.ops.restore import restore

        if not dry_run:
            require(self.repository.home, "current", self.name)
        return restore(self.repository, paths, source=source, reason=reason, dry_run=dry_run, live=live, op_id=op_id)

    def gc(self, *, dry_run: bool = False, before: Callable[[GcPlan], None] | None = None) -> Collected:
        """Let backups expire, and give back the bytes of what no name leads to; ``before`` is told the plan first."""
        from kaivc.ops.gc import gc

        if not dry_run:
            require(self.repository.home, "maintain", self.name)
        return gc(self.repository, dry_run=dry_run, before=before)

    def reflog(self, ref: str | None = "current", *, limit: int | None = None) -> Reflog:
        """The moves of a ref, newest first."""
        from kaivc.ops.reflog import reflog

        return reflog(self.repository, ref, limit=limit)

    def audit(self, rev: str | None = None, *, expect_head: str | None = None) -> AuditReport:
        """Recompute one version, or all, with the chain of op records; what differs is in the report."""
        from kaivc.ops.audit import audit

        return audit(self.repository.home, self.name, rev, expect_head=expect_head, release=__version__)

    def verify(self, rev: str | None = None, *, workspace: bool = False) -> Verified:
        """Re-hash one version, or all."""
        from kaivc.ops.verify import verify

        return verify(self.repository, rev, workspace=workspace)

    def checkout(self, rev: str, directory: str | os.PathLike[str]) -> CheckedOut:
        """Write the files of a version to a directory of their own."""
        from kaivc.ops.checkout import checkout

        return checkout(self.repository, rev, os.fspath(directory))

    def run(self, *command: str, dirty: bool = False) -> Ran:
        """Run the agent in its workspace."""
        from kaivc.ops.run import run

        require(self.repository.home, "current", self.name)
        return run(self.repository, command, dirty=dirty)

    def snapshot_test(
        self,
        rev: str = "current",
        *command: str,
        state: str = "committed",
        commit: bool = False,
        author: str | Actor | None = None,
        say: Callable[[bytes], None] | None = None,
    ) -> SnapshotTested:
        """Run a version's check, or ``command``, in a throw-away layer apart from all else; what that changed.

        What the command prints goes to ``say`` as it is.
        """
        from kaivc.ops.snapshot_test import snapshot_test

        require(self.repository.home, "snapshot", self.name)
        return snapshot_test(
            self.repository,
            rev,
            command,
            state=state,
            commit=commit,
            author=Actor.parse(author) if isinstance(author, str) else author,
            time=epoch(self.repository.home.environ),
            say=say,
        )

    def snapshot_list(self) -> SnapshotList:
        """The snapshots that are committed, that wait, or that are under test."""
        from kaivc.ops.snapshot_list import snapshot_list

        return snapshot_list(self.repository)

    def snapshot_show(self, snapshot: str) -> SnapshotShown:
        """What a snapshot was made of, how its test ended, and what it changed."""
        from kaivc.ops.snapshot_show import snapshot_show

        return snapshot_show(self.repository, snapshot)

    def snapshot_promote(  # noqa: PLR0913 - a keyword for each flag
        self,
        snapshot: str,
        *,
        bump: str | None = None,
        version: str | None = None,
        notes: str = "",
        author: str | Actor | None = None,
        with_state: bool = False,
        force: bool = False,
        dry_run: bool = False,
        live: bool = False,
        op_id: str | None = None,
    ) -> SnapshotPromoted:
        """Make a committed snapshot a version, and let ``current`` point at it."""
        from kaivc.ops.snapshot_promote import snapshot_promote

        if not dry_run:
            require(self.repository.home, "version", self.name)
        return snapshot_promote(
            self.repository,
            snapshot,
            bump=bump,
            version=version,
            notes=notes,
            author=Actor.parse(author) if isinstance(author, str) else author,
            time=epoch(self.repository.home.environ),
            with_state=with_state,
            force=force,
            dry_run=dry_run,
            live=live,
            op_id=op_id,
        )

    def snapshot_drop(self, snapshot: str, *, reason: str = "", dry_run: bool = False) -> SnapshotDropped:
        """Take a snapshot away."""
        from kaivc.ops.snapshot_drop import snapshot_drop

        if not dry_run:
            require(self.repository.home, "snapshot", self.name)
        return snapshot_drop(self.repository, snapshot, reason=reason, dry_run=dry_run)

    def export(self, directory: str | os.PathLike[str]) -> Exported:
        """Write everything as a bare git repository."""
        from kaivc.ops.export import export

        return export(self.repository, os.fspath(directory))

    def load(self, rev: str = "current") -> Path:
        """The path of a version's verified view; ChecksumMismatch if it is damaged."""
        from pathlib import Path

        from kaivc import intents, revisions, views

        with nullcontext() if self.repository.home.read_only else self.repository.lock():
            if not self.repository.home.read_only:
                intents.finish(self.repository)
            return Path(views.load(self.repository, revisions.resolve(self.repository, rev)))


def require(home: OpenHome, act: str, *agents: str) -> None:
    """Raise PermissionDenied unless this process may do it to these agents: docs/how-to/run-a-server.md."""
    from kaivc.ops.authorize import authorize

    authorize(home, act, *agents)


def epoch(environ: Mapping[str, str]) -> int | None:
    """The time that SOURCE_DATE_EPOCH states, in whole seconds UTC; None if it is not set, InvalidName for no time."""
    text = environ.get(EPOCH_VARIABLE)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > MAX_EPOCH_DIGITS:
        raise InvalidName(f"{EPOCH_VARIABLE}={text!r} is no time in whole seconds", unchanged="nothing was committed")
    return int(text)
