"""The home that the tests of arrivals send to, made once and copied for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kaivc.api import Home
from tests.engine.homes import copy, open_home
from tests.remotes.parcels import make


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home as it was made; nobody writes to it."""
    path = tmp_path_factory.mktemp("still") / "far"
    make(path)
    return path


@pytest.fixture
def home(still: Path, tmp_path: Path) -> Iterator[Home]:
    """A copy of it, open."""
    copy(still, tmp_path / "far")
    opened = open_home(tmp_path / "far")
    yield opened
    opened.close()
