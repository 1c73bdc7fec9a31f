"""What goes wrong: codes, exit codes, the nearest names, and no traceback unless asked for."""

from pathlib import Path

import pytest

from kaivc.api import Agent
from kaivc.cli.main import main, script
from tests.cli.conftest import Kai
from tests.cli.doors import process


def test_a_mistyped_version_is_e101_with_the_nearest(kai: Kai, home: Path) -> None:
    done = kai("rollback", "bot", "--to", "v1.1.1")
    assert done.code == 3
    assert done.err == ("kai: E101: bot has no revision 'v1.1.1'\n  nothing moved\n  did you mean v1.1.0, v1.0.0?\n")
    error = kai("rollback", "bot", "--to", "v1.1.1", "--json").error()
    assert (error["code"], error["facts"]["nearest"]) == ("E101", ["v1.1.0", "v1.0.0"])


def test_without_a_terminal_a_rollback_must_say_where_to(home: Path) -> None:
    done = process("rollback", "bot", cwd=home)
    assert done.code == 3
    assert done.err.startswith("kai: E101: no version is named\n  nothing moved\n  name one with --to: ")


def test_a_mistyped_agent_is_e302_with_the_nearest(kai: Kai, home: Path) -> None:
    done = kai("log", "bto")
    assert done.code == 9
    assert done.err.startswith("kai: E302: ")
    assert "did you mean bot?" in done.err


def test_a_mistyped_path_is_e314_with_the_nearest(kai: Kai, home: Path) -> None:
    done = kai("restore", "bot", "logc.py")
    assert done.code == 9
    assert done.err.startswith("kai: E314: ")
    assert "  nothing moved\n  did you mean logic.py?\n" in done.err


def test_a_mistyped_command_or_option_is_usage_with_the_nearest(kai: Kai, home: Path) -> None:
    done = kai("rolback", "bot")
    assert (done.code, done.err) == (2, "kai: there is no command 'rolback'\n  did you mean rollback, role?\n")
    done = kai("rollback", "bot", "--reson", "x")
    assert done.code == 2
    assert done.err.startswith("kai: no such option: --reson\n  did you mean --reason")


@pytest.mark.parametrize(
    "args",
    [
        ("commit",),
        ("commit", "bot", "--bump", "minor", "--version", "2.0.0"),
        ("commit", "bot", "-m", "x", "--notes-file", "-"),
        ("commit", "bot", "--notes-file", "/nonexistent/notes"),
        ("commit", "bot", "--type", "rollback"),
        ("new", "x", "--from", "a", "--link", "b"),
        ("reflog", "bot", "current", "--all"),
        ("log", "bot", "-n", "0"),
        ("status", "-c", "lock.wait"),
        ("export", "bot"),
        ("status", "bot", "more"),
    ],
)
def test_a_line_that_makes_no_sense_is_usage(kai: Kai, home: Path, args: tuple[str, ...]) -> None:
    done = kai(*args)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("kai: ")
    assert kai(*args, "--json").error()["code"] == "usage"


def test_a_wrong_setting_is_e306(kai: Kai, home: Path) -> None:
    done = kai("status", "-c", "lock.wiat=1s")
    assert done.code == 9
    assert done.err.startswith("kai: E306: ")


def test_no_home_is_e301(kai: Kai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kai("status").code == 9
    monkeypatch.setenv("KAI_HOME", str(tmp_path / "nowhere"))
    assert kai("status", "--json").error()["code"] == "E301"


def test_the_home_is_found_from_below_or_by_name(
    kai: Kai, home: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    assert kai("status").code == 0
    monkeypatch.chdir(tmp_path)
    assert kai("--home", str(home), "status").code == 0
    assert kai("status", "--home", str(home)).code == 0
    monkeypatch.setenv("KAI_HOME", str(home))
    assert kai("status").code == 0


def break_status(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(self: Agent) -> None:
        raise error

    monkeypatch.setattr(Agent, "status", fail)


def test_a_fault_is_one_line_and_e999(kai: Kai, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_status(monkeypatch, RuntimeError("a\x1b[31mb"))
    done = kai("status")
    assert done.code == 11
    assert done.err.splitlines()[0] == "kai: E999: RuntimeError: a\\x1b[31mb"
    assert "run again with --debug for the traceback" in done.err
    assert "Traceback" not in done.err
    assert kai("status", "--json").error()["code"] == "E999"


def test_debug_shows_the_traceback(kai: Kai, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_status(monkeypatch, RuntimeError("broken"))
    done = kai("status", "--debug")
    assert done.code == 11
    assert "Traceback (most recent call last):" in done.err
    assert "kai: E999: RuntimeError: broken\n" in done.err
    assert "Traceback" in kai("--debug", "log", "nobody").err


def test_an_interrupted_command_exits_with_130(kai: Kai, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_status(monkeypatch, KeyboardInterrupt())
    done = kai("status")
    assert (done.code, done.err) == (130, "kai: interrupted\n")


@pytest.mark.parametrize("place", ["kaivc.cli.app.run", "kaivc.cli.main._fill_what_is_closed"])
def test_an_interrupt_before_the_command_begins_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(place, interrupt)
    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr("sys.argv", ["kai", "status"])
    with pytest.raises(SystemExit, match="130"):
        script()
    assert capfd.readouterr().err == "kai: interrupted\n"


def test_what_starts_kai_imports_next_to_nothing() -> None:
    """An interrupt meanwhile would show where it was."""
    import subprocess
    import sys

    code = "import sys, os; before = {*sys.modules}; import kaivc.cli.main; print(*sorted({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["__future__", "gc", "kaivc", "kaivc.cli", "kaivc.cli.main"]


def test_a_file_that_may_not_be_read_is_no_fault_of_ours(kai: Kai, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_status(monkeypatch, PermissionError(13, "Permission denied", "/x/config.yaml"))
    done = kai("status")
    assert (done.code, done.err) == (9, "kai: E311: /x/config.yaml: Permission denied\n")


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (OSError(24, "Too many open files", "/x/y.py"), "E901", "ulimit -n"),
        (OSError(28, "No space left on device", "/x"), "E902", "free some space"),
        (OSError(5, "Input/output error"), "E901", "health of the disk"),
        (MemoryError(), "E901", "more memory"),
    ],
)
def test_what_the_system_refuses_is_no_fault_of_ours(
    kai: Kai, home: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, hint: str
) -> None:
    break_status(monkeypatch, error)
    done = kai("status")
    assert done.code == 11
    assert done.err.startswith(f"kai: {code}: ")
    assert hint in done.err


def test_no_arguments_at_all_is_help_and_usage(kai: Kai) -> None:
    done = kai()
    assert done.code == 2
    assert done.out.startswith("Usage: kai [OPTIONS] COMMAND [ARGS]...\n")


def test_a_full_disk_under_stdout_is_said(home: Path) -> None:
    import subprocess

    from tests.cli.doors import KAI

    with open("/dev/full", "w") as full:
        for args in (["log", "bot"], ["diff", "bot@v1.0.0", "v1.1.0"], ["--version"]):
            done = subprocess.run([*KAI, *args], cwd=home, stdout=full, stderr=subprocess.PIPE, check=False)
            assert done.returncode == 11
            assert b"the answer could not be written" in done.stderr
            assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_take_no_answer_and_no_harm(home: Path, closed: str) -> None:
    import subprocess

    from tests.cli.doors import KAI

    def kai(line: str) -> subprocess.CompletedProcess[str]:
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *KAI, *line.split()]
        return subprocess.run(shell, cwd=home, capture_output=True, text=True, check=False)

    lines = {"--version": 0, "status": 0, "cat bot logic.py": 0, "commit bot --bump patch --allow-empty": 0}
    lines |= {"status --json": 0, "run bot -- true": 0, "log nobody": 9, "no-such-verb": 2}
    for line, code in lines.items():
        done = kai(line)
        assert done.returncode == code, (line, done)
        assert "Traceback" not in done.stderr
        assert "E999" not in done.stderr
        assert bool(done.stdout) == (">&-" not in closed.split() and not code and "run" not in line)
    assert "v1.1.1" in process("versions", "bot", cwd=home).out
    assert process("fsck", cwd=home).code == 0


def test_a_full_disk_under_stderr_leaves_the_exit_code(home: Path) -> None:
    import subprocess

    from tests.cli.doors import KAI

    with open("/dev/full", "w") as full:
        for line, code in {"log nobody": 9, "log nobody --debug": 9, "no-such-verb": 2, "log bot": 0}.items():
            done = subprocess.run([*KAI, *line.split()], cwd=home, stdout=subprocess.PIPE, stderr=full, check=False)
            assert done.returncode == code, line
        done = subprocess.run([*KAI, "log", "bot"], cwd=home, stdout=full, stderr=full, check=False)
        assert done.returncode == 11


def test_main_without_arguments_reads_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["kai", "--version"])
    assert main() == 0
