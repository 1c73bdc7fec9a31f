"""A home is moved or copied while nothing runs; everything is as before at the new place."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kaivc.api import Agent, Home
from kaivc.errors import ChecksumMismatch, Incompatible
from tests.engine.homes import Files, commit, make_home, open_home, read, remove, write

V1: Files = {"logic.py": b"one\n", "state.json": b"1\n", "big.bin": b"0" * 300_000}
V2: Files = V1 | {"logic.py": b"two\n"}
DIRTY: Files = V2 | {"state.json": b"9\n", "new.txt": b"n"}


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("there is one file system only")
    path = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield path
    remove(path)


def made(path: Path, link: Path) -> Home:
    """A home with an agent of its own and a linked one, views shared by hard link, warm caches, a dirty workspace."""
    home = make_home(path)
    for agent in (home.new("bot"), home.new("far", link=link)):
        commit(agent, V1)
        commit(agent, V2, bump="minor")
        agent.rollback("v1.0.0")
        agent.rollback("v1.1.0")
        write(agent.workspace, DIRTY)
        connection = sqlite3.connect(agent.workspace / "state.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.close()
        agent.status()
        agent.load("v1.0.0")
    home.close()
    return home


def renamed(old: Path, new: Path) -> None:
    old.rename(new)


def moved_by_mv(old: Path, new: Path) -> None:
    subprocess.run(["mv", str(old), str(new)], check=True)


def copied_and_removed(old: Path, new: Path) -> None:
    subprocess.run(["cp", "-a", str(old), str(new)], check=True)
    remove(old)


def copied(old: Path, new: Path) -> None:
    subprocess.run(["cp", "-a", str(old), str(new)], check=True)


def copied_without_links_or_times(old: Path, new: Path) -> None:
    shutil.copytree(old, new, symlinks=True, copy_function=shutil.copy)


MOVES: list[Callable[[Path, Path], None]] = [
    renamed,
    moved_by_mv,
    copied_and_removed,
    copied,
    copied_without_links_or_times,
]


def check(agent: Agent) -> None:
    """Every verb, at the new place."""
    link = Path(agent.repository.layout.current(agent.name))
    assert os.readlink(link) == "versions/v1.1.0"
    assert (link / "logic.py").read_bytes() == b"two\n"
    status = agent.status()
    assert status.linked
    assert {path for _, _, path in status.changes} == {"state.json", "new.txt", "state.db"}
    assert agent.verify().ok
    assert read(agent.load("v1.0.0")).items() >= V1.items()
    assert agent.undo().applied
    assert read(agent.workspace) == V1
    assert agent.redo().applied
    assert read(agent.workspace).items() >= DIRTY.items()
    agent.restore("state.json")
    assert (agent.workspace / "state.json").read_bytes() == b"1\n"
    assert commit(agent, DIRTY, bump="minor") == "1.2.0"
    agent.rollback("v1.1.0")
    assert read(agent.workspace) == V2
    assert agent.run("true").exit_code == 0
    log = Path(agent.repository.layout.rollback_log(agent.name)).read_text().splitlines()
    assert len(log) == len(agent.reflog().entries)
    assert agent.verify(workspace=True).ok


@pytest.mark.parametrize("move", MOVES)
def test_a_moved_home_works(move: Callable[[Path, Path], None], tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    home_id = made(tmp_path / "old", live).opened.id
    move(tmp_path / "old", tmp_path / "new")
    home = open_home(tmp_path / "new")
    assert home.opened.id == home_id
    check(home.agent("bot"))
    check(home.agent("far"))
    assert home.agent("far").workspace == live
    home.new("next", source="bot")
    home.rename("bot", "rob")
    home.remove("far")
    assert read(live) == V2


@pytest.mark.parametrize("move", [moved_by_mv, copied_and_removed, copied])
def test_a_home_on_another_disk_works(move: Callable[[Path, Path], None], tmp_path: Path, other_disk: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    made(tmp_path / "old", live)
    move(tmp_path / "old", other_disk / "new")
    home = open_home(other_disk / "new")
    check(home.agent("bot"))
    home.rename("bot", "rob")
    assert home.agent("rob").verify().ok
    # The linked workspace stayed behind: it is read and committed; what must be renamed into it is refused.
    far = home.agent("far")
    assert far.status().dirty
    before = read(live)
    with pytest.raises(Incompatible, match="disk") as caught:
        far.rollback("v1.0.0")
    assert "kai agent link far" in caught.value.what
    assert read(live) == before
    assert far.current.tag == "v1.1.0"
    assert far.commit().tag == "v1.1.1"
    assert far.verify().ok
    # With the directory moved after it, all is well again.
    shutil.copytree(live, other_disk / "live")
    home.link("far", other_disk / "live")
    home.agent("far").rollback("v1.0.0")
    assert read(other_disk / "live") == V1


def test_a_linked_workspace_is_moved_with_its_home(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "live").mkdir(parents=True)
    made(top / "home", top / "live")
    top.rename(tmp_path / "away")
    home = open_home(tmp_path / "away" / "home")
    check(home.agent("bot"))
    home.link("far", tmp_path / "away" / "live")
    check(home.agent("far"))


def test_caches_of_the_old_place_do_not_hide_what_changed(tmp_path: Path) -> None:
    """Same sizes, same times: only what a copy cannot keep tells the two apart."""
    made(tmp_path / "old", _directory(tmp_path / "live"))
    copied(tmp_path / "old", tmp_path / "new")
    home = open_home(tmp_path / "new")
    agent = home.agent("bot")
    for path in (agent.workspace / "big.bin", home.path / "bot" / "versions" / "v1.0.0" / "big.bin"):
        status = path.stat()
        path.parent.chmod(0o700)
        path.chmod(0o600)
        path.write_bytes(b"0" * 299_999 + b"1")
        path.chmod(status.st_mode & 0o777)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "big.bin" in {path for _, _, path in agent.status().changes}
    assert {(it.where, it.path) for it in agent.verify("v1.0.0").findings} == {("view", "big.bin")}
    with pytest.raises(ChecksumMismatch, match=r"big\.bin"):
        agent.load("v1.0.0")
    assert open_home(tmp_path / "old").agent("bot").verify().ok


def test_a_copy_and_its_original_live_apart(tmp_path: Path) -> None:
    made(tmp_path / "old", _directory(tmp_path / "live"))
    copied(tmp_path / "old", tmp_path / "new")
    one, two = open_home(tmp_path / "old").agent("bot"), open_home(tmp_path / "new").agent("bot")
    commit(one, {"a": b"one"}, bump="minor")
    commit(two, {"a": b"two"}, bump="minor")
    one.rollback("v1.0.0")
    assert read(two.workspace) == {"a": b"two"}
    assert two.current.tag == "v1.2.0"
    assert one.verify().ok
    assert two.verify().ok


def _directory(path: Path) -> Path:
    path.mkdir()
    return path
