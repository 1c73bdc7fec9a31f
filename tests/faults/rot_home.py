"""Homes that bits are flipped in."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import kaivc
from kaivc import intents
from kaivc.api import Agent, Home
from kaivc.storage import index
from tests.engine.homes import ENVIRON, Files, Ticking, make_home, write

CATALOG, WAL = "catalog.sqlite", "catalog.sqlite-wal"


def at_rest(path: Path) -> None:
    """Two agents, one linked, with packs open, sealed and failed, chunk lists, backups, and something in quarantine."""
    source = random.Random(7)
    opened = make_home(path, packs__seal_at="64KiB", chunks__threshold="64KiB")
    linked = path.parent / f"{path.name}-linked"
    linked.mkdir()
    for name in ("bot", "cat"):
        agent = opened.new(name, link=linked if name == "cat" else None)
        for number in range(3):
            write(agent.workspace, _files(source, number))
            agent.commit(bump="minor", notes=f"number {number}", op_id=f"commit-{name}-{number}")
            if number == 1:
                _fail_open_pack(agent)
        agent.rollback("v1.1.0", reason="back")
        write(agent.workspace, {**_files(source, 9), "only-in-the-backup": b"b" * 90})
        agent.rollback("v1.0.0", reason="further back")
        agent.undo()
        (agent.workspace / "dirty.txt").write_bytes(b"not committed\n")
    opened.close()
    pack = next((path / ".kai/packs/cat").glob("*.pack"))
    with pack.open("ab") as file:
        file.write(b"torn")
    (path / ".kai/quarantine/0123456789abcdef").mkdir(parents=True)
    (path / ".kai/quarantine/0123456789abcdef/kept").write_bytes(b"kept by a repair\n")
    for each in (path / ".kai").rglob("*"):
        each.chmod(each.stat().st_mode | 0o200)
    with closing(open_quietly(path)) as home:
        for name in home.agents():
            home.agent(name).load()


def cut(path: Path) -> None:
    """As at rest; a rollback was killed when its names had moved: there is a log, its index, and intents."""
    at_rest(path)
    pid = os.fork()
    if pid == 0:
        try:
            intents.finish_landed = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            opened = open_quietly(path)
            write(opened.agent("bot").workspace, {"logic.py": b"dirty again\n"})
            opened.agent("bot").rollback("v1.2.0", reason="cut")
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert (path / ".kai" / WAL).stat().st_size > 0


def pending(path: Path) -> None:
    """As cut, with all of the log in the main file: there are intents."""
    cut(path)
    with closing(sqlite3.connect(path / ".kai" / CATALOG)) as db:
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    assert not (path / ".kai" / WAL).exists()


HOMES = {"rest": at_rest, "pending": pending, "cut": cut}


def _files(source: random.Random, number: int) -> Files:
    return {
        "logic.py": b"print(%d)\n" % number * 40,
        "config.yaml": b"a: %d\n" % (number // 2),
        "lib/deep/part.py": source.randbytes(300),
        "state/large.bin": b"".join(it.to_bytes(4, "big") * 16 for it in range(number, 1500 + number)),
        "state/noise.bin": source.randbytes(30_000),
        "state.json": b'{"n": %d}' % number,
    }


def _fail_open_pack(agent: Agent) -> None:
    repo = agent.repository
    last = index.packs(repo.catalog, repo.id)[-1]
    with repo.catalog.transaction() as db:
        index.fail_pack(db, last.id)


def open_quietly(path: Path, *, read_only: bool = False) -> Home:
    flags = {"chunks.threshold": "64KiB", "packs.seal_at": "64KiB", "lock.wait": "0.1s"}
    environ = {**ENVIRON, "TMPDIR": str(path.parent)}
    return kaivc.open(path, environ=environ, clock=Ticking(1_800_000_000), flags=flags, read_only=read_only)
