"""Cut the process at every call that changes the disk; whatever is left must be whole."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kaivc.api import Agent
from kaivc.names import current_ref
from kaivc.vfs import Vfs
from tests.engine.homes import Files, copy, make_home, open_home, read, remove, write

V1: Files = {"logic.py": b"one\n", "config.yaml": b"a: 1\n", "state/log.txt": b"1\n" * 500, "only1.txt": b"x"}
V2: Files = {"logic.py": b"two\n", "config.yaml": b"a: 2\n", "state/log.txt": b"2\n" * 600, "deep/er/file": b"y"}
V3: Files = {"logic.py": b"three\n", "config.yaml": b"a: 3\n", "state/log.txt": b"3\n" * 700, "deep/er/file": b"z"}
DIRTY: Files = {"logic.py": b"dirty\n", "config.yaml": b"a: 2\n", "state/log.txt": b"live\n", "new.txt": b"n"}

CALLS = [name for name, value in vars(Vfs).items() if callable(value) and not name.startswith("_")]
CHANGING = [name for name in CALLS if name not in ("open_dir", "close", "lock", "flock")]


class Cut(Vfs):
    """Kills the process at the n-th changing call; a write is torn in half first."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def _step(self) -> bool:
        self.count += 1
        return self.count == self.at


def _cutting(name: str) -> Callable[..., object]:
    real = getattr(Vfs, name)

    def call(self: Cut, *args: object, **words: object) -> object:
        if self._step():
            if name == "write":
                fd, data = args
                os.write(fd, memoryview(data)[: len(data) // 2])  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *args, **words)

    return call


for _name in CHANGING:
    setattr(Cut, _name, _cutting(_name))


def in_child(action: Callable[[], object]) -> int:
    """Run in a forked child; 0 when it came to its end, the signal otherwise."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return 0


def prepare(path: Path) -> None:
    """Three versions, ``current`` at the second, the workspace dirty, a database with rows."""
    home = make_home(path)
    agent = home.new("bot")
    for files in (V1, V2, V3):
        write(agent.workspace, files)
        database(agent.workspace, len(files["logic.py"]))
        agent.commit(bump="minor")
    agent.rollback("v1.1.0")
    write(agent.workspace, DIRTY)
    database(agent.workspace, 77)
    home.close()


def database(workspace: Path, value: int) -> None:
    connection = sqlite3.connect(workspace / "state.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    connection.execute("INSERT INTO t VALUES (?)", (value,))
    connection.close()


def rows(workspace: Path) -> list[int]:
    with sqlite3.connect(workspace / "state.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return [value for (value,) in connection.execute("SELECT x FROM t ORDER BY rowid")]


def check_whole(agent: Agent) -> None:
    """Everything that has a name is there, byte for byte."""
    report = agent.verify()
    assert report.ok, report.findings
    entries = agent.reflog(None).entries
    assert [entry.seq for entry in entries] == sorted((entry.seq for entry in entries), reverse=True)
    current = agent.repository.refs("refs/heads/")[current_ref("bot")]
    assert current.hex() in {version.commit for version in agent.versions()}
    link = Path(agent.repository.layout.current("bot"))
    assert (link / "snapshot_meta.json").is_file(), "current must be valid at every moment"


ACTIONS: dict[str, Callable[[Agent], object]] = {
    "commit": lambda agent: agent.commit(bump="minor", notes="cut"),
    "rollback": lambda agent: agent.rollback("v1.0.0", reason="cut"),
    "undo": lambda agent: agent.undo(reason="cut"),
    "restore": lambda agent: agent.restore(reason="cut"),
}


def act(verb: str, path: Path, at: int) -> None:
    """Play a verb, and be killed at a call."""
    ACTIONS[verb](open_home(path, Cut(at)).agent("bot"))


@pytest.mark.parametrize("verb", ACTIONS)
def test_killed_at_every_call(verb: str, tmp_path: Path) -> None:
    template = tmp_path / "template"
    prepare(template)
    before_files = plain(template / "bot" / "workspace")
    outcomes = set()
    at = 0
    while True:
        at += 1
        path = tmp_path / "home"
        copy(template, path)
        cut = in_child(partial(act, verb, path, at))
        outcomes.add(judge(path, verb, before_files))
        remove(path)
        if cut == 0:
            break
    print(f"{verb}: {at - 1} kill points, outcomes {sorted(outcomes)}")
    assert outcomes == {"before", "after"}
    assert at > 20


def plain(workspace: Path) -> Files:
    return {name: data for name, data in read(workspace).items() if not name.startswith("state.db")}


def judge(path: Path, verb: str, before_files: Files) -> str:
    home = open_home(path)
    agent = home.agent("bot")
    check_whole(agent)
    landed = agent.reflog(None).entries[0].reason == "cut"
    number = agent.current.version
    agent.commit(version="9.9.9", allow_empty=True)  # the next writer finishes what was cut
    status = agent.status()
    assert not status.pending
    check_whole(agent)
    files = plain(agent.workspace)
    assert os.readlink(agent.repository.layout.current("bot")) == "versions/v9.9.9"
    log = Path(agent.repository.layout.rollback_log("bot")).read_text().splitlines()
    assert len(log) == len(agent.reflog().entries)
    if not landed:
        assert number == "1.1.0"
        assert files == before_files
        assert rows(agent.workspace)[-1] == 77
    else:
        expect = {
            "commit": ("1.3.0", before_files),
            "rollback": ("1.0.0", V1),
            "undo": ("1.2.0", V3),
            "restore": ("1.1.0", V2),
        }[verb]
        assert (number, files) == expect
        assert (rows(agent.workspace)[-1] == 77) == (verb == "commit")
        check_backup(agent, verb, before_files)
    assert not list((path / ".kai" / "staging").rglob("*/*/*"))
    home.close()
    return "after" if landed else "before"


def check_backup(agent: Agent, verb: str, before_files: Files) -> None:
    """What the move replaced is in the backup that its entry names."""
    if verb == "commit":
        return
    backups = list(agent.repository.refs("refs/heads/bot/backups/"))
    assert len(backups) == 1
    target = agent.repository.layout.root + "/saved"
    agent.checkout(backups[0].removeprefix("refs/heads/bot/"), target)
    assert plain(Path(target)) == before_files
    assert rows(Path(target))[-1] == 77
