"""Errors of the system below ``vfs.py``, and of SQLite: any call may fail, once or from then on.

``vfs.py`` sees a stand-in for ``os`` and ``fcntl``; so what is tested is its own understanding of errors.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kaivc import vfs

ERRNOS = {name: getattr(errno, name) for name in ("EIO", "ENOSPC", "EDQUOT", "EMFILE", "EROFS")}
SHORT = ("half", "half, then ENOSPC", "nothing")
OF_SQLITE = {
    "SQLITE_FULL": "database or disk is full",
    "SQLITE_IOERR_WRITE": "disk I/O error",
    "SQLITE_IOERR_FSYNC": "disk I/O error",
    "SQLITE_CANTOPEN": "unable to open database file",
    "SQLITE_READONLY": "attempt to write a readonly database",
}
LANDED = "SQLITE_IOERR_FSYNC, landed"

_ROOM = {"write", "mkdir", "symlink", "link", "ftruncate", "create"}
_CHANGING = {*_ROOM, "rename", "unlink", "rmdir", "chmod", "fchmod", "utime"}
_OPENING = {"open", "create", "scandir"}
_LATER: dict[str, set[str] | None] = {
    "EIO": None,
    "ENOSPC": _ROOM,
    "EDQUOT": _ROOM,
    "EROFS": _CHANGING,
    "EMFILE": _OPENING,
}
"""What goes on failing once it has begun; None is everything but closing."""


@dataclass(frozen=True)
class Fault:
    """What happens at call number ``at``; ``lasting`` goes on from then on wherever it makes sense."""

    at: int
    what: str
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.what} at {self.at}{' and from then on' * self.lasting}"


@dataclass
class Below:
    """Counts calls, and lets those fail that a fault names; ``fault`` of None only counts."""

    fault: Fault | None = None
    calls: list[str] = field(default_factory=list)
    hit: str = ""

    def step(self, name: str) -> str:
        """Note a call; what is to go wrong with it, empty for nothing."""
        self.calls.append(name)
        fault = self.fault
        if fault is None or len(self.calls) < fault.at:
            return ""
        if len(self.calls) == fault.at:
            if fault.what not in SHORT or name == "write":  # a database may make the calls others than were counted
                self.hit = name
            return fault.what if self.hit else ""
        if fault.lasting and self.hit:
            return fault.what if _goes_on(fault.what, name) else ""
        return "ENOSPC" if fault.what == SHORT[1] and name == "write" and self._next_write() else ""

    def _next_write(self) -> bool:
        assert self.fault is not None
        return "write" not in self.calls[self.fault.at : -1]


def _goes_on(what: str, name: str) -> bool:
    if what in SHORT:
        return name == "write"
    wanted = _LATER.get(what)
    return name != "close" if wanted is None else name in wanted


class _Os:
    """Stands in for ``os``."""

    def __init__(self, below: Below) -> None:
        self._below = below

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in _COUNTED:
            return real

        def call(*args: Any, **words: Any) -> Any:
            shown = "create" if name == "open" and args[1] & os.O_CREAT else name
            what = self._below.step(shown)
            if name == "close":
                real(*args, **words)  # closed it is, whatever the system says
            if what in SHORT:
                fd, data = args
                return real(fd, memoryview(data)[: 0 if what == SHORT[2] else max(len(data) // 2, 1)])
            if what:
                raise OSError(ERRNOS[what], os.strerror(ERRNOS[what]))
            return None if name == "close" else real(*args, **words)

        return call


_COUNTED = {
    *("open", "close", "write", "lseek", "ftruncate", "fsync", "rename", "link", "unlink", "symlink", "mkdir"),
    *("rmdir", "chmod", "fchmod", "utime", "stat", "fstat", "scandir"),
}


class _Other:
    """Stands in for a module of which one function counts."""

    def __init__(self, module: Any, name: str, below: Below) -> None:
        self._module = module
        self._name = name
        self._below = below

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._module, name)
        if name != self._name:
            return real

        def call(*args: Any, **words: Any) -> Any:
            if what := self._below.step(name):
                raise OSError(ERRNOS[what], os.strerror(ERRNOS[what]))
            return real(*args, **words)

        return call


@contextmanager
def system(below: Below) -> Iterator[Below]:
    """Let ``vfs.py`` stand on ``below``."""
    stand_ins = {
        "os": _Os(below),
        "fcntl": _Other(fcntl, "flock", below),
    }
    was = {name: getattr(vfs, name) for name in stand_ins}
    vars(vfs).update(stand_ins)
    try:
        yield below
    finally:
        vars(vfs).update(was)


@contextmanager
def sqlite(below: Below) -> Iterator[Below]:
    """Let every statement of every connection that is made meanwhile be a call of ``below``."""
    real = sqlite3.connect

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            return _statement(below, sql, lambda: super(Connection, self).execute(sql, *args))

        def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
            return _statement(below, sql, lambda: super(Connection, self).executemany(sql, *args))

    def connect(*args: Any, **words: Any) -> sqlite3.Connection:
        return real(*args, **words, factory=Connection)

    sqlite3.connect = connect  # type: ignore[assignment]
    try:
        yield below
    finally:
        sqlite3.connect = real


def _statement(below: Below, sql: str, run: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
    what = below.step((sql.split(maxsplit=1) or [""])[0].upper())
    if not what:
        return run()
    if what == LANDED and sql == "COMMIT":
        run()
    name = what.split(",")[0]
    error = sqlite3.OperationalError(OF_SQLITE[name])
    error.sqlite_errorname = name
    error.sqlite_errorcode = getattr(sqlite3, name, 1)
    raise error
