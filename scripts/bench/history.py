"""One system through one workload: each version committed, some restored and compared byte for byte."""

from __future__ import annotations

import os
from typing import Any

from scripts.bench import figures, folders, systems, workloads
from scripts.bench.folders import Contents, Room
from scripts.bench.meter import Lap, Meter
from scripts.bench.systems.base import System
from scripts.bench.workloads.base import Workload

FEW = {"quick": 5, "tiny": 3}
"""Versions of a small workload, for systems that are given fewer."""


def run(
    system: str, workload: str, size: str, round_number: int, cache: str, place: str, *, profile: bool = False
) -> dict[str, Any]:
    """The figures of one run. What was restored wrongly is in ``invalid``, or it is empty.

    With ``profile`` it says instead where the time of each step goes.
    """
    kind = systems.kind(system)
    meter = Meter(os.environ, in_process=kind.in_process)
    meter.profiles = {} if profile else None
    history = _History(kind(place, meter), workloads.make(workload, size, cache), meter, round_number)
    try:
        found = history.run()
        if meter.profiles is None:
            return found
        return {"profile": {step: figures.profile(it) for step, it in meter.profiles.items()}}
    finally:
        history.system.close()


def versions(kind: type[System], workload: Workload) -> int:
    """How many versions of a workload a system is given."""
    fewer = kind.fewer.get(workload.name)
    if fewer is None:
        return workload.versions
    return min(workload.versions, FEW.get(workload.size, fewer))


class _History:
    def __init__(self, system: System, workload: Workload, meter: Meter, round_number: int) -> None:
        self.system = system
        self._workload = workload
        self._meter = meter
        self._count = versions(type(system), workload)
        self._checked = list(workload.checked(round_number, self._count))
        self._wanted: dict[int, Contents] = {}
        self._invalid = ""
        self._restored = 0

    def run(self) -> dict[str, Any]:
        self.system.prepare()
        commits = self._commits()
        found: dict[str, Any] = {
            "versions": self._count,
            "first": figures.summary(commits[:1]),
            "next": figures.summary(commits[1:]),
            "next_parts": figures.parts(commits[1:]),
            "workspace": _sizes({"workspace": folders.room(self.system.workspace)})["workspace"],
        }
        found["status"] = figures.summary(self._statuses())
        found["switch"] = figures.summary(self._switches())
        found["sizes"] = _sizes(self.system.sizes())
        found["restore"] = figures.summary([self._restore(number) for number in self._checked])
        with self._meter.lap("tidy") as lap:
            tidied = self.system.tidy()
        if tidied:
            found["tidy"] = figures.summary([lap])
            found["tidy_sizes"] = _sizes(self.system.sizes())
            self._restore(self._checked[0])
        found["invalid"] = self._invalid
        return found

    def _commits(self) -> list[Lap]:
        laps = []
        kept = {*self._checked, *(range(self._count - 2, self._count) if self._workload.switches else ())}
        for number in range(self._count):
            self._workload.advance(self.system.workspace, number)
            if number in kept:
                self._wanted[number] = folders.contents(self.system.workspace, self.system.without)
            with self._meter.lap("next commit" if number else "first commit") as lap:
                self.system.commit(number)
            laps.append(lap)
        return laps

    def _statuses(self) -> list[Lap]:
        laps = []
        for _ in range(self._workload.statuses):
            with self._meter.lap("status") as lap:
                known = self.system.status()
            if not known:
                return []
            laps.append(lap)
        return laps

    def _switches(self) -> list[Lap]:
        """Back and forth between the last two versions, and compared each time; the first two are to warm up."""
        laps = []
        for turn in range(self._workload.switches + 2 if self._workload.switches else 0):
            number = self._count - 2 + turn % 2
            with self._meter.lap("switch") as lap:
                known = self.system.switch(number)
            if not known:
                return []
            self._compare(number, self.system.workspace, "after a switch")
            laps.append(lap)
        return laps[2:]

    def _restore(self, number: int) -> Lap:
        self._restored += 1  # one that is removed would slow the next one down: see disk.py
        to = os.path.join(self.system.place, f"restored-{self._restored}")
        with self._meter.lap("restore") as lap:
            found = self.system.restore(number, to)
        self._compare(number, found, "restored")
        return lap

    def _compare(self, number: int, directory: str, what: str) -> None:
        found = folders.contents(directory, self.system.without)
        wrong = folders.difference(found, self._wanted[number])
        if wrong and not self._invalid:
            self._invalid = f"version {number} {what}: {wrong}"


def _sizes(sizes: dict[str, Room]) -> dict[str, list[int]]:
    return {name: [room.apparent, room.allocated] for name, room in sizes.items()}
