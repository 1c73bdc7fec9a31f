"""Ref updates say what they expect, and move together or not at all."""

from pathlib import Path

import pytest

from kaivc import refs
from kaivc.api import Agent
from kaivc.errors import LostRace, VersionTaken
from kaivc.names import Absent, Actor, Anything, Exactly, Expect, ObjectId, RefName, RefUpdate
from kaivc.storage.journal import Op
from tests.engine.homes import make_home

ONE, TWO = ObjectId(b"\1" * 32), ObjectId(b"\2" * 32)
ACTOR = Actor("Ann", "ann@example.org")
BRANCH, TAG = RefName("refs/heads/bot/x"), RefName("refs/tags/bot/v1.0.0")


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return make_home(tmp_path / "home").new("bot")


def update(name: RefName, expect: Expect, new: ObjectId | None) -> RefUpdate:
    return RefUpdate(name, expect, new, ACTOR, "why")


def move(agent: Agent, *updates: RefUpdate) -> int:
    repo = agent.repository
    count = len(repo.reflog())
    with repo.catalog.transaction() as db:
        op = Op("test", f"op{repo.row().op_seq}", str(ACTOR), 1, "why")
        seq, record = refs.apply(repo.catalog, db, repo.home.id, repo.row(), updates, op)
    assert record
    assert len(repo.reflog()) == count + len(updates)
    return seq


def test_each_expectation_that_holds(agent: Agent) -> None:
    assert move(agent, update(BRANCH, Absent(), ONE)) == 1
    assert move(agent, update(BRANCH, Exactly(ONE), TWO)) == 2
    assert move(agent, update(BRANCH, Anything(), ONE), update(TAG, Absent(), TWO)) == 3
    assert move(agent, update(BRANCH, Exactly(ONE), None)) == 4
    assert agent.repository.ref(BRANCH) is None
    assert agent.repository.ref(TAG) == TWO
    assert next((entry.old, entry.new) for entry in agent.repository.reflog(BRANCH)) == (ONE, None)


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (update(BRANCH, Absent(), TWO), LostRace),
        (update(BRANCH, Exactly(TWO), ONE), LostRace),
        (update(TAG, Absent(), TWO), VersionTaken),
        (update(RefName("refs/heads/bot/y"), Exactly(ONE), TWO), LostRace),
    ],
)
def test_one_that_does_not_hold_moves_nothing(agent: Agent, broken: RefUpdate, error: type[Exception]) -> None:
    move(agent, update(BRANCH, Absent(), ONE), update(TAG, Absent(), ONE))
    before = agent.repository.refs("refs/"), agent.repository.row()
    with pytest.raises(error):
        move(agent, update(RefName("refs/heads/bot/first"), Absent(), ONE), broken)
    assert (agent.repository.refs("refs/"), agent.repository.row()) == before
