"""A writer hammers a WAL database while versions of it are taken and brought back."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest

from kaivc.errors import AgentBusy
from kaivc.vfs import Vfs
from tests.engine.homes import make_home, open_home

ROWS = 3
COMMITS, ROLLBACKS = 100, 20


def begin(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (batch INTEGER, part INTEGER, pad BLOB)")
    return connection


def write_batch(connection: sqlite3.Connection) -> None:
    """One transaction: the next batch, in three rows and an update that moves pages."""
    connection.execute("BEGIN IMMEDIATE")
    last = connection.execute("SELECT coalesce(max(batch), 0) FROM t").fetchone()[0]
    for part in range(ROWS):
        connection.execute("INSERT INTO t VALUES (?, ?, randomblob(300))", (last + 1, part))
    connection.execute("UPDATE t SET pad = randomblob(400) WHERE batch = ?", (max(1, last // 2),))
    connection.execute("COMMIT")


def hammer(
    path: str, stop: Synchronized[int], done: Synchronized[int], pause: Synchronized[int], keep_open: bool
) -> None:
    """Write until told to stop; hold still, with the database closed, while told to (1), and say so (2)."""
    connection = None
    while not stop.value:
        if pause.value:
            if connection is not None:
                connection.close()
                connection = None
            if pause.value == 1:
                pause.value = 2
            time.sleep(0.0005)
            continue
        try:
            connection = connection or begin(Path(path))
            write_batch(connection)
            done.value += 1
            if not keep_open or done.value % 50 == 0:
                connection.close()
                connection = None
                time.sleep(0.001)
        except sqlite3.OperationalError:
            if connection is not None:
                connection.close()
            connection = None
    if connection is not None:
        connection.close()


def prefix(path: Path, *, released: bool = False) -> int:
    """How many batches a database holds; fails unless it is whole and holds the first ones, each once.

    A ``released`` one is read as immutable: as root, SQLite would make side files even in a read-only directory.
    """
    connection = sqlite3.connect(f"file:{path}?mode=ro{'&immutable=1' * released}", uri=True, timeout=10)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        batches = connection.execute(
            "SELECT batch, count(*), sum(part) FROM t GROUP BY batch ORDER BY batch"
        ).fetchall()
    finally:
        connection.close()
    assert batches == [(number, ROWS, 3) for number in range(1, len(batches) + 1)]
    return len(batches)


@pytest.mark.parametrize("keep_open", [False, True], ids=["reconnecting", "connected"])
def test_every_restored_database_is_one_committed_prefix(tmp_path: Path, keep_open: bool) -> None:
    seed = 20_261_122
    chance = random.Random(seed)
    agent = make_home(tmp_path / "home", lock__wait="20s").new("bot")
    live = agent.workspace / "state" / "memory.db"
    live.parent.mkdir()
    begin(live).close()
    stop = multiprocessing.Value("i", 0)
    done = multiprocessing.Value("i", 0)
    pause = multiprocessing.Value("i", 0)
    writer = multiprocessing.Process(target=hammer, args=(str(live), stop, done, pause, keep_open))
    writer.start()
    try:
        taken: dict[str, int] = {}
        rolled_back = 0
        for number in range(COMMITS):
            before = done.value
            version = agent.commit(bump="patch", allow_empty=True)
            view = agent.repository.layout.view("bot", version.tag)
            taken[version.tag] = prefix(Path(view) / "state" / "memory.db", released=True)
            while done.value < before + 2:
                time.sleep(0.001)
            if (number + 1) % (COMMITS // ROLLBACKS) == 0:
                target = chance.choice(list(taken))
                written = done.value
                if keep_open:  # what a quiesce command does
                    pause.value = 1
                    while pause.value != 2:
                        time.sleep(0.0005)
                moved = agent.rollback(target, reason="hammered")
                pause.value = 0
                rolled_back += 1
                assert moved.applied
                held = prefix(live)
                # The writer goes on at once in what was restored, and nowhere else (+2: one waits, one runs).
                assert taken[target] <= held <= taken[target] + done.value - written + 2
    finally:
        stop.value = 1
        writer.join(30)
    assert writer.exitcode == 0
    assert rolled_back == ROLLBACKS
    assert len(set(taken.values())) > ROLLBACKS, "the writer hardly wrote"
    assert agent.verify().ok
    for entry in agent.reflog().entries:
        if entry.backup:
            agent.checkout(f"backups/{entry.backup}", tmp_path / f"b{entry.backup}")
            prefix(tmp_path / f"b{entry.backup}" / "state" / "memory.db")
    print(f"seed {seed}: {done.value} transactions, {COMMITS} commits, {rolled_back} rollbacks")


def test_the_restored_database_holds_exactly_the_versions_rows(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    live = agent.workspace / "memory.db"
    connection = begin(live)
    for _ in range(5):
        write_batch(connection)
    assert (live.parent / "memory.db-wal").stat().st_size > 0
    agent.commit()
    for _ in range(5):
        write_batch(connection)
    connection.close()
    agent.commit(bump="minor")
    agent.rollback("v1.0.0")
    assert prefix(live) == 5
    agent.rollback("v1.1.0")
    assert prefix(live) == 10


def test_a_database_that_is_open_elsewhere_is_not_replaced(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", lock__wait="0s").new("bot")
    live = agent.workspace / "memory.db"
    begin(live).close()
    agent.commit()
    connection = begin(live)
    write_batch(connection)
    with pytest.raises(AgentBusy) as caught:
        agent.rollback("v1.0.0")
    assert caught.value.code == "E312"
    assert "memory.db" in caught.value.what
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    write_batch(connection)
    connection.close()
    assert prefix(live) == 2
    agent.rollback("v1.0.0")
    assert prefix(live) == 0


def test_a_rollback_that_fails_gives_the_journal_mode_back(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    first, second = agent.workspace / "a.db", agent.workspace / "b.db"
    for path in (first, second):
        begin(path).close()
    agent.commit()
    held = begin(second)
    for connection in (begin(first), held):
        write_batch(connection)
        if connection is not held:
            connection.close()
    impatient = open_home(tmp_path / "home", lock__wait="0s").agent("bot")
    with pytest.raises(AgentBusy):
        impatient.rollback("v1.0.0")
    connection = sqlite3.connect(first)
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    connection.close()
    held.close()
    assert prefix(first) == prefix(second) == 1


def test_what_is_written_to_a_displaced_file_is_in_the_backup(tmp_path: Path) -> None:
    """A program that has a file open goes on writing to it while it is replaced."""
    agent = make_home(tmp_path / "home").new("bot")
    log = agent.workspace / "agent.log"
    log.write_bytes(b"1\n")
    agent.commit()
    log.write_bytes(b"1\n2\n")
    agent.commit(bump="minor")

    class Late(Vfs):
        def link(self, old, new, old_at=None, new_at=None):
            super().link(old, new, old_at, new_at)
            if old == b"agent.log" and new != b".kai-probe":
                with log.open("ab") as file:
                    file.write(b"late\n")

    late = open_home(tmp_path / "home", Late()).agent("bot")
    late.rollback("v1.0.0")
    assert log.read_bytes() == b"1\n"
    backups = list(agent.repository.refs("refs/heads/bot/backups/"))
    assert len(backups) == 1
    agent.checkout(backups[0].removeprefix("refs/heads/bot/"), tmp_path / "saved")
    assert (tmp_path / "saved" / "agent.log").read_bytes() == b"1\n2\nlate\n"
