"""The demo and the tutorial, played as they are: what they show is what happens."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import ROOT, require_tool, run_as

TUTORIAL = ROOT / "docs" / "tutorial.md"
DEMO = ROOT / "scripts" / "demo.py"


@dataclass
class Step:
    """One command of the tutorial, and the lines that it shows."""

    command: str
    shown: list[str] = field(default_factory=list)


def steps() -> list[Step]:
    """The commands of all `console` blocks, in order."""
    found: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```$", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.rstrip("\n").split("\n"):
            if line.startswith("$ "):
                found.append(Step(line[2:]))
            else:
                found[-1].shown.append(line)
    return found


# What differs from one time to the next, and what stands for it.
VOLATILE = (
    (re.compile(r"/\S*/(agents|evidence|tally\.git)"), r"DIR/\1"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"\b[0-9a-f]{7,64}\b"), "HASH"),
    (re.compile(r"such as '.*'"), "such as SOMETHING"),
    (re.compile(r"\(TIME, .*\)"), "(TIME, SOMEONE)"),
    (re.compile(r"\d+(\.\d+)? (tickets|of them|of N|objects|KiB)"), r"N \2"),
    (re.compile(r"\d+ of N"), "N of N"),
    (re.compile(r"^(\w+ +)\d+(   (such as|calls))"), r"\1N\2"),
    (re.compile(r" +"), " "),
)


def plain(line: str) -> str:
    """A line without what differs from one time to the next."""
    for pattern, instead in VOLATILE:
        line = pattern.sub(instead, line)
    return line.rstrip()


def fits(shown: list[str], printed: list[str]) -> bool:
    """Whether the lines are those, where ``...`` stands for any number of others."""
    expected = "".join(".*" if line == "..." else re.escape(plain(line)) + "\n" for line in shown)
    return re.fullmatch(expected, "".join(plain(line) + "\n" for line in printed), re.DOTALL) is not None


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which `kai` and `python3` are those under test."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, start in (("kai", "-m kaivc"), ("python3", "")):
        (directory / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start} "$@"\n')
        (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return directory


def test_the_tutorial_shows_what_happens(tools, tmp_path):
    require_tool("git")
    story = steps()
    assert len(story) > 40
    script = ["trap 'test -z \"$run\" || kill $run 2>/dev/null' EXIT"]
    for number, step in enumerate(story):
        script += [step.command, f"code=$?; printf '\\n@@@ {number} %s\\n' $code"]
    done = subprocess.run(
        ["bash"],
        input="\n".join(script) + "\n",
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    pieces = re.split(r"\n@@@ (\d+) (\d+)\n", done.stdout)
    outputs = dict(zip(map(int, pieces[1::3]), zip(pieces[0::3], map(int, pieces[2::3]), strict=False), strict=True))
    assert set(outputs) == set(range(len(story))), done.stdout
    for number, step in enumerate(story):
        printed, code = outputs[number]
        lines = printed.rstrip("\n").split("\n") if printed.strip() else []
        assert fits(step.shown, lines), f"$ {step.command}\nsays:\n{printed}\nthe tutorial:\n" + "\n".join(step.shown)
        bad = step.shown[:1] and step.shown[0].startswith("bad:")
        assert code == (1 if bad else 0), f"$ {step.command}\nended with {code}:\n{printed}"
    subprocess.run(["chmod", "-R", "u+w", tmp_path], check=True)


def test_what_the_tutorial_leaves_open_is_little():
    """A check of the check: another word, a line less or a line more is seen."""
    shown = ["made a home in /tmp/tmp.x/agents (sha256)", "...", "ok: 5 tickets, 2 of them urgent"]
    right = ["made a home in /elsewhere/agents (sha256)", "any", "thing", "ok: 71 tickets, 21 of them urgent"]
    assert fits(shown, right)
    assert not fits(shown, right[1:])
    assert not fits(shown, [*right, "one more"])
    assert not fits(shown, [*right[:3], "bad: 71 tickets, 21 of them urgent"])
    assert not fits([], ["anything"])
    assert fits(["general   12   such as 'a'"], ["general    3   such as 'b'"])
    assert not fits(["general   12   such as 'a'"], ["urgent    12   such as 'a'"])


def play(argv: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run the demo."""
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, **options)  # type: ignore[call-overload]


def left_over(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("kai-demo-"))


def test_the_demo_keeps_its_word_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    begun = time.monotonic()
    done = play([sys.executable, str(DEMO)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - begun < 60
    assert "\033" not in done.stdout
    assert "All of it was as said" in done.stdout
    assert done.stdout.count("✓") >= 25
    assert left_over(tmp_path) == []


def test_the_demo_fails_when_something_is_not_as_it_says(tmp_path, monkeypatch):
    """With a third version that is none the worse, the story breaks off where the check should say bad."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "scripts").mkdir()
    shutil.copy(DEMO, tmp_path / "scripts")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(ROOT / "examples/tally/v1/config.yaml", tmp_path / "examples/tally/v3/config.yaml")
    done = play([sys.executable, str(tmp_path / "scripts/demo.py")])
    assert done.returncode == 1
    assert "`python3 check.py` ended with 0, not 1" in done.stdout
    assert left_over(tmp_path) == []


def test_the_demo_works_for_an_ordinary_user(other_uid, public_tmp, public_python):
    (public_tmp / "scripts").mkdir()
    shutil.copy(DEMO, public_tmp / "scripts")
    shutil.copytree(ROOT / "examples", public_tmp / "examples")
    (public_tmp / "tmp").mkdir()
    os.chown(public_tmp / "tmp", other_uid.uid, other_uid.gid)
    subprocess.run(["chmod", "-R", "a+rX", public_tmp], check=True)
    env = {**os.environ, "TMPDIR": str(public_tmp / "tmp")}
    done = run_as(other_uid, [*public_python, str(public_tmp / "scripts/demo.py")], env=env, cwd="/", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert left_over(public_tmp / "tmp") == []
