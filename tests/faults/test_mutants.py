"""Each deliberate mistake is caught, each alone, on each run."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.crash import cut_everywhere, record
from tests.faults.mutants import MUTANTS, Mutant
from tests.faults.sequences import SEQUENCES
from tests.faults.stories import STORIES


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda it: it.name.replace(" ", "-"))
def test_each_is_caught(
    mutant: Mutant, seed: int, memory: Path, figure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.make(monkeypatch)
    recorded = record((STORIES | SEQUENCES)[mutant.story], memory)
    result = cut_everywhere(recorded, memory, random.Random(seed), more=4, stop_at=1)
    assert result.corrupt, f"{result.states} states, and nothing found"
    figure(f"caught in state {result.states}: {result.corrupt[0][2][:90]}", mutants_caught=1)
