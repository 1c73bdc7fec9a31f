"""State classes, damage, runs and leases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kaivc.api import Agent
from kaivc.errors import (
    AgentBusy,
    ChecksumMismatch,
    CommandFailed,
    Incompatible,
    InvalidManifest,
    InvalidRollbackVersion,
    MissingSecret,
    NoEntry,
    NoSuchAgent,
    NoSuchPath,
    NoSuchRevision,
)
from kaivc.vfs import Vfs
from tests.engine.homes import make_home, open_home, read, write

MANIFEST = b"""\
state:
  keep: [cache/]
  monotonic:
    - {path: ledger.json, pointer: /n}
  secret:
    - {path: token.txt, name: API_TOKEN}
"""


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return make_home(tmp_path / "home", lock__wait="0.3s").new("bot")


def base(count: int, **more: bytes) -> dict[str, bytes]:
    return {
        "kai.yaml": MANIFEST,
        "logic.py": b"print(%d)\n" % count,
        "cache/c": b"cache %d" % count,
        "ledger.json": json.dumps({"n": count}).encode(),
        "token.txt": b"hunter2 %d" % count,
        **more,
    }


def two_versions(agent: Agent) -> None:
    for count in (1, 2):
        write(agent.workspace, base(count))
        agent.commit(bump="minor")


def test_kept_counted_and_secret_paths_are_not_rolled_back(agent: Agent) -> None:
    two_versions(agent)
    moved = agent.rollback("v1.0.0")
    assert moved.backup is None
    assert read(agent.workspace) == base(2) | {"logic.py": b"print(1)\n"}
    assert set(moved.kept) == {"cache/c", "ledger.json"}
    status = agent.status()
    assert not status.dirty
    assert {path for _, _, path in status.kept} == {"cache/c", "ledger.json"}


def test_a_counter_goes_forward_with_a_rollback(agent: Agent) -> None:
    two_versions(agent)
    agent.rollback("v1.0.0")
    write(agent.workspace, base(1, **{"ledger.json": b'{"n": 0}'}))
    moved = agent.rollback("v1.1.0")
    assert json.loads((agent.workspace / "ledger.json").read_bytes()) == {"n": 2}
    assert moved.backup is not None


def test_a_counter_that_cannot_be_read_stops_a_rollback(agent: Agent) -> None:
    two_versions(agent)
    write(agent.workspace, base(2, **{"ledger.json": b"garbage"}))
    before = read(agent.workspace)
    with pytest.raises(Incompatible) as caught:
        agent.rollback("v1.0.0")
    assert caught.value.code == "E104"
    assert "ledger.json" in caught.value.what
    assert agent.current.version == "1.1.0"
    assert read(agent.workspace) == before


def test_a_secret_is_never_stored(agent: Agent) -> None:
    two_versions(agent)
    home = Path(agent.repository.layout.root)
    assert (home / "bot" / "current" / "token.txt").read_bytes() == b"secret://API_TOKEN"
    for path in [*home.rglob("*.pack"), *home.glob(".kai/*"), *home.glob("bot/versions/**/*")]:
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path
    assert agent.status().changes == ()


def test_a_secret_declared_only_in_the_workspace_stays(agent: Agent) -> None:
    write(agent.workspace, {"a": b"1"})
    agent.commit()
    write(agent.workspace, base(5))
    agent.rollback("v1.0.0")
    assert (agent.workspace / "token.txt").read_bytes() == b"hunter2 5"
    assert not (agent.workspace / "logic.py").exists()


def test_a_broken_manifest_stops_a_commit_and_no_rollback(agent: Agent) -> None:
    two_versions(agent)
    write(agent.workspace, base(3, **{"kai.yaml": b"stat: {}\n"}))
    with pytest.raises(InvalidManifest) as caught:
        agent.commit()
    assert "kai.yaml" in caught.value.what
    assert "state" in caught.value.what + caught.value.hint
    agent.rollback("v1.0.0")
    assert (agent.workspace / "kai.yaml").read_bytes() == MANIFEST


def test_untracked_files_are_saved_and_come_back(agent: Agent) -> None:
    write(agent.workspace, {"a": b"1"})
    agent.commit()
    write(agent.workspace, {"a": b"2", "new/file": b"untracked"})
    moved = agent.rollback("v1.0.0")
    assert read(agent.workspace) == {"a": b"1"}
    assert set(moved.saved) == {"a", "new/file"}
    agent.undo()
    assert read(agent.workspace) == {"a": b"2", "new/file": b"untracked"}


def test_a_workspace_that_is_gone_comes_back(agent: Agent) -> None:
    write(agent.workspace, {"a": b"1", "d/b": b"2"})
    agent.commit()
    Vfs().remove_tree(str(agent.workspace))
    agent.rollback("v1.0.0")
    assert read(agent.workspace) == {"a": b"1", "d/b": b"2"}


def test_an_ignored_thing_in_the_way_is_named(agent: Agent) -> None:
    write(agent.workspace, {"x/y": b"1"})
    agent.commit()
    write(agent.workspace, {".kaiignore": b"x\n", "x": b"ignored"})
    agent.commit(bump="minor")
    with pytest.raises(Incompatible) as caught:
        agent.rollback("v1.0.0")
    assert "x" in caught.value.what
    assert (agent.workspace / "x").read_bytes() == b"ignored"


def test_a_directory_and_a_file_change_places(agent: Agent) -> None:
    write(agent.workspace, {"x/y/z": b"1", "w": b"2"})
    agent.commit()
    write(agent.workspace, {"x": b"3", "w/v": b"4"})
    agent.commit(bump="minor")
    agent.rollback("v1.0.0")
    assert read(agent.workspace) == {"x/y/z": b"1", "w": b"2"}
    agent.rollback("v1.1.0")
    assert read(agent.workspace) == {"x": b"3", "w/v": b"4"}


def test_old_bytecode_goes_with_its_source(agent: Agent) -> None:
    write(agent.workspace, {"m.py": b"1"})
    agent.commit()
    write(agent.workspace, {"m.py": b"2", "__pycache__/m.cpython-311.pyc": b"old", "__pycache__/n.pyc": b"other"})
    agent.rollback("v1.0.0")
    assert os.listdir(agent.workspace / "__pycache__") == ["n.pyc"]


# ---------------------------------------------------------------- damage


def spoil(path: Path, data: bytes) -> None:
    """Change a released file as root would, or an attacker."""
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o400)


def test_a_spoiled_view_is_refused_and_made_anew(agent: Agent) -> None:
    two_versions(agent)
    view = Path(agent.repository.layout.view("bot", "v1.0.0"))
    spoil(view / "logic.py", b"evil!(1)\n")
    with pytest.raises(ChecksumMismatch) as caught:
        agent.rollback("v1.0.0")
    assert caught.value.code == "E102"
    assert "logic.py" in caught.value.what
    assert agent.current.version == "1.1.0"
    with pytest.raises(ChecksumMismatch):
        agent.load("v1.0.0")
    assert [finding.path for finding in agent.verify().findings] == ["logic.py"]
    agent.rollback("v1.0.0", force=True)
    assert (view / "logic.py").read_bytes() == b"print(1)\n"
    assert agent.verify().ok


@pytest.mark.parametrize("way", ["extra", "missing", "link", "meta"])
def test_each_change_of_a_view_is_found(agent: Agent, way: str) -> None:
    two_versions(agent)
    view = Path(agent.repository.layout.view("bot", "v1.0.0"))
    view.chmod(0o700)
    if way == "extra":
        (view / "more").write_text("x")
    elif way == "missing":
        (view / "logic.py").unlink()
    elif way == "link":
        (view / "logic.py").unlink()
        (view / "logic.py").symlink_to("kai.yaml")
    else:
        spoil(view / "snapshot_meta.json", b"{}")
    with pytest.raises(ChecksumMismatch):
        agent.rollback("v1.0.0")


def test_views_share_files_and_survive_each_other(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home", views__keep="2").new("bot")
    for count in range(6):
        write(agent.workspace, {"same": b"s" * 100, "other": b"%d" % count})
        agent.commit(bump="minor")
    versions = Path(agent.repository.layout.versions("bot"))
    assert sorted(os.listdir(versions)) == ["v1.4.0", "v1.5.0"]
    assert (versions / "v1.4.0" / "same").stat().st_nlink == 2
    assert agent.load("v1.1.0").is_dir()
    agent.rollback("v1.0.0")
    assert len(os.listdir(versions)) == 2
    assert agent.verify().ok


def test_a_damaged_pack_is_found_and_nothing_moves(agent: Agent) -> None:
    two_versions(agent)
    agent.repository.store.close()
    for pack in Path(agent.repository.layout.pack_dir("bot")).iterdir():
        data = bytearray(pack.read_bytes())
        for position in range(200, len(data), 97):
            data[position] ^= 0xFF
        pack.write_bytes(data)
    again = open_home(Path(agent.repository.layout.root)).agent("bot")
    before = read(again.workspace)
    with pytest.raises((InvalidRollbackVersion, ChecksumMismatch)):
        again.rollback("v1.0.0")
    assert read(again.workspace) == before
    assert not again.verify().ok


# ---------------------------------------------------------------- misses


def test_a_miss_names_the_nearest(agent: Agent) -> None:
    two_versions(agent)
    with pytest.raises(InvalidRollbackVersion) as version:
        agent.rollback("v1.0.1")
    assert "v1.0.0" in version.value.hint
    with pytest.raises(NoSuchRevision):
        agent.show("v7")
    with pytest.raises(NoSuchAgent) as name:
        open_home(Path(agent.repository.layout.root)).agent("bto")
    assert "bot" in name.value.hint
    with pytest.raises(NoSuchPath) as path:
        agent.restore("logik.py")
    assert "logic.py" in path.value.hint


def test_a_backup_is_no_version_to_roll_back_to(agent: Agent) -> None:
    two_versions(agent)
    write(agent.workspace, base(9))
    moved = agent.rollback("v1.0.0")
    assert moved.backup is not None
    with pytest.raises(InvalidRollbackVersion):
        agent.rollback(moved.backup)
    agent.restore(source=moved.backup)
    assert (agent.workspace / "logic.py").read_bytes() == b"print(9)\n"


def test_restore_of_some_paths_leaves_the_rest(agent: Agent) -> None:
    write(agent.workspace, {"a": b"1", "d/b": b"1", "d/c": b"1"})
    agent.commit()
    write(agent.workspace, {"a": b"2", "d/b": b"2", "d/n": b"2"})
    moved = agent.restore("d")
    assert read(agent.workspace) == {"a": b"2", "d/b": b"1", "d/c": b"1"}
    assert moved.backup is not None
    assert agent.current.version == "1.0.0"


def test_a_dry_run_changes_nothing(agent: Agent) -> None:
    two_versions(agent)
    write(agent.workspace, base(3))
    home = Path(agent.repository.layout.root)
    before = {path: path.stat().st_size for path in home.rglob("*.pack")}
    plan = agent.rollback("v1.0.0", dry_run=True)
    assert not plan.applied
    assert "logic.py" in plan.writes
    assert "logic.py" in plan.saved
    assert {path: path.stat().st_size for path in home.rglob("*.pack")} == before
    assert read(agent.workspace) == base(3)
    assert len(agent.reflog().entries) == 2


# ---------------------------------------------------------------- runs


def test_a_run_needs_what_was_released(agent: Agent) -> None:
    two_versions(agent)
    assert agent.run(sys.executable, "logic.py").exit_code == 0
    write(agent.workspace, base(3))
    with pytest.raises(ChecksumMismatch) as caught:
        agent.run(sys.executable, "logic.py")
    assert caught.value.code == "E102"
    assert "logic.py" in caught.value.what
    assert agent.run(sys.executable, "-c", "raise SystemExit(7)", dirty=True).exit_code == 7
    with pytest.raises(NoEntry):
        agent.run(dirty=True)


def test_a_run_brings_its_secrets(agent: Agent, tmp_path: Path) -> None:
    two_versions(agent)
    (agent.workspace / "token.txt").unlink()
    with pytest.raises(MissingSecret):
        agent.run("true")
    (tmp_path / "vault").write_text("from the vault")
    Path(agent.repository.layout.local).write_text(f"secrets: {{API_TOKEN: {{file: {tmp_path / 'vault'}}}}}\n")
    again = open_home(Path(agent.repository.layout.root)).agent("bot")
    assert again.run("true").exit_code == 0
    assert (agent.workspace / "token.txt").read_text() == "from the vault"
    assert (agent.workspace / "token.txt").stat().st_mode & 0o777 == 0o600


def in_background(agent: Agent, *command: str) -> threading.Thread:
    path = Path(agent.repository.layout.root)
    thread = threading.Thread(target=lambda: open_home(path).agent("bot").run(*command, dirty=True))
    thread.start()
    until = time.monotonic() + 10
    from kaivc import leases

    while not leases.is_running(agent.repository) and time.monotonic() < until:
        time.sleep(0.01)
    return thread


def test_a_running_agent_is_not_rolled_back_under_its_feet(agent: Agent) -> None:
    two_versions(agent)
    thread = in_background(agent, "sleep", "2")
    assert agent.status().running
    with pytest.raises(AgentBusy) as caught:
        agent.rollback("v1.0.0")
    assert caught.value.code == "E312"
    agent.rollback("v1.0.0", live=True)
    assert (agent.workspace / "logic.py").read_bytes() == b"print(1)\n"
    thread.join()
    agent.rollback("v1.1.0")


def test_a_running_agent_is_asked_to_hold_still(agent: Agent) -> None:
    commands = b"quiesce: [sh, -c, 'echo q >> ../asked']\nresume: [sh, -c, 'echo r >> ../asked']\n"
    for count in (1, 2):
        write(agent.workspace, {"kai.yaml": commands, "a": b"%d" % count})
        agent.commit(bump="minor")
    thread = in_background(agent, "sleep", "1")
    agent.rollback("v1.0.0")
    assert (agent.workspace.parent / "asked").read_text() == "q\nr\n"
    assert (agent.workspace / "a").read_bytes() == b"1"
    thread.join()


def test_a_quiesce_that_fails_stops_the_rollback(agent: Agent) -> None:
    for count in (1, 2):
        write(agent.workspace, {"kai.yaml": b"quiesce: [sh, -c, 'echo no; exit 3']\n", "a": b"%d" % count})
        agent.commit(bump="minor")
    thread = in_background(agent, "sleep", "1")
    with pytest.raises(CommandFailed) as caught:
        agent.rollback("v1.0.0")
    assert "no" in caught.value.what
    assert agent.current.version == "1.1.0"
    thread.join()


def test_the_child_keeps_the_lease_when_kai_is_killed(agent: Agent) -> None:
    from kaivc import leases

    two_versions(agent)
    path = agent.repository.layout.root
    code = f"import kaivc; kaivc.open({path!r}).agent('bot').run('sleep', '2')"
    parent = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 10
    while not leases.is_running(agent.repository) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    parent.kill()
    parent.wait()
    assert leases.is_running(agent.repository)
    while leases.is_running(agent.repository) and time.monotonic() < until:
        time.sleep(0.05)
    assert not leases.is_running(agent.repository)


# ---------------------------------------------------------------- repeating


def test_an_operation_that_is_repeated_lands_once(agent: Agent) -> None:
    write(agent.workspace, {"a": b"1"})
    first = agent.commit(op_id="op-1")
    again = agent.commit(op_id="op-1")
    assert first == again
    assert len(agent.versions()) == 1
