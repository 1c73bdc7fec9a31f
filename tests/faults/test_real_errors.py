"""Errors that the system itself makes: disks that are full or become read-only, limits on files and their size."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kaivc.api import fsck
from kaivc.errors import KaiError
from kaivc.storage.catalog import Catalog
from kaivc.vfs import Vfs
from tests.conftest import IN_CI
from tests.engine.homes import copy, open_home, remove
from tests.faults.aftermath import aftermath, asked
from tests.faults.crash import ask
from tests.faults.stories import STORIES, Story, Told

SIZES = range(192, 960, 8)
"""KiB of the disks that fill."""
ROOMY = 8192
FILES = range(8, 65)
LIMITS = (0, 1, 100, 511, 4096, 10_000, 33_000, 70_000, 140_000)
NAMES = (
    "new",
    "commit",
    "commit-large",
    "commit-database",
    "rollback",
    "undo",
    "restore",
    "fork",
    "import",
    "gc",
    "rename",
)
FULL = {"E901", "E902", "E903"}


@pytest.fixture(scope="module", autouse=True)
def mounts() -> None:
    """A CI that cannot mount would prove nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", scratch], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            if IN_CI:
                pytest.fail("no tmpfs can be mounted here")
            pytest.skip("no tmpfs can be mounted here")
        subprocess.run(["umount", scratch], check=True)


@contextmanager
def disk(path: Path, size: int) -> Iterator[Path]:
    """A disk of so many KiB."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
        path.rmdir()


class Prepared:
    """A story, and what its home says before and after."""

    def __init__(self, story: Story, scratch: Path) -> None:
        self.story = story
        self.template = scratch / "template"
        story.prepare(self.template)
        self.before: Told | None = asked(story, self.template)
        path = scratch / "home"
        copy(self.template, path)
        story.act(path, Vfs())
        self.after = ask(path)
        remove(path)

    def judge(self, path: Path, *, acknowledged: bool) -> str:
        assert self.after is not None
        return aftermath(self.story, path, self.before, self.after, acknowledged=acknowledged, killed=False)


def play(act: Callable[[], object]) -> KaiError | None:
    """The typed error of an act; whatever else it raises goes on."""
    try:
        act()
    except KaiError as error:
        return error
    return None


def answer(act: Callable[[], object], which: int | None = None, limit: int = 0) -> dict[str, str]:
    """What a child answers, under a limit if one is named: code, what, hint; ``code`` is ok when it did it.

    It is a child for the disks too: SQLite remembers files by device and inode, and those of a disk that is gone
    come again.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = {"code": "ok"}
        try:
            os.dup2(writing, 3)
            os.closerange(4, 4096)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            if which is not None:
                resource.setrlimit(which, (limit, resource.getrlimit(which)[1]))
            error = play(act)
            if error is not None:
                said = {"code": error.code, "what": error.what, "hint": error.hint}
        except BaseException as error:
            said = {"code": type(error).__name__, "what": str(error)[:2000], "hint": ""}
        finally:
            os.write(3, json.dumps(said).encode())  # a pipe has no size, and is open already
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found: dict[str, str] = json.loads(pipe.read())
    assert os.waitpid(pid, 0)[1] == 0
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fills(name: str, memory: Path, share: float, figure: Callable[..., None]) -> None:
    it, codes = Prepared(STORIES[name], memory), Counter[str]()
    for size in [*(SIZES if share == 1 else list(SIZES)[::10]), ROOMY]:
        with disk(memory / "disk", size) as small:
            try:
                copy(it.template, small / "home")
            except shutil.Error:
                continue  # not even what was there before has room
            said = answer(lambda: it.story.act(small / "home", Vfs()))
            codes[said["code"]] += 1
            assert said["code"] in {"ok", *FULL}, (size, said)
            subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
            done = said["code"] == "ok"
            assert answer(partial(it.judge, small / "home", acknowledged=done)) == {"code": "ok"}, size
    figure(f"{codes.total()} sizes of a disk that fills: {dict(codes)}", injected_errors=codes.total() - codes["ok"])
    assert codes["ok"]


def test_a_disk_that_is_full_is_no_damage(memory: Path, figure: Callable[..., None]) -> None:
    it, codes = Prepared(STORIES["rollback"], memory), Counter[str]()
    for left in range(0, 161, 8):
        with disk(memory / "disk", 4096) as small:
            copy(it.template, small / "home")
            room = os.statvfs(small)
            (small / "fill").write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - left * 1024)))
            for act in (no_damage, repaired):
                said = answer(partial(act, small / "home"))
                codes[said["code"]] += 1
                assert said["code"] in {"ok", "E902"}, (left, said)
            (small / "fill").unlink()
            assert answer(partial(no_damage, small / "home")) == {"code": "ok"}, left
    figure(f"{codes.total()} checks on a full disk: {dict(codes)}", injected_errors=codes["E902"])
    assert codes["ok"]
    assert codes["E902"]


def test_a_disk_that_becomes_read_only(memory: Path) -> None:
    it = Prepared(STORIES["commit"], memory)
    with disk(memory / "disk", 4096) as small:
        copy(it.template, small / "home")
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        error = play(lambda: it.story.act(small / "home", Vfs()))
        assert error is not None
        assert error.code == "E905"
        assert error.hint
        subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
        assert it.judge(small / "home", acknowledged=False) == "before"


def test_a_disk_that_becomes_read_only_while_a_home_is_open(memory: Path) -> None:
    it = Prepared(STORIES["commit"], memory)
    with disk(memory / "disk", 4096) as small:
        copy(it.template, small / "home")
        home = open_home(small / "home")
        agent = home.agent("bot")
        agent.status()
        home.close()  # an open log would keep the disk from becoming read-only
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        error = play(lambda: agent.commit(bump="minor"))
        assert error is not None
        assert error.code in {"E901", "E905"}
        assert "read-only" in error.hint + error.what or "readonly" in error.what
        subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
        assert it.judge(small / "home", acknowledged=False) == "before"


# ---------------------------------------------------------------- limits of a process


@pytest.mark.parametrize("name", NAMES)
def test_few_open_files(name: str, memory: Path, share: float, figure: Callable[..., None]) -> None:
    it, codes = Prepared(STORIES[name], memory), Counter[str]()
    path = memory / "home"
    for limit in FILES if share == 1 else range(8, 65, 4):
        copy(it.template, path)
        said = answer(lambda: it.story.act(path, Vfs()), resource.RLIMIT_NOFILE, limit)
        codes[said["code"]] += 1
        assert said["code"] in {"ok", "E901", "E903", "E311", "E307"}, (limit, said)
        assert said["code"] == "ok" or said["hint"], (limit, said)
        it.judge(path, acknowledged=said["code"] == "ok")
        remove(path)
    figure(f"{len(FILES)} limits of open files: {dict(codes)}", injected_errors=codes.total() - codes["ok"])
    assert codes["ok"]
    assert codes["E901"]


def no_damage(path: Path) -> None:
    """Every check of a home that is whole says so, or raises."""
    with closing(open_home(path)) as home:
        agent = home.agent("bot")
        assert home.fsck().ok
        assert agent.verify().ok
        assert agent.audit().ok


def repaired(path: Path) -> None:
    fsck(path, repair=True)


@pytest.mark.parametrize("lost", [False, True], ids=["whole", "catalog-lost"])
def test_few_open_files_are_no_damage(lost: bool, memory: Path, share: float, figure: Callable[..., None]) -> None:
    it, codes = Prepared(STORIES["rollback"], memory), Counter[str]()
    path = memory / "home"
    for limit in FILES if share == 1 else range(8, 40, 2):
        for act in [repaired] if lost else [no_damage, repaired]:
            copy(it.template, path)
            if lost:
                for part in (path / ".kai").glob("catalog.sqlite*"):
                    part.unlink()
            said = answer(partial(act, path), resource.RLIMIT_NOFILE, limit)
            codes[said["code"]] += 1
            assert said["code"] in {"ok", "E901", "E311"}, (limit, said)
            assert said["code"] == "ok" or said["hint"], (limit, said)
            if lost:
                assert answer(partial(repaired, path)) == {"code": "ok"}, limit
            assert answer(partial(no_damage, path)) == {"code": "ok"}, limit
            assert ask(path) == it.before, limit
            remove(path)
    figure(f"{codes.total()} checks with few open files: {dict(codes)}", injected_errors=codes.total() - codes["ok"])
    assert codes["ok"]
    assert codes["E901"]


@pytest.mark.parametrize("name", NAMES)
def test_small_files_only(name: str, memory: Path, figure: Callable[..., None]) -> None:
    it, codes = Prepared(STORIES[name], memory), Counter[str]()
    path = memory / "home"
    for limit in LIMITS:
        copy(it.template, path)
        said = answer(lambda: it.story.act(path, Vfs()), resource.RLIMIT_FSIZE, limit)
        codes[said["code"]] += 1
        assert said["code"] in {"ok", *FULL}, (limit, said)
        it.judge(path, acknowledged=said["code"] == "ok")
        remove(path)
    figure(f"{len(LIMITS)} limits of a file's size: {dict(codes)}", injected_errors=codes.total() - codes["ok"])
    assert codes.total() > codes["ok"]


# ---------------------------------------------------------------- a catalog that may not grow


def wide(path: Path) -> None:
    """As three versions, and so many new files that the catalog needs more pages."""
    STORIES["commit"].prepare(path)
    for number in range(400):
        (path / "bot" / "workspace" / f"file{number}").write_bytes(b"%d" % number)


def test_a_catalog_that_may_not_grow(memory: Path, figure: Callable[..., None]) -> None:
    it, codes = Prepared(replace(STORIES["commit"], prepare=wide), memory), Counter[str]()
    path, real = memory / "home", Catalog._connect
    with closing(sqlite3.connect(it.template / ".kai" / "catalog.sqlite")) as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    for more in range(0, 80, 2):
        copy(it.template, path)

        def connect(self: Catalog, file: str, mode: str, more: int = more) -> sqlite3.Connection:
            connection = real(self, file, mode)
            connection.execute(f"PRAGMA max_page_count={pages + more}")
            return connection

        Catalog._connect = connect  # type: ignore[assignment, method-assign]
        try:
            error = play(lambda: it.story.act(path, Vfs()))
        finally:
            Catalog._connect = real  # type: ignore[method-assign]
        codes[error.code if error else "ok"] += 1
        assert error is None or error.code == "E902", (more, error)
        it.judge(path, acknowledged=error is None)
        remove(path)
    figure(f"{codes.total()} catalogs that may not grow: {dict(codes)}", injected_errors=codes.total() - codes["ok"])
    assert codes["ok"]
    assert codes["E902"]
