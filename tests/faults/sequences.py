"""Commands one after the other: what those before did not sync is still on its way when the last one is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kaivc.api import Agent
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


_commit = on_bot(lambda agent: agent.commit(bump="minor", allow_empty=True))
_back = on_bot(lambda agent: agent.rollback("v1.0.0"))
_restore = on_bot(lambda agent: agent.restore())
_act = {name: story.act for name, story in STORIES.items()}
_nothing = _then()


def _sequence(name: str, prepare: Callable[[Path], None] | str, first: Act, act: Act) -> Story:
    return Story(name, STORIES[prepare].prepare if isinstance(prepare, str) else prepare, act, first=first)


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
