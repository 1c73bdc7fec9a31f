"""Commands to be cut: what was there before, what is acknowledged after, and how to tell either in a home."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import kaivc
from kaivc import api, intents, sandboxes, scratch, workspace
from kaivc.api import Home
from kaivc.errors import StorageError
from kaivc.sqlitefiles import MAGIC, SIDE_SUFFIXES
from kaivc.vfs import Vfs
from tests.engine.homes import ENVIRON, Files, Ticking, open_home, read, remove, write
from tests.engine.overlays import Planted
from tests.faults import transfers

DATABASE = "state.db"
V1: Files = {"logic.py": b"one\n", "config.yaml": b"a: 1\n", "state/log.txt": b"1\n" * 500, "only1.txt": b"x"}
V2: Files = {"logic.py": b"two\n", "config.yaml": b"a: 2\n", "state/log.txt": b"2\n" * 600, "deep/er/file": b"y"}
V3: Files = {"logic.py": b"three\n", "config.yaml": b"a: 3\n", "state/log.txt": b"3\n" * 700, "deep/er/file": b"z"}
DIRTY: Files = {"logic.py": b"dirty\n", "config.yaml": b"a: 2\n", "state/log.txt": b"live\n", "new.txt": b"n"}


@dataclass(frozen=True)
class Told:
    """What a home says of itself: names and what they point at, the workspace of each agent, and what the home's
    ``own`` files say of tokens, roles and remotes."""

    refs: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[str, Files] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[object, object]:
        """What a command moves at once."""
        return self.refs, self.own


def told(home: Home) -> Told:
    """Ask a home. A database counts as its rows: to be locked, it may be written in another mode."""
    refs: dict[str, dict[str, str]] = {}
    files: dict[str, Files] = {}
    for name in home.agents(removed=True):
        agent = home.agent(name)
        refs[name] = {ref: _what(agent, ref, oid) for ref, oid in agent.repository.refs("refs/").items()}
    layout = home.opened.layout
    texts = [Path(name) for name in (layout.access, layout.remotes)]
    own = {text.name: text.read_text(encoding="utf-8") for text in texts if text.exists()}
    for name in home.agents():
        workspace = home.agent(name).workspace
        files[name] = {path: _rows(workspace / path, data) for path, data in read(workspace).items() if _counts(path)}
    return Told(refs, files, own)


def _what(agent: kaivc.api.Agent, ref: str, oid: bytes) -> str:
    """What a ref points at; of a backup that holds a database what it holds, for it may have been taken twice."""
    if "/backups/" not in ref or DATABASE not in {entry.path for entry in agent.ls_tree(oid.hex()).entries}:
        return oid.hex()
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "backup"
        agent.checkout(oid.hex(), target)
        return repr({path: _rows(target / path, data) for path, data in sorted(read(target).items())})


def _counts(path: str) -> bool:
    return not path.endswith(tuple(os.fsdecode(suffix) for suffix in SIDE_SUFFIXES))


def _rows(path: Path, data: bytes) -> bytes:
    if not data.startswith(MAGIC):
        return data
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return "\n".join(db.iterdump()).encode()


@dataclass(frozen=True)
class Story:
    """``prepare`` makes a home at a path, ``act`` is the command that is cut, ``again`` what a user does after a cut
    before the home is asked anything; None is nothing. ``also`` looks at what else it leaves, and is told whether the
    command was acknowledged. ``first`` is what goes before it, recorded as well and not cut."""

    name: str
    prepare: Callable[[Path], None]
    act: Callable[[Path, Vfs], None]
    again: Callable[[Path], None] | None = None
    also: Callable[[Path, bool], None] | None = None
    first: Callable[[Path, Vfs], None] | None = None


LATER = 1_800_000_000
"""When the commands are run: what ``prepare`` made is old by then."""


def _layers(path: Path) -> str:
    return f"{path}-layers"


def clear(path: Path) -> None:
    """Remove a home and what its sandboxes wrote, so that the next run finds what the first one found."""
    remove(path)
    Vfs().remove_tree(_layers(path))


def _open(path: Path, vfs: Vfs) -> Home:
    flags = {"chunks.threshold": "64 KiB", "backups.keep": "0", "backups.max_age": "0s"}
    flags["isolation.temp_dir"] = _layers(path)  # not there: what lies in that of the machine is no test's
    return kaivc.open(path, environ=ENVIRON, clock=Ticking(LATER), vfs=vfs, flags=flags)


def three_versions(path: Path) -> None:
    """Three versions, ``current`` at the second, the workspace dirty."""
    kaivc.init(path, environ=ENVIRON).close()
    home = open_home(path)
    agent = home.new("bot")
    for files in (V1, V2, V3):
        write(agent.workspace, files)
        agent.commit(bump="minor")
    agent.rollback("v1.1.0")
    write(agent.workspace, DIRTY)
    home.close()


IGNORED: Files = {".kaiignore": b"cache/\n", "cache/x": b"no version holds it"}


def with_ignored(path: Path) -> None:
    """As three versions, and a file that is ignored."""
    three_versions(path)
    write(path / "bot" / "workspace", IGNORED)


def _ignored_stays(path: Path, _: bool) -> None:
    """What no version holds is there, in the workspace or where the removed agent left it."""
    [kept] = [it for it in (path / "bot", path / ".kai" / "removed" / "bot") if (it / "workspace/cache/x").exists()]
    assert (kept / "workspace/cache/x").read_bytes() == IGNORED["cache/x"]


def undoable(path: Path) -> None:
    """As three versions, and a rollback of the dirty workspace to the first one."""
    three_versions(path)
    home = open_home(path)
    home.agent("bot").rollback("v1.0.0")
    home.close()


def nothing(path: Path) -> None:
    """An empty directory."""
    path.mkdir()


def empty(path: Path) -> None:
    """A home without agents."""
    kaivc.init(path, environ=ENVIRON).close()


def _init(path: Path, vfs: Vfs) -> None:
    kaivc.init(path, environ=ENVIRON, clock=Ticking(), vfs=vfs).close()


def on_bot(verb: Callable[[kaivc.api.Agent], object]) -> Callable[[Path, Vfs], None]:
    def act(path: Path, vfs: Vfs) -> None:
        with closing(_open(path, vfs)) as home:
            verb(home.agent("bot"))

    return act


def on_home(verb: Callable[[Home, Path], object]) -> Callable[[Path, Vfs], None]:
    def act(path: Path, vfs: Vfs) -> None:
        with closing(_open(path, vfs)) as home:
            verb(home, path)

    return act


def _as_of_many(act: Callable[[Path, Vfs], None]) -> Callable[[Path, Vfs], None]:
    """Let a few files be so many that the disk is synced as a whole."""

    def acted(path: Path, vfs: Vfs) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workspace, "MANY", 2)
            act(path, vfs)

    return acted


def with_large(path: Path) -> None:
    """As three versions, and a file that is stored in chunks."""
    three_versions(path)
    data = b"".join(number.to_bytes(4, "big") * 16 for number in range(8000))
    (path / "bot" / "workspace" / "large.bin").write_bytes(data)


def _new(path: Path, vfs: Vfs) -> None:
    with closing(_open(path, vfs)) as home:
        home.new("bot", source=os.fspath(_beside(path, "source", V1)))


def _beside(path: Path, name: str, files: Files) -> Path:
    """A directory beside the home, which a command reads."""
    source = path.parent / name
    if not source.exists():
        source.mkdir()
        write(source, files)
        for each in source.rglob("*"):
            os.utime(each, (1_780_000_000, 1_780_000_000))
    return source


FOLDERS: Files = {
    f"{where}/{name}": data
    for where, files in {"versions/v1.0.0": V1, "versions/v1.1.0": V2, "workspace": DIRTY}.items()
    for name, data in files.items()
}


def _database(path: Path, rows: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE IF NOT EXISTS t (x)")
        db.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(rows)])


def with_database(path: Path) -> None:
    """As three versions, each with a database, which the workspace has gone on writing."""
    kaivc.init(path, environ=ENVIRON).close()
    with closing(open_home(path)) as home:
        agent = home.new("bot")
        for number, files in enumerate((V1, V2, V3)):
            write(agent.workspace, {**files, "state.db": _there(agent.workspace / "state.db")})
            _database(agent.workspace / "state.db", number + 1)
            agent.commit(bump="minor")
        agent.rollback("v1.1.0")
        write(agent.workspace, {**DIRTY, "state.db": _there(agent.workspace / "state.db")})
        _database(agent.workspace / "state.db", 7)


def _there(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def with_directory(path: Path) -> None:
    """A home without agents, and beside it a directory that somebody works in."""
    empty(path)
    _beside(path, "linked", V1)


def clean(path: Path) -> None:
    """As three versions, with nothing in the workspace that a version does not hold."""
    three_versions(path)
    with closing(open_home(path)) as home:
        home.agent("bot").restore()


def with_snapshot(path: Path) -> None:
    """As three versions, and a committed snapshot of the one in force."""
    three_versions(path)
    with closing(open_home(path, isolation__temp_dir=_layers(path))) as home:
        _test(home.agent("bot"))
    Vfs().remove_tree(_layers(path))


def _test(agent: kaivc.api.Agent) -> None:
    """A test that passes, and is committed, by the same name each time; its sandbox only writes a layer."""
    usual, named, planted = sandboxes.chosen, scratch.new_id, Planted()
    sandboxes.chosen = lambda require: (planted, planted.ability())
    scratch.new_id = lambda now_ns: "261122-205340-9f3c1a"
    try:
        agent.snapshot_test("current", "x", commit=True)
    finally:
        sandboxes.chosen, scratch.new_id = usual, named


def _the_snapshot(agent: kaivc.api.Agent) -> str:
    return agent.snapshot_list().snapshots[0].id


def with_tokens(path: Path) -> None:
    """As three versions, and two tokens."""
    three_versions(path)
    with closing(open_home(path)) as home:
        for name in ("reader", "writer"):
            home.token_add(name, "viewer")


def redoable(path: Path) -> None:
    """As undoable, and undone."""
    undoable(path)
    with closing(open_home(path)) as home:
        home.agent("bot").undo()


def collectable(path: Path) -> None:
    """Backups that expire, a sealed pack to be rewritten, and one that only they need."""
    kaivc.init(path, environ=ENVIRON).close()
    chance = random.Random(5)
    with closing(open_home(path, packs__seal_at="64 KiB", chunks__threshold="64 KiB")) as home:
        agent = home.new("bot")
        for number in range(2):
            write(agent.workspace, {**V1, "state.json": chance.randbytes(40_000), "n": b"%d" % number})
            agent.commit(bump="minor")
        for number in range(4):
            write(agent.workspace, {**V1, "state.json": chance.randbytes(90_000), "n": b"%d" % number})
            agent.rollback(f"v1.{number % 2}.0")


def damaged(path: Path) -> None:
    """As undoable, with no catalog."""
    undoable(path)
    for each in (path / ".kai").glob("catalog.sqlite*"):
        each.unlink()


def half_restored(path: Path) -> None:
    """As three versions, and a rollback that was killed when its names had moved, and nothing else."""
    three_versions(path)
    pid = os.fork()
    if pid == 0:
        intents.finish_landed = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        on_bot(lambda agent: agent.rollback("v1.0.0"))(path, Vfs())
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def _collect(agent: kaivc.api.Agent) -> None:
    agent.repository.home.clock.seconds = 1_800_000_000  # type: ignore[attr-defined]
    agent.gc()


def _import(home: Home, path: Path) -> None:
    home.import_(_beside(path, "folders", FOLDERS), name="bot")


class Unrepaired(StorageError):
    """A repair that has ended, and says that something is still damaged."""

    code = "found"


def _repair(path: Path, vfs: Vfs) -> None:
    done = api.fsck(path, repair=True, environ=ENVIRON, clock=Ticking(), vfs=vfs)
    if not done.ok:
        raise Unrepaired(f"left: {done.all}", hint="repair again")


def _recover(path: Path, vfs: Vfs) -> None:
    with closing(_open(path, vfs)) as home:
        home.agent("bot").load()


STORIES = {
    story.name: story
    for story in (
        Story("init", nothing, _init),
        Story("new", empty, _new),
        Story("commit", three_versions, on_bot(lambda agent: agent.commit(bump="minor"))),
        Story("commit-large", with_large, on_bot(lambda agent: agent.commit(bump="minor"))),
        Story("rollback", three_versions, on_bot(lambda agent: agent.rollback("v1.0.0"))),
        Story("commit-database", with_database, on_bot(lambda agent: agent.commit(bump="minor"))),
        Story("rollback-database", with_database, on_bot(lambda agent: agent.rollback("v1.0.0"))),
        Story("rollback-clean", clean, on_bot(lambda agent: agent.rollback("v1.0.0"))),
        Story("rollback-keep", three_versions, on_bot(lambda agent: agent.rollback("v1.0.0", keep=["state"]))),
        Story("rollback-many", three_versions, _as_of_many(on_bot(lambda agent: agent.rollback("v1.0.0")))),
        Story("undo", undoable, on_bot(lambda agent: agent.undo())),
        Story("redo", redoable, on_bot(lambda agent: agent.redo())),
        Story("restore", three_versions, on_bot(lambda agent: agent.restore())),
        Story(
            "new-link", with_directory, on_home(lambda home, path: home.new("bot", link=_beside(path, "linked", V1)))
        ),
        Story("fork", undoable, on_home(lambda home, _: home.new("cat", source="bot@v1.1.0"))),
        Story("import", empty, on_home(_import)),
        Story("rename", undoable, on_home(lambda home, _: home.rename("bot", "cat"))),
        Story("remove", three_versions, on_home(lambda home, _: home.remove("bot"))),
        Story("remove-ignored", with_ignored, on_home(lambda home, _: home.remove("bot")), also=_ignored_stays),
        Story("snapshot", three_versions, on_bot(_test)),
        Story(
            "promote",
            with_snapshot,
            on_bot(lambda agent: agent.snapshot_promote(_the_snapshot(agent), with_state=True)),
        ),
        Story("drop", with_snapshot, on_bot(lambda agent: agent.snapshot_drop(_the_snapshot(agent)))),
        Story("gc", collectable, on_bot(_collect)),
        Story("repair", damaged, _repair, again=lambda path: _repair(path, Vfs())),
        Story("recovery", half_restored, _recover),
        Story("clone", transfers.cloneable, transfers.clone),
        Story("fetch", transfers.behind, transfers.on_home(lambda home: home.fetch())),
        Story("pull", transfers.fetched, transfers.on_home(lambda home: home.pull("bot"))),
        Story("push", transfers.ahead, transfers.push),
        Story("receive", transfers.pushed_to, transfers.receive("bot")),
        Story("receive-new", transfers.pushed_to, transfers.receive("cat")),
        Story("bundle", three_versions, transfers.bundle, also=transfers.bundle_is_whole),
        Story("unbundle", transfers.carried, transfers.unbundle),
        Story("remote", undoable, on_home(lambda home, _: home.remote_add("far", "https://kai.example.org/far"))),
        Story("revoke", with_tokens, on_home(lambda home, _: home.token_revoke("reader"))),
        Story("renumber", three_versions, on_bot(lambda agent: agent.renumber("v1.1.0", to="2.0.0"))),
    )
}
