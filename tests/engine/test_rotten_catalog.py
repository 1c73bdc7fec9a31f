"""A row of the catalog that a flipped bit hides is damage, and not taken for one that never was."""

from __future__ import annotations

import itertools
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from kaivc import intents
from kaivc.errors import ChecksumMismatch, InvalidSettings, NoSuchAgent, NoSuchRevision
from kaivc.storage.catalog import Catalog
from tests.engine.damage import CATALOG, fsck, tiny
from tests.engine.homes import open_home, write


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """One agent with v1.0.0, v1.0.1 and a backup, its catalog in one file."""
    path = tmp_path / "home"
    tiny(path)
    with sqlite3.connect(path / CATALOG) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return path


def _replace(home: Path, old: bytes, new: bytes, which: int = 0) -> None:
    """Change the n-th place in the catalog's file where bytes stand."""
    data = (home / CATALOG).read_bytes()
    at = -1
    for _ in range(which + 1):
        at = data.index(old, at + 1)
    (home / CATALOG).write_bytes(data[:at] + new + data[at + len(old) :])


def _hide(home: Path, sql: str) -> None:
    with sqlite3.connect(home / CATALOG) as db:
        assert db.execute(sql).rowcount == 1
    db.close()


def test_a_version_in_force_that_is_hidden_is_no_agent_without_versions(home: Path) -> None:
    _hide(home, "UPDATE refs SET name = 'refs/heads/bot/currens' WHERE name LIKE '%/current'")
    agent = open_home(home).agent("bot")
    with pytest.raises(ChecksumMismatch, match="current"):
        _ = agent.current
    assert not fsck(home).ok


def test_a_tag_that_is_hidden_is_a_damaged_version(home: Path) -> None:
    _hide(home, "UPDATE refs SET agent = 3 WHERE name LIKE '%/v1.0.1'")
    agent = open_home(home).agent("bot")
    with pytest.raises(ChecksumMismatch, match=r"v1\.0\.1"):
        agent.show("v1.0.1")
    write(agent.workspace, {"a": b"after it"})
    assert agent.commit(bump="patch").tag == "v1.0.2", "its number is not given again"
    found = agent.versions()
    assert [it.version for it in found] == ["1.0.0", "1.0.2"]
    assert [it.version for it in found.damaged] == ["1.0.1"]
    with pytest.raises(ChecksumMismatch, match=r"v1\.0\.1"):
        agent.show("v1.0.9")  # the nearest names cannot be told


@pytest.mark.parametrize("more", [1, 2, 3])
def test_a_tag_whose_row_is_out_of_order_hides_no_version(home: Path, more: int) -> None:
    """It leads SQLite astray: some tags it finds by their names only, for others it gives this row."""
    for _ in range(more):
        open_home(home).agent("bot").commit(bump="patch", allow_empty=True)
    with sqlite3.connect(home / CATALOG) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'refs'").fetchone()
    db.close()
    whole = (home / CATALOG).read_bytes()
    tags = [f"1.0.{number}" for number in range(more + 2)]
    for tag, bit in itertools.product(tags, range(8)):
        data = bytearray(whole)
        data[data.index(f"refs/tags/bot/v{tag}".encode(), (page - 1) * 4096, page * 4096) + 5] ^= 1 << bit
        (home / CATALOG).write_bytes(data)
        agent = open_home(home).agent("bot")
        with suppress(ChecksumMismatch):  # what is in force cannot be told
            found = agent.versions()
            told = [*(str(it.version) for it in found.versions), *(it.version for it in found.damaged)]
            assert sorted(told) == tags, (tag, bit)
        with pytest.raises(ChecksumMismatch):
            agent.repository.refs("refs/")  # a gc would keep no more than these


def test_a_catalog_of_a_format_that_no_kaivc_wrote_is_damaged(home: Path) -> None:
    data = bytearray((home / CATALOG).read_bytes())
    data[47] ^= 64
    (home / CATALOG).write_bytes(data)
    with pytest.raises(ChecksumMismatch, match="unsupported file format"):
        open_home(home).agents()


def test_a_version_that_never_was_is_no_damage(home: Path) -> None:
    with pytest.raises(NoSuchRevision):
        open_home(home).agent("bot").show("v1.0.9")


def test_a_backup_that_is_hidden_is_not_collected(home: Path) -> None:
    _hide(home, "UPDATE refs SET name = name || 'x' WHERE name LIKE '%/backups/%'")
    with pytest.raises(ChecksumMismatch):
        open_home(home).agent("bot").gc()


def test_an_agent_that_the_index_hides_is_found_and_one_of_another_name_is_damage(home: Path) -> None:
    with sqlite3.connect(home / CATALOG) as db:
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_agents_1'").fetchone()[0]
    db.close()
    whole = (home / CATALOG).read_bytes()
    data = bytearray(whole)
    at = data.index(b"bot", (page - 1) * 4096)
    data[at : at + 3] = b"cot"
    (home / CATALOG).write_bytes(data)
    assert open_home(home).agent("bot").current.version == "1.0.0"
    assert open_home(home).agents() == ["bot"]
    with pytest.raises(NoSuchAgent):
        open_home(home).agent("dog")
    (home / CATALOG).write_bytes(whole)
    _hide(home, "UPDATE agents SET name = 'bos'")
    opened = open_home(home)
    for ask in (opened.agents, lambda: opened.agent("bot"), lambda: opened.agent("bos")):
        with pytest.raises(ChecksumMismatch):
            ask()


def _page_of(home: Path, index: str) -> int:
    """Where the only page of an index begins."""
    with sqlite3.connect(home / CATALOG) as db:
        page: int = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (index,)).fetchone()[0]
    db.close()
    return (page - 1) * 4096


def test_an_index_that_leads_to_another_row_gives_no_wrong_answer(home: Path) -> None:
    open_home(home).new("cat")
    with sqlite3.connect(home / CATALOG) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    whole = (home / CATALOG).read_bytes()
    data = bytearray(whole)
    at = data.index(b"cat", _page_of(home, "sqlite_autoindex_agents_1"))
    data[at : at + 3] = b"bot"  # it stands before the right entry
    (home / CATALOG).write_bytes(data)
    assert open_home(home).agent("bot").current.version == "1.0.0"
    data = bytearray(whole)
    page = _page_of(home, "reflog_by_ref")
    at = data.index(b"refs/heads/bot/backups/3", page)
    data[at : at + 24] = b"refs/heads/bot/current\x00\x00"
    assert open_home(home).agent("bot").reflog().entries
    (home / CATALOG).write_bytes(data)
    with suppress(ChecksumMismatch):
        assert all(it.ref.endswith("/current") for it in open_home(home).agent("bot").reflog().entries)
    assert not fsck(home).ok


def test_a_schema_that_is_no_text_or_lacks_a_column_is_damage(home: Path) -> None:
    whole = (home / CATALOG).read_bytes()
    _replace(home, b"CREATE TABLE refs (agent", b"CREATE TABLE refs (\xe5gent")
    with pytest.raises(ChecksumMismatch):
        open_home(home).agent("bot").versions()
    assert not fsck(home).ok
    (home / CATALOG).write_bytes(whole)
    _replace(home, b"op_seq INTEGER", b"op_req INTEGER")
    with pytest.raises(ChecksumMismatch):
        open_home(home).agents()
    assert not fsck(home).ok


def _open_below(home: Path) -> list[str]:
    """The files of a home that this process has open."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    paths = [os.readlink(link) for link in links if os.path.lexists(link)]
    return sorted(path for path in paths if path.startswith(f"{home}/"))


def test_an_agent_that_a_damaged_local_yaml_does_not_link_has_no_workspace(home: Path, tmp_path: Path) -> None:
    opened = open_home(home)
    (tmp_path / "linked").mkdir()
    opened.new("cat", link=tmp_path / "linked")
    local = home / ".kai/local.yaml"
    local.write_bytes(local.read_bytes().replace(b"cat", b"bat"))
    (item,) = (it for it in open_home(home).listing().agents if it.name == "cat")
    assert "not there" in (item.problem or "")


def test_a_home_that_cannot_be_opened_keeps_nothing_open(home: Path) -> None:
    """A connection that stays would map a log's index that others cut: a signal."""
    whole = (home / CATALOG).read_bytes()
    before = _open_below(home)
    (home / ".kai/local.yaml").write_bytes(b"workspaces: [")
    held: list[BaseException] = []
    with pytest.raises(InvalidSettings) as first:
        open_home(home)
    held.append(first.value)
    (home / ".kai/local.yaml").unlink()
    for old, new in ((b"object_format", b"object_normat"), (b"CREATE TABLE refs", b"CREATE TABLA refs")):
        _replace(home, old, new, 0)
        with pytest.raises(ChecksumMismatch) as caught:
            open_home(home)
        held.append(caught.value)
        (home / CATALOG).write_bytes(whole)
    assert _open_below(home) == before, held


def test_a_ref_is_not_missed_while_others_move_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process removes a ref between the two looks: no damage."""
    agent = open_home(home).agent("bot")
    name = next(it for it in agent.repository.refs("refs/heads/") if "/backups/" in it)
    real, looks = Catalog.row, []

    def row(self: Catalog, sql: str, args: tuple[object, ...] = ()) -> object:
        found = real(self, sql, args)
        if "FROM refs" in sql:
            looks.append(sql)
            return None
        if "SELECT new FROM reflog" in sql and len(looks) > 1:
            return (None,)
        return found

    monkeypatch.setattr(Catalog, "row", row)
    assert agent.repository.ref(name) is None
    assert len(looks) == 2


def _cut_off(home: Path) -> None:
    """A rollback that is killed when its names have moved: a link, a workspace and a line of the log are to come."""
    pid = os.fork()
    if pid == 0:
        try:
            intents.finish_landed = lambda *_: os._exit(0)
            agent = open_home(home).agent("bot")
            current = agent.status().version
            agent.rollback(next(it.tag for it in agent.versions() if it.version != current))
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert open_home(home).agent("bot").status().pending == ("link", "workspace", "rollback.log")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE intents SET agent = 2 WHERE kind = 'workspace'",
        "UPDATE intents SET agent = 77 WHERE kind = 'link'",
        "DELETE FROM intents WHERE kind = 'rollback.log'",
        "DELETE FROM intents WHERE kind = 'link'",
    ],
)
def test_what_is_to_be_done_and_is_hidden_is_missed(home: Path, sql: str) -> None:
    open_home(home).new("other")
    _cut_off(home)
    _hide(home, sql)
    agent = open_home(home).agent("bot")
    with pytest.raises(ChecksumMismatch):
        agent.status()
    with pytest.raises(ChecksumMismatch):
        agent.commit(bump="patch", allow_empty=True)
    assert not fsck(home).ok


def test_a_page_that_leads_to_another_agents_reflog(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are whole, but not of the agent that was asked for."""
    other = open_home(home).new("other")
    write(other.workspace, {"a": b"its own"})
    other.commit(version="1.0.0")
    asked = Catalog.rows

    def astray(self: Catalog, sql: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        if "FROM reflog" in sql and values[:1] == (agent.repository.id,):
            values = (other.repository.id, *values[1:])
        return asked(self, sql, values)

    agent = open_home(home).agent("bot")
    monkeypatch.setattr(Catalog, "rows", astray)
    with pytest.raises(ChecksumMismatch, match="reflog"):
        agent.reflog(None)
