"""Read a SQLite database that this process may not write, and leave nothing beside it.

A database in WAL mode is read through its log and the log's index, which SQLite makes where they are absent. Where it
cannot, there are three ways, each of which answers from the newest committed state or not at all: both are there
already, and SQLite uses them without writing; there is no log, so that the main file holds everything; there is a log
and no index, so that a private copy of both is read. The last two hold no lock: what was read counts only if the
files were the same afterwards.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kaivc.vfs import Vfs

LOGS = ("-wal", "-journal")
TRIES = 5
MAX_COPY = 2 << 30
"""Bytes of a database and its log that are copied to be read."""
PIECE = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PROBE = "SELECT count(*) FROM sqlite_master"

Signature = tuple[tuple[int, ...] | None, ...]


class NotReadable(Exception):
    """A log is there that can be neither used nor copied, or the files changed each time."""


class View(NamedTuple):
    """A connection that only reads; ``signature`` is that of the files if no lock keeps them as they are."""

    connection: sqlite3.Connection
    signature: Signature | None

    def is_current(self, path: str) -> bool:
        """Whether what was read through it is what stands in the files."""
        return self.signature is None or self.signature == signature(path)


def obstacle(path: str) -> str:
    """Why this process cannot write a database, in words that follow a colon; empty if it can."""
    for each in (os.path.dirname(path), path, *(path + it for it in ("-wal", "-shm"))):
        if _is_closed(each):
            if _is_mounted_read_only(each):
                return f"{each} lies on a read-only file system"
            return f"uid {os.geteuid()} may not write {each}"
    return ""


def _is_closed(path: str) -> bool:
    """Whether a file is there, and this process may not write it.

    Others make and remove the files beside a database at any moment: to be not there and then there is no answer.
    """
    return all(
        not os.access(path, os.W_OK, effective_ids=True) and os.path.exists(path)  # in this order
        for _ in range(TRIES)
    )


def _is_mounted_read_only(path: str) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def signature(path: str) -> Signature:
    """What tells that a database or its log changed."""
    return tuple(map(_signature, (path, *(path + it for it in LOGS))))


def _signature(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def connect(path: str, wait: float, scratch: str, *, still: bool = False) -> View:
    """A view of a database that is not to be written; private copies go below ``scratch``, and at once.

    With ``still``, what no lock keeps as it is is copied in any case: for readers that do not ask again. Raises
    sqlite3.Error for what is no database or is busy for longer than ``wait`` seconds, NotReadable otherwise.
    """
    for _ in range(TRIES):
        connection = _with_locks(path, wait)
        if connection is not None:
            return View(connection, None)
        before = signature(path)
        logged = any(found is not None and found[2] for found in before[1:])
        copied = logged or still
        connection = _copied(path, scratch) if copied else _open(path, "mode=ro&immutable=1", wait)
        if connection is not None and signature(path) == before:
            return View(connection, before)
        if connection is not None:
            connection.close()
    raise NotReadable("it changed each time it was read")


def _with_locks(path: str, wait: float) -> sqlite3.Connection | None:
    """A connection that shares SQLite's locks, where that makes no file."""
    has_both = all(os.path.exists(path + it) for it in ("-wal", "-shm"))
    if not has_both and os.access(os.path.dirname(path) or ".", os.W_OK, effective_ids=True):
        return None
    return _open(path, "mode=ro&readonly_shm=1", wait)


def _open(path: str, how: str, wait: float) -> sqlite3.Connection | None:
    """A connection that has read; None if the way is not open."""
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = None
    try:
        connection = sqlite3.connect(f"file:{quoted}?{how}", uri=True, isolation_level=None, timeout=wait)
        connection.execute(_PROBE).fetchone()
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        if "immutable" not in how and (getattr(error, "sqlite_errorname", "") or "").startswith(
            ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR")
        ):
            return None
        raise
    return connection


def _copied(path: str, scratch: str) -> sqlite3.Connection | None:
    """A connection to a private copy of a database and its log, whose names are gone before this returns.

    None if one of them went away. Nothing is left, however the process ends.
    """
    from kaivc.errors import KaiError  # noqa: PLC0415 - of several that a shell's completion does not pay for
    from kaivc.vfs import Vfs  # noqa: PLC0415 - as above

    parts = [path, *(path + it for it in LOGS if os.path.exists(path + it))]
    try:
        if sum(os.stat(part).st_size for part in parts) > MAX_COPY:
            raise NotReadable(f"it and its log have more than {MAX_COPY} bytes")
        vfs = Vfs()
        directory = vfs.temporary_dir(scratch)
        try:
            copy = os.path.join(directory, "copy")
            for part in parts:
                _copy(vfs, part, copy + part.removeprefix(path))
            return _open(copy, "mode=rw", 0)
        finally:
            vfs.remove_tree(directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotReadable(f"{error.filename} cannot be read: {error.strerror}") from error
    except KaiError as error:
        raise NotReadable(f"it could not be copied: {error.what}") from error


def _copy(vfs: Vfs, path: str, to: str) -> None:
    source = os.open(path, _READ)
    try:
        target = vfs.create(to)
        try:
            while piece := os.read(source, PIECE):
                vfs.write(target, piece)
        finally:
            vfs.close(target)
    finally:
        os.close(source)
