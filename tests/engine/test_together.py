"""Several processes at once: everybody lands, or is told so; readers never see `current` missing."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from kaivc.errors import KaiError
from tests.engine.homes import make_home, open_home, write

EACH = 6


def together(jobs: list[Callable[[], object]]) -> list[str]:
    """Run each job in a process of its own, all at the same moment; "ok" or the error's code for each."""
    gate = multiprocessing.Barrier(len(jobs))
    queue: multiprocessing.SimpleQueue[tuple[int, str]] = multiprocessing.SimpleQueue()

    def run(number: int, job: Callable[[], object]) -> None:
        gate.wait()
        try:
            job()
            queue.put((number, "ok"))
        except KaiError as error:
            queue.put((number, error.code))
        except BaseException as error:
            queue.put((number, repr(error)))

    processes = [multiprocessing.Process(target=run, args=pair) for pair in enumerate(jobs)]
    for process in processes:
        process.start()
    found = dict(queue.get() for _ in processes)
    for process in processes:
        process.join()
    return [found[number] for number in range(len(jobs))]


def bump(path: Path, name: str, count: int = EACH) -> None:
    agent = open_home(path, lock__wait="60s").agent(name)
    for _ in range(count):
        agent.commit(bump="patch", allow_empty=True)


def test_bumps_of_one_agent_all_land(tmp_path: Path) -> None:
    path = tmp_path / "home"
    agent = make_home(path).new("bot")
    write(agent.workspace, {"a": b"1"})
    assert together([lambda: bump(path, "bot")] * 4) == ["ok"] * 4
    assert [version.version for version in agent.versions()] == [f"1.0.{patch}" for patch in range(4 * EACH)]
    parents = [version.parent for version in agent.versions()]
    assert parents == [None, *(f"1.0.{patch}" for patch in range(4 * EACH - 1))]
    assert len(Path(agent.repository.layout.rollback_log("bot")).read_text().splitlines()) == 4 * EACH
    assert agent.verify().ok


def test_bumps_of_many_agents_all_land(tmp_path: Path) -> None:
    path = tmp_path / "home"
    home = make_home(path)
    names = [f"bot{number}" for number in range(4)]
    for name in names:
        write(home.new(name).workspace, {"a": name.encode()})
    assert together([partial(bump, path, name) for name in names]) == ["ok"] * 4
    for name in names:
        assert len(home.agent(name).versions()) == EACH
        assert home.agent(name).verify().ok


def test_one_of_two_equal_versions_lands(tmp_path: Path) -> None:
    path = tmp_path / "home"
    agent = make_home(path).new("bot")
    write(agent.workspace, {"a": b"1"})
    agent.commit()
    write(agent.workspace, {"a": b"2"})

    def take() -> object:
        return open_home(path, lock__wait="60s").agent("bot").commit(version="2.0.0", allow_empty=True)

    results = together([take] * 3)
    assert sorted(results) == ["E201", "E201", "ok"]
    assert [version.version for version in agent.versions()] == ["1.0.0", "2.0.0"]
    assert [entry.verb for entry in agent.reflog().entries] == ["commit", "commit"]


def test_a_lock_that_is_held_too_long_is_said(tmp_path: Path) -> None:
    path = tmp_path / "home"
    agent = make_home(path).new("bot")
    with agent.repository.lock():
        assert together([lambda: open_home(path, lock__wait="0.2s").agent("bot").commit()]) == ["E203"]


def look(link: str, stop: Synchronized[int], looks: Synchronized[int]) -> None:
    """Read through ``current`` as fast as can be."""
    while not stop.value:
        with open(link + "/snapshot_meta.json", encoding="utf-8") as file:
            json.load(file)
        looks.value += 1


def test_current_is_valid_at_every_instant(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    for text in (b"1", b"2", b"3"):
        write(agent.workspace, {"a": text})
        agent.commit(bump="minor")
    link = agent.repository.layout.current("bot")
    stop, looks = multiprocessing.Value("i", 0), multiprocessing.Value("i", 0)
    reader = multiprocessing.Process(target=look, args=(link, stop, looks))
    reader.start()
    until = time.monotonic() + 3
    moves = 0
    while time.monotonic() < until:
        agent.rollback(["v1.0.0", "v1.1.0", "v1.2.0"][moves % 3])
        moves += 1
    stop.value = 1
    reader.join()
    assert reader.exitcode == 0
    assert moves > 20
    assert looks.value > 200


def test_a_home_that_is_open_over_a_fork(tmp_path: Path) -> None:
    path = tmp_path / "home"
    agent = make_home(path).new("bot")
    write(agent.workspace, {"a": b"1"})
    agent.commit()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            agent.commit(bump="minor", allow_empty=True)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    agent.commit(bump="minor", allow_empty=True)
    assert [version.version for version in agent.versions()] == ["1.0.0", "1.1.0", "1.2.0"]
