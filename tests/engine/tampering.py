"""A home, and what somebody who knows the formats can do to it: every checksum is made to fit what was changed."""

import hashlib
import os
import sqlite3
import struct
from pathlib import Path
from typing import Any

import msgpack
import xxhash

import kaivc
from kaivc.names import RefName
from kaivc.repository import Repository
from kaivc.storage.catalog import checksum
from kaivc.storage.gitobjects import Kind, Tag, encode_commit, encode_tag
from kaivc.storage.writer import StoreWriter
from kaivc.vfs import Vfs
from tests.engine.homes import Files, make_home, write

AGENT = "summarizer"
EVE = "Eve <eve@example.org>"
TAG = f"refs/tags/{AGENT}/v1.1.0"
FILES: Files = {
    "logic.py": b"print('one')\n",
    "config.yaml": b"depth: 3\n",
    "state.json": b"{}\n",
    "state/large.bin": bytes(range(256)) * 6000,
    # With these, a git that converts would not see that a line ending was changed.
    ".gitattributes": b"* text=auto\n",
    "run.bat": b"one\r\ntwo\r\n",
    os.fsdecode(b"odd \xff\nname"): b"odd",
}
REFLOG = "seq, ord, ref, old, new, actor, time_ns, reason, verb, op_id, undoes, backup, workspace"


def make(path: Path, object_format: str = "sha256") -> Path:
    """A home with three versions, a rollback, an undo, a redo, and a restore that moves no ref."""
    home = make_home(path, object_format)
    agent = home.new(AGENT)
    write(agent.workspace, FILES)
    (agent.workspace / "logic.py").chmod(0o755)
    (agent.workspace / "link").symlink_to("logic.py")
    agent.commit(notes="the first\n\n--- is 'quoted' \"text\"")
    (agent.workspace / "logic.py").write_text("print('two')\n")
    agent.commit(bump="minor", notes="zweite | grün")
    (agent.workspace / "state.json").write_text('{"n": 1}\n')
    agent.rollback("v1.0.0", reason="long | " + "x" * 300)
    agent.undo()
    agent.redo()
    agent.undo()
    (agent.workspace / "logic.py").write_text("print('three')\n")
    agent.commit(version="2.0.0")
    agent.restore("logic.py", source="v1.0.0")
    write(home.new("other").workspace, {"a": b"a"})
    home.agent("other").commit()
    home.close()
    return path


# ---------------------------------------------------------------- rows


def db_of(home: Path) -> sqlite3.Connection:
    """The catalog, as anybody may open it."""
    return sqlite3.connect(home / ".kai/catalog.sqlite", isolation_level=None)


def one(home: Path, sql: str, *args: object) -> Any:
    """The first value of a query."""
    db = db_of(home)
    try:
        return db.execute(sql, args).fetchone()[0]
    finally:
        db.close()


def change(home: Path, sql: str, *args: object) -> None:
    """One statement."""
    db = db_of(home)
    assert db.execute(sql, args).rowcount == 1
    db.close()


def put_ref(home: Path, name: str, oid: bytes) -> None:
    """Point a ref of the first agent elsewhere."""
    change(home, "UPDATE refs SET oid = ?, checksum = ? WHERE agent = 1 AND name = ?", oid, checksum(name, oid), name)


def get_ref(home: Path, name: str) -> bytes:
    """Where a ref of the first agent points."""
    oid: bytes = one(home, "SELECT oid FROM refs WHERE agent = 1 AND name = ?", name)
    return oid


def ref_row(home: Path) -> None:
    """The tag of 1.0.0 names what that of 1.1.0 names."""
    put_ref(home, f"refs/tags/{AGENT}/v1.0.0", get_ref(home, TAG))


def ref_row_torn(home: Path) -> None:
    """A ref's row changed without its checksum."""
    change(home, "UPDATE refs SET oid = zeroblob(length(oid)) WHERE agent = 1 AND name = ?", TAG)


def ref_gone(home: Path) -> None:
    """The row of a tag removed."""
    change(home, "DELETE FROM refs WHERE agent = 1 AND name = ?", TAG)


def current_row(home: Path) -> None:
    """Another version in force than the log says."""
    old = one(home, "SELECT old FROM reflog WHERE agent = 1 AND ref LIKE '%/current' AND verb = 'undo'")
    put_ref(home, f"refs/heads/{AGENT}/current", old)


def reflog_row(home: Path) -> None:
    """Another reason for the rollback."""
    db = db_of(home)
    for row in db.execute(f"SELECT {REFLOG} FROM reflog WHERE agent = 1 AND seq = 3").fetchall():  # noqa: S608
        values = (*row[:7], "somebody else's reason", *row[8:])
        db.execute(
            "UPDATE reflog SET reason = ?, checksum = ? WHERE agent = 1 AND seq = ? AND ord = ?",
            (values[7], checksum(*values), *row[:2]),
        )
    db.close()


def reflog_gone(home: Path) -> None:
    """The log without the rollback."""
    db = db_of(home)
    db.execute("DELETE FROM reflog WHERE agent = 1 AND seq = 3")
    db.close()


def op_gone(home: Path) -> None:
    """The chain without the rollback."""
    change(home, "DELETE FROM ops WHERE agent = 1 AND seq = 3")


def newest_op_gone(home: Path) -> None:
    """The chain without its newest record."""
    change(home, "DELETE FROM ops WHERE agent = 1 AND seq = (SELECT max(seq) FROM ops WHERE agent = 1)")


# ---------------------------------------------------------------- packs


def pack_of(home: Path) -> Path:
    """The one pack of the first agent."""
    (path,) = (home / ".kai/packs" / AGENT).iterdir()
    path.chmod(0o600)
    return path


def payload_at(data: bytes | bytearray, offset: int) -> tuple[int, int]:
    """Where the payload of a record begins, and its length."""
    header_len, length = struct.unpack_from("<4xHxxQ", data, offset)
    return offset + 16 + header_len + 4, length


def op_record(home: Path) -> None:
    """Another actor in the first op record, which lies in the pack; the record's checksum fits."""
    path = pack_of(home)
    data = bytearray(path.read_bytes())
    start, length = payload_at(data, one(home, "SELECT offset FROM ops WHERE agent = 1 AND seq = 1"))
    at = data.index(b"Ann Example", start)
    data[at : at + 3] = b"Eve"
    data[start + length : start + length + 8] = struct.pack(
        "<Q", xxhash.xxh3_64_intdigest(data[start : start + length])
    )
    path.write_bytes(data)


def object_offset(home: Path, oid: bytes) -> int:
    """Where the record of an object begins."""
    offset: int = one(home, "SELECT offset FROM objects WHERE agent = 1 AND id = ?", oid)
    return offset


def flip(home: Path, offset: int) -> None:
    """One bit of one byte of the pack."""
    path = pack_of(home)
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)


def pack_byte(home: Path) -> None:
    """One bit of the stored bytes of `config.yaml`, which all versions hold."""
    repo = kaivc.open(home).agent(AGENT).repository
    oid = repo.home.format.hash(Kind.BLOB, FILES["config.yaml"])
    repo.catalog.close()
    flip(home, payload_at(pack_of(home).read_bytes(), object_offset(home, oid))[0])


def pack_short(home: Path) -> None:
    """The last bytes of the pack are gone."""
    path = pack_of(home)
    os.truncate(path, one(home, "SELECT committed FROM packs WHERE agent = 1") - 1)


def pack_gone(home: Path) -> None:
    """The pack is gone."""
    pack_of(home).unlink()


# ---------------------------------------------------------------- objects


def put(repo: Repository, kind: Kind, data: bytes) -> bytes:
    """Store an object, as a transaction of its own."""
    with StoreWriter(repo.store) as writer:
        oid = writer.put(kind, data)
        writer.sync()
        with repo.catalog.transaction() as db:
            writer.record(db)
    return oid


def forged_tag(home: Path) -> None:
    """A well-formed tag of 1.1.0 in the place of the one that was made: another tagger."""
    opened = kaivc.open(home)
    repo = opened.agent(AGENT).repository
    oid = repo.ref(RefName(TAG))
    assert oid is not None
    tag = repo.store.tag(oid)
    forged = put(repo, Kind.TAG, encode_tag(Tag(tag.target, tag.name, EVE, tag.time, tag.message)))
    opened.close()
    put_ref(home, TAG, forged)


def forged_commit(home: Path) -> None:
    """A well-formed 1.1.0 that states another checksum of its state than its files give."""
    opened = kaivc.open(home)
    repo = opened.agent(AGENT).repository
    oid = repo.ref(RefName(TAG))
    assert oid is not None
    tag = repo.store.tag(oid)
    commit = repo.store.commit(tag.target)
    stated = commit.message.split("Kai-State-Checksum: sha256:")[1][:64]
    message = commit.message.replace(stated, "0" * 64)
    made = put(
        repo, Kind.COMMIT, encode_commit(type(commit)(commit.tree, commit.parent, commit.who, commit.time, message))
    )
    forged = put(repo, Kind.TAG, encode_tag(Tag(type(tag.target)(made), tag.name, tag.who, tag.time, tag.message)))
    opened.close()
    put_ref(home, TAG, forged)


# ---------------------------------------------------------------- files


def view_path(home: Path, name: str) -> Path:
    """A file of the view of 1.1.0, writable."""
    path = home / AGENT / "versions/v1.1.0" / name
    if path.exists():
        path.chmod(0o600)
    return path


def view_file(home: Path) -> None:
    """A byte of a file."""
    view_path(home, "logic.py").chmod(0o700)
    view_path(home, "logic.py").write_bytes(b"print('twp')\n")
    view_path(home, "logic.py").chmod(0o500)


def view_line_ending(home: Path) -> None:
    """A line ending, which git would convert."""
    view_path(home, "run.bat").write_bytes(b"one\ntwo\n")


def view_missing(home: Path) -> None:
    """A file is gone."""
    Vfs().remove_tree(str(home / AGENT / "versions/v1.1.0/state/large.bin"))


def view_extra(home: Path) -> None:
    """A file that the version does not hold, where git does not look."""
    (home / AGENT / "versions/v1.1.0").chmod(0o700)
    (home / AGENT / "versions/v1.1.0/.git").mkdir()
    (home / AGENT / "versions/v1.1.0/.git/hook").write_text("x")


def view_meta(home: Path) -> None:
    """Other notes in snapshot_meta.json."""
    path = view_path(home, "snapshot_meta.json")
    path.write_bytes(path.read_bytes().replace(b"gr\xc3\xbcn", b"blau"))


def view_mode(home: Path) -> None:
    """A program that is no program any more."""
    view_path(home, "logic.py").chmod(0o400)


def link(home: Path) -> None:
    """`current` leads elsewhere."""
    (home / AGENT / "current").unlink()
    (home / AGENT / "current").symlink_to("versions/v1.0.0")


def rollback_log(home: Path) -> None:
    """A line of rollback.log says something else."""
    path = home / AGENT / "rollback.log"
    path.chmod(0o600)
    path.write_text(path.read_text().replace("long", "short"))


# ---------------------------------------------------------------- everything


def rewrite(home: Path) -> None:
    """Let Eve have done everything: the whole chain is made anew, and every digest and checksum fits."""
    db, pack = db_of(home), pack_of(home).read_bytes()
    prev = bytes(32)
    for seq, inline, offset in db.execute(
        "SELECT seq, payload, offset FROM ops WHERE agent = 1 ORDER BY seq"
    ).fetchall():
        start, length = (0, 0) if offset is None else payload_at(pack, offset)
        payload = inline if inline is not None else pack[start : start + length]
        fields = {**msgpack.unpackb(payload), "actor": EVE, "prev": prev}
        record = msgpack.packb(dict(sorted(fields.items())))
        prev = hashlib.sha256(record).digest()
        db.execute(
            "UPDATE ops SET payload = ?, digest = ?, pack = NULL, offset = NULL WHERE agent = 1 AND seq = ?",
            (record, prev, seq),
        )
    for row in db.execute(f"SELECT {REFLOG} FROM reflog WHERE agent = 1").fetchall():  # noqa: S608
        values = (*row[:5], EVE, *row[6:])
        db.execute(
            "UPDATE reflog SET actor = ?, checksum = ? WHERE agent = 1 AND seq = ? AND ord = ?",
            (EVE, checksum(*values), *row[:2]),
        )
    columns = "id, name, created_ns, op_seq, op_head, removed_ns"
    agent = list(db.execute(f"SELECT {columns} FROM agents WHERE id = 1").fetchone())  # noqa: S608
    agent[4] = prev
    db.execute("UPDATE agents SET op_head = ?, checksum = ? WHERE id = 1", (prev, checksum(*agent)))
    db.close()
    path = home / AGENT / "rollback.log"
    path.write_text(path.read_text().replace("Ann Example <ann@example.org>", EVE))
