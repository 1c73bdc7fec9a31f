"""The watch over a running command: its output, the clock, and what it holds of memory and disk."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Final

from kaivc.records import dataclass
from kaivc.sandboxes import copies, looking
from kaivc.sandboxes.base import End, Limits
from kaivc.sandboxes.relay import Relay

_MEMORY_EVERY: Final = 0.05
_FILES_EVERY: Final = 0.1
_SHARE: Final = 20  # looking takes at most a twentieth of the time
_LOOKS: Final = 20
_MOMENT: Final = 0.005
_CLOSED: Final = 5  # looks at which a directory was closed to us: many are so for a moment


@dataclass(frozen=True)
class Seen:
    """How the watch ended, and the most memory that was seen."""

    by: End
    peak_memory: int


class Watch:
    """The watch over one command.

    ``members`` gives the pids of all its processes, ``roots`` hold all that it may write, and ``stamps`` tells what was
    there before. ``killed`` tells whether a control group, which then holds the memory, had to kill for it.
    """

    def __init__(
        self,
        limits: Limits,
        members: Callable[[], list[int]],
        roots: tuple[str, ...],
        stamps: dict[int, int],
        killed: Callable[[], bool] | None = None,
    ) -> None:
        self._limits = limits
        self._members = members
        self._roots = roots
        self._stamps = stamps
        self._killed = killed
        # What the file system would have left without the command: bytes and inodes.
        self._room, self._slots = _left(roots[0])
        self._closed = 0
        self.peak = 0

    def until(self, ended: int, relay: Relay) -> Seen:
        """Watch until ``ended`` is ready for reading, or a limit is passed, or kai is interrupted.

        What it wrote last is for `afterwards` to see, when all that it left running is killed.
        """
        try:
            return Seen(self._until(ended, relay), self.peak)
        except KeyboardInterrupt:
            return Seen(End.INTERRUPT, self.peak)

    def _until(self, ended: int, relay: Relay) -> End:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(relay, select.POLLIN)
        now = time.monotonic()
        end = now + self._limits.seconds
        next_memory = now
        next_files = now + _FILES_EVERY
        while True:
            wait = max(0.0, min(end, next_memory, next_files) - time.monotonic())
            ready = {fd for fd, _ in poll.poll(wait * 1000 + 1)}
            if relay.fileno() in ready and relay.pump():
                return End.OUTPUT
            if relay.ended and relay.fileno() in ready:
                poll.unregister(relay)
            if ended in ready:
                return End.OUTPUT if relay.drain() else End.ITSELF
            now, began = time.monotonic(), time.thread_time()
            if now >= end:
                return End.TIME
            if now >= next_memory:
                if self._too_much_memory():
                    return End.MEMORY
                next_memory = _next(began, _MEMORY_EVERY)
            if now >= next_files:
                if by := self.files():
                    return by
                next_files = _next(began, _FILES_EVERY)

    def _too_much_memory(self) -> bool:
        if self._killed is not None:
            return self._killed()
        held = looking.memory(self._members(), self._limits.memory)
        self.peak = max(self.peak, held)
        return held > self._limits.memory

    def files(self) -> End | None:
        """Look at what is written: the limit that it passes."""
        taken = copies.taken(self._roots, self._stamps)
        self._closed = self._closed + 1 if taken.hidden else 0
        return self._files(taken, decides=self._closed > _CLOSED)

    def afterwards(self) -> End | None:
        """As `files`, when nothing of the command runs any more that could close what it holds."""
        return self._files(copies.taken(self._roots, self._stamps, opening=True), decides=True)

    def _files(self, taken: copies.Taken, *, decides: bool) -> End | None:
        size, inodes = taken.size, taken.inodes
        # What has no name, or lies where we cannot look, shows only in what the file system has left. Others use that
        # too, so it is a reason to look closer. Where all is seen, whatever else is gone is theirs; where it is not,
        # what went since all was seen decides.
        room, slots = _left(self._roots[0])
        self._room = max(self._room, room + size)
        self._slots = max(self._slots, slots + inodes)
        if self._room - room > self._limits.written:
            unnamed = self._unnamed()
            size += unnamed.size
            if unnamed.hidden or (taken.hidden and decides):
                size = max(size, self._room - room)
            elif not taken.hidden:
                self._room = room + size
        if taken.hidden and decides:
            inodes = max(inodes, self._slots - slots)
        elif not taken.hidden:
            self._slots = slots + inodes
        if size > self._limits.written:
            return End.WRITTEN
        return End.INODES if inodes > self._limits.inodes else None

    def _unnamed(self) -> looking.Unnamed:
        """What has no name. Hidden is only what stays so: to hand on a file, or to begin a program, takes a moment."""
        for look in range(_LOOKS):
            if look:
                time.sleep(_MOMENT)
            found = looking.unnamed(self._members(), self._roots[0])
            if not found.hidden or found.size > self._limits.written:
                break
        return found


def _left(path: str) -> tuple[int, int]:
    it = os.statvfs(path)
    return it.f_bfree * it.f_frsize, it.f_ffree


def _next(began: float, least: float) -> float:
    """When to look again, by what the look took of the processor: a machine that is busy is not looked at less."""
    return time.monotonic() + max(least, (time.thread_time() - began) * _SHARE)
