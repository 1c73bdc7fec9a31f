"""How far long work is: one line on stderr, once it has taken a second, when stderr is a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from kaivc.cli.escape import escape
from kaivc.ports import IN_BYTES
from kaivc.records import dataclass, field

AFTER = 1.0
EVERY = 0.1
SETTLED = 0.5
"""So many seconds of work say something of its rate."""


@dataclass(frozen=True)
class _Work:
    """One kind of work: when it was first told of, and how far it was then."""

    what: str
    began: float
    first: int

    def text(self, now: float, done: int, total: int | None) -> str:
        """``receiving: 3.0 MiB of 12.0 MiB (25%), 1.5 MiB/s``; a rate for bytes only."""
        counts: Callable[[int], str] = str
        rate = ""
        if self.what in IN_BYTES:
            from kaivc.cli.render import size

            counts = size
            if now - self.began >= SETTLED:
                rate = f", {size(int((done - self.first) / (now - self.began)))}/s"
        of = "" if total is None else f" of {counts(total)} ({100 * done // (total or 1)}%)"
        return f"{self.what}: {counts(done)}{of}{rate}"


@dataclass
class Line:
    """A ``Progress`` on one line of a terminal; ``clear`` takes it away again."""

    stream: TextIO
    width: int = 79
    _began: float = field(default_factory=time.monotonic)
    _drawn: float = 0.0
    _length: int = 0
    _work: _Work | None = None

    def __call__(self, what: str, done: int, total: int | None, /) -> None:
        """Draw the line anew, at most ten times a second."""
        now = time.monotonic()
        work = self._work
        if work is None or work.what != what or done < work.first:
            work = self._work = _Work(what, now, done)
        if now - self._began < AFTER or now - self._drawn < EVERY:
            return
        self._drawn = now
        self._write(escape(work.text(now, done, total))[: self.width])

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._length:
            self._write("")
            self._write("")
            self._length = 0

    def _write(self, text: str) -> None:
        with suppress(OSError):  # a terminal that hung up is no reason to stop half-way
            self.stream.write("\r" + text.ljust(self._length))
            self.stream.flush()
        self._length = len(text)
