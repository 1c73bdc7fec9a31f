"""gc: what stays, what goes, that the plan is what is done, and what is found on the way."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from pathlib import Path

import pytest

import kaivc
from kaivc import api
from kaivc.api import Agent
from kaivc.errors import ChecksumMismatch, Collected, LockTimeout, LostRace, NoSuchRevision, OutcomeUnknown
from kaivc.names import Absent, ObjectId, RefName, RefUpdate, backup_ref
from kaivc.ops import gc as operation
from kaivc.settings import READERS
from kaivc.storage import index, journal
from kaivc.storage.gitobjects import Kind
from kaivc.storage.journal import Op
from kaivc.storage.pack import PackReader, RecordKind
from kaivc.storage.switching import Copier
from kaivc.storage.writer import StoreWriter
from tests.conftest import ROOT
from tests.engine.damage import fsck
from tests.engine.homes import ENVIRON, Files, commit, make_home, open_home, read, write

SOON = {"backups__keep": "2", "backups__max_age": "0s"}
DAY = 86_400


class Days:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1_790_000_000

    def now_ns(self) -> int:
        self.seconds += 1
        return self.seconds * 1_000_000_000


def clocked(agent: Agent) -> Days:
    clock = Days()
    object.__setattr__(agent.repository.home, "clock", clock)
    return clock


def dirty(agent: Agent, count: int, seed: int = 1, size: int = 20_000) -> list[bytes]:
    """So many backups, each of its own bytes."""
    chance, saved = random.Random(seed), []
    for number in range(count):
        saved.append(chance.randbytes(size))
        write(agent.workspace, {"state.json": saved[-1], "logic.py": b"%d" % number})
        agent.rollback(f"v1.{number % 2}.0")
    return saved


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """Two versions, no backup."""
    agent = make_home(tmp_path / "home", **SOON).new("bot")
    chance = random.Random(7)
    for number in range(2):
        commit(agent, {"logic.py": b"v%d" % number, "state.json": chance.randbytes(20_000)}, bump="minor")
    commit(agent, {"logic.py": b"last", "state.json": b"{}"}, version="1.0.1")
    return agent


def with_settings(agent: Agent, **settings: str) -> Agent:
    return open_home(Path(agent.repository.layout.root), None, **settings).agent("bot")


def files(agent: Agent) -> dict[str, int]:
    directory = Path(agent.repository.layout.pack_dir(agent.name))
    return {path.stem: path.stat().st_size for path in directory.iterdir()}


def states(agent: Agent) -> dict[str, str]:
    return {pack.name: pack.state for pack in index.packs(agent.repository.catalog, agent.repository.id)}


def backups(agent: Agent) -> list[int]:
    return sorted(int(name.rpartition("/")[2]) for name in agent.repository.refs("refs/heads/bot/backups/"))


def check(agent: Agent) -> None:
    """All versions are whole, the chain too, and nothing lies about that no row names."""
    assert agent.verify().ok
    assert files(agent).keys() == states(agent).keys()
    assert set(states(agent).values()) <= {"open", "sealed", "failed"}
    repo = agent.repository
    prev = journal.GENESIS
    names = {pack.id: pack.name for pack in index.packs(repo.catalog, repo.id)}
    for row in journal.ops(repo.catalog, repo.id):
        payload = row.payload
        if payload is None:
            reader = PackReader.open(repo.layout.pack(repo.name, names[row.pack or 0]))
            payload = reader.payload(reader.header(row.offset or 0))
            reader.close()
        assert journal.digest_op(payload) == row.digest
        assert prev in payload
        prev = row.digest
    assert repo.row().op_head == prev


# ---------------------------------------------------------------- what goes


def test_the_plan_is_what_is_done_and_a_second_gc_has_nothing_to_do(agent: Agent) -> None:
    dirty(agent, 8)
    size = sum(files(agent).values())
    said: list[operation.GcPlan] = []
    dry = agent.gc(dry_run=True)
    assert dry.done is None
    assert sum(files(agent).values()) == size
    done = agent.gc(before=said.append)
    assert said == [done.plan] == [dry.plan]
    assert done.done is not None
    assert (done.done.expired, done.done.objects) == (len(done.plan.expired), done.plan.dead_objects) == (6, 24)
    assert (done.done.delete, done.done.rewrite) == (len(done.plan.delete), len(done.plan.rewrite))
    assert done.done.back == done.plan.back
    assert (done.done.spared, done.done.left, done.findings) == ((), (), ())
    back = size - sum(files(agent).values())
    print(f"{size} bytes in packs, {back} came back, {done.plan.back} were said")
    assert 0 <= done.plan.back - back < 2048, "op records are all that was added"
    assert back > 6 * 20_000
    check(agent)
    again = agent.gc()
    assert not again.plan
    assert again.done is not None
    assert again.done.seq is None
    assert agent.reflog("backups/4").entries[0].verb == "gc"


def test_the_newest_backups_stay_and_hold_what_they_held(agent: Agent) -> None:
    saved = dirty(agent, 5)
    numbers = backups(agent)
    agent.gc()
    assert backups(agent) == numbers[-2:]
    target = agent.repository.layout.root + "/out"
    agent.checkout(f"backups/{numbers[-1]}", target)
    assert (Path(target) / "state.json").read_bytes() == saved[-1]


def test_a_young_backup_stays_until_the_bytes_are_too_many(agent: Agent) -> None:
    dirty(agent, 6)
    kept = with_settings(agent, backups__keep="1", backups__max_age="30d")
    assert not kept.gc().plan.expired
    bounded = with_settings(agent, backups__keep="1", backups__max_age="30d", backups__max_bytes="70000")
    plan = bounded.gc().plan
    assert {it.why for it in plan.expired} == {"bytes"}
    assert len(backups(agent)) == 3, "three of 20,000 bytes and their trees are less than 70,000"
    check(agent)


def test_backups_expire_by_age(agent: Agent) -> None:
    clock = clocked(agent)
    dirty(agent, 2)
    clock.seconds += 31 * DAY
    dirty(agent, 2, seed=2)
    old = with_settings(agent, backups__keep="0")
    clocked(old).seconds = clock.seconds
    assert [it.why for it in old.gc().plan.expired] == ["age", "age"]
    assert len(backups(agent)) == 2


def test_what_the_next_undo_and_redo_need_stays(agent: Agent) -> None:
    none = with_settings(agent, backups__keep="0", backups__max_age="0s")
    saved = dirty(none, 3)
    none.gc()
    assert len(backups(agent)) == 1
    none.undo()
    assert (agent.workspace / "state.json").read_bytes() == saved[-1]
    write(agent.workspace, {"state.json": b"after the undo", "logic.py": b"x"})
    none.gc()
    none.redo()
    none.gc()
    none.undo()
    assert (agent.workspace / "state.json").read_bytes() == b"after the undo"
    check(agent)


def test_an_undo_whose_backup_is_collected_says_so(agent: Agent) -> None:
    dirty(agent, 5)
    entry = agent.reflog().entries[-4]
    agent.gc()
    agent.undo()
    agent.undo()
    with pytest.raises(NoSuchRevision, match="collected"):
        agent.undo()
    assert agent.reflog().collected(entry) == ["backup"]
    with pytest.raises(NoSuchRevision, match="was collected at"):
        agent.show(f"backups/{entry.backup}")
    with pytest.raises(NoSuchRevision, match="was collected at"):
        agent.checkout(f"backups/{entry.backup}", agent.repository.layout.root + "/out")


def snapshot(agent: Agent, data: bytes) -> ObjectId:
    """A branch as a committed snapshot makes it, of a commit that nothing else names."""
    repo = agent.repository
    write(agent.workspace, {"state.json": data})
    agent.restore()
    number = backups(agent)[-1]
    oid = repo.ref(backup_ref("bot", number))
    assert oid is not None
    move(agent, "snapshot", RefUpdate(RefName("refs/heads/bot/snapshots/try"), Absent(), oid, repo.home.actor, "keep"))
    return oid


def move(agent: Agent, verb: str, update: RefUpdate) -> None:
    repo = agent.repository
    with repo.lock(), StoreWriter(repo.store) as writer:
        op = Op(verb, repo.new_op_id(), str(repo.home.actor), repo.home.clock.now_ns(), update.reason)
        repo.land(writer, [update], op)


def test_a_snapshot_stays_and_once_dropped_for_fourteen_days(agent: Agent) -> None:
    clock = clocked(agent)
    oid = snapshot(agent, b"tried" * 1000)
    dirty(agent, 3)
    clock.seconds += 100 * DAY
    assert agent.gc().plan.expired
    assert agent.repository.store.contains(oid), "the snapshot's branch holds it"
    from kaivc.names import Exactly

    move(
        agent,
        "snapshot drop",
        RefUpdate(RefName("refs/heads/bot/snapshots/try"), Exactly(oid), None, agent.repository.home.actor, "drop"),
    )
    clock.seconds += 13 * DAY
    agent.gc()
    assert agent.repository.store.contains(oid)
    clock.seconds += 2 * DAY
    assert agent.gc().plan.dead_objects
    assert not agent.repository.store.contains(oid)
    entries = agent.reflog("snapshots/try")
    assert [entries.collected(entry) for entry in entries.entries] == [["old"], ["new"]]
    check(agent)


def test_where_another_ref_pointed_stays_for_ninety_days(agent: Agent) -> None:
    clock = clocked(agent)
    oid = snapshot(agent, b"fetched" * 1000)
    from kaivc.names import Exactly

    name = RefName("refs/remotes/up/heads/bot/current")
    actor = agent.repository.home.actor
    move(agent, "fetch", RefUpdate(name, Absent(), oid, actor, "fetch"))
    move(agent, "fetch", RefUpdate(RefName("refs/heads/bot/snapshots/try"), Exactly(oid), None, actor, "drop"))
    move(agent, "fetch", RefUpdate(name, Exactly(oid), agent.current.oid, actor, "fetch"))
    dirty(agent, 3)
    clock.seconds += 89 * DAY
    agent.gc()
    assert agent.repository.store.contains(oid)
    clock.seconds += 2 * DAY
    agent.gc()
    assert not agent.repository.store.contains(oid)


def test_small_packs_become_one(agent: Agent) -> None:
    from kaivc.storage.pack import PackWriter

    for number in range(9):
        held = [PackWriter(agent.repository.vfs, fd, path, 0) for path in packs(agent) if (fd := lock(agent, path))]
        commit(agent, {"logic.py": b"%d" % number}, bump="patch")
        for writer in held:
            os.close(writer._fd)
    assert len(files(agent)) == 10
    plan = agent.gc().plan
    assert len(plan.rewrite) == 10
    assert len(files(agent)) == 1
    check(agent)


def packs(agent: Agent) -> list[str]:
    return [agent.repository.layout.pack("bot", name) for name in files(agent)]


def lock(agent: Agent, path: str) -> int | None:
    return agent.repository.vfs.lock(path)


def test_sealed_packs_are_deleted_when_all_of_one_is_dead(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", packs__seal_at="64 KiB", **SOON).new("bot")
    for number in range(2):
        commit(agent, {"logic.py": b"%d" % number}, bump="minor")
    dirty(agent, 6, size=150_000)
    done = agent.gc()
    assert done.done is not None
    assert len(done.plan.delete) + len(done.plan.rewrite) >= 4
    assert done.plan.back > 4 * 150_000
    assert sum(files(agent).values()) < 2.5 * 150_000
    check(agent)


def test_chunks_that_only_a_backup_holds_go_and_shared_ones_stay(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", chunks__threshold="64 KiB", **SOON).new("bot")
    chance = random.Random(3)
    big = bytearray(chance.randbytes(1 << 20))
    commit(agent, {"state.json": bytes(big)}, bump="minor")
    commit(agent, {"state.json": bytes(big[:-1])}, bump="minor")
    for number in range(4):
        big[number * 1000 : number * 1000 + 500] = chance.randbytes(500)
        write(agent.workspace, {"state.json": bytes(big)})
        agent.rollback(f"v1.{number % 2}.0")
    plan = agent.gc().plan
    assert len(plan.expired) == 2
    assert 2_000 < plan.dead_bytes < 600_000
    check(agent)


def test_a_pack_that_a_fork_has_too_is_not_rewritten_but_deleted_here(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", **SOON).new("bot")
    for number in range(2):
        commit(agent, {"logic.py": b"%d" % number}, bump="minor")
    dirty(agent, 5)
    (name,) = files(agent)
    elsewhere = tmp_path / "fork.pack"
    os.link(agent.repository.layout.pack("bot", name), elsewhere)
    done = agent.gc()
    assert done.plan.dead_objects
    assert not done.plan.rewrite
    assert done.plan.back == 0
    assert name in files(agent)
    assert elsewhere.stat().st_nlink == 2
    elsewhere.unlink()
    assert agent.gc().plan.rewrite, "the bytes come back when the other name is gone"
    check(agent)


# ---------------------------------------------------------------- damage


def flip(path: str, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def blob(agent: Agent, rev: str) -> ObjectId:
    return dict(agent.repository.store.tree(agent.show(rev).version.tree_oid))[b"state.json"].oid


def test_a_pack_with_a_damaged_record_that_stays_is_left_and_said(agent: Agent) -> None:
    dirty(agent, 5)
    repo = agent.repository
    row = repo.store.require(blob(agent, "v1.0.0"))
    (name,) = files(agent)
    flip(repo.layout.pack("bot", name), row.offset + row.length - 100)
    done = agent.gc()
    assert done.done is not None
    assert done.plan.rewrite
    assert (done.done.rewrite, done.done.back) == (0, 0)
    assert name in done.findings[0]
    assert "damaged" in done.findings[0]
    assert states(agent)[name] == "open"
    assert done.done.expired == 3
    assert not agent.verify("v1.0.0").ok
    assert agent.verify("v1.1.0").ok
    assert set(files(agent)) == set(states(agent)), "no half copy stays"


def test_a_tree_that_cannot_be_read_stops_it(agent: Agent) -> None:
    dirty(agent, 5)
    repo = agent.repository
    row = repo.store.require(agent.show("v1.0.0").version.tree_oid)
    (name,) = files(agent)
    flip(repo.layout.pack("bot", name), row.offset + row.length - 9)
    before = len(repo.catalog.rows("SELECT 1 FROM objects"))
    fresh = with_settings(agent, **SOON)
    with pytest.raises(ChecksumMismatch):
        fresh.gc()
    assert len(repo.catalog.rows("SELECT 1 FROM objects")) == before
    assert len(backups(agent)) == 5


def test_a_missing_file_is_said_and_does_not_stop_it(agent: Agent) -> None:
    dirty(agent, 5)
    oid = blob(agent, "v1.0.0")
    with agent.repository.catalog.transaction() as db:
        db.execute("DELETE FROM objects WHERE id = ?", (oid,))
    done = agent.gc()
    assert any(oid.hex() in finding for finding in done.findings)
    assert len(backups(agent)) == 2


def test_operations_that_the_catalog_does_not_know_stop_it(agent: Agent, tmp_path: Path) -> None:
    """As with a catalog that was brought back from an older copy."""
    repo = agent.repository
    dirty(agent, 4)
    copy = tmp_path / "older.sqlite"
    with repo.catalog.transaction():
        copy.write_bytes(b"")
    repo.catalog.db.execute("VACUUM INTO ?", (str(copy) + ".2",))
    commit(agent, {"logic.py": b"newer"}, version="3.0.0")
    agent.repository.catalog.close()
    for suffix in ("-wal", "-shm"):
        Path(repo.layout.catalog + suffix).unlink(missing_ok=True)
    os.replace(str(copy) + ".2", repo.layout.catalog)
    older = with_settings(agent, **SOON)
    assert [version.version for version in older.versions()][-1] != "3.0.0"
    before = files(agent)
    done = older.gc()
    assert not done.plan
    assert "fsck --repair" in done.findings[0]
    assert files(agent) == before
    assert len(backups(older)) == 4


def test_fsck_finds_nothing_after_a_gc_and_a_lost_catalog_comes_back_as_it_was(agent: Agent) -> None:
    dirty(agent, 6)
    agent.gc()
    root = agent.repository.layout.root
    assert api.fsck(root, environ=ENVIRON).ok
    before = (agent.repository.refs("refs/"), [*agent.reflog(None).entries], agent.verify().objects)
    agent.repository.catalog.close()
    for suffix in ("", "-wal", "-shm"):
        Path(agent.repository.layout.catalog + suffix).unlink(missing_ok=True)
    api.fsck(root, repair=True, environ=ENVIRON)
    again = with_settings(agent, **SOON)
    assert (again.repository.refs("refs/"), [*again.reflog(None).entries], again.verify().objects) == before
    clocked(again).seconds += DAY
    assert not again.gc().plan.expired
    check(again)


def test_files_of_packs_that_cut_commands_left_go(agent: Agent) -> None:
    repo = agent.repository
    (name,) = files(agent)
    there = Path(repo.layout.pack("bot", name))
    Path(repo.layout.pack("bot", "c" * 16)).write_bytes(there.read_bytes())
    Path(repo.layout.pack("bot", "d" * 16)).write_bytes(there.read_bytes()[:-30])
    Path(repo.layout.pack("bot", "e" * 16)).write_bytes(b"KAI")
    fd = repo.vfs.lock(repo.layout.pack("bot", "f" * 16))
    done = agent.gc()
    assert [pack.name[0] for pack in done.plan.leftover] == ["c", "d", "e"]
    assert set(files(agent)) == {name, "f" * 16}, "a pack that a writer holds stays"
    assert fd is not None
    os.close(fd)
    agent.gc()
    check(agent)


def test_what_may_be_a_copy_of_a_missing_pack_stays(tmp_path: Path) -> None:
    """An older catalog names packs that a gc has rewritten since, and not the copies."""
    home = make_home(tmp_path / "home", packs__seal_at="64 KiB")
    agent, chance = home.new("bot"), random.Random(3)
    commit(agent, {f"big{number}": chance.randbytes(40_000) for number in range(4)})
    packed = "SELECT p.name FROM packs p JOIN objects o ON o.pack = p.id GROUP BY p.id HAVING max(o.kind) = ?"
    ((only_files,), *_) = agent.repository.catalog.rows(packed, (int(RecordKind.BLOB),))
    pack = Path(agent.repository.layout.pack("bot", only_files))
    twin = pack.with_name("c" * 16 + ".pack")
    pack.rename(twin)
    done = agent.gc()
    assert done.findings
    assert twin.exists()
    home.close()
    assert fsck(tmp_path / "home", repair=True).ok


def test_scratch_of_cut_commands_goes(agent: Agent) -> None:
    layout = agent.repository.layout
    old = Path(layout.tmp) / "backup-0123"
    young = Path(layout.tmp) / "backup-4567"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    unmade = Path(layout.root) / ".new-helper"
    busy = Path(layout.root) / ".new-maker"
    for directory in (unmade, busy):
        (directory / "workspace").mkdir(parents=True)
    fd = agent.repository.vfs.lock(layout.lock("maker"))
    agent.gc()
    assert [path.exists() for path in (old, young, unmade, busy)] == [False, True, False, True]
    assert fd is not None
    os.close(fd)


# ---------------------------------------------------------------- beside others


def test_one_gc_at_a_time(agent: Agent) -> None:
    fd = agent.repository.vfs.lock(agent.repository.layout.collecting("bot"))
    with pytest.raises(LockTimeout):
        with_settings(agent, lock__wait="0.1s").gc()
    assert fd is not None
    os.close(fd)


def test_what_is_named_again_between_plan_and_switch_is_spared(agent: Agent) -> None:
    """A commit of the very bytes that only expired backups hold: it writes none of them."""
    saved = dirty(agent, 6)
    other = with_settings(agent)
    expired = blob(agent, f"backups/{backups(agent)[0]}")

    def meanwhile(plan: operation.GcPlan) -> None:
        assert plan.rewrite
        commit(other, {"state.json": saved[0], "logic.py": b"back"}, version="2.0.0")
        stored = {row.id for row in index.every(other.repository.catalog, other.repository.id)}
        assert expired in stored

    done = agent.gc(before=meanwhile)
    assert done.done is not None
    assert expired.hex() in done.done.spared
    assert done.done.objects + len(done.done.spared) == done.plan.dead_objects
    assert done.done.back < done.plan.back - 20_000
    check(agent)
    target = agent.repository.layout.root + "/out"
    agent.checkout("v2.0.0", target)
    assert (Path(target) / "state.json").read_bytes() == saved[0]


def test_a_backup_that_an_undo_has_come_to_need_is_spared(agent: Agent) -> None:
    dirty(agent, 4)
    other = with_settings(agent)
    oldest = backups(agent)[1]

    def meanwhile(plan: operation.GcPlan) -> None:
        for _ in range(2):
            other.undo()

    done = agent.gc(before=meanwhile)
    assert done.done is not None
    assert any(name.endswith(f"/{oldest}") for name in done.done.spared)
    other.undo()
    check(agent)


def test_an_agent_of_another_number_is_not_switched(agent: Agent) -> None:
    dirty(agent, 5)

    def meanwhile(plan: operation.GcPlan) -> None:
        with agent.repository.catalog.transaction() as db:
            db.execute("UPDATE ops SET digest = zeroblob(32) WHERE seq = ?", (agent.repository.row().op_seq,))

    before = files(agent)
    with pytest.raises(LostRace):
        agent.gc(before=meanwhile)
    assert files(agent) == before, "the copies are gone"
    assert len(backups(agent)) == 5


@pytest.mark.parametrize("landed", [True, False])
def test_a_switch_whose_outcome_is_unknown_loses_nothing(agent: Agent, landed: bool) -> None:
    """What was copied must not be thrown away: it may be all that there is."""
    dirty(agent, 6)
    catalog = agent.repository.catalog
    real = catalog.db

    class Refusing:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def execute(self, sql: str, *args: object) -> object:
            switched = any(pack == "condemned" for (pack,) in real.execute("SELECT state FROM packs"))
            if sql == "COMMIT" and switched:
                if landed:
                    real.execute(sql)
                raise sqlite3.OperationalError("disk I/O error")
            return real.execute(sql, *args)  # type: ignore[arg-type]

    catalog._local.mine = (os.getpid(), Refusing())
    with pytest.raises(OutcomeUnknown):
        agent.gc()
    catalog._local.mine = (0, None)
    again = with_settings(agent, **SOON)
    clocked(again).seconds += DAY
    assert again.verify().ok
    assert bool(again.gc().plan.expired) != landed
    check(again)


def test_a_process_that_stays_open_over_a_gc_of_another(agent: Agent) -> None:
    """Its readers, trees and writers go on, whatever another process moved and unlinked."""
    saved = dirty(agent, 4)
    open_all_day = with_settings(agent)
    store = open_all_day.repository.store
    for version in open_all_day.versions():
        open_all_day.show(version.tag)
    rows = {oid: store.require(oid) for oid in (blob(agent, "v1.0.0"), blob(agent, "v1.1.0"))}
    for _ in range(3):
        dirty(agent, 4, seed=9)
        agent.gc()
        for oid, row in rows.items():
            assert store.format.hash(Kind.BLOB, store.record(row)) == oid, "a row that was read before"
        assert open_all_day.verify().ok
        commit(open_all_day, {"state.json": saved[0], "logic.py": random.randbytes(9)}, bump="minor")
        assert open_all_day.verify().ok
        assert open_all_day.status() is not None
    check(agent)


@pytest.mark.parametrize("opened", [True, False])
def test_readers_of_versions_do_not_notice_that_gc_moves_what_they_read(agent: Agent, opened: bool) -> None:
    """At each look at the catalog, everything is moved and unlinked before the reader goes to the pack."""
    expected = {"state.json": dict(read(Path(agent.repository.layout.view("bot", "v1.1.0"))))["state.json"]}
    reader = with_settings(agent)
    store = reader.repository.store
    if opened:
        store.read(blob(reader, "v1.0.0"), Kind.BLOB)
    find, moved = store.find, [0]

    def moved_meanwhile(oid: bytes) -> index.ObjectRow | None:
        row = find(oid)
        if moved[0] < 5:
            if not opened:
                store.close()
            name = next(iter(files(agent)))
            dirty(agent, 4, seed=moved[0])
            agent.gc()
            moved[0] += name not in files(agent)
        return row

    store.find = moved_meanwhile  # type: ignore[method-assign]
    target = agent.repository.layout.root + "/out"
    reader.checkout("v1.1.0", target)
    assert moved[0] > 3
    assert read(Path(target))["state.json"] == expected["state.json"]
    assert reader.verify("v1.0.1").ok


def test_a_number_of_a_pack_that_is_used_again_shows_no_other_bytes(agent: Agent) -> None:
    store = agent.repository.store
    store.read(blob(agent, "v1.0.0"), Kind.BLOB)
    number = store.require(blob(agent, "v1.0.0")).pack
    assert number in store._readers
    other = with_settings(agent, **SOON)
    dirty(other, 6)
    other.gc()
    dirty(other, 6)
    other.gc()
    assert store.format.hash(Kind.BLOB, store.read(blob(agent, "v1.0.0"), Kind.BLOB)) == blob(agent, "v1.0.0")


def test_a_backup_that_is_collected_while_it_is_read_is_said_to_be(agent: Agent) -> None:
    dirty(agent, 5)
    number = backups(agent)[0]
    other, reader = with_settings(agent, **SOON), with_settings(agent)
    clocked(other).seconds += DAY
    store = reader.repository.store
    find = store.find
    seen: list[bytes] = []

    def collected_meanwhile(oid: bytes) -> index.ObjectRow | None:
        row = find(oid)
        if row is not None and row.kind == RecordKind.TREE and not seen:
            seen.append(oid)
            other.gc()
        return row

    store.find = collected_meanwhile  # type: ignore[method-assign]
    target = agent.repository.layout.root + "/out"
    with pytest.raises(Collected) as caught:
        reader.checkout(f"backups/{number}", target)
    assert caught.value.code == "E907"
    assert seen
    assert not os.path.exists(target)


def test_a_diff_with_the_workspace_whose_bytes_are_collected_meanwhile(agent: Agent) -> None:
    saved = dirty(agent, 5)
    write(agent.workspace, {"state.json": saved[0], "logic.py": b"x"})
    compared = agent.diff()
    agent.gc()
    with pytest.raises(Collected):
        list(compared.files())
    assert [side.new.data for side in agent.diff().files() if side.new] == [b"x", saved[0]]


def test_a_read_only_dry_run(agent: Agent) -> None:
    dirty(agent, 5)
    expected = agent.gc(dry_run=True).plan
    home = kaivc.open(
        agent.repository.layout.root,
        environ=ENVIRON,
        flags={key.replace("__", "."): value for key, value in SOON.items()},
        read_only=True,
    )
    assert home.agent("bot").gc(dry_run=True).plan == expected
    home.close()


def test_an_agent_without_a_version(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    assert not agent.gc().plan
    commit(agent, {"a": b"1"})
    assert agent.verify().ok


def test_the_workspace_and_the_views_are_left_alone(agent: Agent) -> None:
    dirty(agent, 5)
    kept: Files = {"state.json": b"live", "logic.py": b"live"}
    write(agent.workspace, kept)
    agent.gc()
    assert read(agent.workspace) == kept
    assert (Path(agent.repository.layout.current("bot")) / "snapshot_meta.json").is_file()


# ---------------------------------------------------------------- settings


def test_each_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "reference" / "settings.md").read_text()
    told = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert {it for it in told if not it.startswith("isolation.")} == set(READERS)


def test_both_forms_of_the_answer_agree(agent: Agent, capfd: pytest.CaptureFixture[str]) -> None:
    from kaivc.cli.app import run

    dirty(agent, 5)
    words = ["--home", agent.repository.layout.root, "-c", "backups.keep=2", "-c", "backups.max_age=0s", "gc"]
    assert run([*words, "--dry-run", "--json"]) == 0
    dry = json.loads(capfd.readouterr().out)["agents"][0]
    assert run([*words, "--dry-run"]) == 0
    text = capfd.readouterr().out
    assert "nothing was collected" in text
    assert all(it["ref"] in text for it in dry["plan"]["expired"])
    assert run([*words, "--json"]) == 0
    whole = json.loads(capfd.readouterr().out)["agents"][0]
    assert whole["plan"] == dry["plan"]
    assert whole["done"]["back"] == dry["plan"]["back"]
    assert run(words) == 0
    assert "nothing to collect" in capfd.readouterr().out


def test_what_the_disk_gives_is_compared_again_when_it_is_copied(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record was whole when gc looked at it, and is not when it is read to be copied: the old pack must stay."""
    dirty(agent, 4)
    before, whole = files(agent), Copier._problem

    def turn(self: Copier, reader: PackReader, rows: list[index.ObjectRow], chain: list[journal.OpRow]) -> str | None:
        found = whole(self, reader, rows, chain)
        flip(reader.path, rows[0].offset + rows[0].length - 12)
        return found

    monkeypatch.setattr(Copier, "_problem", turn)
    with pytest.raises(ChecksumMismatch):
        agent.gc()
    assert files(agent) == before
