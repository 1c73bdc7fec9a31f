"""One agent with two versions of every kind of file, exported, in each object format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kaivc.api import Agent
from tests.conftest import require_tool
from tests.interop.judge import CHANGED, EVERYTHING, FORMATS, exported, make_home, write

NOTES = "Changes nearly everything\n\nLonger: as it was asked for.\nSigned-off-by: nobody\n\n--- not the end"


@dataclass(frozen=True)
class Subject:
    """An agent, and what it was exported to."""

    agent: Agent
    bare: Path
    object_format: str


@pytest.fixture(scope="session", autouse=True)
def _git() -> None:
    require_tool("git")


@pytest.fixture(params=FORMATS)
def object_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def agent(tmp_path: Path, object_format: str) -> Iterator[Agent]:
    """An agent without a version."""
    home = make_home(tmp_path / "agents", object_format)
    yield home.new("judged")
    home.close()


@pytest.fixture(scope="module", params=FORMATS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """1.0.0 holds EVERYTHING, 1.1.0 CHANGED, 2.0.0-rc.1 the first again; 1.1.0 is in force. For reading only."""
    root = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(root))
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        home = make_home(root / "agents", request.param)
        agent = home.new("judged")
        write(agent.workspace, EVERYTHING)
        agent.commit(notes="The first")
        write(agent.workspace, CHANGED)
        agent.commit(bump="minor", notes=NOTES, author="Someone Else <else@example.invalid>")
        write(agent.workspace, EVERYTHING)
        agent.commit(version="2.0.0-rc.1", notes="Back to the first, as a pre-release", snapshot_type="auto")
        agent.rollback("v1.1.0", reason="not yet")
        yield Subject(agent, exported(agent, root / "bare.git"), request.param)
        home.close()
