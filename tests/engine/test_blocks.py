"""Small files of one commit share records: they come back, alone and together, and what harms one record is told."""

import random
from pathlib import Path

import pytest

from kaivc.api import Agent
from kaivc.errors import ChecksumMismatch
from kaivc.names import ObjectId
from kaivc.storage import blocks, index
from kaivc.storage.gitobjects import Kind
from kaivc.storage.index import ObjectRow
from kaivc.storage.writer import StoreWriter
from tests.engine.damage import flip, fsck, remove_catalog, said
from tests.engine.homes import Files, commit, make_home, open_home, read, remove, write

SOON = {"backups__keep": "0", "backups__max_bytes": "0", "reflog__expire": "0s"}


def many(seed: int, count: int) -> Files:
    chance = random.Random(seed)
    return {
        f"d{number % 7}/f{number:03}.py": b"".join(
            b"line %d\n" % chance.randrange(999) for _ in range(chance.randrange(400))
        )
        for number in range(count)
    }


def rows(agent: Agent) -> list[ObjectRow]:
    return index.every(agent.repository.catalog, agent.repository.id)


def shared(agent: Agent) -> list[ObjectRow]:
    return [row for row in rows(agent) if row.within >= 0]


def checked_out(agent: Agent, version: str, out: Path) -> Files:
    agent.checkout(version, out)
    found = read(out)
    found.pop("snapshot_meta.json", None)
    remove(out)
    return found


def test_many_small_files_share_few_records_and_all_come_back(tmp_path: Path) -> None:
    path, files = tmp_path / "home", many(1, 300)
    home = make_home(path, packs__seal_at="100 KiB", **SOON)
    agent = home.new("bot")
    commit(agent, files)
    together = index.by_record(shared(agent))
    assert sum(map(len, together)) >= 0.97 * len(set(files.values()))
    assert len(together) < 20
    for group in together:
        assert blocks.FEWEST <= len(group) <= blocks.MAX_MEMBERS
        assert sum(row.size for row in group) <= blocks.MAX_BLOCK
    changed = {**files, "d1/f001.py": files["d1/f001.py"] + b"more\n", "d2/f002.py": files["d2/f002.py"] + b"more\n"}
    commit(agent, changed, bump="minor")
    based = [row for row in rows(agent) if row.base in {it.id for it in shared(agent)}]
    assert len(based) == 2, "what lies in a block is a base"
    home.close()

    home = open_home(path, None, **SOON)
    assert checked_out(home.agent("bot"), "v1.0.0", tmp_path / "out") == files
    home.new("fork", source="bot@v1.1.0")
    home.agent("bot").gc()
    home.close()
    assert fsck(path).ok
    remove_catalog(path)
    found = fsck(path, repair=True)
    assert found.ok, said(found)
    home = open_home(path, None, **SOON)
    for name in ("bot", "fork"):
        assert checked_out(home.agent(name), "v1.0.0", tmp_path / "out") == files
        assert checked_out(home.agent(name), "v1.1.0", tmp_path / "out") == changed
    home.close()


def test_one_or_two_small_files_have_records_of_their_own(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    commit(agent, {"a": b"a\n", "b": b"b\n"})
    assert not shared(agent)
    commit(agent, {"a": b"a\n", "b": b"b\n", "c": b"c\n"}, bump="minor")
    assert not shared(agent)
    commit(agent, {"d": b"d\n", "e": b"e\n", "f": b"f\n", "g": b""}, bump="minor")
    assert {row.size for row in shared(agent)} == {2}
    assert len(shared(agent)) == 3
    assert agent.verify().ok


def test_an_empty_file_lies_in_no_block(tmp_path: Path) -> None:
    """It would begin where the next one begins, and one of the two would be taken for the other."""
    agent = make_home(tmp_path / "home").new("bot")
    commit(agent, {"a": b"", "b": b"b\n", "c": b"c\n", "d": b"d\n", "e": b"e\n"})
    assert len(shared(agent)) == 4
    found = fsck(tmp_path / "home")
    assert found.ok, said(found)
    assert blocks.parse([[1, b"x" * 32, 0], [1, b"y" * 32, 2]], 2) is None


def test_what_waits_for_a_block_is_there_already(tmp_path: Path) -> None:
    store = make_home(tmp_path / "home").new("bot").repository.store
    with StoreWriter(store) as writer:
        first = writer.put(Kind.BLOB, b"one" * 99)
        assert writer.contains(first)
        assert writer.put(Kind.BLOB, b"one" * 99) == first
        after = writer.put(Kind.BLOB, b"one" * 99 + b"!", first)
        writer.put(Kind.BLOB, b"two" * 99)
        writer.put(Kind.BLOB, b"three" * 99)
        writer.sync()
        with store.catalog.transaction() as db:
            writer.record(db)
    store.contents.clear()
    assert store.read(after, Kind.BLOB) == b"one" * 99 + b"!"
    assert store.read(first, Kind.BLOB) == b"one" * 99
    assert store.require(after).base == first
    assert store.require(first).within == 0


def test_a_block_lives_while_any_of_it_does_and_counts_once(tmp_path: Path) -> None:
    path, chance = tmp_path / "home", random.Random(2)
    home = make_home(path, **SOON)
    agent = home.new("bot")
    files = {f"f{number}": chance.randbytes(3000) for number in range(20)}
    commit(agent, {"a": b"a"})
    write(agent.workspace, files)
    agent.rollback("v1.0.0")  # a backup holds them
    kept = {name: files[name] for name in ("f3", "f4")}
    commit(agent, kept, bump="minor")
    before = index.stored_bytes(rows(agent))
    assert before < 80_000
    dry = agent.gc(dry_run=True).plan
    done = agent.gc()
    assert done.plan.dead_objects == dry.dead_objects >= 18
    assert done.plan.live_bytes + done.plan.dead_bytes <= 2 * before
    assert checked_out(agent, "current", tmp_path / "out") == kept
    home.close()
    home = open_home(path, None, **SOON)
    agent = home.agent("bot")
    assert len(shared(agent)) == 2
    assert checked_out(agent, "current", tmp_path / "out") == kept
    assert not agent.gc(dry_run=True).plan
    assert fsck(path).ok
    home.close()


def test_what_was_read_before_the_rot_hides_it_from_no_check(tmp_path: Path) -> None:
    path, files = tmp_path / "home", many(4, 12)
    home = make_home(path, "sha256", **SOON)
    agent = home.new("bot")
    commit(agent, files)
    write(agent.workspace, many(5, 30))
    agent.rollback("v1.0.0")
    assert checked_out(agent, "v1.0.0", tmp_path / "out") == files
    row = shared(agent)[0]
    (pack,) = [it for it in index.packs(agent.repository.catalog, agent.repository.id) if it.id == row.pack]
    flip(Path(agent.repository.layout.pack("bot", pack.name)), row.offset + row.length - 12)
    assert not agent.verify("v1.0.0").ok
    assert not home.fsck().ok
    with pytest.raises(ChecksumMismatch):
        home.new("fork", source="bot@v1.0.0")
    home.close()


def test_what_was_looked_up_before_a_row_went_hides_it_from_no_check(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    commit(agent, many(8, 12))
    row = shared(agent)[0]
    agent.repository.store.look_up([row.id])  # a checkout that fails leaves it so
    with agent.repository.catalog.transaction() as db:
        index.drop_objects(db, agent.repository.id, [row])
    assert not agent.verify().ok


def test_a_block_that_has_another_number_since_a_repair_is_read_anew(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    commit(agent, many(6, 12))
    commit(agent, many(7, 12))
    store = agent.repository.store
    first, *_, last = shared(agent)
    for row in (first, last):
        store.check(ObjectId(row.id))
    store._blocks[last.pack, last.offset] = store._blocks[first.pack, first.offset]
    store.check(ObjectId(last.id))


@pytest.mark.parametrize("where", ["header", "payload"])
def test_a_damaged_block_takes_along_all_that_lies_in_it_and_comes_back(tmp_path: Path, where: str) -> None:
    path, files = tmp_path / "home", many(3, 40)
    home = make_home(path)
    agent = home.new("bot")
    commit(agent, files)
    changed = {**files, "d1/f001.py": files["d1/f001.py"] + b"more\n"}
    commit(agent, changed, bump="minor")
    needs = next(row for row in rows(agent) if row.base is not None and row.kind == Kind.BLOB)
    group = next(it for it in index.by_record(shared(agent)) if needs.base in {row.id for row in it})
    inside = {row.id for row in group}
    hit = {name for name, data in files.items() if agent.repository.store.format.hash(Kind.BLOB, data) in inside}
    (pack,) = [it for it in index.packs(agent.repository.catalog, agent.repository.id) if it.id == group[0].pack]
    file = Path(agent.repository.layout.pack("bot", pack.name))
    home.close()
    flip(file, group[0].offset + (30 if where == "header" else group[0].length - 12))
    found = [it for it in fsck(path).all if it.is_damage]
    assert {it.path for it in found if "v1.0.0" in it.versions} == hit
    assert {it.path for it in found if "v1.1.0" in it.versions} == hit, "one of them is encoded with what lies there"
    home = open_home(path)
    with pytest.raises(ChecksumMismatch):
        home.agent("bot").checkout("v1.0.0", tmp_path / "none")
    home.close()
    repaired = fsck(path, repair=True)
    assert repaired.ok, said(repaired)
    home = open_home(path)
    assert checked_out(home.agent("bot"), "v1.0.0", tmp_path / "out") == files
    assert checked_out(home.agent("bot"), "v1.1.0", tmp_path / "out") == changed
    home.close()
