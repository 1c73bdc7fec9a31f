"""Every kind of file has a defined answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kaivc import capture, trees
from kaivc.api import Agent
from kaivc.errors import InvalidName, KaiError, NothingToCommit, RefusedPath, RefusedWorkspace, TooLarge
from kaivc.ops import commit as ops_commit
from kaivc.storage.gitobjects import LAST_SECOND
from tests.conftest import without_privileges
from tests.engine.homes import ENVIRON, make_home, open_home, write


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return make_home(tmp_path / "home").new("bot")


def refused(agent: Agent, kind: type[KaiError], *words: str) -> KaiError:
    with pytest.raises(kind) as caught:
        agent.commit(bump="minor")
    for word in words:
        assert word in caught.value.what
    assert not agent.versions()
    return caught.value


def test_a_socket_is_refused_by_name(agent: Agent) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(agent.workspace)
        try:
            server.bind("live.sock")
        finally:
            os.chdir(here)
    refused(agent, RefusedPath, "live.sock", "socket")


def test_a_pipe_and_a_device_are_refused_by_name(agent: Agent) -> None:
    os.mkfifo(agent.workspace / "pipe")
    refused(agent, RefusedPath, "pipe")
    (agent.workspace / "pipe").unlink()
    if os.geteuid() == 0:
        os.mknod(agent.workspace / "null", 0o020666, os.makedev(1, 3))
        refused(agent, RefusedPath, "null", "device")


@pytest.mark.parametrize("name", [".GIT", ".git ", "git~1", ".g\u200cit", ".git::$INDEX_ALLOCATION"])
def test_names_that_some_disk_takes_for_git_are_refused(agent: Agent, name: str) -> None:
    (agent.workspace / name).write_text("x")
    refused(agent, RefusedPath)


def test_names_that_collide_where_case_folds_are_refused(agent: Agent) -> None:
    write(agent.workspace, {"d/Read.txt": b"1", "d/read.TXT": b"2"})
    refused(agent, RefusedPath, "d/Read.txt", "d/read.TXT")
    write(agent.workspace, {"D/x": b"1", "d/y": b"2"})
    refused(agent, RefusedPath)
    write(agent.workspace, {"caf\u00e9": b"1", "cafe\u0301": b"2"})
    refused(agent, RefusedPath)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "d/../../x", "up/../.."])
def test_links_that_lead_out_are_refused(agent: Agent, target: str) -> None:
    write(agent.workspace, {"d/file": b"1"})
    os.symlink("d", agent.workspace / "up")
    os.symlink(target, agent.workspace / "link")
    refused(agent, RefusedPath, "link")


def test_a_link_that_leads_out_by_way_of_another_is_refused(agent: Agent) -> None:
    write(agent.workspace, {"a/b/file": b"1"})
    os.symlink("a/b", agent.workspace / "short")
    os.symlink("short/../../x", agent.workspace / "fine")  # a/x
    agent.commit()
    os.symlink("short/../../../x", agent.workspace / "link")
    with pytest.raises(RefusedPath):
        agent.commit()


def test_a_file_above_the_cap_is_refused_by_name(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", limits__max_file="1 KiB").new("bot")
    write(agent.workspace, {"big": b"x" * 1025})
    refused(agent, TooLarge, "big", "1025")
    write(agent.workspace, {"big": b"x" * 1024})
    agent.commit()


def test_an_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "home"
    agent = make_home(path).new("bot")
    write(agent.workspace, {"locked": b"1"})
    (agent.workspace / "locked").chmod(0)
    code = (
        "import kaivc, sys\n"
        f"agent = kaivc.open({str(path)!r}, environ={ENVIRON!r}).agent('bot')\n"
        "try:\n    agent.commit()\n"
        "except kaivc.errors.UnreadablePath as error:\n    print(error.code, error.what)\n"
    ).replace("import kaivc, sys", "import kaivc, kaivc.errors")
    done = subprocess.run(
        without_privileges([sys.executable, "-c", code]), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.startswith("E311 locked cannot be read"), done
    assert not agent.versions()


def test_empty_directories_and_hard_links_are_said(agent: Agent) -> None:
    write(agent.workspace, {"a": b"1"})
    (agent.workspace / "hollow" / "inner").mkdir(parents=True)
    os.link(agent.workspace / "a", agent.workspace / "b")
    notices = "\n".join(agent.record().notices)
    assert "hollow/inner/ is empty" in notices
    assert "hard links" in notices
    write(agent.workspace, {"a": b"2", "b": b"2"})
    agent.rollback("v1.0.0")
    assert (agent.workspace / "a").read_bytes() == (agent.workspace / "b").read_bytes() == b"1"
    assert (agent.workspace / "a").stat().st_ino != (agent.workspace / "b").stat().st_ino


def test_modes_come_back_as_git_keeps_them(agent: Agent) -> None:
    write(agent.workspace, {"run.sh": b"1", "note": b"1"})
    (agent.workspace / "run.sh").chmod(0o700)
    (agent.workspace / "note").chmod(0o640)
    agent.commit()
    (agent.workspace / "run.sh").chmod(0o600)
    write(agent.workspace, {"run.sh": b"1", "note": b"2"})
    assert [change[2] for change in agent.status().changes] == ["note", "run.sh"]
    agent.rollback("v1.0.0")
    assert (agent.workspace / "run.sh").stat().st_mode & 0o777 == 0o700
    assert (agent.workspace / "note").stat().st_mode & 0o777 == 0o640


def test_private_paths_are_private(agent: Agent) -> None:
    write(agent.workspace, {"kai.yaml": b"private: [token]\n", "token": b"1"})
    agent.commit()
    write(agent.workspace, {"kai.yaml": b"private: [token]\n"})
    agent.rollback("v1.0.0")
    assert (agent.workspace / "token").stat().st_mode & 0o777 == 0o600


def test_what_is_ignored_by_default(agent: Agent) -> None:
    names = [".git/config", ".venv/x", "a/__pycache__/m.pyc", ".env", ".env.local", "id_rsa", "server.key"]
    write(agent.workspace, {"a/m.py": b"1", **dict.fromkeys(names, b"secret")})
    assert agent.record().changes == (("A", "a/m.py"),)
    agent.commit(allow_empty=True)
    write(agent.workspace, {"a/m.py": b"2", **dict.fromkeys(names, b"secret")})
    agent.rollback("v1.0.0")
    for name in names:
        assert (agent.workspace / name).exists() == (not name.endswith(".pyc")), name


def test_the_reserved_name_is_said_and_not_kept(agent: Agent) -> None:
    write(agent.workspace, {"a": b"1", "snapshot_meta.json": b"{}", "d/snapshot_meta.json": b"{}"})
    made = agent.record()
    assert made.changes == (("A", "a"), ("A", "d/snapshot_meta.json"))
    assert any("snapshot_meta.json is a reserved name" in line for line in made.notices)


def test_a_sparse_file_comes_back_sparse(agent: Agent) -> None:
    size = 64 << 20
    with (agent.workspace / "sparse").open("wb") as file:
        file.write(b"head")
        file.truncate(size)
    agent.commit()
    (agent.workspace / "sparse").unlink()
    agent.rollback("v1.0.0")
    status = (agent.workspace / "sparse").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 < 1 << 20
    assert (agent.workspace / "sparse").read_bytes()[:4] == b"head"


@pytest.mark.parametrize("where", ["/", "HOME", "HOME/..", "KAI", "HOME-OF-KAI"])
def test_directories_that_are_no_workspace(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    user = tmp_path / "users" / "ann"
    user.mkdir(parents=True)
    monkeypatch.setitem(ENVIRON, "HOME", str(user))
    home = make_home(tmp_path / "home")
    named = {"HOME": user, "HOME/..": user.parent, "KAI": tmp_path / "home" / ".kai", "HOME-OF-KAI": tmp_path / "home"}
    path = named.get(where, Path(where))
    for words in ({"source": path}, {"link": path}):
        with pytest.raises(RefusedWorkspace):
            home.new("bot", **words)
    assert home.agents() == []
    agent = home.new("bot")
    agent.workspace.rmdir()
    agent.workspace.symlink_to(path)
    with pytest.raises(RefusedWorkspace):
        agent.commit()


def test_large_files_are_stored_once_for_each_chunk(agent: Agent) -> None:
    import random

    data = random.Random(7).randbytes(8 << 20)
    write(agent.workspace, {"big": data})
    agent.commit()
    packs = Path(agent.repository.layout.pack_dir("bot"))
    before = sum(path.stat().st_size for path in packs.iterdir())
    write(agent.workspace, {"big": data[: 4 << 20] + b"inserted" + data[4 << 20 :]})
    agent.commit(bump="minor")
    grown = sum(path.stat().st_size for path in packs.iterdir()) - before
    assert grown < 600 << 10, grown
    agent.rollback("v1.0.0")
    assert (agent.workspace / "big").read_bytes() == data


def test_two_gibibytes_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "home"
    workspace = make_home(path).new("bot").workspace
    code = f"""
import os, random, kaivc
agent = kaivc.open({str(path)!r}, environ={ENVIRON!r}).agent("bot")
big = {str(workspace)!r} + "/state.bin"
block = random.Random(1).randbytes(1 << 20)
with open(big, "wb") as file:
    for number in range(2048):
        file.write(number.to_bytes(8, "big") + block[8:] if number % 64 == 0 else block)
agent.commit()
with open(big, "r+b") as file:
    file.seek(1 << 30); file.write(b"changed")
agent.commit(bump="minor")
agent.rollback("v1.0.0")
with open(big, "rb") as file:
    file.seek(1 << 30); assert file.read(7) != b"changed"
    assert os.fstat(file.fileno()).st_size == 2 << 30
print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    peak = int(done.stdout) >> 10
    print(f"peak {peak} MiB")
    assert peak < 256


def test_nothing_to_commit_is_a_check_that_said_no(agent: Agent) -> None:
    write(agent.workspace, {"a": b"1"})
    agent.commit()
    with pytest.raises(NothingToCommit) as caught:
        agent.commit()
    assert caught.value.exit_code == 1


def test_reopening_finds_everything(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    write(agent.workspace, {"a": b"1"})
    agent.commit(notes="first\n\nlong text\n---\nafter the line")
    again = open_home(tmp_path / "home").agent("bot")
    assert again.current == agent.current
    assert again.current.notes == "first\n\nlong text\n ---\nafter the line"


def nested(agent: Agent, length: int) -> str:
    """A file whose path has so many bytes, which no call takes in one piece."""
    parts = ["d" * 200] * ((length - 50) // 201)
    parts.append("f" * (length - 201 * len(parts)))
    fd = os.open(agent.workspace, os.O_RDONLY)
    for part in parts[:-1]:
        os.mkdir(part, dir_fd=fd)
        below = os.open(part, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open(parts[-1], os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)
    return "/".join(parts)


def test_the_longest_path_that_is_taken_has_a_view(agent: Agent, tmp_path: Path) -> None:
    most = 4096 - len(str(agent.workspace)) - capture.BELOW
    path = nested(agent, most)
    agent.commit(bump="minor")
    assert agent.verify().ok
    assert (tmp_path / "home" / "bot" / "current" / path).exists()


def test_a_longer_one_is_refused_before_the_commit_lands(agent: Agent) -> None:
    nested(agent, 4096 - len(str(agent.workspace)) - capture.BELOW + 1)
    refused(agent, RefusedPath, "longer than a disk takes")


def test_the_longest_path_of_the_format_can_be_read(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "BELOW", -5000)
    path = nested(agent, 4096)
    with pytest.raises(KaiError):
        agent.commit(bump="minor")  # it has landed, and no view can be made
    version = agent.current
    assert list(trees.flatten(agent.repository.store, version.tree_oid)) == [path.encode()]


def test_the_largest_number_has_none_after_it(agent: Agent) -> None:
    write(agent.workspace, {"a": b"1"})
    agent.commit(version="999999999.999999999.999999999")
    write(agent.workspace, {"a": b"2"})
    for level in ("major", "minor", "patch"):
        with pytest.raises(InvalidName):
            agent.commit(bump=level)
    assert [it.version for it in agent.versions()] == ["999999999.999999999.999999999"]
    assert agent.verify().ok


def test_a_time_that_no_commit_can_say_is_refused(agent: Agent) -> None:
    write(agent.workspace, {"a": b"1"})
    for time in (-1, LAST_SECOND + 1, 10**12, 1 << 63):
        with pytest.raises(InvalidName):
            ops_commit.commit(agent.repository, time=time)
    assert not agent.versions()
    ops_commit.commit(agent.repository, time=LAST_SECOND)
    assert agent.verify().ok
