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
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import IO, Final

from kaivc.errors import KaiError
from kaivc.records import dataclass
from kaivc.sandboxes import bwrap, copies, kernel, looking, seccomp, uids
from kaivc.sandboxes.base import Ability, End, Ended, Form, Job, Level
from kaivc.sandboxes.cgroups import Group
from kaivc.sandboxes.command import set_up
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
_JOIN_SESSION_KEYRING: Final = 1
_MEETING: Final = "/tmp"  # noqa: S108 - as root, the layer is bound there in bwrap's own mount namespace
_GATE: Final = 'read -r _kai || exit 125; [ "$_kai" = go ] || exit 125; unset _kai PWD OLDPWD; exec "$@" </dev/null'


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
            copied.stamps.update(copies.stamps(f"{box}/{name}" for name in os.listdir(box) if name != "tree"))
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


def _try(program: str) -> None:
    """Whether bwrap can make the namespaces here; IsolationFailed says what it said."""
    words = [*bwrap.namespaces(), "--ro-bind", "/", "/", "--proc", "/proc"]
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
    words: list[bytes] = []
    listening = [words.append]
    with ExitStack() as stack:
        with set_up():
            plan = bwrap.plan(job, box, box if uid is None else _MEETING, counted="memory" in group.controllers)
            stack.callback(plan.close)
            relay = stack.enter_context(Relay(job.limits.output, lambda it: listening[0](it)))  # noqa: PLW0108 - it changes
            output = os.fstat(relay.inlet).st_ino
            limits = _limits(job, copied, group, uid)
            outer, info = _start(program, job, plan, relay, lambda: _become(uid, box, limits))
            stack.callback(_reap, outer)
            started = _find(outer, info, relay, words)
            stack.callback(_end, started)
            group.take(started.shell)
            if uid is None:
                _set_limits(started.shell, limits)
            bwrap.prove(started.shell, plan, output, uid, limits, group)
            os.kill(outer.pid, signal.SIGSTOP)
            relay.pump()
        listening[0] = say
        return _watched(started, job, relay, box, copied, group)


def _start(
    program: str, job: Job, plan: bwrap.Plan, relay: Relay, become: Callable[[], None]
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """bwrap, and the end of the pipe on which it says which process is 1 inside."""
    words = plan.hand(job, b"".join(os.fsencode(it) + b"\0" for it in plan.words))
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
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
    if by is End.ITSELF:
        by = watch.afterwards() or by
    code = started.outer.returncode
    killed_by = signal.SIGINT if by is End.INTERRUPT else signal.SIGKILL
    told = seen.by is End.ITSELF and code is not None and code >= 0
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


def _end(started: _Started) -> None:
    _kill(started)
    os.close(started.init_fd)
    os.close(started.shell_fd)


def _reap(outer: subprocess.Popen[bytes]) -> None:
    if outer.stdin is not None:
        with suppress(OSError):
            outer.stdin.close()
    if outer.poll() is None:
        outer.kill()
        outer.wait()
