"""Transfers to be cut: each is played in one of two homes, and the other one lies beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import kaivc
from kaivc import api, bundles
from kaivc.api import Home
from kaivc.ops import bundle_unbundle
from kaivc.records import replace
from kaivc.remotes import connect
from kaivc.remotes.base import Push
from kaivc.remotes.planning import plan_push
from kaivc.repository import OpenHome
from kaivc.vfs import Vfs
from tests.engine.homes import ENVIRON, Files, Ticking, copy, make_home, open_home, remove, write

LARGE = b"".join(number.to_bytes(4, "big") * 16 for number in range(3000))
V1: Files = {"logic.py": b"one\n", "config.yaml": b"a: 1\n", "state/log.txt": b"1\n" * 500, "large.bin": LARGE}
V2: Files = {"logic.py": b"two\n", "config.yaml": b"a: 2\n", "deep/er/file": b"y", "large.bin": LARGE[:100_000]}
V3: Files = {**V2, "logic.py": b"three\n", "large.bin": LARGE[50_000:], "new.txt": b"new"}
DIRTY: Files = {**V2, "logic.py": b"dirty\n", "live.txt": b"live"}
LATER = 1_800_000_000
CARRIED = "carried.kai"


def _open(path: Path, vfs: Vfs | None = None) -> Home:
    flags = {"chunks.threshold": "64 KiB", "backups.keep": "0", "backups.max_age": "0s"}
    return kaivc.open(path, environ=ENVIRON, clock=Ticking(LATER), vfs=vfs, flags=flags)


def _beside(path: Path, name: str) -> Path:
    return path.parent / name


def _versions(path: Path, *versions: Files) -> None:
    if path.exists():
        remove(path)
    make_home(path).close()
    with closing(open_home(path, chunks__threshold="64 KiB")) as home:
        agent = home.new("bot")
        for files in versions:
            write(agent.workspace, files)
            agent.commit(bump="minor")


def _commit(path: Path, files: Files, name: str = "bot") -> None:
    with closing(open_home(path, chunks__threshold="64 KiB")) as home:
        agent = home.agent(name) if name in home.agents() else home.new(name)
        write(agent.workspace, files)
        agent.commit(bump="minor")


def _clone(source: Path, path: Path, vfs: Vfs | None = None) -> None:
    if vfs is None and path.exists():
        remove(path)
    clock, flags = Ticking(LATER), {"chunks.threshold": "64 KiB"}
    api.clone(str(source), path, environ=ENVIRON, clock=clock, vfs=vfs, flags=flags)


# ---------------------------------------------------------------- homes to begin with


def behind(path: Path) -> None:
    """A clone of a home that has gone on since; its workspace is dirty."""
    far = _beside(path, "far")
    _versions(far, V1, V2)
    _clone(far, path)
    _commit(far, V3)
    with closing(open_home(path)) as home:
        write(home.agent("bot").workspace, DIRTY)


def fetched(path: Path) -> None:
    """As behind, and fetched: that is a transaction of its own, and what is left of a pull is one more."""
    behind(path)
    with closing(open_home(path)) as home:
        home.fetch()


def carried(path: Path) -> None:
    """As behind, by a bundle of the other home that was fetched from: the rest of taking it in is one transaction."""
    behind(path)
    with closing(open_home(_beside(path, "far"))) as far:
        file = _beside(path, CARRIED)
        file.unlink(missing_ok=True)
        far.bundle(file)
        name = bundle_unbundle.NAME + far.opened.id[: bundle_unbundle.SHORT]
    with closing(open_home(path)) as home:
        home.remote_add(name, str(file))
        home.fetch(name)


def ahead(path: Path) -> None:
    """A clone that has gone on since, of a home that is kept as it was."""
    kept, far = _beside(path, "kept"), _beside(path, "far")
    _versions(kept, V1, V2)
    copy(kept, far)
    _clone(far, path)
    _commit(path, V3)


def pushed_to(path: Path) -> None:
    """Two versions, and a dirty workspace; a clone of it beside it has a version more, and an agent more."""
    near = _beside(path, "near")
    _versions(path, V1, V2)
    _clone(path, near)
    _commit(near, V3)
    _commit(near, V1, "cat")
    with closing(open_home(path)) as home:
        write(home.agent("bot").workspace, DIRTY)


def cloneable(path: Path) -> None:
    """An empty directory, and a home beside it."""
    path.mkdir()
    _versions(_beside(path, "far"), V1, V2)


# ---------------------------------------------------------------- what is done to them


def on_home(verb: Callable[[Home], object]) -> Callable[[Path, Vfs], None]:
    """A command in the home at a path."""

    def act(path: Path, vfs: Vfs) -> None:
        with closing(_open(path, vfs)) as home:
            verb(home)

    return act


def push(path: Path, vfs: Vfs) -> None:
    """Push to the home beside it, which stands where it was when this one was cloned."""
    copy(_beside(path, "kept"), _beside(path, "far"))
    with closing(_open(path, vfs)) as home:
        home.push("bot")


def receive(agent: str) -> Callable[[Path, Vfs], None]:
    """What the clone beside it pushes arrives."""

    def act(path: Path, vfs: Vfs) -> None:
        with closing(open_home(_beside(path, "near"))) as near, closing(_open(path, vfs)) as home:
            _send(near, home.opened, agent)

    return act


def _send(near: Home, opened: OpenHome, agent: str) -> None:
    repo = near.opened.repository(agent)
    context = replace(near._context(lambda text, secret: None), open_home=lambda path: opened)
    with closing(connect(context, opened.layout.root)) as far:
        there = far.head(agent).refs if agent in far.agents() else {}
        known = {**there} if agent == "bot" else {}
        plan = plan_push(repo, "origin", known)
        far.send(repo, Push(repo.new_op_id(), str(near.opened.actor), "a push", plan.updates), known)


def clone(path: Path, vfs: Vfs) -> None:
    """Make the home."""
    _clone(_beside(path, "far"), path, vfs)


def bundle(path: Path, vfs: Vfs) -> None:
    """Write a bundle."""
    with closing(_open(path, vfs)) as home:
        home.bundle(path / CARRIED)


def unbundle(path: Path, vfs: Vfs) -> None:
    """Take in the bundle that lies beside the home."""
    with closing(_open(path, vfs)) as home:
        home.unbundle(_beside(path, CARRIED))


def bundle_is_whole(path: Path, acknowledged: bool) -> None:
    """A bundle is there whole, or not at all before it was acknowledged."""
    found = path / CARRIED
    if acknowledged or found.exists():
        with found.open("rb") as file:
            bundles.check(bundles.read(os.fspath(found), file), file)
