"""Homes that earlier releases wrote open, say what they said, are whole, and go on."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from kaivc import api
from kaivc.storage.catalog import FORMAT
from tests.engine.homes import ENVIRON
from tests.formats.sample import SETTINGS, Said, opened, tell

HERE = Path(__file__).parent
SAMPLES = sorted(path.name.removesuffix(".tar.xz") for path in HERE.glob("*.tar.xz"))


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(HERE / f"{request.param}.tar.xz") as tar:
        tar.extractall(tmp_path, filter="fully_trusted")  # our own: modes and links are part of it
    return tmp_path / "home"


@pytest.fixture
def said(home: Path, request: pytest.FixtureRequest) -> Said:
    name = request.node.callspec.params["home"]
    found: Said = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return found


def test_there_is_a_sample_of_the_format_that_is_written() -> None:
    assert {f"format{FORMAT}-sha1", f"format{FORMAT}-sha256"} <= {*SAMPLES}


@pytest.mark.parametrize("home", SAMPLES, indirect=True)
def test_it_says_what_it_said(home: Path, said: Said, tmp_path: Path) -> None:
    here = opened(home)
    assert tell(here, tmp_path / "out") == said
    here.close()


@pytest.mark.parametrize("home", SAMPLES, indirect=True)
def test_it_is_whole(home: Path) -> None:
    found = api.fsck(home, environ=ENVIRON, flags=SETTINGS)
    assert found.ok, [str(it) for it in found.all]
    here = opened(home)
    for name in here.agents():
        assert here.agent(name).verify().ok
    assert here.audit().ok
    here.close()


@pytest.mark.parametrize("home", SAMPLES, indirect=True)
def test_it_goes_on(home: Path, said: Said, tmp_path: Path) -> None:
    here = opened(home)
    agent = here.agent("bot")
    before = said["agents"]["bot"]
    (agent.workspace / "state.json").write_text("written by a later release")
    made = agent.commit(bump="major")
    agent.rollback("v1.0.0")
    assert agent.undo().to_commit == made.commit
    agent.gc()
    after = tell(here, tmp_path / "out")["agents"]["bot"]
    assert {tag: after["versions"][tag] for tag in before["versions"]} == before["versions"]
    assert here.agent("fork").log("current").versions
    here.close()
    assert api.fsck(home, environ=ENVIRON, flags=SETTINGS).ok


@pytest.mark.parametrize("home", SAMPLES, indirect=True)
def test_it_comes_back_without_its_catalog(home: Path, said: Said, tmp_path: Path) -> None:
    for side in ("", "-wal", "-shm"):
        (home / ".kai" / f"catalog.sqlite{side}").unlink(missing_ok=True)
    assert api.fsck(home, repair=True, environ=ENVIRON, flags=SETTINGS).ok
    here = opened(home)
    found = tell(here, tmp_path / "out")
    for name, agent in said["agents"].items():
        assert found["agents"][name]["versions"] == agent["versions"]
        assert found["agents"][name]["refs"] == agent["refs"]
    here.close()
