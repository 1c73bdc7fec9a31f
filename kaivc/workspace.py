"""Bring the live workspace to the files of a version, losing nothing that was in it.

A restore is planned as a value, staged as complete files on the same disk, and applied by renames. A file that is
replaced or removed is never overwritten: it gets a second name under ``.kai/displaced/`` first.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress

from kaivc import sqlitefiles
from kaivc.capture import Capture
from kaivc.dirtree import DirTree
from kaivc.errors import Incompatible, NoSpace, RefusedPath, StorageFailed
from kaivc.materialise import plain_mode, write_file
from kaivc.names import ObjectId
from kaivc.plans import RestorePlan, Write, parents
from kaivc.reading import is_settled, signature
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.sinks import HashSink
from kaivc.sqlitefiles import SIDE_SUFFIXES, Guards
from kaivc.storage.gitobjects import EXECUTABLE, Kind
from kaivc.trees import show

_MOVED = rb"([rw]\d+)(\.\d+)?\Z"
PROBE = b".kai-probe"
MANY = 256
"""From this many files on, one sync of the disk is cheaper than one for each: it waits for what others wrote, too."""


# ---------------------------------------------------------------- stage


def stage(repo: Repository, plan: RestorePlan) -> None:
    """Write every new file, whole and synced, beside where it will go. What can fail, fails here."""
    if not plan.writes:
        return
    directory = repo.layout.staging(repo.name, plan.op)
    repo.vfs.make_dirs(directory)
    many = len(plan.writes) >= MANY
    with DirTree(repo.vfs, repo.workspace) as workspace, DirTree(repo.vfs, directory) as staging:
        for number, write in enumerate(plan.writes):
            repo.home.progress("staging", number, len(plan.writes))
            mode = _mode(workspace.stat(write.path), write, shared=repo.home.shared)
            write_file(repo.store, staging, b"%d" % number, write.entry, mode, sync=not many)
        if many:
            repo.vfs.sync_disk()
        repo.vfs.sync(staging.fd)
    for above in (repo.layout.staging(repo.name), os.path.dirname(repo.layout.staging(repo.name, "").rstrip("/"))):
        repo.vfs.sync_dir(above)
    repo.vfs.sync_dir(repo.layout.kai)


def _mode(existing: os.stat_result | None, write: Write, *, shared: bool) -> int:
    """Git's modes know only x: the other bits are those of the file that is replaced."""
    executable = write.entry.mode == EXECUTABLE
    if write.private:
        return 0o700 if executable else 0o600
    if existing is None or not stat.S_ISREG(existing.st_mode):
        return plain_mode(write.entry) | (0o020 if shared else 0)
    bits = stat.S_IMODE(existing.st_mode) & 0o666
    return bits | (bits & 0o444) >> 2 if executable else bits


# ---------------------------------------------------------------- rehearse


def rehearse(repo: Repository, plan: RestorePlan) -> None:
    """Try on every directory and file what applying will do to it, leaving no trace; Incompatible if one refuses.

    Mounts of the same disk and immutable files show in no status.
    """
    directory = repo.layout.staging(repo.name, plan.op)
    repo.vfs.make_dirs(directory)
    reasons = []
    paths = [*plan.removes, *(write.path for write in plan.writes)]
    with DirTree(repo.vfs, repo.workspace) as workspace, DirTree(repo.vfs, directory) as staging:
        mount = _mount_of(staging.fd)
        for above in sorted({b"", *(it for path in paths for it in parents(path))}):
            fd = workspace.opened(above)
            if fd is not None and _mount_of(fd) != mount:
                reasons.append(f"{show(above) or 'the workspace'} is a mount of its own")
        for path in plan.left:
            reasons += _try_file(workspace, staging, path)
    if reasons:
        raise Incompatible(
            "the workspace cannot be brought there: " + "; ".join(reasons),
            unchanged="nothing moved",
            hint="mend what is named, then run the command again",
            reasons=reasons,
        )


def _mount_of(fd: int) -> str:
    """The mount that an open directory lies on; a bind mount of the same disk is another. Empty where /proc is not."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            return next((line for line in file if line.startswith("mnt_id")), "")
    except OSError:
        return ""


def _try_file(workspace: DirTree, staging: DirTree, path: bytes) -> list[str]:
    """Give a file a second name for a moment. Another user's may refuse that and yet be renamed."""
    status = workspace.stat(path)
    if status is None or stat.S_ISDIR(status.st_mode):
        return []
    parent, name = workspace.at(path)
    try:
        workspace.vfs.link(name, PROBE, parent, staging.fd)
    except StorageFailed as error:
        if not _is_refusal(error):
            raise
        above = os.fstat(parent)
        mine = os.geteuid() in (0, status.st_uid)
        if not mine and not (above.st_mode & stat.S_ISVTX and above.st_uid != os.geteuid()):
            return []
        return [f"{show(path)} cannot be replaced: {_cause(error)}"]
    workspace.vfs.unlink(PROBE, at=staging.fd)
    return []


def _is_refusal(error: StorageFailed) -> bool:
    """Whether the system will not do it for this file, whatever the disk's health."""
    return getattr(error.__cause__, "errno", None) in (
        errno.EPERM,
        errno.EACCES,
        errno.EXDEV,
        errno.EMLINK,
        errno.ENOTSUP,
    )


def _cause(error: StorageFailed) -> str:
    return str(getattr(error.__cause__, "strerror", None) or error.what)


# ---------------------------------------------------------------- guard


def guard_databases(repo: Repository, capture: Capture, plan: RestorePlan, guards: Guards) -> list[bytes]:
    """Lock every database that the plan replaces; those that changed since they were captured.

    Raises AgentBusy when one cannot be locked.
    """
    changed = []
    for path in sorted(plan.left):
        full = os.path.join(os.fsencode(repo.workspace), path)
        if not is_database(full) or not guards.watch(full):
            continue
        moved = not _as_captured(repo, capture, path, full)
        if guards.lock(full) or moved:
            changed.append(path)
    return changed


def is_database(path: bytes) -> bool:
    """Whether a plain file has SQLite's magic; one that this process has open is not opened beside it."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return False
        mine = sqlitefiles.open_inodes().get((status.st_dev, status.st_ino))
        if mine is not None:
            return os.pread(mine, 16, 0) == sqlitefiles.MAGIC
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.pread(fd, 16, 0) == sqlitefiles.MAGIC
    finally:
        os.close(fd)


def _as_captured(repo: Repository, capture: Capture, path: bytes, full: bytes) -> bool:
    """Whether a watched database is as it was captured; read again where its times are too fresh to tell."""
    directory, slash, name = path.rpartition(b"/")
    known = capture.known.get(directory + slash, {}).get(name)
    wal = full + b"-wal"
    wal_status = os.stat(wal) if sqlitefiles.log_size(full) else None
    status = os.stat(full)
    if known is not None:
        if known.signature != signature(status, wal_status):
            return False
        if is_settled(known):
            return True
    scratch = os.path.join(repo.layout.tmp, f"backup-{repo.new_op_id()}")
    with sqlitefiles.Scratch(repo.vfs, scratch) as file:
        try:
            source = sqlitefiles.backup(full, file, repo.settings.lock_wait)
        except sqlitefiles.NotReadable:
            return False  # it was when it was captured
        found = HashSink(repo.home.format).put_blob(source, sqlitefiles.size_of(source))
    return found == capture.files[path].oid


# ---------------------------------------------------------------- apply


@dataclass(frozen=True)
class Displaced:
    """A file that was moved out of the workspace; ``name`` is what it is called among the displaced."""

    path: bytes
    name: bytes
    is_database: bool


class Applier:
    """Carries a staged plan out; doing it again finishes what was cut."""

    def __init__(self, repo: Repository, plan: RestorePlan) -> None:
        self._repo = repo
        self._plan = plan
        self._vfs = repo.vfs
        self._displaced = repo.layout.displaced(repo.name, plan.op)
        self._staging = repo.layout.staging(repo.name, plan.op)

    def run(self) -> list[Displaced]:
        """Apply the plan; what was moved out, now or before a cut.

        A staged file that is gone was renamed into the workspace before the cut: what stands there now is the agent's.
        """
        repo, plan, vfs = self._repo, self._plan, self._vfs
        vfs.make_dirs(self._displaced)
        if not os.path.isdir(self._staging):
            stage(repo, plan)
        vfs.make_dirs(self._staging)
        with (
            DirTree(vfs, repo.workspace) as workspace,
            DirTree(vfs, self._displaced) as displaced,
            DirTree(vfs, self._staging) as staging,
        ):
            for number, path in enumerate(plan.removes):
                self._remove(workspace, displaced, path, b"r%d" % number)
            self._prune(workspace)
            for number, write in enumerate(plan.writes):
                repo.home.progress("restoring", number, len(plan.writes))
                if staging.stat(b"%d" % number) is not None:
                    self._write(workspace, displaced, staging, write, number)
            self._sync(workspace)
        return self._moved_out()

    def left_to_do(self) -> list[bytes]:
        """The paths that are still to be removed or replaced, after a cut."""
        removes = [
            path
            for number, path in enumerate(self._plan.removes)
            if not os.path.lexists(os.path.join(self._displaced, f"r{number}"))
        ]
        writes = [
            write.path
            for number, write in enumerate(self._plan.writes)
            if os.path.lexists(os.path.join(self._staging, str(number)))
        ]
        return removes + writes

    def clean_up(self) -> None:
        """Remove the scratch of this operation."""
        self._vfs.remove_tree(self._staging)
        self._vfs.remove_tree(self._displaced)

    # ------------------------------------------------------------ one path

    def _remove(self, workspace: DirTree, displaced: DirTree, path: bytes, name: bytes) -> None:
        status = workspace.stat(path)
        if status is not None and not stat.S_ISDIR(status.st_mode) and displaced.stat(name) is None:
            self._move_sides(workspace, displaced, self._its_sides(workspace, displaced, path, name))
            parent, last = workspace.at(path)
            self._vfs.rename(last, name, parent, displaced.fd)
        self._drop_bytecode(workspace, path)

    def _write(self, workspace: DirTree, displaced: DirTree, staging: DirTree, write: Write, number: int) -> None:
        status = workspace.stat(write.path)
        try:
            parent, last = workspace.at(write.path, create=True)
            if status is not None and stat.S_ISDIR(status.st_mode):
                self._remove_hollow(workspace, write.path)
        except RefusedPath as error:
            raise Incompatible(
                f"{show(write.path)} cannot be put in its place, for something was put there meanwhile: {error.what}",
                unchanged="the names have moved; the workspace follows when the way is free",
                hint=f"move what stands at {show(write.path)} or above it away, then run the command again",
                path=show(write.path),
            ) from error
        if status is None:
            self._move_sides(workspace, displaced, self._its_sides(workspace, displaced, write.path, b"s%d" % number))
        elif not stat.S_ISDIR(status.st_mode):
            self._displace(workspace, displaced, write.path, status, b"w%d" % number)
        self._vfs.rename(b"%d" % number, last, staging.fd, parent)
        self._drop_bytecode(workspace, write.path)

    def _displace(
        self, workspace: DirTree, displaced: DirTree, path: bytes, status: os.stat_result, name: bytes
    ) -> None:
        """Give a file a second name first, so that a reader finds the old file or the new one at every moment."""
        fresh, count = name, 0
        while (there := displaced.stat(fresh)) is not None:
            if there.st_ino == status.st_ino:
                break  # cut between the link and the rename
            count += 1
            fresh = name + b".%d" % count
        parent, last = workspace.at(path)
        sides = self._its_sides(workspace, displaced, path, fresh)
        if there is None:
            try:
                self._vfs.link(last, fresh, parent, displaced.fd)
            except StorageFailed as error:
                if not _is_refusal(error):
                    raise
                # a file of another user, or a disk without hard links
                self._vfs.rename(last, fresh, parent, displaced.fd)
        self._move_sides(workspace, displaced, sides)

    def _remove_hollow(self, workspace: DirTree, path: bytes) -> None:
        """Remove a directory that holds nothing but directories."""
        for entry in os.listdir(workspace.directory(path)):
            self._remove_hollow(workspace, path + b"/" + os.fsencode(entry))
        workspace.forget(path)
        parent, name = workspace.at(path)
        self._vfs.remove_dir(name, at=parent)

    def _its_sides(self, workspace: DirTree, displaced: DirTree, path: bytes, name: bytes) -> list[tuple[bytes, bytes]]:
        """The side files of a database at ``path``, and what they will be called among the displaced.

        A restored database beside the log of the one before would read wrong rows. Whatever the file before was: a
        damaged one has lost the magic that tells it. What is only named like a side file stays.
        """
        full = os.path.join(os.fsencode(self._repo.workspace), path)
        known = is_database(full)
        found = []
        for suffix in SIDE_SUFFIXES:
            status = workspace.stat(path + suffix)
            if status is None or not stat.S_ISREG(status.st_mode) or path + suffix in self._plan.plain_sides:
                continue
            if (known or sqlitefiles.is_side_file(full + suffix, suffix)) and displaced.stat(name + suffix) is None:
                found.append((path + suffix, name + suffix))
        return found

    def _move_sides(self, workspace: DirTree, displaced: DirTree, sides: list[tuple[bytes, bytes]]) -> None:
        for side, name in sides:
            parent, last = workspace.at(side)
            try:
                self._vfs.rename(last, name, parent, displaced.fd)
            except StorageFailed:
                if workspace.stat(side) is not None:
                    raise  # else its owner has just removed it

    def _drop_bytecode(self, workspace: DirTree, path: bytes) -> None:
        """A restored source of equal size and time would run its old bytecode."""
        directory, _, name = path.rpartition(b"/")
        if not name.endswith(b".py"):
            return
        cache = directory + b"/__pycache__" if directory else b"__pycache__"
        fd = workspace.opened(cache)
        if fd is None:
            return
        for entry in os.listdir(fd):
            compiled = os.fsencode(entry)
            if compiled.startswith(name[:-3] + b".") and compiled.endswith(b".pyc"):
                self._vfs.unlink(compiled, at=fd, missing_ok=True)

    # ------------------------------------------------------------ directories

    def _prune(self, workspace: DirTree) -> None:
        """Remove directories that held removed files and hold nothing now."""
        emptied = {parent for path in self._plan.removes for parent in parents(path)}
        for path in sorted(emptied, key=lambda path: path.count(b"/"), reverse=True):
            fd = workspace.opened(path)
            if fd is not None and workspace.is_dir(path) and not os.listdir(fd):
                workspace.forget(path)
                parent, name = workspace.at(path)
                with suppress(StorageFailed):  # an agent that runs may have put something there
                    self._vfs.remove_dir(name, at=parent)

    def _sync(self, workspace: DirTree) -> None:
        paths = [*self._plan.removes, *(write.path for write in self._plan.writes)]
        directories = {parent for path in paths for parent in (b"", *parents(path))}
        if len(directories) >= MANY:
            self._vfs.sync_disk()
            return
        for path in sorted(directories):
            fd = workspace.opened(path)
            if fd is not None:
                self._vfs.sync(fd)

    def _moved_out(self) -> list[Displaced]:
        names = {b"r%d" % number: path for number, path in enumerate(self._plan.removes)}
        names |= {b"w%d" % number: write.path for number, write in enumerate(self._plan.writes)}
        there = sorted(os.fsencode(name) for name in os.listdir(self._displaced))
        directory = os.fsencode(self._displaced)
        return [
            Displaced(names[match[1]], name, is_database(os.path.join(directory, name)))
            for name in there
            if (match := re.match(_MOVED, name)) and match[1] in names
        ]


def hash_file(repo: Repository, name: bytes, parent: int | None = None) -> ObjectId:
    """The blob id of a plain file."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    try:
        digest = repo.store.format.header(Kind.BLOB, os.fstat(fd).st_size)
        while piece := os.read(fd, 1 << 20):
            digest.update(piece)
        return ObjectId(digest.digest())
    finally:
        os.close(fd)


def check_space(repo: Repository, plan: RestorePlan) -> None:
    """Refuse a restore that the disk has no room for."""
    needed = sum(repo.store.size_without_holes(write.entry.oid) for write in plan.writes)
    status = os.statvfs(repo.layout.kai)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise NoSpace(
            f"restoring needs {needed} bytes and {free} are free",
            unchanged="nothing moved",
            hint="free some space, then run the command again",
        )
