"""`rollback --keep`: what the user names stays, and undo still brings everything back."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest

from kaivc.api import Agent
from kaivc.errors import Incompatible, NoSuchPath
from tests.engine.homes import Files, commit, copy, make_home, open_home, read, remove, write
from tests.engine.test_kill import Cut, check_whole, in_child

FIRST: Files = {"logic.py": b"1", "config.yaml": b"1", "prompts/a": b"1", "prompts/b": b"1", "old": b"1"}
SECOND: Files = {"logic.py": b"2", "config.yaml": b"2", "prompts/a": b"2", "prompts/c": b"2"}


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    made = make_home(tmp_path / "home").new("bot")
    commit(made, FIRST, version="1.0.0")
    commit(made, SECOND, version="2.0.0")
    return made


@pytest.mark.parametrize("dirty", [False, True])
def test_what_is_kept_stays_and_undo_and_redo_bring_all_back(agent: Agent, dirty: bool) -> None:
    before = SECOND | ({"config.yaml": b"mine", "prompts/new": b"mine", "logic.py": b"mine"} if dirty else {})
    write(agent.workspace, before)
    keep = ("config.yaml", "./prompts/", "old")
    planned = agent.rollback("v1.0.0", keep=keep, dry_run=True)
    assert read(agent.workspace) == before
    moved = agent.rollback("v1.0.0", keep=keep)
    assert (moved.writes, moved.removes, moved.kept) == (planned.writes, planned.removes, planned.kept)
    # A path to keep that is not in the workspace stays away, as one of class keep does.
    after = {path: data for path, data in before.items() if path == "config.yaml" or path.startswith("prompts/")}
    after["logic.py"] = b"1"
    assert read(agent.workspace) == after
    assert set(moved.kept) == {"config.yaml", "old", "prompts/a", "prompts/b", "prompts/c"} | (
        {"prompts/new"} if dirty else set()
    )
    assert moved.writes == ("logic.py",)
    assert moved.reason == "rollback to v1.0.0; keeps config.yaml, prompts, old"
    assert agent.reflog().entries[0].reason == moved.reason
    assert (moved.backup is not None) is dirty
    assert agent.undo().to_version == "v2.0.0"
    assert read(agent.workspace) == before
    agent.redo()
    assert read(agent.workspace) == after
    agent.undo()
    assert read(agent.workspace) == before


def test_what_was_written_to_a_kept_file_since_is_in_the_backup_of_undo(agent: Agent) -> None:
    agent.rollback("v1.0.0", keep=["config.yaml"])
    (agent.workspace / "config.yaml").write_bytes(b"later")
    undone = agent.undo()
    assert read(agent.workspace) == SECOND
    assert undone.backup is not None
    assert b"".join(agent.cat("config.yaml", undone.backup).stream()) == b"later"


def test_keeping_everything_moves_current_alone(agent: Agent) -> None:
    write(agent.workspace, SECOND | {"more": b"x"})
    moved = agent.rollback("v1.0.0", keep=["."], reason="see it there")
    assert (moved.writes, moved.removes, moved.backup) == ((), (), None)
    assert agent.current.version == "1.0.0"
    assert moved.reason == "see it there; keeps ."
    agent.undo()
    assert read(agent.workspace) == SECOND | {"more": b"x"}


def test_a_path_that_neither_side_has_moves_nothing(agent: Agent) -> None:
    for dry_run in (True, False):
        with pytest.raises(NoSuchPath) as caught:
            agent.rollback("v1.0.0", keep=["prompts", "prompt/a"], dry_run=dry_run)
        assert caught.value.unchanged == "nothing moved"
        assert "prompts/a" in caught.value.hint
    with pytest.raises(NoSuchPath):
        agent.rollback("v1.0.0", keep=[""])
    assert agent.current.version == "2.0.0"
    assert read(agent.workspace) == SECOND


def test_a_file_stays_where_the_version_has_a_directory(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    commit(agent, {"x/y": b"in"}, version="1.0.0")
    write(agent.workspace, {})
    commit(agent, {"x": b"file"}, version="2.0.0")
    assert agent.rollback("v1.0.0", keep=["x"]).kept == ("x", "x/y")
    assert read(agent.workspace) == {"x": b"file"}


def test_what_is_kept_may_not_stand_in_the_way(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    commit(agent, {"x": b"file"}, version="1.0.0")
    write(agent.workspace, {})
    commit(agent, {"x/y": b"in", "x/z": b"in"}, version="2.0.0")
    with pytest.raises(Incompatible) as caught:
        agent.rollback("v1.0.0", keep=["x/y"])
    assert "x is a directory that holds files that stay" in caught.value.what
    assert read(agent.workspace) == {"x/y": b"in", "x/z": b"in"}
    assert agent.current.version == "2.0.0"


def test_a_kept_counter_is_not_even_read(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    manifest = b"state:\n  monotonic:\n    - {path: count.json, pointer: /n}\n"
    for version, count in (("1.0.0", b"1"), ("2.0.0", b"2")):
        commit(agent, {"kai.yaml": manifest, "count.json": b'{"n": %s}' % count}, version=version)
    (agent.workspace / "count.json").write_bytes(b"broken")
    with pytest.raises(Incompatible):
        agent.rollback("v1.0.0")
    assert agent.rollback("v1.0.0", keep=["count.json"]).kept == ("count.json",)
    assert (agent.workspace / "count.json").read_bytes() == b"broken"


def test_moves_name_the_source_of_the_workspace(agent: Agent) -> None:
    write(agent.workspace, SECOND | {"more": b"x"})
    rolled = agent.rollback("v1.0.0")
    assert rolled.source == "v1.0.0"
    restored = agent.restore("logic.py", source=str(rolled.backup), dry_run=True)
    assert (restored.source, restored.reason) == (rolled.backup, f"restore from {rolled.backup}")
    assert agent.restore(source="^2", dry_run=True).source == "v2.0.0"
    assert agent.undo().source == rolled.backup
    commit(agent, SECOND | {"more": b"y"}, version="3.0.0")
    assert agent.undo().source is None


NAMES = ("a", "b/a", "b/b", "b/c/a", "c/a")


def random_files(pick: random.Random) -> Files:
    return {name: b"%d" % pick.randrange(3) for name in NAMES if pick.random() < 0.7}


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_kept_a_rollback_keeps_that_alone_and_undo_brings_all_back(tmp_path: Path, seed: int) -> None:
    pick = random.Random(seed)
    agent = make_home(tmp_path / "home").new("bot")
    versions = [random_files(pick) | {"always": b"%d" % number} for number in range(4)]
    for number, files in enumerate(versions):
        commit(agent, files, version=f"{number + 1}.0.0")
    for _ in range(6):
        before, number = random_files(pick) | {"always": b"live"}, pick.randrange(4)
        write(agent.workspace, before)
        keep = [it for it in ("a", "b", "b/c/", "c/a", "always") if pick.random() < 0.4]
        keep = [it for it in keep if any(f"{name}/".startswith(it.rstrip("/") + "/") for name in before)]
        target = versions[number]
        agent.rollback(f"v{number + 1}.0.0", keep=keep, dry_run=True)
        moved = agent.rollback(f"v{number + 1}.0.0", keep=keep)
        if not moved.applied:
            continue
        stays = {name for name in before | target if any(f"{name}/".startswith(it.rstrip("/") + "/") for it in keep)}
        expected = {name: data for name, data in target.items() if name not in stays}
        assert read(agent.workspace) == expected | {name: before[name] for name in stays if name in before}
        assert set(moved.kept) == {name for name in stays if before.get(name) != target.get(name)}
        agent.undo()
        assert read(agent.workspace) == before


def cut_rollback(path: Path, at: int) -> None:
    open_home(path, Cut(at)).agent("bot").rollback("v1.0.0", keep=["config.yaml", "prompts"], reason="cut")


def test_what_is_kept_stays_wherever_the_rollback_is_cut(tmp_path: Path) -> None:
    template, path = tmp_path / "template", tmp_path / "home"
    agent = make_home(template).new("bot")
    commit(agent, FIRST, version="1.0.0")
    commit(agent, SECOND, version="2.0.0")
    before = SECOND | {"config.yaml": b"mine", "new": b"mine"}
    write(agent.workspace, before)
    after: Files = {"logic.py": b"1", "old": b"1"} | {
        name: data for name, data in before.items() if name == "config.yaml" or name.startswith("prompts/")
    }
    outcomes, at, cut = set(), 1, 1
    while cut:
        copy(template, path)
        cut = in_child(partial(cut_rollback, path, at))
        agent = open_home(path).agent("bot")
        landed = agent.reflog().entries[0].reason == "cut; keeps config.yaml, prompts"
        agent.restore("logic.py", source="current" if landed else "v2.0.0")  # the next writer finishes what was cut
        assert read(agent.workspace) == (after if landed else before)
        if landed:
            agent.undo()
            assert read(agent.workspace) == before
        check_whole(agent)
        outcomes.add(landed)
        remove(path)
        at += 3
    assert outcomes == {True, False}
