"""The native sandbox: Linux namespaces and an overlay, made by kai itself; nothing to install.

`inside` builds it, in a process of its own. Here it is started, looked at from outside, watched, and ended.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Final

from kaivc.errors import IsolationFailed, KaiError
from kaivc.sandboxes import cgroups, copies, kernel, looking, proof, rootplan, seccomp
from kaivc.sandboxes.base import INSIDE, PATH, Ability, End, Ended, Form, Job, Level
from kaivc.sandboxes.child import PATIENCE, Who, map_ids, refused, told, who
from kaivc.sandboxes.command import Command, at_most, set_up
from kaivc.sandboxes.watch import Watch
from kaivc.vfs import Vfs

_BASES: Final = ("/tmp", "/var", "/mnt", "/run")  # noqa: S108 - only hidden, in a namespace of our own
_GRACE: Final = 60
_KILLED: Final = 128 + signal.SIGKILL


class Native:
    """Namespaces, an overlay, a filter and no privileges, by this kernel's own means."""

    name = "native"

    def ability(self) -> Ability:
        """A trial up to the moment when the command would start."""
        cgroups.collect()
        try:
            with Sandboxed.tried() as it:
                notes = it.notes()
        except IsolationFailed as error:
            return Ability(self.name, None, why=error.what)
        except (OSError, KaiError) as error:
            return Ability(self.name, None, why=str(error))
        return Ability(self.name, Level.FULL, notes=notes)

    def run(self, job: Job, say: Callable[[bytes], None]) -> Ended:
        """Run ``job``; hand each piece of its output, as it is, to ``say``."""
        cgroups.collect()
        with Sandboxed(job, say) as it:
            it.start()
            return it.watch()


class Sandboxed(Command):
    """One command's sandbox, from the first process to the last; for the thread that made it, with which it dies."""

    def __init__(self, job: Job, say: Callable[[bytes], None]) -> None:
        super().__init__(job, say)
        self._over = f"{job.layer}/overlay"
        self._starter = 0
        self._init = -1  # a descriptor of the process
        self._init_pid = 0
        self._copied = False
        self._landlock = 0

    @property
    def top(self) -> str:
        """Where the writes lie."""
        return f"{self._over}/upper"

    def notes(self) -> tuple[str, ...]:
        """What holds by which means."""
        held = self._group.controllers
        return (
            "memory: held by a control group" if self.memory_held else "memory: address space and a watchdog",
            "processes: held by a control group" if "pids" in held else "processes: counted in the user namespace",
            f"Landlock: version {self._landlock}" if self._landlock else "Landlock: not in this kernel",
            "a version's files: copied first" if self._copied else "a version's files: copied when opened for writing",
        )

    # ------------------------------------------------------------ start

    def start(self) -> None:
        """Everything up to the command's first instruction. IsolationFailed for any doubt."""
        job = self._job
        for path in (job.lower, job.layer):
            for tree in ("/usr", *(f"/{name}" for name in ("bin", "sbin", "lib", "lib64"))):
                if rootplan.below(os.path.realpath(path), os.path.realpath(tree)):
                    raise refused("layer", f"{path} lies in {tree}, which every command sees")
        with set_up():
            them = who(job.lower)
            self._make_layer(them)
            self._group = cgroups.Group.make(job.limits.memory, job.limits.processes)
            host = rootplan.parse(looking.text("/proc/self/mountinfo"))
            plan = rootplan.plan(host, job.limits.memory // 2, job.limits.inodes, ids=them.inside)
            limits = self._limits(them)
            output = os.fstat(self._relay.inlet).st_ino
            self._starter = self._line.spawn(self._relay.inlet)
            self._relay.started()
            self._line.tell(*told(self._config(them, plan, limits)))
            payload, landlock = self._talk(them)
        claim = proof.Claim(
            init_id=them.init_outside[0],
            ids=them.outside,
            maps=them.maps,
            groups=frozenset() if them.privileged else frozenset(os.getgroups()) | {os.getegid()},
            mounts=plan.mounts,
            limits=limits,
            line=self._line.inode,
            output=output,
            landlock=_landlock(),
            holds=self._group.holds,
        )
        self._landlock = landlock
        blocked = proof.Blocked(proof.Seen(payload), proof.Seen(self._init_pid), landlock)
        if doubt := proof.look(claim, blocked):
            raise refused(*doubt)

    def _make_layer(self, them: Who) -> None:
        for path in (self._over, self.top, f"{self._over}/work"):
            kernel.make_dir(path, 0o755 if path == self.top else 0o700)
            ids = them.outside if path == self.top else them.init_outside
            if them.privileged:
                kernel.give(path, *ids)

    def _limits(self, them: Who) -> dict[int, int]:
        limits = self._job.limits
        # An ordinary user's starter and init are the same user's, in the same namespace.
        processes = limits.processes + (0 if them.privileged else 2)
        wanted = {
            resource.RLIMIT_FSIZE: limits.written,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_NPROC: processes,
            resource.RLIMIT_NOFILE: limits.open_files,
        }
        if not self.memory_held:
            wanted[resource.RLIMIT_AS] = limits.memory
        return at_most(wanted)

    def _config(
        self, them: Who, plan: rootplan.Plan, limits: dict[int, int]
    ) -> dict[str, bytes | int | str | list[bytes]]:
        job = self._job
        own = {"HOME": rootplan.HOME, "PATH": PATH, "TMPDIR": "/tmp", "USER": rootplan.USER, "LOGNAME": rootplan.USER}  # noqa: S108
        environ = {"LANG": "C.UTF-8", **job.environ, **own}
        return {
            "parent": os.getpid(),
            "groups": "none" if them.privileged else "kept",
            "init_uid": them.init_inside[0],
            "init_gid": them.init_inside[1],
            "uid": them.inside[0],
            "gid": them.inside[1],
            "seconds": int(job.limits.seconds + PATIENCE + _GRACE),
            "hostname": rootplan.HOST,
            "base": next((path for path in _BASES if os.path.isdir(path)), "/usr"),
            "lower": job.lower,
            "layer": self._over,
            "inside": INSIDE,
            "plan": plan.steps,
            "limits": [b"%d" % number for pair in limits.items() for number in pair],
            "writable": [path.encode() for path in rootplan.WRITABLE],
            "devices": [path.encode() for path in rootplan.DEVICES],
            "seccomp": seccomp.program(counted=self.memory_held),
            "environ": [os.fsencode(word) for pair in environ.items() for word in pair],
            "argv": [os.fsencode(word) for word in job.argv],
        }

    def _talk(self, them: Who) -> tuple[int, int]:
        """Answer the child until payload and init are ready. The payload's pid, and the Landlock that it has."""
        payload = ready = 0
        while not (ready and self._init_pid):
            said = self._hear()
            match said.parts:
                case [b"apart"] if said.pid == self._starter:
                    map_ids(said.pid, them)
                    self._hand_over(said.pid, them)
                case [b"first"] if self._init < 0:
                    self._init = os.pidfd_open(said.pid)
                case [b"copy"]:
                    self._copy(them)
                    self._line.tell(b"copied")
                case [b"payload"] if not payload:
                    payload = said.pid
                    self._join(payload)
                    self._line.tell(b"go")
                case [b"init"]:
                    self._init_pid = said.pid
                case [b"ready", version] if said.pid == payload:
                    ready = 1
                    landlock = int(version)
                case [b"failed", step, what]:
                    raise refused(step.decode(), what.decode(errors="replace"))
                case _:
                    raise refused("child", f"it said {said.parts[:1]}")
        return payload, landlock

    def _hand_over(self, pid: int, them: Who) -> None:
        if not them.privileged:
            self._line.tell(b"mapped", b"data")
            return
        with ExitStack() as stack:
            ids = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, ids)
            fds = []
            try:
                fds.append(kernel.detached(self._job.lower, kernel.RDONLY | kernel.NOSUID | kernel.NODEV, ids))
                stack.callback(os.close, fds[0])
            except OSError:  # a file system that cannot show its files as another's
                self._copy(them)
            fds.append(kernel.detached(self._over, kernel.NOSUID | kernel.NODEV))
            stack.callback(os.close, fds[-1])
            self._line.tell(b"mapped", b"copy" if self._copied else b"data", fds=fds)

    def _copy(self, them: Who) -> None:
        copies.copy(self._job.lower, f"{self._over}/lower", them.outside[0] if them.privileged else None)
        self._copied = True

    def _join(self, pid: int) -> None:
        try:
            self._group.take(pid)
        except OSError as error:
            raise refused("control group", f"{error.filename or ''} {error.strerror}") from error

    # ------------------------------------------------------------ watch

    def watch(self) -> Ended:
        """Let the command begin, watch it to its end, and make sure that all of it is gone."""
        job, began = self._job, monotonic()
        killed = self._group.out_of_memory if self.memory_held else None
        watch = Watch(job.limits, self._members, (self.top,), {}, killed)
        self._line.tell(b"run")
        seen = watch.until(self._line.fileno(), self._relay)
        by, left, code, cpu, peak = seen.by, 0, _KILLED, None, seen.peak_memory
        seconds = monotonic() - began
        if by is End.ITSELF:
            said = self._line.hear()
            if said is not None and said.parts[0] == b"ended":
                status, microseconds, largest = (int(part) for part in said.parts[1:])
                code = 128 - status if status < 0 else status
                cpu = microseconds / 1e6
                peak = max(peak, largest * 1024)
                left = looking.left(self._init_pid, self._members)
        elif by is End.INTERRUPT:
            code = 128 + signal.SIGINT
        if cpu is None:  # what is killed with its namespace is in nobody's account
            cpu = sum(it.seconds + it.of_children for it in looking.family(self._init_pid))
        self.kill()
        self._relay.drain()
        if by is End.ITSELF:
            by = self._afterwards(watch, code)
        return Ended(
            by=by,
            exit_code=code,
            seconds=seconds,
            cpu_seconds=cpu,
            peak_memory=self._group.peak() or peak,
            left_running=left,
            form=Form.OVERLAY,
            top=self.top,
        )

    def _afterwards(self, watch: Watch, code: int) -> End:
        """Whether a limit ended it, or was passed between the last look and the end."""
        if self._group.out_of_memory():
            return End.MEMORY
        if self._relay.exceeded:
            return End.OUTPUT
        if code == 128 + signal.SIGXFSZ:  # a single file had all that may be written
            return End.WRITTEN
        return watch.afterwards() or End.ITSELF

    def _members(self) -> list[int]:
        """What runs of the command."""
        return [it.pid for it in looking.family(self._init_pid) if it.present]

    # ------------------------------------------------------------ end

    def kill(self) -> None:
        """Kill init, and with it all that runs inside; return when nothing of it is left."""
        if self._init >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
            gone = select.poll()
            gone.register(self._init, select.POLLIN)
            gone.poll()
            os.close(self._init)
            self._init = -1
        if self._starter:
            with suppress(ProcessLookupError):
                os.kill(self._starter, signal.SIGKILL)
            os.waitpid(self._starter, 0)
            self._starter = 0
            self._line.finish()

    def _clear(self) -> None:
        for name in ("work", "lower"):
            _remove(f"{self._over}/{name}")


def _remove(path: str) -> None:
    """Remove what the overlay kept beside the layer; its directories may be closed to their owner."""
    for name in ("", "work", "work/incompat", "work/incompat/volatile"):
        with suppress(OSError):
            kernel.set_mode(f"{path}/{name}", 0o700)
    with suppress(KaiError):
        Vfs().remove_tree(path)


def _landlock() -> int:
    try:
        return kernel.call("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0
