"""What repairs once got wrong: each was a way to lose something, or to be led astray."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from kaivc.errors import StorageFailed
from tests.engine.damage import CATALOG, fsck, packs, remove_catalog, rows, said
from tests.engine.homes import commit, copy, make_home, open_home, remove
from tests.engine.test_kill import Cut, in_child

# ---------------------------------------------------------------- an older catalog


def older_catalog(path: Path) -> None:
    """A home with two versions more than its catalog says: a copy of an older one was put in place."""
    home = make_home(path)
    agent = home.new("bot")
    commit(agent, {"x": b"1"})
    home.close()
    shutil.copy(path / CATALOG, path.parent / "older")
    home = open_home(path)
    for number in range(2):
        commit(home.agent("bot"), {"x": b"newer %d" % number}, bump="minor")
    home.close()
    remove_catalog(path)
    shutil.move(path.parent / "older", path / CATALOG)


def test_an_older_catalog_is_brought_up_to_its_packs(tmp_path: Path) -> None:
    path = tmp_path / "home"
    older_catalog(path)
    found = fsck(path)
    assert not found.ok
    assert any("operations 2 to 3" in it.problem and it.seq == 2 for it in found.all), said(found)
    repaired = fsck(path, repair=True)
    assert repaired.ok, said(repaired)
    home = open_home(path)
    assert [it.tag for it in home.agent("bot").versions()] == ["v1.0.0", "v1.1.0", "v1.2.0"]
    home.close()
    assert fsck(path, repair=True).plan.is_empty  # type: ignore[union-attr]


def test_nothing_is_written_over_operations_that_the_catalog_does_not_know(tmp_path: Path) -> None:
    """A commit buried them, and the next gc took them away."""
    path = tmp_path / "home"
    older_catalog(path)
    home = open_home(path)
    agent = home.agent("bot")
    with pytest.raises(StorageFailed, match="older than the packs"):
        commit(agent, {"x": b"other"}, version="3.0.0")
    agent.gc()
    home.close()
    assert fsck(path, repair=True).ok
    home = open_home(path)
    assert commit(home.agent("bot"), {"x": b"other"}, version="3.0.0") == "3.0.0"
    assert home.agent("bot").verify().ok
    assert len(home.agent("bot").versions()) == 4
    home.close()


def test_operations_of_another_history_are_said(tmp_path: Path) -> None:
    """Two copies of a home lived apart, and a pack of one was put into the other."""
    path, twin = tmp_path / "home", tmp_path / "twin"
    home = make_home(path)
    commit(home.new("bot"), {"x": b"1"})
    home.close()
    copy(path, twin)
    for each, count in ((path, 1), (twin, 3)):
        for number in range(count):
            home = open_home(each)
            commit(home.agent("bot"), {"x": b"%s %d" % (os.fsencode(each), number)}, bump="minor")
            home.close()
    (pack,) = packs(twin)
    shutil.copy(pack, packs(path)[0].with_name("f" * 16 + ".pack"))
    found = fsck(path)
    assert found.ok
    assert any("operations 2 to 4 of another history" in it.problem for it in found.all), said(found)
    before = rows(path)
    assert fsck(path, repair=True).ok
    assert rows(path) == before


# ---------------------------------------------------------------- whose records they are


def two_agents(path: Path) -> None:
    """Two agents with two versions each."""
    home = make_home(path)
    for name in ("bot", "cat"):
        agent = home.new(name)
        for number in range(2):
            commit(agent, {"x": b"%s %d" % (name.encode(), number)}, bump="minor")
    home.close()


@pytest.mark.parametrize("lost", [False, True])
def test_packs_under_the_wrong_names_are_known_by_what_they_hold(tmp_path: Path, lost: bool) -> None:
    path = tmp_path / "home"
    two_agents(path)
    before = rows(path)
    directory = path / ".kai/packs"
    for source, target in (("bot", "aside"), ("cat", "bot"), ("aside", "cat")):
        (directory / source).rename(directory / target)
    if lost:
        remove_catalog(path)
    assert fsck(path, repair=True).ok
    after = rows(path)
    for table in ("refs", "reflog", "ops", "former"):
        assert after[table] == before[table]


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("lie", [{"home_id": "0" * 32}, {"object_format": "sha1"}, {"format": 9}])
def test_a_home_file_that_lies_is_not_believed(tmp_path: Path, lie: dict[str, object], lost: bool) -> None:
    """An id that no record says made every operation another home's: the history went."""
    path = tmp_path / "home"
    two_agents(path)
    before = rows(path)
    file = path / ".kai/home.json"
    true = file.read_bytes()
    file.write_text(json.dumps(json.loads(true) | lie))
    if lost:
        remove_catalog(path)
    assert fsck(path, repair=True).ok
    assert rows(path) == before
    assert file.read_bytes() == true


def renamed(path: Path, at: int) -> None:
    open_home(path, Cut(at)).rename("old", "young")


def test_a_rename_that_was_cut_is_finished_though_the_catalog_is_lost_too(tmp_path: Path) -> None:
    """The op record in the packs says whether it landed; directories and packs under the other name follow it."""
    template, path = tmp_path / "template", tmp_path / "home"
    home = make_home(template)
    agent = home.new("old")
    commit(agent, {"x": b"1"})
    (agent.workspace / "x").write_bytes(b"not committed")
    home.close()
    names: list[str] = []
    at = 0
    while True:
        at += 1
        copy(template, path)
        cut = in_child(partial(renamed, path, at))
        remove_catalog(path)
        assert fsck(path, repair=True).ok
        home = open_home(path)
        (name,) = home.agents()
        agent = home.agent(name)
        assert (agent.workspace / "x").read_bytes() == b"not committed"
        assert agent.verify().ok
        assert [each for each in ("old", "young") if (path / each).exists()] == [name]
        if name == "young":
            assert os.listdir(path / ".kai/packs") == ["young"]
        home.close()
        names.append(name)
        remove(path)
        if not cut:
            break
    assert names == sorted(names)
    assert set(names) == {"old", "young"}


# ---------------------------------------------------------------- what stands where a file should


def a_directory(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("kind", [a_directory, a_dangling_link, os.mkfifo])
@pytest.mark.parametrize("name", ["catalog.sqlite", "home.json", "packs/bot/0000000000000000.pack"])
def test_what_stands_where_a_file_should(tmp_path: Path, name: str, kind: Callable[[Path], None]) -> None:
    path = tmp_path / "home"
    two_agents(path)
    before = rows(path)
    place = path / ".kai" / name
    place.unlink(missing_ok=True)
    kind(place)
    with alarm(20):
        fsck(path)
        assert fsck(path, repair=True).ok
        home = open_home(path)
        home.agent("bot").gc()
        home.close()
        assert fsck(path).ok
    if name == "catalog.sqlite":
        assert {**rows(path), "objects": []} == {**before, "objects": []}


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Nothing may wait for whoever is at the other end of a pipe."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_copy_of_the_catalog_that_sqlite_made_is_as_good(tmp_path: Path) -> None:
    """Without a log beside it, a look at all of the home kept its own notes out for five seconds each."""
    path = tmp_path / "home"
    two_agents(path)
    with closing(sqlite3.connect(path / CATALOG)) as db:
        db.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
    remove_catalog(path)
    shutil.copy(tmp_path / "copy", path / CATALOG)
    home = open_home(path)
    home.agents()
    with closing(sqlite3.connect(path / CATALOG)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    home.close()
    assert not fsck(path).all
