"""Making homes and agents."""

from __future__ import annotations

import os
import signal
import sqlite3
from functools import partial
from pathlib import Path

import pytest

import kaivc
from kaivc.errors import (
    HomeExists,
    InvalidLayout,
    InvalidName,
    InvalidSettings,
    NameTaken,
    NoSuchHome,
    RefusedWorkspace,
)
from tests.engine.homes import commit, make_home, open_home, read, write
from tests.engine.test_hammer import begin, prefix, write_batch
from tests.engine.test_kill import Cut, in_child


def test_a_home_is_found_from_below(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    agent = home.new("bot")
    assert kaivc.open(agent.workspace).path == tmp_path / "home"
    with pytest.raises(NoSuchHome):
        kaivc.open(tmp_path)


def test_a_home_in_a_home_and_a_home_twice_are_refused(tmp_path: Path) -> None:
    make_home(tmp_path / "home")
    with pytest.raises(HomeExists):
        kaivc.init(tmp_path / "home")
    with pytest.raises(RefusedWorkspace):
        kaivc.init(tmp_path / "home" / "sub")
    with pytest.raises(InvalidSettings):
        kaivc.init(tmp_path / "other", "md5")


def test_an_empty_path_is_not_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what a shell makes of a variable that is not set."""
    home = make_home(tmp_path / "home")
    bot = home.new("bot")
    commit(bot, {"a": b"1"})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for act in (
        lambda: home.new("x", source=""),
        lambda: home.new("x", link=""),
        lambda: bot.checkout("v1.0.0", ""),
        lambda: bot.export(""),
    ):
        with pytest.raises(RefusedWorkspace, match="empty path"):
            act()
    (tmp_path / "here" / "versions" / "v1.0.0").mkdir(parents=True)
    with pytest.raises(InvalidLayout, match="empty path"):
        home.import_("", name="x")
    assert os.listdir() == ["versions"]
    assert home.agents() == ["bot"]


def test_modes_of_a_home(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    commit(agent, {"a": b"1", "d/b": b"1"})
    root = tmp_path / "home"
    for path in (".kai", "bot/versions", "bot/workspace"):
        assert (root / path).stat().st_mode & 0o777 == 0o700, path
    view = root / "bot" / "versions" / "v1.0.0"
    assert view.stat().st_mode & 0o777 == 0o500
    assert (view / "d").stat().st_mode & 0o777 == 0o500
    assert (view / "d" / "b").stat().st_mode & 0o777 == 0o400


def test_a_shared_home_lets_the_group_read(tmp_path: Path) -> None:
    kaivc.init(tmp_path / "home", shared=True).close()
    agent = open_home(tmp_path / "home").new("bot")
    commit(agent, {"a": b"1"})
    view = tmp_path / "home" / "bot" / "versions" / "v1.0.0"
    assert view.stat().st_mode & 0o777 == 0o550
    assert (view / "a").stat().st_mode & 0o777 == 0o440


@pytest.mark.parametrize("name", ["", "Bot", "a/b", "..", "a..b", "x.lock", "con", "-x", "a" * 64, "nul.txt", "a\n"])
def test_names_that_no_agent_may_have(tmp_path: Path, name: str) -> None:
    home = make_home(tmp_path / "home")
    with pytest.raises(InvalidName):
        home.new(name)
    assert sorted(os.listdir(tmp_path / "home")) == [".kai"]


def test_a_name_is_used_once_and_no_directory_is_overwritten(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    home.new("bot")
    with pytest.raises(NameTaken):
        home.new("bot")
    (tmp_path / "home" / "other").mkdir()
    write(tmp_path / "home" / "other", {"precious": b"1"})
    with pytest.raises(NameTaken):
        home.new("other")
    assert read(tmp_path / "home" / "other") == {"precious": b"1"}


def test_an_agent_from_a_directory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write(source, {"a.py": b"1", "d/e": b"2", ".env": b"secret", "empty": b"", "run.sh": b"x"})
    (source / "run.sh").chmod(0o755)
    (source / "a.py").chmod(0o600)
    os.symlink("d/e", source / "link")
    (source / "hollow").mkdir()
    connection = begin(source / "memory.db")
    write_batch(connection)
    made = make_home(tmp_path / "home").make("bot", source=source)
    write_batch(connection)
    connection.close()
    workspace = Path(made.workspace)
    assert read(workspace).keys() == {"a.py", "d/e", "empty", "run.sh", "memory.db"}
    assert os.readlink(workspace / "link") == "d/e"
    assert (workspace / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (workspace / "a.py").stat().st_mode & 0o777 == 0o600
    assert prefix(workspace / "memory.db") == 1
    assert any("hollow" in line for line in made.notices)


def test_a_secret_of_the_directory_is_not_counted_among_the_files(tmp_path: Path) -> None:
    """It is never read: a run brings it."""
    source = tmp_path / "source"
    source.mkdir()
    manifest = b"state:\n  secret:\n    - {path: token, name: API}\n"
    write(source, {"kai.yaml": manifest, "token": b"hunter2", "a": b"1"})
    made = make_home(tmp_path / "home").make("bot", source=source)
    assert read(Path(made.workspace)).keys() == {"kai.yaml", "a"}
    assert made.files == 2


def test_a_linked_workspace(tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    write(live, {"a": b"1"})
    home = make_home(tmp_path / "home")
    agent = home.new("bot", link=live)
    assert agent.workspace == live
    agent.commit()
    write(live, {"a": b"2", "b": b"3"})
    agent.rollback("v1.0.0")
    assert read(live) == {"a": b"1"}
    assert open_home(tmp_path / "home").agent("bot").workspace == live
    with pytest.raises(RefusedWorkspace):
        open_home(tmp_path / "home").new("two", link=live)
    with pytest.raises(RefusedWorkspace):
        home.new("two", link=tmp_path / "nowhere")


def make_new(path: Path, at: int, source: Path) -> None:
    open_home(path, Cut(at)).new("bot", source=source)


def test_new_killed_at_every_call(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write(source, {"a": b"1", "d/b": b"2"})
    at, landed = 0, 0
    while True:
        at += 1
        path = tmp_path / f"home{at}"
        make_home(path).close()
        cut = in_child(partial(make_new, path, at, source))
        home = open_home(path)
        if home.agents() == ["bot"]:
            landed += 1
        else:
            home.new("bot", source=source)
        agent = home.agent("bot")
        assert read(agent.workspace) == {"a": b"1", "d/b": b"2"}
        commit(agent, {"a": b"3"})
        assert agent.verify().ok
        home.close()
        if cut == 0:
            break
        assert cut == signal.SIGKILL
    assert at > 10
    assert landed >= 1


def test_init_killed_at_every_call(tmp_path: Path) -> None:
    at = 0
    while True:
        at += 1
        path = tmp_path / f"home{at}"
        cut = in_child(partial(kaivc.init, path, vfs=Cut(at)))
        if not (path / ".kai").is_dir():
            kaivc.init(path).close()
        commit(open_home(path).new("bot"), {"a": b"1"})
        if cut == 0:
            break
    assert at > 5


def test_the_database_of_the_workspace_may_be_open_in_this_very_process(tmp_path: Path) -> None:
    """An agent that calls the library itself must not lose its locks to it."""
    agent = make_home(tmp_path / "home").new("bot")
    path = agent.workspace / "memory.db"
    mine = sqlite3.connect(path, isolation_level=None)
    mine.execute("CREATE TABLE t (batch INTEGER, part INTEGER, pad BLOB)")
    mine.execute("BEGIN IMMEDIATE")
    mine.execute("INSERT INTO t VALUES (1, 0, 'x')")
    agent.commit()
    agent.status()
    agent.diff()

    def intrude() -> None:
        other = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return
        raise AssertionError("the lock of the process that called kaivc is gone")

    assert in_child(intrude) == 0
    mine.execute("COMMIT")
    mine.close()
