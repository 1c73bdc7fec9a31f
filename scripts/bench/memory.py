"""The most memory that each command takes: one very large file, and very many files."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

from scripts.bench import figures
from scripts.bench.meter import Meter, ProgramFailed
from scripts.bench.startup import program

MIB = 1 << 20
CASES = {
    "full": {"blob": 2048 * MIB, "tree": 200_000},
    "quick": {"blob": 32 * MIB, "tree": 500},
    "tiny": {"blob": MIB, "tree": 40},
}
PIECE = 4 * MIB
NIBBLES = bytes(value & 0x0F for value in range(256))
"""Makes half of the blob compressible."""
PER_FOLDER = 200
BOUND = 256 * MIB
PER_OBJECT = 1024
"""The "small constant per object" of the bound, in bytes."""


def objects(case: str, amount: int) -> int:
    """About how many objects a case has."""
    return amount if case == "tree" else 1


def bound(case: str, amount: int) -> int:
    """What no command may take more memory than."""
    return BOUND + PER_OBJECT * objects(case, amount)


def run(case: str, size: str, place: str) -> dict[str, Any]:
    """The figures of each command; for one that failed, why."""
    meter = Meter(os.environ, in_process=False)
    root = os.path.join(place, "home")
    amount = CASES[size][case]
    found: dict[str, Any] = {"amount": amount, "bound": bound(case, amount), "commands": {}}
    kai = program()
    meter.run(*kai, "init", root)
    meter.run(*kai, "new", "bench", cwd=root)
    workspace = os.path.join(root, "bench", "workspace")
    large = os.path.join(workspace, "blob") if case == "blob" else _leaf(workspace, 0)
    if case == "blob":
        _blob(large, amount)
    else:
        _tree(workspace, amount)
    for title, words in _commands(place, os.path.relpath(large, workspace)):
        if title == "commit (edited)":
            _edit(large)
        with meter.lap() as lap:
            try:
                meter.run(*kai, *words, cwd=root, discard=True)
            except ProgramFailed as error:
                found["commands"][title] = {"failed": str(error)}
                continue
        found["commands"][title] = figures.summary([lap])
    return found


def _commands(place: str, leaf: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "commit", ("commit", "bench")
    yield "status", ("status", "bench")
    yield "commit (edited)", ("commit", "bench")
    yield "log", ("log", "bench")
    yield "show", ("show", "bench")
    yield "ls-tree", ("ls-tree", "bench", "-r")
    yield "cat", ("cat", "bench@current", leaf)
    yield "diff", ("diff", "bench@v1.0.0", "bench@v1.0.1")
    yield "checkout", ("checkout", "bench@v1.0.0", os.path.join(place, "out"))
    yield "rollback", ("rollback", "bench", "--to", "v1.0.0")
    yield "undo", ("undo", "bench")
    yield "verify", ("verify", "bench")
    yield "audit", ("audit", "bench")
    yield "fsck", ("fsck",)
    yield "gc", ("gc", "bench")
    yield "export", ("export", "bench", "--git", os.path.join(place, "git"))


def _blob(path: str, size: int) -> None:
    chance = random.Random(1)  # noqa: S311 - contents, not keys
    with open(path, "wb") as file:
        for done in range(0, size, PIECE):
            piece = chance.randbytes(PIECE // 2)
            file.write((piece + piece.translate(NIBBLES))[: size - done])


def _tree(workspace: str, count: int) -> None:
    for number in range(count):
        path = _leaf(workspace, number)
        if number % PER_FOLDER == 0:
            os.makedirs(os.path.dirname(path))
        with open(path, "wb") as file:
            file.write(b"file %d\n" % number * 8)


def _leaf(workspace: str, number: int) -> str:
    return os.path.join(workspace, f"set{number // PER_FOLDER:04d}", f"f{number}.txt")


def _edit(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        file.write(b"edited")
