"""Cut gc, or fail it, at every call that changes the disk: nothing reachable is lost, and the next gc finishes."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kaivc.errors import KaiError, NoSpace, StorageFailed
from kaivc.vfs import Vfs
from tests.engine.homes import Files, commit, copy, make_home, open_home, read, remove, write
from tests.engine.test_faults import ERRORS, Failing
from tests.engine.test_gc import check, files, states
from tests.engine.test_kill import Cut, in_child

SETTINGS = {"packs__seal_at": "64 KiB", "chunks__threshold": "64 KiB", "backups__keep": "2", "backups__max_age": "0s"}
AFTER = 1_800_000_000


def contents(number: int, state: bytes) -> Files:
    return {"logic.py": b"v%d" % number, "state.json": state, "notes/a.txt": b"n%d" % number}


def prepare(path: Path) -> dict[str, Files]:
    """Packs to delete, to rewrite and to leave, chunks, what a cut command left; what each revision holds."""
    home = make_home(path, **SETTINGS)
    agent, chance = home.new("bot"), random.Random(5)
    kept: dict[str, Files] = {}
    for number in range(2):
        kept[f"v1.{number}.0"] = contents(number, chance.randbytes(90_000))
        commit(agent, kept[f"v1.{number}.0"], bump="minor")
    for number in range(5):
        saved = contents(9, chance.randbytes(40_000 if number else 200_000))
        write(agent.workspace, saved)
        done = agent.rollback(f"v1.{number % 2}.0")
        assert done.backup is not None
        if number > 2:
            kept[done.backup] = saved
    for name in ("c" * 16, "d" * 16):
        Path(agent.repository.layout.pack("bot", name)).write_bytes(b"KAIPACK\1KR")
    home.close()
    return kept


def opened(path: Path, vfs: Vfs | None = None):
    home = open_home(path, vfs, **SETTINGS)
    home.opened.clock.seconds = AFTER  # type: ignore[attr-defined]
    return home


def collect(path: Path, at: int) -> None:
    opened(path, Cut(at)).agent("bot").gc()


def judge(path: Path, kept: dict[str, Files]) -> str:
    """Everything that has a name is there; the next gc leaves what an uncut one leaves."""
    home = opened(path)
    agent = home.agent("bot")
    look(agent, kept)
    landed = any(entry.verb == "gc" for entry in agent.reflog(None).entries)
    done = agent.gc()
    assert done.done is not None
    assert bool(done.plan.expired) != landed
    look(agent, kept)
    check(agent)
    assert "condemned" not in states(agent).values()
    assert sum(files(agent).values()) < 320_000
    assert not agent.gc().plan
    write(agent.workspace, contents(3, b"{}"))
    agent.commit(version="9.9.9")
    check(agent)
    home.close()
    return "after" if landed else "before"


def look(agent, kept: dict[str, Files]) -> None:
    assert agent.verify().ok
    root = Path(agent.repository.layout.root)
    for rev, expected in kept.items():
        agent.checkout(rev, root / "out")
        assert read(root / "out") == expected
        remove(root / "out")


def test_killed_at_every_call(tmp_path: Path) -> None:
    template, path = tmp_path / "template", tmp_path / "home"
    kept = prepare(template)
    outcomes, at = {"before": 0, "after": 0}, 0
    while True:
        at += 1
        copy(template, path)
        cut = in_child(partial(collect, path, at))
        outcomes[judge(path, kept)] += 1
        remove(path)
        if cut == 0:
            break
    print(f"{at - 1} kill points, {outcomes}")
    assert at > 20
    assert outcomes["before"] > 10
    assert outcomes["after"] > 3


@pytest.mark.parametrize("fault", ERRORS)
def test_failing_at_every_call(fault: str, tmp_path: Path) -> None:
    error: Callable[[], KaiError] = ERRORS[fault]
    template, path = tmp_path / "template", tmp_path / "home"
    kept = prepare(template)
    outcomes, refused, at = {"before": 0, "after": 0}, 0, 0
    while True:
        at += 1
        copy(template, path)
        vfs = Failing(at, error)
        home = opened(path, vfs)
        try:
            home.agent("bot").gc()
        except (StorageFailed, NoSpace):
            refused += 1
        finally:
            home.close()
        outcomes[judge(path, kept)] += 1
        remove(path)
        if vfs.count < at:
            break
    print(f"{fault}: {at - 1} calls, {refused} refused, {outcomes}")
    assert refused > 15
    assert outcomes["before"] > 10
    assert outcomes["after"] > 3
