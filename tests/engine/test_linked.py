"""A workspace that lies elsewhere: which directory may be one, and what is said when it is not there any more."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kaivc
from kaivc.api import Agent, Home
from kaivc.errors import InvalidName, InvalidSettings, LinkLost, RefusedWorkspace
from kaivc.settings import parse_local
from tests.engine.homes import Files, commit, make_home, open_home, read, write
from tests.engine.test_kill import in_child

V1: Files = {"logic.py": b"one\n", "state.json": b"1\n"}
V2: Files = {"logic.py": b"two\n", "deep/er": b"x\n"}


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """The directory elsewhere."""
    path = tmp_path / "elsewhere" / "live"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def home(tmp_path: Path, live: Path) -> Home:
    """One agent, linked, with two versions, the newer one in force."""
    home = make_home(tmp_path / "home")
    agent = home.new("bot", link=live)
    commit(agent, V1)
    commit(agent, V2, bump="minor")
    return home


# ---------------------------------------------------------------- which directory


def test_every_verb_works_on_a_linked_workspace(home: Home, live: Path) -> None:
    agent = home.agent("bot")
    (live / "logic.py").write_bytes(b"dirty\n")
    assert agent.status().dirty
    agent.rollback("v1.0.0")
    assert read(live) == V1
    agent.undo()
    assert read(live) == V2 | {"logic.py": b"dirty\n"}
    agent.restore()
    assert read(live) == V2
    assert agent.run("true").exit_code == 0
    assert agent.verify(workspace=True).ok
    assert not (home.path / "bot" / "workspace").exists()


def test_a_home_that_was_opened_before_sees_the_link(tmp_path: Path, live: Path) -> None:
    early = make_home(tmp_path / "home")
    write(live, V1)
    open_home(early.path).new("bot", link=live)
    assert early.agent("bot").workspace == live
    assert early.agent("bot").commit().tag == "v1.0.0"
    assert read(early.agent("bot").load()).keys() == {*V1, "snapshot_meta.json"}


def refused(tmp_path: Path) -> dict[str, Path]:
    """Directories that must not be linked in ``tmp_path/home``, whose agent is linked to ``elsewhere/live``."""
    other = tmp_path / "other" / "home"
    kaivc.init(other).close()
    (other / "bot" / "workspace" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "live" / "below").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "around" / "live").mkdir(parents=True)
    (tmp_path / "around" / "way").symlink_to(tmp_path / "elsewhere" / "live")
    return {
        "this home": tmp_path / "home",
        "below this home": tmp_path / "home" / "bot",
        "above this home": tmp_path,
        "another home": other,
        "another home's workspace": other / "bot" / "workspace",
        "below another home's workspace": other / "bot" / "workspace" / "deep",
        "above another home": other.parent,
        "linked already": tmp_path / "elsewhere" / "live",
        "linked already, by another way": tmp_path / "around" / "way",
        "below a linked one": tmp_path / "elsewhere" / "live" / "below",
        "above a linked one": tmp_path / "elsewhere",
        "a file": tmp_path / "file",
        "nothing": tmp_path / "nothing",
    }


def test_a_directory_that_must_not_be_a_workspace_is_refused(home: Home, tmp_path: Path) -> None:
    for why, path in refused(tmp_path).items():
        with pytest.raises(RefusedWorkspace):
            home.new("next", link=path)
        assert home.agents() == ["bot"], why
        assert not (home.path / "next").exists(), why
    assert "next" not in (home.path / ".kai" / "local.yaml").read_text()


def test_a_directory_on_another_disk_is_refused(home: Home) -> None:
    if os.stat("/dev/shm").st_dev == os.stat(home.path).st_dev:
        pytest.skip("there is one disk only")
    with pytest.raises(RefusedWorkspace, match="another disk"):
        home.new("next", link="/dev/shm")


def test_where_a_link_leads_may_be_written_by_hand() -> None:
    local = parse_local(b"workspaces:\n  a: /x/y\n  b: {path: /z, inode: 7}\n", "local.yaml")
    assert (local.workspaces, local.inodes) == ({"a": "/x/y", "b": "/z"}, {"b": 7})
    for wrong in (b"workspaces:\n  a: {inode: 7}\n", b"workspaces:\n  a: {path: /x, inode: no}\n"):
        with pytest.raises(InvalidSettings):
            parse_local(wrong, "local.yaml")


def test_what_a_cut_command_noted_is_in_nobodys_way(home: Home, tmp_path: Path) -> None:
    path = home.path / ".kai" / "local.yaml"
    (tmp_path / "next").mkdir()
    path.write_text(path.read_text() + f"  cut:\n    path: {tmp_path / 'next'}\n")
    home.new("other", link=tmp_path / "next")
    assert home.new("cut").workspace == home.path / "cut" / "workspace"
    assert "cut:" not in path.read_text()


def test_of_two_that_link_the_same_one_is_refused(tmp_path: Path, live: Path) -> None:
    path = make_home(tmp_path / "home").path
    early = open_home(path)
    open_home(path).new("one", link=live)
    with pytest.raises(RefusedWorkspace, match="workspace of one"):
        early.new("two", link=live)
    with pytest.raises(InvalidName):
        early.new("both", link=live, source=live)
    assert early.agents() == ["one"]


# ---------------------------------------------------------------- a link that is lost


def vanished(live: Path) -> None:
    live.rename(live.with_name("moved"))


def replaced_by_a_file(live: Path) -> None:
    vanished(live)
    live.write_text("x")


def replaced_by_a_link(live: Path) -> None:
    vanished(live)
    live.symlink_to("moved")


def replaced_by_another(live: Path) -> None:
    vanished(live)
    live.mkdir()
    (live / "other.txt").write_text("x")


def not_mounted(live: Path) -> None:
    """The directory below the mount point is empty."""
    vanished(live)
    live.mkdir()


def parent_vanished(live: Path) -> None:
    vanished(live)
    live.parent.rename(live.parent.with_name("away"))
    live.parent.mkdir()
    live.parent.with_name("away").joinpath("moved").rename(live.with_name("moved"))


LOSSES = [vanished, replaced_by_a_file, replaced_by_a_link, replaced_by_another, not_mounted, parent_vanished]


def writing(agent: Agent) -> list[Callable[[], object]]:
    """All that needs the workspace."""
    return [
        agent.status, agent.commit, lambda: agent.commit(allow_empty=True), agent.diff, agent.restore, agent.undo,
        lambda: agent.restore("logic.py"), lambda: agent.restore(dry_run=True), lambda: agent.rollback("v1.0.0"),
        lambda: agent.rollback("v1.0.0", force=True, live=True), lambda: agent.rollback("v1.0.0", dry_run=True),
        lambda: agent.run("true"), lambda: agent.run("true", dirty=True), lambda: agent.verify(workspace=True),
    ]  # fmt: skip


@pytest.mark.parametrize("lose", LOSSES)
def test_a_lost_link_is_said_and_nothing_is_written(lose: Callable[[Path], None], home: Home, live: Path) -> None:
    lose(live)
    there = sorted(live.parent.rglob("*"))
    log = home.agent("bot").reflog(None).entries
    agent = open_home(home.path).agent("bot")
    for act in writing(agent):
        with pytest.raises(LinkLost) as caught:
            act()
        assert str(live) in caught.value.what
        assert "kai agent link bot" in caught.value.hint
    assert sorted(live.parent.rglob("*")) == there
    assert agent.reflog(None).entries == log
    # What needs no workspace goes on.
    assert agent.log().versions[0].tag == "v1.1.0"
    assert agent.verify().ok
    assert agent.load("v1.0.0").is_dir()
    assert home.listing().agents[0].problem


@pytest.mark.parametrize("lose", LOSSES)
def test_a_lost_link_is_linked_again(lose: Callable[[Path], None], home: Home, live: Path) -> None:
    lose(live)
    moved = live.with_name("moved")
    done = home.link("bot", moved)
    assert (done.workspace, done.before) == (str(moved), str(live))
    agent = home.agent("bot")
    assert agent.workspace == moved
    assert not agent.status().dirty
    agent.rollback("v1.0.0")
    assert read(moved) == V1
    assert home.listing().agents[0].problem is None


def test_a_link_that_comes_back_needs_nothing(home: Home, live: Path) -> None:
    vanished(live)
    live.with_name("moved").rename(live)
    assert not home.agent("bot").status().dirty


def test_only_a_linked_workspace_is_linked_elsewhere(home: Home, tmp_path: Path) -> None:
    home.new("own")
    (tmp_path / "next").mkdir()
    with pytest.raises(RefusedWorkspace, match="not linked"):
        home.link("own", tmp_path / "next")
    for why, path in refused(tmp_path).items():
        if why.endswith("linked one") or why.startswith("linked already"):
            continue  # it is its own
        with pytest.raises(RefusedWorkspace):
            home.link("bot", path)
        assert home.agent("bot").workspace == tmp_path / "elsewhere" / "live"


def test_secrets_in_the_local_file_stay(home: Home, live: Path) -> None:
    path = home.path / ".kai" / "local.yaml"
    path.write_text(path.read_text() + "secrets:\n  API_KEY: {env: OTHER}\n")
    vanished(live)
    open_home(home.path).link("bot", live.with_name("moved"))
    assert open_home(home.path).opened.local.secrets.keys() == {"API_KEY"}


# ---------------------------------------------------------------- .git


def test_git_in_a_workspace_is_never_opened(tmp_path: Path, live: Path) -> None:
    write(live, V1)
    for path in (live / ".git", live / "sub" / ".git"):
        path.mkdir(parents=True)
        (path / "HEAD").write_text("ref: refs/heads/main\n")
        os.mkfifo(path / "pipe")  # whoever opens it waits for ever
    (live / "sub" / "kept.txt").write_text("x")
    seen: list[str] = []

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in ("open", "os.scandir", "os.listdir") and isinstance(args[0], str | bytes):
            seen.extend([f"{event} {args[0]!r}"] * (b".git" in os.fsencode(args[0]).split(b"/")))

    def live_with_it() -> None:
        sys.addaudithook(hook)
        home = make_home(tmp_path / "home")
        agent = home.new("bot", link=live)
        agent.commit()
        (live / "logic.py").write_bytes(b"two\n")
        agent.status()
        agent.diff()
        agent.commit()
        agent.rollback("v1.0.0")
        agent.undo()
        agent.restore(source="v1.0.0")
        agent.verify(workspace=True)
        agent.run("true", dirty=True)
        copy = home.new("copy", source=live)
        copy.commit()
        assert not (copy.workspace / ".git").exists()
        own = home.new("own")
        write(own.workspace, V1)
        (own.workspace / ".git").mkdir()
        own.commit()
        home.remove("own")
        home.rename("bot", "next")
        home.link("next", live)
        assert not seen, seen
        os.listdir(live / ".git")
        assert seen, "the hook looks"

    assert in_child(live_with_it) == 0
    assert (live / ".git" / "HEAD").read_text() == "ref: refs/heads/main\n"
