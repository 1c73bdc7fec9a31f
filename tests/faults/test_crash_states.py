"""The power goes at every step of every command; whatever the disk then holds must be whole.

SQLite's own files are modelled by what it documents: see ``recording.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.crash import cut_everywhere, record
from tests.faults.sequences import SEQUENCES
from tests.faults.stories import STORIES

OUTSIDE = {"new-link"}
"""Commands whose files lie beside the home, where nothing is recorded."""
MORE = 300
"""Random choices after each step, in the full run."""
SHORT = 12
"""Steps of a command that is cut everywhere on each run: a tenth of its states would be next to nothing."""
MORE_OF_TWO = 8
"""Of those commands that others went before."""


@pytest.mark.parametrize("name", [name for name in STORIES if name not in OUTSIDE])
def test_every_state_is_whole(name: str, share: float, seed: int, memory: Path, figure: Callable[..., None]) -> None:
    recorded = record(STORIES[name], memory)
    steps = len(recorded.log) - recorded.start
    some = 1.0 if steps <= SHORT else share
    result = cut_everywhere(recorded, memory, random.Random(seed), share=some, more=MORE)
    figure(f"{result.states} states of {steps} steps, {dict(result.outcomes)}", crash_states=result.states)
    assert not result.corrupt, "\n".join(map(str, result.corrupt))
    assert some < 1 or result.outcomes["after"] > 0


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_state_is_whole_where_another_command_went_before(
    name: str, share: float, seed: int, memory: Path, figure: Callable[..., None]
) -> None:
    recorded = record(SEQUENCES[name], memory)
    steps = len(recorded.log) - recorded.start
    some = 1.0 if steps <= SHORT else share
    result = cut_everywhere(recorded, memory, random.Random(seed), share=some, more=MORE_OF_TWO)
    figure(f"{result.states} states of {steps} steps, {dict(result.outcomes)}", crash_states=result.states)
    assert not result.corrupt, "\n".join(map(str, result.corrupt))
    assert some < 1 or result.outcomes["after"] > 0
