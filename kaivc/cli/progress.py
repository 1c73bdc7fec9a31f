"""How far long work is: one line on stderr, once it has taken a second, when stderr is a terminal."""

from __future__ import annotations

import time
from typing import TextIO

from kaivc.records import dataclass, field

AFTER = 1.0
EVERY = 0.1


@dataclass
class Line:
    """A ``Progress`` on one line of a terminal; ``clear`` takes it away again."""

    stream: TextIO
    width: int = 79
    _began: float = field(default_factory=time.monotonic)
    _drawn: float = 0.0
    _length: int = 0

    def __call__(self, what: str, done: int, total: int | None, /) -> None:
        """Draw the line anew, at most ten times a second."""
        now = time.monotonic()
        if now - self._began < AFTER or now - self._drawn < EVERY:
            return
        self._drawn = now
        text = f"{what}: {done}" if total is None else f"{what}: {done} of {total} ({100 * done // (total or 1)}%)"
        self._write(text[: self.width])

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._length:
            self._write("")
            self._write("")
            self._length = 0

    def _write(self, text: str) -> None:
        self.stream.write("\r" + text.ljust(self._length))
        self.stream.flush()
        self._length = len(text)
