"""W1: an agent of 12 files that commits its state after each step."""

from __future__ import annotations

import json
import os
from typing import Any

from scripts.bench.workloads.base import Workload
from scripts.bench.workloads.words import Words

_COUNTS = {"full": 1_000, "quick": 60, "tiny": 4}
STATE = "state/memory.json"
STATE_BYTES = 40_000
OTHERS = ("main.py", "tools.py", "planner.py", "config.yaml", "prompts/system.md", "prompts/plan.md", "prompts/act.md")
SMALL = ("README.md", "requirements.txt", "state/cursor.txt", "tests/smoke.py")


class Small(Workload):
    """Twelve files of 60 KB, one state of 40 KB of which a few entries change each time."""

    name = "W1"
    title = "1,000 small versions"
    checks = 8

    @property
    def versions(self) -> int:
        """As many as the size says."""
        return _COUNTS[self.size]

    @property
    def figures(self) -> str:
        """The files and the edit."""
        return f"{self.versions:,} versions of 12 files, 60 KB in all, a 40 KB JSON state edited each time"

    def advance(self, directory: str, number: int) -> None:
        """The first state, or three entries of the memory and a counter."""
        chance = self.chance(number)
        words = Words(chance)
        if number == 0:
            for name in OTHERS:
                _write(directory, name, words.text(2_560))
            for name in SMALL:
                _write(directory, name, words.text(520))
            entries: list[dict[str, Any]] = []
            size = 0
            while size < STATE_BYTES - 200:
                entries.append({"id": len(entries), "at": chance.random(), "note": words.sentence(12)})
                size += len(json.dumps(entries[-1])) + 2
        else:
            with open(os.path.join(directory, STATE), encoding="utf-8") as file:
                entries = json.load(file)
            for _ in range(3):
                entry = chance.choice(entries)
                entry["at"], entry["note"] = chance.random(), words.sentence(12)
        _write(directory, STATE, ("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n").encode())


def _write(directory: str, name: str, data: bytes) -> None:
    path = os.path.join(directory, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
