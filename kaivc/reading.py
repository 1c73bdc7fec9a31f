"""Read one workspace file into a sink: through the stat cache, as plain bytes, or as one state of a database."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress

from kaivc import sqlitefiles
from kaivc.errors import UnreadablePath, UnsettledFile
from kaivc.names import ObjectId
from kaivc.repository import Repository
from kaivc.sinks import BlobSink
from kaivc.storage.caches import Known
from kaivc.trees import show
from kaivc.vfs import Vfs

GRANULE_NS = 20_000_000
"""A file system may give two writes within this time one mtime (a kernel tick is 1 to 10 ms)."""
COARSE_NS = 2_000_000_000
"""The same where mtimes are whole seconds."""
AGED_NS = 60_000_000_000
"""After this time a disk has the pages that were mapped and changed, and the next change of one is seen."""
PIECE = 1 << 20
_IGNORED = 23
"""SIGURG, which nobody dies of."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Unsettled(Exception):
    """The file changed while it was read."""


class _FileSource:
    """Exactly ``size`` bytes of a file; _Unsettled if it has fewer."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._left = size
        self._at = 0

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._fd, min(size, self._left), self._at)
        if not data and self._left and size:
            raise _Unsettled
        self._at += len(data)
        self._left -= len(data)
        return data

    def readinto(self, room: memoryview) -> int:
        count = os.preadv(self._fd, [room[: self._left]], self._at)
        if not count and self._left and room:
            raise _Unsettled
        self._at += count
        self._left -= count
        return count


def _now(repo: Repository) -> int:
    """The time of the disk; 0, at which no file counts as settled, where it cannot be asked."""
    if repo.home.read_only:
        return 0
    repo.vfs.make_dirs(repo.layout.tmp, repo.home.dir_mode)
    return repo.vfs.disk_now_ns(os.path.join(repo.layout.tmp, "clock"))


class Reader:
    """Reads the files of one workspace; what it learns stands in ``known``, ``databases`` and ``plain_databases``."""

    def __init__(self, repo: Repository, sink: BlobSink) -> None:
        self._repo = repo
        self._sink = sink
        self._root = os.fsencode(repo.workspace)
        self._open = sqlitefiles.open_inodes()
        self._now = _now(repo)
        self.cache = repo.known_files()
        self.known: dict[bytes, dict[bytes, Known]] = {}
        self.databases: set[bytes] = set()
        self.plain_databases: list[bytes] = []

    def has_magic(self, parent: int, name: bytes) -> bool:
        """Whether a plain file starts as a database does."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                return False
            mine = self._open.get((status.st_dev, status.st_ino))
            if mine is not None:
                return os.pread(mine, 16, 0) == sqlitefiles.MAGIC
            fd = os.open(name, _READ, dir_fd=parent)
        except OSError:
            return False
        try:
            return os.pread(fd, 16, 0) == sqlitefiles.MAGIC
        finally:
            os.close(fd)

    def known_id(
        self,
        parent: int,
        name: bytes,
        path: bytes,
        status: os.stat_result,
        names: set[bytes],
        base: ObjectId | None = None,
    ) -> ObjectId | None:
        """The id that the stat cache has, if nothing can have changed since; ``base`` is one that is surely stored."""
        directory, _, _ = split(path)
        known = self.cache.get(directory, {}).get(name)
        if known is None or known.signature != signature(
            status, self._wal(parent, name) if name + b"-wal" in names else None
        ):
            return None
        if not is_settled(known) or not (known.oid == base or self._sink.contains(known.oid)):
            return None
        if len(known.signature) > SIGNATURE:
            self.databases.add(path)
        self.known.setdefault(directory, {})[name] = known
        return ObjectId(known.oid)

    def _wal(self, parent: int, name: bytes) -> os.stat_result | None:
        try:
            status = os.stat(name + b"-wal", dir_fd=parent, follow_symlinks=False)
        except OSError:
            return None
        return status if status.st_size else None

    def read(self, parent: int, name: bytes, path: bytes, like: ObjectId | None = None) -> ObjectId | None:
        """The id of a file's bytes; None if it went away. UnreadablePath or UnsettledFile otherwise.

        ``like`` is a blob that perhaps holds most of them.
        """
        for _ in range(self._repo.settings.read_tries):
            try:
                return self._read_once(parent, name, path, like)
            except _Unsettled:
                continue
            except FileNotFoundError:
                if not _is_there(name, parent):
                    return None
            except OSError as error:
                raise unreadable(path, error) from error
        raise _unsettled(path)

    def _read_once(self, parent: int, name: bytes, path: bytes, like: ObjectId | None) -> ObjectId:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if (status.st_dev, status.st_ino) in self._open and self.has_magic(parent, name):
            return self._through_sqlite(path, like)
        fd = os.open(name, _READ, dir_fd=parent)
        try:
            written = _is_open_to_write(fd)
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise _Unsettled
            wal = self._wal(parent, name)
            if os.pread(fd, 16, 0) == sqlitefiles.MAGIC:
                oid = self._database(fd, path, before, like)
            else:
                oid = self._sink.put_blob(_FileSource(fd, before.st_size), before.st_size, like)
                if signature(os.fstat(fd)) != signature(before):
                    raise _Unsettled
                if written or (written is None and self._now - before.st_mtime_ns <= AGED_NS):
                    return oid  # a page that is mapped may change, and the file not look changed
            if path not in self.plain_databases:  # whether its side files are its own is asked each time
                self._remember(path, before, wal, oid)
            return oid
        finally:
            os.close(fd)

    def _remember(self, path: bytes, status: os.stat_result, wal: os.stat_result | None, oid: ObjectId) -> None:
        directory, name, _ = split(path)
        known = Known(signature(status, wal), oid, self._now)
        self.known.setdefault(directory, {})[name] = known

    # ------------------------------------------------------------ databases

    def _database(self, fd: int, path: bytes, status: os.stat_result, like: ObjectId | None) -> ObjectId:
        full = os.path.join(self._root, path)
        self.databases.add(path)
        try:
            with _reading(self._repo, full) as connection:
                if not sqlitefiles.holds_all(full, connection):
                    return _put_state(self._repo, self._sink, connection, like)
                size = os.fstat(fd).st_size
                return self._sink.put_blob(_FileSource(fd, size), size, like)
        except sqlitefiles.NotReadable:
            oid = self._sink.put_blob(_FileSource(fd, status.st_size), status.st_size, like)
            if signature(os.fstat(fd)) != signature(status):
                raise _Unsettled from None
            self.plain_databases.append(path)
            return oid

    def _through_sqlite(self, path: bytes, like: ObjectId | None) -> ObjectId:
        """For a file that this process has open: closing a descriptor of our own would drop its locks."""
        full = os.path.join(self._root, path)
        self.databases.add(path)
        try:
            with _reading(self._repo, full) as connection:
                return _put_state(self._repo, self._sink, connection, like)
        except sqlitefiles.NotReadable as error:
            raise UnsettledFile(
                f"the database {show(path)} cannot be read: {error}",
                unchanged="nothing was written",
                hint="look whether it is whole (`PRAGMA integrity_check`), or list it in .kaiignore",
                path=show(path),
            ) from error


class StillReader(Reader):
    """Reads a directory that is never written to: of a database with a log, SQLite is given a copy to open."""

    def _database(self, fd: int, path: bytes, status: os.stat_result, like: ObjectId | None) -> ObjectId:
        full = os.path.join(self._root, path)
        before = self._unit(full)
        try:
            oid = self._copied(fd, full, like) if len(before) > 1 else None
        except sqlitefiles.NotReadable:
            self.plain_databases.append(path)
            oid = None
        if oid is None:
            self.databases.add(path)
            oid = self._sink.put_blob(_FileSource(fd, status.st_size), status.st_size, like)
        if self._unit(full) != before or signature(os.fstat(fd)) != signature(status):
            raise _Unsettled
        return oid

    @staticmethod
    def _unit(full: bytes) -> dict[bytes, tuple[int, ...]]:
        """A database and what is not empty of its logs."""
        found = {}
        for suffix in (b"", b"-wal", b"-journal"):
            with suppress(OSError):
                status = os.stat(full + suffix, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and (status.st_size or not suffix):
                    found[suffix] = signature(status)
        return found

    def _copied(self, fd: int, full: bytes, like: ObjectId | None) -> ObjectId:
        with ExitStack() as stack:
            unit = {b"": fd}
            for suffix in self._unit(full):
                if suffix:
                    unit[suffix] = os.open(full + suffix, _READ)
                    stack.callback(os.close, unit[suffix])
            return put_unit(self._repo, self._sink, unit, like)


def put_unit(repo: Repository, sink: BlobSink, unit: Mapping[bytes, int], like: ObjectId | None) -> ObjectId:
    """Put the one state that a database and its logs have, of which SQLite is given a copy; its id.

    ``unit`` has a descriptor of each by its suffix, which is nothing for the database itself. ``like`` is a blob that
    perhaps holds most of it. Raises sqlitefiles.NotReadable, UnsettledFile.
    """
    with repo.home.scratch_file() as path:
        base = os.fsencode(path)
        try:
            for suffix, source in unit.items():
                _pour(repo.vfs, source, base + suffix)
            with _reading(repo, base) as connection:
                return _put_state(repo, sink, connection, like)
        finally:
            for suffix in (b"", *sqlitefiles.SIDE_SUFFIXES):
                repo.vfs.unlink(base + suffix, missing_ok=True)


def _pour(vfs: Vfs, source: int, path: bytes) -> None:
    target, position = vfs.create(path), 0
    try:
        while piece := os.pread(source, PIECE, position):
            vfs.write(target, piece)
            position += len(piece)
    finally:
        vfs.close(target)


def _reading(repo: Repository, path: bytes) -> AbstractContextManager[sqlite3.Connection]:
    return sqlitefiles.reading(path, repo.settings.lock_wait, repo.home.temp)


def _put_state(repo: Repository, sink: BlobSink, connection: sqlite3.Connection, like: ObjectId | None) -> ObjectId:
    with repo.home.scratch_file() as path, sqlitefiles.Scratch(repo.vfs, path) as file:
        source = sqlitefiles.read_out(connection, file)
        return sink.put_blob(source, sqlitefiles.size_of(source), like)


def _is_there(name: bytes, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return True


def _is_open_to_write(fd: int) -> bool | None:
    """Whether anybody has a file open for writing, or mapped so; None where the system does not say.

    A read lease is granted only where nobody has. It is let go of at once: who opens the file meanwhile waits for that.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, _IGNORED)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # another user's file, or a disk without leases
        return None
    return False


SIGNATURE = 5


def is_settled(known: Known) -> bool:
    """Whether the file was older than the look at it by more than its clock can tell apart."""
    times = known.signature
    newest = max(times[1], times[2])  # an mtime can be set back, a ctime cannot
    if len(times) > SIGNATURE:
        newest = max(newest, *times[6:8])
    granule = COARSE_NS if newest % 1_000_000_000 == 0 else GRANULE_NS
    return known.taken_ns - newest > granule


def signature(status: os.stat_result, wal: os.stat_result | None = None) -> tuple[int, ...]:
    """What tells that a file changed: size, mtime, ctime, inode, and the owner's x bit; the same of its WAL."""
    own = (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_mode & stat.S_IXUSR,
    )
    return own if wal is None else own + signature(wal)


def split(path: bytes) -> tuple[bytes, bytes, bytes]:
    """The directory with its final slash as the cache keys it, and the name."""
    directory, slash, name = path.rpartition(b"/")
    return directory + slash, name, path


def unreadable(path: bytes, error: OSError) -> UnreadablePath:
    """The error for a path that the system does not let this user read."""
    return UnreadablePath(
        f"{show(path)} cannot be read: {error.strerror}",
        unchanged="nothing was written",
        hint="give this user the right to read it, or list it in .kaiignore",
        path=show(path),
    )


def put_as_it_is(sink: BlobSink, full: bytes, path: bytes, tries: int, like: ObjectId | None) -> ObjectId:
    """The id of a file's bytes; of one that does not hold still, as much as there was when it was looked at last.

    ``path`` is what to call it. UnsettledFile if it becomes shorter each time.
    """
    oid = None
    fd = os.open(full, _READ)
    try:
        for _ in range(tries):
            before = os.fstat(fd)
            with suppress(_Unsettled):
                oid = sink.put_blob(_FileSource(fd, before.st_size), before.st_size, like)
                if signature(os.fstat(fd)) == signature(before):
                    break
    finally:
        os.close(fd)
    if oid is None:
        raise _unsettled(path)
    return oid


def _unsettled(path: bytes) -> UnsettledFile:
    return UnsettledFile(
        f"{show(path)} changed each time it was read",
        unchanged="nothing was committed",
        hint="try again, or name a `quiesce` command in kai.yaml",
        path=show(path),
    )
