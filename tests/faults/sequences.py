"""Commands one after the other: what those before did not sync is still on its way when the last one is cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from kaivc.api import Agent
from kaivc.vfs import Path as Name
from kaivc.vfs import Vfs
from tests.faults.stories import STORIES, Story, on_bot, on_home, three_versions

Act = Callable[[Path, Vfs], None]


def _then(*acts: Act) -> Act:
    def act(path: Path, vfs: Vfs) -> None:
        for each in acts:
            each(path, vfs)

    return act


def _live(path: Path, vfs: Vfs) -> None:
    """The agent writes a file of its own, and syncs it."""
    made, there = f"{path}/.kai/tmp/live", f"{path}/bot/workspace"
    fd = vfs.create(made)
    vfs.write(fd, b"a: live\n")
    vfs.sync(fd)
    vfs.close(fd)
    vfs.rename(made, f"{there}/config.yaml")
    vfs.sync_dir(there)


def _in_one_process(agent: Agent) -> None:
    agent.commit(bump="minor", allow_empty=True)
    agent.rollback("v1.0.0")
    agent.commit(bump="minor", allow_empty=True)


class _Stopped(BaseException):
    """The process was killed."""


def _until_moved(act: Act, name: str) -> Act:
    """A command whose process is killed once it has moved the agent's directory of that name."""

    def stopped(path: Path, vfs: Vfs) -> None:
        real = vfs.rename

        def rename(old: Name, new: Name, old_at: int | None = None, new_at: int | None = None) -> None:
            real(old, new, old_at, new_at)
            if os.fsdecode(old) == f"{path}/{name}":
                raise _Stopped

        vfs.rename = rename  # type: ignore[method-assign]
        try:
            act(path, vfs)
        except _Stopped:
            return
        finally:
            vfs.rename = real  # type: ignore[method-assign]
        raise AssertionError(f"{name} was not moved")

    return stopped


def _remains_removed(path: Path, acknowledged: bool) -> None:
    assert not acknowledged or not (path / "bot").exists(), "the directory of the removed agent is back"


_commit = on_bot(lambda agent: agent.commit(bump="minor", allow_empty=True))
_back = on_bot(lambda agent: agent.rollback("v1.0.0"))
_restore = on_bot(lambda agent: agent.restore())
_act = {name: story.act for name, story in STORIES.items()}
_nothing = _then()
_as_cat = on_home(lambda home, _: home.agent("cat").commit(bump="minor", allow_empty=True))


def _sequence(
    name: str,
    prepare: Callable[[Path], None] | str,
    first: Act,
    act: Act,
    also: Callable[[Path, bool], None] | None = None,
) -> Story:
    return Story(name, STORIES[prepare].prepare if isinstance(prepare, str) else prepare, act, also=also, first=first)


SEQUENCES = {
    story.name: story
    for story in (
        _sequence("commit, commit", three_versions, _commit, _commit),
        _sequence("commit, rollback", three_versions, _commit, _back),
        _sequence("rollback, commit", three_versions, _back, _commit),
        _sequence("three, commit", three_versions, on_bot(_in_one_process), _commit),
        _sequence("undo, redo", "undo", _act["undo"], _act["redo"]),
        _sequence("commit, rename", three_versions, _commit, _act["rename"]),
        _sequence("rename, remove", three_versions, _act["rename"], on_home(lambda home, _: home.remove("cat"))),
        _sequence("rename killed, commit", "rename", _until_moved(_act["rename"], "bot"), _as_cat),
        _sequence("remove killed, gc", "remove", _until_moved(_act["remove"], "bot"), _act["gc"], _remains_removed),
        _sequence("gc, commit", "gc", _act["gc"], _commit),
        _sequence("commit, gc", "gc", _commit, _act["gc"]),
        _sequence("init, new", "init", _act["init"], _act["new"]),
        _sequence("import, commit", "import", _act["import"], _commit),
        _sequence("clone, commit", "clone", _act["clone"], _commit),
        _sequence("rollback, live", three_versions, _then(_back, _live), _nothing),
        _sequence("restore, live", three_versions, _then(_restore, _live), _nothing),
        _sequence("undo, live", "undo", _then(_act["undo"], _live), _nothing),
        _sequence("recovery, live", "recovery", _then(_act["recovery"], _live), _nothing),
    )
}
"""With ``live`` at its end nothing is left to be cut: what was restored must not be restored again."""
