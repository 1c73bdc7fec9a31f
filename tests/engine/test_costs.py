"""What a commit costs, in counts: they do not grow with the versions that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaivc.api import Agent
from kaivc.vfs import Vfs
from tests.engine.homes import make_home, open_home, write

FEW, MANY = 30, 78
SLACK = 4
"""Statements more or less, of the most that a few commits in a row take: views are dropped some at a time."""
MOST = 72
"""SQL statements of one commit of one changed file among three, in a process that has the home open."""


class Counting(Vfs):
    """Counts syncs."""

    syncs = 0

    def sync(self, fd: int) -> None:
        self.syncs += 1
        super().sync(fd)


def statements(agent: Agent, number: int) -> int:
    """How many SQL statements a commit takes."""
    seen: list[str] = []
    write(agent.workspace, {"a": b"same", "b": b"same too", "state": b"%d" % number})
    db = agent.repository.catalog.db
    db.set_trace_callback(seen.append)
    try:
        agent.commit(bump="patch")
    finally:
        db.set_trace_callback(None)
    return len(seen)


def test_a_commit_costs_the_same_after_many(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    counts = [statements(agent, number) for number in range(MANY)]
    few, many = max(counts[FEW - 6 : FEW]), max(counts[-6:])
    assert many <= few + SLACK, counts
    assert many <= MOST, counts


def test_a_commit_syncs_its_pack_once(tmp_path: Path) -> None:
    make_home(tmp_path / "home").new("bot")
    vfs = Counting()
    agent = open_home(tmp_path / "home", vfs).agent("bot")
    for number in range(3):
        write(agent.workspace, {"state": b"%d" % number})
        before = vfs.syncs
        agent.commit(bump="patch")
    assert vfs.syncs - before == 1, "the other sync of a commit is the catalog's own"


@pytest.mark.parametrize("lost", [False, True])
def test_the_next_number_is_known_without_counting(tmp_path: Path, *, lost: bool) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    for number, version in enumerate(["1.0.0", "3.0.0", "2.0.0"]):
        write(agent.workspace, {"state": b"%d" % number})
        agent.commit(version=version)
    agent.rollback("v1.0.0")
    if lost:
        with agent.repository.catalog.transaction() as db:
            db.execute("UPDATE highest SET version = '9.9.9'")
    write(agent.workspace, {"state": b"on"})
    assert agent.commit(bump="minor").tag == "v3.1.0"
