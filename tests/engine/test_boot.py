"""After the machine was started again, nothing that was not synced is taken for what it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kaivc import inspection
from kaivc.errors import ChecksumMismatch
from kaivc.storage import caches
from kaivc.vfs import Vfs
from tests.engine.homes import commit, make_home, open_home

BIG = os.urandom(1 << 16) * 20


class Started(Vfs):
    """A machine that was started at another time."""

    def __init__(self, boot: str) -> None:
        self._boot = boot

    def boot_id(self) -> str:
        return self._boot


def tear(path: Path) -> None:
    """What a power cut may do: bytes read as zeros, and the inode looks as it did."""
    status = path.stat()
    path.chmod(0o600)
    path.write_bytes(bytes(status.st_size))
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def torn(tmp_path: Path) -> Path:
    """A home whose newest view, in force, was cut by the power; its large file too."""
    home = make_home(tmp_path / "home")
    commit(home.agent(home.new("bot").name), {"a": b"1", "big": BIG})
    view = tmp_path / "home" / "bot" / "current"
    tear(view / "big")
    (view.resolve()).chmod(0o700)
    (view / "a").unlink()
    view.resolve().chmod(0o500)
    home.close()
    return tmp_path / "home"


def test_a_view_that_the_power_cut_is_made_anew_by_the_next_writer(tmp_path: Path) -> None:
    path = torn(tmp_path)
    agent = open_home(path, Started("later")).agent("bot")
    assert [it.severity.value for it in inspection.views(agent.repository)] == ["warning", "warning"]
    (agent.workspace / "a").write_bytes(b"2")
    agent.rollback("v1.0.0")  # to where it stands: a write, and the view is right
    view = path / "bot" / "current"
    assert (view / "big").read_bytes() == BIG
    assert (view / "a").read_bytes() == b"1"
    assert inspection.views(agent.repository) == []


def test_a_load_makes_it_anew_too(tmp_path: Path) -> None:
    agent = open_home(torn(tmp_path), Started("later")).agent("bot")
    assert (agent.load() / "big").read_bytes() == BIG


def test_what_was_seen_whole_since_is_damage(tmp_path: Path) -> None:
    path = torn(tmp_path)
    first = open_home(path, Started("later"))
    first.agent("bot").load()
    first.close()
    tear(path / "bot" / "current" / "big")
    with pytest.raises(ChecksumMismatch):
        open_home(path, Started("later still")).agent("bot").load()


def test_damage_without_a_start_between_is_damage(tmp_path: Path) -> None:
    with pytest.raises(ChecksumMismatch):
        open_home(torn(tmp_path)).agent("bot").load()


def test_a_workspace_file_that_lost_its_bytes_is_read_again(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    agent = home.new("bot")
    commit(agent, {"a": b"1" * 100})
    old = (agent.workspace / "a").stat()
    os.utime(agent.workspace / "a", ns=(old.st_atime_ns, old.st_mtime_ns - 10**10))
    assert not agent.status().dirty  # and known from now on
    known = agent.repository.catalog.rows("SELECT count(*) FROM stat_cache")
    home.close()
    assert known[0][0] > 0
    later = open_home(tmp_path / "home", Started("later")).agent("bot")
    assert caches.known_files(later.repository.catalog, later.repository.id, "later") == {}


def test_a_log_that_reads_as_zeros_is_written_anew(tmp_path: Path) -> None:
    path = torn(tmp_path)
    log = path / "bot" / "rollback.log"
    right = log.read_bytes()
    log.write_bytes(bytes(len(right)))
    agent = open_home(path, Started("later")).agent("bot")
    (agent.workspace / "a").write_bytes(b"2")
    agent.commit(bump="minor")
    assert log.read_bytes().startswith(right)
