"""Imports of version folders: what they say is kept or refused, never half of it, and they are only read."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaivc.api import Agent, Home
from kaivc.cli.main import main
from kaivc.errors import InvalidLayout, InvalidName, KaiError, NameTaken, RefusedPath
from tests.conftest import Ids, run_as
from tests.engine.homes import Files, commit, copy, make_home, open_home, read, remove, write
from tests.engine.test_fork import cut_in
from tests.engine.test_kill import Cut
from tests.interop.judge import check

V1: Files = {"logic.py": b"one\n", "config.yaml": b"a: 1\n", "state.json": b"1"}
V2: Files = {"logic.py": b"two\n", "config.yaml": b"a: 2\n", "state/x/y": b"2"}
V3: Files = {"logic.py": b"two\n", "deep/er/file": b"3" * 5000}
META = "snapshot_meta.json"


def make_tree(root: Path, versions: Mapping[str, Files], metas: Mapping[str, dict[str, Any]] | None = None) -> Path:
    """A tree by hand."""
    for name, files in versions.items():
        folder = root / "versions" / name
        folder.mkdir(parents=True)
        write(folder, files)
        if metas is not None and name in metas:
            (folder / META).write_text(json.dumps(metas[name]))
    return root


def snapshot(root: Path) -> dict[str, tuple[int, ...]]:
    """All that a writer would change, times of directories included."""
    found: dict[str, tuple[int, ...]] = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def commits(agent: Agent) -> dict[str | None, str]:
    return {it.version: it.commit for it in agent.versions()}


def imported(home: Home, root: Path, name: str = "new") -> Agent:
    home.import_(root, name=name)
    return home.agent(name)


def nothing_of(home: Home, name: str = "new") -> None:
    assert home.agents() == []
    assert not [it for it in os.listdir(home.path) if name in it]
    assert os.listdir(home.path / ".kai" / "packs") == []
    assert [it for it in os.listdir(home.path / ".kai" / "tmp") if it != "clock"] == []


# ---------------------------------------------------------------- what a home wrote itself


def written(path: Path, object_format: str = "sha256") -> Home:
    """A home whose agent has versions off the line, notes of several kinds, links, modes and a database."""
    home = make_home(path, object_format)
    bot = home.new("bot")
    commit(bot, V1, notes="first\n\n--- not the end\n\ttabbed  \nKai-Version: 9")
    bot.record(notes="", snapshot_type="auto", allow_empty=True)
    os.symlink("logic.py", bot.workspace / "link")
    (bot.workspace / "logic.py").chmod(0o755)
    with closing(sqlite3.connect(bot.workspace / "memory.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (7)")
        database.commit()
        bot.record(bump="minor", notes="né \u202e日本")
    bot.rollback("v1.0.0")
    commit(bot, V3, bump="minor", notes="from v1.0.0")
    bot.rollback("v1.1.0")
    (bot.workspace / "logic.py").write_bytes(b"live\n")
    return home


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_what_a_home_wrote_comes_back_with_the_same_ids(tmp_path: Path, object_format: str) -> None:
    bot = written(tmp_path / "home", object_format).agent("bot")
    shutil.copytree(tmp_path / "home" / "bot", tmp_path / "copied", symlinks=True)
    before = snapshot(tmp_path / "copied")
    home = make_home(tmp_path / "other", object_format)
    made = home.import_(tmp_path / "copied", name="new")
    new = home.agent("new")
    assert commits(new) == commits(bot)
    assert [(it.parent, it.notes, it.snapshot_type) for it in new.versions()] == [
        (it.parent, it.notes, it.snapshot_type) for it in bot.versions()
    ]
    assert (new.current.version, made.workspace_from, made.applied) == ("1.1.0", "workspace", True)
    assert read(new.workspace) == {**read(bot.workspace), "memory.db": (new.workspace / "memory.db").read_bytes()}
    assert os.readlink(new.workspace / "link") == "logic.py"
    assert new.status().dirty
    assert not new.status().pending
    assert new.verify().ok
    assert new.audit().ok
    assert snapshot(tmp_path / "copied") == before, "it is only read"
    new.export(tmp_path / "new.git")
    check(tmp_path / "new.git")
    assert [entry.verb for entry in new.reflog(None).entries] == ["import"] * 5, "current and four tags, one op"
    assert {entry.seq for entry in new.reflog(None).entries} == {1}
    new.rollback("v1.2.0")
    assert read(new.workspace) == V3


def test_the_other_object_format_is_checked_all_the_same(tmp_path: Path) -> None:
    bot = written(tmp_path / "home", "sha1").agent("bot")
    home = make_home(tmp_path / "other", "sha256")
    made = home.import_(tmp_path / "home" / "bot", name="new")
    assert {it.commit for it in made.versions}.isdisjoint(commits(bot).values())
    assert sum("commit_hash" in line for line in made.notices) == 1
    assert home.agent("new").verify().ok
    shutil.copytree(tmp_path / "home" / "bot", tmp_path / "copied", symlinks=True)
    state = tmp_path / "copied" / "versions" / "v1.0.0" / "state.json"
    state.unlink()
    state.write_bytes(b"2")
    with pytest.raises(InvalidLayout, match="agent_state_checksum"):
        home.import_(tmp_path / "copied", name="bad")


def test_an_author_that_is_another_gives_other_ids_and_a_notice(tmp_path: Path) -> None:
    bot = written(tmp_path / "home").agent("bot")
    home = make_home(tmp_path / "other")
    made = home.import_(tmp_path / "home" / "bot", name="new", author="Eve <eve@example.org>")
    assert {it.author for it in made.versions} == {"Eve <eve@example.org>"}
    assert not set(commits(bot).values()) & {it.commit for it in made.versions}
    assert sum("--author" in line for line in made.notices) == 1
    again = home.import_(tmp_path / "home" / "bot", name="same")
    assert [it.commit for it in again.versions] == list(commits(bot).values())
    assert not any("--author" in line for line in again.notices)


NOTES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(notes=st.lists(NOTES, min_size=1, max_size=3), contents=st.lists(st.binary(max_size=40), min_size=3, max_size=3))
def test_any_notes_and_contents_round_trip(
    tmp_path_factory: pytest.TempPathFactory, notes: list[str], contents: list[bytes]
) -> None:
    root = tmp_path_factory.mktemp("trip")
    bot = make_home(root / "home").new("bot")
    for number, text in enumerate(notes):
        write(bot.workspace, {"a": contents[number], f"f{number}": b"x"})
        bot.record(notes=text)
    home = make_home(root / "other")
    assert commits(imported(home, root / "home" / "bot", "bot")) == commits(bot)
    remove(root)


# ---------------------------------------------------------------- what others keep by hand


def test_folders_without_a_word(tmp_path: Path) -> None:
    """Names with and without v, no meta, no current, no workspace: defaults, and the same ids each time."""
    root = make_tree(tmp_path / "My Agent", {"1.0.0": V1, "v1.10.0": V3, "v1.9.0": V2})
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    home = make_home(tmp_path / "home")
    with pytest.raises(InvalidName, match="My Agent"):
        home.import_(root)
    made = home.import_(root, name="new")
    new = home.agent("new")
    assert made.current == "v1.10.0"
    assert made.workspace_from == "versions/v1.10.0"
    assert read(new.workspace) == V3
    assert not new.status().dirty
    assert [(it.version, it.parent, it.notes, it.snapshot_type) for it in new.versions()] == [
        ("1.0.0", None, "new v1.0.0", "manual"),
        ("1.9.0", "1.0.0", "new v1.9.0", "manual"),
        ("1.10.0", "1.9.0", "new v1.10.0", "manual"),
    ]
    newest = max(int(it.stat().st_mtime) for it in (root / "versions" / "1.0.0").rglob("*") if it.is_file())
    first = new.versions()[0]
    assert first.created == f"2023-11-14T22:13:{20 + newest - 1_700_000_000:02}Z"
    other = make_home(tmp_path / "other")
    assert commits(imported(other, root)) == commits(new)
    assert (new.workspace / "logic.py").stat().st_mode & 0o777 == 0o644


def test_source_date_epoch_stands_for_a_time_that_is_not_said(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"1.0.0": V1, "1.1.0": V1}, {"1.1.0": {"created": "2026-01-01T00:00:00Z"}})
    home = make_home(tmp_path / "home")
    object.__setattr__(home.opened, "environ", {**home.opened.environ, "SOURCE_DATE_EPOCH": "1000000000"})
    assert [it.created for it in imported(home, root).versions()] == ["2001-09-09T01:46:40Z", "2026-01-01T00:00:00Z"]


def test_a_time_that_no_text_can_say_is_the_last_that_one_can(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else tmp_path) as memory:
        root = make_tree(Path(memory) / "t", {"1.0.0": {"a": b"1"}})
        os.utime(root / "versions/1.0.0/a", (3e11, 3e11))
        if (root / "versions/1.0.0/a").stat().st_mtime != 3e11:
            pytest.skip("no disk here that keeps such a time")
        home = make_home(tmp_path / "home")
        assert [it.created for it in imported(home, root).versions()] == ["9999-12-31T23:59:59Z"]


def test_a_leap_second_is_a_time(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"1.0.0": V1}, {"1.0.0": {"created": "2016-12-31T23:59:60Z"}})
    assert imported(make_home(tmp_path / "home"), root).versions()[0].created == "2017-01-01T00:00:00Z"


def test_what_a_meta_says_is_kept(tmp_path: Path) -> None:
    metas: dict[str, dict[str, Any]] = {
        "v1.0.0": {"created": "2025-05-01T10:00:00.75+02:00", "snapshot_type": "auto", "mine": [1, {"version": 2}]},
        "v2.0.0": {"version": "2.0.0", "parent": None, "notes": "a new line", "agent_state_checksum": "md5:123"},
        "v2.1.0": {"version": "v2.1.0", "parent": "1.0.0", "created": "2025-06-01 10:00:00", "commit_hash": "abc"},
        "v3.0.0-rc.1": {"parent": "v2.1.0", "notes": None, "created": None, "snapshot_type": None},
    }
    root = make_tree(tmp_path / "t", dict.fromkeys(metas, V1), metas)
    (root / "current").write_text("v2.0.0\n")
    home = make_home(tmp_path / "home")
    made = home.import_(root, name="new")
    by_number = {it.version: it for it in made.versions}
    assert by_number["1.0.0"].created == "2025-05-01T08:00:00Z"
    assert by_number["1.0.0"].snapshot_type == "auto"
    assert by_number["2.0.0"].parent is None
    assert by_number["2.0.0"].notes == "a new line"
    assert by_number["2.1.0"].parent == "1.0.0"
    assert by_number["2.1.0"].created == "2025-06-01T10:00:00Z"
    assert by_number["3.0.0-rc.1"].parent == "2.1.0"
    assert made.current == "v2.0.0"
    said = "\n".join(made.notices)
    assert "v2.1.0: created has no zone" in said
    assert "v2.0.0: agent_state_checksum is of another kind" in said
    assert "commit_hash" in said
    assert home.agent("new").verify().ok


@pytest.mark.parametrize("form", ["link", "absolute link", "text", "path in a text", "directory"])
def test_forms_of_current(tmp_path: Path, form: str) -> None:
    root = make_tree(tmp_path / "t", {"v1.0.0": V1, "v1.1.0": V2}, {"v1.0.0": {"version": "1.0.0"}})
    match form:
        case "link":
            os.symlink("versions/v1.0.0", root / "current")
        case "absolute link":
            os.symlink("/moved/away/versions/v1.0.0/", root / "current")
        case "text":
            (root / "current").write_text("1.0.0")
        case "path in a text":
            (root / "current").write_text("versions/v1.0.0\n")
        case _:
            shutil.copytree(root / "versions" / "v1.0.0", root / "current")
    assert imported(make_home(tmp_path / "home"), root).current.version == "1.0.0"


def test_a_database_with_a_log_is_read_whole_and_not_touched(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"v1.0.0": V1})
    folder = root / "versions" / "v1.0.0"
    with closing(sqlite3.connect(tmp_path / "live.db")) as live:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("PRAGMA wal_autocheckpoint=0")
        live.execute("CREATE TABLE t (x)")
        live.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(500)])
        live.commit()
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(tmp_path / f"live.db{suffix}", folder / f"live.db{suffix}")
    shutil.copy(folder / "live.db", folder / "junk.db")
    (folder / "junk.db").write_bytes((folder / "live.db").read_bytes()[:16] + b"no database at all" * 50)
    before = snapshot(root)
    home = make_home(tmp_path / "home")
    new = imported(home, root)
    assert snapshot(root) == before
    assert not (new.workspace / "live.db-wal").exists()
    with closing(sqlite3.connect(new.workspace / "live.db")) as database:
        assert database.execute("SELECT count(*) FROM t").fetchone() == (500,)
    assert (new.workspace / "junk.db").read_bytes() == (folder / "junk.db").read_bytes()
    assert [it for it in os.listdir(home.path / ".kai" / "tmp") if it != "clock"] == []


def test_large_files_and_many_versions(tmp_path: Path) -> None:
    noise = random.Random(9).randbytes(3 << 20)
    root = make_tree(tmp_path / "t", {f"v1.{number}.0": {"n": str(number).encode()} for number in range(40)})
    (root / "versions" / "v1.7.0" / "large").write_bytes(noise)
    (root / "workspace").mkdir()
    (root / "workspace" / "live").write_bytes(b"")
    (root / "workspace" / ".env").write_bytes(b"secret")
    seen: list[tuple[str, int, int | None]] = []
    home = make_home(tmp_path / "home")
    object.__setattr__(home.opened, "progress", lambda *it: seen.append(it))
    made = home.import_(root, name="new")
    new = home.agent("new")
    assert len(new.versions()) == 40
    assert any("workspace: left out by default: .env" in line for line in made.notices)
    assert read(new.workspace) == {"live": b""}
    assert ("importing v1.7.0", 7, 40) in seen
    new.restore(source="v1.7.0")
    assert (new.workspace / "large").read_bytes() == noise


def test_an_agent_of_the_same_home_and_names_that_scratch_could_have(tmp_path: Path) -> None:
    home = written(tmp_path / "home")
    for number in range(3):
        (home.agent("bot").workspace / f".copy-{number}").write_bytes(b"%d" % number)
    home.import_(home.path / "bot", name="twin")
    assert commits(home.agent("twin")) == commits(home.agent("bot"))
    assert read(home.agent("twin").workspace).keys() == read(home.agent("bot").workspace).keys()


def test_a_path_that_is_not_utf8(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = make_tree(Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff")), {"v1.0.0": V1})
    (root / "versions" / "v1.0.0" / os.fsdecode(b"f\xfe")).write_bytes(b"odd")
    home = make_home(tmp_path / "home")
    new = imported(home, root)
    assert new.reflog().entries[0].reason == "1 version of t\\xff"
    assert new.verify(workspace=True).ok
    home.close()
    assert main(["--home", str(home.path), "import", "--layout", "folders", str(root), "--name", "two", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert base64.b64decode(document["directory"]["path_b64"]) == os.fsencode(root)
    assert main(["--home", str(home.path), "import", "--layout", "folders", str(root), "--name", "three"]) == 0
    assert "t\\xff" in capfd.readouterr().out


def test_a_dry_run_says_what_an_import_does_and_does_nothing(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"v1.0.0": V1, "v1.1.0": V2})
    (root / "versions" / "v1.1.0" / "kai.yaml").write_text("state:\n  secret:\n    - {path: token, name: API}\n")
    (root / "versions" / "v1.1.0" / "token").write_text("hunter2")
    (root / "rollback.log").write_text("{}\n")
    (root / "notes.txt").write_text("mine")
    home = make_home(tmp_path / "home")
    plan = home.import_(root, name="new", dry_run=True)
    nothing_of(home)
    done = home.import_(root, name="new")
    assert not plan.applied
    assert plan.versions == done.versions
    assert plan.notices == done.notices
    assert "left out: notes.txt" in done.notices
    assert (plan.current, plan.workspace_from) == (done.current, done.workspace_from)
    assert plan.files == done.files == len(read(home.agent("new").workspace))
    assert b"hunter2" not in b"".join(it.read_bytes() for it in (home.path / ".kai").rglob("*.pack"))
    assert not (home.agent("new").workspace / "token").exists()
    with pytest.raises(NameTaken):
        home.import_(root, name="new", dry_run=True)


# ---------------------------------------------------------------- what is refused

DEEP = "[" * 100_000

WRONG_METAS: dict[str, tuple[str, str | None]] = {
    '{"version": "1.0.1"}': ("says '1.0.1'", "version"),
    '{"version": null}': ("says None", "version"),
    '{"version": 1}': ("must be text", "version"),
    '{"version": "one"}': ("no version number", "version"),
    '{"parent": "0.9.0"}': ("no folder of that version", "parent"),
    '{"parent": "1.0.0"}': ("leads back to 1.0.0", "parent"),
    '{"parent": ["1.1.0"]}': ("must be text", "parent"),
    '{"created": "yesterday"}': ("no time", "created"),
    '{"created": "2026-02-30T00:00:00Z"}': ("no time", "created"),
    '{"created": "1969-12-31T23:59:59Z"}': ("before 1970", "created"),
    '{"created": "9999-12-31T23:59:59-23:59"}': ("no time", "created"),
    '{"created": 1700000000}': ("must be text", "created"),
    '{"created": 1e999}': ("must be text", "created"),
    '{"commit_hash": 5}': ("must be text", "commit_hash"),
    '{"snapshot_type": "daily"}': ("is 'daily'", "snapshot_type"),
    '{"notes": {"a": 1}}': ("must be text", "notes"),
    '{"notes": "a\\u0000b"}': ("cannot be kept", "notes"),
    '{"notes": "\\ud800"}': ("cannot be kept", "notes"),
    json.dumps({"notes": "x" * 70_000}): ("cannot be kept", "notes"),
    '{"config_checksum": "sha256:' + "0" * 64 + '"}': ("is not that of the files", "config_checksum"),
    '{"agent_state_checksum": "sha256:' + "0" * 64 + '"}': ("is not that of the files", "agent_state_checksum"),
    '{"agent_state_checksum": false}': ("must be text", "agent_state_checksum"),
    "": ("is no JSON", None),
    "{": ("is no JSON", None),
    "[]": ("no JSON object", None),
    '"1.0.0"': ("no JSON object", None),
    '{"x": NaN}': ("is no JSON", None),
    '{"x": ' + "9" * 5000 + "}": ("is no JSON", None),
    DEEP: ("nested too deep", None),
    '{"notes": "' + "x" * 300_000 + '"}': ("bytes, and", None),
}


@pytest.mark.parametrize("text", WRONG_METAS, ids=lambda it: it[:40])
def test_a_meta_that_is_wrong_is_named_by_file_and_key(tmp_path: Path, text: str) -> None:
    root = make_tree(tmp_path / "t", {"v1.0.0": V1, "v1.1.0": V2})
    (root / "versions" / "v1.0.0" / META).write_text(text)
    problem, key = WRONG_METAS[text]
    home = make_home(tmp_path / "home")
    for dry_run in (True, False):
        with pytest.raises(InvalidLayout) as caught:
            home.import_(root, name="new", dry_run=dry_run)
        assert problem in caught.value.what
        assert caught.value.facts["key"] == key
        assert caught.value.facts["file"] == str(root / "versions" / "v1.0.0" / META)
        assert caught.value.unchanged == "nothing was imported"
        assert len(caught.value.what) < 1000
        assert caught.value.what.isprintable()
        nothing_of(home)


def test_a_meta_that_is_not_utf8_or_no_file(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"v1.0.0": V1})
    meta = root / "versions" / "v1.0.0" / META
    home = make_home(tmp_path / "home")
    meta.write_bytes(b'{"notes": "\xff"}')
    with pytest.raises(InvalidLayout, match="is no JSON"):
        home.import_(root, name="new")
    meta.unlink()
    meta.symlink_to("/etc/passwd")
    with pytest.raises(InvalidLayout, match="symbolic link"):
        home.import_(root, name="new")
    meta.unlink()
    os.mkfifo(meta)
    with pytest.raises(InvalidLayout, match="no plain file"):
        home.import_(root, name="new")
    meta.unlink()
    meta.write_bytes(b'\xef\xbb\xbf{"notes": "with a mark"}')
    assert imported(home, root).current.notes == "with a mark"


def circle(root: Path) -> None:
    for one, other in (("1.0.0", "1.1.0"), ("1.1.0", "1.0.0")):
        (root / "versions" / f"v{one}" / META).write_text(json.dumps({"parent": other}))


def replaced(root: Path, name: str, make: Callable[[Path], object]) -> None:
    make(root / name)


def emptied(root: Path) -> None:
    for path in (root / "versions").iterdir():
        shutil.rmtree(path)


def outside(path: Path) -> None:
    path.symlink_to("../../../../outside")


def bound(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as one:
        here = os.getcwd()
        os.chdir(path.parent)
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


WRONG_TREES: dict[str, tuple[Callable[[Path], object], type[KaiError], str]] = {
    "a circle": (circle, InvalidLayout, "leads back"),
    "junk": (lambda it: (it / "versions" / "old stuff").mkdir(), InvalidLayout, "old stuff"),
    "a file": (partial(replaced, name="versions/README", make=Path.touch), InvalidLayout, "README"),
    "a link": (partial(replaced, name="versions/v3.0.0", make=lambda it: it.symlink_to("v1.0.0")), InvalidLayout, "v3"),
    "twice": (lambda it: (it / "versions" / "1.0.0").mkdir(), InvalidLayout, "is version 1.0.0"),
    "no versions": (lambda it: shutil.rmtree(it / "versions"), InvalidLayout, "is not there"),
    "empty": (emptied, InvalidLayout, "holds no folder of a version"),
    "current of nothing": (lambda it: (it / "current").write_text("v7.0.0"), InvalidLayout, "current names 'v7.0.0'"),
    "current elsewhere": (lambda it: (it / "current").symlink_to("../v1.0.0"), InvalidLayout, "no version here"),
    "current of noise": (lambda it: (it / "current").write_bytes(b"\xff\x1b[2J"), InvalidLayout, "no version here"),
    "current too large": (lambda it: (it / "current").write_bytes(b"v" * 9000), InvalidLayout, "bytes, and"),
    "current mute": (lambda it: (it / "current").mkdir(), InvalidLayout, "says which"),
    "workspace a link": (lambda it: (it / "workspace").symlink_to("versions/v1.0.0"), InvalidLayout, "plain directory"),
    "a link out": (partial(replaced, name="versions/v1.0.0/x", make=outside), RefusedPath, "v1.0.0: .*leads out"),
    "a socket": (partial(replaced, name="versions/v1.1.0/s", make=bound), RefusedPath, "v1.1.0: s is a socket"),
    "a pipe": (partial(replaced, name="versions/v1.1.0/p", make=os.mkfifo), RefusedPath, "v1.1.0: p is a named pipe"),
    "two names": (lambda it: write(it / "versions/v1.1.0", {"A": b"", "a": b""}), RefusedPath, "v1.1.0: A and a"),
}


@pytest.mark.parametrize("what", WRONG_TREES)
def test_a_tree_that_is_wrong_is_refused_whole(tmp_path: Path, what: str) -> None:
    spoil, error, text = WRONG_TREES[what]
    root = make_tree(tmp_path / "t", {"v1.0.0": V1, "v1.1.0": V2})
    spoil(root)
    before = snapshot(root)
    home = make_home(tmp_path / "home")
    for dry_run in (True, False):
        with pytest.raises(error, match=text) as caught:
            home.import_(root, name="new", dry_run=dry_run)
        assert caught.value.unchanged == "nothing was imported"
        assert caught.value.what.isprintable()
        nothing_of(home)
    assert snapshot(root) == before


def test_leftovers_of_kaivc_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"v1.0.0": V1})
    (root / "versions" / ".new-v1.1.0").mkdir()
    (root / "versions" / ".DS_Store").touch()
    made = make_home(tmp_path / "home").import_(root, name="new")
    assert len(made.versions) == 1
    assert any(".DS_Store" in line for line in made.notices)


def test_a_user_who_may_only_read_the_tree(public_tmp: Path, public_python: list[str], other_uid: Ids) -> None:
    """As a second uid, for root may everything."""
    root = make_tree(public_tmp / "t", {"v1.0.0": V1, "v1.1.0": V2}, {"v1.0.0": {"notes": "mine"}})
    theirs = public_tmp / "theirs"
    theirs.mkdir()
    os.chown(theirs, other_uid.uid, other_uid.gid)

    def kai(*words: str) -> tuple[int, str]:
        env = {
            **os.environ,
            "HOME": "/nonexistent",
            "KAI_HOME": str(theirs / "home"),
            "KAI_AUTHOR": "Bo <bo@example.org>",
        }
        done = run_as(other_uid, [*public_python, "-m", "kaivc", *words], env=env, cwd=theirs)
        return done.returncode, done.stdout + done.stderr

    for words in (["init", "home"], ["import", "--layout", "folders", str(root), "--name", "new"], ["verify", "new"]):
        code, said = kai(*words)
        assert code == 0, said
    (root / "versions" / "v1.1.0" / "logic.py").chmod(0)
    code, said = kai("import", "--layout", "folders", str(root), "--name", "two")
    assert (code, "E311: v1.1.0: logic.py cannot be read" in said) == (9, True), said
    (root / "versions" / "v1.0.0" / META).chmod(0)
    code, said = kai("import", "--layout", "folders", str(root), "--name", "two", "--dry-run")
    assert (code, "E311" in said, META in said) == (9, True, True), said
    assert sorted(os.listdir(theirs / "home")) == [".kai", "new"]


# ---------------------------------------------------------------- cut at every call


def make_import(path: Path, at: int, root: Path) -> None:
    open_home(path, Cut(at)).import_(root, name="new")


def test_an_import_killed_at_every_call_is_there_wholly_or_not_at_all(tmp_path: Path) -> None:
    few: Files = {"logic.py": b"1", "state/x": b"2"}
    template, root = tmp_path / "template", make_tree(tmp_path / "t", {"v1.0.0": few, "v2.0.0": {"logic.py": b"2"}})
    (root / "current").write_text("v1.0.0")
    make_home(template).close()
    before = snapshot(root)
    at, outcomes = 0, []
    while True:
        at += 1
        path = tmp_path / "home"
        copy(template, path)
        cut = cut_in(path, partial(make_import, path, at, root))
        home = open_home(path)
        outcomes.append("new" in home.agents())
        new = home.agent("new") if "new" in home.agents() else imported(home, root)
        assert [it.version for it in new.versions()] == ["1.0.0", "2.0.0"]
        assert new.current.version == "1.0.0"
        assert new.verify(workspace=True).ok
        commit(new, V3)
        assert not new.status().pending
        assert new.current.version == "2.0.1"
        assert sorted(it for it in os.listdir(path) if it != ".kai") == ["new"]
        home.close()
        remove(path)
        if not cut:
            break
    print(f"import: {at - 1} kill points")
    assert outcomes == sorted(outcomes), "once there, always there"
    assert outcomes.count(False) > 20
    assert outcomes.count(True) > 5
    assert snapshot(root) == before
