"""From single laps to the figures that are kept: medians, sums, and how they went as the history grew."""

from __future__ import annotations

import pstats
from collections.abc import Sequence
from cProfile import Profile
from statistics import median
from typing import Any

from scripts.bench.meter import Lap

PARTS = 10
FUNCTIONS = 12
"""How many lines of a profile are kept."""


def summary(laps: Sequence[Lap]) -> dict[str, Any]:
    """Medians in seconds, sums, the largest peak in bytes; for a mark ``m`` also ``m_wall`` and ``m_cpu``."""
    if not laps:
        return {}
    found: dict[str, Any] = {
        "count": len(laps),
        "wall": _seconds([lap.wall for lap in laps]),
        "cpu": _seconds([lap.cpu for lap in laps]),
        "wall_sum": round(sum(lap.wall for lap in laps), 6),
        "cpu_sum": round(sum(lap.cpu for lap in laps), 6),
        "peak": max(lap.peak for lap in laps),
    }
    for mark in laps[0].marks:
        found[f"{mark}_wall"] = _seconds([lap.marks[mark][0] for lap in laps if mark in lap.marks])
        found[f"{mark}_cpu"] = _seconds([lap.marks[mark][1] for lap in laps if mark in lap.marks])
    return found


def parts(laps: Sequence[Lap]) -> list[float]:
    """Median CPU seconds of each tenth of the laps."""
    size = max(1, len(laps) // PARTS)
    starts = range(0, len(laps) - size + 1, size)
    return [_seconds([lap.cpu for lap in laps[at : at + size]]) for at in starts][:PARTS]


def profile(profiled: Profile) -> list[list[Any]]:
    """The functions that take the most time themselves: share of all, calls, seconds, and where each stands."""
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = pstats.Stats(profiled).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values()) or 1.0
    most = sorted(stats.items(), key=lambda item: -item[1][2])[:FUNCTIONS]
    return [[round(own / total, 3), calls, round(own, 4), _place(*where)] for where, (_, calls, own, _, _) in most]


def _place(file: str, line: int, name: str) -> str:
    at = file.rpartition("/kaivc/")
    if at[1]:
        return f"kaivc/{at[2]}:{line} {name}"
    place = name if file in ("~", "") else f"{file.rpartition('/')[2]}:{line} {name}"
    return place.replace("<", "").replace(">", "")  # "<built-in method posix.open>" is no markup


def middle(runs: Sequence[dict[str, Any]], *keys: str) -> float | None:
    """The median over the rounds of one figure; None if no round has it."""
    found = []
    for run in runs:
        value: Any = run
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            found.append(float(value))
    return median(found) if found else None


def _seconds(values: Sequence[float]) -> float:
    return round(median(values), 6)
