"""The ground the tests stand on does hold."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest
from tests.conftest import ROOT, Ids, require_tool, run_as, without_privileges


def test_a_test_sees_nothing_of_the_developers_settings(hermetic: Path) -> None:
    assert os.environ["HOME"] == str(hermetic)
    assert not list(hermetic.iterdir())
    assert not [name for name in os.environ if name.startswith("KAI_")]
    assert os.environ["GIT_CONFIG_GLOBAL"] == os.devnull


def test_a_missing_tool_skips_but_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "IN_CI", False)
    with pytest.raises(pytest.skip.Exception, match="no-such-tool"):
        require_tool("no-such-tool")
    monkeypatch.setattr(conftest, "IN_CI", True)
    with pytest.raises(pytest.fail.Exception, match="no-such-tool"):
        require_tool("no-such-tool")


def test_a_tool_that_is_there_is_found() -> None:
    assert Path(require_tool("sh")).is_absolute()


def test_another_uid_is_refused_what_is_not_its_own(other_uid: Ids, public_tmp: Path) -> None:
    secret = public_tmp / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    assert run_as(other_uid, ["id", "-u"], cwd=public_tmp).stdout == f"{other_uid.uid}\n"
    assert run_as(other_uid, ["id", "-G"], cwd=public_tmp).stdout == f"{other_uid.gid}\n"
    assert "Permission denied" in run_as(other_uid, ["cat", secret], cwd=public_tmp).stderr


def test_another_uid_can_run_kaivc(other_uid: Ids, public_tmp: Path, public_python: list[str]) -> None:
    script = "import kaivc.errors, dulwich, typer, yaml, zstandard"
    result = run_as(other_uid, [*public_python, "-c", script], cwd=public_tmp)
    assert (result.returncode, result.stderr) == (0, "")


def test_without_privileges_a_closed_directory_is_closed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    argv = without_privileges(["touch", closed / "file"])
    assert subprocess.run(argv, capture_output=True, check=False).returncode != 0
    assert not list(closed.iterdir())


def test_a_signal_reaches_the_programs_that_a_test_starts() -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        program = subprocess.Popen(["sleep", "60"])
        program.send_signal(number)
        assert program.wait(timeout=10) == -number


def test_so_it_does_where_the_run_was_started_in_the_background() -> None:
    """A shell that is not interactive starts its background jobs with SIGINT and SIGQUIT ignored, nohup SIGHUP."""
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "a_signal_reaches", __file__]
    shell = ["sh", "-c", "trap '' INT QUIT HUP; exec \"$@\"", "sh", *words]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
