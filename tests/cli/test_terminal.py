"""What a terminal gets: colours, escapes, a choice, progress; and a reader that leaves early."""

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kaivc.cli.escape import escape, escape_lines, escape_path
from kaivc.cli.progress import Line
from tests.cli.conftest import Kai
from tests.cli.doors import KAI, TIMEOUT, on_a_terminal
from tests.engine.homes import open_home
from tests.engine.test_revisions import spoil

PROMPT = "go to which?"


def test_a_rollback_on_a_terminal_offers_a_choice_by_number(kai: Kai, home: Path) -> None:
    done = on_a_terminal(["rollback", "bot"], home, [(PROMPT, "2\n")], {"NO_COLOR": "1"})
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].startswith("  1 * v1.1.0  ")
    assert lines[1].startswith("  2   v1.0.0  ")
    assert lines[1].endswith("  the first")
    assert "bot: rollback v1.1.0 -> v1.0.0" in lines
    assert kai("status", "--json").document("status")["agents"][0]["version"] == "1.0.0"


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ("v1.0.0\n", 0, "rollback v1.1.0 -> v1.0.0"),
        ("\n", 3, "E101: no version was chosen"),
        ("\x04", 3, "E101: no version was chosen"),
        ("9\n", 3, "E101: bot has no revision '9'"),
        ("\x03", 130, "kai: interrupted"),
    ],
)
def test_other_answers_to_the_choice(home: Path, answer: str, code: int, said: str) -> None:
    done = on_a_terminal(["rollback", "bot"], home, [(PROMPT, answer)], {"NO_COLOR": "1"})
    assert said in done.out
    assert done.code == code


def test_who_starts_kai_with_interrupts_ignored_is_obeyed(home: Path) -> None:
    """As any program does: it was to outlive them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        answers = [(PROMPT, "\x03"), ("^C", "v1.0.0\n")]
        done = on_a_terminal(["rollback", "bot"], home, answers, {"NO_COLOR": "1"})
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted" not in done.out
    assert "bot: rollback v1.1.0 -> v1.0.0" in done.out
    assert done.code == 0


def test_a_mistyped_version_on_a_terminal_offers_the_choice_too(home: Path) -> None:
    done = on_a_terminal(["rollback", "bot", "--to", "v1.0.9"], home, [(PROMPT, "v1.0.0\n")], {"NO_COLOR": "1"})
    assert "kai: E101: bot has no revision 'v1.0.9'" in done.out
    assert "bot: rollback v1.1.0 -> v1.0.0" in done.out
    assert done.code == 0


def test_colours_are_for_terminals(kai: Kai, home: Path, workspace: Path) -> None:
    (workspace / "logic.py").write_text("print('three')\n")
    assert "\x1b[33m" in on_a_terminal(["log", "bot"], home).out
    assert "\x1b[32m+print('three')\x1b[0m\n" in on_a_terminal(["diff", "bot"], home).out
    assert "\x1b[31mE302" in on_a_terminal(["log", "nobody"], home).out
    assert "\x1b" not in kai("log", "bot").out


@pytest.mark.parametrize("quiet", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_color_is_honoured(home: Path, workspace: Path, quiet: dict[str, str]) -> None:
    (workspace / "logic.py").write_text("print('three')\n")
    for args in (["log", "bot"], ["diff", "bot"], ["status"], ["log", "nobody"]):
        assert "\x1b" not in on_a_terminal(args, home, env=quiet).out


def test_an_empty_no_color_means_nothing(home: Path) -> None:
    assert "\x1b[33m" in on_a_terminal(["log", "bot"], home, env={"NO_COLOR": ""}).out


def test_notes_and_names_cannot_command_the_terminal(kai: Kai, home: Path, workspace: Path) -> None:
    (workspace / "a\x1b]0;x\x07b\nc").write_text("x")
    kai("commit", "bot", "-m", "title\x1b[2J\n\nbody\x9b31m \u202eevil\u2066")
    for args in (["log"], ["log", "--oneline"], ["versions"], ["show"], ["reflog"], ["status"]):
        out = kai(*args, "bot").out
        assert out.replace("\n", "").isprintable(), args
    assert "title\\x1b[2J" in kai("log", "bot").out
    assert "body\\x9b31m \\u202eevil\\u2066" in kai("log", "bot").out
    assert kai("restore", "bot", "no\x1b[2Jsuch").err.isascii()
    assert "\x1b" not in kai("restore", "bot", "no\x1b[2Jsuch").err


def test_escape() -> None:
    assert escape("plain é 日本") == "plain é 日本"
    assert escape("a\tb\r\0\x7f\x85") == "a\\tb\\r\\x00\\x7f\\x85"
    assert escape("caf\udce9") == "caf\\xe9"
    assert escape_path(b"caf\xe9 \xc3\xa9") == "caf\\xe9 é"
    assert escape_lines("a\tb\nc\x1b") == ["a       b", "c\\x1b"]


def test_a_reader_that_leaves_early_is_no_error(kai: Kai, home: Path, workspace: Path) -> None:
    (workspace / "big").write_text("y\n" * 500_000)
    with subprocess.Popen([*KAI, "diff", "bot"], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(TIMEOUT) == 141


def test_nobody_reading_at_all_is_no_error(home: Path) -> None:
    for args in ("log bot", "--version", "status --json", "--help"):
        line = f"{{ sleep 0.3; '{KAI[0]}' -m kaivc {args}; echo $? >&2; }} | true"
        done = subprocess.run(["sh", "-c", line], cwd=home, capture_output=True, text=True, check=False)
        assert done.stderr == "141\n", args


class Screen:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_progress_is_drawn_after_a_second_and_taken_away() -> None:
    screen = Screen()
    line = Line(screen, width=20)  # type: ignore[arg-type]
    line("writing", 1, 10)
    line.clear()
    assert screen.text == ""
    line._began = time.monotonic() - 2
    line("writing", 5, 10)
    line("writing", 6, 10)  # too soon after
    line._drawn = 0.0
    line("verifying", 7, None)
    assert screen.text == "\rwriting: 5 of 10 (50\rverifying: 7        "
    line.clear()
    assert screen.text.endswith("\r            \r")


def test_bytes_that_travel_have_a_rate_and_a_name_from_elsewhere_is_escaped() -> None:
    screen = Screen()
    line = Line(screen, width=79)  # type: ignore[arg-type]
    line("receiving", 1 << 20, 10 << 20)  # what came before the connection was cut counts for no rate
    line._began = time.monotonic() - 2
    assert line._work is not None
    object.__setattr__(line._work, "began", time.monotonic() - 2)
    line("receiving", 5 << 20, 10 << 20)
    assert re.fullmatch(r"\rreceiving: 5\.0 MiB of 10\.0 MiB \(50%\), (2\.0|1\.9) MiB/s", screen.text)
    line._drawn = 0.0
    screen.text = ""
    line("there: \x1b[2J", 3, 4)
    assert screen.text.rstrip() == "\rthere: \\x1b[2J: 3 of 4 (75%)"


def test_the_choice_shows_the_newest_and_takes_any_revision(kai: Kai, home: Path) -> None:
    for _ in range(25):
        assert kai("commit", "bot", "--allow-empty", "-m", "again").code == 0
    done = on_a_terminal(["rollback", "bot"], home, [(PROMPT, "@{26}\n")], {"NO_COLOR": "1"})
    lines = done.out.splitlines()
    assert lines[0].startswith("  1 * v1.1.25  ")
    assert lines[19].startswith(" 20   v1.1.6  ")
    assert lines[20] == "    ... and 7 more: see `kai versions bot`"
    assert "bot: rollback v1.1.25 -> v1.0.0" in done.out


@pytest.mark.parametrize("answer", [b"\xff\n", b"9" * 5000 + b"\n", b"0\n"])
def test_no_answer_to_the_choice_ends_in_a_fault(home: Path, answer: bytes) -> None:
    done = on_a_terminal(["rollback", "bot"], home, [(PROMPT, answer.decode(errors="surrogateescape"))])
    assert done.code == 3
    assert "E999" not in done.out


def test_an_agent_without_versions_has_no_choice_to_offer(kai: Kai, home: Path) -> None:
    kai("new", "apt")
    for args in (["rollback", "apt"], ["rollback", "apt", "--to", "v1.0.0"], ["rollback", "apt", "--to", "current"]):
        done = on_a_terminal(args, home)
        assert done.code == 3
        assert PROMPT not in done.out
        assert "kai commit apt" in done.out


def test_a_damaged_version_in_force_does_not_stop_the_choice(kai: Kai, home: Path) -> None:
    agent = open_home(home).agent("bot")
    spoil(agent, agent.current.oid)
    done = on_a_terminal(["rollback", "bot"], home, [(PROMPT, "1\n")], {"NO_COLOR": "1"})
    assert done.out.splitlines()[0].startswith("  1   v1.0.0  ")
    assert done.code == 0
    assert kai("status", "--json").document("status")["agents"][0]["version"] == "1.0.0"


def test_the_choice_also_makes_a_dry_run_and_is_never_offered_to_a_program(home: Path) -> None:
    done = on_a_terminal(["rollback", "bot", "--dry-run"], home, [(PROMPT, "2\n")], {"NO_COLOR": "1"})
    assert "(dry run: nothing moved)" in done.out
    done = on_a_terminal(["rollback", "bot", "--json"], home)
    assert PROMPT not in done.out
    assert done.code == 3
