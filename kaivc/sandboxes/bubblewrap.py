"""Bubblewrap: for machines that give unprivileged namespaces to ``bwrap`` alone.

Debian's has no overlay, so the command works on a copy of the version. What ``bwrap`` runs is a shell that waits for
one word; while it waits, every guard is in force already, the filter of system calls included, and is looked at from
outside. Then the shell becomes the command.

``bwrap`` returns when its command ends, whoever else still writes. So its outer process is stopped while the command
runs, and let go only when all of the pid namespace has been counted and killed.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Final

from kaivc.errors import KaiError
from kaivc.records import dataclass, field
from kaivc.sandboxes import copies, kernel, looking, rootplan, seccomp, uids
from kaivc.sandboxes.base import INSIDE, Ability, End, Ended, Form, Job, Level
from kaivc.sandboxes.cgroups import Group
from kaivc.sandboxes.looking import failed
from kaivc.sandboxes.relay import Relay
from kaivc.sandboxes.watch import Seen, Watch

_DIRECTORIES: Final = ("/usr/bin", "/bin", "/usr/local/bin")
_WRITABLE_BY_OTHERS: Final = 0o022
_START: Final = 10.0
_END: Final = 10.0
_POLL: Final = 0.002
_OWN_FILES: Final = 1 << 20
_INFO: Final = 4096
_ID: Final = 1000
"""The command's uid and gid as it sees them."""
_JOIN_SESSION_KEYRING: Final = 1
_MEETING: Final = "/tmp"  # noqa: S108 - as root, the layer is bound there in bwrap's own mount namespace
_GATE: Final = 'read -r _kai || exit 125; [ "$_kai" = go ] || exit 125; unset _kai PWD OLDPWD; exec "$@" </dev/null'
_APART: Final = ("user", "ipc", "pid", "net", "uts", "cgroup")
_LIMIT_NAMES: Final = {
    resource.RLIMIT_NOFILE: "Max open files",
    resource.RLIMIT_NPROC: "Max processes",
    resource.RLIMIT_FSIZE: "Max file size",
    resource.RLIMIT_CORE: "Max core file size",
    resource.RLIMIT_DATA: "Max data size",
}


@dataclass(frozen=True)
class _Point:
    """A mount that must be there. ``source`` is what of the host must lie there, if that can be told."""

    writable: bool = False
    device: bool = False
    source: str | None = None


@dataclass
class _Plan:
    """bwrap's arguments, the mounts that they make, and the files that it is handed open."""

    words: list[str] = field(default_factory=list)
    points: dict[str, _Point] = field(default_factory=dict)
    fds: list[int] = field(default_factory=list)

    def close(self) -> None:
        """Close the files."""
        while self.fds:
            os.close(self.fds.pop())


@dataclass(frozen=True)
class _Started:
    """The outer process, process 1 inside, and the shell that waits; the last two have a pidfd."""

    outer: subprocess.Popen[bytes]
    init: int
    init_fd: int
    shell: int
    shell_fd: int


class Bubblewrap:
    """One way of running a command apart: ``bwrap``, looked up where only root can put it."""

    name = "bubblewrap"

    def ability(self) -> Ability:
        """Full where ``bwrap`` can make every namespace; it is tried with /bin/true."""
        try:
            program = _program()
            seccomp.program()
            _try(program)
        except KaiError as lacks:
            return Ability(self.name, None, lacks.what)
        memory = Group.make(1 << 30, 16)
        how = "held by a control group" if "memory" in memory.controllers else "limits for each process and a watchdog"
        memory.remove()
        return Ability(
            self.name,
            Level.FULL,
            notes=(
                f"memory: {how}",
                "Landlock: not on top",
                "a version's files: copied first",
            ),
        )

    def run(self, job: Job, say: Callable[[bytes], None]) -> Ended:
        """Run ``job`` over a copy; see `Sandbox.run`."""
        program = _program()
        uid = uids.unused() if os.geteuid() == 0 else None
        try:
            box = f"{job.layer}/box"
            copies.make_box(box, uid)
            kernel.make_dir(f"{box}/empty")
            kernel.make_dir(f"{job.layer}/kai", 0o700)
            copied = copies.copy(job.lower, f"{box}/tree", uid)
            copied.stamps.update(copies.stamps(entry.path for entry in os.scandir(box) if entry.name != "tree"))
        except (OSError, ValueError) as error:
            raise failed("copy", str(error)) from error
        group = Group.make(job.limits.memory, job.limits.processes)
        try:
            return _run(program, job, say, box, copied, uid, group)
        finally:
            group.remove()


# ---------------------------------------------------------------- before


def _program() -> str:
    """The path of bwrap. IsolationFailed when there is none that only root can write."""
    found = next((path for it in _DIRECTORIES if os.path.lexists(path := f"{it}/bwrap")), None)
    if found is None:
        raise failed("bwrap", "bubblewrap is not installed", "install the package bubblewrap")
    path = os.path.realpath(found)
    at = path
    while True:
        status = os.stat(at)
        if status.st_uid != 0 or status.st_mode & _WRITABLE_BY_OTHERS:
            raise failed("bwrap", f"others than root can write {at}", f"make {at} root's alone")
        if at == "/":
            break
        at = os.path.dirname(at)
    if not stat.S_ISREG(os.stat(path).st_mode) or not os.access(path, os.X_OK):
        raise failed("bwrap", f"{path} is not a program")
    return path


def _namespaces() -> list[str]:
    return [f"--unshare-{it}" for it in _APART] + ["--cap-drop", "ALL", "--new-session", "--die-with-parent"]


def _try(program: str) -> None:
    """Whether bwrap can make the namespaces here; IsolationFailed says what it said."""
    words = [*_namespaces(), "--ro-bind", "/", "/", "--proc", "/proc"]
    uid = uids.unused() if os.geteuid() == 0 else None
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [program, *words, "/bin/true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            timeout=_START,
            check=False,
            preexec_fn=lambda: _become(uid, None, {}),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise failed("bwrap", f"it cannot be run: {error}") from error
    if done.returncode != 0:
        raise failed("bwrap", _shown(done.stderr), "let bwrap make user namespaces")


def _shown(said: bytes) -> str:
    words = said.decode(errors="replace").strip()[-500:]
    return "".join(it if it.isprintable() else "?" for it in words) or "it ended without a word"


def _plan(job: Job, box: str, reached: str, *, counted: bool) -> _Plan:
    """Native's root, as bwrap makes it; ``reached`` is the path under which bwrap finds ``box``."""
    plan = _Plan(_namespaces())
    try:
        _fill(plan, job, box, reached, counted=counted)
    except BaseException:
        plan.close()
        raise
    return plan


def _fill(plan: _Plan, job: Job, box: str, reached: str, *, counted: bool) -> None:
    plan.words += ["--uid", str(_ID), "--gid", str(_ID), "--hostname", rootplan.HOST, "--clearenv"]
    mounts = rootplan.parse(looking.text("/proc/self/mountinfo"))
    writable = dict(zip(rootplan.WRITABLE, ("tree", "tmp", "home", "shm"), strict=True))
    for packed in rootplan.plan(mounts, 0, 0, ids=(_ID, _ID)).steps:
        kind, path, *rest = kernel.unpack(packed)
        _step(plan, job, kind, os.fsdecode(path), rest, reached)
    for inside, name in writable.items():
        plan.words += ["--bind", f"{reached}/{name}", inside]
        plan.points[inside] = _Point(writable=True, source=f"{box}/{name}")
    # What the command may not do to process 1 it must not do through its files either.
    plan.words += ["--ro-bind", f"{reached}/empty", "/proc/1", "--remount-ro", "/", "--chdir", INSIDE]
    plan.points |= {"/proc/1": _Point(), "/": _Point()}
    for name, value in rootplan.environment(job.environ).items():
        plan.words += ["--setenv", name, value]
    plan.words += ["--seccomp", str(_handed(plan, job, seccomp.program(counted=counted)))]


def _step(plan: _Plan, job: Job, kind: bytes, path: str, rest: list[bytes], reached: str) -> None:
    match kind, [os.fsdecode(it) for it in rest]:
        case b"directory", _:
            plan.words += ["--dir", path]
        case b"link", [target]:
            plan.words += ["--symlink", target, path]
        case b"file", [data] if data:
            plan.words += ["--file", str(_handed(plan, job, rest[0])), path]
        case b"proc", _:
            plan.words += ["--proc", path]
            plan.points[path] = _Point(writable=True)
        case b"bind", [source, _, how]:
            if how == "within":
                if path in rootplan.WRITABLE:
                    return
                source = f"{reached}/empty"
            device = path in rootplan.DEVICES
            plan.words += ["--dev-bind" if device else "--ro-bind", source, path]
            plan.points[path] = _Point(writable=device, device=device, source=source if path == "/usr" else None)
        case _:
            pass  # file systems in memory, the overlay, and empty files to bind upon: bwrap makes its own


def _handed(plan: _Plan, job: Job, data: bytes) -> int:
    path = f"{job.layer}/kai/{len(plan.fds)}"
    kernel.make_file(os.fsencode(path), data, 0o600)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    plan.fds.append(fd)
    return fd


def _become(uid: int | None, box: str | None, limits: dict[int, int]) -> None:
    """In the child, before bwrap: die with kai, no keys of the user's; as root, another uid that finds the layer."""
    os.umask(0o022)
    with suppress(OSError):
        kernel.call("keyctl", _JOIN_SESSION_KEYRING, None)
    if uid is not None:
        if box is not None:
            kernel.call("unshare", kernel.NEWNS)
            kernel.mount(b"none", b"/", b"", kernel.MS_REC | kernel.MS_PRIVATE)
            kernel.mount(os.fsencode(box), os.fsencode(_MEETING), b"", kernel.MS_BIND)
        # Here they go by the uid, which no other process has; an ordinary user's go by the namespace, once it is there.
        _set_limits(0, limits)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    kernel.call("prctl", kernel.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


# ---------------------------------------------------------------- the run


def _run(
    program: str,
    job: Job,
    say: Callable[[bytes], None],
    box: str,
    copied: copies.Copied,
    uid: int | None,
    group: Group,
) -> Ended:
    plan = _plan(job, box, box if uid is None else _MEETING, counted="memory" in group.controllers)
    words: list[bytes] = []
    listening = [words.append]
    with Relay(job.limits.output, lambda piece: listening[0](piece)) as relay:  # noqa: PLW0108 - the listener changes
        output = os.fstat(relay.inlet).st_ino
        outer = None
        try:
            limits = _limits(job, copied, group, uid)
            outer, info = _start(program, job, plan, relay, lambda: _become(uid, box, limits))
            started = _find(outer, info, relay, words)
            try:
                group.take(started.shell)
                if uid is None:
                    _set_limits(started.shell, limits)
                _prove(started.shell, plan, output, uid, limits, group)
                os.kill(outer.pid, signal.SIGSTOP)
                relay.pump()
                listening[0] = say
                return _watched(started, job, relay, box, copied, group)
            finally:
                _kill(started)
                os.close(started.init_fd)
                os.close(started.shell_fd)
        except OSError as error:
            raise failed("bwrap", str(error)) from error
        finally:
            plan.close()
            if outer is not None:
                _reap(outer)


def _start(
    program: str, job: Job, plan: _Plan, relay: Relay, become: Callable[[], None]
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """bwrap, and the end of the pipe on which it says which process is 1 inside."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    words = _handed(plan, job, b"".join(os.fsencode(it) + b"\0" for it in plan.words))
    try:
        outer = subprocess.Popen(  # noqa: S603 - a list of words; running it is the purpose
            [program, "--info-fd", str(write_end), "--args", str(words), "--", "/bin/sh", "-c", _GATE, "sh", *job.argv],
            stdin=subprocess.PIPE,
            stdout=relay.inlet,
            stderr=relay.inlet,
            pass_fds=(*plan.fds, write_end),
            env={},
            cwd="/",
            start_new_session=True,
            preexec_fn=become,  # noqa: PLW1509 - it calls the kernel and nothing else
        )
    except (OSError, subprocess.SubprocessError) as error:
        os.close(read_end)
        raise failed("bwrap", f"it cannot be started: {error}") from error
    finally:
        os.close(write_end)
        relay.started()
    return outer, open(read_end, "rb", buffering=0)


def _find(outer: subprocess.Popen[bytes], info: IO[bytes], relay: Relay, words: list[bytes]) -> _Started:
    """Wait until the shell inside waits with everything in force."""
    import json  # noqa: PLC0415 - only where bwrap is run

    end = time.monotonic() + _START
    said = b""
    with info:
        while not said.endswith(b"}\n") and select.select([info], [], [], max(0.0, end - time.monotonic()))[0]:
            piece = info.read(_INFO)
            if not piece:
                break
            said += piece
    try:
        init = int(json.loads(said)["child-pid"])
    except (ValueError, KeyError, TypeError):
        outer.wait(timeout=_END)
        relay.drain()
        raise failed("bwrap", _shown(b"".join(words))) from None
    init_fd = os.pidfd_open(init)
    try:
        while time.monotonic() < end and outer.poll() is None:
            for child in looking.family(init):
                if _is_gate(child.pid):
                    return _Started(outer, init, init_fd, child.pid, os.pidfd_open(child.pid))
            time.sleep(_POLL)
    except BaseException:
        os.close(init_fd)
        raise
    with suppress(OSError):
        signal.pidfd_send_signal(init_fd, signal.SIGKILL)
    os.close(init_fd)
    relay.drain()
    raise failed("bwrap", _shown(b"".join(words)))


def _is_gate(pid: int) -> bool:
    try:
        return looking.text(f"/proc/{pid}/cmdline").startswith(f"/bin/sh\0-c\0{_GATE}\0")
    except OSError:
        return False


def _limits(job: Job, copied: copies.Copied, group: Group, uid: int | None) -> dict[int, int]:
    """Resource limits by their number; what bwrap itself needs is in them."""
    limits = {
        resource.RLIMIT_NOFILE: job.limits.open_files,
        # Process 1 counts, and under a uid of their own bwrap's outer process does too.
        resource.RLIMIT_NPROC: job.limits.processes + (1 if uid is None else 2),
        resource.RLIMIT_FSIZE: max(job.limits.written + copied.largest, _OWN_FILES),
        resource.RLIMIT_CORE: 0,
    }
    if "memory" not in group.controllers:
        limits[resource.RLIMIT_DATA] = job.limits.memory
    return limits


def _set_limits(pid: int, limits: dict[int, int]) -> None:
    for which, value in limits.items():
        hard = resource.prlimit(pid, which)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(pid, which, (least, least))


def _watched(started: _Started, job: Job, relay: Relay, box: str, copied: copies.Copied, group: Group) -> Ended:
    killed = group.out_of_memory if "memory" in group.controllers else None
    watch = Watch(job.limits, lambda: _members(started), (box,), copied.stamps, killed)
    gate = started.outer.stdin
    assert gate is not None  # noqa: S101 - it was asked for
    begun = time.monotonic()
    with gate:
        gate.write(b"go\n")
    seen = watch.until(started.shell_fd, relay)
    seconds = time.monotonic() - begun
    left = looking.left(started.init, lambda: _members(started)) if seen.by is End.ITSELF else 0
    cpu = _cpu(started.init)
    if seen.by is End.ITSELF:
        # Its process 1 has told the outer process how the command ended, which it now repeats.
        _gone(started.shell)
        started.outer.send_signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            started.outer.wait(timeout=_END)
    _kill(started)
    by = End.OUTPUT if seen.by is End.ITSELF and relay.drain() else seen.by
    if by is End.ITSELF and group.out_of_memory():
        by = End.MEMORY
    code = started.outer.returncode
    killed_by = signal.SIGINT if by is End.INTERRUPT else signal.SIGKILL
    told = by is End.ITSELF and code is not None and code >= 0
    exit_code = code if told else 128 + killed_by
    return Ended(by, exit_code, seconds, cpu, _peak(seen, group), left, Form.COPY, f"{box}/tree")


def _members(started: _Started) -> list[int]:
    """All but process 1; a command that has ended is no more present."""
    return [it.pid for it in looking.family(started.init) if it.present]


def _peak(seen: Seen, group: Group) -> int:
    return max(seen.peak_memory, group.peak() or 0)


def _cpu(init: int) -> float:
    own = looking.stat(init)
    waited_for = 0.0 if own is None else own.of_children
    return waited_for + sum(it.seconds + it.of_children for it in looking.family(init))


def _gone(pid: int) -> None:
    end = time.monotonic() + 1
    while looking.stat(pid) is not None and time.monotonic() < end:
        time.sleep(_POLL)


def _kill(started: _Started) -> None:
    """Kill process 1, and with it all of the namespace; returns when nothing of that is left, interrupted or not."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(started.init_fd, signal.SIGKILL)
        poll = select.poll()
        poll.register(started.init_fd, select.POLLIN)
        poll.poll()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reap(outer: subprocess.Popen[bytes]) -> None:
    if outer.stdin is not None:
        with suppress(OSError):
            outer.stdin.close()
    if outer.poll() is None:
        outer.kill()
        outer.wait()


# ---------------------------------------------------------------- the look from outside


def _prove(pid: int, plan: _Plan, output: int, uid: int | None, limits: dict[int, int], group: Group) -> None:
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


def _mounts(pid: int, plan: _Plan) -> Iterator[str]:
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
            wanted = _Point()
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
