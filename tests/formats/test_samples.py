"""Homes that this release and earlier ones wrote open, say what they said, are whole, and go on."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from kaivc import api
from tests.engine.homes import ENVIRON, copy
from tests.formats.sample import SETTINGS, Said, make, opened, tell

HERE = Path(__file__).parent
NOW = ("sha256", "sha1")
"""What stands for a home that this very release writes, of one of the two object formats."""
SAMPLES = [*NOW, *sorted(path.name.removesuffix(".tar.xz") for path in HERE.glob("*.tar.xz"))]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Said]]:
    """Homes as this release writes them, and what there is to say of each."""
    found = {}
    for object_format in NOW:
        home = tmp_path_factory.mktemp(object_format) / "home"
        found[object_format] = (home, make(home, object_format))
    return found


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path, made: dict[str, tuple[Path, Said]]) -> Path:
    name = request.param
    if name in made:
        copy(made[name][0], tmp_path / "home")
    else:
        with tarfile.open(HERE / f"{name}.tar.xz") as tar:
            tar.extractall(tmp_path, filter="fully_trusted")  # noqa: S202 - our own: modes and links are part of it
    return tmp_path / "home"


@pytest.fixture
def said(home: Path, request: pytest.FixtureRequest, made: dict[str, tuple[Path, Said]]) -> Said:
    name = request.node.callspec.params["home"]
    if name in made:
        return made[name][1]
    found: Said = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return found


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
