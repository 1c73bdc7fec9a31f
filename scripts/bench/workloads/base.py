"""What a workload is: the states of a directory, one after the other, the same for the same seed."""

from __future__ import annotations

import os
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from scripts.bench import folders

SIZES = ("full", "quick", "tiny")


class Workload(ABC):
    """The states 0, 1, ... of a directory."""

    name: ClassVar[str]
    title: ClassVar[str]
    checks: ClassVar[int] = 2
    """How many versions, chosen at random, are restored and compared, beside the last."""
    statuses: ClassVar[int] = 0
    """How many times an unchanged directory is looked over."""
    switches: ClassVar[int] = 0
    """How many times the directory goes back and forth between the last two versions."""

    def __init__(self, size: str, cache: str, seed: int) -> None:
        self.size = size
        self.cache = cache
        self.seed = seed

    @property
    @abstractmethod
    def versions(self) -> int:
        """How many states there are."""

    @property
    @abstractmethod
    def figures(self) -> str:
        """How large they are, in a few words."""

    def ready(self) -> None:
        """Make what is in ``cache``, once for all runs."""
        if not os.path.isdir(self._first):
            making = self._first + ".making"
            folders.remove(making)
            os.makedirs(making)
            self.make_first(making)
            os.rename(making, self._first)

    @property
    def _first(self) -> str:
        return os.path.join(self.cache, f"{self.name}-{self.size}-{self.seed}")

    def make_first(self, directory: str) -> None:  # noqa: B027 - a small one is made at once
        """Make state 0 for ``copy_first``."""

    def copy_first(self, directory: str) -> None:
        """Bring an empty directory to state 0."""
        self.ready()
        shutil.copytree(self._first, directory, copy_function=shutil.copyfile, dirs_exist_ok=True)

    @abstractmethod
    def advance(self, directory: str, number: int) -> None:
        """Bring a directory from state ``number - 1``, or empty for 0, to state ``number``."""

    def checked(self, round_number: int, versions: int) -> Sequence[int]:
        """The states that are restored and compared, of the first ``versions``."""
        chance = self.chance("checks", round_number)
        return sorted({versions - 1, *(chance.randrange(max(1, versions - 1)) for _ in range(self.checks))})

    def chance(self, *what: object) -> random.Random:
        """Random numbers of their own for each thing, so that one does not move the others."""
        return random.Random(f"{self.seed} {self.name} {self.size} {what}")  # noqa: S311 - contents, not keys
