"""The line of those who write the catalog is a courtesy; what a process remembers of an agent gives way to others."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kaivc
from kaivc.versions import AgentVersion
from kaivc.views import meta_bytes
from tests.engine.homes import ENVIRON, make_home, open_home, write

WAIT = 0.4


def test_who_stands_in_the_line_and_is_stopped_holds_nobody_up_for_good(tmp_path: Path) -> None:
    make_home(tmp_path / "home").new("bot")
    agent = kaivc.open(tmp_path / "home", environ=ENVIRON, flags={"lock.wait": f"{WAIT}s"}).agent("bot")
    write(agent.workspace, {"state": b"1"})
    line = os.open(tmp_path / "home/.kai", os.O_RDONLY)
    fcntl.flock(line, fcntl.LOCK_EX)
    try:
        began = time.monotonic()
        assert agent.commit(bump="patch").tag == "v1.0.0"
        assert time.monotonic() - began >= WAIT / 2, "the line was not looked at"
    finally:
        os.close(line)


def is_free(home: Path) -> bool:
    fd = os.open(home / ".kai", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_a_transaction_leaves_the_line_whatever_happens(tmp_path: Path) -> None:
    home = tmp_path / "home"
    catalog = make_home(home).new("bot").repository.catalog
    before = os.listdir("/proc/self/fd")
    with catalog.transaction():
        assert not is_free(home)
    assert is_free(home)
    with pytest.raises(ZeroDivisionError), catalog.transaction():
        1 / 0  # noqa: B018 - to fail
    assert is_free(home)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_numbers_go_on_from_those_that_another_gave(tmp_path: Path) -> None:
    make_home(tmp_path / "home").new("bot")
    one, two = (open_home(tmp_path / "home").agent("bot") for _ in range(2))
    given_by = [one, one, two, one, two, two, one]
    tags = []
    for number, agent in enumerate(given_by):
        write(agent.workspace, {"state": b"%d" % number})
        tags.append(agent.commit(bump="patch").tag)
    assert tags == [f"v1.0.{number}" for number in range(len(given_by))]
    write(one.workspace, {"state": b"on"})
    assert two.commit(version="7.0.0").tag == "v7.0.0"
    two.rollback("v1.0.0")
    write(one.workspace, {"state": b"and on"})
    assert one.commit(bump="minor").tag == "v7.1.0"


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT, st.none() | TEXT)
def test_the_meta_of_a_view_is_what_json_writes(notes: str, parent: str | None) -> None:
    version = AgentVersion("bot", "1.0.0", "c" * 64, "d" * 64, None, parent, "then", "me", notes, "manual", "s", "c")
    assert meta_bytes(version) == (json.dumps(version.snapshot_meta(), indent=2, ensure_ascii=False) + "\n").encode()
