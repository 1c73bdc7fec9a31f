"""W5: what commands cost as a home grows to 100,000 versions over 1,000 agents."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import kaivc
from kaivc.api import Agent, Home
from kaivc.vfs import Path, Vfs
from scripts.bench import figures, folders
from scripts.bench.meter import Lap, Meter
from scripts.bench.systems.kai import mark_durable

SIZES = {"full": (100, 1_000, 10_000, 100_000), "quick": (20, 200, 1_000), "tiny": (4, 8)}
PER_AGENT = {"full": 100, "quick": 20, "tiny": 2}
TURNS = {"full": 25, "quick": 10, "tiny": 2}
WORKERS = 2
STEP = 1_000
"""Versions after which a line of progress is due."""


class Unsynced(Vfs):
    """Fills a home without waiting for the disk; what is measured is synced as ever."""

    def sync(self, fd: int) -> None:
        """Nothing."""

    def sync_dir(self, path: Path) -> None:
        """Nothing."""

    def sync_disk(self) -> None:
        """Nothing."""


def run(size: str, place: str, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """For each size that was reached, the summary of each command; ``stopped`` says where it ended early.

    It grows for ``seconds`` at most.
    """
    bench = _Growth(size, os.path.join(place, "home"), seconds)
    found: dict[str, Any] = {"sizes": [], "stopped": ""}
    for versions in SIZES[size]:
        if not bench.grow(versions, say):
            found["stopped"] = f"at {bench.versions:,} versions, after {seconds:,.0f} s"
            break
        found["sizes"].append(bench.measure())
        say(f"W5: {bench.versions:,} versions measured")
    return found


class _Growth:
    def __init__(self, size: str, path: str, seconds: float) -> None:
        self._size = size
        self._path = path
        self._meter = Meter(os.environ, in_process=True)
        self._environ = {**self._meter.environ, "KAI_AUTHOR": "Bench <bench@example.invalid>"}
        self._until = time.monotonic() + seconds
        self.versions = 0
        kaivc.init(path, environ=self._environ).close()
        mark_durable(self._meter)

    # ------------------------------------------------------------ growing

    def grow(self, versions: int, say: Callable[[str], None]) -> bool:
        """Add agents of 100 versions each until there are so many; False when the time is up before."""
        per_agent = PER_AGENT[self._size]
        names = [f"agent-{number:05d}" for number in range(self.versions // per_agent, versions // per_agent)]
        with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
            for made in pool.map(partial(_fill, self._path, self._environ, per_agent), names):
                self.versions += made
                if self.versions % STEP < per_agent:
                    say(f"W5: {self.versions:,} of {versions:,} versions")
                if time.monotonic() > self._until:
                    pool.shutdown(cancel_futures=True)
                    return False
        return True

    # ------------------------------------------------------------ measuring

    def measure(self) -> dict[str, Any]:
        """Each command, on an agent that is as deep at each size."""
        turns = TURNS[self._size]
        opened = [self._lap(self._open_and_close) for _ in range(turns)]
        home = self._open()
        agent = home.new(f"probe-{self.versions}")
        _grow_agent(agent, 4)
        agent.rollback("v1.0.2")
        agent.rollback("v1.0.3")
        commits = []
        for turn in range(turns):
            _step(agent, 100 + turn)
            commits.append(self._lap(agent.commit))
        names = [f"v1.0.{turns + 2 + turn % 2}" for turn in range(turns)]
        found = {
            "versions": self.versions,
            "agents": len(home.agents()),
            "open": figures.summary(opened),
            "commit": figures.summary(commits),
            "rollback": figures.summary([self._lap(partial(agent.rollback, name)) for name in names]),
            "status": figures.summary([self._lap(agent.status) for _ in range(turns)]),
            "log": figures.summary([self._lap(lambda: agent.log(limit=20)) for _ in range(turns)]),
            "gc": figures.summary([self._lap(agent.gc)]),
        }
        home.close()
        kai = os.path.join(self._path, ".kai")
        found["catalog"] = folders.room(os.path.join(kai, "catalog.sqlite")).apparent
        found["packs"] = folders.room(os.path.join(kai, "packs")).apparent
        return found

    def _open(self) -> Home:
        return kaivc.open(self._path, environ=self._environ)

    def _open_and_close(self) -> None:
        home = self._open()
        home.agent("agent-00000")
        home.close()

    def _lap(self, step: Callable[[], object]) -> Lap:
        with self._meter.lap() as lap:
            step()
        return lap


def _fill(path: str, environ: dict[str, str], versions: int, name: str) -> int:
    """In a process of its own: add one agent; how many versions that is."""
    home = kaivc.open(path, environ=environ, vfs=Unsynced(), flags={"views.keep": "2"})
    _grow_agent(home.new(name), versions)
    home.close()
    return versions


def _grow_agent(agent: Agent, versions: int) -> None:
    (agent.workspace / "main.py").write_text(f"print({agent.name!r})\n", encoding="utf-8")
    for number in range(versions):
        _step(agent, number)
        agent.commit()


def _step(agent: Agent, number: int) -> None:
    lines = "".join(f"{agent.name} remembers {at} at {number if at % 7 == number % 7 else at}\n" for at in range(40))
    (agent.workspace / "state.txt").write_text(lines, encoding="utf-8")
