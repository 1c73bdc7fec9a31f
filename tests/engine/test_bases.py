"""Histories of near equal files: all of them come back, whatever was collected, rebuilt, forked, damaged and healed."""

import random
from pathlib import Path

import pytest

from kaivc.api import Agent, Home
from kaivc.errors import ChecksumMismatch
from kaivc.storage import index
from kaivc.storage.gitobjects import Kind
from kaivc.storage.index import ObjectRow
from kaivc.storage.pack import RecordKind
from kaivc.storage.writer import StoreWriter
from tests.engine.damage import flip, fsck, remove_catalog, said
from tests.engine.homes import Files, commit, make_home, open_home, read, remove, write

SOON = {"backups__keep": "0", "backups__max_bytes": "0", "reflog__expire": "0s"}


def edited(chance: random.Random, data: bytes) -> bytes:
    """A few changes of the kinds that files see."""
    for _ in range(chance.randint(1, 3)):
        at, count = chance.randrange(len(data) + 1), chance.choice((1, 8, 200))
        what = chance.choice(("change", "insert", "remove"))
        new = b"" if what == "remove" else chance.randbytes(count)
        data = data[:at] + new + data[at if what == "insert" else at + count :]
    return data


def history(agent: Agent, seed: int, count: int) -> dict[str, Files]:
    """So many versions of a few files, with rollbacks of a dirty workspace between; what each version holds."""
    chance = random.Random(seed)
    files = {
        "state.json": chance.randbytes(3000),
        "src/a.py": b"a = 1\n" * 40,
        "src/deep/b.py": chance.randbytes(300),
        "state/large": chance.randbytes(700_000),
    }
    truth: dict[str, Files] = {}
    for number in range(count):
        for name in chance.sample(sorted(files), chance.randint(1, 3)):
            files[name] = edited(chance, files[name])
        if chance.random() < 0.2:
            files[f"src/new{number}.py"] = files["src/a.py"] + b"# more\n"
        version = commit(agent, files, bump="minor")
        truth[version] = dict(files)
        if number and chance.random() < 0.15:
            write(agent.workspace, {**files, "state.json": edited(chance, files["state.json"])})
            to = chance.choice(sorted(truth))
            agent.rollback(f"v{to}")
            files = dict(truth[to])
    return truth


def judge(home: Home, name: str, truth: dict[str, Files], out: Path) -> None:
    """Every version is what it was, read by a process that has nothing at hand."""
    for version, files in truth.items():
        home.agent(name).checkout(f"v{version}", out)
        found = read(out)
        found.pop("snapshot_meta.json", None)
        assert found == files, version
        remove(out)
    checked = home.fsck()
    assert checked.ok, [str(it) for it in checked.all]


def rows(agent: Agent) -> list[ObjectRow]:
    return index.every(agent.repository.catalog, agent.repository.id)


@pytest.mark.parametrize(("seed", "object_format"), [(1, "sha256"), (2, "sha1")])
def test_any_history_comes_back_after_gc_rebuild_and_fork(tmp_path: Path, seed: int, object_format: str) -> None:
    path = tmp_path / "home"
    settings = {**SOON, "chunks__threshold": "100 KiB", "packs__seal_at": "400 KiB"}
    home = make_home(path, object_format, **settings)
    truth = history(home.new("bot"), seed, 40)
    found = rows(home.agent("bot"))
    kinds = {row.kind for row in found if row.base is not None}
    assert {RecordKind.BLOB, RecordKind.TREE, RecordKind.CHUNK, RecordKind.CHUNK_LIST} == kinds
    home.close()

    home = open_home(path, None, **settings)
    judge(home, "bot", truth, tmp_path / "out")
    collected = home.agent("bot").gc()
    assert collected.done is not None
    assert collected.plan.dead_objects == collected.done.objects > 0
    judge(home, "bot", truth, tmp_path / "out")
    middle = sorted(truth, key=lambda it: [int(part) for part in it.split(".")])[25]
    home.new("fork", source=f"bot@v{middle}")
    home.close()

    home = open_home(path, None, **settings)
    names = {it.version for it in home.agent("fork").versions().versions}
    forked = {it: files for it, files in truth.items() if it in names}
    assert forked
    judge(home, "fork", forked, tmp_path / "out")
    home.close()
    remove_catalog(path)
    repaired = fsck(path, repair=True)
    assert repaired.ok, said(repaired)
    home = open_home(path, None, **settings)
    judge(home, "bot", truth, tmp_path / "out")
    judge(home, "fork", forked, tmp_path / "out")
    home.close()


def test_what_a_base_is_needed_for_keeps_it_and_what_needs_nothing_lets_it_go(tmp_path: Path) -> None:
    chance = random.Random(9)
    home = make_home(tmp_path / "home", **SOON)
    agent = home.new("bot")
    data = chance.randbytes(20_000)
    commit(agent, {"state.json": data})
    lost = data[:10_000] + b"only a backup has this" + data[10_000:]
    write(agent.workspace, {"state.json": lost})
    agent.rollback("v1.0.0")  # as the workspace was, it is in a backup
    store = agent.repository.store
    oid = store.format.hash(Kind.BLOB, lost)
    assert store.require(oid).base is not None
    with StoreWriter(store) as writer:  # what is encoded with what the backup alone names
        needy = writer.put(Kind.BLOB, lost + b"!", oid)
        writer.sync()
        with store.catalog.transaction() as db:
            writer.record(db)
    row = store.require(needy)
    assert agent.gc().done is not None
    assert store.find(needy) is None
    assert row.base is not None
    home.close()


def damaged_base(path: Path) -> tuple[ObjectRow, bytes]:
    """Flip a bit in the payload of the fifth ``state.json``, which the three after it need; its row, its bytes."""
    home = open_home(path)
    agent = home.agent("bot")
    blobs = [row for row in rows(agent) if row.kind == RecordKind.BLOB and row.base is not None]
    row = next(it for it in blobs if (link := agent.repository.store.link(it.id)) and link.ordinal == 4)
    data = agent.repository.store.record(row)
    pack = next(it for it in index.packs(agent.repository.catalog, agent.repository.id) if it.id == row.pack)
    file = Path(agent.repository.layout.pack("bot", pack.name))
    home.close()
    flip(file, row.offset + row.length - 12)
    return row, data


def small_history(path: Path, count: int = 12) -> dict[str, Files]:
    home = make_home(path)
    agent = home.new("bot")
    chance = random.Random(5)
    data, truth = chance.randbytes(5000), {}
    for _ in range(count):
        files = {"state.json": data, "keep.txt": b"the same in all\n"}
        truth[commit(agent, files, bump="minor")] = files
        data = edited(chance, data)
    home.close()
    return truth


def test_fsck_says_which_versions_a_damaged_base_takes_along(tmp_path: Path) -> None:
    path = tmp_path / "home"
    truth = small_history(path)
    row, _ = damaged_base(path)
    for view in (path / "bot/versions").iterdir():
        remove(view)
    found = fsck(path)
    hit = [it for it in found.all if it.is_damage and it.object]
    named = {version for it in hit for version in it.versions}
    home = open_home(path)
    bad = set()
    for version in truth:
        if f"v{version}" in named:
            with pytest.raises(ChecksumMismatch):
                home.agent("bot").checkout(f"v{version}", tmp_path / f"out-{version}")
            bad.add(f"v{version}")
        else:
            home.agent("bot").checkout(f"v{version}", tmp_path / f"out-{version}")
            assert (tmp_path / f"out-{version}/state.json").read_bytes() == truth[version]["state.json"]
    assert len(bad) == 4, "itself, and the three that hang on it"
    assert {it.path for it in hit} == {"state.json"}
    assert all(it.object == row.id.hex() for it in hit), "each says whose bytes are wrong"
    home.close()


def test_a_base_that_is_found_again_brings_back_all_that_hangs_on_it(tmp_path: Path) -> None:
    path = tmp_path / "home"
    truth = small_history(path)
    _, data = damaged_base(path)
    for view in (path / "bot/versions").iterdir():
        remove(view)
    write(path / "bot/workspace", {"copy of what is lost": data})
    repaired = fsck(path, repair=True)
    assert repaired.ok, said(repaired)
    home = open_home(path)
    judge(home, "bot", truth, tmp_path / "out")
    home.close()


@pytest.mark.parametrize("lost_catalog", [False, True])
def test_what_cannot_be_had_without_its_base_is_lost_and_nothing_else(tmp_path: Path, lost_catalog: bool) -> None:
    path = tmp_path / "home"
    truth = small_history(path)
    damaged_base(path)
    for view in (path / "bot/versions").iterdir():
        remove(view)
    remove(path / "bot/workspace/state.json")
    bad = {version for it in fsck(path).all for version in it.versions}
    if lost_catalog:
        remove_catalog(path)
    assert not fsck(path, repair=True).ok
    left = fsck(path)
    assert {version for it in left.all for version in it.versions} == bad
    home = open_home(path)
    good = [version for version in truth if f"v{version}" not in bad]
    assert good
    for version in good:
        home.agent("bot").checkout(f"v{version}", tmp_path / "out")
        assert {**read(tmp_path / "out"), **truth[version]} == read(tmp_path / "out")
        remove(tmp_path / "out")
    home.close()


def test_nothing_is_built_on_damage(tmp_path: Path) -> None:
    """A commit after a version whose file cannot be read stores it whole."""
    path = tmp_path / "home"
    truth = small_history(path)
    damaged_base(path)
    home = open_home(path)
    agent = home.agent("bot")
    data = edited(random.Random(7), truth[max(truth, key=lambda it: int(it.split(".")[1]))]["state.json"])
    for number in range(5):
        commit(agent, {"state.json": data + b"%d" % number, "keep.txt": b"the same in all\n"}, bump="minor")
    home.close()
    home = open_home(path)
    out = tmp_path / "out"
    home.agent("bot").checkout("current", out)
    assert (out / "state.json").read_bytes() == data + b"4"
    home.close()


def test_the_only_good_copy_of_damaged_bytes_is_not_overwritten(tmp_path: Path) -> None:
    """A backup does not store what the index names already: first it must be there."""
    path = tmp_path / "home"
    truth = small_history(path)
    _, data = damaged_base(path)
    for view in (path / "bot/versions").iterdir():
        remove(view)
    home = open_home(path)
    agent = home.agent("bot")
    write(agent.workspace, {"state.json": data})
    for dry_run in (True, False):
        with pytest.raises(ChecksumMismatch, match=r"state\.json") as caught:
            agent.rollback("v1.0.0", dry_run=dry_run)
    assert (caught.value.unchanged, (agent.workspace / "state.json").read_bytes()) == ("nothing moved", data)
    home.close()
    assert fsck(path, repair=True).ok
    home = open_home(path)
    agent = home.agent("bot")
    agent.rollback("v1.0.0")
    assert read(agent.workspace) == truth["1.0.0"]
    agent.undo()
    assert (agent.workspace / "state.json").read_bytes() == data
    home.close()


def test_a_forged_base_is_not_built_upon(tmp_path: Path) -> None:
    """Bytes that are not those of their id are hashed before a new record is encoded with them."""
    path = tmp_path / "home"
    home = make_home(path)
    agent = home.new("bot")
    store = agent.repository.store
    data = random.Random(1).randbytes(5000)
    false = store.format.hash(Kind.BLOB, b"another")
    with StoreWriter(store) as writer:
        writer._add(RecordKind.BLOB, false, data, len(data))
        writer.sync()
        with store.catalog.transaction() as db:
            writer.record(db)
    with StoreWriter(store) as writer:
        oid = writer.put(Kind.BLOB, data + b"!", false)
        assert writer._new[oid][1].base is None
    home.close()


def test_what_an_abandoned_writer_added_is_no_base(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    agent = home.new("bot")
    store = agent.repository.store
    data = random.Random(1).randbytes(5000)
    with StoreWriter(store) as writer:
        first = writer.put(Kind.BLOB, data)
        writer.discard()
    assert store.contents.get(first) is not None
    with StoreWriter(store) as writer:
        oid = writer.put(Kind.BLOB, data + b"!", first)
        assert writer._new[oid][1].base is None
        assert writer._new[writer.put(Kind.BLOB, data + b"?", oid)][1].base == oid
    home.close()


LARGE = {**SOON, "chunks__threshold": "64 KiB"}


def without_views(path: Path, *agents: str) -> None:
    """Leave nothing to heal from but packs."""
    for name in agents:
        for view in (path / name / "versions").iterdir():
            if view.is_dir() and not view.is_symlink():
                remove(view)


@pytest.mark.parametrize("size", [4000, 400_000])
def test_a_record_that_gc_forgot_is_not_taken_for_the_base_that_it_was(tmp_path: Path, size: int) -> None:
    """It lies in the pack all the same, late in another chain, or cut in another way."""
    chance, path = random.Random(3), tmp_path / "home"
    home = make_home(path, **LARGE)
    agent, truth = home.new("bot"), {}
    rest, data = chance.randbytes(900_000), bytearray(chance.randbytes(size))
    for number in range(7):
        data[number * 10 : number * 10 + 5] = chance.randbytes(5)
        data[size // 7 * number : size // 7 * number] = chance.randbytes(size // 14)
        truth[commit(agent, {"state.bin": bytes(data), "rest": rest}, bump="minor")] = {
            "state.bin": bytes(data),
            "rest": rest,
        }
    first = "v" + next(iter(truth))
    again = bytes(data) + b"again"
    for state in (again, b"1", b"2", b"3"):
        write(agent.workspace, {"state.bin": state, "rest": rest})
        agent.rollback(first)
    store = agent.repository.store
    oid = store.format.hash(Kind.BLOB, again)
    before = store.require(oid)
    collected = agent.gc().done
    assert collected is not None
    assert not collected.rewrite
    assert store.find(oid) is None
    for state in (again, again + b"!", again + b"!!"):
        truth[commit(agent, {"state.bin": state, "rest": rest}, bump="minor")] = {"state.bin": state, "rest": rest}
    now = store.require(oid)
    assert (now.pack, now.offset) != (before.pack, before.offset)
    home.close()

    remove_catalog(path)
    without_views(path, "bot")
    repaired = fsck(path, repair=True)
    assert repaired.ok, said(repaired)
    assert not fsck(path).all
    home = open_home(path, None, **LARGE)
    judge(home, "bot", truth, tmp_path / "out")
    home.close()


def test_a_lost_chunk_takes_along_no_version_that_does_not_need_it(tmp_path: Path) -> None:
    """Though their lists of chunks are encoded with the list that is not whole any more."""
    chance, path = random.Random(3), tmp_path / "home"
    home = make_home(path, **LARGE)
    agent, truth, data = home.new("bot"), {}, chance.randbytes(2_000_000)
    for _ in range(4):
        data = data[:200_000] + chance.randbytes(900_000) + data[1_100_000:]
        truth[commit(agent, {"state.bin": data}, bump="minor")] = {"state.bin": data}
    store, first = agent.repository.store, next(iter(truth))
    lists = {
        row.id: {it for it, _ in store.chunk_list(row)} for row in rows(agent) if row.kind == RecordKind.CHUNK_LIST
    }
    oid = store.format.hash(Kind.BLOB, truth[first]["state.bin"])
    needed = {row.base for row in rows(agent)}.union(*(chunks for it, chunks in lists.items() if it != oid))
    assert oid in needed
    row = store.require(min(lists[oid] - needed))
    pack = next(it for it in index.packs(agent.repository.catalog, agent.repository.id) if it.id == row.pack)
    file = Path(agent.repository.layout.pack("bot", pack.name))
    home.close()

    flip(file, row.offset + row.length - 12)
    without_views(path, "bot")
    repaired = fsck(path, repair=True)
    assert {version for it in repaired.all for version in it.versions} == {f"v{first}"}, said(repaired)
    home = open_home(path, None, **LARGE)
    for version, files in list(truth.items())[1:]:
        home.agent("bot").checkout(f"v{version}", tmp_path / "out")
        assert (tmp_path / "out" / "state.bin").read_bytes() == files["state.bin"]
        remove(tmp_path / "out")
    with pytest.raises(ChecksumMismatch):
        home.agent("bot").checkout(f"v{first}", tmp_path / "out")
    home.close()


def test_a_fork_has_all_bases_of_what_it_needs_and_can_be_collected_and_rebuilt(tmp_path: Path) -> None:
    chance, path = random.Random(5), tmp_path / "home"
    home = make_home(path, packs__seal_at="64 KiB", **LARGE)
    agent = home.new("bot")
    early = {f"d/{name}": chance.randbytes(3000) for name in "abc"}
    early |= {f"d/sub/{name}": chance.randbytes(50) for name in "xyz"}
    early |= {f"large{number}": chance.randbytes(800_000) for number in range(2)}
    commit(agent, {"logic.py": b"1\n"})
    commit(agent, early, bump="minor")
    later = {name: data + b"more" for name, data in early.items()}
    later |= {f"d/sub/{name}": early[f"d/sub/{name}"] for name in "xy"}
    commit(agent, later, bump="minor")
    agent.rollback("v1.0.0")
    version = commit(agent, later, bump="minor")  # is stored already, encoded with what it does not come after
    ids = {row.id: row for row in rows(agent)}
    home.new("fork", source=f"bot@v{version}")
    taken = {row.id for row in rows(home.agent("fork"))}
    bases = {row.base for row in ids.values() if row.base is not None and row.id in taken}
    assert bases <= taken
    assert {ids[it].kind for it in bases} == {RecordKind.BLOB, RecordKind.TREE, RecordKind.CHUNK, RecordKind.CHUNK_LIST}
    truth = {version: later}
    judge(home, "fork", truth, tmp_path / "out")
    home.close()
    for lost in (False, True):
        if lost:
            remove_catalog(path)
            without_views(path, "bot", "fork")
            repaired = fsck(path, repair=True)
            assert repaired.ok, said(repaired)
        home = open_home(path, None, **LARGE)
        assert not home.agent("fork").gc().plan.findings
        judge(home, "fork", truth, tmp_path / "out")
        home.close()


def test_a_version_in_force_that_is_lost_does_not_stop_the_repair(tmp_path: Path) -> None:
    chance, path = random.Random(6), tmp_path / "home"
    home = make_home(path, **SOON)
    agent, other = home.new("bot"), home.new("other")
    files = {"state.json": chance.randbytes(5000)}
    commit(agent, files)
    commit(other, {"logic.py": b"1\n"})
    row = next(it for it in rows(agent) if it.size == len(files["state.json"]))
    pack = next(it for it in index.packs(agent.repository.catalog, agent.repository.id) if it.id == row.pack)
    file = Path(agent.repository.layout.pack("bot", pack.name))
    write(agent.workspace, {})
    home.close()
    flip(file, row.offset + row.length - 12)
    without_views(path, "bot", "other")
    repaired = fsck(path, repair=True)
    assert {it.agent for it in repaired.all} == {"bot"}, said(repaired)
    assert {it.object for it in repaired.all} >= {row.id.hex()}
    assert read(path / "other" / "current")["logic.py"] == b"1\n"


def test_a_base_is_read_from_the_pack_that_has_its_number_now(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", packs__seal_at="64 KiB").new("bot")
    files = {"large": random.Random(1).randbytes(70_000)}
    commit(agent, files)
    commit(agent, {"large": files["large"] + b"more"})
    store = agent.repository.store
    needy = next(row for row in rows(agent) if row.base and store.require(row.base).pack != row.pack)
    below = store.require(needy.base or b"")
    store._readers[below.pack] = store._open(needy.pack)  # as if a repair had numbered packs anew
    store.contents.clear()
    assert store.format.hash(Kind(needy.kind), store.record(needy)) == needy.id


def test_a_list_of_chunks_that_a_fork_still_has_brings_back_those_that_hang_on_it(tmp_path: Path) -> None:
    chance, path = random.Random(8), tmp_path / "home"
    home = make_home(path, **LARGE)
    agent, truth, data = home.new("bot"), {}, chance.randbytes(2_000_000)
    for _ in range(4):
        data = data[:700_000] + chance.randbytes(50) + data[700_000:]
        truth[commit(agent, {"state.bin": data}, bump="minor")] = {"state.bin": data}
    first = next(iter(truth))
    home.new("fork", source=f"bot@v{first}")
    store = agent.repository.store
    row = store.require(store.format.hash(Kind.BLOB, truth[first]["state.bin"]))
    assert sum(it.base == row.id for it in rows(agent)) > 0
    pack = next(it for it in index.packs(agent.repository.catalog, agent.repository.id) if it.id == row.pack)
    file = Path(agent.repository.layout.pack("bot", pack.name))
    home.close()

    flip(file, row.offset + row.length - 12)
    without_views(path, "bot", "fork")
    for workspace in path.glob("*/workspace"):
        write(workspace, {})
    repaired = fsck(path, repair=True)
    assert repaired.ok, said(repaired)
    home = open_home(path, None, **LARGE)
    judge(home, "bot", truth, tmp_path / "out")
    home.close()


@pytest.mark.parametrize("seed", [1, 6])
def test_a_list_of_chunks_that_was_cut_anew_is_not_taken_from_memory(tmp_path: Path, seed: int) -> None:
    """A process stays open while another repairs the home: the id is the same, and the chunks are others."""
    chance, path = random.Random(seed), tmp_path / "home"
    agent, truth = make_home(path, **LARGE).new("bot"), {}
    data = bytearray(chance.randbytes(3_000_000))
    for start, end in ((0, 0), (200_000, 500_000), (1_000_000, 1_000_008)):
        data[start:end] = chance.randbytes(end - start)
        truth[commit(agent, {"state.bin": bytes(data)}, bump="minor")] = {"state.bin": bytes(data)}
    number, second = list(truth.items())[1]
    store = agent.repository.store
    row = store.require(store.format.hash(Kind.BLOB, second["state.bin"]))
    before = store.chunk_list(row)
    pack = next(it for it in index.packs(agent.repository.catalog, agent.repository.id) if it.id == row.pack)
    flip(Path(agent.repository.layout.pack("bot", pack.name)), row.offset + row.length - 12)
    assert fsck(path, repair=True).ok
    other = open_home(path, None, **LARGE)
    there = other.agent("bot").repository.store
    assert len(there.chunk_list(there.require(row.id))) != len(before)

    with store.catalog.transaction(durable=False):  # as a command does that writes without the lock
        pass
    agent.rollback(f"v{number}")
    data = bytearray(second["state.bin"])
    data[2_000_000:2_000_004] = b"next"
    truth[commit(agent, {"state.bin": bytes(data)}, bump="minor")] = {"state.bin": bytes(data)}
    judge(other, "bot", truth, tmp_path / "out")
    other.close()
