"""Rollback: until ``current`` has moved, and until the workspace has followed."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import kaivc
from kaivc.api import Agent
from kaivc.vfs import Path, Vfs
from scripts.bench import figures
from scripts.bench.meter import Meter

MIB = 1 << 20
CASES = {
    "full": {"12 files, 60 KB": (12, 5_000), "1,000 files, 4 MB": (1_000, 4_000), "1 file, 512 MB": (1, 512 * MIB)},
    "quick": {"12 files, 60 KB": (12, 5_000), "1,000 files, 4 MB": (1_000, 4_000), "1 file, 32 MB": (1, 32 * MIB)},
    "tiny": {"12 files, 60 KB": (12, 5_000)},
}
TURNS = {"full": 40, "quick": 6, "tiny": 2}
MOVED = "moved"


class Watching(Vfs):
    """Notes the moment at which ``current`` points elsewhere."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def rename(self, old: Path, new: Path, old_at: int | None = None, new_at: int | None = None) -> None:
        """Rename; `current` is swapped by one."""
        super().rename(old, new, old_at, new_at)
        if os.path.basename(os.fsdecode(new)) == "current":
            self._meter.mark(MOVED)


def run(size: str, place: str) -> dict[str, Any]:
    """For each case the summary of clean rollbacks, and of dirty ones."""
    meter = Meter(os.environ, in_process=True)
    found = {}
    for number, (title, (count, length)) in enumerate(CASES[size].items()):
        turns = TURNS[size] if length <= MIB else max(2, TURNS[size] // 4)
        found[title] = _case(meter, os.path.join(place, f"home{number}"), count, length, turns)
    return found


def _case(meter: Meter, path: str, count: int, length: int, turns: int) -> dict[str, Any]:
    environ = {**meter.environ, "KAI_AUTHOR": "Bench <bench@example.invalid>"}
    kaivc.init(path, environ=environ).close()
    flags = {"views.max_bytes": "16GiB"}
    home = kaivc.open(path, environ=environ, vfs=Watching(meter), flags=flags)
    agent = home.new("bench")
    chance = random.Random(count)  # noqa: S311 - contents, not keys
    for number in range(count):
        _fill(os.path.join(agent.workspace, f"part{number // 50}", f"f{number}"), chance, length)
    names = [f"v{agent.commit().version}"]
    edited = os.path.join(agent.workspace, "part0", "f0")
    _edit(edited, b"second")
    names.append(f"v{agent.commit().version}")
    for turn in range(4):
        agent.rollback(names[turn % 2])
    time.sleep(0.05)  # past what a clock cannot tell apart
    found = {"clean": figures.summary([_turn(meter, agent, names[turn % 2]) for turn in range(turns)])}
    dirty = []
    for turn in range(max(2, turns // 4)):
        _edit(edited, b"dirty %d" % turn)
        dirty.append(_turn(meter, agent, names[turn % 2]))
    found["dirty"] = figures.summary(dirty)
    home.close()
    return found


def _turn(meter: Meter, agent: Agent, name: str) -> Any:  # noqa: ANN401 - a Lap
    with meter.lap() as lap:
        agent.rollback(name)
    return lap


def _fill(path: str, chance: random.Random, length: int) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.writelines(chance.randbytes(min(MIB, length - done)) for done in range(0, length, MIB))


def _edit(path: str, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(data)
