"""Place in a home what no kaivc writes, in its own formats, as a peer or somebody with an editor would."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgpack

from kaivc.names import ObjectId, Version, backup_ref, current_ref, version_ref
from kaivc.repository import Repository
from kaivc.storage import index, journal
from kaivc.storage.catalog import checksum
from kaivc.storage.compression import compress_after
from kaivc.storage.gitobjects import DIRECTORY, FILE, SHA256, Commit, Kind, Tag, encode_commit, encode_tag
from kaivc.storage.index import ObjectRow, PackRow
from kaivc.storage.journal import Move, Op
from kaivc.storage.pack import MAGIC, PREFIX, Codec, Key, RecordKind, _check8, encode
from kaivc.vfs import Vfs
from tests.engine.homes import make_home, open_home, write

AGENT = "summarizer"
EVE = "Eve <eve@example.org>"
TIME = 1_790_000_500
EVIL = Version.parse("6.6.6")
EMPTY = "sha256:" + SHA256.new().hexdigest()
NOTHING = bytes(32)

Entries = Iterable[tuple[bytes, bytes, bytes]]
"""(mode, name, id) as they are to stand in a tree."""


def make(path: Path) -> None:
    """A home whose agent has three versions and a backup; the workspace is clean."""
    home = make_home(path, packs__seal_at="64KiB")
    agent = home.new(AGENT)
    files = {"logic.py": b"print('one')\n", "config.yaml": b"depth: 3\n", "state.json": b"{}\n", "src/a.py": b"a\n"}
    write(agent.workspace, files)
    agent.commit(notes="the first")
    write(agent.workspace, files | {"logic.py": b"print('two')\n"})
    agent.commit(bump="minor", notes="the second")
    write(agent.workspace, files | {"state.json": b'{"n": 1}\n'})
    agent.rollback("v1.0.0", reason="back")
    write(agent.workspace, files | {"logic.py": b"print('three')\n"})
    agent.commit(version="2.0.0", notes="the third")
    home.close()


def record(kind: int, id_: bytes, data: bytes, size: int | None = None, *, codec: int = Codec.RAW) -> bytes:
    """A record as it is told: its checksums fit, nothing else need be true."""
    header = msgpack.packb({int(Key.ID): id_, int(Key.SIZE): len(data) if size is None else size})
    return whole(kind, header, data, codec)


def whole(kind: int, header: bytes, payload: bytes, codec: int = Codec.RAW, payload_len: int | None = None) -> bytes:
    """A record of any header and payload, under checksums that fit."""
    length = len(payload) if payload_len is None else payload_len
    head = PREFIX.pack(b"KR", kind, codec, len(header), 0, length) + header
    return head + _check8(head)[:4] + payload + _check8(payload)


def tree_bytes(entries: Entries) -> bytes:
    """A tree in the order that is given."""
    return b"".join(mode + b" " + name + b"\0" + oid for mode, name, oid in entries)


@dataclass
class Forge:
    """One home to put things into; nothing is visible before ``land``."""

    path: Path

    def __post_init__(self) -> None:
        self.home = open_home(self.path)
        self.repo: Repository = self.home.agent(AGENT).repository
        self.records: list[tuple[bytes, int, bytes, int, bytes | None]] = []
        self.blocks: list[tuple[bytes, list[tuple[bytes, int, int, int]]]] = []
        self.moves: list[Move] = []
        self.sql: list[tuple[str, tuple[object, ...]]] = []

    # ------------------------------------------------------------ objects

    def put(self, kind: int, data: bytes, id_: bytes | None = None, size: int | None = None) -> ObjectId:
        """A record of an object under its own id, or a false one; ``size`` is what the index is to say."""
        oid = id_ or SHA256.hash(Kind(kind), data)
        self.raw(oid, kind, encode(kind, oid, data, 3), len(data) if size is None else size)
        return ObjectId(oid)

    def raw(self, id_: bytes, kind: int, stored: bytes, size: int, base: bytes | None = None) -> bytes:
        """A record as it is; ``base`` is what the index is to say."""
        self.records.append((id_, kind, stored, size, base))
        return id_

    def after(self, base: bytes, ordinal: object, id_: bytes, data: bytes, prefix: bytes, kind: int = 1) -> bytes:
        """A record that says it is encoded with another one."""
        header = {int(Key.ID): id_, int(Key.SIZE): len(data), int(Key.BASE): base, int(Key.ORDINAL): ordinal}
        frame = compress_after(prefix, data)
        return self.raw(id_, kind, whole(kind, msgpack.packb(header), frame, Codec.ZSTD_PREFIX), len(data), base)

    def block(self, stored: bytes, *rows: tuple[bytes, int, int, int]) -> bytes:
        """A record that several objects share; (id, kind, size, within) are what the index is to say of each."""
        self.blocks.append((stored, list(rows)))
        return rows[0][0]

    def blob(self, data: bytes) -> ObjectId:
        return self.put(Kind.BLOB, data)

    def tree(self, *entries: tuple[bytes, bytes, bytes]) -> ObjectId:
        return self.put(Kind.TREE, tree_bytes(entries))

    def files(self, **files: bytes) -> ObjectId:
        """A tree of plain files; two underscores stand for a dot."""
        named = sorted((name.replace("__", ".").encode(), data) for name, data in files.items())
        return self.tree(*((b"100644", name, self.blob(data)) for name, data in named))

    # ------------------------------------------------------------ names

    def message(self, version: str | None = "6.6.6", notes: str = "evil", kind: str = "manual") -> str:
        lines = [f"{notes}\n\nKai-Format: 1"]
        lines += [f"Kai-Version: {version}"] if version else []
        lines += [f"Kai-Snapshot-Type: {kind}", f"Kai-State-Checksum: {EMPTY}", f"Kai-Config-Checksum: {EMPTY}"]
        return "\n".join(lines) + "\n"

    def version(self, tree: bytes, notes: str = "evil", parent: bytes | None = None, who: str = EVE) -> ObjectId:
        """A commit and a tag of version 6.6.6 with this tree."""
        commit = Commit(ObjectId(tree), ObjectId(parent) if parent else None, who, TIME, self.message(notes=notes))
        return self.tagged(encode_commit(commit), notes=notes, who=who)

    def tagged(self, commit: bytes, notes: str = "evil", who: str = EVE) -> ObjectId:
        """Version 6.6.6 is the commit of these bytes."""
        oid = self.put(Kind.COMMIT, commit)
        self.tag_of(encode_tag(Tag(oid, f"{AGENT}/v6.6.6", who, TIME, notes + "\n")))
        return oid

    def tag_of(self, tag: bytes) -> ObjectId:
        """Version 6.6.6 is the tag of these bytes."""
        oid = self.put(Kind.TAG, tag)
        self.ref(version_ref(AGENT, EVIL), oid)
        return oid

    def ref(self, name: str, oid: bytes | None) -> None:
        """A ref, with an op record that made it."""
        self.moves.append(Move(name, journal.ref(self.repo.catalog, self.repo.id, name), oid))

    def backup(self, tree: bytes) -> None:
        commit = Commit(ObjectId(tree), self.repo.current, EVE, TIME, self.message(None, kind="rollback"))
        self.ref(backup_ref(AGENT, 66), self.put(Kind.COMMIT, encode_commit(commit)))

    def in_force(self, oid: bytes) -> None:
        self.ref(current_ref(AGENT), oid)

    def row(self, sql: str, *args: object) -> None:
        """A statement for the catalog, after everything else."""
        self.sql.append((sql, args))

    # ------------------------------------------------------------ done

    def land(self) -> None:
        """Write it all, in one pack, one operation and one transaction."""
        name = secrets.token_hex(8)
        offset, pieces, rows = len(MAGIC), [MAGIC], []
        seen: set[bytes] = set()
        for oid, kind, stored, size, base in self.records:
            if oid not in seen:
                seen.add(oid)
                rows.append(ObjectRow(oid, kind, 0, offset, len(stored), size, base))
                pieces.append(stored)
                offset += len(stored)
        for stored, of_block in self.blocks:
            rows += [ObjectRow(oid, kind, 0, offset, len(stored), size, None, at) for oid, kind, size, at in of_block]
            pieces.append(stored)
            offset += len(stored)
        Path(self.repo.layout.pack(AGENT, name)).write_bytes(b"".join(pieces))
        catalog, home_id = self.repo.catalog, self.repo.home.id
        with catalog.transaction() as db:
            pack = index.put_pack(db, PackRow(0, self.repo.id, name, "open", offset))
            index.put_objects(db, self.repo.id, (row._replace(pack=pack) for row in rows))
            if self.moves:
                op = Op("commit", secrets.token_hex(8), EVE, TIME * 10**9, "evil")
                journal.append_op(db, home_id, self.repo.row(), op, self.moves)
                for move in self.moves:
                    journal.put_ref(db, self.repo.id, move.ref, move.new)
        self.home.close()
        if self.sql:
            with sqlite3.connect(self.path / ".kai/catalog.sqlite", isolation_level=None) as db:
                db.create_function("fit", -1, checksum)  # the checksum of a row, for those who change one
                for sql, args in self.sql:
                    db.execute(sql, args)
            db.close()


def dispose(path: Path) -> None:
    """Remove a sandbox, read-only views and all."""
    if path.exists():
        Vfs().remove_tree(str(path))


__all__ = ["AGENT", "DIRECTORY", "EVE", "FILE", "NOTHING", "Forge", "RecordKind", "dispose", "make", "record", "whole"]
