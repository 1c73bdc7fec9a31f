"""A small home, and the command line in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kaivc.cli.main import main
from tests.cli import prepared
from tests.cli.doors import Result

Kai = Callable[..., Result]


@pytest.fixture
def kai(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Kai:
    """Run a command line here; its exit code, and what it printed."""
    monkeypatch.setenv("KAI_AUTHOR", "Ann Example <ann@example.invalid>")

    def call(*args: str) -> Result:
        capsysbinary.readouterr()
        code = main(args)
        out, err = capsysbinary.readouterr()
        return Result(code, out.decode(), err.decode())

    return call


@pytest.fixture
def home(kai: Kai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, the working directory, with the agent `bot`: v1.0.0, v1.1.0 in force, a clean workspace."""
    path = tmp_path / "agents"
    source = tmp_path / "source"
    source.mkdir()
    (source / "logic.py").write_text("print('one')\n")
    (source / "config.yaml").write_text("model: small\n")
    (source / "state.json").write_text('{"n": 1}\n')
    assert kai("init", str(path)).code == 0
    monkeypatch.chdir(path)
    assert kai("new", "bot", "--from", str(source)).code == 0
    assert kai("commit", "bot", "-m", "the first").code == 0
    (path / "bot/workspace/logic.py").write_text("print('two')\n")
    assert kai("commit", "bot", "--bump", "minor", "-m", "the second").code == 0
    return path


@pytest.fixture
def workspace(home: Path) -> Path:
    """The workspace of `bot`."""
    return home / "bot" / "workspace"


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples of docs/reference find, made once: copy it."""
    top = tmp_path_factory.mktemp("examples")
    prepared.make(top)
    return top
