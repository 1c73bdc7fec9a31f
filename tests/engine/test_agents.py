"""Agents are listed, renamed and removed; what they held stays reachable, whenever the command is cut."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kaivc.api import Agent, Home
from kaivc.errors import AgentBusy, ChecksumMismatch, InvalidName, LockTimeout, NameTaken, NoSuchAgent
from kaivc.storage import journal
from kaivc.storage.gitobjects import Kind
from tests.engine.homes import Files, commit, copy, make_home, open_home, read, remove, write
from tests.engine.test_kill import Cut, in_child

V1: Files = {"logic.py": b"one\n", "state.json": b"1\n"}
V2: Files = {"logic.py": b"two\n", "deep/er": b"x\n"}
V3: Files = {"logic.py": b"three\n"}
DIRTY: Files = {"logic.py": b"dirty\n", "new.txt": b"n"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One agent with two versions, a rollback behind it, its workspace as v1.0.0 has it."""
    home = make_home(tmp_path / "home")
    agent = home.new("old")
    commit(agent, V1)
    commit(agent, V2, bump="minor")
    agent.rollback("v1.0.0", reason="back")
    return home


def everything(agent: Agent) -> dict[str, object]:
    """What a rename must not change."""
    return {
        "versions": [(it.tag, it.commit, it.notes) for it in agent.versions()],
        "current": agent.current.commit,
        "reflog": [(it.seq, it.old, it.new, it.verb, it.reason) for it in agent.reflog().entries],
        "files": read(agent.workspace),
    }


# ---------------------------------------------------------------- rename


def test_a_renamed_agent_is_the_same_under_another_name(home: Home) -> None:
    before = everything(home.agent("old"))
    log = (home.path / "old" / "rollback.log").read_bytes()
    done = home.rename("old", "young")
    agent = home.agent("young")
    assert done.refs == 3
    assert home.agents() == ["young"]
    assert everything(agent) == before
    assert agent.verify().ok
    assert agent.verify(workspace=True).ok
    assert not agent.status().pending
    assert agent.status().linked
    assert (home.path / "young" / "current" / "logic.py").read_bytes() == b"one\n"
    assert (home.path / "young" / "rollback.log").read_bytes() == log
    assert not (home.path / "old").exists()
    assert not (home.path / ".kai" / "packs" / "old").exists()
    for tag in agent.repository.refs("refs/tags/young/"):
        oid = agent.repository.ref(tag)
        assert oid is not None
        assert agent.repository.store.tag(oid).name == tag.removeprefix("refs/tags/")


def test_life_goes_on_after_a_rename(home: Home) -> None:
    home.rename("old", "young")
    agent = home.agent("young")
    assert agent.undo().to_version == "v1.1.0"
    assert agent.redo().to_version == "v1.0.0"
    assert commit(agent, DIRTY, bump="minor") == "1.2.0"
    agent.rollback("v1.1.0")
    assert read(agent.workspace) == V2
    assert agent.show("{1}").version.tag == "v1.2.0"
    verbs = [it.verb for it in agent.reflog().entries]
    assert verbs == ["rollback", "commit", "redo", "undo", "rollback", "commit", "commit"]
    lines = [json.loads(line) for line in (home.path / "young" / "rollback.log").read_text().splitlines()]
    assert [line["verb"] for line in lines] == verbs[::-1]
    assert len({line["seq"] for line in lines}) == 7
    assert agent.verify().ok
    assert (home.path / "young" / "current").resolve().name == "v1.1.0"


def test_the_chain_of_operations_goes_on_and_says_the_new_name(home: Home) -> None:
    home.rename("old", "young", reason="it grew up")
    agent = home.agent("young")
    entries = [it for it in agent.reflog(None).entries if it.verb == "rename"]
    assert {it.reason for it in entries} == {"it grew up"}
    assert {(it.ref.split("/")[2], it.new is None) for it in entries} == {("old", True), ("young", False)}
    assert [it.seq for it in agent.reflog().entries] == [3, 2, 1]
    commit(agent, DIRTY)
    assert [row.seq for row in journal.ops(agent.repository.catalog, agent.repository.id)] == [1, 2, 3, 4, 5]


def test_a_former_name_says_where_the_agent_is_and_is_not_given_again(home: Home) -> None:
    home.rename("old", "young")
    with pytest.raises(NoSuchAgent, match="renamed to 'young'") as caught:
        home.agent("old")
    assert caught.value.facts["nearest"] == ["young"]
    with pytest.raises(NameTaken, match="young"):
        home.new("old")
    home.new("other")
    with pytest.raises(NameTaken, match="young"):
        home.rename("other", "old")
    assert not (home.path / "old").exists()


def test_the_agent_itself_may_take_its_name_back(home: Home) -> None:
    before = everything(home.agent("old"))
    tags = home.agent("old").repository.refs("refs/tags/")
    home.rename("old", "young")
    home.rename("young", "old")
    assert everything(home.agent("old")) == before
    assert home.agent("old").repository.refs("refs/tags/") == tags
    with pytest.raises(NoSuchAgent, match="renamed to 'old'"):
        home.agent("young")
    assert commit(home.agent("old"), DIRTY) == "1.1.1"
    assert home.agent("old").verify().ok


def test_renamed_many_times(home: Home) -> None:
    for old, new in [("old", "a"), ("a", "b"), ("b", "c")]:
        home.rename(old, new)
        commit(home.agent(new), {"logic.py": new.encode()}, bump="minor")
    agent = home.agent("c")
    assert [it.verb for it in agent.reflog().entries].count("commit") == 5
    assert agent.repository.catalog.former_names(agent.repository.id) == ["a", "b", "old"]
    for name in ("old", "a", "b"):
        with pytest.raises(NoSuchAgent, match="'c'"):
            home.agent(name)
    agent.undo()
    agent.undo()
    assert agent.current.tag == "v1.2.0"
    assert agent.verify().ok


def test_an_agent_without_versions_is_renamed(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    write(home.new("old").workspace, V1)
    assert home.rename("old", "young").refs == 0
    assert read(home.agent("young").workspace) == V1
    assert home.agent("young").commit().tag == "v1.0.0"
    with pytest.raises(NameTaken):
        home.new("old")


@pytest.mark.parametrize("name", ["taken", "../x", "Old", "old", "gone", "plain"])
def test_a_name_that_is_not_free_is_refused_and_nothing_moves(home: Home, name: str) -> None:
    home.new("taken")
    home.new("gone")
    home.remove("gone")
    (home.path / "plain").mkdir()
    (home.path / "plain" / "mine").write_text("x")
    before = everything(home.agent("old"))
    with pytest.raises((NameTaken, InvalidName)):
        home.rename("old", name)
    assert everything(home.agent("old")) == before
    assert not home.agent("old").status().pending
    assert (home.path / "plain" / "mine").read_text() == "x"


def test_a_damaged_tag_is_named_and_nothing_moves(home: Home) -> None:
    repo = home.agent("old").repository
    oid = next(iter(repo.refs("refs/tags/").values()))
    row = repo.store.require(oid)
    pack = next((home.path / ".kai" / "packs" / "old").iterdir())
    with pack.open("r+b") as file:
        file.seek(row.offset + row.length - 3)
        file.write(b"\xff\x00\xff")
    again = open_home(home.path)
    with pytest.raises(ChecksumMismatch):
        again.rename("old", "young")
    assert again.agents() == ["old"]
    assert not again.agent("old").status().pending
    assert not (home.path / ".kai" / "packs" / "young").exists()
    assert commit(again.agent("old"), DIRTY) == "1.1.1"


@pytest.mark.parametrize("verb", ["rename", "remove"])
def test_refused_while_it_runs(home: Home, verb: str, tmp_path: Path) -> None:
    ready, go = tmp_path / "ready", tmp_path / "go"
    code = "import os,sys,time\nopen(sys.argv[1],'w')\nwhile not os.path.exists(sys.argv[2]): time.sleep(.01)"
    command = [sys.executable, "-c", code, str(ready), str(go)]
    kai = [sys.executable, "-m", "kaivc", "--home", str(home.path), "run", "old", "--", *command]
    running = subprocess.Popen(kai)
    try:
        while not ready.exists():
            assert running.poll() is None
        with pytest.raises(AgentBusy):
            home.rename("old", "young") if verb == "rename" else home.remove("old")
        assert home.agents() == ["old"]
    finally:
        go.touch()
        assert running.wait() == 0


def test_a_command_that_waited_while_the_agent_was_renamed_writes_nothing(home: Home) -> None:
    late = open_home(home.path).agent("old")
    home.rename("old", "young")
    acts: list[Callable[[], object]] = [
        late.restore,
        lambda: late.commit(allow_empty=True),
        lambda: late.rollback("v1.1.0"),
    ]
    for act in acts:
        with pytest.raises(NoSuchAgent, match="young"):
            act()
    assert not (home.path / "old").exists()


def test_a_reader_that_began_before_goes_on(home: Home) -> None:
    late = open_home(home.path).agent("old")
    version = late.show("v1.1.0").version
    late.repository.store.close()
    home.rename("old", "young")
    assert late.repository.store.read(version.tree_oid, Kind.TREE)


def test_a_rename_keeps_a_link(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    live = tmp_path / "live"
    live.mkdir()
    commit(home.new("old", link=live), V1)
    done = home.rename("old", "young")
    assert (done.linked, done.workspace) == (True, str(live))
    assert home.agent("young").workspace == live
    assert not home.agent("young").status().dirty
    assert "old" not in (home.path / ".kai" / "local.yaml").read_text()
    with pytest.raises(Exception, match="workspace of young"):
        home.new("other", link=live)


# ---------------------------------------------------------------- remove


def test_a_removed_agent_can_be_read_and_not_written(home: Home, tmp_path: Path) -> None:
    agent = home.agent("old")
    versions = [it.commit for it in agent.versions()]
    write(agent.workspace, DIRTY)
    plan = home.remove("old", dry_run=True)
    assert not plan.applied
    assert read(agent.workspace) == DIRTY
    done = home.remove("old", reason="no use")
    assert (done.applied, done.backup, done.saved) == (True, plan.backup, plan.saved)
    assert set(done.saved) == {"logic.py", "new.txt", "state.json"}
    assert home.agents() == []
    assert not (home.path / "old").exists()
    assert not (home.path / ".kai" / "removed" / "old").exists()
    agent = open_home(home.path).agent("old")
    assert [it.commit for it in agent.versions()] == versions
    assert agent.log().versions
    assert agent.show("v1.1.0").version.tag == "v1.1.0"
    assert agent.verify().ok
    assert [it.verb for it in agent.reflog().entries] == ["rollback", "commit", "commit"]
    assert agent.reflog(None).entries[0].reason == "no use"
    assert done.backup is not None
    agent.checkout(done.backup, tmp_path / "saved")
    assert read(tmp_path / "saved") == DIRTY
    agent.checkout("v1.1.0", tmp_path / "v")
    assert read(tmp_path / "v") == V2
    agent.export(tmp_path / "git")
    acts: list[Callable[[], object]] = [
        agent.commit, agent.undo, agent.redo, agent.restore, agent.status, agent.load,
        lambda: agent.rollback("v1.1.0"), lambda: agent.rollback("v1.1.0", dry_run=True),
        lambda: agent.undo(dry_run=True), lambda: agent.run("true"), lambda: agent.verify(workspace=True),
        agent.diff, lambda: home.rename("old", "young"), lambda: home.remove("old"),
    ]  # fmt: skip
    for act in acts:
        with pytest.raises(NoSuchAgent, match="was removed") as caught:
            act()
        assert "--from old" in caught.value.hint
    assert not (home.path / "old").exists()


def test_the_name_of_a_removed_agent_is_not_given_again(home: Home) -> None:
    home.remove("old")
    with pytest.raises(NameTaken, match="removed"):
        home.new("old")


def test_a_removed_agent_comes_back_as_a_fork(home: Home) -> None:
    write(home.agent("old").workspace, DIRTY)
    done = home.remove("old")
    assert home.new("young", source="old").current.tag == "v1.0.0"
    again = home.new("wild", source=f"old@{done.backup}")
    assert read(again.workspace) == DIRTY


@pytest.mark.parametrize("dirty", [False, True])
def test_what_no_backup_holds_is_kept(home: Home, dirty: bool) -> None:
    agent = home.agent("old")
    (agent.workspace / ".env").write_text("KEY=1")
    (agent.workspace / ".git").mkdir()
    (agent.workspace / ".git" / "HEAD").write_text("ref")
    (agent.workspace / "__pycache__").mkdir()
    (agent.workspace / "__pycache__" / "a.pyc").write_bytes(b"c")
    if dirty:
        (agent.workspace / "new.txt").write_text("n")
    plan = home.remove("old", dry_run=True)
    done = home.remove("old")
    kept = home.path / ".kai" / "removed" / "old"
    assert plan.unsaved == done.unsaved == (".env", ".git/")
    assert plan.kept_in == done.kept_in == str(kept)
    assert (done.backup is not None) is dirty
    assert os.listdir(kept) == ["workspace"]
    assert (kept / "workspace" / ".env").read_text() == "KEY=1"
    assert (kept / "workspace" / ".git" / "HEAD").read_text() == "ref"


def test_an_agent_without_versions_is_saved_too(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    write(home.new("bot").workspace, V1)
    done = home.remove("bot")
    assert done.backup == "backups/1"
    home.agent("bot").checkout("backups/1", tmp_path / "saved")
    assert read(tmp_path / "saved") == V1
    home.new("empty")
    assert home.remove("empty").backup is None


def test_a_database_is_saved_whole(home: Home, tmp_path: Path) -> None:
    path = home.agent("old").workspace / "state.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("INSERT INTO t VALUES (7)")
    done = home.remove("old")
    connection.close()
    home.agent("old").checkout(done.backup or "", tmp_path / "saved")
    with sqlite3.connect(tmp_path / "saved" / "state.db") as saved:
        assert saved.execute("SELECT x FROM t").fetchall() == [(7,)]


def test_a_linked_workspace_is_left_alone(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    live = tmp_path / "live"
    live.mkdir()
    commit(home.new("bot", link=live), V1)
    (live / "new.txt").write_text("n")
    done = home.remove("bot")
    assert (done.left, done.backup, done.kept_in) == (str(live), "backups/2", None)
    assert read(live) == V1 | {"new.txt": b"n"}
    home.new("next", link=live)
    assert home.agent("next").workspace == live


def test_removed_without_its_workspace(home: Home) -> None:
    remove(home.agent("old").workspace)
    done = home.remove("old")
    assert done.backup is None
    assert "not there" in done.notices[-1]
    assert not (home.path / "old").exists()


def test_the_list_tells_of_each(home: Home, tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    home.new("linked", link=live)
    home.new("gone")
    home.remove("gone")
    home.rename("old", "young")
    listed = {it.name: it for it in home.listing(removed=True).agents}
    assert [it.name for it in home.listing().agents] == ["linked", "young"]
    assert listed["young"].former == ("old",)
    assert (listed["young"].version, listed["young"].versions) == ("1.0.0", 2)
    packs = home.path / ".kai" / "packs" / "young"
    assert listed["young"].pack_bytes == sum(path.stat().st_size for path in packs.iterdir())
    assert (listed["linked"].linked, listed["linked"].workspace) == (True, str(live))
    assert (listed["gone"].state, listed["gone"].workspace) == ("removed", None)
    live.rename(tmp_path / "moved")
    lost = {it.name: it for it in home.listing().agents}["linked"]
    assert lost.problem
    assert "not there" in lost.problem


# ---------------------------------------------------------------- cut


def prepare(path: Path, link: Path | None = None) -> None:
    home = make_home(path)
    agent = home.new("old", link=link)
    commit(agent, V1)
    commit(agent, V2, bump="minor")
    agent.rollback("v1.0.0", reason="back")
    write(agent.workspace, DIRTY)
    home.close()


CUTS: dict[str, Callable[[Home], object]] = {
    "rename": lambda home: home.rename("old", "young"),
    "back": lambda home: home.rename("old", "former"),
    "remove": lambda home: home.remove("old"),
}


@pytest.mark.parametrize(
    ("verb", "linked"), [("rename", False), ("rename", True), ("back", False), ("remove", False), ("remove", True)]
)
def test_killed_at_every_call(verb: str, linked: bool, tmp_path: Path) -> None:
    template, path, live = tmp_path / "template", tmp_path / "home", tmp_path / "live"
    live.mkdir()
    if verb == "back":
        home = make_home(template)
        commit(home.new("former", link=live if linked else None), V1)
        home.rename("former", "old")
        agent = home.agent("old")
        commit(agent, V2, bump="minor")
        agent.rollback("v1.0.0", reason="back")
        write(agent.workspace, DIRTY)
        home.close()
    else:
        prepare(template, live if linked else None)
    home = open_home(template)
    before = everything(home.agent("old"))
    home.close()
    outcomes: list[str] = []
    at = 0
    while True:
        at += 1
        copy(template, path)
        if linked:
            write(live, DIRTY)
        cut = in_child(partial(act, verb, path, at))
        assert open_home(path).fsck().ok
        if at % 3 == 0:  # a repair must not take packs under two names for two agents
            assert open_home(path).fsck(repair=True).ok
        outcomes.append(judge(path, verb, before, linked))
        remove(path)
        if not cut:
            break
        assert cut == signal.SIGKILL
    assert outcomes == sorted(outcomes, key=["before", "after"].index), "once landed it stays so"
    assert outcomes.count("before") > 5
    assert outcomes.count("after") > 5


def act(verb: str, path: Path, at: int) -> None:
    CUTS[verb](open_home(path, Cut(at)))


def judge(path: Path, verb: str, before: dict[str, object], linked: bool) -> str:
    home = open_home(path)
    new = {"rename": "young", "back": "former", "remove": "old"}[verb]
    landed = home.agents() != ["old"]
    agent = home.agent(new if landed else "old")
    # Before anything is finished: readers read, and `current` stands under exactly one name.
    links = [name for name in {"old", new} if (path / name / "current" / "snapshot_meta.json").is_file()]
    assert agent.verify().ok
    if verb == "remove" and landed:
        return judge_removed(home, agent, before, linked)
    assert len(links) == 1
    assert everything(agent) == before
    agent.status()
    if verb != "remove":
        with pytest.raises(NoSuchAgent):
            home.agent("old" if landed else new)
    if not landed and verb != "remove":
        assert commit(agent, V3, bump="minor") == "1.2.0"
        assert sorted(os.listdir(path / ".kai" / "packs")) == ["old"]
        home.rename("old", new)
        agent = home.agent(new)
    else:
        assert commit(agent, V3, bump="minor") == "1.2.0"
    assert not agent.status().pending
    assert agent.verify().ok
    assert [it.verb for it in agent.reflog().entries] == ["commit", "rollback", "commit", "commit"]
    if verb != "remove":
        assert sorted(os.listdir(path / ".kai" / "packs")) == [new]
        assert not (path / "old").exists()
        local = path / ".kai" / "local.yaml"
        assert not linked or ("old:" not in local.read_text() and new in local.read_text())
    home.close()
    return "after" if landed else "before"


def judge_removed(home: Home, agent: Agent, before: dict[str, object], linked: bool) -> str:
    with contextlib.suppress(NoSuchAgent):
        home.remove("old")  # what is left to do
    assert not (home.path / "old").exists()
    assert not (home.path / ".kai" / "removed" / "old").exists()
    backups = list(agent.repository.refs("refs/heads/old/backups/"))
    agent.checkout(backups[-1].removeprefix("refs/heads/old/"), home.path / "saved")
    assert read(home.path / "saved") == before["files"]
    assert [it.commit for it in agent.versions()] == [commit for _, commit, _ in before["versions"]]  # type: ignore[attr-defined]
    with pytest.raises(NameTaken):
        home.new("old")
    assert ("old" in (home.path / ".kai" / "local.yaml").read_text()) is False if linked else True
    home.close()
    return "after"


def test_the_backups_of_a_removed_agent_expire(home: Home) -> None:
    write(home.agent("old").workspace, DIRTY)
    backup = home.remove("old").backup
    agent = open_home(home.path, backups__keep="0", backups__max_bytes="0").agent("old")
    done = agent.gc().done
    assert done is not None
    assert done.expired == 1
    assert not agent.repository.refs("refs/heads/old/backups/"), backup
    assert agent.verify().ok
    assert not (home.path / "old").exists()
    assert agent.repository.row().removed_ns


def test_no_rename_while_a_gc_makes_packs(home: Home) -> None:
    """Renamed and back again, the gc would have let the agent's rows point at copies that went with the old name."""
    told: list[str] = []

    def rename(_: object) -> None:
        other = open_home(home.path, lock__wait="0.1s")
        with pytest.raises(LockTimeout, match="gc"):
            other.rename("old", "young")
        told.append("waited")
        other.close()

    home.agent("old").gc(before=rename)
    assert told == ["waited"]
    assert home.agent("old").verify().ok
    home.rename("old", "young")
    assert home.agent("young").verify().ok


def test_gc_keeps_what_an_undo_needs_across_a_rename(home: Home) -> None:
    agent = home.agent("old")
    write(agent.workspace, DIRTY)
    agent.rollback("v1.1.0")
    home.rename("old", "young")
    agent = open_home(home.path, backups__keep="0", backups__max_bytes="0").agent("young")
    done = agent.gc().done
    assert done is not None
    assert done.expired == 0
    agent.undo()
    assert read(agent.workspace) == DIRTY
