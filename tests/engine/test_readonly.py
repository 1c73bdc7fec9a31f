"""A home that can be read and not written: every answer is the same, and not one file of it changes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import kaivc
from kaivc.cli.app import VERBS
from kaivc.errors import ReadOnlyHome, StorageFailed, UnsettledFile
from kaivc.storage import readonly
from kaivc.storage.catalog import Catalog
from tests.conftest import IN_CI, Ids, require_tool, run_as
from tests.engine.homes import ENVIRON, commit, make_home, open_home, write

Answers = dict[str, list[Any]]
ROOT = Ids(0, 0)

# Each command line as one question; what a verb of a later release asks is added here.
READING = [
    "status",
    "status bot",
    "log bot",
    "log bot@v1.0.0",
    "versions bot",
    "show bot@v1.0.0",
    "diff bot@v1.0.0 v1.1.0",
    "diff bot",
    "reflog bot",
    "reflog bot --all",
    "verify bot",
    "verify bot@v1.0.0",
    "agent list",
    "remote list",
    "cat bot@v1.0.0 logic.py",
    "ls-tree bot@v1.0.0",
    "rev-parse bot@v1.0.0",
    "audit bot",
    "fsck",
]
WRITING = [
    "commit bot",
    "rollback bot --to v1.0.0",
    "undo bot",
    "redo bot",
    "restore bot",
    "run bot -- true",
    "new other",
    "agent rename bot other",
    "agent remove bot",
    "fsck --repair",
    "gc",
    "remote add other ../other",
    "remote remove origin",
    "remote rename origin other",
    "fetch",
    "pull bot",
    "push bot",
    "renumber bot@v1.0.0",
    "bundle unbundle ../x.kaib",
]
ASK = """
import contextlib, io, json, shlex, sys
from kaivc.cli.main import main
answers = {}
for line in json.loads(sys.argv[1]):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        argv = shlex.split(line)
        at = argv.index("--") if "--" in argv else len(argv)
        code = main([*argv[:at], "--json", *argv[at:]])
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    answers[line] = [code, *texts]
import kaivc
home = kaivc.open()
agent = home.agent("bot")
for rev in ("v1.0.0", "current"):
    answers["load " + rev] = [0, str(agent.load(rev)), ""]
print(json.dumps(answers))
"""


def known(lines: list[str]) -> list[str]:
    """The command lines whose verb there is."""
    return [line for line in lines if line.split()[0] in VERBS or " ".join(line.split()[:2]) in VERBS]


def ask(python: list[str], home: Path, lines: list[str], ids: Ids = ROOT) -> Answers:
    done = run_as(ids, [*python, "-c", ASK, json.dumps(known(lines))], cwd=home, env={**os.environ, **ENVIRON})
    assert done.returncode == 0, done.stderr
    answers: Answers = json.loads(done.stdout)
    return answers


def everything(root: Path) -> dict[str, tuple[Any, ...]]:
    """The names, bytes and times of all that is in a directory."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(root))] = (
            status.st_mode,
            status.st_ino,
            status.st_mtime_ns,
            status.st_ctime_ns,
            data,
        )
    return found


DATABASE = """
import os, sqlite3, sys
it = sqlite3.connect(sys.argv[1], isolation_level=None)
it.execute("PRAGMA journal_mode=WAL")
it.execute("CREATE TABLE IF NOT EXISTS t (x)")
it.execute("INSERT INTO t VALUES (?)", (sys.argv[2],))
os._exit(0) if sys.argv[3] == "leave" else it.close()
"""


def write_database(path: Path, value: str, how: str) -> None:
    subprocess.run([sys.executable, "-c", DATABASE, path, value, how], check=True)


LEFT, NO_INDEX, CLOSED = "log and index left", "log without index", "no log"


@pytest.fixture(params=[LEFT, NO_INDEX, CLOSED])
def home(request: pytest.FixtureRequest, public_tmp: Path) -> Path:
    """A home with `bot`: two versions, a backup, a changed workspace with a WAL-mode database."""
    path = public_tmp / "agents"
    made = make_home(path)
    agent = made.new("bot")
    commit(agent, {"logic.py": b"one\n", "config.yaml": b"a: 1\n", "state.json": b"{}"})
    write_database(agent.workspace / "memory.db", "first", "leave")
    (agent.workspace / "logic.py").write_text("two\n")
    agent.commit(bump="minor", notes="the second")
    (agent.workspace / "state.json").write_text('{"n": 2}')
    agent.rollback("v1.0.0")
    agent.undo()
    write_database(agent.workspace / "memory.db", "second", "leave")
    (agent.workspace / "logic.py").write_text("three\n")
    made.close()
    write_state(path, request.param)
    return path


def write_state(home: Path, how: str) -> None:
    """Leave the catalog and the database of the workspace as processes of different manners leave them."""
    if how == CLOSED:
        write_database(home / "bot/workspace/memory.db", "third", "close")
        kaivc.open(home, environ=ENVIRON).close()
    else:
        leave = "import kaivc, os, sys; home = kaivc.open(sys.argv[1]); home.agent('bot').status(); os._exit(0)"
        subprocess.run([sys.executable, "-c", leave, home], check=True, env={**os.environ, **ENVIRON})
    for database in (home / ".kai/catalog.sqlite", home / "bot/workspace/memory.db"):
        log, index = (database.with_name(database.name + it) for it in ("-wal", "-shm"))
        if how == NO_INDEX:
            index.unlink()
        assert (log.exists() and log.stat().st_size > 0, index.exists()) == (how != CLOSED, how == LEFT)


def let_read(home: Path) -> None:
    """Let every user read a home, and none but its owner write."""
    for path in [home, *home.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o755 | (0o555 if path.is_dir() else 0o444))


def copy_for_the_original(home: Path) -> Path:
    """The same home, writable, for the answers to compare with: asking may leave other files in it."""
    original = home.parent / "original"
    shutil.copytree(home, original, symlinks=True)
    return original


@contextmanager
def mounted_read_only(path: Path) -> Iterator[None]:
    """A directory on a read-only mount of itself."""
    if subprocess.run([require_tool("mount"), "--bind", path, path], check=False, capture_output=True).returncode:
        text = "this system lets this user mount nothing"
        if IN_CI:
            pytest.fail(text)
        pytest.skip(text)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield
    finally:
        subprocess.run(["umount", path], check=True)


def timeless(text: str) -> str:
    """An answer without the moment at which it was given."""
    return re.sub(r'^  "time(_ns)?": .*$', "then", text, flags=re.MULTILINE)


def compare(asked: Answers, original: Answers, home: Path, copy: Path) -> None:
    assert set(asked) == set(original)
    for line, answer in original.items():
        told = [answer[0], *(timeless(text.replace(str(copy), str(home))) for text in answer[1:])]
        assert [asked[line][0], *map(timeless, asked[line][1:])] == told, line


def test_on_a_read_only_mount_every_answer_is_the_same(home: Path) -> None:
    copy = copy_for_the_original(home)
    python = [sys.executable]
    expected = ask(python, copy, READING)
    with mounted_read_only(home):
        before = everything(home)
        compare(ask(python, home, READING), expected, home, copy)
        check_refusals(python, home, ROOT)
        assert everything(home) == before


def test_another_user_with_rights_to_read_gets_every_answer(
    home: Path, other_uid: Ids, public_python: list[str]
) -> None:
    copy = copy_for_the_original(home)
    expected = ask(public_python, copy, READING)
    let_read(home)
    before = everything(home)
    compare(ask(public_python, home, READING, other_uid), expected, home, copy)
    check_refusals(public_python, home, other_uid)
    check_elsewhere(public_python, home, other_uid)
    assert everything(home) == before


def check_refusals(python: list[str], home: Path, ids: Ids) -> None:
    """Each verb that writes says why it cannot."""
    answers = ask(python, home, WRITING, ids)
    for line in known(WRITING):
        code, out, err = answers[line]
        assert code == 11, (line, err)
        assert not out or json.loads(out)["failed"]  # as of each agent
        error = json.loads(err)["error"]
        assert (error["code"], error.get("unchanged")) == ("E905", "nothing was written"), (line, error)
        assert error["facts"]["home"] == str(home)
        where = "read-only file system" if ids.uid == 0 else f"uid {ids.uid} may not write {home}/.kai"
        assert where in error["message"]
        assert "user who may write the home" in error["hint"]


def check_elsewhere(python: list[str], home: Path, ids: Ids) -> None:
    """What writes elsewhere does."""
    target = home.parent / "elsewhere"
    target.mkdir()
    os.chown(target, ids.uid, ids.gid)
    code, _, err = ask(python, home, [f"checkout bot@v1.0.0 {target}/files"], ids)[
        f"checkout bot@v1.0.0 {target}/files"
    ]
    assert (code, err) == (0, "")
    assert (target / "files/logic.py").read_bytes() == b"one\n"
    code, _, err = ask(python, home, [f"export bot --git {target}/git"], ids)[f"export bot --git {target}/git"]
    assert (code, err) == (0, "")
    shown = run_as(ids, ["git", "--git-dir", f"{target}/git", "show", "v1.0.0:logic.py"])
    assert shown.stdout == "one\n"


@pytest.mark.parametrize("home", [LEFT], indirect=True)
def test_a_run_is_seen_and_a_writer_beside_is_read(home: Path, other_uid: Ids, public_python: list[str]) -> None:
    let_read(home)
    with subprocess.Popen(
        [sys.executable, "-m", "kaivc", "run", "bot", "--dirty", "--", "sleep", "60"],
        cwd=home,
        env={**os.environ, **ENVIRON},
    ) as child:
        try:
            until = time.monotonic() + 20
            while not json.loads(ask(public_python, home, ["status bot"], other_uid)["status bot"][1])["agents"][0][
                "running"
            ]:
                assert time.monotonic() < until
        finally:
            child.send_signal(signal.SIGTERM)
    opened = open_home(home)  # holds the catalog while it is read
    opened.agent("bot").commit(notes="while another user reads")
    let_read(home)
    answer = json.loads(ask(public_python, home, ["versions bot"], other_uid)["versions bot"][1])
    assert answer["versions"][-1]["notes"] == "while another user reads"
    assert not json.loads(ask(public_python, home, ["status bot"], other_uid)["status bot"][1])["agents"][0]["running"]
    opened.close()


# ------------------------------------------------------------ asked for


def test_a_home_opened_to_be_read_only_writes_nothing(tmp_path: Path) -> None:
    made = make_home(tmp_path / "agents")
    agent = made.new("bot")
    commit(agent, {"logic.py": b"one\n"})
    made.close()
    before = everything(tmp_path)
    home = kaivc.open(tmp_path / "agents", environ=ENVIRON, read_only=True)
    it = home.agent("bot")
    it.status()
    assert it.verify().ok
    assert it.load("v1.0.0").name == "v1.0.0"
    with pytest.raises(ReadOnlyHome):
        it.commit(notes="x")
    home.close()
    assert everything(tmp_path) == before


def test_a_view_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    made = make_home(tmp_path / "agents", views__keep="1")
    agent = made.new("bot")
    commit(agent, {"logic.py": b"one\n"})
    commit(agent, {"logic.py": b"two\n"})
    made.close()
    assert not (tmp_path / "agents/bot/versions/v1.0.0").exists()
    it = kaivc.open(tmp_path / "agents", environ=ENVIRON, read_only=True).agent("bot")
    with pytest.raises(ReadOnlyHome):
        it.load("v1.0.0")
    assert it.load().name == "v1.0.1"


def test_what_a_writer_does_meanwhile_is_seen_by_a_reader_without_locks(tmp_path: Path) -> None:
    """Read from the main file alone, then from a copy of it and its log: never from what was there before."""
    path = tmp_path / "agents"
    made = make_home(path)
    agent = made.new("bot")
    commit(agent, {"logic.py": b"one\n"})
    made.close()
    reader = kaivc.open(path, environ=ENVIRON, read_only=True).agent("bot")
    assert [it.version for it in reader.versions()] == ["1.0.0"]
    writer = open_home(path)
    commit(writer.agent("bot"), {"logic.py": b"two\n"})
    assert len(reader.versions()) == 2
    writer.close()
    assert len(reader.versions()) == 2
    writer = open_home(path)
    commit(writer.agent("bot"), {"logic.py": b"three\n"})
    writer.close()
    assert len(reader.versions()) == 3


# ------------------------------------------------------------ one database


def database(path: Path, how: str) -> None:
    write_database(path, "one", "close")
    write_database(path, "two", how)


def rows(path: Path, scratch: Path) -> list[str]:
    view = readonly.connect(str(path), 1, str(scratch))
    try:
        return [value for (value,) in view.connection.execute("SELECT x FROM t")]
    finally:
        view.connection.close()


def test_a_log_without_its_index_is_read_from_a_copy_that_is_gone_at_once(tmp_path: Path) -> None:
    path, scratch = tmp_path / "a.db", tmp_path / "scratch"
    scratch.mkdir()
    database(path, "leave")
    (tmp_path / "a.db-shm").unlink()
    before = everything(tmp_path)
    view = readonly.connect(str(path), 1, str(scratch))
    assert not os.listdir(scratch)
    assert view.connection.execute("SELECT x FROM t").fetchall() == [("one",), ("two",)]
    view.connection.close()
    assert {name: it[-1] for name, it in everything(tmp_path).items()} == {name: it[-1] for name, it in before.items()}


def test_a_log_that_cannot_be_copied_is_an_error_not_an_old_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    database(path, "leave")
    (tmp_path / "a.db-shm").unlink()
    with pytest.raises(readonly.NotReadable, match="could not be copied"):
        rows(path, tmp_path / "nowhere")
    monkeypatch.setattr(readonly, "MAX_COPY", 100)
    with pytest.raises(readonly.NotReadable, match="more than 100 bytes"):
        rows(path, tmp_path)


def test_a_catalog_whose_log_cannot_be_read_is_a_typed_error(tmp_path: Path) -> None:
    made = make_home(tmp_path / "agents")
    commit(made.new("bot"), {"a": b"1"})
    state = tmp_path / "agents/.kai"
    shutil.copy(state / "catalog.sqlite-wal", tmp_path / "log")
    made.close()
    shutil.copy(tmp_path / "log", state / "catalog.sqlite-wal")
    with pytest.raises(StorageFailed, match="catalog cannot be read") as caught:
        Catalog.open(str(state / "catalog.sqlite"), scratch=str(tmp_path / "nowhere"), read_only=True)
    assert "TMPDIR" in caught.value.hint


def test_a_hot_journal_is_rolled_back_in_the_copy_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    script = """
import os, sqlite3, sys
it = sqlite3.connect(sys.argv[1], isolation_level=None)
it.execute("CREATE TABLE t (x)")
it.execute("INSERT INTO t VALUES ('one')")
it.execute("PRAGMA cache_size=1")
it.execute("BEGIN")
it.execute("UPDATE t SET x = 'two'")
it.execute("CREATE TABLE filler (y)")
for _ in range(200):
    it.execute("INSERT INTO filler VALUES (randomblob(2000))")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script, path], check=True)
    journal = tmp_path / "a.db-journal"
    assert journal.stat().st_size > 0
    kept = journal.read_bytes(), path.read_bytes()
    assert rows(path, tmp_path) == ["one"]
    assert (journal.read_bytes(), path.read_bytes()) == kept


def test_a_file_that_changes_each_time_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    database(path, "close")
    count = iter(range(1000))
    monkeypatch.setattr(readonly, "signature", lambda _: ((next(count), 0, 0), None, None))
    with pytest.raises(readonly.NotReadable, match="changed each time"):
        rows(path, tmp_path)


def test_a_database_that_changes_while_a_workspace_is_read_is_said(tmp_path: Path) -> None:
    from kaivc import sqlitefiles

    path = tmp_path / "a.db"
    database(path, "close")

    def read() -> None:
        with sqlitefiles._reading_only(os.fsencode(path), 1, str(tmp_path)) as connection:
            assert sqlitefiles.holds_all(os.fsencode(path), connection)
            write_database(path, "three", "close")

    with pytest.raises(UnsettledFile, match="changed meanwhile"):
        read()


def test_what_is_no_database_is_a_plain_file_for_a_reader_too(tmp_path: Path) -> None:
    from kaivc import sqlitefiles

    path = tmp_path / "a.db"
    path.write_bytes(sqlitefiles.MAGIC + b"x" * 5000)
    with pytest.raises(sqlitefiles.NotReadable), sqlitefiles._reading_only(os.fsencode(path), 1, str(tmp_path)):
        pass


def test_a_large_database_in_a_home_that_is_only_read_goes_through_private_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaivc import sqlitefiles

    monkeypatch.setattr(sqlitefiles, "IN_MEMORY", 0)
    made = make_home(tmp_path / "agents")
    agent = made.new("bot")
    write(agent.workspace, {"logic.py": b"one\n"})
    database(agent.workspace / "memory.db", "leave")
    agent.commit(notes="x")
    made.close()
    private = tmp_path / "private"
    private.mkdir()
    it = kaivc.open(tmp_path / "agents", environ={**ENVIRON, "TMPDIR": str(private)}, read_only=True).agent("bot")
    before = everything(tmp_path / "agents/.kai")
    assert not it.status().dirty
    assert not os.listdir(private)
    assert everything(tmp_path / "agents/.kai") == before


def test_a_workspace_on_a_read_only_mount_is_read_too(tmp_path: Path) -> None:
    """The home can be written; the linked workspace, with a database that was closed or left, cannot."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    made = make_home(tmp_path / "agents")
    agent = made.new("bot", link=place)
    database(place / "closed.db", "close")
    database(place / "left.db", "leave")
    agent.commit(notes="x")
    (place / "left.db-shm").unlink()
    with mounted_read_only(place):
        before = everything(place)
        status = agent.status()
        assert not status.dirty
        assert not [line for line in status.notices if "no database" in line]
        assert everything(place) == before
    made.close()


def test_what_others_make_meanwhile_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sixteen processes that open a home at once one took it for read-only, and stayed so."""
    path = tmp_path / "catalog.sqlite"
    path.touch()
    asked = os.access

    def slow(each: str, mode: int, **words: bool) -> bool:
        found = asked(each, mode, **words)
        if each.endswith("-shm"):
            Path(each).touch()  # by another process
        return found

    monkeypatch.setattr(os, "access", slow)
    assert readonly.obstacle(str(path)) == ""
