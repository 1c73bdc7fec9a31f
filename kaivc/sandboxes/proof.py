"""The look from outside: what the kernel says of the blocked payload and of init, held to what was wanted.

Each guard is one entry of `GUARDS`, and answers with what is wrong; an answer that cannot be had is wrong too. The
session keyring and Landlock's rules cannot be seen from outside; of the latter the payload reports.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from kaivc.sandboxes import kernel
from kaivc.sandboxes.rootplan import HostMount, Wanted, parse

NAMESPACES: Final = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_FLAGS: Final = {kernel.RDONLY: "ro", kernel.NOSUID: "nosuid", kernel.NODEV: "nodev", kernel.NOEXEC: "noexec"}
_CLOEXEC: Final = 0o2000000
_FILTERED: Final = "2"
LIMITS: Final = {
    1: "Max file size",
    4: "Max core file size",
    6: "Max processes",
    7: "Max open files",
    9: "Max address space",
}


class Claim(NamedTuple):
    """What must be so. Ids are the host's; ``maps`` are lines of (inside, outside, count)."""

    init_id: int
    ids: tuple[int, int]
    maps: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]
    groups: frozenset[int]
    mounts: list[Wanted]
    limits: Mapping[int, int]
    line: int
    """The inode of the payload's end of the line to kai."""
    output: int
    """The inode of the pipe that takes the output."""
    landlock: int
    holds: Callable[[str], bool]
    """Whether a /proc/PID/cgroup is of the control group."""


class Seen:
    """A process as /proc shows it; each part is read when it is asked for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.at = f"/proc/{pid}"

    def text(self, name: str) -> str:
        """One of its files."""
        with open(f"{self.at}/{name}", "rb") as file:
            return file.read().decode(errors="surrogateescape")

    def status(self) -> dict[str, str]:
        """Its status, by field."""
        pairs = (line.partition(":") for line in self.text("status").splitlines())
        return {name: value.strip() for name, _, value in pairs}

    def link(self, name: str) -> str:
        """Where one of its links points."""
        return os.readlink(f"{self.at}/{name}")


class Blocked(NamedTuple):
    """Both processes, and what the payload reported of Landlock."""

    payload: Seen
    init: Seen
    landlock: int


def _apart(name: str) -> Callable[[Claim, Blocked], str]:
    def look(_: Claim, it: Blocked) -> str:
        own, theirs = os.readlink(f"/proc/self/ns/{name}"), it.payload.link(f"ns/{name}")
        return "it is kai's own" if own == theirs else ""

    return look


def _pid(_: Claim, it: Blocked) -> str:
    if os.readlink("/proc/self/ns/pid") == it.payload.link("ns/pid"):
        return "it is kai's own"
    inside = it.init.status()["NSpid"].split()
    return "" if inside[-1] == "1" and len(inside) > 1 else "its first process is not init"


def _maps(claim: Claim, it: Blocked) -> str:
    for seen in it.payload, it.init:
        for name, wanted in zip(("uid_map", "gid_map"), claim.maps, strict=True):
            rows = [tuple(int(word) for word in line.split()) for line in seen.text(name).splitlines()]
            if rows != wanted:
                return f"{name} is {rows}"
    return ""


def _uid(claim: Claim, it: Blocked) -> str:
    status = it.payload.status()
    for name, wanted in zip(("Uid", "Gid"), claim.ids, strict=True):
        if status[name].split() != [str(wanted)] * 4:
            return f"{name} is {status[name]}"
    return ""


def _groups(claim: Claim, it: Blocked) -> str:
    extra = {int(word) for word in it.payload.status()["Groups"].split()} - claim.groups
    return f"it is in the groups {sorted(extra)}" if extra else ""


def _capabilities(_: Claim, it: Blocked) -> str:
    for seen in it.payload, it.init:
        status = seen.status()
        held = [name for name in _SETS if int(status[name], 16)]
        if held:
            return f"process {seen.status()['NSpid'].split()[-1]} holds some: {', '.join(held)}"
    return ""


def _no_new_privs(_: Claim, it: Blocked) -> str:
    off = [seen for seen in (it.payload, it.init) if seen.status()["NoNewPrivs"] != "1"]
    return "it is off" if off else ""


def _seccomp(_: Claim, it: Blocked) -> str:
    mode = it.payload.status()["Seccomp"]
    return "" if mode == _FILTERED else f"its mode is {mode}"


def _landlock(claim: Claim, it: Blocked) -> str:
    return "" if it.landlock == claim.landlock else f"the kernel has version {claim.landlock}, held is {it.landlock}"


def _init(claim: Claim, it: Blocked) -> str:
    # The kernel gives to root what /proc holds of a process that cannot be traced.
    owner = os.stat(f"{it.init.at}/environ").st_uid
    if owner == claim.init_id:
        return "its memory can be read from inside"
    return "its arguments name paths of the host" if it.init.text("cmdline").strip("\0") else ""


def _root(_: Claim, it: Blocked) -> str:
    here, there = os.stat("/"), os.stat(f"{it.payload.at}/root/")
    if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
        return "it is the host's"
    return ""


def _mounts(claim: Claim, it: Blocked) -> str:
    found = parse(it.payload.text("mountinfo"))
    if found != parse(it.init.text("mountinfo")):
        return "init's are others"
    for mount in found:
        if mount.shared:
            return f"{mount.point} is shared with the host"
    left = list(found)
    for wanted in claim.mounts:
        match = next((mount for mount in left if mount.point == wanted.point and not _differs(mount, wanted)), None)
        if match is None:
            near = next((_differs(mount, wanted) for mount in left if mount.point == wanted.point), "is missing")
            return f"{wanted.point} {near}"
        left.remove(match)
    return f"{left[0].point} is there too" if left else ""


def _differs(mount: HostMount, wanted: Wanted) -> str:
    if mount.kind != wanted.kind:
        return f"is a {mount.kind}"
    lacks = [name for flag, name in _FLAGS.items() if flag & wanted.flags and name not in mount.options]
    if lacks:
        return f"is not {', '.join(lacks)}"
    if wanted.origin is not None and wanted.origin != (mount.device, mount.root):
        return f"comes from {mount.root}"
    return ""


def _descriptors(claim: Claim, it: Blocked) -> str:
    found = {int(name): it.payload.link(f"fd/{name}") for name in os.listdir(f"{it.payload.at}/fd")}
    pipe = f"pipe:[{claim.output}]"
    if found != {0: "/dev/null", 1: pipe, 2: pipe, 3: f"socket:[{claim.line}]"}:
        return f"they are {found}"
    flags = next(line for line in it.payload.text("fdinfo/3").splitlines() if line.startswith("flags:"))
    return "" if int(flags.split()[1], 8) & _CLOEXEC else "the line to kai would stay open"


def _limits(claim: Claim, it: Blocked) -> str:
    lines = it.payload.text("limits").splitlines()
    for number, value in claim.limits.items():
        name = LIMITS.get(number)
        line = next((line for line in lines if name and line.startswith(name)), None)
        if name and (line is None or line[len(name) :].split()[:2] != [str(value)] * 2):
            return f"{line or name + ' is missing'}"
    return ""


def _session(_: Claim, it: Blocked) -> str:
    fields = it.payload.text("stat").rpartition(")")[2].split()
    group, session, terminal = fields[2:5]
    return "" if (group, session, terminal) == (str(it.payload.pid),) * 2 + ("0",) else "it is kai's"


def _cgroup(claim: Claim, it: Blocked) -> str:
    return "" if claim.holds(it.payload.text("cgroup")) else "it is not in its control group"


def _alone(_: Claim, it: Blocked) -> str:
    devices = [line.partition(":")[0].strip() for line in it.payload.text("net/dev").splitlines()[2:]]
    if os.readlink("/proc/self/ns/net") == it.payload.link("ns/net"):
        return "it is kai's own"
    # Tunnels that the kernel makes in each namespace are down, and lead nowhere.
    return "" if "lo" in devices else "there is no loopback"


GUARDS: dict[str, Callable[[Claim, Blocked], str]] = {
    "user": _apart("user"),
    "mnt": _apart("mnt"),
    "pid": _pid,
    "net": _alone,
    "ipc": _apart("ipc"),
    "uts": _apart("uts"),
    "cgroup": _apart("cgroup"),
    "ids": _maps,
    "uid": _uid,
    "groups": _groups,
    "capabilities": _capabilities,
    "no_new_privs": _no_new_privs,
    "seccomp": _seccomp,
    "landlock": _landlock,
    "init": _init,
    "root": _root,
    "mounts": _mounts,
    "descriptors": _descriptors,
    "limits": _limits,
    "session": _session,
    "control group": _cgroup,
}


def look(claim: Claim, it: Blocked) -> tuple[str, str] | None:
    """The first guard that cannot be proven, and what is wrong with it; None when all hold."""
    for name, guard in GUARDS.items():
        wrong = "it could not be looked at"
        with suppress(OSError, ValueError, KeyError, IndexError, StopIteration):
            wrong = guard(claim, it)
        if wrong:
            return name, wrong
    return None
