"""Runs tasks in processes of their own, system by system, round by round; keeps what there is after each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from scripts.bench import disk, folders, machine, memory, systems, workloads
from scripts.bench.results import LEFT_OUT, Results
from scripts.bench.workloads.releases import NoReleases

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = os.path.join(ROOT, ".bench", "peers", "bin", "python")
HISTORIES = ("W1", "W2", "W3", "W4")
ALONE = {"startup": "startup", "rollback": "moves", "memory": "memory", "transfer": "transfer", "W5": "growth"}
SECTIONS = (*ALONE, *HISTORIES)
PROFILED = "kai"
ENOUGH = 5.0
"""Seconds that a task is given at least."""


@dataclass(frozen=True)
class Plan:
    """What is to be run. ``limit`` is for one task, ``total`` for everything, in seconds; ``say`` hears how it goes."""

    size: str
    sections: Sequence[str]
    systems: Sequence[str]
    rounds: int
    limit: float
    total: float
    scratch: str | None
    say: Callable[[str], None]


class Runner:
    """One run of the benchmark."""

    def __init__(self, plan: Plan, results: Results, keep: Callable[[Results], None]) -> None:
        self._plan = plan
        self._results = results
        self._keep = keep
        self._end = self._until = time.monotonic() + plan.total

    def run(self) -> None:
        """Every section that is planned; the results are kept after each task."""
        with _scratch(self._plan.scratch) as scratch:
            self._scratch = scratch
            disk.spread(scratch)
            self._probe()
            self._keep(self._results)
            for number, section in enumerate(self._plan.sections):
                began = time.monotonic()
                source, create = machine.source(ROOT), disk.creation(scratch)
                # What one section leaves of its share the next ones have.
                self._until = began + (self._end - began) / (len(self._plan.sections) - number)
                for found in self._history(section) if section in HISTORIES else self._alone(section):
                    seconds = round(time.monotonic() - began)
                    self._results.sections[section] = {
                        "source": source,
                        "seconds": seconds,
                        "create_us": create,
                        **found,
                    }
                    self._keep(self._results)

    # ------------------------------------------------------------ sections

    def _probe(self) -> None:
        """Which systems are there."""
        for name in self._plan.systems:
            kind = systems.kind(name)
            found = self._task(name, {"task": "probe", "system": name}, 60)
            self._results.systems[name] = {"used": kind.used, "version": found.get("version")}
        there = [f"{name} {facts['version']}" for name, facts in self._results.systems.items() if facts["version"]]
        self._plan.say(f"systems: {', '.join(there)}")

    def _history(self, name: str) -> Iterator[dict[str, Any]]:
        """Round by round, each system in turn: what slows the machine down slows all of them. What there is so far."""
        cache = os.path.join(self._scratch, "cache")
        os.makedirs(cache, exist_ok=True)
        workload = workloads.make(name, self._plan.size, cache)
        self._plan.say(f"{name}: {workload.title}")
        try:
            workload.ready()
        except NoReleases as error:
            self._plan.say(f"{name}: left out: {error}")
            yield {"title": workload.title, "left_out": str(error)}
            return
        chosen = [system for system in self._plan.systems if name in systems.kind(system).workloads]
        chosen.sort(key=lambda system: name not in systems.kind(system).judged)  # they come first where time is short
        runs: dict[str, list[dict[str, Any]]] = {system: [] for system in chosen}
        for number in range(self._plan.rounds):
            for system in chosen[number:] + chosen[:number]:
                if number == 0 or (name in systems.kind(system).judged and not runs[system][0].get("failed")):
                    runs[system].append(self._one(name, system, number, cache))
                    yield {"title": workload.title, "figures": workload.figures, "runs": runs}
        if PROFILED in chosen:
            found = self._one(name, PROFILED, 0, cache, profile=True)
            yield {"title": workload.title, "figures": workload.figures, "runs": runs, **found}
        folders.remove(cache)

    def _one(self, workload: str, system: str, number: int, cache: str, *, profile: bool = False) -> dict[str, Any]:
        if self._results.systems[system]["version"] is None:
            return {"failed": "not installed here"}
        words = {"task": "history", "system": system, "workload": workload, "round": number, "cache": cache}
        task = {**words, "profile": profile}
        began = time.monotonic()
        found = self._task(system, task, self._plan.limit)
        outcome = found.get("failed") or (found.get("invalid") and f"invalid: {found['invalid']}") or "well"
        what = "with a profile" if profile else f"round {number + 1}"
        self._say(f"{workload} {what}: {system}", began, outcome)
        return found

    def _alone(self, section: str) -> Iterator[dict[str, Any]]:
        """What kaivc is measured at without a peer, so far."""
        module = ALONE[section]
        cases = tuple(memory.CASES[self._plan.size]) if module == "memory" else ("",)
        found: dict[str, Any] = {}
        for case in cases:
            began = time.monotonic()
            task = {"task": module, **({"case": case} if case else {})}
            run = self._task("kai", task, 4 * self._plan.limit)
            found = {**found, case: run} if case else run
            self._say(f"{section} {case}".strip(), began, run.get("failed", "well"))
            yield {"run": found}

    def _say(self, what: str, began: float, outcome: str) -> None:
        self._plan.say(f"{what}: {time.monotonic() - began:.0f} s, {outcome}")

    # ------------------------------------------------------------ one task

    def _task(self, system: str, task: Mapping[str, Any], limit: float) -> dict[str, Any]:
        """Run a task in a new place; what it found, or why it found nothing."""
        left = self._until - time.monotonic()
        if left < ENOUGH:
            return {"failed": LEFT_OUT}
        place = tempfile.mkdtemp(prefix="run-", dir=self._scratch)
        try:
            return self._child(system, {**task, "size": self._plan.size, "place": place, "limit": min(limit, left)})
        finally:
            disk.retire(place)

    def _child(self, system: str, task: dict[str, Any]) -> dict[str, Any]:
        place, limit = task["place"], task["limit"]
        task["result"] = os.path.join(place, "result.json")
        python = PEERS if systems.kind(system).peers and os.path.exists(PEERS) else sys.executable
        log = os.path.join(place, "errors")
        with open(log, "wb") as errors:
            process = subprocess.Popen(
                [python, "-m", "scripts.bench.child"],
                cwd=ROOT,
                env=_environ(place),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        with _ended_after(process, limit) as late:
            assert process.stdin is not None  # noqa: S101 - a pipe was asked for
            assert process.stdout is not None  # noqa: S101 - as above
            with process.stdin as stdin:
                json.dump(task, stdin)
            for line in process.stdout:
                self._plan.say(line.rstrip("\n"))
            process.wait()
        if late:
            return {"failed": f"not done after {limit:.0f} s"}
        try:
            with open(task["result"], encoding="utf-8") as file:
                found: dict[str, Any] = json.load(file)
        except (OSError, ValueError):
            return {"failed": f"ended with {process.returncode}, without a result"}
        if "failed" in found:  # what a program says may name where it ran: a report names no place of a machine
            found["failed"] = found["failed"].replace(self._scratch, "SCRATCH")
        return found


def _environ(place: str) -> dict[str, str]:
    """The same for all, with a home and scratch of its own."""
    home, scratch = os.path.join(place, "home-directory"), os.path.join(place, "tmp")
    for path in (home, scratch):
        os.makedirs(path)
    return {
        "HOME": home,
        "TMPDIR": scratch,
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": ROOT,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "GIT_CONFIG_NOSYSTEM": "1",
        "KAI_AUTHOR": "Bench <bench@example.invalid>",
    }


@contextmanager
def _ended_after(process: subprocess.Popen[str], seconds: float) -> Iterator[list[bool]]:
    """End a process, and what it started, when its time is up or when we leave; the list is not empty then."""
    late: list[bool] = []

    def end(_number: int, _frame: object) -> None:
        late.append(True)
        _kill(process)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield late
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if process.poll() is None:
            _kill(process)
            process.wait()


def _kill(process: subprocess.Popen[str]) -> None:
    """Its session is its own: the group holds nothing but what it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _scratch(parent: str | None) -> Iterator[str]:
    directory = os.path.realpath(tempfile.mkdtemp(prefix="kai-bench-", dir=parent))
    try:
        yield directory
    finally:
        folders.remove(directory)
