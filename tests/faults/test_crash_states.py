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
from tests.faults.stories import STORIES, Story

OUTSIDE = {"new-link"}
"""Commands whose files lie beside the home, where nothing is recorded."""
MORE = 600
"""Random choices after each step, in the full run; a third as many in a tenth, for drawing them takes its time, too."""
SHORT = 12
"""Steps of a command that is cut everywhere on each run: a tenth of its states would be next to nothing."""
MORE_OF_TWO = 16
"""Of those commands that others went before."""
EVERYWHERE = [(STORIES[name], MORE) for name in STORIES if name not in OUTSIDE]
EVERYWHERE += [(story, MORE_OF_TWO) for story in SEQUENCES.values()]


@pytest.mark.parametrize(("story", "more"), EVERYWHERE, ids=[story.name for story, _ in EVERYWHERE])
def test_every_state_is_whole(
    story: Story, more: int, share: float, seed: int, memory: Path, figure: Callable[..., None]
) -> None:
    recorded = record(story, memory)
    steps = len(recorded.log) - recorded.start
    some = 1.0 if steps <= SHORT else share
    more = more if share == 1 else more // 3
    result = cut_everywhere(recorded, memory, random.Random(seed), share=some, more=more)
    figure(f"{result.states} states of {steps} steps, {dict(result.outcomes)}", crash_states=result.states)
    assert not result.corrupt, "\n".join(map(str, result.corrupt))
    assert some < 1 or result.outcomes["after"] > 0
