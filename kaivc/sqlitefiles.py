"""SQLite databases that live while they are read and replaced.

A database and its side files are one unit (https://sqlite.org/wal.html, https://sqlite.org/howtocorrupt.html).
Two facts shape this file. A plain copy of a database under a writer is often corrupt, so reading holds a read
transaction or goes through SQLite's backup. And closing any descriptor of a file drops all POSIX locks that the
process holds on it, so a database that this very process has open is never opened beside SQLite.
"""

from __future__ import annotations

import io
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Self

from kaivc.errors import AgentBusy, UnsettledFile
from kaivc.ports import Sleep
from kaivc.storage import readonly
from kaivc.storage.chunking import Source
from kaivc.trees import show
from kaivc.vfs import Vfs

MAGIC = b"SQLite format 3\0"
SIDE_SUFFIXES = (b"-wal", b"-journal", b"-shm")
POLL = 0.01
SHM_VERSION = 3_007_000
IN_MEMORY = 32 << 20
HEADER = 100
"""Bytes of the header; 18 and 19 say whether the database is in WAL mode."""


class NotReadable(Exception):
    """The file has the magic, and yet SQLite cannot read it."""


def base_of(name: bytes) -> bytes | None:
    """The database that a side file would belong to."""
    for suffix in SIDE_SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return None


def is_side_file(path: bytes, suffix: bytes) -> bool:
    """Whether a file is what SQLite writes under such a name, by its first bytes (https://sqlite.org/fileformat2.html)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        head = os.pread(fd, 8, 0)
    finally:
        os.close(fd)
    if suffix == b"-wal":
        return head[:4] in (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
    if suffix == b"-journal":
        return head == b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
    return head[:4] == SHM_VERSION.to_bytes(4, sys.byteorder)


def open_inodes() -> dict[tuple[int, int], int]:
    """The regular files that this process has open: (dev, inode) to a descriptor. Empty where /proc is not there."""
    found = {}
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                status = os.fstat(int(name))
                found[status.st_dev, status.st_ino] = int(name)
    return found


def _connect(path: bytes, mode: str, timeout: float) -> sqlite3.Connection:
    quoted = path.replace(b"%", b"%25").replace(b"?", b"%3f").replace(b"#", b"%23")
    uri = b"file:" + quoted + b"?mode=" + mode.encode()
    return sqlite3.connect(os.fsdecode(uri), uri=True, isolation_level=None, timeout=timeout)


def _is_busy(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorname", "") or "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _unsettled(path: bytes, error: object) -> UnsettledFile:
    return UnsettledFile(
        f"the database {show(path)} cannot be read now: {error}",
        unchanged="nothing was committed",
        hint=_next(error, "try again, or name a `quiesce` command in kai.yaml"),
        path=show(path),
    )


def _next(error: object, usually: str) -> str:
    """What to do: where the disk is full, to make room."""
    if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        return "free some space (`df -h`, quota), then run the command again"
    return usually


@contextmanager
def reading(path: bytes, timeout: float, temp: str) -> Iterator[sqlite3.Connection]:
    """Hold a read transaction on one committed state.

    If the main file ``holds_all`` within it, nobody changes the file until it ends. Raises UnsettledFile when a writer
    holds the database for longer than ``timeout`` seconds, NotReadable when SQLite does not take the file for a
    database. One that cannot be written is read without making files beside it, if need be from a private copy below
    ``temp``; UnsettledFile then also when it changed meanwhile.
    """
    if readonly.obstacle(os.fsdecode(path)):
        with _reading_only(path, timeout, temp) as connection:
            yield connection
        return
    connection = _begin(path, timeout)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _reading_only(path: bytes, timeout: float, temp: str) -> Iterator[sqlite3.Connection]:
    name = os.fsdecode(path)
    try:
        view = readonly.connect(name, timeout, temp)
    except sqlite3.Error as error:
        if _is_no_database(error):
            raise NotReadable(str(error)) from error
        raise _unsettled(path, error) from error
    except readonly.NotReadable as error:
        raise _unsettled(path, error) from error
    try:
        view.connection.execute("BEGIN")
        view.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield view.connection
    finally:
        view.connection.close()
    if not view.is_current(name):
        raise _unsettled(path, "it changed meanwhile")


def holds_all(path: bytes, connection: sqlite3.Connection) -> bool:
    """Whether the main file alone holds the state that a read transaction sees."""
    try:
        _, _, file = connection.execute("PRAGMA database_list").fetchone()
    except sqlite3.Error as error:
        raise _unsettled(path, error) from error
    return not log_size(path) and os.path.realpath(file) == os.path.realpath(os.fsdecode(path))


def log_size(path: bytes) -> int:
    """How many bytes the write-ahead log of a database has."""
    return _size(path + b"-wal")


def _begin(path: bytes, timeout: float) -> sqlite3.Connection:
    last: sqlite3.Error | None = None
    # A writing connection that is the last to close puts the log into the main file; a reading one leaves side files.
    for mode in ("ro", "rw") if _has_log(path) else ("rw", "ro"):
        connection = _connect(path, mode, timeout)
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            connection.close()
            if _is_busy(error):
                raise _unsettled(path, error) from error
            last = error
            if _is_no_database(error):
                break  # a writing connection would remove the log that it takes for its own
        else:
            return connection
    if last is not None and not _is_no_database(last) and (_is_for_room(last) or _has_log(path)):
        raise _unsettled(path, last) from last  # the main file alone would lack what its log holds
    raise NotReadable(str(last))


def _is_for_room(error: sqlite3.Error) -> bool:
    """Whether there is no room, and nothing is said of the file."""
    return (getattr(error, "sqlite_errorname", "") or "").startswith(("SQLITE_FULL", "SQLITE_NOMEM"))


def _is_no_database(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorname", "") or "").startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT"))


def _size(path: bytes) -> int:
    try:
        status = os.stat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _has_log(path: bytes) -> bool:
    return any(_size(path + it) for it in (b"-wal", b"-journal"))


def backup(path: bytes, to: Scratch, timeout: float) -> BinaryIO:
    """Read one committed state of a database, wherever it lies. Raises as ``reading`` does."""
    with reading(path, timeout, os.path.dirname(to.path)) as connection:
        return read_out(connection, to)


def read_out(connection: sqlite3.Connection, to: Scratch) -> BinaryIO:
    """The state that a read transaction sees.

    Up to 32 MiB the bytes are those that the main file would have after a checkpoint. A larger database goes through
    SQLite's backup into the file that ``to`` names, which has counters of its own in its header: such a version is
    called changed once the log is gone, though its rows are not.
    """
    try:
        count, size = (connection.execute(f"PRAGMA page_{it}").fetchone()[0] for it in ("count", "size"))
        if count * size <= IN_MEMORY:
            return io.BytesIO(connection.serialize())
        target = sqlite3.connect(to.path, isolation_level=None)
        try:
            # The copy is scratch: it is read once, and stored with checks of its own.
            target.execute("PRAGMA journal_mode=OFF")
            target.execute("PRAGMA synchronous=OFF")
            connection.backup(target)
        finally:
            target.close()
    except sqlite3.Error as error:
        raise NotReadable(str(error)) from error
    return to.open()


class Scratch:
    """A file that lasts as long as the context."""

    def __init__(self, vfs: Vfs, path: str) -> None:
        self.path = path
        self._vfs = vfs
        self._file: BinaryIO | None = None

    def open(self) -> BinaryIO:
        """Read what was written to it."""
        self._file = open(self.path, "rb")  # noqa: SIM115 - closed with the context
        return self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        self._vfs.unlink(self.path, missing_ok=True)


def size_of(source: BinaryIO) -> int:
    """How many bytes a source has; it stands at its start again."""
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    return size


class Guards:
    """Databases that are about to be replaced: watched while they are captured, then locked, then let go."""

    def __init__(self, wait: float, sleep: Sleep) -> None:
        self._wait = wait
        self._sleep = sleep
        self._held: dict[bytes, _Guard] = {}
        self._fds: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for guard in self._held.values():
            guard.release()
        for fd in self._fds:
            os.close(fd)

    def watch(self, path: bytes) -> bool:
        """Take note of the state that a database is in; False for what SQLite cannot read.

        Raises AgentBusy when it cannot be looked at within the wait.
        """
        if _is_foreign(path):
            return False
        connection = _connect(path, "rw", 0)
        waited = 0.0
        while True:
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                version = connection.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error as error:
                # Busy, or in the middle of being opened or closed by another: not at once taken for what it is not.
                if waited >= self._wait:
                    connection.close()
                    if not _is_busy(error):
                        return False
                waited = self._pause(path, waited)
            else:
                self._held[path] = _Guard(path, connection, version, os.stat(path).st_ino)
                return True

    def lock(self, path: bytes) -> bool:
        """Hold a watched database so that no other connection reads or writes it; whether it changed since.

        Its log is checkpointed and gone. Leaving WAL mode needs that nobody else has the database open, which is what
        makes its file safe to replace. Whoever waits for the lock meanwhile finds the file moved, and SQLite refuses to
        write to it. Raises AgentBusy after the wait.
        """
        guard = self._held[path]
        waited = 0.0
        while not guard.try_lock():
            waited = self._pause(path, waited)
        return guard.changed()

    def _pause(self, path: bytes, waited: float) -> float:
        if waited >= self._wait:
            raise AgentBusy(
                f"the database {show(path)} is open elsewhere and cannot be locked",
                unchanged="nothing moved",
                hint="stop the agent, name a `quiesce` command in kai.yaml, or say --live",
                path=show(path),
            )
        self._sleep(POLL)
        return waited + POLL

    def source(self, path: bytes) -> Source:
        """Read the main file of a locked database, as it was in the journal mode that it had."""
        return _HeldFile(self._open(path), was_wal=self._held[path].was_wal)

    def _open(self, path: bytes) -> int:
        """A descriptor that is closed at the end, not before: closing it would drop the locks."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._fds.append(fd)
        return fd


class _HeldFile:
    def __init__(self, fd: int, *, was_wal: bool) -> None:
        self._fd = fd
        self._at = 0
        self._was_wal = was_wal

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._fd, size, self._at)
        if self._at == 0 and self._was_wal and len(data) >= HEADER:
            data = data[:18] + b"\x02\x02" + data[20:]
        self._at += len(data)
        return data


def _is_foreign(path: bytes) -> bool:
    """Whether SQLite says that a file is no database of its own. A reading connection leaves its neighbours alone."""
    connection = _connect(path, "ro", 0)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return _is_no_database(error)
    finally:
        connection.close()
    return False


class _Guard:
    def __init__(self, path: bytes, connection: sqlite3.Connection, version: int, inode: int) -> None:
        self.path = path
        self.connection = connection
        self.was_wal = False
        self._version = version
        self._inode = inode

    def try_lock(self) -> bool:
        try:
            if self.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                self.connection.execute("PRAGMA journal_mode=DELETE")
                self.was_wal = True
            self.connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if not _is_busy(error):
                raise self._unsettled("cannot be locked", error) from error
            return False
        return True

    def changed(self) -> bool:
        try:
            version = self.connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            raise self._unsettled("cannot be asked whether it changed", error) from error
        return bool(version != self._version)

    def _unsettled(self, why: str, error: sqlite3.Error) -> UnsettledFile:
        return UnsettledFile(
            f"the database {show(self.path)} {why}: {error}",
            unchanged="nothing moved",
            hint=_next(error, "look whether the file is damaged, or say --live"),
            path=show(self.path),
        )

    def release(self) -> None:
        """Let go; a database that was not replaced after all gets its journal mode back."""
        with suppress(sqlite3.Error, OSError):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            if self.was_wal and os.stat(self.path).st_ino == self._inode:
                self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.close()
