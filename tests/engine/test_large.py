"""Versions of large files: each comes back, an edit costs little, and going back and forth costs nothing."""

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kaivc.api import Agent
from kaivc.storage import index
from tests.engine.homes import make_home

SIZE = 4 << 20


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return make_home(tmp_path / "home").new("bot")


def room(agent: Agent) -> int:
    """The bytes of the agent's packs."""
    agent.repository.store.close()
    directory = Path(agent.repository.layout.pack_dir("bot"))
    return sum(path.stat().st_size for path in directory.iterdir())


def lines(count: int, seed: int) -> bytes:
    chance = random.Random(seed)
    return b"".join(b'{"id": %d, "took": %d}\n' % (chance.getrandbits(40), chance.randrange(999)) for _ in range(count))


def versions_of(workspace: Path, count: int) -> Iterator[dict[str, bytes]]:
    """Let three files grow and change; what they hold at each step."""
    chance = random.Random(3)
    log = lines(60_000, 1)
    matrix = random.Random(2).randbytes(SIZE // 2)
    with closing(sqlite3.connect(workspace / "memory.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE facts (id INTEGER PRIMARY KEY, body TEXT)")
        db.execute("BEGIN")
        rows = ((f"a fact, {chance.random()}, and {chance.random()}",) for _ in range(40_000))
        db.executemany("INSERT INTO facts (body) VALUES (?)", rows)
        db.execute("COMMIT")
        for number in range(count):
            at = log.index(b"\n", chance.randrange(len(log) // 2)) + 1
            log = log[:at] + lines(5, number) + log[at:] + lines(20, number + 100)
            matrix = matrix[:1_000_000] + chance.randbytes(400) + matrix[1_000_400:] + chance.randbytes(3000)
            (workspace / "log.jsonl").write_bytes(log)
            (workspace / "vectors").write_bytes(matrix)
            db.execute("UPDATE facts SET body = 'changed' WHERE id = ?", (chance.randrange(40_000),))
            db.executemany("INSERT INTO facts (body) VALUES (?)", [("one more",)] * 10)
            if number == count - 1:
                db.execute("VACUUM")
            yield {path.name: path.read_bytes() for path in workspace.iterdir()}


def test_every_version_comes_back_and_costs_little(agent: Agent, tmp_path: Path) -> None:
    grown: list[int] = []
    truth: dict[str, dict[str, bytes]] = {}
    for files in versions_of(agent.workspace, 9):
        before = room(agent) if truth else 0
        truth[str(agent.commit(bump="minor").version)] = files
        grown.append(room(agent) - before)
    assert max(grown[1:-1]) < 40_000, "8 KB are new, 3 of them noise; the rest is what it was"
    for number, files in truth.items():
        agent.checkout(f"v{number}", tmp_path / number)
        assert {path.name: path.read_bytes() for path in (tmp_path / number).iterdir()} == files
    assert agent.verify().ok


def test_going_back_and_forth_stores_nothing(agent: Agent) -> None:
    for _ in versions_of(agent.workspace, 4):
        agent.commit(bump="minor")
    count = len(index.every(agent.repository.catalog, agent.repository.id))
    before = room(agent)
    for target in ("v1.0.0", "v1.2.0", "v1.1.0"):
        agent.rollback(target)
    agent.undo()
    assert len(index.every(agent.repository.catalog, agent.repository.id)) == count
    assert room(agent) - before < 8_000, "the records of four operations"


def test_the_same_bytes_are_cut_alike_whatever_came_before(agent: Agent) -> None:
    chance = random.Random(5)
    data = chance.randbytes(SIZE)
    path = agent.workspace / "large"
    path.write_bytes(data)
    agent.commit()
    for number in range(3):
        path.write_bytes(data[: 1 << 20] + chance.randbytes(70_000 + number) + data[1 << 20 :])
        agent.commit(bump="minor")
    before = room(agent)
    path.write_bytes(data)
    os.utime(path, (1, 1))
    agent.commit(bump="minor")
    assert room(agent) - before < 4_000, "an id that is there is taken as it is"
