"""Snapshots: what a test finds, what it may leave behind, and what becomes of that."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import kaivc
from kaivc import sandboxes, trials
from kaivc.api import Agent, Home
from kaivc.errors import (
    AgentBusy,
    ChecksumMismatch,
    InvalidManifest,
    InvalidName,
    IsolationFailed,
    LostRace,
    NoEntry,
    NoSuchRevision,
    PermissionDenied,
    ReadOnlyHome,
    StorageFailed,
    VersionTaken,
)
from kaivc.ops.authorize import authorize
from kaivc.ops.snapshot_test import SnapshotTested
from kaivc.records import replace
from kaivc.roles import Act
from kaivc.sandboxes.base import Ability, End, Level
from kaivc.vfs import Vfs
from tests.conftest import Ids, run_as
from tests.engine import homes
from tests.engine.homes import make_home, open_home
from tests.engine.overlays import Copying, Overlay

FILES = {
    "kai.yaml": b"check: [sh, -c, 'cat state.json']\n",
    "logic.py": b"print(1)\n",
    "config.yaml": b"a: 1\n",
    "state.json": b'{"n": 1}\n',
    "requirements.txt": b"six\n",
}
WRITES = ("sh", "-c", "echo 2 >> logic.py; echo new > new.txt; echo '{}' > state.json; rm requirements.txt")


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Overlay:
    """A sandbox whose ends can be chosen, and which runs on any machine."""
    found = Overlay()
    monkeypatch.setattr(sandboxes, "chosen", lambda _: (found, found.ability()))
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    opened = make_home(tmp_path / "home", isolation__temp_dir=str(tmp_path / "temp"))
    yield opened
    opened.close()
    homes.remove(tmp_path / "home")


@pytest.fixture
def agent(home: Home) -> Agent:
    bot = home.new("bot")
    homes.commit(bot, FILES)
    return bot


def committed(agent: Agent, *command: str) -> SnapshotTested:
    done = agent.snapshot_test("current", *(command or WRITES), commit=True)
    assert done.ok, done
    return done


def letters(done: SnapshotTested) -> dict[str, str]:
    return {os.fsdecode(it.path): it.status for it in done.changes}


def data(agent: Agent, path: str, rev: str | None = "current") -> bytes:
    return b"".join(agent.cat(path, rev or "").stream())


def scratch_of(tmp_path: Path) -> list[str]:
    place = tmp_path / "temp" / str(os.geteuid())
    return sorted(set(os.listdir(place)) - {".kai-scratch"}) if place.exists() else []


# ---------------------------------------------------------------- the real sandbox


def test_in_the_real_sandbox(agent: Agent, tmp_path: Path) -> None:
    said = bytearray()
    done = agent.snapshot_test("v1.0.0", say=said.extend)
    assert (done.status, done.exit_code, done.output, bytes(said)) == ("passed", 0, b'{"n": 1}\n', b'{"n": 1}\n')
    assert (done.changes, done.snapshot, done.ok, done.level) == ((), None, True, "full")
    before = homes.read(Path(agent.load("v1.0.0")))
    kept = committed(agent)
    assert letters(kept) == {"logic.py": "M", "new.txt": "A", "state.json": "M", "requirements.txt": "D"}
    assert homes.read(Path(agent.load("v1.0.0"))) == before
    failed = agent.snapshot_test("v1.0.0", "sh", "-c", "echo x > new; exit 3", commit=True)
    assert (failed.status, failed.exit_code, failed.ok, failed.problem) == ("failed", 3, False, "the test failed")
    assert [it.id for it in agent.snapshot_list().snapshots] == [kept.id]
    assert scratch_of(tmp_path) == []
    assert agent.verify().ok


def test_two_at_once_never_see_each_other(agent: Agent, tmp_path: Path) -> None:
    """Both write the same file and wait for each other's clock; one of them is committed while the other runs."""
    script = "echo {0} > mine; for i in 1 2 3 4 5 6 7 8; do [ $(cat mine) = {0} ] || exit 9; sleep 0.1; done; ls"
    found: list[SnapshotTested] = []

    def one(name: str) -> None:
        home = open_home(tmp_path / "home", isolation__temp_dir=str(tmp_path / "temp"))
        found.append(home.agent("bot").snapshot_test("current", "sh", "-c", script.format(name), commit=True))
        home.close()

    threads = [threading.Thread(target=one, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [it.ok for it in found] == [True, True], found
    assert {data(agent, "mine", it.snapshot or "") for it in found} == {b"a\n", b"b\n"}


def test_as_an_ordinary_user(public_tmp: Path, public_python: list[str], other_uid: Ids) -> None:
    os.chown(public_tmp, other_uid.uid, other_uid.gid)
    done = run_as(
        other_uid, [*public_python, "-c", ORDINARY, str(public_tmp)], cwd="/", env={"PATH": os.environ["PATH"]}
    )
    assert done.stdout == "ok\n", done.stderr


ORDINARY = """
import os, sys
from pathlib import Path
import kaivc
tmp = Path(sys.argv[1])
environ = {"KAI_AUTHOR": "Ann <a@b>", "HOME": "/nonexistent"}
kaivc.init(tmp / "home", environ=environ).close()
home = kaivc.open(tmp / "home", environ=environ, flags={"isolation.temp_dir": str(tmp / "temp")})
bot = home.new("bot")
(bot.workspace / "logic.py").write_text("1")
(bot.workspace / "state.json").write_text("{}")
bot.commit()
script = "echo 2 > logic.py; mkdir -p d/e; echo x > d/e/f; chmod 000 d/e/f d/e d state.json"
done = bot.snapshot_test("current", "sh", "-c", script, commit=True)
assert done.ok and done.level == "full", done
assert {it.path: it.status for it in done.changes} == {b"logic.py": "M", b"d/e/f": "A"}, done.changes
assert os.listdir(tmp / "temp" / str(os.geteuid())) == [".kai-scratch"]
bot.snapshot_promote(done.id, bump="minor")
assert (bot.workspace / "logic.py").read_text() == "2\\n"
print("ok")
"""


# ---------------------------------------------------------------- what it finds


def test_live_state_is_the_workspaces_and_the_rest_is_the_versions(agent: Agent, box: Overlay) -> None:
    work = agent.workspace
    (work / "state.json").write_text('{"n": 2}\n')
    (work / "logic.py").write_text("broken")
    (work / "state").mkdir()
    db = sqlite3.connect(work / "state" / "memory.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE t (x)")
    db.execute("INSERT INTO t VALUES (7)")
    script = "cat state.json logic.py; ls state; cp state/memory.db copy.db; echo 3 > state.json"
    done = agent.snapshot_test("current", "sh", "-c", script, state="live", commit=True)
    db.close()
    assert done.output == b'{"n": 2}\nprint(1)\nmemory.db\n'
    assert letters(done) == {"copy.db": "A", "state.json": "M"}
    assert done.commit is not None
    assert data(agent, "state.json", done.snapshot or "") == b"3\n"
    (work / "back.db").write_bytes(data(agent, "state/memory.db", done.snapshot or ""))
    back = sqlite3.connect(work / "back.db")
    assert back.execute("SELECT x FROM t").fetchall() == [(7,)]
    back.close()
    assert homes.read(work)["state.json"] == b'{"n": 2}\n'
    assert agent.verify().ok


def test_backups_and_snapshots_can_be_tested_too(agent: Agent, box: Overlay) -> None:
    first = committed(agent)
    second = agent.snapshot_test(first.snapshot or "", "sh", "-c", "cat new.txt; echo 2 > new.txt", commit=True)
    assert (second.output, letters(second), second.version) == (b"new\n", {"new.txt": "M"}, first.snapshot)
    assert agent.show(second.snapshot or "").version.parent_commit == first.commit


def test_only_named_variables_pass(tmp_path: Path, box: Overlay) -> None:
    home = make_home(tmp_path / "home2", isolation__temp_dir=str(tmp_path / "temp"))
    granted = replace(home.opened.settings.isolation, env=("TOKEN", "ABSENT"))
    environ = {**homes.ENVIRON, "TOKEN": "t", "OTHER": "o"}
    opened = replace(home.opened, settings=replace(home.opened.settings, isolation=granted), environ=environ)
    bot = Home(opened).new("bot")
    homes.commit(bot, FILES)
    said = bot.snapshot_test("current", "env").output.decode()
    assert "TOKEN=t\n" in said
    assert not any(name in said for name in ("OTHER", "ABSENT", "KAI_AUTHOR"))
    home.close()


def test_a_damaged_view_runs_nothing(agent: Agent, box: Overlay) -> None:
    view = Path(agent.load("v1.0.0")) / "logic.py"
    view.chmod(0o600)
    view.write_text("print(6)\n")
    box.before = lambda: pytest.fail("it ran")
    with pytest.raises(ChecksumMismatch):
        agent.snapshot_test("v1.0.0")


# ---------------------------------------------------------------- what runs nothing


def write_manifest(agent: Agent, text: str) -> None:
    (agent.workspace / "kai.yaml").write_text(text)
    agent.commit()


def test_nothing_to_run_is_said(agent: Agent, box: Overlay) -> None:
    write_manifest(agent, "{}\n")
    with pytest.raises(NoEntry):
        agent.snapshot_test()


def test_a_command_without_a_name_runs_nothing(agent: Agent, box: Overlay) -> None:
    with pytest.raises(InvalidName, match="first word is empty"):
        agent.snapshot_test("current", "")


@pytest.mark.parametrize(
    "said", ["enable: false", "require: partial", "commit_changes: true", "env: [HOME]", "memory: 1 TiB", "time: 99h"]
)
def test_a_manifest_may_only_tighten(agent: Agent, box: Overlay, tmp_path: Path, said: str) -> None:
    write_manifest(agent, f"check: ['true']\nisolation: {{{said}}}\n")
    box.before = lambda: pytest.fail("it ran")
    with pytest.raises(InvalidManifest) as caught:
        agent.snapshot_test()
    assert caught.value.facts == {"file": "kai.yaml", "keys": [f"isolation.{said.partition(':')[0]}"]}
    assert scratch_of(tmp_path) == []


def test_a_granted_manifest_may_and_what_is_tighter_holds(tmp_path: Path, box: Overlay) -> None:
    flags = {"isolation__temp_dir": str(tmp_path / "temp"), "isolation__commit_changes": "true"}
    home = make_home(tmp_path / "home2", **flags)
    bot = home.new("bot")
    homes.commit(bot, {**FILES, "kai.yaml": b"check: ['true']\nisolation: {commit_changes: true}\n"})
    assert bot.snapshot_test().snapshot is not None
    write_manifest(bot, "check: ['true']\nisolation: {commit_changes: false}\n")
    assert bot.snapshot_test().snapshot is None
    home.close()


def test_switched_off_is_no_isolation_and_the_log_says_so(tmp_path: Path, box: Overlay) -> None:
    home = make_home(tmp_path / "home2", isolation__enable="false")
    bot = home.new("bot")
    homes.commit(bot, FILES)
    box.before = lambda: pytest.fail("it ran")
    for _ in range(2):
        with pytest.raises(IsolationFailed) as caught:
            bot.snapshot_test()
    assert caught.value.facts["guard"] == "enable"
    lines = [json.loads(line) for line in (home.path / ".kai/log").read_text().splitlines()]
    assert [(it["code"], it["agent"], it["facts"]["guard"]) for it in lines] == [("E103", "bot", "enable")] * 2
    (home.path / ".kai/log").write_bytes(b"x" * (1 << 20))
    with pytest.raises(IsolationFailed):
        bot.snapshot_test()
    assert (home.path / ".kai/log.1").stat().st_size == 1 << 20
    assert len((home.path / ".kai/log").read_text().splitlines()) == 1
    home.close()


class Nothing:
    """A kind of sandbox that cannot be had, or holds less."""

    def __init__(self, name: str, level: Level | None, why: str = "") -> None:
        self.name, self._level, self._why = name, level, why

    def ability(self) -> Ability:
        return Ability(self.name, self._level, self._why)


def test_the_first_kind_that_gives_enough_is_taken_and_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [Nothing("one", None, "no kernel"), Nothing("two", Level.PARTIAL), Nothing("three", Level.FULL)]
    monkeypatch.setattr(sandboxes, "every", lambda: iter(kinds))
    assert (sandboxes.choose("full").name, sandboxes.choose("partial").name) == ("three", "three")
    del kinds[2]
    assert sandboxes.choose("partial").name == "two"
    with pytest.raises(IsolationFailed, match="one: no kernel; two: gives only partial") as caught:
        sandboxes.choose("full")
    assert "require: partial" in caught.value.hint
    kinds[1] = Nothing("two", None, "not there")
    with pytest.raises(IsolationFailed):
        sandboxes.choose("partial")


def test_a_sandbox_that_fails_leaves_nothing(agent: Agent, box: Overlay, tmp_path: Path) -> None:
    def fail() -> None:
        raise IsolationFailed("no seccomp", guard="seccomp", why="x")

    box.before = fail
    with pytest.raises(IsolationFailed):
        agent.snapshot_test()
    assert "seccomp" in (tmp_path / "home/.kai/log").read_text()
    assert (scratch_of(tmp_path), trials.ids(agent.repository.layout, "bot")) == ([], [])


def test_who_may(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    home = agent.repository.home
    authorize(home, Act.SNAPSHOT, agent.name)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    for act in Act:
        with pytest.raises(PermissionDenied):
            authorize(home, act, agent.name)
    for ask in (agent.snapshot_test, lambda: agent.snapshot_promote("x"), lambda: agent.snapshot_drop("x")):
        with pytest.raises(PermissionDenied):
            ask()


# ---------------------------------------------------------------- what may be committed


@pytest.mark.parametrize(
    ("ends", "problem"),
    [
        ({"exit_code": 1}, "the test failed"),
        ({"by": End.TIME, "exit_code": 0}, "the test failed"),
        ({"by": End.MEMORY, "exit_code": 137}, "the test failed"),
        ({"left_running": 1}, "it left a process running, which was ended"),
        ({"left_running": 2}, "it left 2 processes running, which were ended"),
    ],
)
def test_only_a_clean_end_is_committed(
    agent: Agent, box: Overlay, tmp_path: Path, ends: dict[str, object], problem: str
) -> None:
    box.ends = ends
    done = agent.snapshot_test("current", *WRITES, commit=True)
    assert (done.ok, done.snapshot, done.problem) == (False, None, problem)
    assert agent.repository.refs("refs/heads/bot/snapshots/") == {}
    assert scratch_of(tmp_path) == []


def test_what_cannot_be_held_is_not_committed(agent: Agent, box: Overlay) -> None:
    done = agent.snapshot_test("current", "sh", "-c", "mkfifo p; echo x > y", commit=True)
    assert (done.ok, done.status, done.snapshot) == (False, "passed", None)
    assert done.refusals == ("p is a named pipe: a version cannot hold it",)
    assert done.problem == done.refusals[0]
    assert agent.snapshot_test("current", "mkfifo", "p").ok


@pytest.mark.parametrize("kind", [Overlay, Copying])
def test_a_committed_snapshot_is_a_branch_of_its_version(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, kind: type[Overlay]
) -> None:
    monkeypatch.setattr(sandboxes, "chosen", lambda _: (kind(), kind().ability()))
    done = committed(agent)
    known = agent.show(done.snapshot or "").version
    assert (known.version, known.parent, known.parent_commit) == (None, "1.0.0", agent.current.commit)
    assert "Tested with: sh -c echo 2" in known.notes
    tree = {it.path: data(agent, it.path, done.snapshot or "") for it in agent.ls_tree(done.snapshot or "").entries}
    assert tree == {
        "kai.yaml": FILES["kai.yaml"],
        "config.yaml": b"a: 1\n",
        "logic.py": b"print(1)\n2\n",
        "new.txt": b"new\n",
        "state.json": b"{}\n",
    }
    entry = agent.reflog(None).entries[0]
    assert (entry.verb, entry.ref) == ("snapshot", f"refs/heads/bot/snapshots/{done.id}")
    assert [it.version for it in agent.log(done.snapshot or "").versions] == [None, "1.0.0"]
    (shown,) = agent.snapshot_list().snapshots
    assert (shown.status, shown.commit, shown.kept, shown.version) == ("passed", done.commit, None, "v1.0.0")
    assert shown.trial is not None
    assert (shown.trial.scratch, shown.trial.exit_code) == (None, 0)
    assert agent.snapshot_show(done.id).changes == done.changes
    assert {it.path for it in agent.diff("v1.0.0", done.snapshot or "").files()} == {
        b"logic.py", b"new.txt", b"state.json", b"requirements.txt",
    }  # fmt: skip


def test_a_failed_layer_waits_if_that_is_wanted(tmp_path: Path, box: Overlay) -> None:
    flags = {"isolation__temp_dir": str(tmp_path / "temp"), "isolation__rollback_on_error": "false"}
    home = make_home(tmp_path / "home2", **flags)
    bot = home.new("bot")
    homes.commit(bot, FILES)
    for state in ("committed", "live"):
        done = bot.snapshot_test("current", "sh", "-c", "echo x > new; mkfifo p; exit 3", state=state)
        assert done.kept == str(tmp_path / "temp" / str(os.geteuid()) / done.id)
        bot.snapshot_test("current", "true")  # it collects left-overs, and this is none
        (known,) = bot.snapshot_list().snapshots
        assert (known.status, known.kept, known.running, known.commit) == ("failed", done.kept, False, None)
        shown = bot.snapshot_show(done.id)
        assert shown.changes == done.changes
        assert shown.refusals == ("p is a named pipe: a version cannot hold it",)
        with pytest.raises(NoSuchRevision, match="is not committed"):
            bot.snapshot_promote(done.id)
        assert bot.snapshot_drop(done.id, dry_run=True).kept == done.kept
        assert scratch_of(tmp_path) == [done.id]
        assert bot.snapshot_drop(done.id).applied
        assert (scratch_of(tmp_path), trials.ids(bot.repository.layout, "bot")) == ([], [])
    home.close()


def test_one_whose_layer_cannot_be_read_is_an_error_and_waits(tmp_path: Path, box: Overlay) -> None:
    flags = {"isolation__temp_dir": str(tmp_path / "temp"), "isolation__rollback_on_error": "false"}
    home = make_home(tmp_path / "home2", **flags)
    bot = home.new("bot")
    homes.commit(bot, FILES)
    box.ends = {"top": str(tmp_path / "nowhere")}
    with pytest.raises(StorageFailed):
        bot.snapshot_test("current", "true")
    (known,) = bot.snapshot_list().snapshots
    assert known.status == "error"
    bot.snapshot_drop(known.id)
    assert scratch_of(tmp_path) == []
    home.close()


# ---------------------------------------------------------------- beside others


def test_while_it_runs_views_stay_and_the_agent_too_and_rollback_goes_on(tmp_path: Path, box: Overlay) -> None:
    home = make_home(tmp_path / "home2", isolation__temp_dir=str(tmp_path / "temp"), views__keep="0")
    bot = home.new("bot")
    for number in range(3):
        homes.commit(bot, {**FILES, "logic.py": b"%d" % number})
    met: list[object] = []

    def meanwhile() -> None:
        other = open_home(home.path, views__keep="0", isolation__temp_dir=str(tmp_path / "temp"))
        beside = other.agent("bot")
        beside.rollback("v1.0.1")
        beside.gc()
        beside.rollback("v1.0.2")
        (known,) = beside.snapshot_list().snapshots
        met.extend([known.running, known.status, known.kept])
        for act in (
            lambda: other.remove("bot"),
            lambda: other.rename("bot", "cat"),
            lambda: beside.snapshot_drop(known.id),
        ):
            with pytest.raises(AgentBusy):
                act()
        met.append(os.path.isdir(beside.repository.layout.view("bot", "v1.0.0")))
        other.close()

    box.before = meanwhile
    done = bot.snapshot_test("v1.0.0", "sh", "-c", "cat logic.py; echo x > new", commit=True)
    assert (done.ok, done.output, met) == (True, b"0", [True, "testing", None, True])
    home.close()


@pytest.mark.parametrize("damage", ["a file", "the whole view"])
def test_a_damaged_view_is_not_made_anew_under_a_test(tmp_path: Path, box: Overlay, damage: str) -> None:
    """What is mounted must not change, whatever is forced; an undamaged one is no obstacle."""
    home = make_home(tmp_path / "home2", isolation__temp_dir=str(tmp_path / "temp"))
    bot = home.new("bot")
    for number in range(2):
        homes.commit(bot, {**FILES, "logic.py": b"%d" % number})
    view = Path(bot.load("v1.0.0"))

    def meanwhile() -> None:
        with closing(open_home(home.path, isolation__temp_dir=str(tmp_path / "temp"))) as other:
            beside = other.agent("bot")
            beside.rollback("v1.0.1", force=True)
            view.chmod(0o700)
            (view / "logic.py").chmod(0o600)
            (view / "logic.py").write_bytes(b"spoilt")
            if damage != "a file":
                (view / "logic.py").unlink()
                (view / "logic.py").mkdir()
            with pytest.raises(AgentBusy, match="under test"):
                beside.rollback("v1.0.0", force=True)
            assert beside.current.tag == "v1.0.1"

    box.before = meanwhile
    assert bot.snapshot_test("v1.0.0", "true").ok
    bot.rollback("v1.0.0", force=True)
    assert (view / "logic.py").read_bytes() == b"0"
    home.close()


# ---------------------------------------------------------------- promote


def test_promote_takes_all_but_the_state_and_undo_takes_it_back(agent: Agent, box: Overlay) -> None:
    done = committed(agent)
    (agent.workspace / "state.json").write_text('{"n": 9}\n')
    before = homes.read(agent.workspace)
    plan = agent.snapshot_promote(done.id, bump="minor", dry_run=True)
    assert (plan.version, plan.commit, plan.move.applied) == ("1.1.0", None, False)
    assert homes.read(agent.workspace) == before
    made = agent.snapshot_promote(done.id, bump="minor", notes="better")
    assert (made.version, made.parent, made.changes, made.move.backup) == ("1.1.0", "v1.0.0", plan.changes, None)
    assert (agent.current.version, agent.current.parent, agent.current.notes) == ("1.1.0", "1.0.0", "better")
    here = {"kai.yaml": FILES["kai.yaml"], "config.yaml": b"a: 1\n", "logic.py": b"print(1)\n2\n", "new.txt": b"new\n"}
    assert homes.read(agent.workspace) == {**here, "state.json": b'{"n": 9}\n'}
    assert not agent.status().changes
    assert data(agent, "state.json") == b'{"n": 9}\n'
    assert [it.verb for it in agent.reflog().entries] == ["promote", "commit"]
    agent.undo()
    assert agent.current.version == "1.0.0"
    agent.redo()
    assert agent.current.version == "1.1.0"
    assert agent.verify().ok
    assert agent.audit().ok


def test_promote_with_state_saves_what_it_replaces(agent: Agent, box: Overlay) -> None:
    done = committed(agent)
    (agent.workspace / "state.json").write_text('{"n": 9}\n')
    made = agent.snapshot_promote(done.id, with_state=True)
    assert data(agent, "state.json") == b"{}\n"
    assert homes.read(agent.workspace)["state.json"] == b"{}\n"
    assert data(agent, "state.json", made.move.backup or "") == b'{"n": 9}\n'
    agent.undo()
    assert homes.read(agent.workspace) == {**FILES, "state.json": b'{"n": 9}\n'}


def test_promote_saves_an_edited_workspace(agent: Agent, box: Overlay) -> None:
    done = committed(agent)
    (agent.workspace / "logic.py").write_text("mine")
    (agent.workspace / "own.txt").write_text("mine")
    made = agent.snapshot_promote(done.id)
    assert data(agent, "logic.py", made.move.backup or "") == b"mine"
    assert data(agent, "own.txt", made.move.backup or "") == b"mine"
    assert "own.txt" not in homes.read(agent.workspace)


def test_promote_keeps_kept_paths(agent: Agent, box: Overlay) -> None:
    write_manifest(agent, "state: {keep: [keys.txt]}\ncheck: ['true']\n")
    done = committed(agent, "sh", "-c", "echo theirs > keys.txt; echo x > y")
    (agent.workspace / "keys.txt").write_text("mine")
    made = agent.snapshot_promote(done.id)
    assert made.move.kept == ("keys.txt",)
    assert homes.read(agent.workspace)["keys.txt"] == b"mine"


def test_promote_needs_its_base_in_force(agent: Agent, box: Overlay) -> None:
    done = committed(agent)
    homes.commit(agent, {**FILES, "logic.py": b"other"})
    with pytest.raises(LostRace, match=r"is v1\.0\.1, and snapshots/.* of v1\.0\.0"):
        agent.snapshot_promote(done.id)
    assert agent.current.version == "1.0.1"
    with pytest.raises(VersionTaken):
        agent.snapshot_promote(done.id, version="1.0.1", force=True)
    made = agent.snapshot_promote(done.id, force=True)
    assert (made.version, made.parent, agent.current.parent) == ("1.0.2", "v1.0.0", "1.0.0")
    assert agent.reflog().entries[0].old == agent.show("v1.0.1").version.oid
    agent.undo()
    assert agent.current.version == "1.0.1"


def test_promote_happens_once_with_one_op_id(agent: Agent, box: Overlay) -> None:
    done = committed(agent)
    first = agent.snapshot_promote(done.id, op_id="once")
    second = agent.snapshot_promote(done.id, op_id="once")
    assert (second.version, second.commit, second.changes) == (first.version, first.commit, first.changes)
    assert [it.version for it in agent.versions()] == ["1.0.0", "1.0.1"]


# ---------------------------------------------------------------- drop, and what outlives it


def test_drop_takes_the_branch_and_gc_the_bytes_in_time(tmp_path: Path, agent: Agent, box: Overlay) -> None:
    done = committed(agent)
    commit = done.commit or ""
    dropped = agent.snapshot_drop(done.id)
    assert (dropped.commit, dropped.applied) == (commit, True)
    for look in (lambda: agent.show(done.snapshot or ""), lambda: agent.snapshot_show(done.id)):
        with pytest.raises(NoSuchRevision):
            look()
    agent.gc()
    assert agent.show(commit[:12]).version.commit == commit
    agent.gc()
    soon = kaivc.open(tmp_path / "home", environ=homes.ENVIRON, clock=homes.Ticking(1_795_000_000))
    soon.agent("bot").gc()
    with pytest.raises(NoSuchRevision):
        soon.agent("bot").show(commit[:12])
    assert soon.agent("bot").verify().ok
    soon.close()


def test_a_miss_names_the_nearest(agent: Agent, home: Home, box: Overlay) -> None:
    done = committed(agent)
    for text in (done.id[:-1] + "x", f"bot@snapshots/{done.id[:-1]}x"):
        with pytest.raises(NoSuchRevision) as caught:
            home.with_snapshot(text)
        assert caught.value.facts["nearest"] == [done.id]
    for text in (done.id, f"snapshots/{done.id}", f"bot@{done.id}", f"bot@snapshots/{done.id}"):
        assert (home.with_snapshot(text)[0].name, home.with_snapshot(text)[1]) == ("bot", done.id)


# ---------------------------------------------------------------- what else knows of them


def test_fork_rename_remove_and_repair_know_of_snapshots(
    home: Home, agent: Agent, box: Overlay, tmp_path: Path
) -> None:
    done = committed(agent)
    fork = home.new("twin", source=f"bot@{done.snapshot}")
    assert data(fork, "new.txt", done.snapshot or "") == b"new\n"
    (known,) = fork.snapshot_list().snapshots
    assert (known.id, known.trial) == (done.id, None)
    assert fork.snapshot_show(done.id).changes == done.changes
    home.rename("bot", "cat")
    cat = home.agent("cat")
    assert [it.id for it in cat.snapshot_list().snapshots] == [done.id]
    again = cat.snapshot_test("current", *WRITES, commit=True)
    home.close()
    for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
        (tmp_path / "home/.kai" / name).unlink(missing_ok=True)
    repaired = kaivc.api.fsck(tmp_path / "home", repair=True, environ=homes.ENVIRON)
    assert repaired.ok
    opened = open_home(tmp_path / "home", isolation__temp_dir=str(tmp_path / "temp"))
    cat = opened.agent("cat")
    assert {it.id for it in cat.snapshot_list().snapshots} == {done.id, again.id}
    assert cat.snapshot_show(again.id).changes == again.changes
    assert opened.fsck().ok
    assert cat.audit().ok
    opened.remove("cat")
    assert data(cat, "new.txt", done.snapshot or "") == b"new\n"
    opened.close()


def test_a_read_only_home_shows_them_and_tests_nothing(agent: Agent, box: Overlay, tmp_path: Path) -> None:
    done = committed(agent)
    home = kaivc.open(tmp_path / "home", environ=homes.ENVIRON, read_only=True, vfs=Vfs())
    bot = home.agent("bot")
    assert bot.snapshot_show(bot.snapshot_list().snapshots[0].id).changes == done.changes
    for act in (bot.snapshot_test, lambda: bot.snapshot_promote(done.id), lambda: bot.snapshot_drop(done.id)):
        with pytest.raises(ReadOnlyHome):
            act()
    home.close()
