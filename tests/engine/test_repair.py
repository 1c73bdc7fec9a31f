"""Whatever is damaged is named, and made right from what is left; what cannot be is said; nothing comes back wrong."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from kaivc import api, leases
from kaivc.errors import AgentBusy, ChecksumMismatch, KaiError, LockTimeout, StorageError
from kaivc.vfs import Vfs
from tests.conftest import Ids
from tests.engine.damage import (
    CATALOG,
    contents,
    flip,
    fsck,
    no_wrong_bytes,
    packs,
    regions,
    remove_catalog,
    rows,
    said,
    small,
    tiny,
)
from tests.engine.homes import ENVIRON, Files, copy, make_home, open_home, read, remove, write
from tests.engine.test_faults import ERRORS, Failing
from tests.engine.test_kill import Cut, in_child

Truth = dict[str, dict[str, Files]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small home that is whole."""
    path = tmp_path_factory.mktemp("template") / "home"
    small(path)
    found = fsck(path)
    assert found.ok, said(found)
    assert not found.all
    return path


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny home that is whole."""
    path = tmp_path_factory.mktemp("little") / "home"
    tiny(path)
    assert not fsck(path).all
    return path


@pytest.fixture(scope="module")
def truth(template: Path) -> Truth:
    """What its versions hold."""
    home = open_home(template)
    found = contents(home)
    home.close()
    return found


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    path = tmp_path / "home"
    copy(template, path)
    return path


def repaired(path: Path, template: Path, truth: Truth | None = None) -> None:
    """All is as it was, and a second repair has nothing to do; without ``truth``, that is left to fsck."""
    found = fsck(path, repair=True)
    assert found.ok, said(found)
    assert not [it for it in found.all if it.severity != "note"], said(found)
    assert rows(path) == rows(template)
    if truth is None:
        return
    opened = open_home(path)
    assert no_wrong_bytes(opened, truth) == set()
    for name in ("bot", "cat"):
        agent = opened.agent(name)
        assert (agent.workspace / "dirty.txt").read_bytes() == b"not committed\n"
        assert os.readlink(agent.repository.layout.current(name)) == f"versions/v{agent.current.version}"
    opened.close()
    again = fsck(path, repair=True)
    assert again.plan is not None
    assert again.plan.is_empty, (again.plan, said(again))


# ---------------------------------------------------------------- the catalog is gone


def _gone(path: Path) -> None:
    remove_catalog(path)


def _empty(path: Path) -> None:
    (path / CATALOG).write_bytes(b"")


def _no_database(path: Path) -> None:
    (path / CATALOG).write_bytes(random.Random(3).randbytes(40_000))


def _cut(path: Path) -> None:
    _no_log(path)
    size = (path / CATALOG).stat().st_size
    os.truncate(path / CATALOG, size // 2 // 4096 * 4096)


def _no_log(path: Path) -> None:
    """Everything in one file, as a checkpoint leaves it."""
    with sqlite3.connect(path / CATALOG) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def _without_its_tables(path: Path) -> None:
    with sqlite3.connect(path / CATALOG) as db:
        for table in ("refs", "ops", "agents"):
            db.execute(f"DROP TABLE {table}")
    db.close()


def _main_file_gone(path: Path) -> None:
    (path / CATALOG).unlink()
    (path / (CATALOG + "-wal")).write_bytes(b"the log of another database" * 100)


@pytest.mark.parametrize("harm", [_gone, _empty, _no_database, _cut, _without_its_tables, _main_file_gone])
def test_a_catalog_that_is_lost_comes_back(
    harm: Callable[[Path], None], home: Path, template: Path, truth: Truth
) -> None:
    harm(home)
    found = fsck(home)
    assert not found.ok
    planned = fsck(home, repair=True, dry_run=True).plan
    assert planned is not None
    assert planned.rebuild is not None
    assert {it.agent: it.versions for it in planned.rebuild.agents} == {"bot": 4, "cat": 4}
    if harm is not _gone:
        assert not (home / ".kai/quarantine").exists(), "a dry run changes nothing"
    repaired(home, template, truth)


def test_a_home_whose_catalog_is_gone_says_so_and_how_to_get_it_back(home: Path) -> None:
    remove_catalog(home)
    with pytest.raises(ChecksumMismatch, match="missing") as caught:
        open_home(home)
    assert "fsck --repair" in caught.value.hint


def test_undo_redo_and_operation_ids_go_on_after_the_catalog_was_lost(home: Path) -> None:
    remove_catalog(home)
    assert fsck(home, repair=True).ok
    opened = open_home(home)
    agent = opened.agent("bot")
    assert agent.current.version == "1.1.0"
    before = agent.reflog().entries
    again = agent.record(bump="minor", op_id="commit-bot-3")
    assert again.version.version == "1.3.0"
    assert agent.reflog().entries == before, "repeating an operation id does nothing more"
    agent.redo()
    assert agent.current.version == "1.0.0"
    agent.undo()
    assert (agent.workspace / "new.txt").is_file()
    assert agent.record(bump="minor").version.version == "1.4.0"
    opened.close()
    assert fsck(home).ok


def test_without_home_json_it_is_known_from_the_op_records(home: Path, template: Path, truth: Truth) -> None:
    remove_catalog(home)
    (home / ".kai/home.json").unlink()
    repaired(home, template, truth)
    assert (home / ".kai/home.json").read_bytes() == (template / ".kai/home.json").read_bytes()


# ---------------------------------------------------------------- bytes of packs


def test_each_region_of_a_pack_is_checked_and_comes_back(template: Path, truth: Truth, tmp_path: Path) -> None:
    """One flipped bit in every kind of place; with copies about (views, another agent), it heals."""
    source = random.Random(os.environ.get("KAI_SEED", "1"))
    places: dict[str, list[tuple[Path, int]]] = {}
    for pack in packs(template):
        for what, first, end in regions(pack):
            places.setdefault(what, []).append((pack.relative_to(template), source.randrange(first, end)))
    assert {"magic", "trailer", "payload 3", "header 7", "check8 8"} <= places.keys()
    path = tmp_path / "home"
    for what in sorted(places):
        pack, at = source.choice(places[what])
        copy(template, path)
        flip(path / pack, at, source.randrange(8))
        found = fsck(path)
        hit = [it for it in found.all if it.is_damage]
        assert any(it.pack == pack.stem for it in hit), (what, pack, at, said(found))
        if any("backups/6" in it.versions for it in hit):
            only_the_backup(path, truth)  # what it held is nowhere else
        else:
            repaired(path, template, truth if what.startswith("payload") else None)


def only_the_backup(path: Path, truth: Truth) -> None:
    """What the repair leaves damaged is of the backup, and said."""
    left = fsck(path, repair=True)
    assert {version for it in left.all if it.is_damage for version in it.versions} <= {"backups/6"}, said(left)
    opened = open_home(path)
    assert no_wrong_bytes(opened, truth) <= {"bot@backups/6", "cat@backups/6"}
    opened.close()
    again = fsck(path, repair=True)
    assert again.plan is not None
    assert again.plan.is_empty, again.plan


def test_what_is_nowhere_else_is_lost_by_name_and_the_rest_works(home: Path, truth: Truth) -> None:
    """No views, no other agent, no workspace: what a damaged record takes along is said, and only that is lost."""
    for name in ("bot", "cat"):
        remove(home / name / "versions")
        (home / name / "versions").mkdir()
        (home / name / "current").unlink()
    remove(home / "bot/workspace")
    (home / "bot/workspace").mkdir()
    remove(home / "cat/workspace")
    (home / "cat/workspace").mkdir()
    wanted = truth["bot"]["v1.2.0"]["lib/deep/part.py"]
    assert _harm_payload_of(home, "bot", wanted)
    found = fsck(home)
    [hit] = [it for it in found.all if it.is_damage and it.path]
    assert (hit.agent, hit.versions, hit.path) == ("bot", ("v1.2.0",), "lib/deep/part.py")
    left = fsck(home, repair=True)
    assert not left.ok
    [lost] = [it for it in left.all if it.is_damage]
    assert (lost.agent, lost.versions, lost.path) == ("bot", ("v1.2.0",), "lib/deep/part.py")
    opened = open_home(home)
    assert no_wrong_bytes(opened, truth) == {"bot@v1.2.0"}
    opened.agent("bot").rollback("v1.3.0")
    # The same bytes, committed again, make the lost version whole.
    (opened.agent("bot").workspace / "lib/deep/part.py").write_bytes(wanted)
    opened.agent("bot").commit()
    still = {name: {rev: files for rev, files in it.items() if rev != "current"} for name, it in truth.items()}
    assert no_wrong_bytes(opened, still) == set()
    opened.close()
    quarantined = list((home / ".kai/quarantine").glob("*/packs/bot/*.pack"))
    assert len(quarantined) == 1, "the damaged pack is kept"
    assert fsck(home).ok


def _harm_payload_of(home: Path, agent: str, content: bytes) -> bool:
    for pack in (home / ".kai/packs" / agent).glob("*.pack"):
        at = pack.read_bytes().find(content)
        if at > 0:
            flip(pack, at + 5)
            return True
    return False


def test_a_pack_that_is_gone_takes_with_it_what_is_said(home: Path, truth: Truth) -> None:
    """Sealed packs of a large file: the views still have the bytes."""
    for pack in (home / ".kai/packs/bot").glob("*.pack"):
        pack.unlink()
        break
    found = fsck(home)
    assert any("missing" in it.problem and it.pack for it in found.all)
    left = fsck(home, repair=True)
    opened = open_home(home)
    broken = no_wrong_bytes(opened, truth)
    opened.close()
    named = {f"bot@{version}" for it in left.all if it.is_damage for version in it.versions}
    assert broken <= named | {"bot@current"}
    assert bool(broken) == (not left.ok)
    again = fsck(home, repair=True)
    assert again.plan is not None
    assert again.plan.is_empty, again.plan


# ---------------------------------------------------------------- rows


def _tables(path: Path) -> dict[str, list[str]]:
    with sqlite3.connect(path / CATALOG) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: [row[1] for row in db.execute(f"PRAGMA table_info({name})")] for name in tables}
    db.close()
    return {name: columns for name, columns in found.items() if not name.startswith("sqlite_")}


def _cases(path: Path) -> Iterator[tuple[str, str, bool]]:
    for table, columns in _tables(path).items():
        for column in columns:
            yield table, column, table in ("seals", "stat_cache", "views", "boots", "highest")


def test_each_column_of_each_table_is_checked_and_comes_back(little: Path, tmp_path: Path) -> None:
    path = tmp_path / "home"
    unnamed = []
    tried = 0
    for table, column, is_cache in _cases(little):
        copy(little, path)
        if not _change(path, table, column):
            continue
        tried += 1
        found = fsck(path)
        if not [it for it in found.all if it.severity != "note"]:
            unnamed.append(f"{table}.{column}")
            continue
        assert is_cache or not found.ok, (table, column, said(found))
        repaired(path, little)
    assert tried > 50
    assert not unnamed


def _change(path: Path, table: str, column: str) -> bool:
    """Change one value as a flipped bit would; whether there was one."""
    with sqlite3.connect(path / CATALOG) as db:
        key = "rowid" if table in ("agents", "packs", "intents") else None
        row = db.execute(
            f"SELECT {column}, * FROM {table} LIMIT 1 OFFSET (SELECT count(*) / 2 FROM {table})"  # noqa: S608 - own names
        ).fetchone()
        if row is None:
            return False
        value = row[0]
        other = _other(value)
        where = " AND ".join(f"{name} IS ?" for name in _tables(path)[table])
        assert key is None or row
        try:
            changed = db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (other, *row[1:])).rowcount  # noqa: S608 - own names
        except sqlite3.IntegrityError:
            return False
        assert changed == 1
    db.close()
    return True


def _other(value: object) -> object:
    if value is None:
        return 1
    if isinstance(value, int):
        return value ^ 1 << 40
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:] if value else b"\x01"
    text = str(value)
    return chr(ord(text[0]) ^ 1) + text[1:] if text else "x"


@pytest.mark.parametrize("table", ["agents", "packs", "objects", "refs", "ops", "reflog", "meta"])
def test_a_row_that_is_gone_comes_back(table: str, home: Path, template: Path, truth: Truth) -> None:
    with sqlite3.connect(home / CATALOG) as db:
        keys = "key" if table == "meta" else "rowid" if table in ("agents", "packs") else None
        if keys:
            db.execute(f"DELETE FROM {table} WHERE {keys} = (SELECT min({keys}) FROM {table})")  # noqa: S608 - own names
        else:
            agent = "agent = 1"
            pick = {"objects": "kind = 3", "refs": "name LIKE '%v1.1.0'", "ops": "seq = 2", "reflog": "seq = 2"}[table]
            assert db.execute(f"DELETE FROM {table} WHERE {agent} AND {pick}").rowcount >= 1  # noqa: S608 - own names
    db.close()
    found = fsck(home)
    assert not found.ok, said(found)
    repaired(home, template, truth)


# ---------------------------------------------------------------- what follows the catalog


def test_views_link_and_log_are_made_anew_and_what_was_there_is_kept(home: Path, template: Path, truth: Truth) -> None:
    view = home / "bot/versions/v1.1.0"
    for path in (view, view / "lib", view / "logic.py"):
        path.chmod(0o700)
    (view / "logic.py").write_bytes(b"tampered\n")
    (view / "extra.txt").write_bytes(b"not released\n")
    (view / "lib/more.txt").write_bytes(b"nor this\n")
    inode = (view / "logic.py").stat().st_ino
    (home / "bot/current").unlink()
    (home / "bot/current").symlink_to("versions/v1.3.0")
    log = home / "bot/rollback.log"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:2], lines[2].replace(b"commit", b"tomcat"), *lines[3:]]))
    found = fsck(home)
    where = {(it.where, it.path) for it in found.all}
    assert {("view", "logic.py"), ("view", "extra.txt"), ("view", "lib/more.txt"), ("link", None)} <= where
    assert any("line 3 of rollback.log" in it.problem for it in found.all), said(found)
    catalog = (home / CATALOG).stat().st_ino
    repaired(home, template, truth)
    assert (home / CATALOG).stat().st_ino == catalog, "the catalog had nothing to do with it"
    assert (view / "logic.py").stat().st_ino != inode
    kept = next((home / ".kai/quarantine").iterdir())
    assert (kept / "views/bot/v1.1.0/logic.py").read_bytes() == b"tampered\n"
    assert (kept / "views/bot/v1.1.0/extra.txt").read_bytes() == b"not released\n"
    assert (kept / "views/bot/v1.1.0/lib/more.txt").read_bytes() == b"nor this\n"
    assert b"tomcat" in (kept / "bot/rollback.log").read_bytes()
    assert log.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("harm", ["cut", "gone", "more", "dir"])
def test_rollback_log_is_written_from_the_reflog(harm: str, home: Path) -> None:
    log = home / "cat/rollback.log"
    whole = log.read_bytes()
    if harm == "cut":
        log.write_bytes(whole[:-20])
    elif harm == "more":
        log.write_bytes(whole + b'{"seq": 99}\n')
    else:
        log.unlink()
        if harm == "dir":
            log.mkdir()
    assert any(it.where == "rollback.log" for it in fsck(home).all)
    assert fsck(home, repair=True).ok
    assert log.read_bytes() == whole


def test_scratch_whose_intents_are_lost_is_kept(home: Path) -> None:
    staged = home / ".kai/staging/bot/op1"
    staged.mkdir(parents=True)
    (staged / "0").write_bytes(b"staged\n")
    remove_catalog(home)
    found = fsck(home, repair=True)
    assert found.ok
    assert found.quarantine is not None
    assert (home / found.quarantine / "staging/bot/op1/0").read_bytes() == b"staged\n"
    assert not staged.exists()


# ---------------------------------------------------------------- the chain


def test_a_lost_op_record_is_said_and_what_is_around_it_stays(home: Path, truth: Truth) -> None:
    """The record is damaged and the catalog is gone: nothing can make it again."""
    for pack in packs(home):
        for what, first, _ in regions(pack):
            data = pack.read_bytes()
            if what == "payload 7" and b"commit-bot-2" in data[first : first + 400]:
                flip(pack, first + 3)
                break
    remove_catalog(home)
    found = fsck(home, repair=True)
    assert not found.ok
    assert found.plan is not None
    assert found.plan.rebuild is not None
    plan = {it.agent: it for it in found.plan.rebuild.agents}
    assert plan["bot"].lost_ops == ((3, 3),)
    assert plan["bot"].brought_back == ("refs/tags/bot/v1.2.0",)
    assert plan["cat"].lost_ops == ()
    opened = open_home(home)
    assert no_wrong_bytes(opened, truth) == set(), "no version is lost with the record of its making"
    entries = opened.agent("bot").reflog(None).entries
    assert entries[0].verb == "repair"
    assert {it.seq for it in entries} == {1, 2, 4, 5, 6, 7, 8}
    opened.agent("bot").commit(bump="major")
    opened.close()
    assert any(it.where == "op" and it.seq == 3 for it in fsck(home).all)
    again = fsck(home, repair=True)
    assert again.plan is not None
    assert again.plan.is_empty, again.plan


# ---------------------------------------------------------------- cut, full, side by side


def _harmed(template: Path, path: Path) -> None:
    """Damage in every part at once."""
    copy(template, path)
    pack = max(packs(path), key=lambda it: it.stat().st_size)
    _, first, _ = next(it for it in regions(pack) if it[0].startswith("payload 5"))
    flip(pack, first + 3)
    with sqlite3.connect(path / CATALOG) as db:
        db.execute("UPDATE refs SET oid = zeroblob(32) WHERE name LIKE '%/v1.0.1'")
    db.close()
    (path / "bot/current").unlink()
    os.truncate(path / "bot/rollback.log", 100)


def test_killed_at_every_call_of_a_repair(little: Path, tmp_path: Path) -> None:
    harmed, path = tmp_path / "harmed", tmp_path / "home"
    _harmed(little, harmed)
    at, between = 0, 0
    while True:
        at += 1
        copy(harmed, path)
        cut = in_child(partial(fsck, path, repair=True, vfs=Cut(at)))
        between += not (path / CATALOG).exists()
        repaired(path, little)
        if cut == 0:
            break
    print(f"{at - 1} kill points, {between} of them without a catalog")
    assert at > 30
    assert between >= 2, "the moment between two catalogs was met"


@pytest.mark.parametrize("fault", ERRORS)
def test_a_disk_that_fails_at_any_call_leaves_what_can_be_repaired(fault: str, little: Path, tmp_path: Path) -> None:
    harmed, path = tmp_path / "harmed", tmp_path / "home"
    _harmed(little, harmed)
    at = 0
    while True:
        at += 2 if fault == "EIO" else 3
        copy(harmed, path)
        vfs = Failing(at, ERRORS[fault])
        with suppress(KaiError):
            fsck(path, repair=True, vfs=vfs)
        done = vfs.count < at
        repaired(path, little)
        if done:
            break
    assert at > 30


def test_a_process_that_has_the_old_catalog_open_goes_on_with_the_new_one(home: Path) -> None:
    other = open_home(home)
    agent = other.agent("bot")
    assert agent.current.version == "1.1.0"
    flip(packs(home)[0], 20)
    assert fsck(home, repair=True).ok
    assert agent.record(bump="minor").version.version == "1.4.0"
    other.close()
    fresh = open_home(home)
    assert fresh.agent("bot").current.version == "1.4.0"
    assert fresh.agent("bot").verify().ok
    fresh.close()
    assert fsck(home).ok


def test_a_transaction_begun_before_the_swap_lands_in_the_new_catalog(home: Path) -> None:
    """Without the agent's lock: `kai new` in another process, which has the old file open."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            other = open_home(home)
            assert other.agents() == ["bot", "cat"]
            os.write(ready[1], b".")
            os.read(go[0], 1)
            other.new("dog")
            code = 0
        finally:
            os._exit(code)
    os.read(ready[0], 1)
    flip(packs(home)[0], 20)
    assert fsck(home, repair=True).ok
    os.write(go[1], b".")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for fd in (*ready, *go):
        os.close(fd)
    fresh = open_home(home)
    assert fresh.agents() == ["bot", "cat", "dog"]
    fresh.close()
    assert fsck(home).ok


# ---------------------------------------------------------------- a large home


def test_a_home_of_200_random_versions_without_its_catalog(tmp_path: Path) -> None:
    """Delete the catalog: everything as before, refs and reflog included."""
    path = tmp_path / "home"
    source = random.Random(11)
    opened = make_home(path, packs__seal_at="64KiB", chunks__threshold="64KiB", views__keep="3")
    bot = opened.new("bot")
    opened.new("idle")
    files: Files = {f"src/f{number}.py": source.randbytes(40) for number in range(8)}
    for number in range(200):
        files[f"src/f{source.randrange(12)}.py"] = source.randbytes(source.randrange(1, 200))
        if number % 20 == 0:
            files["state/large.bin"] = source.randbytes(70_000 + number)
        if number % 7 == 0:
            files.pop(source.choice(sorted(files)))
        write(bot.workspace, files)
        level = source.choice(["patch", "minor", "major"])
        version = bot.commit(bump=level, notes=f"notes of {number}", op_id=f"op-{number}")
        if number % 23 == 5:
            (bot.workspace / "dirty.txt").write_bytes(b"%d" % number)
            bot.rollback(f"v{source.choice(bot.versions()).version}", reason="random")
            if number % 2:
                bot.undo()
            bot.rollback(f"v{version.version}")
    bot.commit(version="99.0.0-rc.1", allow_empty=True)
    bot.undo()
    (bot.workspace / "src/f0.py").write_bytes(b"dirty at the end")
    before = rows(path)
    status, entries, versions = bot.status(), bot.reflog(None).entries, bot.versions()
    workspace, log = read(bot.workspace), (path / "bot/rollback.log").read_bytes()
    sample = {it.version: bot.show(f"v{it.version}") for it in source.sample(list(versions), 20)}
    opened.close()
    assert fsck(path).ok
    assert len(packs(path)) > 5
    remove_catalog(path)
    remove(path / "bot/versions")
    found = fsck(path, repair=True)
    assert found.ok, said(found)
    assert rows(path) == before
    again = open_home(path)
    bot = again.agent("bot")
    assert bot.status() == status
    assert bot.reflog(None).entries == entries
    assert bot.versions() == versions
    assert read(bot.workspace) == workspace
    assert (path / "bot/rollback.log").read_bytes() == log
    assert {number: bot.show(f"v{number}") for number in sample} == sample
    assert bot.record(op_id="op-17").seq
    assert again.agents() == ["bot", "idle"]
    bot.redo()
    assert bot.current.version == "99.0.0-rc.1"
    again.close()


# ---------------------------------------------------------------- agents of all kinds


@pytest.mark.parametrize("object_format", ["sha256", "sha1"])
def test_forks_renamed_removed_and_empty_agents_come_back(object_format: str, tmp_path: Path) -> None:
    path = tmp_path / "home"
    opened = make_home(path, object_format, packs__seal_at="64KiB")
    bot, source = opened.new("bot"), random.Random(3)
    opened.new("idle")
    for number in range(4):
        write(bot.workspace, {"logic.py": b"%d" % number, "s.bin": source.randbytes(40_000)})
        bot.commit(bump="minor")
    opened.new("fork", source="bot@v1.2.0")
    write(opened.agent("fork").workspace, {"logic.py": b"of the fork"})
    opened.agent("fork").commit()
    write(opened.new("cat").workspace, {"logic.py": b"cat"})
    opened.agent("cat").commit()
    opened.rename("cat", "tiger")
    write(opened.new("gone").workspace, {"logic.py": b"gone"})
    opened.agent("gone").commit()
    write(opened.agent("gone").workspace, {"logic.py": b"dirty"})
    opened.remove("gone")
    opened.close()
    assert any(pack.stat().st_nlink > 1 for pack in packs(path)), "the fork shares a pack"
    before = rows(path)
    assert not fsck(path).all
    remove_catalog(path)
    found = fsck(path, repair=True)
    assert found.ok, said(found)
    assert rows(path) == before
    again = open_home(path)
    assert again.agents() == ["bot", "fork", "idle", "tiger"]
    for taken in ("cat", "gone", "fork"):
        with pytest.raises(KaiError):
            again.new(taken)
    again.agent("fork").commit(allow_empty=True)
    again.close()
    assert not fsck(path).all


def test_a_repair_waits_for_no_running_agent_whose_views_it_would_touch(home: Path) -> None:
    opened = open_home(home)
    repo = opened.agent("bot").repository
    with leases.running(repo):
        (home / "bot/current").unlink()
        with pytest.raises(AgentBusy):
            fsck(home, repair=True)
        assert not (home / "bot/current").is_symlink()
    assert fsck(home, repair=True).ok
    opened.close()


def test_a_repair_gives_up_where_another_command_is_at_work(home: Path) -> None:
    remove_catalog(home)
    fd = Vfs().lock(str(home / ".kai/locks/cat.lock"))
    assert fd is not None
    with pytest.raises(LockTimeout):
        api.fsck(home, repair=True, environ=ENVIRON, flags={"lock.wait": "0.1s"})
    assert not (home / CATALOG).exists()
    os.close(fd)
    assert fsck(home, repair=True).ok


def test_what_a_user_may_not_read_is_not_taken_for_lost(template: Path, public_tmp: Path, other_uid: Ids) -> None:
    """Permission is no damage: a repair refuses, and what cannot be read stays where it is."""
    path = public_tmp / "home"
    copy(template, path)
    for name in [path, *path.rglob("*")]:
        os.chown(name, other_uid.uid, other_uid.gid, follow_symlinks=False)
    closed = packs(path)[0]
    closed.chmod(0)
    remove_catalog(path)
    assert in_child(partial(_as, other_uid, partial(_refused, path))) == 0
    assert closed.exists()
    assert not (path / CATALOG).exists()
    closed.chmod(0o600)
    assert in_child(partial(_as, other_uid, partial(_mended, path))) == 0
    (path / CATALOG).chmod(0o000)
    os.chown(path / CATALOG, 0, 0)
    before = (path / CATALOG).read_bytes()
    assert in_child(partial(_as, other_uid, partial(_refused, path))) == 0
    assert (path / CATALOG).read_bytes() == before


def _as(ids: Ids, action: Callable[[], None]) -> None:
    os.setgroups([])
    os.setgid(ids.gid)
    os.setuid(ids.uid)
    action()


def _refused(path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot be opened|can only be read"):
        fsck(path, repair=True)


def _mended(path: Path) -> None:
    assert fsck(path, repair=True).ok


def test_a_link_to_nowhere_in_the_packs_is_no_reason_to_stop(home: Path) -> None:
    (home / ".kai/packs/bot/0000000000000000.pack").symlink_to("nowhere")
    (home / ".kai/packs/stranger").mkdir()
    (home / ".kai/packs/stranger/aaaaaaaaaaaaaaaa.pack").write_bytes(b"not a pack")
    found = fsck(home)
    assert found.ok
    assert {it.where for it in found.all} == {"pack"}
    remove_catalog(home)
    assert fsck(home, repair=True).ok
