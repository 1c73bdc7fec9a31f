"""W3: 20,000 files of 1 to 8 KB, of which each version touches a few."""

from __future__ import annotations

import os

from scripts.bench.workloads.base import Workload
from scripts.bench.workloads.words import Words

_FILES = {"full": 20_000, "quick": 1_000, "tiny": 60}
VERSIONS = 6
PER_FOLDER = 50


class Many(Workload):
    """Many small files; one in a hundred is edited, one in a thousand comes, one in a thousand goes."""

    name = "W3"
    title = "20,000 files"
    checks = 1
    statuses = 5
    switches = 6

    @property
    def versions(self) -> int:
        """The same in each size."""
        return VERSIONS

    @property
    def figures(self) -> str:
        """The files and the edits."""
        return f"{VERSIONS} versions of {_FILES[self.size]:,} files of 1-8 KB, 1 % of them edited each time"

    def advance(self, directory: str, number: int) -> None:
        """All files, or one in a hundred."""
        count = _FILES[self.size]
        if number == 0:
            self.copy_first(directory)
            return
        chance = self.chance(number)
        words = Words(chance)
        few = max(1, count // 1_000)
        gone = range((number - 1) * few, number * few)
        for file in chance.sample(range(VERSIONS * few, count), count // 100 or 1):
            path = _path(directory, file)
            with open(path, "r+b") as opened:
                data = opened.read()
                at = chance.randrange(len(data))
                opened.seek(0)
                opened.write(data[:at] + words.text(40) + data[at:])
        for file in gone:
            os.unlink(_path(directory, file))
            _write(directory, count + file, words.text(chance.randint(1_000, 8_000)))

    def make_first(self, directory: str) -> None:
        """All files."""
        chance = self.chance("first")
        words = Words(chance)
        for file in range(_FILES[self.size]):
            _write(directory, file, words.text(chance.randint(1_000, 8_000)))


def _path(directory: str, file: int) -> str:
    return os.path.join(
        directory, f"part{file // PER_FOLDER // 20:02d}", f"set{file // PER_FOLDER:04d}", f"f{file}.txt"
    )


def _write(directory: str, file: int, data: bytes) -> None:
    path = _path(directory, file)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as opened:
        opened.write(data)
