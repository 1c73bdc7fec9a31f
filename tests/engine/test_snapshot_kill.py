"""kai killed at every call that changes the disk, in a test that commits, a promotion and a drop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kaivc import sandboxes, trials
from kaivc.api import Agent
from kaivc.names import snapshots_prefix
from tests.engine import homes
from tests.engine.homes import copy, make_home, open_home
from tests.engine.overlays import Planted
from tests.engine.test_kill import Cut, check_whole, in_child

FILES = {"logic.py": b"1", "state.json": b"{}", "config.yaml": b"a: 1\n"}
MOST = 400


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "chosen", lambda _: (Planted(), Planted().ability()))


def opened(path: Path, vfs: Cut | None = None) -> Agent:
    flags = {"isolation__temp_dir": str(path.parent / f"{path.name}-temp"), "isolation__rollback_on_error": "true"}
    return open_home(path, vfs, **flags).agent("bot")


def keep(agent: Agent) -> None:
    agent.snapshot_test("current", "x", commit=True)


def live(agent: Agent) -> None:
    agent.snapshot_test("current", "x", commit=True, state="live")


def promote(agent: Agent) -> None:
    agent.snapshot_promote(agent.snapshot_list().snapshots[0].id, with_state=True)


def drop(agent: Agent) -> None:
    agent.snapshot_drop(agent.snapshot_list().snapshots[0].id)


def names(agent: Agent) -> dict[str, bytes]:
    return {str(name): bytes(oid) for name, oid in agent.repository.refs("refs/").items()}


def settled(agent: Agent, path: Path) -> None:
    """After the next start nothing is left of what was cut, and records say what is."""
    check_whole(agent)
    agent.snapshot_test("current", "x")
    place = path.parent / f"{path.name}-temp" / str(os.geteuid())
    assert set(os.listdir(place)) <= {".kai-scratch"}
    branches = {name.rpartition("/")[2] for name in agent.repository.refs(snapshots_prefix("bot"))}
    recorded = list(trials.every(agent.repository.layout, "bot"))
    assert {it.id for it in recorded} <= branches
    assert all((it.status, it.scratch) == ("passed", None) for it in recorded), recorded
    assert {it.id for it in agent.snapshot_list().snapshots} == branches
    assert agent.repository.home.catalog.agent("bot") is not None


@pytest.mark.parametrize("act", [keep, live, promote, drop])
def test_killed_at_any_call_it_is_done_or_it_is_not(act: Callable[[Agent], None], tmp_path: Path) -> None:
    start = tmp_path / "start"
    home = make_home(start, isolation__temp_dir=f"{start}-temp")
    bot = home.new("bot")
    homes.commit(bot, FILES)
    if act in (promote, drop):
        bot.snapshot_test("current", "x", commit=True)
        (bot.workspace / "state.json").write_text("[1]")
    before = names(bot)
    home.close()
    done, cuts = 0, 0
    for at in range(1, MOST, 3 if act is live else 1):
        path = tmp_path / "home"
        copy(start, path)
        code = in_child(lambda path=path, at=at: act(opened(path, Cut(at))))  # type: ignore[misc]
        agent = opened(path)
        if code == 0:
            assert names(agent) != before
            settled(agent, path)
            break
        assert code == signal.SIGKILL
        cuts += 1
        done += names(agent) != before
        settled(agent, path)
        agent.repository.home.catalog.close()
    else:
        pytest.fail(f"not at its end after {MOST} calls")
    assert cuts > 5
    assert 0 < done < cuts


@pytest.mark.parametrize("by", ["the next test", "gc"])
def test_killed_while_the_command_runs(by: str, tmp_path: Path) -> None:
    path = tmp_path / "home"
    home = make_home(path, isolation__temp_dir=f"{path}-temp")
    homes.commit(home.new("bot"), FILES)
    home.close()

    def killed() -> None:
        box = Planted()
        box.before = lambda: os.kill(os.getpid(), signal.SIGKILL)
        sandboxes.chosen = lambda _: (box, box.ability())  # type: ignore[assignment]
        opened(path).snapshot_test("current", "x")

    assert in_child(killed) == signal.SIGKILL
    agent = opened(path)
    assert len(trials.ids(agent.repository.layout, "bot")) == 1
    assert agent.snapshot_list().snapshots == ()
    place = path.parent / f"{path.name}-temp" / str(os.geteuid())
    assert len(os.listdir(place)) == 2
    if by == "gc":
        agent.gc(dry_run=True)
        assert len(os.listdir(place)) == 2
        agent.gc()
        assert os.listdir(place) == [".kai-scratch"]
        assert trials.ids(agent.repository.layout, "bot") == []
    settled(agent, path)
