"""`kai remote`, `clone`, `fetch`, `pull`, `push`: what people read, which remote is meant, who is asked for secrets."""

import sys
from pathlib import Path

import pytest

from kaivc.api import nobody
from kaivc.cli import remotes
from kaivc.cli.commands.clone import directory_of
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint
from tests.cli.conftest import Kai
from tests.cli.doors import on_a_terminal


@pytest.fixture
def office(kai: Kai, home: Path) -> Path:
    """A home that was cloned from the other one, which knows it as `office`, and where there is something new."""
    assert kai("clone", str(home), str(home.parent / "office")).code == 0
    assert kai("remote", "add", "office", "../office").code == 0
    assert kai("fetch").code == 0
    place = home.parent / "office"
    (place / "bot/workspace/logic.py").write_text("print('three')\n")
    assert kai("--home", str(place), "commit", "bot", "-m", "theirs").code == 0
    return place


def test_what_a_fetch_a_pull_and_a_push_say(kai: Kai, home: Path, office: Path) -> None:
    theirs = kai("--home", str(office), "rev-parse", "bot").out[:12]
    assert kai("fetch").out.splitlines() == [
        f"from {office}",
        f"  bot@v1.1.1 [new] ({theirs})",
        f"  bot@current v1.1.0 -> v1.1.1 ({theirs})",
        "office: 2 refs moved, 4 objects came",
    ]
    assert kai("diff", f"bot@{theirs}", "current").code == 0, "by this it is known here until it is pulled"
    assert kai("fetch").out == "office: nothing new\n"
    (home / "bot/workspace/state.json").write_text("mine")
    assert kai("pull", "bot").out.splitlines() == [
        "v1.1.1 [new]",
        "current v1.1.0 -> v1.1.1",
        "bot: 1 new version, 0 objects from office; v1.1.1 is in force",
        "the workspace as it was is in backups/5",
    ]
    assert kai("pull", "bot").out == "bot: nothing new at office; v1.1.1 is in force\n"
    assert kai("push", "bot").out == "bot: office has all of it\n"
    kai("rollback", "bot", "--to", "v1.0.0")
    assert kai("push", "bot", "--dry-run").out.splitlines() == [
        f"to {office}",
        "  current v1.1.1 -> v1.0.0",
        "bot: 1 ref would move at office (dry run: nothing was sent)",
    ]
    assert kai("push", "bot").out.splitlines()[-1] == "bot: 1 ref moved at office, 0 bytes sent"
    assert (office / "bot/workspace/logic.py").read_text() == "print('one')\n"


@pytest.mark.parametrize(
    "text",
    ["- " * 2000, "remotes: 2026-99-99", "remotes: !!timestamp x", "remotes: &a {b: *a}", "[", "remotes: {a: b}"],
)
def test_a_list_that_is_none_is_said_with_its_place(kai: Kai, home: Path, text: str) -> None:
    """Some of these were errors within kai."""
    (home / ".kai/remotes.yaml").write_text(text)
    found = kai("remote", "list")
    assert "E999" not in found.err
    assert ".kai/remotes.yaml" in found.err
    assert "add the remotes again" in found.err or "in quotes" in found.err


def test_a_name_that_looks_like_a_number(kai: Kai, home: Path) -> None:
    """It was written, and the list could not be read again."""
    assert kai("remote", "add", "1e3", "https://kai.example.org/x").code == 0
    assert kai("remote", "list").out.startswith("1e3")
    (home.parent / "linked").mkdir()
    assert kai("new", "2e5", "--link", str(home.parent / "linked")).code == 0
    assert kai("status", "2e5").code == 0


def test_there_are_no_more_remotes_than_are_read(kai: Kai, home: Path) -> None:
    added = [kai("remote", "add", f"far{number}", "https://kai.example.org/" + "x" * 3000) for number in range(9)]
    assert [it.code for it in added[:7]] == [0] * 7
    assert "kai remote remove" in added[-1].err
    assert len(kai("remote", "list").out.splitlines()) == sum(it.code == 0 for it in added)


def test_a_conflict_of_numbers_is_shown_by_a_fetch_and_an_error_of_a_pull(kai: Kai, home: Path, office: Path) -> None:
    kai("--home", str(office), "rollback", "bot", "--to", "v1.1.0")
    assert kai("commit", "bot", "--version", "1.1.1", "--allow-empty").code == 0
    shown = kai("fetch")
    assert shown.code == 0
    assert "bot@v1.1.1 is " in shown.out
    assert "see `kai renumber`" in shown.out
    told = kai("--json", "fetch").document("fetch")["agents"][0]["conflicts"][0]
    assert told["version"] == "v1.1.1"
    assert told["ours"] != told["theirs"]
    failed = kai("pull", "bot")
    assert failed.code == 8
    assert failed.err.startswith("kai: E205: bot@v1.1.1 is ")
    assert told["theirs"][:12] in failed.err


def test_an_agent_that_is_not_here_is_named_and_comes(kai: Kai, home: Path, office: Path) -> None:
    kai("--home", str(office), "new", "other", "--from", str(home / "bot/workspace"))
    kai("--home", str(office), "commit", "other")
    assert "not here: other; `kai pull AGENT` brings one" in kai("fetch").out
    assert kai("pull", "other").out.splitlines()[-1] == (
        "made agent other: 1 new version, 6 objects from office; v1.0.0 is in force"
    )


# ---------------------------------------------------------------- which remote


def test_the_only_remote_or_origin_is_meant(kai: Kai, home: Path, office: Path) -> None:
    assert kai("remote", "add", "disk", "../disk").code == 0
    done = kai("--json", "fetch")
    assert done.error()["code"] == "E402"
    assert done.error()["facts"]["nearest"] == ["disk", "office"]
    assert kai("remote", "rename", "office", "origin").code == 0
    assert kai("fetch").code == 0
    assert kai("fetch", "disk").err.startswith("kai: E301: ")
    assert kai("remote", "list").out.splitlines() == [f"disk    {home.parent / 'disk'}", f"origin  {office}"]


def test_without_a_remote(kai: Kai, home: Path) -> None:
    assert kai("remote", "list").out == "no remote is known; `kai remote add NAME URL` notes one\n"
    for line in ("fetch", "pull bot", "push bot"):
        done = kai(*line.split())
        assert (done.code, "kai remote add NAME URL" in done.err) == (10, True)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/srv/agents", "agents"),
        ("/srv/agents/", "agents"),
        ("../agents.git", "agents"),
        ("ssh://host/srv/agents.kai", "agents"),
        ("git@host:team/agents.git", "agents"),
        ("git@host:agents", "agents"),
        ("https://host/team/agents.git/", "agents"),
        ("week.bundle", "week"),
    ],
)
def test_a_clone_is_called_as_the_last_part(url: str, name: str) -> None:
    assert directory_of(url) == name


@pytest.mark.parametrize("url", ["/", ".", "..", "../..", ".git", ""])
def test_some_names_are_none(url: str) -> None:
    with pytest.raises(Misuse):
        directory_of(url)


@pytest.mark.parametrize(
    "url", ["-x", "ext::sh -c id", "https://ann:secret@host/x", "ftp://host/x", "https://h/?t=secret"]
)
def test_a_refused_url_is_not_shown_with_its_secret(kai: Kai, home: Path, url: str) -> None:
    for line in (["remote", "add", "x", "--", url], ["clone", "--", url, "x"]):
        done = kai(*line)
        assert (done.code, done.err[:11]) == (10, "kai: E408: ")
        assert "secret@" not in done.err
        assert "=secret" not in done.err
    assert not (home / ".kai/remotes.yaml").exists()


# ---------------------------------------------------------------- asking, and what strangers say

ASK = """
import sys
from kaivc.cli import remotes
from kaivc.cli.invocation import Invocation
ask = remotes.ask(Invocation())
print("got", repr(ask("User: ", False)), repr(ask("Token\\x1b[2J: ", True)))
"""


def test_a_secret_is_asked_for_without_echo(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "asks.py").write_text(ASK)
    monkeypatch.setattr("tests.cli.doors.KAI", [sys.executable, str(tmp_path / "asks.py")])
    done = on_a_terminal([], home, [("User: ", "ann\n"), ("Token", "s3cret\n")])
    assert "got 'ann' 's3cret'" in done.out
    assert done.out.count("s3cret") == 1
    assert "\x1b[2J" not in done.out


def test_nobody_is_asked_where_there_is_no_terminal_or_a_program_reads() -> None:
    assert remotes.ask(Invocation()) is nobody
    assert remotes.ask(Invocation(json=True)) is nobody


def test_what_a_stranger_calls_a_ref_is_escaped(kai: Kai, home: Path) -> None:
    from kaivc import api

    opened = api.open(home)
    moves = [("refs/heads/bot/snapshots/\x1b[2J", None, "0" * 64), ("refs/heads/bot/current", "1" * 64, "2" * 64)]
    told = list(remotes.lines(opened, "bot", moves, Paint(on=False)))
    assert told == ["snapshots/\\x1b[2J [new]", "current 111111111111 -> 222222222222"]
    opened.close()
