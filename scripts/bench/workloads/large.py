"""W2: a state of 500 MB: a database, a matrix of vectors that grows, a log of JSON lines."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from contextlib import closing

from scripts.bench.workloads.base import Workload
from scripts.bench.workloads.words import Words

MB = 1_000_000
_SIZES = {"full": 500 * MB, "quick": 16 * MB, "tiny": MB}
_VERSIONS = {"full": 8, "quick": 4, "tiny": 3}
DATABASE, MATRIX, LOG = "memory.sqlite", "vectors.f32", "events.jsonl"
COLUMNS = 384
ROW = 4 * COLUMNS
TEXT = 1_100
ROOM = 2_100  # of a row: two lie on a page of 4 KB
LINE = 260
COPY = 1 << 20


class Large(Workload):
    """A database (40 %), a float32 matrix (40 %), JSON lines (20 %); each version edits a little of all three."""

    name = "W2"
    title = "A state of 500 MB"
    checks = 1

    @property
    def versions(self) -> int:
        """As many as the size says."""
        return _VERSIONS[self.size]

    @property
    def figures(self) -> str:
        """The files and the edits."""
        size = _SIZES[self.size] // MB
        return (
            f"{self.versions} versions of {size} MB: SQLite (40 %, inserts and updates), a float32 matrix "
            "(40 %, rows appended), JSON lines (20 %, insertions in the middle)"
        )

    def advance(self, directory: str, number: int) -> None:
        """A copy of the first state, or a little of each file."""
        if number == 0:
            self.copy_first(directory)
            return
        chance = self.chance(number)
        scale = max(1, _SIZES[self.size] // MB)
        _edit_database(os.path.join(directory, DATABASE), chance, rows=4 * scale)
        with open(os.path.join(directory, MATRIX), "ab") as file:
            file.write(_vectors(chance, scale))
        _insert(os.path.join(directory, LOG), chance, places=3, lines=scale // 2 + 1)

    def make_first(self, directory: str) -> None:
        """All three files."""
        size = _SIZES[self.size]
        chance = self.chance("first")
        words = Words(chance)
        with closing(sqlite3.connect(os.path.join(directory, DATABASE))) as db:
            db.execute("PRAGMA journal_mode = OFF")
            db.execute("CREATE TABLE memories (id INTEGER PRIMARY KEY, at REAL, kind TEXT, text TEXT, vector BLOB)")
            db.execute("CREATE INDEX by_kind ON memories (kind, at)")
            count = int(size * 0.4 / ROOM)
            # A long text has sentences that stand elsewhere too, as the memories of an agent do.
            pool = [words.sentence(16) for _ in range(4_000)]
            db.executemany(
                "INSERT INTO memories VALUES (?, ?, ?, ?, ?)", (_row(chance, pool, number) for number in range(count))
            )
            db.commit()
        with open(os.path.join(directory, MATRIX), "wb") as file:
            rows = int(size * 0.4 / ROW)
            file.writelines(_vectors(chance, min(512, rows - done)) for done in range(0, rows, 512))
        with open(os.path.join(directory, LOG), "w", encoding="utf-8") as log:
            log.writelines(_line(chance, number) for number in range(int(size * 0.2 / LINE)))


def _row(chance: random.Random, pool: list[str], number: int) -> tuple[int, float, str, str, bytes]:
    text = ". ".join(chance.choices(pool, k=TEXT // 80))[:TEXT]
    return number, chance.random(), f"kind-{chance.randrange(40)}", text, _vectors(chance, 1)[: ROW // 4]


def _vectors(chance: random.Random, rows: int) -> bytes:
    """Rows of float32 numbers between -0.5 and 0.5: random sign and mantissa, two exponents."""
    size = rows * ROW
    free = int.from_bytes(b"\xff\xff\xff\x80" * (size // 4), "little")
    fixed = int.from_bytes(b"\x00\x00\x00\x3e" * (size // 4), "little")
    return (chance.getrandbits(size * 8) & free | fixed).to_bytes(size, "little")


def _line(chance: random.Random, number: int) -> str:
    event = {
        "id": f"{chance.getrandbits(64):016x}",
        "n": number,
        "at": 1_790_000_000 + number + round(chance.random(), 3),
        "tool": f"tool-{chance.randrange(30)}",
        "arguments": {
            "path": f"/data/{chance.randrange(1000)}/{chance.randrange(1000)}",
            "limit": chance.randrange(99),
        },
        "tokens": [chance.randrange(50_000) for _ in range(10)],
        "ok": chance.randrange(10) > 0,
    }
    return json.dumps(event) + "\n"


def _edit_database(path: str, chance: random.Random, rows: int) -> None:
    words = Words(chance)
    pool = [words.sentence(16) for _ in range(100)]
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        last = db.execute("SELECT max(id) FROM memories").fetchone()[0]
        made = (_row(chance, pool, last + number + 1) for number in range(rows))
        db.executemany("INSERT INTO memories VALUES (?, ?, ?, ?, ?)", made)
        for _ in range(rows // 4):
            text = ". ".join(chance.choices(pool, k=8))
            db.execute("UPDATE memories SET text = ? WHERE id = ?", (text, chance.randrange(last)))
        db.commit()


def _insert(path: str, chance: random.Random, places: int, lines: int) -> None:
    size = os.path.getsize(path)
    cuts = sorted(chance.randrange(size // 4, size) for _ in range(places))
    with open(path, "rb") as old, open(path + ".new", "wb") as new:
        for number, cut in enumerate(cuts):
            while (left := cut - old.tell()) > 0:
                new.write(old.read(min(left, COPY)))
            new.write(old.readline())
            new.writelines(_line(chance, number * lines + more).encode() for more in range(lines))
        shutil.copyfileobj(old, new, COPY)
    os.replace(path + ".new", path)
