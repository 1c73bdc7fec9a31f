"""A control group for one command: holds its memory and its processes together, where this user may make one.

Version 1 keeps a tree for each controller, version 2 one for all. Groups are named after the process of kai that made
them, so that the next one can tell which are left over, and remove them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Final, NamedTuple, Self

from kaivc.sandboxes import kernel
from kaivc.sandboxes.rootplan import HostMount, below, parse

PREFIX: Final = "kai-sandbox-"
_numbers = count()


class Place(NamedTuple):
    """A directory of a hierarchy below which groups can be tried; ``version`` 1 or 2."""

    version: int
    controller: str
    parent: str


def places(mounts: list[HostMount], own: str) -> Iterator[Place]:
    """Where groups might be made, best first; ``own`` is the text of /proc/self/cgroup."""
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        wanted = {"memory", "pids"} & set(controllers.split(","))
        for mount in mounts:
            if mount.kind == "cgroup" and wanted:
                # A hierarchy is told from the others by the name that it is mounted under, as everywhere.
                for controller in wanted & set(os.path.basename(mount.point).split(",")):
                    yield Place(1, controller, _at(mount, path))
            elif mount.kind == "cgroup2" and not controllers:
                at = _at(mount, path)
                # A group with processes cannot hand on its controllers: beside it comes before below it.
                while at != mount.point and below(at, mount.point):
                    at = os.path.dirname(at)
                    yield Place(2, "", at)
                yield Place(2, "", _at(mount, path))


def _at(mount: HostMount, path: str) -> str:
    inside = path[len(mount.root.rstrip("/")) :] if below(path, mount.root) else path
    return (mount.point.rstrip("/") + "/" + inside.strip("/")).rstrip("/")


class Group:
    """The control groups of one command; ``controllers`` says which hold, and may be empty."""

    def __init__(self) -> None:
        self._dirs: dict[str, tuple[int, str]] = {}
        self.name = ""

    @property
    def controllers(self) -> frozenset[str]:
        """``memory`` and ``pids``, as far as they are held."""
        return frozenset(self._dirs)

    @classmethod
    def make(cls, memory: int, processes: int) -> Self:
        """Make what can be made, with its limits; nothing at all is no error."""
        group = cls()
        group.name = f"{PREFIX}{os.getpid()}-{_started(os.getpid())}-{next(_numbers)}"
        for place in _here():
            needed = {place.controller} if place.version == 1 else {"memory", "pids"}
            if not needed - group.controllers:
                continue
            with suppress(OSError):
                group._try(place, needed, memory, processes)
        return group

    def _try(self, place: Place, needed: set[str], memory: int, processes: int) -> None:
        if place.version == 2:  # noqa: PLR2004 - of control groups
            handed_on = _read(f"{place.parent}/cgroup.subtree_control").split()
            if not needed <= set(handed_on):
                return
        path = f"{place.parent}/{self.name}"
        kernel.make_dir(path)
        try:
            for file, value, must in _limits(place.version, needed, memory, processes):
                if must or os.path.exists(f"{path}/{file}"):
                    kernel.put(f"{path}/{file}", b"%d" % value)
        except OSError:
            kernel.remove_dir(path)
            raise
        self._dirs |= dict.fromkeys(needed, (place.version, path))

    def take(self, pid: int) -> None:
        """Move a process into it. Raises OSError."""
        for _, path in set(self._dirs.values()):
            kernel.put(f"{path}/cgroup.procs", b"%d" % pid)

    def holds(self, text: str) -> bool:
        """Whether a process is in all of it, by what its /proc/PID/cgroup says."""
        found: dict[str, set[str]] = {}
        for line in text.splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(",") if controllers else ("memory", "pids"):
                found.setdefault(controller, set()).add(path.rpartition("/")[2])
        return all(self.name in found.get(controller, ()) for controller in self._dirs)

    def out_of_memory(self) -> bool:
        """Whether the kernel killed any of it for its memory."""
        version, path = self._dirs.get("memory", (0, ""))
        if not version:
            return False
        with suppress(OSError):
            for line in _read(f"{path}/{'memory.oom_control' if version == 1 else 'memory.events'}").splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill" and int(value) > 0:
                    return True
        return False

    def peak(self) -> int | None:
        """The most memory that it held at once, in bytes."""
        version, path = self._dirs.get("memory", (0, ""))
        with suppress(OSError, ValueError):
            if version:
                return int(_read(f"{path}/{'memory.max_usage_in_bytes' if version == 1 else 'memory.peak'}"))
        return None

    def remove(self) -> None:
        """Remove it; no process is in it any more. What will not go is left to the next kai."""
        for _, path in set(self._dirs.values()):
            _remove(path)
        self._dirs.clear()


def collect() -> None:
    """Remove the groups that a killed kai left, in the group that we are in, above it, or in one beside those."""
    seen: set[str] = set()
    for place in _here():
        at = place.parent
        while at not in seen and os.path.exists(f"{at}/cgroup.procs"):
            seen.add(at)
            for path in _children(at):
                for left in (path, *_children(path)) if not _is_ours(path) else (path,):
                    if _is_ours(left) and _is_left(os.path.basename(left)):
                        _remove(left)
            at = os.path.dirname(at)


def _children(parent: str) -> list[str]:
    try:
        with os.scandir(parent) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _is_ours(path: str) -> bool:
    return os.path.basename(path).startswith(PREFIX)


def _here() -> list[Place]:
    try:
        return list(places(parse(_read("/proc/self/mountinfo")), _read("/proc/self/cgroup")))
    except (OSError, ValueError, IndexError):
        return []


def _limits(version: int, needed: set[str], memory: int, processes: int) -> Iterator[tuple[str, int, bool]]:
    """Files, what to write, and whether the file must be there."""
    if "memory" in needed and version == 1:
        yield "memory.limit_in_bytes", memory, True
        yield "memory.memsw.limit_in_bytes", memory, False
    elif "memory" in needed:
        yield "memory.max", memory, True
        yield "memory.swap.max", 0, False
        yield "memory.oom.group", 1, False
    if "pids" in needed:
        yield "pids.max", processes, True


def _is_left(name: str) -> bool:
    pid, _, rest = name.removeprefix(PREFIX).partition("-")
    return not pid.isdigit() or _started(int(pid)) != rest.partition("-")[0]


def _started(pid: int) -> str:
    """When a process started, in ticks since the machine did; empty where there is none."""
    try:
        return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _remove(path: str) -> None:
    with suppress(OSError):
        kernel.remove_dir(path)


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode(errors="surrogateescape")
