"""A home that a group shares, seen by another member of it; and one that nobody shares."""

import os
import subprocess
from pathlib import Path

import pytest

import kaivc
from tests.conftest import Ids, run_as
from tests.engine.homes import ENVIRON, commit, open_home

GROUP = 54321


@pytest.fixture
def team(public_tmp: Path, other_uid: Ids) -> Path:
    """A directory that belongs to a group, as an administrator makes one."""
    path = public_tmp / "agents"
    path.mkdir()
    os.chown(path, 0, GROUP)
    path.chmod(0o2770)
    assert other_uid.uid
    return path


def member(python: list[str], uid: int, home: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    command = [*python, "-m", "kaivc", "--home", str(home), *args]
    return run_as(Ids(uid, GROUP), command, env={**ENVIRON, "HOME": "/nonexistent"}, cwd="/")


def test_another_member_of_the_group_works_in_a_shared_home(
    team: Path, other_uid: Ids, public_python: list[str]
) -> None:
    kaivc.init(team, shared=True).close()
    home = open_home(team)
    commit(home.new("bot"), {"a": b"1", "d/b": b"1"})
    commit(home.agent("bot"), {"a": b"2", "d/b": b"2"}, bump="minor")
    (team / "bot" / "workspace" / "d").chmod(0o2770)  # whoever writes there shares it, too
    home.close()
    for args in (["status"], ["log", "bot"], ["verify"], ["rollback", "bot", "--to", "v1.0.0"]):
        done = member(public_python, other_uid.uid, team, *args)
        assert done.returncode == 0, (args, done.stderr)
    with (team / "bot" / "workspace" / "a").open("ab") as file:
        file.write(b"more")
    done = member(public_python, other_uid.uid, team, "commit", "bot", "--bump", "minor")
    assert done.returncode == 0, done.stderr
    again = open_home(team).agent("bot")
    again.rollback("v1.1.0")
    assert again.verify().ok
    assert [version.version for version in again.versions()] == ["1.0.0", "1.1.0", "1.2.0"]


def test_nobody_else_sees_a_home_that_is_not_shared(team: Path, other_uid: Ids, public_python: list[str]) -> None:
    kaivc.init(team).close()
    home = open_home(team)
    commit(home.new("bot"), {"a": b"1"})
    done = member(public_python, other_uid.uid, team, "status")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for path in (".kai", "bot/workspace", "bot/versions"):
        with pytest.raises(AssertionError):
            subprocess_ok(run_as(Ids(other_uid.uid, GROUP), ["ls", str(team / path)]))


def subprocess_ok(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 0
