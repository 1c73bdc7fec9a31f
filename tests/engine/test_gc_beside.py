"""gc without a pause beside eight processes that commit, roll back and read: nothing reachable is lost."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest

import kaivc
from kaivc import api
from kaivc.api import Agent, Home
from kaivc.errors import NothingToCommit, UnreadablePath, UnsettledFile
from kaivc.vfs import Vfs
from tests.engine.homes import ENVIRON, Files, read, write
from tests.engine.test_gc import check

SETTINGS = {
    "backups.keep": "2",
    "backups.max_age": "0s",
    "packs.seal_at": "256 KiB",
    "chunks.threshold": "64 KiB",
    "lock.wait": "120s",
    "views.keep": "2",
}
OWN, SHARED = ("one", "two", "three", "four"), "shared"
WORKERS = (*OWN, *[SHARED] * 4)


def opened(path: Path) -> Home:
    return kaivc.open(path, environ=ENVIRON, flags=SETTINGS)


class Worker:
    """One process: writes down each version that was acknowledged, and what it holds."""

    def __init__(self, path: Path, number: int, name: str) -> None:
        self.path = path
        self.agent = opened(path).agent(name)
        self.chance = random.Random(number)
        self.scratch = path.parent / f"scratch{number}"
        self.acknowledged: dict[str, Files] = {}
        self.count = 0
        self.left: list[bytes] = []
        self.backups = 0
        self.reads = 0

    def step(self) -> None:
        act = self.chance.choices((self.commit, self.back, self.read, self.undo), (5, 4, 4, 1))[0]
        act()

    def files(self) -> Files:
        self.count += 1
        old = {name: data for name, data in read(self.agent.workspace).items() if self.chance.random() < 0.7}
        data = os.urandom(self.chance.choice((100, 20_000, 60_000, 150_000)))
        if self.left and self.chance.random() < 0.2:
            data = self.left.pop(0)  # what a backup held that gc has collected, or is collecting
        else:
            self.left = [*self.left[-8:], data]
        return {**old, "logic.py": os.urandom(9), f"state/{self.count % 5}": data}

    @contextmanager
    def workspace(self) -> Iterator[None]:
        """Four processes share a workspace: one of them writes at a time."""
        with (self.path.parent / f"{self.agent.name}.mine").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def commit(self) -> None:
        with self.workspace():
            files = self.files()
            write(self.agent.workspace, files)
            try:
                version = self.agent.commit(bump="patch")
            except NothingToCommit:
                return
            self.acknowledged[version.tag] = files

    def back(self) -> None:
        """Leave something that only a backup holds."""
        if not self.acknowledged:
            return
        with self.workspace():
            write(self.agent.workspace, self.files())
            self.agent.rollback(self.chance.choice(list(self.acknowledged)))
            self.backups += 1

    def undo(self) -> None:
        if self.agent.repository.current is not None and self.acknowledged:
            with self.workspace():
                self.agent.rollback(self.chance.choice(list(self.acknowledged)))
                self.agent.undo()
                self.agent.redo()

    def read(self) -> None:
        """What was acknowledged is there, whatever gc does at the moment."""
        if not self.acknowledged:
            return
        self.reads += 1
        tag = self.chance.choice(list(self.acknowledged))
        what = self.chance.randrange(12)
        if what == 11:
            found = api.fsck(self.path, self.agent.name, environ=ENVIRON, flags=SETTINGS)
            assert found.ok, found.all
        elif what == 0:
            self.agent.export(self.scratch)
            Vfs().remove_tree(str(self.scratch))
        elif what < 4:
            report = self.agent.verify(tag)
            assert report.ok, report.findings
        else:
            self.agent.checkout(tag, self.scratch)
            assert read(self.scratch) == self.acknowledged[tag], tag
            Vfs().remove_tree(str(self.scratch))


def work(path: Path, number: int, stop: Synchronized[int]) -> None:
    worker = Worker(path, number, WORKERS[number])
    said = {"error": "", "backups": 0, "reads": 0}
    try:
        while not stop.value:
            try:
                worker.step()
            except (UnsettledFile, UnreadablePath):
                continue
    except BaseException as error:
        said["error"] = repr(error)
        raise
    finally:
        said |= {"backups": worker.backups, "reads": worker.reads}
        held = {tag: {name: data.hex() for name, data in files.items()} for tag, files in worker.acknowledged.items()}
        (path.parent / f"said{number}.json").write_text(json.dumps({**said, "acknowledged": held}))


def collect(path: Path, stop: Synchronized[int], rounds: Synchronized[int], back: Synchronized[int]) -> None:
    """gc, one agent after the other, without a pause."""
    home = opened(path)
    while not stop.value:
        for name in home.agents():
            done = home.agent(name).gc().done
            assert done is not None
            assert not done.left
            rounds.value += 1
            back.value += done.back


def beside(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "home"
    home = kaivc.init(path, environ=ENVIRON)
    for name in {*WORKERS}:
        home.new(name)
    home.close()
    stop, rounds = multiprocessing.Value("i", 0), multiprocessing.Value("i", 0)
    back = multiprocessing.Value("q", 0)
    jobs = [partial(work, path, number, stop) for number in range(len(WORKERS))]
    processes = [multiprocessing.Process(target=job) for job in (*jobs, partial(collect, path, stop, rounds, back))]
    for process in processes:
        process.start()
    until = time.monotonic() + seconds
    while time.monotonic() < until and all(process.is_alive() for process in processes):
        time.sleep(0.1)
    stop.value = 1
    for process in processes:
        process.join(180)
    said = [json.loads((tmp_path / f"said{number}.json").read_text()) for number in range(len(WORKERS))]
    assert [it["error"] for it in said] == [""] * len(WORKERS)
    assert [process.exitcode for process in processes] == [0] * len(processes)
    home = opened(path)
    for name in home.agents():
        mine = [it["acknowledged"] for number, it in enumerate(said) if WORKERS[number] == name]
        settle(home.agent(name), {tag: files for acknowledged in mine for tag, files in acknowledged.items()})
    versions = sum(len(it["acknowledged"]) for it in said)
    backups, reads = sum(it["backups"] for it in said), sum(it["reads"] for it in said)
    print(
        f"{rounds.value} gcs beside {versions} commits, {backups} backups, {reads} reads: {back.value >> 10} KiB back"
    )
    assert rounds.value > seconds / 8
    assert versions > seconds / 2
    assert back.value > 100_000
    home.close()


def settle(agent: Agent, acknowledged: dict[str, dict[str, str]]) -> None:
    """Each acknowledged version holds what it held, and the packs hold little else."""
    assert {version.tag for version in agent.versions()} == acknowledged.keys()
    target = Path(agent.repository.layout.root) / "out"
    for tag, files in acknowledged.items():
        agent.checkout(tag, target)
        assert {name: data.hex() for name, data in read(target).items()} == files, tag
        Vfs().remove_tree(str(target))
    agent.gc()
    check(agent)
    last = agent.gc()
    assert not last.plan
    held = sum(file.stat().st_size for file in Path(agent.repository.layout.pack_dir(agent.name)).iterdir())
    live = last.plan.live_bytes
    print(f"{agent.name}: {len(acknowledged)} versions, {live >> 10} KiB live, {held >> 10} KiB in packs")
    assert held < live * 4 / 3 + (256 << 10)


def test_gc_beside_eight_processes(tmp_path: Path) -> None:
    beside(tmp_path, 8)


@pytest.mark.slow
def test_gc_beside_eight_processes_for_a_minute(tmp_path: Path) -> None:
    beside(tmp_path, 60)
