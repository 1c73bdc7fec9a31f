"""SIGKILL at every call of every command, before it and after it, and again during the recovery: nothing is lost.

The children are forked from a warm process. A kill that comes in the midst of a write leaves half of it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import kaivc
from kaivc import intents
from kaivc.errors import NoSuchHome
from kaivc.vfs import Vfs
from tests.engine.homes import ENVIRON, copy, open_home
from tests.engine.test_kill import CALLS, in_child
from tests.faults.aftermath import SETTINGS, aftermath, asked
from tests.faults.crash import ask
from tests.faults.stories import STORIES, Story, Told, clear

ENOUGH = 5_000
STOP_AT = 5
SPARE = 2
"""Calls that a command may need less than when they were counted: a database that is busy is looked at again."""
RECOVERY = 40
"""Calls of a recovery, about."""
AGAIN = 100
"""How many second kills each story gets, in a whole run."""
STALE = 1.0
KILLED = [name for name in CALLS if name != "boot_id"]


class Killing(Vfs):
    """Kills the process at a call: before it, in the midst of it (a write), or after it."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at = at
        self.after = after
        self.calls = 0

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def _killing(name: str) -> Callable[..., object]:
    real = getattr(Vfs, name)

    def call(self: Killing, *args: object, **words: object) -> object:
        self.calls += 1
        mine = self.calls == self.at
        if mine and not self.after:
            if name == "write":
                fd, data = args
                os.write(fd, memoryview(data)[: len(data) // 2])  # type: ignore[arg-type]
            self.kill()
        result = real(self, *args, **words)
        if mine:
            self.kill()
        return result

    return call


for _name in KILLED:
    setattr(Killing, _name, _killing(_name))


@dataclass
class Result:
    """What became of all the kills."""

    kills: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0


class Slaughter:
    """One story, killed as often as is asked."""

    def __init__(self, story: Story, scratch: Path) -> None:
        self.story = story
        self.template = scratch / "template"
        self.path = scratch / "home"
        story.prepare(self.template)
        self.before = asked(story, self.template)
        counting = Killing(0, after=False)
        copy(self.template, self.path)
        story.act(self.path, counting)
        self.calls = counting.calls
        self.after: Told | None = ask(self.path)
        clear(self.path)
        self.result = Result()

    def at(self, number: int, *, after: bool, again: int = 0) -> None:
        """One kill; with ``again``, one more at that call of what recovers."""
        copy(self.template, self.path)
        what = f"{self.story.name}, killed {'after' if after else 'at'} call {number}"
        try:
            ended = in_child(lambda: self.story.act(self.path, Killing(number, after=after)))
            done = ended == 0 and number > self.calls - SPARE
            assert done or ended == signal.SIGKILL
            self.result.kills += not done
            self._unlocked()
            if again:
                what += f", and at call {again} of the recovery"
                code = in_child(lambda: recover(self.story, self.path, Killing(again, after=after)))
                self.result.kills += code == signal.SIGKILL
            assert self.after is not None
            found = aftermath(self.story, self.path, self.before, self.after, acknowledged=done, killed=True)
            self.result.outcomes[found] += 1
        except Exception as error:
            self.result.wrong.append(f"{what}: {type(error).__name__}: {error}"[:1500])
        clear(self.path)

    def _unlocked(self) -> None:
        """A killed holder's locks are gone at once."""
        began = time.monotonic()
        for path in (self.path / ".kai" / "locks").glob("*"):
            while (fd := Vfs().lock(str(path))) is None:
                if time.monotonic() - began > STALE:
                    raise AssertionError(f"{path} is still locked")
            os.close(fd)
        self.result.slowest = max(self.result.slowest, time.monotonic() - began)


def recover(story: Story, path: Path, vfs: Vfs) -> None:
    """What any command does first after a cut: the story itself where the home cannot be opened."""
    if story.again is not None:
        story.act(path, vfs)
        return
    try:
        home = open_home(path, vfs, **SETTINGS)
    except NoSuchHome:
        kaivc.init(path, environ=ENVIRON, vfs=vfs).close()
        return
    with closing(home):
        for name in home.agents(removed=True):
            repo = home.agent(name).repository
            with repo.lock(removed=True):
                intents.finish(repo)
        for name in home.agents():
            home.agent(name).status()


@pytest.mark.parametrize("name", STORIES)
def test_killed_at_every_call(name: str, memory: Path, share: float, seed: int, figure: Callable[..., None]) -> None:
    victim, rng = Slaughter(STORIES[name], memory), random.Random(seed)
    every = [(number, after, 0) for number in range(1, victim.calls + 1) for after in (False, True)]
    every += [(rng.randint(1, victim.calls), rng.random() < 0.5, rng.randint(1, RECOVERY)) for _ in range(AGAIN)]
    chosen = every if share == 1 else rng.sample(every, round(len(every) * share) or 1)
    for number, after, again in chosen:
        victim.at(number, after=after, again=again)
        assert len(victim.result.wrong) < STOP_AT, f"seed {seed}:\n" + "\n".join(victim.result.wrong)
    result = victim.result
    figure(
        f"{victim.calls} calls, {result.kills} kills, outcomes {dict(result.outcomes)}, locks free within "
        f"{result.slowest * 1000:.1f} ms (seed {seed})",
        kills=result.kills,
    )
    assert not result.wrong, "\n".join(result.wrong)
    if share == 1 and victim.after is not None:
        assert victim.before is None or victim.before.names == victim.after.names or len(result.outcomes) == 2


def test_there_are_enough_of_them(memory: Path) -> None:
    total = 0
    for name, story in STORIES.items():
        (memory / name).mkdir()
        total += 2 * Slaughter(story, memory / name).calls + AGAIN
    print(f"{total} kill points in a whole run")
    assert total >= ENOUGH
