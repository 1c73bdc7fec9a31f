"""What bwrap is told, and whether what it made is that: the mounts that its words make are those that must be there."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import Final

from kaivc.records import dataclass, field
from kaivc.sandboxes import kernel, looking, rootplan, seccomp
from kaivc.sandboxes.base import INSIDE, Job
from kaivc.sandboxes.cgroups import Group

_ID: Final = 1000
"""The command's uid and gid as it sees them."""
APART: Final = ("user", "ipc", "pid", "net", "uts", "cgroup")
_LIMIT_NAMES: Final = {
    resource.RLIMIT_NOFILE: "Max open files",
    resource.RLIMIT_NPROC: "Max processes",
    resource.RLIMIT_FSIZE: "Max file size",
    resource.RLIMIT_CORE: "Max core file size",
    resource.RLIMIT_DATA: "Max data size",
}


@dataclass(frozen=True)
class Point:
    """A mount that must be there. ``source`` is what of the host must lie there, if that can be told."""

    writable: bool = False
    device: bool = False
    source: str | None = None


@dataclass
class Plan:
    """bwrap's arguments, the mounts that they make, and the files that it is handed open."""

    words: list[str] = field(default_factory=list)
    points: dict[str, Point] = field(default_factory=dict)
    fds: list[int] = field(default_factory=list)

    def hand(self, job: Job, data: bytes) -> int:
        """The descriptor, which bwrap gets too, of a file with these bytes."""
        path = f"{job.layer}/kai/{len(self.fds)}"
        kernel.make_file(os.fsencode(path), data, 0o600)
        self.fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return self.fds[-1]

    def close(self) -> None:
        """Close the files."""
        while self.fds:
            os.close(self.fds.pop())


# ---------------------------------------------------------------- what it is told


def namespaces() -> list[str]:
    """The words for a process of its own in each respect, without privileges."""
    return [f"--unshare-{it}" for it in APART] + ["--cap-drop", "ALL", "--new-session", "--die-with-parent"]


def plan(job: Job, box: str, reached: str, *, counted: bool) -> Plan:
    """Native's root, as bwrap makes it; ``reached`` is the path under which bwrap finds ``box``."""
    made = Plan(namespaces())
    try:
        _fill(made, job, box, reached, counted=counted)
    except BaseException:
        made.close()
        raise
    return made


def _fill(plan: Plan, job: Job, box: str, reached: str, *, counted: bool) -> None:
    plan.words += ["--uid", str(_ID), "--gid", str(_ID), "--hostname", rootplan.HOST, "--clearenv"]
    mounts = rootplan.parse(looking.text("/proc/self/mountinfo"))
    writable = dict(zip(rootplan.WRITABLE, ("tree", "tmp", "home", "shm"), strict=True))
    for packed in rootplan.plan(mounts, 0, 0, ids=(_ID, _ID)).steps:
        kind, path, *rest = kernel.unpack(packed)
        _step(plan, job, kind, os.fsdecode(path), rest, reached)
    for inside, name in writable.items():
        plan.words += ["--bind", f"{reached}/{name}", inside]
        plan.points[inside] = Point(writable=True, source=f"{box}/{name}")
    # What the command may not do to process 1 it must not do through its files either.
    plan.words += ["--ro-bind", f"{reached}/empty", "/proc/1", "--remount-ro", "/", "--chdir", INSIDE]
    plan.points |= {"/proc/1": Point(), "/": Point()}
    for name, value in rootplan.environment(job.environ).items():
        plan.words += ["--setenv", name, value]
    plan.words += ["--seccomp", str(plan.hand(job, seccomp.program(counted=counted)))]


def _step(plan: Plan, job: Job, kind: bytes, path: str, rest: list[bytes], reached: str) -> None:
    match kind, [os.fsdecode(it) for it in rest]:
        case b"directory", _:
            plan.words += ["--dir", path]
        case b"link", [target]:
            plan.words += ["--symlink", target, path]
        case b"file", [data] if data:
            plan.words += ["--file", str(plan.hand(job, rest[0])), path]
        case b"proc", _:
            plan.words += ["--proc", path]
            plan.points[path] = Point(writable=True)
        case b"bind", [source, _, how]:
            if how == "within":
                if path in rootplan.WRITABLE:
                    return
                source = f"{reached}/empty"
            device = path in rootplan.DEVICES
            plan.words += ["--dev-bind" if device else "--ro-bind", source, path]
            plan.points[path] = Point(writable=device, device=device, source=source if path == "/usr" else None)
        case _:
            pass  # file systems in memory, the overlay, and empty files to bind upon: bwrap makes its own


# ---------------------------------------------------------------- the look from outside


def prove(pid: int, plan: Plan, output: int, uid: int | None, limits: dict[int, int], group: Group) -> None:
    """Every guard, of the shell that waits; IsolationFailed for the first doubt."""
    ids = (os.getuid(), os.getgid()) if uid is None else (uid, uid)
    groups = set(os.getgroups()) if uid is None else {uid}
    looking.prove(
        pid,
        (
            ("namespaces", _apart),
            ("ids", lambda it: _mapped(it, ids)),
            ("uid", looking.has_ids(*ids)),
            ("groups", lambda it: _groups(it, groups | {ids[1]})),
            ("capabilities", looking.no_capabilities),
            ("no_new_privs", looking.no_new_privileges),
            ("seccomp", looking.filtered),
            ("mounts", lambda it: "".join(list(_mounts(it, plan))[:1])),
            ("net", _alone),
            ("session", looking.no_terminal),
            ("descriptors", looking.holds_only(output)),
            ("limits", looking.has_limits({_LIMIT_NAMES[which]: value for which, value in limits.items()})),
            ("control group", lambda it: _held(it, group)),
        ),
    )


def _apart(pid: int) -> str:
    own, theirs = looking.namespaces("self"), looking.namespaces(pid)
    shared = [name for name in looking.NAMESPACES if own[name] == theirs[name]]
    return f"shared with kai: {', '.join(shared)}" if shared else ""


def _mapped(pid: int, ids: tuple[int, int]) -> str:
    for name, outside in zip(("uid_map", "gid_map"), ids, strict=True):
        rows = [[int(word) for word in line.split()] for line in looking.text(f"/proc/{pid}/{name}").splitlines()]
        if rows != [[_ID, outside, 1]]:
            return f"{name} is {rows}"
    return ""


def _groups(pid: int, allowed: set[int]) -> str:
    more = {int(word) for word in looking.status(pid)["Groups"].split()} - allowed
    return f"it is in the groups {sorted(more)}" if more else ""


def _alone(pid: int) -> str:
    devices = {line.partition(":")[0].strip() for line in looking.text(f"/proc/{pid}/net/dev").splitlines()[2:]}
    return "" if "lo" in devices else "there is no loopback"


def _held(pid: int, group: Group) -> str:
    return "" if group.holds(looking.text(f"/proc/{pid}/cgroup")) else "it is not in its control group"


def _mounts(pid: int, plan: Plan) -> Iterator[str]:
    """What is wrong with the mounts."""
    text = looking.text(f"/proc/{pid}/mountinfo")
    if any(it.startswith("shared:") for line in text.splitlines() for it in line.partition(" - ")[0].split()[6:]):
        yield "one is shared with the host"
    # Of mounts on the same place the last is the one that is seen.
    found = {it.point: it for it in rootplan.parse(text)}
    for point, mount in found.items():
        wanted = plan.points.get(point)
        if wanted is None:
            if not any(rootplan.below(point, it) for it in plan.points if it != "/"):
                yield f"{point} is there too"
            wanted = Point()
        lacks = {"nosuid"} - mount.options
        lacks |= set() if wanted.device else {"nodev"} - mount.options
        lacks |= set() if wanted.writable else {"ro"} - mount.options
        if lacks:
            yield f"{point} is not {', '.join(sorted(lacks))}"
    yield from (f"{point} is missing" for point in plan.points if point not in found)
    sources = {point: it.source for point, it in plan.points.items() if it.source is not None}
    yield from (f"{point} is not {it}" for point, it in sources.items() if not _same(it, f"/proc/{pid}/root{point}"))
    if _same("/", f"/proc/{pid}/root/"):
        yield "the root is the host's"
    if os.readlink(f"/proc/{pid}/cwd") != INSIDE:
        yield f"it does not start in {INSIDE}"


def _same(path: str, other: str) -> bool:
    here, there = os.stat(path), os.stat(other)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
