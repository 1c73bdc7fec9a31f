"""The power goes at every step of every command; whatever the disk then holds must be whole.

SQLite's own files are modelled by what it documents: see ``recording.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.crash import cut_everywhere, record
from tests.faults.stories import STORIES

OUTSIDE = {"new-link"}
"""Commands whose files lie beside the home, where nothing is recorded."""
MORE = 600
"""Random choices after each step, in the full run."""


@pytest.mark.parametrize("name", [name for name in STORIES if name not in OUTSIDE])
def test_every_state_is_whole(name: str, share: float, seed: int, memory: Path, figure: Callable[..., None]) -> None:
    recorded = record(STORIES[name], memory)
    result = cut_everywhere(recorded, memory, random.Random(seed), share=share, more=MORE)
    steps = len(recorded.log) - recorded.start
    figure(f"{result.states} states of {steps} steps, {dict(result.outcomes)}", crash_states=result.states)
    assert not result.corrupt, "\n".join(map(str, result.corrupt))
    assert share < 1 or result.outcomes["after"] > 0
