"""Each example of docs/reference, run as it stands there: once for people, once with --json, held to its schema."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kaivc.cli.app import VERBS
from tests.cli import prepared
from tests.cli.conftest import Kai
from tests.cli.doors import TIMEOUT, on_a_terminal
from tests.cli.reference import PAGES, REFERENCE, schema_of
from tests.cli.reference import examples as shown
from tests.conftest import ROOT

ASKS = {"kai rollback summarizer": [("go to which?", "v1.1.0\n")]}
"""Lines for a terminal, and what is answered there."""

TEXTS = [path.read_text() for path in (REFERENCE / f"{name}.md" for name in PAGES) if path.exists()]
LINES = [line for text in TEXTS for line in shown(text)]


def command(line: str) -> str:
    """The line without its remark."""
    return line.partition("  # ")[0].rstrip()


def expected(line: str) -> int:
    """The exit code that the remark tells: 0 unless it says another."""
    told = re.search(r"\bexit (\d+)", line.partition("  # ")[2])
    return int(told[1]) if told else 0


def verb_of(args: list[str]) -> str:
    """The first word, or two, that are a verb; options may stand before it."""
    told = (" ".join(args[at : at + length]) for at in range(len(args)) for length in (2, 1))
    return next(it for it in told if it in VERBS)


def for_a_shell(line: str) -> bool:
    return bool(re.search(r"[|<>$;&]", command(line)))


@pytest.fixture
def top(examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy for one example; `kai` and `python3` are those under test."""
    path = tmp_path / "top"
    shutil.copytree(examples, path, symlinks=True)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, start in (("kai", "-m kaivc"), ("python3", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start} "$@"\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    return path


@pytest.mark.parametrize("line", LINES)
def test_each_example_does_what_its_remark_says(
    line: str, top: Path, kai: Kai, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared.arranged(line, top))
    if command(line) in ASKS:
        done = on_a_terminal(shlex.split(command(line))[1:], Path.cwd(), ASKS[command(line)])
        assert done.code == expected(line), done.out
    elif for_a_shell(line):
        script = f"set -o pipefail; {command(line)}"
        ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert ran.returncode == expected(line), ran.stdout + ran.stderr
    else:
        done = kai(*shlex.split(command(line))[1:])
        assert done.code == expected(line), done.out + done.err


@pytest.mark.parametrize("line", [it for it in LINES if command(it) not in ASKS and not for_a_shell(it)])
def test_each_example_answers_with_a_document_of_its_schema(
    line: str, top: Path, kai: Kai, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared.arranged(line, top))
    args = shlex.split(command(line))[1:]
    done = kai("--json", *args)
    assert done.code == expected(line), done.out + done.err
    if done.code and not done.out:
        done.error()
    else:
        done.document(schema_of(verb_of(args)))


def test_the_first_look_of_the_readme_is_what_happens(top: Path) -> None:
    look = re.search(r"## A first look\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert look
    here = top / "empty"
    (top / "my-agent").rename(here / "my-agent")
    edited = re.sub(
        r"^kai commit", "date +%N > summarizer/workspace/state.json\nkai commit", look[1], flags=re.MULTILINE
    )
    ran = subprocess.run(
        ["sh", "-e"], input=edited, cwd=here, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


ROWS = re.findall(r"^\| (`AGENT.*?) \|", (REFERENCE / "index.md").read_text(), re.MULTILINE)
FORMS = [form for row in ROWS for form in re.findall(r"`(.+?)`", row)]
STAND_FOR = {"AGENT": prepared.AGENT, "1.2": "1.1", "2026-11-01": "2099-11-01", "ID": "one", "SEQ": "7"}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_revision_is_understood(form: str, top: Path, kai: Kai, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(top / "agents")
    for placeholder, real in STAND_FOR.items():
        form = form.replace(placeholder, real)
    done = kai("--json", "rev-parse", form)
    if "snapshots" in form or "0f3c9a" in form:  # none is there
        assert done.error()["code"] == "E303"
    else:
        assert done.code == 0, done.err


def test_no_example_leaves_its_directory() -> None:
    typed = [command(line).replace("/dev/null", "") for line in LINES]
    assert [line for line in typed if re.search(r"(^|[\s=>'\"])[/~]|\.\./\.\.", line)] == []


def test_the_remark_tells_the_code() -> None:
    assert expected("kai diff bot --exit-code  # exit 1 if anything differs") == 1
    assert expected("kai diff bot --exit-code") == 0
    assert command('kai commit bot -m "a  #b"   # exit 3') == 'kai commit bot -m "a  #b"'
    assert for_a_shell("kai diff bot | git apply  # x")
    assert not for_a_shell("kai diff bot  # x | y")
