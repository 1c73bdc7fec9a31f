"""The connection breaks at any byte of a push and of a pull: both homes stay whole, and repeating goes on from there.

The far end is ``kai serve --stdio``'s own loop in a process of its own, which is killed with the connection, or sees it
end.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import kaivc.ops.pull
import kaivc.ops.push
from kaivc import dialogue, landing
from kaivc.access import UserAccess
from kaivc.api import Home
from kaivc.dialogue import Client
from kaivc.errors import TransportError
from kaivc.remotes import homes
from kaivc.remotes.base import Context
from kaivc.remotes.homes import HomeRemote
from kaivc.server import stdio
from kaivc.serving import FarHome
from kaivc.storage import oplog
from kaivc.wire import Far
from tests.engine.homes import ENVIRON, commit, copy, make_home, open_home, read, remove
from tests.engine.test_kill import Cut, in_child
from tests.remotes.carriers import by_pipes

CUTS, IN_CI = 50, 12
SEED = int(os.environ.get("KAI_REMOTES_SEED", "20261123"))
SLACK = 400_000
"""What was under way is lost: what a pipe holds, and the piece that was not wholly there, a chunk of up to 256 KiB."""
FILES = {"logic.py": b"1\n", "state.json": b"{}", "noise": random.Random(1).randbytes(2_500_000)}
LATER = {**FILES, "logic.py": b"2\n", "noise": random.Random(2).randbytes(2_500_000), "more/of.it": b"x" * 5000}


class Line:
    """A pair of pipes to a far end, which breaks after so many bytes, both ways counted. -1 never does."""

    def __init__(self, far: Path, after: int, *, kill: bool) -> None:
        self.left = after
        self.there = self.back = 0
        self._kill = kill
        down, self._sink = os.pipe()
        self._source, up = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                os.close(self._sink)
                os.close(self._source)
                serve(far, down, up)
                status = 0
            finally:
                os._exit(status)
        os.close(down)
        os.close(up)

    def far(self) -> Far:
        return Client(dialogue.over_pipes(self._write, lambda: None, self._read), self.close)

    def _allowed(self, count: int) -> int:
        if self.left < 0:
            return count
        some = min(count, self.left)
        self.left -= some
        return some

    def _write(self, data: bytes) -> None:
        some = self._allowed(len(data))
        view = memoryview(data)[:some]
        try:
            while view:
                view = view[os.write(self._sink, view) :]
        except BrokenPipeError as error:
            raise self._broken() from error
        self.there += some
        if some < len(data):
            raise self._broken()

    def _read(self, count: int) -> bytes:
        if not self._pid:
            raise TransportError("the line is broken", hint="again")
        data = b""
        some = self._allowed(count)
        while len(data) < some and (part := os.read(self._source, some - len(data))):
            data += part
        self.back += len(data)
        if some < count:
            raise self._broken()
        return data

    def _broken(self) -> TransportError:
        if self._kill:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self.close()
        return TransportError("the line broke", hint="again")

    def close(self) -> None:
        """Hang up, and wait until nobody is there any more."""
        if self._pid:
            os.close(self._sink)
            os.close(self._source)
            os.waitpid(self._pid, 0)
            self._pid = 0


def serve(far: Path, down: int, up: int) -> None:
    with closing(open_home(far)) as home, open(down, "rb") as source, open(up, "wb") as sink:
        stdio.serve(FarHome(home.opened, UserAccess(home.opened)), source, sink)


@dataclass
class Homes:
    """Two homes that differ, as they were before, and how they are afterwards."""

    root: Path
    verb: str
    far: Path
    near: Path
    before: list[dict[str, str]]
    after: list[dict[str, str]]
    size: int

    def reset(self) -> None:
        for name in ("far", "near"):
            copy(self.root / f"{name}-before", self.root / name)


def shown(path: Path) -> dict[str, str]:
    with closing(open_home(path)) as home:
        return {ref: oid.hex() for ref, oid in landing.shown_refs(home.opened.repository("bot")).items()}


def act(verb: str, home: Home) -> None:
    home.push("bot") if verb == "push" else home.pull("bot")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Path], Line]]:
    """How the next connections are made, to the path that a URL is."""
    wanted: list[Callable[[Path], Line]] = []

    def connect(context: Context, url: str) -> HomeRemote:
        return HomeRemote(context, lambda: wanted[0](Path(url)).far())

    monkeypatch.setattr(kaivc.ops.push, "connect", connect)
    monkeypatch.setattr(kaivc.ops.pull, "connect", connect)
    monkeypatch.setattr(homes, "TRIES", 1)
    return wanted


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A disk that syncs in no time."""
    shm = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="kai-cuts-", dir=shm if shm.is_dir() else tmp_path))
    yield path
    remove(path)


@pytest.fixture(params=["push", "pull"])
def pair(request: pytest.FixtureRequest, memory: Path, lines: list[Callable[[Path], Line]]) -> Homes:
    """Two homes of which one has a version more; the whole transfer was counted once."""
    verb, root = request.param, memory
    with closing(make_home(root / "far")) as far:
        commit(far.new("bot"), FILES)
    near = root / "near"
    kaivc.api.clone(str(root / "far"), near, environ=ENVIRON)
    with closing(open_home(near if verb == "push" else root / "far")) as ahead:
        commit(ahead.agent("bot"), LATER, bump="minor")
    for name in ("far", "near"):
        copy(root / name, root / f"{name}-before")
    before = [shown(root / name) for name in ("far", "near")]
    line = run(verb, near, lines, -1)
    after = [shown(root / name) for name in ("far", "near")]
    assert before != after
    return Homes(root, verb, root / "far", near, before, after, line.there + line.back)


def run(verb: str, near: Path, lines: list[Callable[[Path], Line]], after: int, *, kill: bool = True) -> Line:
    """Do it over a line that breaks; the line."""
    made: list[Line] = []

    def make(far: Path) -> Line:
        made.append(Line(far, after, kill=kill))
        return made[-1]

    lines[:] = [make]
    with closing(open_home(near)) as home:
        try:
            act(verb, home)
        except TransportError:
            assert after >= 0
    assert len(made) == 1
    return made[0]


def check(home: Path) -> None:
    with closing(open_home(home)) as opened:
        found = opened.fsck()
        assert found.ok, found.all


def one_cut(pair: Homes, lines: list[Callable[[Path], Line]], after: int, *, kill: bool) -> str:
    """Cut once, look, repeat; what it came to."""
    pair.reset()
    first = run(pair.verb, pair.near, lines, after, kill=kill)
    left = [shown(pair.far), shown(pair.near)]
    for found, before, done in zip(left, pair.before, pair.after, strict=True):
        assert found in (before, done)
    for home in (pair.far, pair.near):
        check(home)
    again = run(pair.verb, pair.near, lines, -1)
    assert [shown(pair.far), shown(pair.near)] == pair.after
    assert again.there + again.back <= pair.size - (first.there + first.back) + SLACK, "it goes on where it ended"
    for home in (pair.far, pair.near):
        check(home)
        with closing(open_home(home)) as opened:
            assert read(opened.agent("bot").workspace) == LATER
        assert not list(home.glob(".kai/incoming/*/*")), "what has landed is not kept twice"
    return "after" if left == pair.after else "before" if left == pair.before else "one of both"


@pytest.mark.parametrize("cuts", [IN_CI, pytest.param(CUTS, marks=pytest.mark.slow)])
def test_cut_at_any_byte(cuts: int, pair: Homes, lines: list[Callable[[Path], Line]]) -> None:
    chance = random.Random(SEED)
    print(f"KAI_REMOTES_SEED={SEED}: {cuts} cuts of a {pair.verb} of {pair.size} bytes")
    # Half of them in what is said before and after the bulk: there are few bytes, and much is decided.
    ends = [chance.choice([chance.randrange(4_000), pair.size - 1 - chance.randrange(2_000)]) for _ in range(cuts // 2)]
    places = ends + [chance.randrange(pair.size) for _ in range(cuts - len(ends))]
    outcomes = Counter(one_cut(pair, lines, place, kill=chance.random() < 0.7) for place in places)
    print(dict(outcomes))
    assert outcomes["before"]


def test_a_broken_line_is_taken_up_by_itself(pair: Homes, lines: list[Callable[[Path], Line]]) -> None:
    """The command goes on over a new connection, without being run again."""
    homes.TRIES = 5  # put back by ``lines``
    pair.reset()
    made: list[Line] = []

    def make(far: Path) -> Line:
        made.append(Line(far, pair.size // 3 if len(made) < 2 else -1, kill=True))
        return made[-1]

    lines[:] = [make]
    with closing(open_home(pair.near)) as home:
        act(pair.verb, home)
    assert len(made) == 3
    assert [shown(pair.far), shown(pair.near)] == pair.after
    assert sum(it.there + it.back for it in made) < pair.size + 3 * SLACK


def test_a_broken_log_is_read_on(pair: Homes, lines: list[Callable[[Path], Line]]) -> None:
    homes.TRIES = 5  # put back by ``lines``
    pair.reset()
    made: list[Line] = []

    def make(far: Path) -> Line:
        made.append(Line(far, 700 if len(made) < 2 else -1, kill=True))
        return made[-1]

    with closing(open_home(pair.far)) as far:
        for number in range(6):
            far.agent("bot").commit(version=f"7.{number}.0", allow_empty=True)
        wanted = list(oplog.records(far.opened.repository("bot").store, 0))
    with closing(open_home(pair.near)) as near:
        remote = HomeRemote(near._context(lambda text, secret: None), lambda: make(pair.far).far())
        assert list(remote.log("bot", 0)) == wanted
        remote.close()
    assert len(made) == 3


def test_a_client_that_is_killed(pair: Homes, lines: list[Callable[[Path], Line]]) -> None:
    """At any of its writes; the next time it goes on from there."""
    lines[:] = [lambda far: Line(far, -1, kill=False)]

    def run_with(vfs: Cut) -> None:
        with closing(open_home(pair.near, vfs)) as home:
            act(pair.verb, home)

    pair.reset()
    whole_run = Cut(0)
    run_with(whole_run)
    for at in random.Random(SEED).sample(range(1, whole_run.count), min(8, whole_run.count - 1)):
        pair.reset()
        cut = Cut(at)
        assert in_child(lambda vfs=cut: run_with(vfs)) == signal.SIGKILL  # type: ignore[misc]
        for home in (pair.far, pair.near):
            check(home)
        run_with(Cut(0))
        assert [shown(pair.far), shown(pair.near)] == pair.after, f"killed at write {at}"
        assert not list(pair.root.glob("[fn]*r/.kai/incoming/*/*"))


CUTTER = """
import os, subprocess, sys, threading
left, command = int(sys.argv[1]), sys.argv[-1]
far = subprocess.Popen(["sh", "-c", "exec " + command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
lock = threading.Lock()
def relay(source, sink):
    global left
    while data := os.read(source, 4096):
        with lock:
            some, left = data[:left], left - len(data)
        os.write(sink, some)
        if left <= 0:
            far.kill()
            os._exit(255)
    os.close(sink)
up = threading.Thread(target=relay, args=(0, far.stdin.fileno()), daemon=True)
up.start()
relay(far.stdout.fileno(), 1)
far.wait()
"""
"""What is called like ssh, and dies after so many bytes, together with the far end."""


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_an_ssh_that_dies(verb: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "TRIES", 1)
    with closing(make_home(tmp_path / "far")) as far:
        commit(far.new("bot"), FILES)
        with by_pipes(tmp_path / "far") as link, closing(link.clone(tmp_path / "near")) as near:
            commit((near if verb == "push" else far).agent("bot"), LATER, bump="minor")
            before = [shown(tmp_path / name) for name in ("far", "near")]
            (tmp_path / "cutter.py").write_text(CUTTER)
            program = Path(link.flags["ssh.command"])
            usual = program.read_text()
            after = int(1 + share * 2_600_000)
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {tmp_path}/cutter.py {after} "$@"\n')
            with pytest.raises(TransportError) as told:
                act(verb, near)
            assert told.value.hint
            assert [shown(tmp_path / name) for name in ("far", "near")] == before
            check(tmp_path / "far")
            check(tmp_path / "near")
            program.write_text(usual)
            act(verb, near)
            assert shown(tmp_path / "far") == shown(tmp_path / "near") != before[0 if verb == "push" else 1]
            assert not list(tmp_path.glob("*/.kai/incoming/*/*"))
