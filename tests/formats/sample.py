"""A home that has something of everything, and what there is to say of it, so that later releases can be asked."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import stat
from pathlib import Path
from typing import Any

import kaivc
from kaivc.api import Agent, Home
from kaivc.vfs import Vfs
from tests.engine.homes import ENVIRON, Ticking

Said = dict[str, Any]

SETTINGS = {
    "chunks.threshold": "128 KiB",
    "packs.seal_at": "192 KiB",
    "backups.keep": "2",
    "backups.max_age": "0s",
    "reflog.expire": "0s",
    "views.keep": "3",
}
"""So that a small home has large files, sealed packs and something to collect."""

MANIFEST = b"""\
files:
  state: [state.json, "data/**"]
state:
  keep: [notes.txt]
  monotonic: [{path: counter.json, pointer: /count}]
  secret: [{path: key.txt, name: API_KEY}]
"""


def opened(path: Path) -> Home:
    """The home at a path, with the sample's settings and a clock of its own."""
    return kaivc.open(path, environ=ENVIRON, clock=Ticking(), flags=SETTINGS)


# ---------------------------------------------------------------- making


def make(path: Path, object_format: str, seed: int = 7) -> Said:
    """Make a home of the format that this release writes; what is to be found in it."""
    kaivc.init(path, object_format, environ=ENVIRON, clock=Ticking()).close()
    home = opened(path)
    _bot(home, random.Random(seed))
    _others(home)
    home.close()
    home = opened(path)
    home.agent("bot").gc()
    said = tell(home, path.parent / "out")
    home.close()
    return said


def _bot(home: Home, chance: random.Random) -> None:
    agent = home.new("bot")
    top = agent.workspace
    words = [chance.randbytes(4).hex() for _ in range(400)]
    (top / "lib" / "deep" / "er").mkdir(parents=True)
    (top / "data").mkdir()
    for number in range(40):
        (top / "lib" / f"part{number}.py").write_text(f"# part {number}\n" + " ".join(chance.choices(words, k=60)))
    (top / "main.py").write_bytes(b"#!/usr/bin/env python3\nprint('hello')\n")
    (top / "main.py").chmod(0o755)
    (top / "lib" / "deep" / "er" / "empty").write_bytes(b"")
    (top / "link").symlink_to("lib/part1.py")
    Path(os.fsdecode(os.fsencode(top) + b"/odd \xff\xc3\xa4")).write_bytes(b"a name that is no UTF-8\n")
    (top / "kai.yaml").write_bytes(MANIFEST)
    (top / "key.txt").write_bytes(b"never stored\n")
    (top / ".kaiignore").write_bytes(b"*.tmp\n")
    with sqlite3.connect(top / "data" / "rows.db") as db:
        db.execute("CREATE TABLE it (id INTEGER PRIMARY KEY, word TEXT)")
    db.close()
    state = [" ".join(chance.choices(words, k=6)) for _ in range(500)]
    large = [" ".join(chance.choices(words, k=8)) for _ in range(6000)]
    for number in range(12):
        state[chance.randrange(500)] = f"edited in {number}"
        large.insert(chance.randrange(6000), f"a line of {number}")
        (top / "state.json").write_text("\n".join(state))
        (top / "data" / "log.jsonl").write_text("\n".join(large))
        (top / "counter.json").write_text(f'{{"count": {number}}}')
        (top / "notes.txt").write_text(f"note {number}")
        with sqlite3.connect(top / "data" / "rows.db") as db:
            db.executemany("INSERT INTO it (word) VALUES (?)", [(word,) for word in chance.choices(words, k=20)])
        db.close()
        agent.commit(bump="minor", notes=f"The {number}. edit\n\nWith a second paragraph, and \u00e9.")
    agent.commit(version="3.0.0-rc.1", allow_empty=True, snapshot_type="auto")
    for number, version in enumerate(["v1.2.0", "v1.7.0", "v1.0.0", "v1.11.0"]):
        (top / "state.json").write_text(f"not committed {number}")
        agent.rollback(version, reason=f"back to {version}")
    agent.undo(reason="rather not")
    agent.redo()
    agent.restore("lib", source="v1.3.0", reason="only the library")


def _others(home: Home) -> None:
    for name in ("old", "gone"):
        agent = home.new(name)
        for number in range(3):
            (agent.workspace / "file").write_text(f"{name} {number}\n")
            agent.commit(bump="patch")
    home.rename("old", "renamed", reason="a better name")
    home.remove("gone", reason="not needed")
    home.new("fork", source="bot@v1.5.0").commit(bump="major", allow_empty=True)


# ---------------------------------------------------------------- telling


def tell(home: Home, scratch: Path) -> Said:
    """All that a home of any format must say the same of: agents, versions, files, refs, the log, the workspace."""
    said: Said = {"home_id": home.opened.id, "object_format": home.opened.format.name, "agents": {}}
    for name in sorted(home.agents(removed=True)):
        said["agents"][name] = _agent(home, home.agent(name), scratch)
    return said


def _agent(home: Home, agent: Agent, scratch: Path) -> Said:
    lives = agent.name in home.agents()
    versions = {}
    for it in agent.versions():
        agent.checkout(it.tag, scratch)
        versions[it.tag] = {"commit": it.commit, "notes": it.notes, "created": it.created, "files": _files(scratch)}
        Vfs().remove_tree(str(scratch))
    repo = agent.repository
    return {
        "versions": versions,
        "refs": {name: oid.hex() for name, oid in sorted(repo.refs("refs/").items())},
        "log": [
            [it.seq, it.ref, it.old and it.old.hex(), it.new and it.new.hex(), it.verb, it.reason, it.time_ns]
            for it in agent.reflog(None).entries
        ],
        "head": repo.row().op_head.hex(),
        "current": agent.current.tag if lives else None,
        "workspace": _files(agent.workspace) if lives else None,
    }


def _files(top: Path) -> dict[str, list[str]]:
    """What lies below a directory: for each path its kind and the SHA-256 of its bytes."""
    found = {}
    for directory, _, names in os.walk(os.fsencode(top)):
        for name in names:
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                kind, data = "link", os.readlink(path)
            else:
                kind, data = "program" if mode & stat.S_IXUSR else "file", Path(os.fsdecode(path)).read_bytes()
            shown = os.path.relpath(path, os.fsencode(top)).decode("utf-8", "backslashreplace")
            found[shown] = [kind, hashlib.sha256(data).hexdigest()]
    return dict(sorted(found.items()))
