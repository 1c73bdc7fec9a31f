"""The store of one agent: packs are sealed once, cut ones are passed over, op records are adopted."""

import io
import os
import random
import sqlite3
from pathlib import Path

import pytest

from kaivc.api import Agent, fsck
from kaivc.errors import ChecksumMismatch, TooLarge
from kaivc.names import ObjectId
from kaivc.storage import index, journal
from kaivc.storage.gitobjects import Kind
from kaivc.storage.pack import LARGEST, MAGIC, TRAILER, TRAILER_MAGIC, RecordKind, scan
from kaivc.storage.writer import StoreWriter
from kaivc.vfs import Vfs
from tests.engine.damage import flip
from tests.engine.homes import ENVIRON, commit, make_home, open_home


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return make_home(tmp_path / "home", packs__seal_at="1 MiB").new("bot")


def packs(agent: Agent) -> list[Path]:
    return sorted(Path(agent.repository.layout.pack_dir("bot")).iterdir())


def records(path: Path) -> list[int]:
    with path.open("rb") as file:
        return [header.kind for header in scan(file.fileno(), str(path), len(MAGIC), path.stat().st_size)]


def test_packs_are_sealed_once_each(agent: Agent) -> None:
    chance = random.Random(1)
    for _ in range(6):
        commit(agent, {"big": chance.randbytes(900_000)}, bump="minor")
    states = [pack.state for pack in index.packs(agent.repository.catalog, agent.repository.id)]
    assert states.count("sealed") >= 3
    assert states.count("open") <= 1
    for path in packs(agent):
        kinds = records(path)
        assert kinds.count(RecordKind.FOOTER) == path.read_bytes().endswith(TRAILER_MAGIC)
    assert agent.verify().ok


def test_a_large_commit_fills_several_packs(agent: Agent) -> None:
    commit(agent, {"big": random.Random(2).randbytes(5 << 20)})
    assert len(packs(agent)) >= 5
    assert agent.verify().ok
    assert b"".join(agent.repository.store.stream(blob(agent))) == (agent.workspace / "big").read_bytes()


def blob(agent: Agent) -> ObjectId:
    return dict(agent.repository.store.tree(agent.current.tree_oid))[b"big"].oid


def test_a_pack_that_was_sealed_and_not_named_so_is_left(agent: Agent) -> None:
    commit(agent, {"a": b"1"})
    with StoreWriter(agent.repository.store) as writer:
        writer.put_blob(io.BytesIO(random.Random(3).randbytes(1 << 20)), 1 << 20)
    commit(agent, {"a": b"2"}, bump="minor")
    assert [pack.state for pack in index.packs(agent.repository.catalog, agent.repository.id)] == ["sealed", "open"]
    assert agent.verify().ok


class Syncs(Vfs):
    """Notes the inodes that were synced."""

    def __init__(self) -> None:
        self.inodes: set[int] = set()

    def sync(self, fd: int) -> None:
        self.inodes.add(os.fstat(fd).st_ino)
        super().sync(fd)


def test_a_seal_that_nobody_synced_is_synced_before_it_is_named(tmp_path: Path, monkeypatch) -> None:
    """A writer may be killed between the write of the seal and its sync: the page cache has it, the disk has not."""
    make_home(tmp_path / "home").close()
    syncs = Syncs()
    agent = open_home(tmp_path / "home", syncs, packs__seal_at="1 MiB").new("bot")
    commit(agent, {"a": b"1"})
    (only,) = packs(agent)
    with monkeypatch.context() as patch, StoreWriter(agent.repository.store) as writer:
        patch.setattr(Syncs, "sync", lambda self, fd: None)
        writer.put_blob(io.BytesIO(random.Random(3).randbytes(1 << 20)), 1 << 20)
    assert only.read_bytes().endswith(TRAILER_MAGIC)
    syncs.inodes.clear()
    commit(agent, {"a": b"2"}, bump="minor")
    assert [pack.state for pack in index.packs(agent.repository.catalog, agent.repository.id)] == ["sealed", "open"]
    assert only.stat().st_ino in syncs.inodes


def test_a_seal_that_was_cut_is_none(agent: Agent) -> None:
    commit(agent, {"a": b"1"})
    (only,) = packs(agent)
    with StoreWriter(agent.repository.store) as writer:
        writer.put_blob(io.BytesIO(random.Random(3).randbytes(1 << 20)), 1 << 20)
    os.truncate(only, only.stat().st_size - TRAILER.size)
    commit(agent, {"a": b"2"}, bump="minor")
    assert [pack.state for pack in index.packs(agent.repository.catalog, agent.repository.id)] == ["failed", "open"]
    assert agent.verify().ok
    assert fsck(agent.repository.layout.root, environ=ENVIRON).ok


def test_a_torn_tail_is_left_and_nothing_is_truncated(agent: Agent) -> None:
    commit(agent, {"a": b"1"})
    (only,) = packs(agent)
    with only.open("ab") as file:
        file.write(b"KR\x01\x00torn")
    size = only.stat().st_size
    commit(agent, {"a": b"2"}, bump="minor")
    assert only.stat().st_size == size
    assert [pack.state for pack in index.packs(agent.repository.catalog, agent.repository.id)] == ["failed", "open"]
    assert agent.verify().ok


def test_one_shot_commits_share_a_pack(agent: Agent) -> None:
    for count in range(30):
        commit(open_home(Path(agent.repository.layout.root)).agent("bot"), {"a": b"%d" % count}, bump="patch")
    assert len(packs(agent)) == 1


def test_the_chain_of_op_records_is_in_the_packs_once(agent: Agent) -> None:
    for count in range(10):
        commit(open_home(Path(agent.repository.layout.root)).agent("bot"), {"a": b"%d" % count}, bump="patch")
    (only,) = packs(agent)
    assert records(only).count(RecordKind.OP) == 10
    rows = journal.ops(agent.repository.catalog, agent.repository.id)
    assert [row.payload is None for row in rows] == [True] * 9 + [False]
    prev = journal.GENESIS
    import msgpack

    with only.open("rb") as file:
        found = []
        for header in scan(file.fileno(), str(only), len(MAGIC), only.stat().st_size):
            if header.kind == RecordKind.OP:
                from kaivc.storage.pack import PackReader

                found.append(PackReader(file.fileno(), str(only)).payload(header))
    for number, record in enumerate(found, 1):
        fields = msgpack.unpackb(record)
        assert (fields["seq"], fields["prev"]) == (number, prev)
        prev = journal.digest_op(record)
    assert agent.repository.row().op_head == prev


def test_an_op_record_that_was_not_appended_is_appended_by_the_next(agent: Agent, monkeypatch) -> None:
    commit(agent, {"a": b"1"})
    monkeypatch.setattr(StoreWriter, "append_op", lambda self, record: None)
    commit(agent, {"a": b"2"}, bump="minor")
    monkeypatch.undo()
    commit(agent, {"a": b"3"}, bump="minor")
    assert sum(records(path).count(RecordKind.OP) for path in packs(agent)) == 3


def test_a_row_that_points_elsewhere_is_found(agent: Agent) -> None:
    commit(agent, {"a": b"1", "b": b"2"})
    store = agent.repository.store
    tree = agent.current.tree_oid
    row = store.require(tree)
    with agent.repository.catalog.transaction() as db:
        db.execute("DELETE FROM objects WHERE id = ?", (tree,))
        other = store.require(agent.current.oid)
        index.put_objects(db, agent.repository.id, [row._replace(offset=other.offset)])
    with pytest.raises(ChecksumMismatch):
        store.read(tree, Kind.TREE)
    assert not agent.verify().ok


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [("refs", "oid", "x'00'"), ("objects", "offset", "77"), ("reflog", "reason", "'x'"), ("agents", "op_seq", "77")],
)
def test_a_row_with_a_changed_value_is_found(agent: Agent, table: str, column: str, value: str) -> None:
    commit(agent, {"a": b"1"})
    agent.repository.catalog.close()
    connection = sqlite3.connect(agent.repository.layout.catalog, isolation_level=None)
    connection.execute(f"UPDATE {table} SET {column} = {value}")  # noqa: S608 - the words stand above
    connection.close()
    home = open_home(Path(agent.repository.layout.root))
    with pytest.raises(ChecksumMismatch):
        look_around(home.agent("bot"))


def look_around(agent: Agent) -> None:
    agent.reflog(None)
    agent.show()
    agent.commit(bump="minor", allow_empty=True)


def test_a_record_that_is_copied_is_compared_as_it_is_copied(agent: Agent) -> None:
    """Though its block was read before, and is kept: the disk may give other bytes the next time."""
    commit(agent, {f"small{number}": b"%d" % number * 50 for number in range(4)})
    store = agent.repository.store
    row = next(row for row in index.every(store.catalog, 1) if row.within > 0)
    assert b"".join(store.stream(ObjectId(row.id)))
    kept = store.stored(row)
    (only,) = packs(agent)
    assert only.read_bytes()[row.offset :][: row.length] == kept
    flip(only, row.offset + row.length - 12)
    with pytest.raises(ChecksumMismatch):
        store.stored(row)


def test_an_operation_whose_record_is_too_large_to_read_does_not_land(agent: Agent, monkeypatch) -> None:
    """Sixty thousand tags that move with a rename make such a record; it would be refused wherever it is read."""
    assert LARGEST[RecordKind.OP] == journal.MAX_OP
    commit(agent, {"a": b"1"})
    record = journal.ops(agent.repository.catalog, agent.repository.id)[-1].payload
    assert record is not None
    monkeypatch.setattr(journal, "MAX_OP", len(record) + 100)
    commit(agent, {"a": b"2"})
    monkeypatch.setattr(journal, "MAX_OP", len(record) - 100)
    with pytest.raises(TooLarge):
        commit(agent, {"a": b"3"})
    assert len(journal.ops(agent.repository.catalog, agent.repository.id)) == 2
    monkeypatch.undo()
    commit(agent, {"a": b"3"})
    assert fsck(agent.repository.layout.root, environ=ENVIRON).ok


def test_a_gc_that_looks_at_a_new_pack_does_not_stop_its_writer(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Vfs.flock
    looked: list[int] = []

    def flock(self: Vfs, fd: int, *, shared: bool = False) -> None:
        if os.fstat(fd).st_size == 0 and os.readlink(f"/proc/self/fd/{fd}").endswith(".pack") and len(looked) < 2:
            looked.append(fd)
            raise BlockingIOError
        real(self, fd, shared=shared)

    monkeypatch.setattr(Vfs, "flock", flock)
    commit(agent, {"a": b"one"})
    assert len(looked) == 2
    assert agent.verify().ok
