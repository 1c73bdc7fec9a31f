"""What repairs once got wrong: each was a way to lose something, or to be led astray."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kaivc.errors import StorageFailed
from tests.engine.damage import CATALOG, fsck, packs, remove_catalog, rows, said
from tests.engine.homes import commit, copy, make_home, open_home

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
