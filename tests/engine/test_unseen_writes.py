"""Writes that a file's times do not show: they must not hide behind the stat cache."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import pytest

from kaivc import reading
from kaivc.reading import GRANULE_NS, is_settled
from kaivc.sqlitefiles import MAGIC
from kaivc.storage.caches import Known
from tests.engine.homes import commit, make_home

SECOND = 1_000_000_000
LONG = 2.5 * GRANULE_NS / SECOND
"""Seconds after which a file's times have settled."""


def _in_version(home: Path, number: str, name: str) -> bytes:
    return (home / "a" / "versions" / f"v{number}" / name).read_bytes()


def test_a_page_that_stays_mapped_is_read_again(tmp_path: Path) -> None:
    """A second store into a page that is dirty already changes no time of the file: array libraries write so."""
    agent = make_home(tmp_path / "home").new("a")
    commit(agent, {"vectors": bytes(8192), "other": b"1"})
    with (agent.workspace / "vectors").open("r+b") as file, mmap.mmap(file.fileno(), 8192) as vectors:
        vectors[:4] = b"once"
        time.sleep(LONG)
        assert _in_version(tmp_path / "home", str(agent.commit().version), "vectors")[:4] == b"once"
        vectors[:4] = b"more"
        time.sleep(LONG)
        assert agent.status().dirty
        assert _in_version(tmp_path / "home", str(agent.commit().version), "vectors")[:4] == b"more"
        vectors[:4] = b"last"
    assert _in_version(tmp_path / "home", str(agent.commit().version), "vectors")[:4] == b"last"


def test_both_times_settle() -> None:
    """Copying tools give files their old mtimes back: then only ctime says how fresh they are."""
    now = 1_790_000_000 * SECOND + 5
    old, fresh = now - SECOND, now - GRANULE_NS // 2
    for index, place in ((1, "mtime"), (2, "ctime"), (6, "the log's mtime"), (7, "the log's ctime")):
        times = [9, old, old, 7, 0, 9, old, old, 8, 0]
        assert is_settled(Known(tuple(times), b"", now))
        times[index] = fresh
        assert not is_settled(Known(tuple(times), b"", now)), place


def test_what_only_begins_as_a_database_must_hold_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read as a plain file, so half of one state and half of the next must not be taken for one."""
    agent = make_home(tmp_path / "home").new("a")
    path = agent.workspace / "vault"
    path.write_bytes(MAGIC + b"a" * 3000)
    turned: list[bool] = []
    whole = reading._FileSource.read

    def turn(self: reading._FileSource, size: int, /) -> bytes:
        found = whole(self, min(size, 1000))
        if not turned:
            turned.append(True)
            time.sleep(LONG)
            with path.open("r+b") as file:
                file.write(MAGIC + b"b" * 3000)
        return found

    monkeypatch.setattr(reading._FileSource, "read", turn)
    version = str(agent.commit().version)
    assert _in_version(tmp_path / "home", version, "vault") == MAGIC + b"b" * 3000
