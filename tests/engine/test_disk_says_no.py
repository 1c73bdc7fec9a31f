"""What a disk that says no has taught: each mistake that the fault harness found, by itself."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from pathlib import Path

import pytest

import kaivc
from kaivc import vfs as disk
from kaivc.errors import NoSpace, StorageFailed
from kaivc.layout import UNFINISHED
from kaivc.storage.catalog import Catalog
from kaivc.vfs import Vfs
from tests.engine.damage import fsck
from tests.engine.homes import ENVIRON, Ticking, commit, make_home, open_home


def test_an_op_record_that_cannot_be_written_leaves_what_was_committed(tmp_path: Path) -> None:
    """The pack's row went back to the end that it had before the transaction."""
    path = tmp_path / "home"
    agent = make_home(path).new("bot")
    commit(agent, {"a": b"1"})

    class Full(Vfs):
        synced = False

        def sync(self, fd: int) -> None:
            super().sync(fd)
            self.synced = True

        def write(self, fd: int, data: bytes | memoryview) -> None:
            if self.synced and os.readlink(f"/proc/self/fd/{fd}").endswith(".pack"):
                raise NoSpace("full")
            super().write(fd, data)

    (agent.workspace / "a").write_bytes(b"2")
    home = open_home(path, Full())
    home.agent("bot").commit(bump="minor")
    home.close()
    assert fsck(path).ok
    commit(agent, {"a": b"3"}, bump="minor")
    assert fsck(path).ok
    assert [version.version for version in agent.versions()] == ["1.0.0", "1.1.0", "1.2.0"]


def test_a_write_of_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went on for ever."""
    fd = Vfs().create(str(tmp_path / "file"))
    monkeypatch.setattr(os, "write", lambda *_: 0)
    with pytest.raises(StorageFailed):
        Vfs().write(fd, b"data")
    os.close(fd)


def test_a_lock_that_cannot_be_had_is_a_typed_error_and_keeps_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(StorageFailed, match="No locks"):
        Vfs().lock(str(tmp_path / "lock"))
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize(
    ("number", "word", "kind"),
    [
        (errno.EMFILE, "ulimit -n", StorageFailed),
        (errno.EROFS, "read-only", StorageFailed),
        (errno.EFBIG, "ulimit -f", StorageFailed),
        (errno.ENOSPC, "free some space", NoSpace),
        (errno.EDQUOT, "quota", NoSpace),
    ],
)
def test_what_helps_is_said(number: int, word: str, kind: type[Exception], tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        error = disk.refused("writing", file.fileno(), OSError(number, os.strerror(number)))
    assert isinstance(error, kind)
    assert word in error.hint
    assert str(tmp_path / "file") in disk.refused("writing", str(tmp_path / "file"), OSError(number, "no")).what


def test_a_file_that_cannot_be_replaced_leaves_no_other_beside_it(tmp_path: Path) -> None:
    class Refusing(Vfs):
        def sync(self, fd: int) -> None:
            raise StorageFailed("no")

    with pytest.raises(StorageFailed):
        Refusing().replace(str(tmp_path / "file"), b"data")
    assert not os.listdir(tmp_path)


def test_a_rollback_of_the_catalog_that_fails_too_is_a_typed_error(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    catalog: Catalog = agent.repository.catalog

    class Refusing:
        def __init__(self, real: sqlite3.Connection) -> None:
            self.real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def execute(self, sql: str, *args: object) -> object:
            if sql.startswith(("INSERT", "ROLLBACK")):
                raise sqlite3.OperationalError("disk I/O error")
            return self.real.execute(sql, *args)  # type: ignore[arg-type]

    catalog._local.mine = (os.getpid(), Refusing(catalog.db))
    with pytest.raises(StorageFailed), catalog.transaction() as db:
        db.execute("INSERT INTO meta VALUES ('a', 'b')")
    assert catalog.row("SELECT 1 FROM meta WHERE key = 'a'") is None
    commit(agent, {"a": b"1"})


def test_housekeeping_that_fails_does_not_deny_a_commit(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    commit(agent, {"a": b"1"})

    class NoLease(Vfs):
        def lock(self, path: str, *, shared: bool = False) -> int | None:
            if path.endswith(".lease"):
                raise StorageFailed("no")
            return super().lock(path, shared=shared)

    (agent.workspace / "a").write_bytes(b"2")
    assert open_home(tmp_path / "home", NoLease()).agent("bot").commit(bump="minor").version == "1.1.0"


def test_an_error_after_the_transaction_says_that_it_landed(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    commit(agent, {"a": b"1"})

    class NoLink(Vfs):
        def symlink(self, target: object, path: object, at: int | None = None) -> None:
            raise StorageFailed("no")

    (agent.workspace / "a").write_bytes(b"2")
    with pytest.raises(StorageFailed) as caught:
        open_home(tmp_path / "home", NoLink()).agent("bot").commit(bump="minor")
    assert caught.value.unchanged.startswith("bot v1.1.0 is committed as")


def test_gc_takes_away_what_was_to_be_an_agent(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    agent = home.new("bot")
    commit(agent, {"a": b"1"})
    layout = home.opened.layout
    for name, files in (("cut", (UNFINISHED, "0123456789abcdef.pack")), ("empty", ())):
        os.mkdir(layout.pack_dir(name))
        for file in files:
            Path(layout.pack_dir(name), file).write_bytes(b"KAIPACK\1")
    os.makedirs(layout.snapshot_temp("half"))
    Path(layout.snapshot_temp("half"), UNFINISHED).touch()
    Path(layout.snapshot_temp("bot"), UNFINISHED).touch()
    agent.gc()
    assert os.listdir(layout.packs) == ["bot"]
    assert not os.path.exists(layout.agent("half"))
    assert not os.path.exists(os.path.join(layout.snapshot_temp("bot"), UNFINISHED))
    assert agent.verify().ok


def test_a_view_that_cannot_be_made_keeps_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "home"
    agent = make_home(path).new("bot")
    commit(agent, {"a": b"1", "b": b"1"})

    class Full(Vfs):
        def link(self, old: object, new: object, old_at: int | None = None, new_at: int | None = None) -> None:
            raise NoSpace("full")

    (agent.workspace / "a").write_bytes(b"2")
    before = len(os.listdir("/proc/self/fd"))
    home = open_home(path, Full())
    with pytest.raises(NoSpace):
        home.agent("bot").commit(bump="minor")
    home.close()
    del home
    assert len(os.listdir("/proc/self/fd")) <= before + 1


class NoRoomForViews(Vfs):
    """A disk on which a view does not fit."""

    def make_dir(self, path: str | bytes, mode: int = 0o700, at: int | None = None) -> None:
        if b"/.new-v" in os.fsencode(path):
            raise NoSpace("full")
        super().make_dir(path, mode, at)


def test_what_does_not_fit_is_left_until_gc_has_made_room(tmp_path: Path) -> None:
    """It ended with the same error as what it should make room for."""
    path = tmp_path / "home"
    agent = make_home(path).new("bot")
    commit(agent, {"a": b"0"})
    commit(agent, {"a": b"1"}, bump="minor")
    for number in range(6):
        (agent.workspace / "a").write_bytes(b"never committed %d" % number)
        agent.rollback(f"v1.{number % 2}.0")
    flags = {"backups.keep": "1", "backups.max_age": "0s"}
    home = kaivc.open(path, environ=ENVIRON, clock=Ticking(1_900_000_000), vfs=NoRoomForViews(), flags=flags)
    full = home.agent("bot")
    (full.workspace / "a").write_bytes(b"new")
    with pytest.raises(NoSpace):
        full.commit(bump="minor")
    assert full.status().pending
    done = full.gc().done
    assert done is not None
    assert done.expired
    assert full.status().pending
    home.close()
    commit(open_home(path).agent("bot"), {"a": b"there is room"}, bump="minor")
    assert fsck(path).ok


@pytest.mark.parametrize("flags", [{"views.keep": "1"}, {"views.keep": "0"}, {"views.max_bytes": "1"}])
def test_gc_leaves_the_view_that_current_still_leads_to(tmp_path: Path, flags: dict[str, str]) -> None:
    """That of the version in force did not fit, and whoever reads through the link would have stopped."""
    path = tmp_path / "home"
    agent = make_home(path).new("bot")
    for number in range(3):
        commit(agent, {"a": b"%d" % number * 5000}, bump="minor")
    full = kaivc.open(path, environ=ENVIRON, vfs=NoRoomForViews(), flags=flags).agent("bot")
    (full.workspace / "a").write_bytes(b"new")
    with pytest.raises(NoSpace):
        full.commit(bump="minor")
    full.gc()
    assert (path / "bot/current/a").read_bytes() == b"2" * 5000
