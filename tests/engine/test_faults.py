"""A disk that says no at a call. All commands at all calls: tests/faults/test_io_errors.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kaivc.errors import KaiError, NoSpace, OutcomeUnknown, StorageFailed
from kaivc.vfs import Vfs
from tests.engine.homes import make_home, open_home, write
from tests.engine.test_kill import CHANGING


class Failing(Vfs):
    """Says no at the n-th changing call, and at no other."""

    def __init__(self, at: int, error: Callable[[], KaiError]) -> None:
        self.at = at
        self.count = 0
        self.error = error


def _failing(name: str) -> Callable[..., object]:
    real = getattr(Vfs, name)

    def call(self: Failing, *args: object, **words: object) -> object:
        self.count += 1
        if self.count == self.at:
            raise self.error()
        return real(self, *args, **words)

    return call


for _name in CHANGING:
    setattr(Failing, _name, _failing(_name))

ERRORS = {"EIO": lambda: StorageFailed("the disk said no"), "ENOSPC": lambda: NoSpace("the disk is full")}


def test_after_a_failed_sync_the_pack_is_left(tmp_path: Path) -> None:
    path = tmp_path / "home"
    agent = make_home(path).new("bot")
    write(agent.workspace, {"a": b"1"})
    agent.commit()
    write(agent.workspace, {"a": b"2"})

    class NoSync(Vfs):
        def sync(self, fd: int) -> None:
            raise StorageFailed("the disk said no")

    with pytest.raises(StorageFailed):
        open_home(path, NoSync()).agent("bot").commit(bump="minor")
    states = agent.repository.catalog.rows("SELECT state FROM packs ORDER BY id")
    assert states == [("failed",)]
    agent.commit(bump="minor")
    states = agent.repository.catalog.rows("SELECT state FROM packs ORDER BY id")
    assert states == [("failed",), ("open",)]
    assert [version.version for version in agent.versions()] == ["1.0.0", "1.1.0"]
    assert agent.verify().ok


def test_a_catalog_that_cannot_be_synced_says_that_the_outcome_is_unknown(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    catalog = agent.repository.catalog

    class Refusing:
        def __init__(self, real: object) -> None:
            self._real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def execute(self, sql: str, *args: object) -> object:
            if sql == "COMMIT":
                import sqlite3

                raise sqlite3.OperationalError("disk I/O error")
            return self._real.execute(sql, *args)  # type: ignore[attr-defined]

    import os

    write(agent.workspace, {"a": b"1"})
    catalog._local.mine = (os.getpid(), Refusing(catalog.db))
    with pytest.raises(OutcomeUnknown) as caught:
        agent.commit(op_id="mine")
    assert caught.value.code == "E903"
    assert "mine" in caught.value.hint
    assert agent.commit(op_id="mine").version == "1.0.0"
