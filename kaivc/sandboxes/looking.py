"""What /proc says of processes that kai did not start itself, read from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from stat import S_ISSOCK
from typing import Final

from kaivc.errors import IsolationFailed
from kaivc.records import dataclass

NAMESPACES: Final = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_KIB: Final = 1024
_GRACE: Final = 0.25
_POLL: Final = 0.005
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_IN_MEMORY: Final = ("/dev/zero", "/memfd:", "/SYSV", "/dev/shm/")  # noqa: S108 - what a mapping may be of
_PRESENT: Final = frozenset(b"RSDTtIPKWx")  # states of a process that has not ended


def failed(guard: str, what: str, hint: str = "") -> IsolationFailed:
    """The error for a guard that could not be proven; for the caller to raise."""
    return IsolationFailed(
        f"the command could not be isolated ({guard}): {what}",
        unchanged="the command has not run",
        hint=hint or "`kai doctor` says what each kind of sandbox needs",
        guard=guard,
    )


def text(path: str) -> str:
    """A file of /proc."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def status(pid: int) -> dict[str, str]:
    """The lines of /proc/PID/status, by their name."""
    pairs = (line.partition(":") for line in text(f"/proc/{pid}/status").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def namespaces(pid: int | str) -> dict[str, str]:
    """The identity of each namespace that a process is in."""
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}


@dataclass(frozen=True)
class Stat:
    """Of /proc/PID/stat: its state, parent, session, terminal, and its own and its waited-for children's seconds."""

    pid: int
    state: str
    parent: int
    session: int
    terminal: int
    seconds: float
    of_children: float

    @property
    def present(self) -> bool:
        """Whether it has not ended."""
        return self.state.encode() in {bytes([it]) for it in _PRESENT}


def stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        line = text(f"/proc/{pid}/stat")
    except OSError:
        return None
    rest = line.rpartition(")")[2].split()
    times = [int(it) / _TICKS for it in rest[11:15]]
    return Stat(pid, rest[0], int(rest[1]), int(rest[3]), int(rest[4]), times[0] + times[1], times[2] + times[3])


def family(pid: int) -> list[Stat]:
    """All that descend from a process, itself left out; those that ended and were not waited for are among them."""
    children: dict[int, list[Stat]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (it := stat(int(name))) is not None:
            children.setdefault(it.parent, []).append(it)
    found: list[Stat] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += [it.pid for it in below]
    return found


def left(reaper: int, members: Callable[[], list[int]]) -> int:
    """How many ``members`` there are although the command has ended; those about to end are given a moment.

    ``reaper`` is whose child each of them becomes when its parent ends. It tells whether there is any: one that is
    never the same process for long may be missed by who looks at all processes in turn.
    """
    end = time.monotonic() + _GRACE
    while (found := members()) or not is_childless(reaper):
        if time.monotonic() >= end:
            return len(found) or 1
        time.sleep(_POLL)
    return 0


def children(pid: int) -> list[int]:
    """The children of a process of one thread, those that have ended and were not waited for included."""
    return [int(it) for it in text(f"/proc/{pid}/task/{pid}/children").split()]


def is_childless(pid: int) -> bool:
    """Whether a process has no child, or cannot tell: there is none such, or the kernel does not say."""
    try:
        return not children(pid)
    except OSError:
        return True


def memory(pids: Iterable[int], enough: int) -> int:
    """The bytes of memory and swap that processes hold together.

    What they share is counted once where that matters: while the plain sum is at most ``enough`` it is the answer.
    """
    pids = list(pids)
    plain = sum(_fields(f"/proc/{pid}/status", ("RssAnon", "RssShmem", "VmSwap")) for pid in pids)
    if plain <= enough:
        return plain
    exact = 0
    for pid in pids:
        exact += _fields(f"/proc/{pid}/smaps_rollup", ("Pss_Anon", "Pss_Shmem", "SwapPss")) or _fields(
            f"/proc/{pid}/status", ("RssAnon", "RssShmem", "VmSwap")
        )
    return exact


def _fields(path: str, names: tuple[str, ...]) -> int:
    try:
        lines = text(path).splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * _KIB for line in lines if line.partition(":")[0] in names)


@dataclass(frozen=True)
class Unnamed:
    """Files that have no name any more: the bytes on disk of those that processes hold open.

    ``hidden``: they may hold others, which nobody can measure; only mapped, on their way through a socket, or closed to
    our look.
    """

    size: int
    hidden: bool


def unnamed(pids: Iterable[int]) -> Unnamed:
    """What processes hold on disk that has no name."""
    seen: dict[tuple[int, int], int] = {}
    hidden = False
    for pid in pids:
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(FileNotFoundError):
                    it = os.stat(f"/proc/{pid}/fd/{name}")
                    if it.st_nlink == 0:
                        seen[it.st_dev, it.st_ino] = it.st_blocks * 512
                    if S_ISSOCK(it.st_mode):
                        hidden = hidden or _is_carrying(text(f"/proc/{pid}/fdinfo/{name}"))
            hidden = hidden or any(map(_is_of_no_name, text(f"/proc/{pid}/maps").splitlines()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        except OSError:
            hidden = hidden or not _is_over(pid)
    return Unnamed(sum(seen.values()), hidden)


def _is_over(pid: int) -> bool:
    """Whether a process has ended, so that it holds nothing; nobody but root may look at what is left of it."""
    try:
        return status(pid)["State"].startswith(("Z", "X"))
    except (OSError, KeyError):
        return True


def _is_carrying(fdinfo: str) -> bool:
    return any(line.startswith("scm_fds:") and line.split()[1] != "0" for line in fdinfo.splitlines())


def _is_of_no_name(mapping: str) -> bool:
    path = mapping.split(maxsplit=5)[5:]
    return bool(path) and path[0].endswith(" (deleted)") and not path[0].startswith(_IN_MEMORY)


def prove(pid: int, checks: Iterable[tuple[str, Callable[[int], str]]]) -> None:
    """Take each check of a blocked process: what it says is why the guard is in doubt, and nothing is well.

    Raises IsolationFailed for the first doubt, and for what cannot be read.
    """
    for guard, check in checks:
        try:
            doubt = check(pid)
        except (OSError, ValueError, IndexError, KeyError) as error:
            doubt = f"it cannot be proven: {error}"
        if doubt:
            raise failed(guard, doubt)


# ---------------------------------------------------------------- checks that every kind shares


def no_capabilities(pid: int) -> str:
    """No set holds a capability, the bounding one included."""
    it = status(pid)
    held = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(it[name], 16)]
    return f"capabilities are left in {', '.join(held)}" if held else ""


def no_new_privileges(pid: int) -> str:
    """No program brings privileges."""
    return "" if status(pid)["NoNewPrivs"] == "1" else "no_new_privs is not set"


def filtered(pid: int) -> str:
    """A filter of system calls is loaded."""
    return "" if status(pid)["Seccomp"] == "2" else "no seccomp filter is loaded"


def has_ids(uid: int, gid: int) -> Callable[[int], str]:
    """All four uids and gids are these."""

    def check(pid: int) -> str:
        it = status(pid)
        for name, wanted in (("Uid", uid), ("Gid", gid)):
            if {int(word) for word in it[name].split()} != {wanted}:
                return f"{name} is {it[name]!r}, not {wanted}"
        return "it runs as root of this machine" if uid == 0 else ""

    return check


def no_terminal(pid: int) -> str:
    """A session of its own, without a terminal."""
    it = stat(pid)
    if it is None:
        return "it is gone"
    own = stat(os.getpid())
    if own is not None and it.session == own.session:
        return "it shares kai's session"
    return "it has a terminal" if it.terminal else ""


def holds_only(output: int) -> Callable[[int], str]:
    """Descriptors: 0 is a pipe of ours or empty, 1 and 2 are the relay whose writing end has the inode ``output``."""

    def check(pid: int) -> str:
        held = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        if held != {0, 1, 2}:
            return f"descriptors are open: {sorted(held)}"
        for fd in (1, 2):
            if os.stat(f"/proc/{pid}/fd/{fd}").st_ino != output:
                return f"descriptor {fd} is not the relay"
        return ""

    return check


def has_limits(wanted: dict[str, int]) -> Callable[[int], str]:
    """Resource limits, by their name in /proc/PID/limits; each is at most so much, soft and hard."""

    def check(pid: int) -> str:
        lines = text(f"/proc/{pid}/limits").splitlines()[1:]
        found = {line[:26].strip(): line[26:].split()[:2] for line in lines}
        for name, most in wanted.items():
            if any(word == "unlimited" or int(word) > most for word in found[name]):
                return f"{name} is {' and '.join(found[name])}, not {most}"
        return ""

    return check
