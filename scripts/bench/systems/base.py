"""What is asked of each system: keep versions of a directory, and give them back."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from scripts.bench import folders
from scripts.bench.folders import Room
from scripts.bench.meter import Meter, ProgramFailed

AUTHOR, MAIL = "Bench", "bench@example.invalid"


class System(ABC):
    """One system with one directory to keep."""

    name: ClassVar[str]
    used: ClassVar[str]
    """How it is used here, in a few words."""
    in_process: ClassVar[bool] = False
    peers: ClassVar[bool] = False
    """Whether it is a Python package of the peers' own environment."""
    judged: ClassVar[Sequence[str]] = ()
    """The workloads where our own figures are held against it: in the others it runs in the first round only."""
    workloads: ClassVar[Sequence[str]] = ("W1", "W2", "W3", "W4")
    fewer: ClassVar[Mapping[str, int]] = {}
    """How many versions of a workload it is given at most: what takes seconds each needs no thousand of them."""
    without: ClassVar[Sequence[str]] = ()
    """What it keeps at the root of the workspace for itself."""

    def __init__(self, place: str, meter: Meter) -> None:
        self.place = place
        self.meter = meter

    # ------------------------------------------------------------ where

    @property
    def workspace(self) -> str:
        """The directory that is kept."""
        return os.path.join(self.place, "workspace")

    @property
    def store(self) -> str:
        """Where the versions lie."""
        return os.path.join(self.place, "store")

    # ------------------------------------------------------------ what

    @classmethod
    @abstractmethod
    def version(cls, meter: Meter) -> str | None:
        """Which release is there; None for none."""

    @abstractmethod
    def prepare(self) -> None:
        """Make an empty store, and an empty workspace."""

    @abstractmethod
    def commit(self, number: int) -> None:
        """Keep the workspace as version ``number``."""

    @abstractmethod
    def restore(self, number: int, to: str) -> str:
        """Bring version ``number`` to the new directory ``to``, or to where it can be had; the directory."""

    def tidy(self) -> bool:
        """Do what the system has for making its store smaller; False where it has nothing."""
        return False

    def status(self) -> bool:
        """Say whether the workspace differs from the newest version; False where it has no such command."""
        return False

    def switch(self, number: int) -> bool:  # noqa: ARG002 - most have nothing to do
        """Bring the workspace to version ``number``; False where it has no such command."""
        return False

    def sizes(self) -> dict[str, Room]:
        """The room that ``store`` takes, as a whole, and of its parts."""
        return {"store": folders.room(self.store)}

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of everything."""


def program_version(meter: Meter, *command: str) -> str | None:
    """The first number that a program says of itself; None if it is not there or does not work."""
    if shutil.which(command[0]) is None:
        return None
    try:
        found = re.search(r"\d+(\.\d+)*", meter.run(*command))
    except ProgramFailed:
        return None
    return found[0] if found else None


def package_version(module: str, package: str) -> str | None:
    """The release of a Python package; None if it is not there."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - only the peers ask

    try:
        return version(package) if importlib.util.find_spec(module) else None
    except PackageNotFoundError:
        return None
