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
_PROGRAMS: Final = ("/usr/", "/bin/", "/sbin/", "/lib", "/etc/")
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
    """Of /proc/PID/stat; ``seconds`` are of the processor, its own and those of children that were waited for."""

    pid: int
    state: str
    parent: int
    session: int
    terminal: int
    threads: int
    seconds: float
    of_children: float

    @property
    def present(self) -> bool:
        """Whether it has not ended; it can go on without its first thread, whose state this is."""
        return self.threads > 1 or self.state.encode() in {bytes([it]) for it in _PRESENT}


def stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        line = text(f"/proc/{pid}/stat")
    except OSError:
        return None
    rest = line.rpartition(")")[2].split()
    times = [int(it) / _TICKS for it in rest[11:15]]
    own, of_children = times[0] + times[1], times[2] + times[3]
    return Stat(pid, rest[0], int(rest[1]), int(rest[3]), int(rest[4]), int(rest[17]), own, of_children)


def family(pid: int) -> list[Stat]:
    """All that descend from a process, itself left out; those that ended and were not waited for are among them.

    Nobody descends from 0, which stands for none: to the kernel it is the parent of the machine's first.
    """
    children: dict[int, list[Stat]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (it := stat(int(name))) is not None:
            children.setdefault(it.parent, []).append(it)
    found: list[Stat] = []
    waiting = [pid] if pid else []
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
    held = {pid: _plain(pid) for pid in pids}
    if sum(held.values()) <= enough:
        return sum(held.values())
    return sum(
        _fields(f"{_living(pid)}/smaps_rollup", ("Pss_Anon", "Pss_Shmem", "SwapPss")) or held[pid] for pid in held
    )


def _plain(pid: int) -> int:
    names = ("RssAnon", "RssShmem", "VmSwap")
    return _fields(f"/proc/{pid}/status", names) or _fields(f"{_living(pid)}/status", names)


def _living(pid: int) -> str:
    """Where /proc tells of a process; by another thread where the first has ended."""
    first = stat(pid)
    if first is not None and first.threads > 1 and first.state == "Z":
        return next((it for it in _threads(pid) if "VmSize" in _status_of(it)), f"/proc/{pid}")
    return f"/proc/{pid}"


def _threads(pid: int) -> list[str]:
    try:
        return [f"/proc/{pid}/task/{name}" for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


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


def unnamed(pids: Iterable[int], root: str) -> Unnamed:
    """What processes hold that has no name, on the disk where ``root`` lies, below which all is that they may write.

    Not theirs is what lay among the machine's programs: those are replaced while they run.
    """
    foreign = tuple(it for it in _PROGRAMS if not os.path.realpath(root).startswith(it))
    disk = os.stat(root).st_dev
    sizes: dict[tuple[int, int], int] = {}
    hidden = False
    for pid in pids:
        for thread in _threads(pid):  # each may have descriptors of its own
            try:
                hidden = _unnamed_of(thread, foreign, disk, sizes) or hidden
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            except OSError:
                hidden = hidden or not _is_over(thread)
    return Unnamed(sum(sizes.values()), hidden)


def _unnamed_of(thread: str, foreign: tuple[str, ...], disk: int, sizes: dict[tuple[int, int], int]) -> bool:
    """Add what a thread holds to ``sizes``, by device and inode. Whether it may hold what cannot be measured."""
    hidden = False
    in_memory = _in_memory(thread) - {disk}
    for name in os.listdir(f"{thread}/fd"):
        with suppress(FileNotFoundError):
            it = os.stat(f"{thread}/fd/{name}")
            if S_ISSOCK(it.st_mode):
                hidden = hidden or _is_carrying(text(f"{thread}/fdinfo/{name}"))
            passed = it.st_nlink > 0 or it.st_dev in in_memory
            if not passed and not os.readlink(f"{thread}/fd/{name}").startswith((*_IN_MEMORY, *foreign)):
                sizes[it.st_dev, it.st_ino] = it.st_blocks * 512
    for line in text(f"{thread}/maps").splitlines():
        hidden = hidden or _is_of_no_name(line, foreign, in_memory)
    return hidden


def _in_memory(thread: str) -> set[int]:
    """The devices of the file systems that it sees and that hold their files in memory."""
    found = set()
    for line in text(f"{thread}/mountinfo").splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.split()[0] in ("tmpfs", "ramfs"):
            major, minor = mount.split()[2].split(":")
            found.add(os.makedev(int(major), int(minor)))
    return found


def _is_over(thread: str) -> bool:
    """Whether a thread has ended or is about to, so that it holds nothing; only root may look at what is left of it.

    What has no memory any more runs no instruction.
    """
    return "VmSize" not in _status_of(thread)


def _status_of(thread: str) -> str:
    try:
        return text(f"{thread}/status")
    except OSError:
        return ""


def _is_carrying(fdinfo: str) -> bool:
    return any(line.startswith("scm_fds:") and line.split()[1] != "0" for line in fdinfo.splitlines())


def _is_of_no_name(mapping: str, foreign: tuple[str, ...], in_memory: set[int]) -> bool:
    path = mapping.split(maxsplit=5)[5:]
    if not path or not path[0].endswith(" (deleted)") or path[0].startswith((*_IN_MEMORY, *foreign)):
        return False
    major, minor = mapping.split()[3].split(":")
    return os.makedev(int(major, 16), int(minor, 16)) not in in_memory


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
