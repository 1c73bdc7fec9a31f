"""Record a command, cut the power everywhere, judge what is left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kaivc.api import open as open_any
from kaivc.errors import KaiError
from tests.engine.homes import ENVIRON
from tests.faults.disk import Disk, Image, images
from tests.faults.judge import judge
from tests.faults.recording import Recording, Step, recorded
from tests.faults.stories import Story, Told, clear, told

ACKNOWLEDGED = "acknowledged"


@dataclass
class Recorded:
    """A command's log, and what the home said before and after it."""

    top: int
    start: int
    log: list[Step]
    before: Told | None
    after: Told
    again: Callable[[Path], None] | None
    also: Callable[[Path, bool], None] | None


def ask(path: Path) -> Told | None:
    """What a home says; None if there is none."""
    try:
        home = open_any(path, environ=ENVIRON)
    except KaiError:
        return None
    try:
        return told(home)
    finally:
        home.close()


def record(story: Story, scratch: Path, kind: type[Recording] = Recording) -> Recorded:
    """Play a command on a real disk, and write down what it did."""
    path = scratch / "recorded"
    story.prepare(path)
    vfs = kind(str(path))
    with recorded(vfs):
        if story.first is not None:
            story.first(path, vfs)
        before = ask(path)
        start = len(vfs.log)
        story.act(path, vfs)
    vfs.say(ACKNOWLEDGED)
    after = ask(path)
    assert after is not None
    clear(path)
    return Recorded(vfs.top, start, vfs.log, before, after, story.again, story.also)


@dataclass
class Result:
    """How many states there were, and what was wrong with them."""

    states: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    corrupt: list[tuple[int, str, str]] = field(default_factory=list)


def cut_everywhere(
    it: Recorded,
    scratch: Path,
    rng: random.Random,
    *,
    share: float = 1.0,
    more: int = 8,
    stop_at: int = 3,
    judged: Callable[..., str] = judge,
) -> Result:
    """Judge each distinct state that a cut may leave; ``share`` of them, drawn at random."""
    disk, result, seen = Disk(it.top), Result(), set[tuple[bytes, bool]]()
    for number, step in enumerate(it.log):
        disk.play(step)
        if number < it.start - 1:
            continue
        acknowledged = ACKNOWLEDGED in disk.said
        for image in images(disk, number, rng, more):
            key = image.key, acknowledged
            if key in seen:
                continue
            seen.add(key)
            if rng.random() >= share:
                continue
            result.states += 1
            try:
                result.outcomes[_check(image, it, scratch, judged, acknowledged=acknowledged)] += 1
            except Exception as error:
                said = f"{type(error).__name__}: {error}"[:2000]
                result.corrupt.append((number - it.start, f"{step!r:.80} {image.choice}", said))
                if len(result.corrupt) >= stop_at:
                    return result
    return result


def _check(image: Image, it: Recorded, scratch: Path, judged: Callable[..., str], *, acknowledged: bool) -> str:
    path = scratch / "cut"
    if path.exists():
        clear(path)
    image.write(str(path))
    if it.also is not None:
        it.also(path, acknowledged)
    return judged(path, it.before, it.after, acknowledged=acknowledged, again=it.again)
