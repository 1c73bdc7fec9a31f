"""No command holds a large file in memory: the peak of each is about the same for 8 MiB as for 128 MiB."""

import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.engine.homes import ENVIRON, make_home, remove

MIB = 1 << 20
SMALL, LARGE = 8, 128
GROWS = 16
"""MiB that the peak may grow by, for 2,000 more chunks; the file grows by 120."""
COMMANDS = [
    "commit bot",
    "status bot",
    "diff bot --stat",
    "commit bot --bump minor",
    "diff bot@v1.0.0 v1.1.0 --stat",
    "rollback bot --to v1.0.0",
    "rollback bot --to v1.1.0",
    "undo bot",
    "checkout bot@v1.0.0 {out}",
    "verify bot",
    "fsck",
    "audit bot",
    "gc",
    "export bot --git {git}",
    "new twin --from bot@v1.1.0",
    "fsck --repair",
]
EDITS = {"status bot": 1, "rollback bot --to v1.1.0": 2}
"""Before which commands the file is edited."""


LAUNCHER = """
import os, sys
pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "kaivc", *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, file=sys.stderr)
"""
"""A process has the peak of the one that it was forked from: so it is not forked from the tests."""


def peak(home: Path, *words: str) -> float:
    """The most memory that a command takes, in MiB."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, *words],
        cwd=home,
        env={**ENVIRON, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    code, most = map(int, done.stderr.split()[-2:])
    assert code in (0, 1 if words[0] in ("status", "diff") else 0), (words, done.stderr)
    return most / 1024


def plain(path: Path, size: int) -> None:
    """Zeros, and an eighth of noise that is spread over them."""
    chance = random.Random(1)
    with path.open("wb") as file:
        for at in range(0, size, MIB):
            file.seek(at)
            file.write(chance.randbytes(MIB // 8))
        file.truncate(size)


def edit_plain(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with path.open("r+b") as file:
        for _ in range(20):
            file.seek(chance.randrange(path.stat().st_size - 10))
            file.write(b"edited")
        file.seek(0, os.SEEK_END)
        file.write(chance.randbytes(100_000))


def database(path: Path, size: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA page_size = 65536")
        db.execute("CREATE TABLE blobs (id INTEGER PRIMARY KEY, body BLOB)")
        db.execute(
            "INSERT INTO blobs WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "SELECT i, zeroblob(1000000) FROM n",
            (size // MIB,),
        )


def edit_database(path: Path, seed: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE blobs SET body = ? WHERE id = 3", (b"edited %d" % seed,))
        db.commit()


READS = {"commit", "status", "rollback", "verify"}
"""What reads or writes a database otherwise than other files."""
KINDS = {
    "plain": (plain, edit_plain, COMMANDS),
    "database": (database, edit_database, [command for command in COMMANDS if command.split()[0] in READS]),
}


def peaks(top: Path, kind: str, mib: int) -> dict[str, float]:
    """The peak of each command in a home whose agent has one file of so many MiB."""
    make, edit, commands = KINDS[kind]
    home = make_home(top / f"home-{mib}")
    path = home.new("bot").workspace / "large"
    home.close()
    make(path, mib * MIB)
    found = {}
    for command in commands:
        if command in EDITS:
            edit(path, EDITS[command])
        out, git = top / f"out-{mib}", top / f"git-{mib}"
        found[command] = peak(top / f"home-{mib}", *command.format(out=out, git=git).split())
    for made in (f"home-{mib}", f"out-{mib}", f"git-{mib}"):
        remove(top / made)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_a_file(tmp_path: Path, kind: str) -> None:
    small, large = (peaks(tmp_path, kind, mib) for mib in (SMALL, LARGE))
    grown = {command: round(large[command] - small[command]) for command in small}
    assert max(grown.values()) <= GROWS, grown
    assert max(large.values()) < 128, large
