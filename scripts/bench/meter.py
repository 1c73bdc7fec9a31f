"""CPU seconds, wall seconds and peak memory of this process, or of the processes that it starts."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from cProfile import Profile
from dataclasses import dataclass, field

KIB = 1024
WORDS = 600
"""Characters of what a failed program said that are passed on."""


class ProgramFailed(Exception):
    """A program of a peer ended with another status than 0; what it said is the text."""


@dataclass
class Lap:
    """What one step took. ``marks`` are (wall, CPU) from its start to a moment within it."""

    wall: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    marks: dict[str, tuple[float, float]] = field(default_factory=dict)


class Meter:
    """Measures one step at a time.

    With ``in_process`` the work of this process counts, and that of its children; else only that of the programs that
    it runs: what this process does to start them is the harness's own.
    """

    def __init__(self, environ: Mapping[str, str], *, in_process: bool) -> None:
        self.environ = dict(environ)
        self.in_process = in_process
        self._peak = 0
        self._lap = Lap()
        self._wall = self._cpu = 0.0
        self.profiles: dict[str, Profile] | None = None
        """Where profiles of each step go; None to measure without one."""

    @contextmanager
    def lap(self, step: str = "") -> Iterator[Lap]:
        """Measure what is done within; the figures are there afterwards."""
        lap = self._lap = Lap()
        self._peak = 0
        if self.in_process:
            forget_peak()
        self._cpu, self._wall = self._cpu_now(), time.perf_counter()
        with self._profiled(step):
            yield lap
        lap.wall, lap.cpu = time.perf_counter() - self._wall, self._cpu_now() - self._cpu
        lap.peak = max(self._peak, own_peak() if self.in_process else 0)

    @contextmanager
    def _profiled(self, step: str) -> Iterator[None]:
        if self.profiles is None:
            yield
            return
        with self.profiles.setdefault(step, Profile()):
            yield

    def mark(self, name: str) -> None:
        """Note how far the step is."""
        self._lap.marks[name] = time.perf_counter() - self._wall, self._cpu_now() - self._cpu

    def _cpu_now(self) -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = children.ru_utime + children.ru_stime
        if self.in_process:
            own = resource.getrusage(resource.RUSAGE_SELF)
            used += own.ru_utime + own.ru_stime
        return used

    def run(
        self, *command: str, cwd: str | None = None, environ: Mapping[str, str] | None = None, discard: bool = False
    ) -> str:
        """Run a program to its end; what it printed, unless that is to go. ProgramFailed unless it ended with 0."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**self.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if discard else out,
                stderr=err,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self._peak = max(self._peak, usage.ru_maxrss * KIB)
            out.seek(0)
            err.seek(0)
            said = out.read().decode(errors="replace")
            if process.returncode:
                words = (err.read().decode(errors="replace").strip() or said.strip())[-WORDS:]
                raise ProgramFailed(f"{os.path.basename(command[0])} ended with {process.returncode}: {words}")
        return said


def forget_peak() -> None:
    """Let the peak memory of this process be what it uses now."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def own_peak() -> int:
    """The most memory that this process had since then, in bytes."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
