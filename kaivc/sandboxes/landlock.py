"""Landlock: what can be had without any namespace, for containers that allow nothing else. It holds less.

The command works on a copy, sees the real root, and is kept by Landlock's rules to what it may open there. Network,
shared memory and other processes are closed by the filter of system calls. What stays open is in the design's table.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from kaivc.errors import KaiError
from kaivc.records import replace
from kaivc.sandboxes import cgroups, copies, kernel, looking, rootplan, seccomp, uids
from kaivc.sandboxes.base import Ability, End, Ended, Form, Job, Level
from kaivc.sandboxes.child import told
from kaivc.sandboxes.command import Command, at_most, set_up
from kaivc.sandboxes.looking import failed
from kaivc.sandboxes.watch import Watch
from kaivc.vfs import Vfs

_TRUNCATE: Final = 3
"""The version of Landlock from which a file outside cannot be cut to nothing."""
_SIGNALS: Final = 6
"""And from which signals to processes of the same user stay within."""
_PROGRAMS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_CERTIFICATES: Final = ("/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted")
_TREES: Final = (*_PROGRAMS, "/etc/alternatives", *_CERTIFICATES)
_NAMES: Final = ("passwd", "group", "hosts", "nsswitch.conf", "protocols", "services")
_LOADER: Final = ("ld.so.cache", "ld.so.conf", "localtime", "mime.types", "os-release", "ssl/openssl.cnf")
_FILES: Final = tuple(f"/etc/{name}" for name in (*_NAMES, *_LOADER))
_PREFIX: Final = "kai-landlock-"
_FOR_ALL: Final = 0o001
_STICKY: Final = 0o1000
_WRITABLE_BY_OTHERS: Final = 0o022
_LIMIT_NAMES: Final = {
    resource.RLIMIT_NOFILE: "Max open files",
    resource.RLIMIT_NPROC: "Max processes",
    resource.RLIMIT_FSIZE: "Max file size",
    resource.RLIMIT_CORE: "Max core file size",
    resource.RLIMIT_DATA: "Max data size",
}
_LACKS: Final = (
    "files outside are closed, but their names, sizes and dates can be asked for",
    "no sockets at all, no shared memory, no /proc",
    "a version's files: copied first",
)


class Landlock:
    """One way of running a command apart, in part: Landlock's rules and a filter, without namespaces."""

    name = "landlock"

    def ability(self) -> Ability:
        """Partial where Landlock is new enough; a trial up to the moment when the command would start."""
        try:
            with _Kept.tried() as it:
                version, memory = it.version, it.memory_held
        except KaiError as lacks:
            return Ability(self.name, None, lacks.what)
        except OSError as error:
            return Ability(self.name, None, str(error))
        held = "memory: held by a control group" if memory else "memory: limits for each process and a watchdog"
        return Ability(
            self.name, Level.PARTIAL, why="no namespaces", notes=(f"Landlock: version {version}", held, *_LACKS)
        )

    def run(self, job: Job, say: Callable[[bytes], None]) -> Ended:
        """Run ``job`` over a copy; see `Sandbox.run`."""
        with _Kept(job, say) as it:
            it.start()
            ended = it.watch()
        return replace(ended, top=f"{job.layer}/box/tree")  # `_clear` has put it there


class _Kept(Command):
    """One command and its keeper."""

    def __init__(self, job: Job, say: Callable[[bytes], None]) -> None:
        super().__init__(job, say)
        self._keeper = 0
        self._uid = uids.unused() if os.geteuid() == 0 else None
        self._away: str | None = None
        self._box = f"{job.layer}/box"
        self._copied: copies.Copied | None = None
        self.version = 0

    # ------------------------------------------------------------ start

    def start(self) -> None:
        """Everything up to the command's first instruction. IsolationFailed for any doubt."""
        job, limits = self._job, self._job.limits
        self.version = _version(privileged=self._uid is not None)
        with set_up():
            if self._uid is not None:
                self._away = _reachable(job.layer)
                # For root and the command; other users of the machine have nothing to look for in a version.
                kernel.give(self._away, os.geteuid(), self._uid)
                kernel.set_mode(self._away, 0o710)
                self._box = f"{self._away}/box"
            copies.make_box(self._box, self._uid)
            try:
                self._copied = copies.copy(job.lower, f"{self._box}/tree", self._uid)
            except ValueError as error:
                raise failed("copy", str(error)) from error
            own = (f"{self._box}/{name}" for name in os.listdir(self._box) if name != "tree")
            self._copied.stamps.update(copies.stamps(own))
            self._group = cgroups.Group.make(limits.memory, limits.processes)
            wanted = self._limits()
            output = os.fstat(self._relay.inlet).st_ino
            self._keeper = self._line.spawn(self._relay.inlet, "keeper")
            self._relay.started()
            self._line.tell(*told(self._config(wanted)))
            payload = self._ready()
            self._group.take(payload)
        self._prove(payload, output, wanted)

    def _limits(self) -> dict[int, int]:
        limits = self._job.limits
        largest = 0 if self._copied is None else self._copied.largest
        others = 0 if self._uid is not None else _tasks(os.geteuid())  # of the same user, who are counted too
        wanted = {
            resource.RLIMIT_NOFILE: limits.open_files,
            resource.RLIMIT_NPROC: limits.processes + others,
            resource.RLIMIT_FSIZE: limits.written + largest,
            resource.RLIMIT_CORE: 0,
        }
        if not self.memory_held:
            wanted[resource.RLIMIT_DATA] = limits.memory
        return at_most(wanted)

    def _config(self, limits: dict[int, int]) -> dict[str, bytes | int | str | list[bytes]]:
        box, uid = self._box, self._uid
        own = {"HOME": f"{box}/home", "TMPDIR": f"{box}/tmp"}  # noqa: S108 - its own
        environ = rootplan.environment(self._job.environ) | own
        return {
            "privileged": int(uid is not None),
            "uid": os.geteuid() if uid is None else uid,
            "gid": os.getegid() if uid is None else uid,
            "start": f"{box}/tree",
            "limits": [b"%d" % number for pair in limits.items() for number in pair],
            "trees": [os.fsencode(it) for it in _TREES if os.path.isdir(it)],
            "files": [os.fsencode(it) for it in _FILES if os.path.isfile(it)],
            "devices": [os.fsencode(it) for it in rootplan.DEVICES],
            "writable": [os.fsencode(f"{box}/{name}") for name in ("tree", "home", "tmp")],
            "seccomp": seccomp.program(apart=False, owner=uid is None, counted=self.memory_held),
            "environ": [os.fsencode(word) for pair in environ.items() for word in pair],
            "argv": [os.fsencode(word) for word in self._job.argv],
        }

    def _ready(self) -> int:
        """The payload's pid, when it has given up all."""
        said = self._hear()
        match said.parts:
            case [b"ready", version] if said.pid != self._keeper:
                if int(version) != self.version:
                    raise failed("landlock", f"version {version.decode()} is in force, not {self.version}")
                return said.pid
            case [b"failed", step, what]:
                raise failed(step.decode(), what.decode(errors="replace"))
        raise failed("child", f"it said {said.parts[:1]}")

    def _prove(self, pid: int, output: int, limits: dict[int, int]) -> None:
        ids = (os.geteuid(), os.getegid()) if self._uid is None else (self._uid, self._uid)
        looking.prove(
            pid,
            (
                ("uid", looking.has_ids(*ids)),
                ("groups", self._groups),
                ("capabilities", self._capabilities),
                ("no_new_privs", looking.no_new_privileges),
                ("seccomp", looking.filtered),
                ("session", looking.no_terminal),
                ("descriptors", lambda it: _descriptors(it, output, self._line.inode)),
                ("limits", looking.has_limits({_LIMIT_NAMES[which]: value for which, value in limits.items()})),
                ("start", self._starts),
                ("keeper", self._kept),
                ("control group", self._held),
            ),
        )

    def _groups(self, pid: int) -> str:
        allowed = set(os.getgroups()) | {os.getegid()} if self._uid is None else {self._uid}
        more = {int(word) for word in looking.status(pid)["Groups"].split()} - allowed
        return f"it is in the groups {sorted(more)}" if more else ""

    def _capabilities(self, pid: int) -> str:
        # An ordinary user cannot empty the bounding set; no_new_privs leaves nothing that could draw on it.
        names = ["CapInh", "CapPrm", "CapEff", "CapAmb"] + (["CapBnd"] if self._uid is not None else [])
        it = looking.status(pid)
        held = [name for name in names if int(it[name], 16)]
        return f"capabilities are left in {', '.join(held)}" if held else ""

    def _starts(self, pid: int) -> str:
        return "" if os.path.samefile(f"/proc/{pid}/cwd", f"{self._box}/tree") else "it does not start in the copy"

    def _kept(self, pid: int) -> str:
        it = looking.stat(pid)
        return "" if it is not None and it.parent == self._keeper else "it is not below its keeper"

    def _held(self, pid: int) -> str:
        return "" if self._group.holds(looking.text(f"/proc/{pid}/cgroup")) else "it is not in its control group"

    # ------------------------------------------------------------ watch

    def watch(self) -> Ended:
        """Let the command begin, watch it to its end, and make sure that all of it is gone."""
        assert self._copied is not None  # noqa: S101 - after `start`
        began = monotonic()
        killed = self._group.out_of_memory if self.memory_held else None
        watch = Watch(self._job.limits, self._members, (self._box,), self._copied.stamps, killed)
        self._line.tell(b"run")
        seen = watch.until(self._line.fileno(), self._relay)
        seconds = monotonic() - began
        by, left, cpu, peak = seen.by, 0, 0.0, seen.peak_memory
        code = 128 + (signal.SIGINT if by is End.INTERRUPT else signal.SIGKILL)
        if by is End.ITSELF:
            said = self._line.hear()
            if said is not None and said.pid == self._keeper and said.parts[0] == b"ended":
                status, microseconds, largest = (int(part) for part in said.parts[1:])
                code = 128 - status if status < 0 else status
                cpu, peak = microseconds / 1e6, max(peak, largest * 1024)
                left = looking.left(self._keeper, self._members)
            else:
                left = 1  # the keeper is gone, and nobody knows
        else:
            cpu = sum(it.seconds + it.of_children for it in looking.family(self._keeper))
        self.kill()
        self._relay.drain()
        if by is End.ITSELF:
            by = self._afterwards(watch)
        return Ended(
            by=by,
            exit_code=code,
            seconds=seconds,
            cpu_seconds=cpu,
            peak_memory=self._group.peak() or peak,
            left_running=left,
            form=Form.COPY,
            top=f"{self._box}/tree",
        )

    def _afterwards(self, watch: Watch) -> End:
        if self._group.out_of_memory():
            return End.MEMORY
        if self._relay.exceeded:
            return End.OUTPUT
        return watch.afterwards() or End.ITSELF

    def _members(self) -> list[int]:
        return [it.pid for it in looking.family(self._keeper) if it.present]

    # ------------------------------------------------------------ end

    def kill(self) -> None:
        """Hang up, and wait until the keeper has killed all."""
        self._line.close()
        if self._keeper:
            with suppress(ChildProcessError):
                os.waitpid(self._keeper, 0)
            self._keeper = 0
        if self._uid is not None:
            _kill_all_of(self._uid)

    def _clear(self) -> None:
        """Put the box where it belongs, in the layer, and remove the place where another uid could reach it."""
        if self._away is None:
            return
        if os.path.lexists(self._box):
            kernel.move(self._box, f"{self._job.layer}/box")
        kernel.remove_dir(self._away)
        self._away = None


def _version(*, privileged: bool) -> int:
    """The kernel's version of Landlock. IsolationFailed where it is not enough."""
    hint = "use a newer kernel, with CONFIG_SECURITY_LANDLOCK and landlock among its lsm="
    try:
        version = kernel.call("landlock_create_ruleset", None, 0, 1)
    except OSError as error:
        raise failed("landlock", f"the kernel has none ({error.strerror})", hint) from error
    if version < _TRUNCATE:
        raise failed("landlock", f"version {version} lets files be cut that it keeps closed", hint)
    if version < _SIGNALS and not privileged:
        raise failed("landlock", f"version {version} does not keep signals from your other processes", hint)
    return version


def _reachable(layer: str) -> str:
    """A new directory near ``layer`` that another uid can enter; what killed ones of kai left there goes."""
    near = "/"
    for name in os.path.realpath(layer).split("/")[1:]:
        below = f"{near.rstrip('/')}/{name}"
        if not os.stat(below).st_mode & _FOR_ALL:
            break
        near = below
    mode = os.stat(near).st_mode
    if near == "/" or (mode & _WRITABLE_BY_OTHERS and not mode & _STICKY):
        raise failed("uid", f"another uid cannot enter {layer}", "let isolation.temp_dir lie where all may enter")
    with os.scandir(near) as entries:
        left = [entry.path for entry in entries if entry.name.startswith(_PREFIX) and _is_left(entry)]
    for path in left:
        with suppress(KaiError):
            Vfs().remove_tree(path)
    path = f"{near}/{_PREFIX}{os.getpid()}-{_started(os.getpid())}-{os.urandom(4).hex()}"
    kernel.make_dir(path, 0o711)
    kernel.set_mode(path, 0o711)
    return path


def _is_left(entry: os.DirEntry[str]) -> bool:
    pid, _, rest = entry.name.removeprefix(_PREFIX).partition("-")
    ours = entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
    return ours and pid.isdigit() and _started(int(pid)) != rest.partition("-")[0]


def _started(pid: int) -> str:
    """When a process started, in ticks since the machine did; empty where there is none."""
    try:
        return looking.text(f"/proc/{pid}/stat").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _tasks(uid: int) -> int:
    """How many threads a user has."""
    count = 0
    for name in os.listdir("/proc"):
        with suppress(OSError, KeyError, ValueError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                count += int(looking.status(int(name))["Threads"])
    return count


def _descriptors(pid: int, output: int, line: int) -> str:
    """An empty input, the output, and the line to kai, which closes as the command starts."""
    found = {int(name): os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    pipe = f"pipe:[{output}]"
    if found != {0: "/dev/null", 1: pipe, 2: pipe, 3: f"socket:[{line}]"}:
        return f"they are {found}"
    flags = next(it for it in looking.text(f"/proc/{pid}/fdinfo/3").splitlines() if it.startswith("flags:"))
    return "" if int(flags.split()[1], 8) & os.O_CLOEXEC else "the line to kai would stay open"


def _kill_all_of(uid: int) -> None:
    """Whatever of a uid that is one command's alone is left, were even the keeper killed."""
    while True:
        left = []
        for name in os.listdir("/proc"):
            with suppress(OSError):
                if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                    it = looking.stat(int(name))
                    left += [int(name)] if it is not None and it.present else []
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
