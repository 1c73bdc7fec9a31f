"""Sixteen processes commit, roll back and collect at once, and one after the other is killed: nothing that was
acknowledged is lost, and history does not fork. And how many moves there are, beside git's plumbing."""

from __future__ import annotations

import fcntl
import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import kaivc
from kaivc import api
from kaivc.api import Agent, Home
from kaivc.errors import KaiError
from tests.conftest import require_tool
from tests.engine.homes import ENVIRON

PROCESSES = 16
SECONDS = 60
RACE_SECONDS = 20
KILL_EVERY = 0.2
STALE = 1.0
AIM = 3
FLOOR = 0.5
"""Times git's moves. A loaded disk that syncs slowly lets git win: its processes sync side by side, the catalog's
transactions one after the other."""
SHARED = "shared"
OWN = tuple(f"own{number}" for number in range(PROCESSES * 3 // 4))
AGENTS = (*OWN, *[SHARED] * (PROCESSES - len(OWN)))
SETTINGS = {
    "lock.wait": "60s",
    "backups.keep": "3",
    "backups.max_age": "0s",
    "packs.seal_at": "1 MiB",
    "views.keep": "2",
}
ALLOWED = {"E307", "E311", "E303"}
"""Files that others write at the moment, and a backup that has expired meanwhile: said, and nothing moved."""


def opened(path: Path) -> Home:
    return kaivc.open(path, environ=ENVIRON, flags=SETTINGS)


# ---------------------------------------------------------------- one worker


class Journal:
    """What a worker was told, synced after each answer: what stands here must be there at the end."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, **words: object) -> None:
        os.write(self.fd, json.dumps(words).encode() + b"\n")
        os.fdatasync(self.fd)


class Worker:
    """One process, until it is told to stop or killed."""

    def __init__(self, path: Path, number: int, life: int) -> None:
        self.name = AGENTS[number]
        self.agent: Agent = opened(path).agent(self.name)
        self.journal = Journal(path.parent / f"journal{number}")
        self.chance = random.Random(number * 1000 + life)
        self.mark = f"w{number}-{life}"
        self.number = number
        self.count = 0
        self.mine = path.parent / f"{self.name}.mine"

    def step(self) -> None:
        self.count += 1
        act = self.chance.choices((self.commit, self.back, self.collect), (6, 3, 1))[0]
        try:
            act(f"{self.mark}-{self.count}")
        except KaiError as error:
            if error.code not in ALLOWED:
                raise
            self.journal.note(refused=error.code)

    def write(self) -> None:
        """Those who share a workspace write to it one at a time, as agents must."""
        workspace = self.agent.workspace
        workspace.mkdir(exist_ok=True)
        (workspace / f"state{self.number}").write_bytes(os.urandom(self.chance.choice((200, 5_000, 40_000))))

    def commit(self, op_id: str) -> None:
        """Every other one while others of the agent write, commit and roll back: what keeps them apart is kaivc."""
        with self.mine.open("w") as held:
            if self.count % 2:
                fcntl.flock(held, fcntl.LOCK_EX)
                self.write()
            done = self.agent.record(bump="patch", allow_empty=True, op_id=op_id)
        self.journal.note(op=op_id, seq=done.seq, tag=done.version.tag, commit=done.version.commit)

    def back(self, op_id: str) -> None:
        versions = self.agent.repository.refs(f"refs/tags/{self.name}/")
        if not versions:
            return
        with self.mine.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            self.write()
            to = self.chance.choice(sorted(versions)[-20:]).rpartition("/")[2]
            done = self.agent.rollback(to, op_id=op_id)
        if done.applied:
            self.journal.note(op=op_id, seq=done.seq, to=done.to_commit)

    def collect(self, _: str) -> None:
        done = self.agent.gc().done
        assert done is not None
        assert not done.left, done.left
        self.journal.note(gc=done.back)


def work(path: Path, number: int, life: int, stop: Synchronized[int]) -> None:
    try:
        worker = Worker(path, number, life)
        while not stop.value:
            worker.step()
    except BaseException as error:
        (path.parent / f"error{number}-{life}").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise


# ---------------------------------------------------------------- all of them, and the killer


@dataclass
class Crowd:
    """The workers, one in each place; a killed one is followed by a fresh one."""

    path: Path
    stop: Synchronized[int]
    alive: list[Any] = field(default_factory=list)
    kills: int = 0
    slowest: float = 0.0

    def start(self, number: int, life: int) -> Any:
        process = multiprocessing.Process(target=work, args=(self.path, number, life, self.stop))
        process.start()
        return process

    def kill(self, number: int) -> None:
        """Kill one; wait until the system holds no lock of it any more."""
        victim = self.alive[number]
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        began = time.monotonic()
        while str(victim.pid) in {line.split()[4] for line in Path("/proc/locks").read_text().splitlines()}:
            assert time.monotonic() - began < STALE, "a killed process still holds a lock"
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.kills += 1
        self.alive[number] = self.start(number, self.kills)


def run(path: Path, seconds: float, chance: random.Random) -> Crowd:
    crowd = Crowd(path, multiprocessing.Value("i", 0))
    crowd.alive = [crowd.start(number, 0) for number in range(PROCESSES)]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(KILL_EVERY)
        crowd.kill(chance.randrange(PROCESSES))
    crowd.stop.value = 1
    for process in crowd.alive:
        process.join(180)
        assert process.exitcode is not None, "a worker hangs"
    return crowd


# ---------------------------------------------------------------- the end


def lines(path: Path) -> list[dict[str, Any]]:
    """A journal; the last line of a killed one may be cut, for nobody was told of it."""
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def settle(agent: Agent, told: list[dict[str, Any]]) -> None:
    """Every acknowledged operation is there, once, where it was said to be, and history is one line."""
    entries = agent.reflog(None).entries
    seqs = {entry.op_id: entry.seq for entry in entries}
    for line in told:
        assert seqs.get(line["op"]) == line["seq"], f"lost, or moved: {line}"
    acknowledged = [line["seq"] for line in told]
    assert len(acknowledged) == len(set(acknowledged)), "two were told the same number"
    ops = [
        seq
        for (seq,) in agent.repository.catalog.rows(
            "SELECT seq FROM ops WHERE agent = ? ORDER BY seq", (agent.repository.id,)
        )
    ]
    assert ops == list(range(1, len(ops) + 1)), "numbers are missing"
    commits = {version.tag: version.commit for version in agent.versions()}
    for line in told:
        assert "tag" not in line or commits[line["tag"]] == line["commit"], f"another commit has the tag: {line}"
    moves = agent.reflog().entries[::-1]
    assert all(after.old == before.new for before, after in itertools.pairwise(moves)), "history forks"


def test_nothing_acknowledged_is_lost(tmp_path: Path, share: float, seed: int, figure: Callable[..., None]) -> None:
    path = tmp_path / "home"
    home = kaivc.init(path, environ=ENVIRON)
    for name in {*AGENTS}:
        home.new(name)
    home.close()
    crowd = run(path, SECONDS * share, random.Random(seed))
    said = {error.name: error.read_text() for error in tmp_path.glob("error*")}
    assert not said, said
    told = {number: lines(tmp_path / f"journal{number}") for number in range(PROCESSES)}
    home = opened(path)
    counts = Counter[str]()
    for name in home.agents():
        mine = [line for number, each in told.items() if AGENTS[number] == name for line in each]
        counts.update(
            "commits" if "tag" in line else "rollbacks" if "op" in line else "gcs" if "gc" in line else "refused"
            for line in mine
        )
        agent = home.agent(name)
        settle(agent, [line for line in mine if "op" in line])
        agent.commit(bump="patch", allow_empty=True)
        assert not agent.status().pending
    home.close()
    found = api.fsck(path, environ=ENVIRON, flags=SETTINGS)
    assert found.ok, found.all
    figure(
        f"{PROCESSES} processes for {SECONDS * share:g} s, {crowd.kills} killed: {dict(counts)}, none lost; the locks "
        f"of the killed were free within {crowd.slowest * 1000:.0f} ms (seed {seed})"
    )
    assert crowd.kills > SECONDS * share
    assert counts["commits"] > PROCESSES
    assert counts["rollbacks"] > PROCESSES / 2
    assert counts["gcs"]


# ---------------------------------------------------------------- beside git

SIZE = 4096
TAGGER = "kai <kai@example.org> 1700000000 +0000"


def at_once(seconds: float, mover: Callable[[int], Callable[[], None]]) -> float:
    """Acknowledged moves per second of all processes; each makes its mover first, then all begin."""
    gate, moves = multiprocessing.Barrier(PROCESSES + 1), multiprocessing.Value("q", 0)

    def one(number: int) -> None:
        move, count = mover(number), 0
        gate.wait()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            move()
            count += 1
        with moves.get_lock():
            moves.value += count

    processes = [multiprocessing.Process(target=one, args=(number,)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    gate.wait()
    began = time.monotonic()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    return moves.value / (time.monotonic() - began)


def of_kaivc(path: Path) -> Callable[[int], Callable[[], None]]:
    home = kaivc.init(path, environ=ENVIRON)
    for number in range(PROCESSES):
        home.new(f"bot{number}")
    home.close()

    def mover(number: int) -> Callable[[], None]:
        agent = opened(path).agent(f"bot{number}")

        def move() -> None:
            (agent.workspace / "state").write_bytes(os.urandom(SIZE))
            agent.commit(bump="patch")

        return move

    return mover


def of_git(path: Path, *, releases: bool) -> Callable[[int], Callable[[], None]]:
    """Moves of a branch: blob, tree and commit, no more; or, with ``releases``, what a version is, too: the file is
    read from a workspace, and an annotated tag lands with the branch in one transaction of refs."""
    git = [
        require_tool("git"),
        "-C",
        str(path),
        "-c",
        "core.fsync=all",
        "-c",
        "core.fsyncMethod=fsync",
        "-c",
        "gc.auto=0",
    ]
    subprocess.run([git[0], "init", "-q", "--bare", str(path)], check=True)

    def ask(*args: str, data: bytes = b"") -> str:
        return subprocess.run([*git, *args], input=data, check=True, stdout=subprocess.PIPE).stdout.decode().strip()

    def mover(number: int) -> Callable[[], None]:
        ref, last, state = f"refs/heads/bot{number}", "", path / f"state{number}"
        versions = itertools.count()

        def blob() -> str:
            if not releases:
                return ask("hash-object", "-w", "--stdin", data=os.urandom(SIZE))
            state.write_bytes(os.urandom(SIZE))
            return ask("hash-object", "-w", "--no-filters", str(state))

        def move() -> None:
            nonlocal last
            tree = ask("mktree", data=f"100644 blob {blob()}\tstate\n".encode())
            commit = ask("commit-tree", *(["-p", last] if last else []), "-m", "move", tree)
            if releases:
                version = f"bot{number}/v0.0.{next(versions)}"
                words = f"object {commit}\ntype commit\ntag {version}\ntagger {TAGGER}\n\nmove\n"
                tag = ask("mktag", data=words.encode())
                refs = f"create refs/tags/{version} {tag}\nupdate {ref} {commit} {last or '0' * 40}\n"
                ask("update-ref", "--stdin", data=refs.encode())
            else:
                ask("update-ref", ref, commit, last or "0" * 40)
            last = commit

        return move

    return mover


def test_three_times_as_many_moves_as_git(tmp_path: Path, share: float, figure: Callable[..., None]) -> None:
    seconds = RACE_SECONDS * max(share, 0.15)
    bare, released, ours = 0.0, 0.0, 0.0
    for turn in range(2):
        bare += at_once(seconds, of_git(tmp_path / f"bare{turn}", releases=False)) / 2
        ours += at_once(seconds, of_kaivc(tmp_path / f"home{turn}")) / 2
        released += at_once(seconds, of_git(tmp_path / f"released{turn}", releases=True)) / 2
    figure(
        f"{PROCESSES} processes: {ours:.0f} acknowledged moves a second; git {bare:.0f} of a branch, {ours / bare:.1f} "
        f"times, and {released:.0f} of a branch with a tag, {ours / released:.1f} times, where {AIM} are wanted"
    )
    assert ours >= FLOOR * bare
