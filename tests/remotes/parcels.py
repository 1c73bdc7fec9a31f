"""Parcels as a peer could make them: forged records, pushed through what every carrier ends in."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaivc.access import UserAccess
from kaivc.api import Home
from kaivc.names import ObjectId
from kaivc.serving import FarHome
from kaivc.storage.gitobjects import SHA256, Commit, Kind, Tag, encode_commit, encode_tag
from kaivc.storage.pack import MAGIC, encode
from kaivc.wire import Entry, Offer, Outcome, Update
from tests.engine.homes import commit, make_home
from tests.faults.hostile.forge import EMPTY, EVE, TIME, tree_bytes

AGENT = "bot"
TAG, CURRENT = f"refs/tags/{AGENT}/v6.6.6", f"refs/heads/{AGENT}/current"


def make(path: Path) -> None:
    """A home whose `bot` has v1.0.0 and v1.0.1, and a backup of what only its workspace held."""
    home = make_home(path)
    agent = home.new(AGENT)
    commit(agent, {"logic.py": b"one\n", "state.json": b"{}"})
    commit(agent, {"logic.py": b"two\n", "state.json": b"{}"})
    (agent.workspace / "state.json").write_bytes(b"only here, and secret")
    agent.rollback("v1.0.0")
    agent.rollback("v1.0.1")
    home.close()


def message(version: str | None = "6.6.6", parent: str | None = None, notes: str = "evil", state: str = EMPTY) -> str:
    """What a commit of a version says, checksums for a tree without state and configuration."""
    lines = [f"{notes}\n\nKai-Format: 1"]
    lines += [f"Kai-Version: {version}"] if version else []
    lines += [f"Kai-Parent-Version: {parent}"] if parent else []
    lines += ["Kai-Snapshot-Type: manual", f"Kai-State-Checksum: {state}", f"Kai-Config-Checksum: {EMPTY}"]
    return "\n".join(lines) + "\n"


@dataclass
class Parcel:
    """Records that are about to be sent, and moves; ``count`` and ``tail`` are what is told, and what comes behind."""

    records: list[bytes] = field(default_factory=list)
    moves: list[Update] = field(default_factory=list)
    count: int | None = None
    tail: bytes = b""
    agent: str = AGENT
    tagged: bytes = bytes(32)

    # ------------------------------------------------------------ records

    def put(self, kind: int, data: bytes, oid: bytes | None = None) -> ObjectId:
        """An object under its own id, or a false one."""
        found = oid or SHA256.hash(Kind(kind), data)
        self.records.append(encode(kind, found, data, 3))
        return ObjectId(found)

    def blob(self, data: bytes) -> ObjectId:
        return self.put(Kind.BLOB, data)

    def tree(self, *entries: tuple[bytes, bytes, bytes]) -> ObjectId:
        """Of (mode, name, id), as they are given."""
        return self.put(Kind.TREE, tree_bytes(entries))

    def good_tree(self) -> ObjectId:
        return self.tree((b"100644", b"logic.py", self.blob(b"evil\n")))

    def commit(self, tree: bytes, text: str | None = None, parent: bytes | None = None) -> ObjectId:
        said = message() if text is None else text
        return self.put(
            Kind.COMMIT, encode_commit(Commit(ObjectId(tree), ObjectId(parent) if parent else None, EVE, TIME, said))
        )

    def tag(self, oid: bytes, name: str | None = None, notes: str = "evil") -> ObjectId:
        self.tagged = oid
        found = Tag(ObjectId(oid), name or f"{self.agent}/v6.6.6", EVE, TIME, notes + "\n")
        return self.put(Kind.TAG, encode_tag(found))

    # ------------------------------------------------------------ moves

    def move(self, ref: str, old: bytes | None, new: bytes | None) -> None:
        self.moves.append(Update(ref, old, new))

    def version(self, tree: bytes | None = None, **words: Any) -> ObjectId:
        """v6.6.6 of this tree, and its tag; its commit."""
        oid = self.commit(tree or self.good_tree(), **words)
        self.move(f"refs/tags/{self.agent}/v6.6.6", None, self.tag(oid))
        return oid

    # ------------------------------------------------------------ sent

    def push(self, home: Home, op_id: str = "op-evil") -> Outcome:
        """Put it, then ask for the entry."""
        data = b"".join([MAGIC, *self.records]) + self.tail
        count = len(self.records) if self.count is None else self.count
        offer = Offer(hashlib.sha256(data).hexdigest(), count, len(data))
        far = FarHome(home.opened, UserAccess(home.opened))
        assert far.put(self.agent, offer, 0, [data]) == len(data)
        return far.append(self.agent, Entry(op_id, EVE, "evil", tuple(self.moves), offer))


def everything(home: Home) -> dict[str, object]:
    """All that a refused parcel must leave as it was: names, history, index, and every file but locks and caches."""
    root = Path(home.opened.layout.root)
    db = sqlite3.connect(root / ".kai/catalog.sqlite")
    try:
        tables: dict[str, object] = {
            name: sorted(map(repr, db.execute(f"SELECT * FROM {name}")))  # noqa: S608 - our own tables
            for name in ("agents", "refs", "ops", "reflog", "objects", "packs", "intents", "former")
        }
    finally:
        db.close()
    return tables | {str(path.relative_to(root)): _content(path) for path in _files(root)}


def _files(root: Path) -> Iterable[Path]:
    skipped = {root / ".kai/locks", root / ".kai/log"}
    for path in sorted(root.rglob("*")):
        if path.name.startswith("catalog.sqlite") or skipped & {path, *path.parents}:
            continue
        if path.parent == root / ".kai/incoming" or path == root / ".kai/incoming":
            continue  # an empty directory says nothing
        yield path


def _content(path: Path) -> object:
    return os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
