"""A large state goes both ways within bounds of memory at each end, whatever its size."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.engine.homes import ENVIRON, make_home, remove
from tests.engine.test_memory import LAUNCHER

MIB = 1 << 20
WHOLE = 256
"""MiB that each end may take for 1.5 GiB."""
SOME = 90
"""MiB that each end may take for 150 MiB: 30 to 50 were measured, 23 of them Python and kaivc."""
SEED = 5
RUNS = 16

FAR = """
import os, sys
pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "kaivc", *sys.argv[2:]], os.environ)
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "a") as file:
    print(usage.ru_maxrss, file=file)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs kai at the far end, and notes the most memory that it took."""


class Ends:
    """Two homes, and the most memory that commands take at each end, in MiB."""

    def __init__(self, root: Path, carrier: str) -> None:
        self.root = root
        self.far, self.near = root / "far", root / "near"
        self._peaks = root / "peaks"
        self.environ = {**ENVIRON, "PYTHONPATH": str(ROOT)}
        self.url = str(self.far)
        if carrier == "pipes":
            self.url = f"ssh://nowhere{self.far}"
            self._program("launch.py", FAR)
            kai = f"exec {sys.executable} {root}/launch.py {self._peaks}"
            far = self._program("kai", f'#!/bin/sh\n{kai} "$@"\n')
            ssh = self._program("ssh", '#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
            (root / "config" / "kai").mkdir(parents=True)
            (root / "config" / "kai" / "config.yaml").write_text(f"ssh:\n  command: {ssh}\n  kai: {far}\n")
            self.environ["XDG_CONFIG_HOME"] = str(root / "config")

    def _program(self, name: str, text: str) -> str:
        path = self.root / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def kai(self, where: Path, *words: str) -> tuple[float, float]:
        """The peak of a command, and of all that answered it; 0 for none."""
        self._peaks.unlink(missing_ok=True)
        argv = [sys.executable, "-S", "-c", LAUNCHER, *words]
        done = subprocess.run(
            argv, cwd=where, env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True
        )
        code, most = map(int, done.stderr.split()[-2:])
        assert code == 0, done.stderr
        far = [int(line) for line in self._peaks.read_text().split()] if self._peaks.exists() else [0]
        return most / 1024, max(far) / 1024


def grow(workspace: Path, size: int) -> None:
    """Half of it noise, half a database of which a half is noise."""
    chance = random.Random(SEED)
    with (workspace / "noise.bin").open("wb") as file:
        for _ in range(size // 2 // MIB):
            file.write(chance.randbytes(MIB))
    with closing(sqlite3.connect(workspace / "memory.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=OFF")
        db.execute("CREATE TABLE facts (id INTEGER PRIMARY KEY, body BLOB)")
        db.execute("BEGIN")
        rows = ((chance.randbytes(8000) + b"known " * 1333,) for _ in range(size // 2 // 16_000))
        db.executemany("INSERT INTO facts (body) VALUES (?)", rows)
        db.execute("COMMIT")


def edit(workspace: Path, size: int, seed: int) -> None:
    """A hundredth of it, in so many runs."""
    chance, length = random.Random(seed), size // 100 // RUNS
    with (workspace / "noise.bin").open("r+b") as file:
        for _ in range(RUNS):
            file.seek(chance.randrange(size // 2 - length))
            file.write(chance.randbytes(length))


@pytest.mark.parametrize("carrier", ["pipes", "path"])
@pytest.mark.parametrize(
    ("size", "bound"),
    [(150 * MIB, SOME), pytest.param(1536 * MIB, WHOLE, marks=pytest.mark.slow)],
    ids=["150-MiB", "1.5-GiB"],
)
def test_both_ways(size: int, bound: int, carrier: str, tmp_path: Path) -> None:
    ends = Ends(tmp_path, carrier)
    with closing(make_home(ends.far)) as home:
        home.new("bot")
    grow(ends.far / "bot" / "workspace", size)
    ends.kai(ends.far, "commit", "bot")
    peaks = {"clone": ends.kai(tmp_path, "clone", ends.url, str(ends.near))}
    workspace = ends.near / "bot" / "workspace"
    edit(workspace, size, 1)
    ends.kai(ends.near, "commit", "bot", "--bump", "minor")
    peaks["push of an edit"] = ends.kai(ends.near, "push", "bot")
    edit(ends.far / "bot" / "workspace", size, 2)
    ends.kai(ends.far, "commit", "bot", "--bump", "minor")
    peaks["pull of an edit"] = ends.kai(ends.near, "pull", "bot")
    remove(ends.far)
    make_home(ends.far).close()
    ends.kai(ends.near, "remote", "remove", "origin")
    ends.kai(ends.near, "remote", "add", "origin", ends.url)
    peaks["push of all"] = ends.kai(ends.near, "push", "bot")
    for what, (here, there) in peaks.items():
        print(f"{what} of {size // MIB} MiB by {carrier}: {here:.0f} MiB here, {there:.0f} MiB there")
    assert max(max(both) for both in peaks.values()) < bound, peaks
    for name in ("noise.bin", "memory.db"):
        assert (ends.far / "bot/workspace" / name).read_bytes() == (workspace / name).read_bytes()
    for path in (ends.far, ends.near):
        remove(path)
