"""The workloads with a history, by name. W5 is a home, not a history: scripts/bench/growth.py."""

from __future__ import annotations

from scripts.bench.workloads.base import Workload
from scripts.bench.workloads.large import Large
from scripts.bench.workloads.many import Many
from scripts.bench.workloads.releases import Releases
from scripts.bench.workloads.small import Small

HISTORIES: dict[str, type[Workload]] = {kind.name: kind for kind in (Small, Large, Many, Releases)}
SEED = 20_260_701


def make(name: str, size: str, cache: str, seed: int = SEED) -> Workload:
    """A workload in one of its sizes: full, quick or tiny. ``cache`` is where files are that it need not make anew."""
    return HISTORIES[name](size, cache, seed)
