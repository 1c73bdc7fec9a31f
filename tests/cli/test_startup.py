"""What a command imports: the fast path nothing, the others only their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaivc import __version__
from kaivc.cli.app import VERBS
from kaivc.cli.parser import build, load
from tests.cli.doors import process


def imported(*args: str, cwd: Path) -> set[str]:
    script = "import sys; from kaivc.cli.main import main; main(); print(*sys.modules, file=sys.stderr)"
    # Measuring coverage imports modules of its own.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", script, *args]
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_version_is_told_without_a_parser(tmp_path: Path) -> None:
    names = imported("--version", cwd=tmp_path)
    assert not names & {"typer", "click", "argparse", "sqlite3", "kaivc.api", "kaivc.errors", "yaml"}
    assert process("--version").out == f"kai {__version__}\n"
    assert process("-V", "--json").out == f"kai {__version__}\n"


def test_a_verb_imports_no_other_and_nothing_rich(home: Path) -> None:
    names = imported("status", cwd=home)
    verbs = {name for name in names if name.startswith("kaivc.cli.commands.")}
    assert verbs == {"kaivc.cli.commands.status"}
    assert not names & {"rich", "dulwich", "pygments", "urllib.request", "asyncio"}


def test_help_opens_no_store(tmp_path: Path) -> None:
    names = imported("--help", cwd=tmp_path)
    assert not names & {"rich", "sqlite3", "kaivc.api", "kaivc.storage.store", "zstandard"}


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_by_both_names(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from kaivc.cli.main import main

    for option in ("-h", "--help"):
        assert main([*verb.split(" "), option]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"Usage: kai {verb} ")
        assert "--home DIR" in out


def test_the_summaries_fit_their_column() -> None:
    words = [verb.partition(" ")[0] for verb in VERBS]
    assert list(build().list_commands(None)) == list(dict.fromkeys(words))  # type: ignore[arg-type]
    for verb in VERBS:
        summary = (load(verb).help or "").split("\n", 1)[0]
        assert summary.endswith("."), verb
        assert len(summary) <= 66, verb
