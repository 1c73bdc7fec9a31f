"""`kai snapshot` at the command line: what it says, its exit codes, and which word is an agent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kaivc.cli.completing import offered
from tests.cli.conftest import Kai
from tests.cli.doors import process
from tests.engine import homes
from tests.engine.homes import open_home

FILES = {"kai.yaml": b"check: [sh, -c, 'echo checked']\n", "logic.py": b"1\n", "state.json": b"{}\n"}


@pytest.fixture
def home(tmp_path: Path, kai: Kai, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the agent `bot`, and the working directory."""
    path = tmp_path / "agents"
    assert kai("init", str(path)).code == 0
    monkeypatch.chdir(path)
    (path / ".kai/config.yaml").write_text(f"isolation: {{temp_dir: {tmp_path}/temp}}\n")
    make(path, "bot")
    return path


def make(home: Path, name: str) -> None:
    opened = open_home(home)
    homes.commit(opened.new(name), FILES)
    opened.close()


def test_a_snapshot_from_test_to_version(kai: Kai, home: Path) -> None:
    done = kai("snapshot", "bot", "--test", "v1.0.0")
    assert done.code == 0
    first, second, third, *rest = done.out.splitlines()
    assert (first, rest) == ("bot: test of v1.0.0", ["it changed nothing"])
    assert re.fullmatch(r"passed: ended with 0 after \d\.\d\d s, \d\.\d\d s of CPU, .*", second), second
    assert third == "in native (full)"
    assert done.err == "checked\n"
    script = "echo 2 >> logic.py; echo x > new.txt"
    done = kai("snapshot", "bot", "--test", "v1.0.0", "--commit", "--", "sh", "-c", script)
    assert (done.code, "  M  logic.py (2 bytes -> 4 bytes)\n  A  new.txt (2 bytes)\n" in done.out) == (0, True), (
        done.out
    )
    match = re.search(r"kept as bot@snapshots/(\S+);", done.out)
    assert match
    name = match[1]
    assert kai("snapshot", "list").out.startswith(f"bot@{name}  passed   of v1.0.0  ")
    assert "Command: sh -c echo 2" in kai("snapshot", "show", name).out
    assert kai("diff", "bot@v1.0.0", f"bot@snapshots/{name}", "--name-status").out.split() == [
        "M",
        "logic.py",
        "A",
        "new.txt",
    ]
    assert kai("cat", f"bot@snapshots/{name}", "new.txt").out == "x\n"
    assert kai("show", f"bot@snapshots/{name}").code == 0
    (listed,) = kai("snapshot", "list", "bot", "--json").document("snapshot-list")["snapshots"]
    assert (listed["id"], listed["exit_code"], listed["kept"]) == (name, 0, None)
    assert "v1.1.0 of snapshot" in kai("snapshot", "promote", name, "--bump", "minor", "--dry-run").out
    assert kai("snapshot", "promote", name, "--bump", "minor", "-m", "better").code == 0
    assert kai("cat", "bot", "new.txt").out == "x\n"
    assert (home / "bot/workspace/new.txt").read_text() == "x\n"
    assert kai("snapshot", "promote", name).code == 8
    assert kai("snapshot", "drop", name).code == 0
    assert kai("snapshot", "list").out == "there is no snapshot\n"
    assert kai("snapshot", "show", name).code == 9


def test_a_test_that_fails_is_exit_1_and_says_why(kai: Kai, home: Path) -> None:
    done = kai("snapshot", "bot", "--test", "current", "--commit", "--", "sh", "-c", "echo bad; exit 3")
    assert done.code == 1
    assert "failed: ended with 3 after" in done.out
    assert "not committed: the test failed" in done.out
    done = kai("snapshot", "bot", "--test", "current", "--json", "--commit", "--", "mkfifo", "p")
    found = done.document("snapshot")
    assert (done.code, found["status"], found["ok"], found["snapshot"]) == (1, "passed", False, None)
    assert found["refusals"] == ["p is a named pipe: a version cannot hold it"]
    assert kai("snapshot", "bot", "--test", "current", "--json", "--", "mkfifo", "p").code == 0


def test_what_the_command_prints_is_shown_and_not_obeyed(kai: Kai, home: Path) -> None:
    said = r"printf '\033]0;owned\007a\033[2Jb\r\nc\xff\xe2\x80\xaed\n'"
    done = kai("snapshot", "bot", "--test", "current", "--", "bash", "-c", said)
    assert done.err == "\\x1b]0;owned\\x07a\\x1b[2Jb\nc\\xff\\u202ed\n"
    assert "\x1b" not in done.out
    done = kai("snapshot", "bot", "--test", "current", "--json", "--", "bash", "-c", said)
    assert (done.err, done.document("snapshot")["output_bytes"]) == ("", 25)
    odd = r"touch $'\033[31mred' $'\xff'"
    done = kai("snapshot", "bot", "--test", "current", "--", "bash", "-c", odd)
    assert "  A  \\x1b[31mred (0 bytes)\n  A  \\xff (0 bytes)\n" in done.out
    rows = kai("snapshot", "bot", "--test", "current", "--json", "--", "bash", "-c", odd).document("snapshot")[
        "changes"
    ]
    assert [row.get("path_b64") for row in rows] == [None, "/w=="]


def test_with_test_the_word_is_an_agent_without_it_a_command(kai: Kai, home: Path) -> None:
    make(home, "list")
    done = kai("snapshot", "list", "--test", "current", "--commit", "--json", "--", "touch", "new")
    name = done.document("snapshot")["id"]
    assert done.document("snapshot")["agent"] == "list"
    assert kai("snapshot", "--test=current", "list").code == 0
    assert kai("--json", "snapshot", "list", "list").document("snapshot-list")["snapshots"][0]["id"] == name
    assert kai("snapshot", "list", "--", "--test").code == 9  # an agent of that name: what follows is no option
    done = kai("snapshot", "bot")
    assert (done.code, "there is no command 'snapshot bot'" in done.err) == (2, True)
    assert "`kai snapshot bot --test ...` takes it for an agent" in done.err
    assert kai("snapshot", "--help").out.startswith("Usage: kai snapshot [OPTIONS] COMMAND")
    assert "kai snapshot AGENT --test ..." in kai("snapshot", "--help").out
    assert "--commit" in kai("snapshot", "bot", "--test", "current", "--help").out


def test_one_id_of_two_agents_wants_the_agent_too(kai: Kai, home: Path) -> None:
    done = kai("snapshot", "bot", "--test", "current", "--commit", "--json", "--", "touch", "new")
    name = done.document("snapshot")["id"]
    assert kai("new", "twin", "--from", f"bot@snapshots/{name}").code == 0
    done = kai("snapshot", "show", name)
    assert (done.code, f"say which: bot@{name}, twin@{name}" in done.err) == (9, True)
    assert kai("snapshot", "show", f"twin@{name}").code == 0
    shown = kai("snapshot", "show", f"twin@{name}", "--json").document("snapshot-show")
    assert (shown["command"], [row["path"] for row in shown["changes"]]) == (None, ["new"])


def test_the_words_are_completed(kai: Kai, home: Path) -> None:
    done = kai("snapshot", "bot", "--test", "current", "--commit", "--json", "--", "touch", "new")
    name = done.document("snapshot")["id"]

    def words(*typed: str) -> list[str]:
        return [word for word, _ in offered(list(typed))[1]]

    assert words("snapshot", "") == ["list", "show", "promote", "drop", "bot"]
    assert words("snap") == ["snapshot"]
    assert words("snapshot", "show", "") == [name]
    assert words("snapshot", "promote", "2") == [name]
    assert words("snapshot", "list", "") == ["bot"]
    assert words("snapshot", "--test", "current", "") == ["bot"]
    assert f"snapshots/{name}" in words("snapshot", "bot", "--test", "")
    assert "--commit" in words("snapshot", "bot", "--c")


def test_the_command_has_no_terminal(home: Path) -> None:
    """Of a real process: the relay of what the command prints is not its terminal."""
    done = process(
        "snapshot", "bot", "--test", "current", "--", "sh", "-c", "tty; [ -t 1 ] && echo terminal; true", cwd=home
    )
    assert (done.code, "terminal" in done.err) == (0, False), done.err
