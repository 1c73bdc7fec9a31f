"""What the doors hand in: a clock, a pause, a place to report progress."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Wall clock time."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""


class Sleep(Protocol):
    """A pause."""

    def __call__(self, seconds: float, /) -> None:
        """Return after ``seconds``."""


IN_BYTES = frozenset(["receiving", "sending", "receiving a large file", "bundling"])
"""What of long work counts bytes; all else counts files or objects."""


class Progress(Protocol):
    """Where long work says how far it is."""

    def __call__(self, what: str, done: int, total: int | None, /) -> None:
        """Take notice of ``done`` of ``total`` bytes or files of ``what``."""


def silent(what: str, done: int, total: int | None, /) -> None:
    """A ``Progress`` that reports nothing."""
