"""Under which uid a command runs, so that it is nobody who owns anything on this machine."""

from __future__ import annotations

import os
from typing import Final

from kaivc.errors import IsolationFailed
from kaivc.sandboxes import looking

# Ranges that systemd's table of uids leaves unassigned: the second fits the 65,536 ids that a container is given.
_UNASSIGNED: Final = ((0x70000000, 0x7FFFFFFF), (60578, 60705))


def unused() -> int:
    """A uid, and the gid of the same number, that is no user's and that no process has; for root to run one command.

    Each command has one of its own: the limit of processes, and the right to send signals, go by it. IsolationFailed
    where the user namespace that we are in has none to give.
    """
    mapped = [tuple(map(int, line.split())) for line in looking.text("/proc/self/uid_map").splitlines()]
    taken = {status.st_uid for status in map(_status, os.listdir("/proc")) if status}
    for first, last in _UNASSIGNED:
        if any(inside <= first and last < inside + count for inside, _, count in mapped):
            drawn = int.from_bytes(os.urandom(8), "little")
            span = last - first + 1
            found = next((it for step in range(span) if (it := first + (drawn + step) % span) not in taken), None)
            if found is not None:
                return found
    raise IsolationFailed(
        "there is no uid for the command to run under: the ids that this container may use are too few",
        unchanged="the command has not run",
        hint="give the container 65536 ids, or run kai as an ordinary user",
        guard="uid",
    )


def _status(name: str) -> os.stat_result | None:
    try:
        return os.stat(f"/proc/{name}") if name.isdigit() else None
    except OSError:
        return None
