"""W4: successive real releases of an open-source agent package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from scripts.bench import folders
from scripts.bench.workloads.base import Workload

PACKAGE = "smolagents"
_COUNTS = {"full": 12, "quick": 3, "tiny": 3}


class NoReleases(Exception):
    """The package index cannot be reached, or has too few."""


class Releases(Workload):
    """Each release replaces all files of the one before, as an upgrade does."""

    name = "W4"
    title = f"Successive releases of {PACKAGE}"
    statuses = 3

    @property
    def versions(self) -> int:
        """As many as were fetched."""
        return len(self._folders())

    @property
    def figures(self) -> str:
        """Which releases."""
        names = [os.path.basename(path).partition(" ")[2] for path in self._folders()]
        return (
            f"{len(names)} releases of {PACKAGE}, {names[0]} to {names[-1]}, the files of each replaced by the next's"
        )

    @property
    def _place(self) -> str:
        return os.path.join(self.cache, f"{self.name}-{self.size}")

    def _folders(self) -> list[str]:
        return sorted(os.path.join(self._place, name) for name in os.listdir(self._place))

    def ready(self) -> None:
        """Fetch and unpack the releases; NoReleases where that is not possible."""
        if os.path.isdir(self._place):
            return
        making = self._place + ".making"
        folders.remove(making)
        os.makedirs(making)
        count = str(_COUNTS[self.size])
        command = [sys.executable, "-m", "scripts.bench.workloads.fetch", PACKAGE, count, making]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            folders.remove(making)
            raise NoReleases((done.stderr.strip().splitlines() or ["no word why"])[0])
        os.rename(making, self._place)

    def advance(self, directory: str, number: int) -> None:
        """All files of a release, and no others."""
        releases = self._folders()
        if number:
            _take_away(releases[number - 1], directory)
        shutil.copytree(releases[number], directory, copy_function=shutil.copyfile, dirs_exist_ok=True)


def _take_away(release: str, directory: str) -> None:
    """Remove the files of a release, and the directories that are empty then."""
    for parent, _, names in os.walk(release, topdown=False):
        place = os.path.normpath(os.path.join(directory, os.path.relpath(parent, release)))
        for name in names:
            os.unlink(os.path.join(place, name))
        if place != directory and not os.listdir(place):
            os.rmdir(place)
