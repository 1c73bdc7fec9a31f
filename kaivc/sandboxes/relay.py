"""A command's output, through a pipe of ours to whoever listens, and no further than its cap.

The command never holds a terminal: it cannot type into one, read from one, or change how one looks. What comes through
is raw; the door that prints it escapes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

_PIECE: Final = 64 * 1024
_TURN: Final = 1024 * 1024


class Relay:
    """One pipe. Give `inlet` to the command as its output, and close it here with `started` once the command has it.

    Poll `fileno` for reading and call `pump` when it is ready; when nothing of the command is left, call `drain`.
    ``cap`` is in bytes.
    """

    def __init__(self, cap: int, say: Callable[[bytes], None]) -> None:
        self._room = cap
        self._say = say
        self._outlet, self._inlet = os.pipe2(os.O_CLOEXEC)
        # Ours alone: the command's end stays blocking, as programs expect.
        os.set_blocking(self._outlet, False)
        self.exceeded = False
        """Whether the command wrote more than ``cap``; what is beyond it was thrown away."""
        self.ended = False
        """Whether every copy of `inlet` is closed, and all that was written has been read."""

    @property
    def inlet(self) -> int:
        """The writing end."""
        return self._inlet

    def fileno(self) -> int:
        """The reading end."""
        return self._outlet

    def started(self) -> None:
        """Close our copy of `inlet`, without which the end is never seen."""
        if self._inlet >= 0:
            os.close(self._inlet)
            self._inlet = -1

    def pump(self) -> bool:
        """Hand on what is there, at most 1 MiB of it, so that a flood leaves its reader time to watch the clock.

        Returns whether the cap is exceeded. Never waits.
        """
        taken = 0
        while taken < _TURN and not self.ended:
            try:
                piece = os.read(self._outlet, _PIECE)
            except BlockingIOError:
                break
            self.ended = not piece
            taken += len(piece)
            self._hand_on(piece)
        return self.exceeded

    def drain(self) -> bool:
        """Hand on all that is there, without waiting for more; what `pump` returns."""
        while not self.ended:
            before = self._room, self.exceeded
            self.pump()
            if (self._room, self.exceeded) == before:
                break
        return self.exceeded

    def _hand_on(self, piece: bytes) -> None:
        kept = piece[: self._room]
        self._room -= len(kept)
        self.exceeded = self.exceeded or len(kept) < len(piece)
        if kept:
            self._say(kept)

    def close(self) -> None:
        """Close both ends; what was not read is lost."""
        self.started()
        if self._outlet >= 0:
            os.close(self._outlet)
            self._outlet = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
