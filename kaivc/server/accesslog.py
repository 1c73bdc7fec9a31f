"""The access log: one JSON line for each request, and nothing in it that opens a door."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from kaivc.errors import StorageError
from kaivc.records import dataclass, field
from kaivc.vfs import Vfs

MAX_TEXT = 200


@dataclass
class Entry:
    """What is said of a request. ``who`` is a token's id and name, ``code`` the error that it got."""

    client: str
    method: str
    path: str
    who: str | None = None
    verb: str | None = None
    agent: str | None = None
    status: int | None = None
    code: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def line(self) -> bytes:
        """The entry as a line."""
        texts = {name: _cut(getattr(self, name)) for name in ("client", "who", "method", "path", "verb", "agent")}
        told = {
            "time": self.began.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.began.microsecond // 1000:03}Z",
            **texts,
            "status": self.status,
            "code": self.code,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "seconds": round(self.seconds, 3),
        }
        return (json.dumps(told) + "\n").encode()


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."


class AccessLog:
    """A file that lines are added to, or stderr. Use it as a context."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._vfs = Vfs()
        self._fd = self._open()

    def _open(self) -> int:
        return sys.stderr.fileno() if self._path is None else self._vfs.open_append(self._path)

    def reopen(self) -> None:
        """Open the file of that name again: the other one was put aside. The old one stays where that fails."""
        if self._path is None:
            return
        with suppress(StorageError):
            before, self._fd = self._fd, self._open()
            self._vfs.close(before)

    def write(self, entry: Entry) -> None:
        """Add a line. A full disk must not stop the server: then the line is lost."""
        with suppress(StorageError):
            self._vfs.write(self._fd, entry.line())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._path is not None:
            self._vfs.close(self._fd)
