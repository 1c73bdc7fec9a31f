"""What once went wrong, each as it was found."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kaivc import api, intents, keeping, leases, sqlitefiles, views
from kaivc.api import Agent
from kaivc.errors import (
    ChecksumMismatch,
    CommandFailed,
    Incompatible,
    InvalidManifest,
    InvalidName,
    InvalidRollbackVersion,
    KaiError,
    NameTaken,
    NoSuchPath,
    NoSuchRevision,
    RefusedPath,
    RefusedWorkspace,
    StorageFailed,
    TooLarge,
    UnreadablePath,
)
from kaivc.storage import caches, journal
from kaivc.storage.caches import Seal
from kaivc.storage.writer import StoreWriter
from kaivc.vfs import Vfs
from tests.conftest import IN_CI, without_privileges
from tests.engine.homes import ENVIRON, commit, make_home, open_home, read, remove, write
from tests.engine.test_classes import in_background, spoil
from tests.engine.test_hammer import begin
from tests.engine.test_kill import Cut, in_child
from tests.engine.test_together import together


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return make_home(tmp_path / "home", lock__wait="1s").new("bot")


def again(agent: Agent, vfs: Vfs | None = None) -> Agent:
    return open_home(Path(agent.repository.layout.root), vfs, lock__wait="1s").agent("bot")


def two(agent: Agent, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    commit(agent, first, bump="minor")
    commit(agent, second, bump="minor")


class Stops(Vfs):
    """Fails to rename the first staged file into the workspace: the names have moved then."""

    def rename(self, old, new, old_at=None, new_at=None):
        if old == b"0":
            raise StorageFailed("the disk said no")
        super().rename(old, new, old_at, new_at)


# ---------------------------------------------------------------- a cut restore, and an agent that goes on


@pytest.mark.parametrize("verb", ["edit", "replace", "remove"])
def test_what_is_written_after_a_cut_is_never_lost(tmp_path: Path, verb: str) -> None:
    """After every cut of a rollback the agent writes; the bytes are in the workspace or in a backup afterwards."""
    at = 0
    while True:
        at += 1
        path = tmp_path / f"home{at}"
        agent = make_home(path).new("bot")
        two(agent, {"x": b"1", "y": b"1"}, {"x": b"2", "y": b"2"})
        agent.repository.catalog.close()
        cut = in_child(partial(roll_back_and_die, path, at))
        if cut == 0:
            break
        live = agent.workspace / "x"
        if verb == "edit":
            with live.open("ab") as file:
                file.write(b"PRECIOUS")
        elif verb == "replace":
            (agent.workspace / "new").write_bytes(b"PRECIOUS")
            os.rename(agent.workspace / "new", live)
        else:
            live.unlink()
        after = open_home(path).agent("bot")
        after.commit(bump="minor", allow_empty=True)
        held = [live.read_bytes() if live.exists() else b""]
        for number, name in enumerate(after.repository.refs("refs/heads/bot/backups/")):
            after.checkout(name.removeprefix("refs/heads/bot/"), tmp_path / f"out{at}-{number}")
            kept = tmp_path / f"out{at}-{number}" / "x"
            held.append(kept.read_bytes() if kept.exists() else b"")
        if verb != "remove":
            assert any(data.endswith(b"PRECIOUS") for data in held), (at, held)
        assert after.verify().ok
    assert at > 20


def roll_back_and_die(path: Path, at: int) -> None:
    open_home(path, Cut(at)).agent("bot").rollback("v1.0.0")


def test_a_run_finishes_a_cut_restore_first(agent: Agent) -> None:
    two(agent, {"x": b"1"}, {"x": b"2"})

    with pytest.raises(StorageFailed) as caught:
        again(agent, Stops()).rollback("v1.0.0")
    assert "moved" in caught.value.unchanged
    assert agent.status().pending
    assert agent.run(sys.executable, "-c", "assert open('x').read() == '1'").exit_code == 0
    assert not agent.status().pending


def test_the_backup_of_late_changes_belongs_to_the_entry(agent: Agent) -> None:
    two(agent, {"log": b"1\n"}, {"log": b"2\n"})

    class Late(Vfs):
        def link(self, old, new, old_at=None, new_at=None):
            super().link(old, new, old_at, new_at)
            if old == b"log" and new != b".kai-probe":
                with (agent.workspace / "log").open("ab") as file:
                    file.write(b"late\n")

    again(agent, Late()).rollback("v1.0.0")
    agent.undo()
    assert (agent.workspace / "log").read_bytes() == b"2\nlate\n"


@pytest.mark.parametrize("size", [10, 2_000_000])
@pytest.mark.parametrize("change", [1000, -3])
def test_a_displaced_file_that_changes_while_it_is_saved_wedges_nothing(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, size: int, change: int
) -> None:
    """Whoever has it open goes on writing: what there was when it was looked at is in the backup."""
    two(agent, {"log": b"1\n"}, {"log": b"2" * size})
    fd, real, changes = os.open(agent.workspace / "log", os.O_RDWR | os.O_APPEND), StoreWriter.put_blob, []

    class Late(Vfs):
        def link(self, old, new, old_at=None, new_at=None):
            super().link(old, new, old_at, new_at)
            if old == b"log" and new != b".kai-probe":
                os.write(fd, b"late")
                changes.append(change)

    def put_blob(self, source, length, like=None):
        if len(changes) in (1, 2):  # twice: it is looked at three times
            changes.append(change)
            os.truncate(fd, os.fstat(fd).st_size + change)
        return real(self, source, length, like)

    monkeypatch.setattr(StoreWriter, "put_blob", put_blob)
    try:
        again(agent, Late()).rollback("v1.0.0")
    finally:
        os.close(fd)
    assert len(changes) == 3
    agent.undo()
    back = (agent.workspace / "log").read_bytes()
    assert back == (b"2" * size + b"late" + b"\0" * 2000)[: size + 4 + 2 * change]


def test_what_is_done_takes_no_pending_work_of_another_agent_along(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of an intent that was dropped with the late changes is free again for others."""
    two(agent, {"log": b"1\n"}, {"log": b"2\n"})
    other = open_home(Path(agent.repository.layout.root)).new("other").repository
    real = intents._save_late_changes

    class Late(Vfs):
        def link(self, old, new, old_at=None, new_at=None):
            super().link(old, new, old_at, new_at)
            if old == b"log" and new != b".kai-probe":
                with (agent.workspace / "log").open("ab") as file:
                    file.write(b"late\n")

    def then_another(*args: Any) -> None:
        real(*args)
        with other.catalog.transaction() as db:
            journal.put_intent(db, other.id, journal.LINK, b"")
            journal.put_intent(db, other.id, journal.LOG, b"")

    monkeypatch.setattr(intents, "_save_late_changes", then_another)
    again(agent, Late()).restore("log", source="v1.0.0")
    assert [row.kind for row in journal.intents(other.catalog, other.id)] == [journal.LINK, journal.LOG]


# ---------------------------------------------------------------- what apply could not do is refused before


def test_hollow_directories_give_way_to_a_file(agent: Agent) -> None:
    two(agent, {"x": b"1"}, {"x/y": b"2"})
    (agent.workspace / "x" / "hollow" / "deeper").mkdir(parents=True)
    agent.rollback("v1.0.0")
    assert read(agent.workspace) == {"x": b"1"}


def test_an_ignored_link_in_a_directory_that_must_go_is_named(agent: Agent) -> None:
    two(agent, {"x": b"1"}, {"x/y": b"2", ".kaiignore": b"link\n"})
    (agent.workspace / "x" / "link").symlink_to("..")
    with pytest.raises(Incompatible):
        agent.rollback("v1.0.0")
    assert agent.current.version == "1.1.0"


def test_a_directory_that_cannot_be_written_is_named_before_anything_moves(agent: Agent) -> None:
    two(agent, {"d/x": b"1"}, {"d/x": b"2"})
    (agent.workspace / "d").chmod(0o500)
    code = (
        f"import kaivc\nfrom kaivc.errors import Incompatible\n"
        f"agent = kaivc.open({agent.repository.layout.root!r}, environ={ENVIRON!r}).agent('bot')\n"
        "try:\n    agent.rollback('v1.0.0')\nexcept Incompatible as error:\n    print(error.what)\n"
    )
    done = subprocess.run(
        without_privileges([sys.executable, "-c", code]), capture_output=True, text=True, check=True, timeout=60
    )
    (agent.workspace / "d").chmod(0o700)
    assert "d cannot be written" in done.stdout
    assert not again(agent).status().pending
    assert (agent.workspace / "d" / "x").read_bytes() == b"2"


@pytest.mark.parametrize("kind", ["pipe", "ignored"])
def test_what_stands_where_the_target_has_a_file(agent: Agent, kind: str) -> None:
    two(agent, {"it": b"1", "a": b"1"}, {"a": b"2", ".kaiignore": b"it\n"})
    if kind == "pipe":
        os.mkfifo(agent.workspace / "it")
    else:
        (agent.workspace / "it").write_bytes(b"PRECIOUS")
    moved = agent.rollback("v1.0.0")
    assert (agent.workspace / "it").read_bytes() == b"1"
    if kind == "ignored":
        assert "it" in moved.saved
        assert moved.backup is not None
        agent.checkout(moved.backup, Path(agent.repository.layout.root).parent / "out")
        assert (Path(agent.repository.layout.root).parent / "out" / "it").read_bytes() == b"PRECIOUS"


@pytest.mark.parametrize("keep", [(), ("kept",)])
def test_what_an_older_version_does_not_ignore_survives_a_visit_to_it(agent: Agent, keep: tuple[str, ...]) -> None:
    newer = {"a": b"2", ".kaiignore": b"venv/\n*.log\nkept\n"}
    two(agent, {"a": b"1", "kept": b"1"}, newer)
    mine = {"venv/bin/x": b"mine", "d/e.log": b"mine", "kept": b"mine"}
    write(agent.workspace, newer | mine)
    agent.rollback("v1.0.0", keep=keep)
    older = {"a": b"1", **mine} | ({} if keep else {"kept": b"1"})
    assert read(agent.workspace) == older
    agent.undo()
    assert read(agent.workspace) == newer | mine
    agent.redo()
    assert read(agent.workspace) == older
    agent.rollback("v1.1.0")
    assert read(agent.workspace) == newer | {path: data for path, data in mine.items() if older[path] == data}
    assert not agent.status().dirty


def test_what_is_ignored_and_kept_comes_back_though_the_version_holds_the_same(agent: Agent) -> None:
    two(agent, {"a": b"1", "note": b"1"}, {"a": b"2", ".kaiignore": b"note\n"})
    (agent.workspace / "note").write_bytes(b"1")
    before = read(agent.workspace)
    agent.rollback("v1.0.0", keep=["note"])
    agent.undo()
    assert read(agent.workspace) == before


def test_what_a_version_holds_goes_though_the_target_ignores_it(agent: Agent) -> None:
    two(agent, {"a": b"1", ".kaiignore": b"note\n"}, {"a": b"2", "note": b"2"})
    write(agent.workspace, {"a": b"2", "note": b"2", "other": b"2"})
    agent.rollback("v1.0.0")
    assert read(agent.workspace) == {"a": b"1", ".kaiignore": b"note\n"}
    agent.undo()
    assert read(agent.workspace) == {"a": b"2", "note": b"2", "other": b"2"}


def test_an_unreadable_file_does_not_hold_up_a_rollback(agent: Agent) -> None:
    two(agent, {"a": b"1"}, {"a": b"2"})
    (agent.workspace / "locked").write_bytes(b"x")
    (agent.workspace / "locked").chmod(0)
    code = (
        f"import kaivc\nagent = kaivc.open({agent.repository.layout.root!r}, environ={ENVIRON!r}).agent('bot')\n"
        "print(agent.rollback('v1.0.0').notices)\n"
    )
    done = subprocess.run(
        without_privileges([sys.executable, "-c", code]), capture_output=True, text=True, check=True, timeout=60
    )
    assert "locked cannot be read: it stays as it is" in done.stdout
    assert (agent.workspace / "locked").exists()
    assert UnreadablePath.code == "E311"


# ---------------------------------------------------------------- databases


@pytest.mark.parametrize("damage", ["gone", "header"])
def test_a_restored_database_has_no_old_log_beside_it(agent: Agent, damage: str) -> None:
    live = agent.workspace / "s.db"
    connection = begin(live)
    connection.execute("INSERT INTO t VALUES (1, 0, 'good')")
    agent.commit()

    def die() -> None:
        other = sqlite3.connect(live, isolation_level=None)
        other.execute("INSERT INTO t VALUES (99, 0, 'BAD')")
        os.kill(os.getpid(), signal.SIGKILL)

    connection.close()
    assert in_child(die) == signal.SIGKILL
    assert (agent.workspace / "s.db-wal").stat().st_size
    if damage == "gone":
        live.unlink()
    else:
        data = live.read_bytes()
        live.write_bytes(bytes(100) + data[100:])
    agent.restore("s.db")
    connection = sqlite3.connect(live)
    assert [batch for (batch,) in connection.execute("SELECT batch FROM t")] == [1]
    connection.close()
    assert not agent.status().dirty


def test_a_directory_that_is_named_like_a_side_file(agent: Agent, tmp_path: Path) -> None:
    begin(agent.workspace / "s.db").close()
    (agent.workspace / "s.db-journal").mkdir()
    (agent.workspace / "s.db-journal" / "notes").write_bytes(b"1")
    agent.commit()
    other = begin(tmp_path / "other.db")
    other.execute("INSERT INTO t VALUES (1, 0, 'x')")
    other.close()
    os.replace(tmp_path / "other.db", agent.workspace / "s.db")
    agent.commit(bump="minor")
    agent.rollback("v1.0.0")
    assert (agent.workspace / "s.db-journal" / "notes").read_bytes() == b"1"


def test_a_file_with_the_magic_that_is_no_database_keeps_its_neighbours(agent: Agent) -> None:
    files = {"s.db": b"SQLite format 3\0" + b"\xff" * 200, "s.db-wal": b"neighbour"}
    two(agent, files, {"s.db": b"SQLite format 3\0" + b"\xfe" * 200, "s.db-wal": b"neighbour 2"})
    agent.rollback("v1.0.0")
    assert read(agent.workspace) == files
    agent.undo()
    assert read(agent.workspace)["s.db-wal"] == b"neighbour 2"


# ---------------------------------------------------------------- secrets


def test_a_secret_stays_one_when_the_live_manifest_is_gone(agent: Agent) -> None:
    manifest = b"state: {secret: [{path: token, name: TOK}]}\n"
    two(
        agent,
        {"kai.yaml": manifest, "a": b"1", "token": b"hunter2"},
        {"kai.yaml": manifest, "a": b"2", "token": b"hunter2"},
    )
    (agent.workspace / "kai.yaml").unlink()
    agent.rollback("v1.0.0")
    (agent.workspace / "kai.yaml").write_bytes(b"# nothing\n")
    notices = agent.record(bump="minor").notices
    assert any("token is no secret any more" in line for line in notices)
    assert (agent.workspace / "token").read_bytes() == b"hunter2"
    for path in Path(agent.repository.layout.pack_dir("bot")).iterdir():
        assert b"hunter2" not in path.read_bytes()


def test_a_secret_is_not_written_through_a_link(agent: Agent, tmp_path: Path) -> None:
    manifest = b"state: {secret: [{path: d/token, name: TOK}]}\nfiles: {state: [d/]}\n"
    commit(agent, {"kai.yaml": manifest, "d/token": b"hunter2"})
    Path(agent.repository.layout.local).write_text("secrets: {TOK: {env: TOK}}\n")
    Vfs().remove_tree(str(agent.workspace / "d"))
    (tmp_path / "elsewhere").mkdir()
    (agent.workspace / "d").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KaiError):
        again(agent).run("true", dirty=True)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_copy_of_a_directory_takes_no_secret(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write(source, {"kai.yaml": b"state: {secret: [{path: token, name: TOK}]}\n", "token": b"hunter2"})
    agent = make_home(tmp_path / "home").new("bot", source=source)
    assert read(agent.workspace).keys() == {"kai.yaml"}


def test_the_live_manifest_cannot_hide_a_changed_file_from_a_run(agent: Agent) -> None:
    commit(agent, {"logic.py": b"1"})
    write(agent.workspace, {"logic.py": b"2", "kai.yaml": b"files: {state: ['*']}\n"})
    with pytest.raises(ChecksumMismatch) as caught:
        agent.run("true")
    assert "logic.py" in caught.value.what
    assert {finding.path for finding in agent.verify(workspace=True).findings} == {"logic.py", "kai.yaml"}


# ---------------------------------------------------------------- names and ids


@pytest.mark.parametrize("op_id", ["../..", "/tmp", "a/b", "", "\udcff", "x" * 65, "."])
def test_an_operation_id_is_no_path(agent: Agent, op_id: str) -> None:
    two(agent, {"a": b"1"}, {"a": b"2"})
    for act in (
        lambda: agent.rollback("v1.0.0", op_id=op_id),
        lambda: agent.commit(bump="minor", allow_empty=True, op_id=op_id),
        lambda: agent.undo(op_id=op_id),
        lambda: agent.restore(op_id=op_id),
    ):
        with pytest.raises(InvalidName):
            act()
    assert len(agent.reflog().entries) == 2


def test_each_verb_may_be_repeated_with_its_operation_id(agent: Agent) -> None:
    two(agent, {"a": b"1"}, {"a": b"2"})
    for verb, act in {
        "r": lambda op: agent.rollback("v1.0.0", op_id=op),
        "u": lambda op: agent.undo(op_id=op),
        "d": lambda op: agent.redo(op_id=op),
    }.items():
        first = act(verb)
        count = len(agent.reflog().entries)
        second = act(verb)
        assert (second.seq, second.to_version, second.applied) == (first.seq, first.to_version, True)
        assert len(agent.reflog().entries) == count
    assert agent.current.version == "1.0.0"


def test_of_two_makers_of_one_name_one_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "home"
    make_home(path)
    for name in ("s1", "s2"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, {"who": name.encode(), **{f"f{count}": b"x" * 1000 for count in range(200)}})
    jobs: list[Callable[[], object]] = [partial(make_and_commit, path, tmp_path / name) for name in ("s1", "s2")]
    assert sorted(together(jobs)) == ["E204", "ok"]
    agent = open_home(path).agent("bot")
    assert agent.verify().ok
    assert not agent.status().dirty
    assert NameTaken.code == "E204"


def make_and_commit(path: Path, source: Path) -> None:
    open_home(path).new("bot", source=source).commit()


def test_a_link_around_a_home_or_another_workspace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outer").mkdir()
    home = make_home(tmp_path / "outer" / "home")
    (tmp_path / "live" / "inner").mkdir(parents=True)
    home.new("one", link=tmp_path / "live")
    for path in (tmp_path / "outer", tmp_path / "live" / "inner", tmp_path):
        with pytest.raises(RefusedWorkspace):
            open_home(tmp_path / "outer" / "home").new("two", link=path)


@pytest.mark.parametrize("reason", ["\udcff", "x" * 100_000, "a\0b"])
def test_a_reason_that_no_log_takes(agent: Agent, reason: str) -> None:
    two(agent, {"a": b"1"}, {"a": b"2"})
    for act in (agent.undo, agent.restore, partial(agent.rollback, "v1.0.0")):
        with pytest.raises(InvalidName):
            act(reason=reason)


def test_an_empty_path_restores_nothing(agent: Agent) -> None:
    commit(agent, {"a": b"1"})
    write(agent.workspace, {"a": b"2"})
    with pytest.raises(NoSuchPath):
        agent.restore("")
    assert read(agent.workspace) == {"a": b"2"}


# ---------------------------------------------------------------- commits that nothing could read


def test_a_path_that_is_too_long_is_refused(agent: Agent) -> None:
    here = os.getcwd()
    os.chdir(agent.workspace)
    try:
        for _ in range(20):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
        Path("file").write_bytes(b"1")
    finally:
        os.chdir(here)
    with pytest.raises(RefusedPath):
        agent.commit()
    Vfs().remove_tree(str(agent.workspace))


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", limits__max_files="3").new("bot")
    write(agent.workspace, dict.fromkeys("abcd", b"1"))
    with pytest.raises(TooLarge):
        agent.commit()
    write(agent.workspace, dict.fromkeys("abc", b"1"))
    agent.commit()
    assert not agent.status().dirty


def test_a_manifest_that_is_a_directory_is_refused(agent: Agent) -> None:
    write(agent.workspace, {"kai.yaml/x": b"1"})
    with pytest.raises(InvalidManifest):
        agent.commit()


def test_a_damaged_version_in_force_does_not_hold_up_a_rollback(agent: Agent) -> None:
    two(agent, {"a": b"1"}, {"a": b"2"})
    for oid in (agent.current.oid, agent.current.tree_oid):
        row = agent.repository.store.require(oid)
        (pack,) = Path(agent.repository.layout.pack_dir("bot")).iterdir()
        data = bytearray(pack.read_bytes())
        data[row.offset + row.length - 20] ^= 0xFF
        pack.write_bytes(data)
    broken = again(agent)
    moved = broken.rollback("v1.0.0")
    assert moved.applied
    assert read(broken.workspace) == {"a": b"1"}
    assert len(broken.reflog().entries) == 3
    broken.commit(bump="major", allow_empty=True)


def test_a_damaged_target_is_no_version_to_roll_back_to(agent: Agent) -> None:
    two(agent, {"a": b"1" * 100}, {"a": b"2" * 100})
    views = Path(agent.repository.layout.versions("bot"))
    Vfs().remove_tree(str(views / "v1.0.0"))
    blob = dict(agent.repository.store.tree(agent.show("v1.0.0").version.tree_oid))[b"a"].oid
    row = agent.repository.store.require(blob)
    (pack,) = Path(agent.repository.layout.pack_dir("bot")).iterdir()
    data = bytearray(pack.read_bytes())
    data[row.offset + row.length - 10] ^= 0xFF
    pack.write_bytes(data)
    with pytest.raises(InvalidRollbackVersion):
        again(agent).rollback("v1.0.0")
    assert read(agent.workspace) == {"a": b"2" * 100}


# ---------------------------------------------------------------- views


def test_files_that_move_between_views_survive_eviction(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", views__keep="3").new("bot")
    for count in range(12):
        write(agent.workspace, {f"name{count // 3}": b"same" * 50, "other": b"%d" % count})
        agent.commit(bump="minor")
    agent.rollback("v1.2.0")
    assert agent.verify().ok


def test_the_version_in_force_is_mended_in_place(agent: Agent) -> None:
    two(agent, {"a": b"1", "same": b"s" * 99}, {"a": b"2", "same": b"s" * 99})
    view = Path(agent.repository.layout.view("bot", "v1.1.0"))
    spoil(view / "same", b"evil")
    before = view.stat().st_ino
    moved = agent.rollback("v1.1.0", force=True)
    assert view.stat().st_ino == before
    assert (view / "same").read_bytes() == b"s" * 99
    assert any("v1.0.0" in line for line in moved.notices)
    assert {finding.versions for finding in agent.verify().findings} == {("v1.0.0",)}
    assert view.stat().st_mode & 0o777 == 0o500


def test_a_cut_eviction_leaves_no_half_view(tmp_path: Path) -> None:
    at = 0
    while True:
        at += 1
        path = tmp_path / f"home{at}"
        agent = make_home(path, views__keep="2").new("bot")
        two(agent, {"a": b"1", "d/b": b"1"}, {"a": b"2", "d/b": b"2"})
        agent.repository.catalog.close()
        cut = in_child(partial(commit_and_die, path, at))
        after = open_home(path, views__keep="2").agent("bot")
        assert after.verify().ok
        after.commit(bump="minor", allow_empty=True)
        views = Path(after.repository.layout.versions("bot"))
        assert {view.stat().st_mode & 0o777 for view in views.iterdir()} == {0o500}
        after.rollback("v1.0.0")
        assert not [name for name in os.listdir(after.repository.layout.versions("bot")) if name.startswith(".")]
        if cut == 0:
            break
    assert at > 20


def test_views_that_went_away_are_forgotten(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", views__keep="2").new("bot")
    two(agent, {"a": b"1"}, {"a": b"2"})
    remove(Path(agent.repository.layout.view("bot", "v1.0.0")))
    commit(agent, {"a": b"3"}, bump="minor")
    there = os.listdir(agent.repository.layout.versions("bot"))
    assert {row.tag for row in caches.views(agent.repository.catalog, agent.repository.id)} == set(there)


def test_an_eviction_beside_a_view_that_cannot_be_walked_fails_no_commit(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", views__keep="2").new("bot")
    two(agent, {"a": b"1", "same": b"s"}, {"a": b"2", "same": b"s"})
    kept = agent.repository.layout.view("bot", "v1.1.0")
    fd = os.open(kept, os.O_RDONLY)
    for _ in range(20):  # deeper than any path that the system takes
        os.mkdir("d" * 250, dir_fd=fd)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert commit(agent, {"a": b"3", "same": b"s"}, bump="minor") == "1.2.0"
    assert again(agent).status().pending == ()


def test_a_file_that_changes_while_views_go_is_not_sealed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_home(tmp_path / "home", views__keep="2").new("bot")
    two(agent, {"a": b"1", "same": b"s"}, {"a": b"2", "same": b"s"})
    kept = Path(agent.repository.layout.view("bot", "v1.1.0")) / "same"
    real = keeping._sealed_again

    def spoilt(*args: Any) -> Iterator[Seal]:
        spoil(kept, b"evil")
        return real(*args)

    monkeypatch.setattr(keeping, "_sealed_again", spoilt)
    commit(agent, {"a": b"3", "same": b"s"}, bump="minor")
    monkeypatch.undo()
    version = agent.show("v1.1.0").version
    assert [it.path for it in views.View(agent.repository, version).check()] == ["same"]


def test_views_share_files_though_others_commit_meanwhile(tmp_path: Path) -> None:
    mine = make_home(tmp_path / "home").new("bot")
    other = open_home(tmp_path / "home").agent("bot")
    files = {f"f{number}": b"%d" % number * 50 for number in range(5)}
    for number, agent in enumerate((mine, other, mine, other)):
        commit(agent, {**files, "a": b"%d" % number}, bump="minor")
    directories = Path(mine.repository.layout.versions("bot"))
    assert len({(view / "f1").stat().st_ino for view in directories.iterdir()}) == 1


def commit_and_die(path: Path, at: int) -> None:
    agent = open_home(path, Cut(at), views__keep="2").agent("bot")
    agent.commit(bump="minor", allow_empty=True)


def test_a_directory_that_waits_under_the_next_name_is_not_taken_for_a_view(agent: Agent, tmp_path: Path) -> None:
    commit(agent, {"a": b"1"})
    versions = Path(agent.repository.layout.versions("bot"))
    (versions / "v1.1.0").mkdir()
    (versions / "v1.1.0" / "evil").write_bytes(b"1")
    commit(agent, {"a": b"2"}, bump="minor")
    assert sorted(os.listdir(versions / "v1.1.0")) == ["a", "snapshot_meta.json"]
    (versions / "v1.2.0").symlink_to(tmp_path)
    commit(agent, {"a": b"3"}, bump="minor")
    assert sorted(os.listdir(versions / "v1.2.0")) == ["a", "snapshot_meta.json"]
    with pytest.raises(RefusedWorkspace):
        agent.checkout("v1.0.0", versions / "v9.9.9")


def test_a_backup_has_no_view(agent: Agent) -> None:
    two(agent, {"a": b"1"}, {"a": b"2"})
    write(agent.workspace, {"a": b"3"})
    moved = agent.rollback("v1.0.0")
    assert moved.backup is not None
    with pytest.raises(NoSuchRevision):
        agent.load(moved.backup)
    commit(agent, {"a": b"4"}, bump="minor")


@pytest.mark.parametrize("text", ['{"seq": Infinity}\n', "[" * 100_000 + "\n", '{"seq": 99999}\n', "garbage"])
def test_a_damaged_log_is_written_anew(agent: Agent, text: str) -> None:
    commit(agent, {"a": b"1"})
    log = Path(agent.repository.layout.rollback_log("bot"))
    log.write_text(text)
    commit(agent, {"a": b"2"}, bump="minor")
    assert [json.loads(line)["seq"] for line in log.read_text().splitlines()] == [1, 2]


# ---------------------------------------------------------------- runs


def test_a_resume_that_fails_says_that_the_rollback_landed(agent: Agent) -> None:
    commands = b"quiesce: ['true']\nresume: [sh, -c, 'exit 3']\n"
    two(agent, {"kai.yaml": commands, "a": b"1"}, {"kai.yaml": commands, "a": b"2"})
    thread = in_background(agent, "sleep", "1")
    with pytest.raises(CommandFailed) as caught:
        agent.rollback("v1.0.0")
    assert "done" in caught.value.unchanged
    assert agent.current.version == "1.0.0"
    thread.join()


def test_resume_comes_also_when_quiesce_fails(agent: Agent) -> None:
    commands = b"quiesce: [sh, -c, 'exit 3']\nresume: [sh, -c, 'echo r >> ../asked']\n"
    two(agent, {"kai.yaml": commands, "a": b"1"}, {"kai.yaml": commands, "a": b"2"})
    thread = in_background(agent, "sleep", "1")
    with pytest.raises(CommandFailed):
        agent.rollback("v1.0.0")
    assert (agent.workspace.parent / "asked").read_text() == "r\n"
    thread.join()


def test_looking_at_an_agent_keeps_nobody_from_running_it(agent: Agent) -> None:
    commit(agent, {"a": b"1"})
    stop = threading.Event()

    def look() -> None:
        mine = again(agent)
        while not stop.is_set():
            leases.is_running(mine.repository)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(30):
            assert agent.run("true").exit_code == 0
    finally:
        stop.set()
        thread.join()


def test_views_stay_while_the_agent_runs(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", views__keep="1").new("bot")
    commit(agent, {"a": b"1"})
    thread = in_background(agent, "sleep", "1")
    commit(agent, {"a": b"2"}, bump="minor")
    assert Path(agent.repository.layout.view("bot", "v1.0.0")).is_dir()
    thread.join()
    commit(agent, {"a": b"3"}, bump="minor")
    assert not Path(agent.repository.layout.view("bot", "v1.0.0")).exists()


def test_the_default_ignores_are_said(agent: Agent) -> None:
    write(agent.workspace, {"a": b"1", ".env": b"x", "id_rsa": b"x"})
    assert "left out by default: .env, id_rsa" in agent.record().notices


# ---------------------------------------------------------------- found in a second round


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_rows_that_are_written_after_a_cut_are_never_lost(tmp_path: Path, mode: str) -> None:
    at = 0
    while True:
        at += 1
        path = tmp_path / f"home{at}"
        agent = make_home(path).new("bot")
        live = agent.workspace / "s.db"
        for value in (1, 2):
            insert(live, mode, value)
            agent.commit(bump="minor")
        agent.repository.catalog.close()
        cut = in_child(partial(roll_back_and_die, path, at))
        if cut == 0:
            break
        insert(live, mode, 99)
        after = open_home(path).agent("bot")
        after.commit(bump="minor", allow_empty=True)
        held = [values(live)]
        for number, name in enumerate(after.repository.refs("refs/heads/bot/backups/")):
            target = tmp_path / f"out{at}-{number}"
            after.checkout(name.removeprefix("refs/heads/bot/"), target)
            held.append(values(target / "s.db"))
        assert any(99 in rows for rows in held), (at, held)
    assert at > 20


def insert(path: Path, mode: str, value: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    connection.execute("INSERT INTO t VALUES (?)", (value,))
    connection.close()


def values(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [value for (value,) in connection.execute("SELECT x FROM t")]
    finally:
        connection.close()


def test_files_that_are_only_named_like_side_files_stay(agent: Agent) -> None:
    manifest = b"state: {keep: [app-journal]}\n"
    first = {"kai.yaml": manifest, ".kaiignore": b"note-wal\n", "app": b"1", "note": b"1", "daily": b"1"}
    two(agent, first, first | {"app": b"2", "note": b"2", "daily": b"2"})
    extra = {"app-journal": b"kept", "note-wal": b"ignored", "daily-wal": b"EDIT"}
    for name, data in extra.items():
        (agent.workspace / name).write_bytes(data)
    agent.restore("daily", source="v1.0.0")
    assert (agent.workspace / "daily-wal").read_bytes() == b"EDIT"
    agent.rollback("v1.0.0")
    assert (agent.workspace / "app-journal").read_bytes() == b"kept"
    assert (agent.workspace / "note-wal").read_bytes() == b"ignored"


def test_a_name_as_long_as_a_disk_takes(agent: Agent) -> None:
    name = "n" * 255
    two(agent, {name: b"1"}, {name: b"2"})
    agent.rollback("v1.0.0")
    assert (agent.workspace / name).read_bytes() == b"1"
    spoil(Path(agent.repository.layout.view("bot", "v1.0.0")) / name, b"evil")
    agent.rollback("v1.0.0", force=True)
    assert agent.verify().ok


def test_a_mount_in_the_workspace_is_named_before_anything_moves(agent: Agent) -> None:
    two(agent, {"d/x": b"1"}, {"d/x": b"2"})
    place = agent.workspace / "d"
    if subprocess.run(["mount", "--bind", place, place], check=False, capture_output=True).returncode:
        text = "this system lets this user mount nothing"
        pytest.fail(text) if IN_CI else pytest.skip(text)
    try:
        with pytest.raises(Incompatible) as caught:
            agent.rollback("v1.0.0")
        assert "d is a mount of its own" in caught.value.what
        assert agent.current.version in {"1.0.1", "1.1.0"}
        assert not agent.status().pending
    finally:
        subprocess.run(["umount", place], check=True)
    agent.rollback("v1.0.0")


def test_a_workspace_that_goes_after_a_cut(agent: Agent) -> None:
    two(agent, {"x": b"1"}, {"x": b"2"})

    with pytest.raises(StorageFailed):
        again(agent, Stops()).rollback("v1.0.0")
    Vfs().remove_tree(str(agent.workspace))
    agent.commit(bump="minor", allow_empty=True)
    assert read(agent.workspace) == {"x": b"1"}


def test_what_is_put_in_the_way_after_a_cut_is_named(agent: Agent) -> None:
    two(agent, {"d/x": b"1"}, {"d/x": b"2"})

    with pytest.raises(StorageFailed):
        again(agent, Stops()).rollback("v1.0.0")
    Vfs().remove_tree(str(agent.workspace / "d"))
    (agent.workspace / "d").write_bytes(b"a file")
    with pytest.raises(Incompatible) as caught:
        agent.commit(bump="minor", allow_empty=True)
    assert "d/x" in caught.value.hint
    (agent.workspace / "d").unlink()
    agent.commit(bump="minor", allow_empty=True)
    assert read(agent.workspace) == {"d/x": b"1"}


def test_a_view_that_cannot_be_read_stops_no_commit(agent: Agent) -> None:
    two(agent, {"a": b"1"}, {"a": b"2"})
    view = Path(agent.repository.layout.view("bot", "v1.0.0"))
    view.chmod(0)
    code = (
        f"import kaivc\nfrom kaivc.errors import ChecksumMismatch\n"
        f"home = kaivc.open({agent.repository.layout.root!r}, environ={ENVIRON!r}, flags={{'views.keep': '1'}})\n"
        "agent = home.agent('bot')\n"
        "agent.commit(bump='minor', allow_empty=True)\n"
        "try:\n    agent.load('v1.0.0')\nexcept ChecksumMismatch as error:\n    print(error.code)\n"
    )
    done = subprocess.run(
        without_privileges([sys.executable, "-c", code]), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_two_links_at_once_both_stand(tmp_path: Path) -> None:
    path = tmp_path / "home"
    make_home(path)
    names = [f"bot{number}" for number in range(4)]
    for name in names:
        (tmp_path / name).mkdir()
    assert together([partial(make_linked, path, name, tmp_path / name) for name in names]) == ["ok"] * 4
    for name in names:
        assert open_home(path).agent(name).workspace == tmp_path / name


def make_linked(path: Path, name: str, link: Path) -> None:
    open_home(path).new(name, link=link)


@pytest.mark.parametrize("number", [0xDCFF, 0xD800])
def test_text_that_no_system_takes(agent: Agent, number: int) -> None:
    text = chr(number)
    commit(agent, {"a": b"1"})
    for act in (
        lambda: open_home(Path(agent.repository.layout.root)).agent(text),
        lambda: agent.reflog(text),
        lambda: agent.restore(text),
        lambda: agent.show(text),
    ):
        with pytest.raises(KaiError):
            act()


def test_a_link_out_of_the_agent_comes_back_with_its_backup(tmp_path: Path) -> None:
    """A version cannot hold one; what a rollback leaves is kept as it was, and undo gives it back."""
    home = make_home(tmp_path / "home")
    agent = home.new("bot")
    (agent.workspace / "kept").write_bytes(b"one")
    agent.commit(version="1.0.0")
    (agent.workspace / "kept").write_bytes(b"two")
    os.symlink("/etc/passwd", agent.workspace / "out")
    with pytest.raises(RefusedPath):
        agent.commit(bump="minor")
    backup = agent.rollback("v1.0.0").backup
    assert backup is not None
    assert not os.path.lexists(agent.workspace / "out")
    agent.undo()
    assert os.readlink(agent.workspace / "out") == "/etc/passwd"
    assert (agent.workspace / "kept").read_bytes() == b"two"
    agent.checkout(backup, tmp_path / "out")
    assert os.readlink(tmp_path / "out" / "out") == "/etc/passwd"
    found = api.fsck(tmp_path / "home", environ=ENVIRON)
    assert found.ok, found.all
    home.close()


def test_a_database_that_cannot_be_read_once_more_is_read_when_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is as it was captured cannot be told then: it is taken as changed."""
    agent = make_home(tmp_path / "home").new("bot")

    def count() -> int:
        with sqlite3.connect(agent.workspace / "state.db") as db:
            found: int = db.execute("SELECT count(*) FROM t").fetchone()[0]
        db.close()
        return found

    with sqlite3.connect(agent.workspace / "state.db") as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    agent.commit(version="1.0.0")
    with sqlite3.connect(agent.workspace / "state.db") as db:
        db.execute("INSERT INTO t VALUES (1)")
    db.close()

    def not_now(*_: object) -> None:
        raise sqlitefiles.NotReadable("not now")

    monkeypatch.setattr(sqlitefiles, "backup", not_now)
    agent.rollback("v1.0.0")
    assert count() == 0
    agent.undo()
    assert count() == 1
