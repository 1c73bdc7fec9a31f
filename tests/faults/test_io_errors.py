"""The disk says no, at every call of every command: a typed error, all or nothing, and the next command works."""

from __future__ import annotations

import gc
import os
import random
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kaivc.errors import KaiError, OutcomeUnknown
from kaivc.vfs import Vfs
from tests.engine.homes import copy
from tests.faults import below
from tests.faults.aftermath import aftermath, asked
from tests.faults.below import ERRNOS, LANDED, OF_SQLITE, SHORT, Below, Fault
from tests.faults.crash import ask
from tests.faults.stories import STORIES, Story, Told, Unrepaired, clear

ENOUGH = 10_000
STOP_AT = 8
RARE = {*SHORT, LANDED}
OF_THE_RARE = 4
HINTS = {"EMFILE": "ulimit", "EROFS": "read-only", "ENOSPC": "free some space", "SQLITE_FULL": "free some space"}
CODES = {
    "EIO": {"E901", "E903"},
    "EMFILE": {"E901"},
    "EROFS": {"E901", "E905"},
    "ENOSPC": {"E902"},
    "EDQUOT": {"E902"},
    SHORT[0]: set[str](),
    SHORT[1]: {"E902"},
    SHORT[2]: {"E901"},
    "SQLITE_FULL": {"E902", "E307"},
    "SQLITE_IOERR_WRITE": {"E901", "E903", "E307"},
    "SQLITE_IOERR_FSYNC": {"E901", "E903", "E307"},
    "SQLITE_CANTOPEN": {"E901", "E903", "E307"},
    "SQLITE_READONLY": {"E901", "E903", "E905", "E307"},
    LANDED: {"E901", "E903"},
}
"""E307 is a database of the agent's that cannot be read."""


@dataclass
class Played:
    """A story, the home that it begins with, and what it says before and after."""

    story: Story
    template: Path
    before: Told | None
    after: Told
    calls: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)


def play(story: Story, scratch: Path) -> Played:
    """Prepare a story, and count what it calls."""
    template, path = scratch / "template", scratch / "home"
    story.prepare(template)
    before = asked(story, template)
    counted = []
    for layer in (below.system, below.sqlite):
        copy(template, path)
        with layer(Below()) as it:
            story.act(path, Vfs())
        counted.append(it.calls)
    after = ask(path)
    assert after is not None
    clear(path)
    return Played(story, template, before, after, *counted)


def faults(calls: list[str]) -> list[Fault]:
    """Every error at every call."""
    numbers = range(1, len(calls) + 1)
    found = [Fault(at, what, lasting) for at in numbers for what in ERRNOS for lasting in (False, True)]
    for at, name in enumerate(calls, 1):
        if name == "write":
            found += [Fault(at, SHORT[0], True), Fault(at, SHORT[1]), Fault(at, SHORT[2], True), Fault(at, SHORT[2])]
    return found


def faults_of_sqlite(statements: list[str]) -> list[Fault]:
    """Every error at every statement; a commit may have landed all the same."""
    found = [
        Fault(at, what, lasting)
        for at in range(1, len(statements) + 1)
        for what in OF_SQLITE
        for lasting in (False, True)
    ]
    return found + [Fault(at, LANDED) for at, name in enumerate(statements, 1) if name == "COMMIT"]


@dataclass
class Result:
    """What became of all the errors."""

    injected: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def inject(
    it: Played, fault: Fault, layer: Callable[[Below], AbstractContextManager[Below]], scratch: Path, result: Result
) -> None:
    """One error, and all that must hold after it."""
    path = scratch / "home"
    copy(it.template, path)
    held = descriptors()
    under = Below(fault)
    said: BaseException | None = None
    with layer(under):
        try:
            it.story.act(path, Vfs())
        except Exception as error:
            said = error
            if isinstance(error, KaiError):  # its frames would keep open what they had open
                error.__cause__ = error.__context__ = error.__traceback__ = None
    leaked = leaks(held)
    if not under.hit:
        clear(path)
        return
    result.injected += 1
    result.codes[code(said)] += 1
    try:
        complaint = wrong_with(said, fault, under)
        outcome = aftermath(it.story, path, it.before, it.after, acknowledged=said is None, killed=fault.lasting)
        result.outcomes[outcome] += 1
        complaint = complaint or claims(said, outcome, it)
        if leaked:
            complaint = complaint or f"descriptors leaked: {leaked}"
    except Exception as error:
        complaint = f"{type(error).__name__}: {error}"
    if complaint:
        result.wrong.append(f"{it.story.name}, {fault} ({under.hit}), {code(said)} {said}: {complaint}"[:1500])
    clear(path)


def code(said: BaseException | None) -> str:
    return "ok" if said is None else said.code if isinstance(said, KaiError) else type(said).__name__


def wrong_with(said: BaseException | None, fault: Fault, under: Below) -> str:
    """What is wrong with the answer; empty for nothing."""
    if said is None:
        return "acknowledged after a failed sync" if under.hit == "fsync" else ""
    if not isinstance(said, KaiError):
        return "no typed error: " + "".join(traceback.format_exception(said)[-4:])
    if isinstance(said, Unrepaired):
        return ""
    if said.code not in CODES[fault.what]:
        return "the code is wrong"
    fits = said.hint and HINTS.get(fault.what, "") in said.hint
    return "" if fits else f"the hint is not of {fault.what}: {said.hint!r}"


def claims(said: BaseException | None, outcome: str, it: Played) -> str:
    """An error must not deny what has happened."""
    landed = outcome == "after" and it.before is not None and it.before.names != it.after.names
    if not landed or said is None or isinstance(said, OutcomeUnknown | Unrepaired):
        return ""
    unchanged = getattr(said, "unchanged", "")
    denied = not unchanged or "nothing" in unchanged
    return f"it landed, and the error says: unchanged={unchanged!r}" if denied else ""


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def leaks(held: set[str]) -> list[str]:
    if len(descriptors()) <= len(held):
        return []
    gc.collect()
    more = descriptors() - held
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in more if os.path.lexists(f"/proc/self/fd/{fd}")]


def drawn(wanted: list[Fault], some: int, rng: random.Random) -> list[Fault]:
    """So many of them, and some of the few that are like no other: among all they would hardly ever be drawn."""
    rare = [it for it in wanted if it.what in RARE]
    return rng.sample(rare, min(len(rare), OF_THE_RARE)) + rng.sample(wanted, min(len(wanted), some))


def after_landing(wanted: list[Fault], statements: list[str]) -> list[Fault]:
    """An error at each statement behind the last that commits: what answers it must not say that nothing was done."""
    last = max((at for at, name in enumerate(statements, 1) if name == "COMMIT"), default=len(statements))
    return [it for it in wanted if it.at > last and it.what == "SQLITE_IOERR_WRITE" and not it.lasting]


def run(name: str, scratch: Path, share: float, seed: int, figure: Callable[..., None]) -> None:
    it, rng = play(STORIES[name], scratch), random.Random(seed)
    for kind, layer, wanted, part in (
        ("system calls", below.system, faults(it.calls), 0.7),
        ("SQLite statements", below.sqlite, faults_of_sqlite(it.statements), 0.3),
    ):
        result = Result()
        chosen = wanted if share == 1 else drawn(wanted, round(ENOUGH * share * part / len(STORIES)), rng)
        if share < 1 and layer is below.sqlite:
            chosen += after_landing(wanted, it.statements)
        for fault in chosen:
            inject(it, fault, layer, scratch, result)
            assert len(result.wrong) < STOP_AT, f"seed {seed}:\n" + "\n".join(result.wrong)
        calls = len(it.calls) if layer is below.system else len(it.statements)
        figure(
            f"{calls} {kind}, {result.injected} errors injected, answers {dict(result.codes)}, "
            f"outcomes {dict(result.outcomes)}, {len(result.wrong)} wrong (seed {seed})",
            injected_errors=result.injected,
        )
        assert not result.wrong, "\n".join(result.wrong)
        assert result.injected > 0.5 * len(chosen)  # the number of calls differs from run to run


@pytest.mark.parametrize("name", STORIES)
def test_an_error_at_every_call(name: str, memory: Path, share: float, seed: int, figure: Callable[..., None]) -> None:
    run(name, memory, share, seed, figure)


def test_there_are_enough_of_them(memory: Path) -> None:
    total = 0
    for name, story in STORIES.items():
        (memory / name).mkdir()
        it = play(story, memory / name)
        total += len(faults(it.calls)) + len(faults_of_sqlite(it.statements))
    print(f"{total} errors in a whole run")
    assert total >= ENOUGH
