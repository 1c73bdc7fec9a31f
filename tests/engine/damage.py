"""Homes with much in them, ways to damage them, and what must hold whatever is damaged."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kaivc import api
from kaivc.api import Agent, Home
from kaivc.errors import KaiError
from kaivc.ops.fsck import Fscked
from kaivc.storage import packscan
from kaivc.storage.pack import MAGIC, PREFIX
from kaivc.storage.packscan import Gap
from kaivc.vfs import Vfs
from tests.engine.homes import ENVIRON, Files, Ticking, make_home, read, write

CATALOG = ".kai/catalog.sqlite"


def fsck(path: Path, *, repair: bool = False, dry_run: bool = False, vfs: Vfs | None = None) -> Fscked:
    """`kai fsck`, with nothing from the machine."""
    clock, flags = Ticking(1_900_000_000), {"chunks.threshold": "64KiB", "packs.seal_at": "64KiB"}
    return api.fsck(path, repair=repair, dry_run=dry_run, environ=ENVIRON, flags=flags, clock=clock, vfs=vfs)


def said(found: Fscked) -> str:
    """All findings, to be looked at when a test fails."""
    return "\n".join(str(it) for it in found.all)


# ---------------------------------------------------------------- homes


def small(path: Path) -> None:
    """Two agents with a few versions each, a large file, a backup, an undo; several packs."""
    home = make_home(path, packs__seal_at="64KiB", chunks__threshold="64KiB")
    source = random.Random(5)
    large = source.randbytes(150_000)
    for name in ("bot", "cat"):
        agent = home.new(name)
        for number in range(4):
            files = {
                "logic.py": b"print(%d)\n" % number * 40,
                "config.yaml": b"a: %d\n" % (number // 2),
                "lib/deep/part.py": source.randbytes(300),
                "state/large.bin": large[: 90_000 + 20_000 * number],
                "state.json": b'{"n": %d}' % number,
            }
            write(agent.workspace, files)
            agent.commit(bump="minor", notes=f"number {number}", op_id=f"commit-{name}-{number}")
        agent.rollback("v1.1.0", reason="back")
        write(agent.workspace, {"logic.py": b"dirty\n", "new.txt": source.randbytes(50)})
        agent.rollback("v1.0.0", reason="further back")
        agent.undo()
        (agent.workspace / "dirty.txt").write_bytes(b"not committed\n")
    home.close()


def tiny(path: Path) -> None:
    """One agent, two versions, a backup: what is looked at again and again."""
    home = make_home(path, packs__seal_at="64KiB", chunks__threshold="64KiB")
    agent = home.new("bot")
    large = random.Random(6).randbytes(66_000)
    for number in range(2):
        write(agent.workspace, {"logic.py": b"print(%d)\n" % number * 9, "lib/part.py": b"1", "large.bin": large})
        agent.commit(notes=f"number {number}")
    write(agent.workspace, {"logic.py": b"dirty\n", "large.bin": large})
    agent.rollback("v1.0.0")
    home.close()


def contents(home: Home) -> dict[str, dict[str, Files]]:
    """The files of every version and backup of every agent."""
    return {name: dict(_contents(home.agent(name))) for name in home.agents()}


def _contents(agent: Agent) -> Iterator[tuple[str, Files]]:
    repo = agent.repository
    for ref in repo.refs("refs/"):
        rev = ref.removeprefix(f"refs/tags/{agent.name}/").removeprefix(f"refs/heads/{agent.name}/")
        target = Path(repo.layout.root).parent / "out"
        agent.checkout(rev, str(target))
        yield rev, read(target)
        Vfs().remove_tree(str(target))


def no_wrong_bytes(home: Home, truth: dict[str, dict[str, Files]]) -> set[str]:
    """Every version reads as it was or not at all; those that do not."""
    broken = set()
    for name, versions in truth.items():
        agent = home.agent(name)
        for rev, files in versions.items():
            target = home.path.parent / "out"
            try:
                agent.checkout(rev, str(target))
            except KaiError:
                broken.add(f"{name}@{rev}")
            else:
                assert read(target) == files, f"{name}@{rev} came back wrong"
            Vfs().remove_tree(str(target))
    return broken


# ---------------------------------------------------------------- rows

COLUMNS = {
    "agents": "name, op_seq, op_head, removed_ns != 0",
    "former": "name, (SELECT name FROM agents WHERE id = agent)",
    "refs": "(SELECT name FROM agents WHERE id = agent), name, oid",
    "reflog": "(SELECT name FROM agents WHERE id = agent), seq, ord, ref, old, new, actor, time_ns, reason, verb,"
    " op_id, undoes, backup, workspace",
    "ops": "(SELECT name FROM agents WHERE id = agent), seq, op_id, digest",
    "objects": "(SELECT name FROM agents WHERE id = agent), id, kind, size",
    "meta": "key, value",
}


def rows(path: Path) -> dict[str, list[Any]]:
    """What the catalog holds, but for numbers that mean nothing outside it."""
    db = sqlite3.connect(path / CATALOG)
    found = {
        table: sorted(map(repr, db.execute(f"SELECT {what} FROM {table}")))  # noqa: S608 - own names
        for table, what in COLUMNS.items()
    }
    db.close()
    return found


def remove_catalog(path: Path) -> None:
    """It, and what SQLite keeps beside it."""
    for name in (path / ".kai").glob("catalog.sqlite*"):
        name.unlink()


# ---------------------------------------------------------------- bytes


def packs(path: Path) -> list[Path]:
    """All packs of a home."""
    return sorted((path / ".kai/packs").glob("*/*.pack"))


def regions(pack: Path) -> Iterator[tuple[str, int, int]]:
    """What a pack is made of: (what, first byte, end)."""
    reader = packscan.open_reader(str(pack))
    size = packscan.size(reader)
    yield "magic", 0, len(MAGIC)
    end = len(MAGIC)
    for item in packscan.survey(reader, len(MAGIC), size):
        assert not isinstance(item, Gap)
        head, at = item.header, item.header.where.offset
        yield f"prefix {head.kind}", at, at + PREFIX.size
        yield f"header {head.kind}", at + PREFIX.size, head.payload_at - 4
        yield f"check4 {head.kind}", head.payload_at - 4, head.payload_at
        if head.payload_len:
            yield f"payload {head.kind}", head.payload_at, head.payload_at + head.payload_len
        yield f"check8 {head.kind}", item.end - 8, item.end
        end = item.end
    if end < size:
        yield "trailer", end, size
    reader.close()


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Change one bit of a file, whatever its mode."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)
    path.chmod(mode)
