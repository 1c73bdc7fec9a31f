"""Text as people and programs write it: words of a small vocabulary, with their own frequencies."""

from __future__ import annotations

import random

_SYLLABLES = (
    "ba be bi ca co da de di fa fo ga ge ha hi ka ko la le li ma me mo na ne no pa po ra re ri sa se so ta te to"
)


class Words:
    """Sentences from a vocabulary."""

    def __init__(self, chance: random.Random, size: int = 2_000) -> None:
        self._chance = chance
        parts = _SYLLABLES.split()
        self._words = ["".join(chance.choices(parts, k=chance.randint(1, 4))) for _ in range(size)]
        self._weights = [0.0]
        for rank in range(1, size + 1):
            self._weights.append(self._weights[-1] + 1 / rank)
        del self._weights[0]

    def sentence(self, count: int) -> str:
        """``count`` words."""
        return " ".join(self._chance.choices(self._words, cum_weights=self._weights, k=count))

    def text(self, size: int) -> bytes:
        """Lines of exactly ``size`` bytes in all."""
        lines: list[str] = []
        length = 0
        while length < size:
            lines.append(self.sentence(self._chance.randint(4, 14)) + "\n")
            length += len(lines[-1])
        return "".join(lines).encode()[:size]
