"""Run a command on a real ext4, pull the plug, start again, judge: as a program, in mounts and processes of its own.

SQLite, the file system and its journal are the real ones; only the disk below is ours (``blocks.py``).
"""

from __future__ import annotations

import argparse
import ast
import ctypes
import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest

from kaivc.vfs import Vfs
from tests.faults.blocks import (
    BLOCK,
    SECTOR,
    SIZE,
    Event,
    Flush,
    Mark,
    Write,
    make,
    mark,
    mounted,
    read_log,
    served,
)
from tests.faults.crash import ACKNOWLEDGED, ask
from tests.faults.judge import judge
from tests.faults.mutants import MUTANTS
from tests.faults.recording import Recording
from tests.faults.stories import STORIES, Story, Told

BEGUN, ENDED = "begun", "ended"
HOME = "recorded"
CHOICES = 6
"""Random choices of what reached the disk, for each moment between two flushes."""
OFTEN = 0.15
"""How many of the changes are followed by a flush when the system is restless."""
_WITHIN_SUPERBLOCK = 1024 + SECTOR
_NOTHING = bytes(BLOCK)
_STOP_AT = 3


@dataclass
class Report:
    """What one command went through."""

    writes: int = 0
    flushes: int = 0
    states: int = 0
    mounts: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    corrupt: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0


def in_child(action: Callable[[], str]) -> str:
    """What an action says, in a process of its own: SQLite remembers files by device and inode, which come again."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = "+" + action()
        except BaseException as error:  # whatever it is, the parent must hear of it
            said = f"-{type(error).__name__}: {error}"
        with open(writing, "w", encoding="utf-8", errors="replace") as file:
            file.write(said)
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        said = file.read()
    os.waitpid(pid, 0)
    if not said.startswith("+"):
        raise AssertionError(said[1:] or "the child was killed")
    return said[1:]


# ------------------------------------------------------------ recording

Blocks = dict[int, bytes]


@dataclass(frozen=True)
class Recorded:
    """The empty disk, what then went to it, and what the home said before and after the command."""

    empty: Blocks
    log: list[Event]
    before: Told | None
    after: Told


def record(name: str, mutant: str | None, restless: random.Random | None, scratch: Path) -> Recorded:
    """Play a story on an ext4 whose disk is watched."""
    image, log = scratch / f"{scratch.name}.disk", scratch / "log"
    make(image)
    empty = _read(image)
    with served(image, log, scratch / "fuse") as disk, mounted(disk, scratch / "mounted") as top:
        said = in_child(lambda: _play(name, mutant, restless, top / HOME, disk))
    before, after = ast.literal_eval(said)
    return Recorded(empty, read_log(log), Told(*before) if before else None, Told(*after))


def _read(image: Path) -> Blocks:
    found, data = {}, image.read_bytes()
    for at in range(0, SIZE, BLOCK):
        if (block := data[at : at + BLOCK]) != _NOTHING:
            found[at // BLOCK] = block
    return found


def _play(name: str, mutant: str | None, restless: random.Random | None, path: Path, disk: Path) -> str:
    story = STORIES[name]
    story.prepare(path)
    before = None if story.again is not None else ask(path)
    flush(path.parent)
    vfs = Vfs() if restless is None else Restless(path.parent, restless)
    with pytest.MonkeyPatch.context() as patch:
        if mutant is not None:
            vfs = Recording(str(path))  # mistakes are made in it; it writes as any other
            next(it for it in MUTANTS if it.name == mutant).make(patch)
        mark(disk, BEGUN)
        story.act(path, vfs)
        mark(disk, ACKNOWLEDGED)
    flush(path.parent)  # what a system does in its own time
    mark(disk, ENDED)
    after = ask(path)
    assert after is not None
    return repr((before and (before.refs, before.files, before.own), (after.refs, after.files, after.own)))


def flush(path: Path) -> None:
    """Let all of a file system reach its disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(fd)


class Restless(Vfs):
    """On a system that, now and then, writes what nobody has asked it to."""

    def __init__(self, top: Path, rng: random.Random) -> None:
        self._top = top
        self._rng = rng

    def _now_and_then(self) -> None:
        if self._rng.random() < OFTEN:
            flush(self._top)


def _restless(name: str) -> Callable[..., object]:
    real = getattr(Vfs, name)

    def call(self: Restless, *args: object, **words: object) -> object:
        done = real(self, *args, **words)
        self._now_and_then()
        return done

    return call


for _name in ("create", "write", "rename", "link", "unlink", "symlink", "make_dir", "remove_dir"):
    setattr(Restless, _name, _restless(_name))


# ------------------------------------------------------------ what may be on the disk after a cut


@dataclass(frozen=True)
class State:
    """What a disk may hold: ``there`` was flushed, ``kept`` reached it by chance."""

    there: Blocks
    kept: Blocks
    acknowledged: bool
    choice: str

    def write(self, path: Path) -> None:
        """Make it an image."""
        with path.open("wb") as file:
            file.truncate(SIZE)
            for block, data in sorted((self.there | self.kept).items()):
                if data != _NOTHING:
                    file.seek(block * BLOCK)
                    file.write(data)


def states(it: Recorded, rng: random.Random) -> list[State]:
    """Each distinct state of the time from the beginning of the command to when all of it is on the disk.

    Between two flushes: the writes in their order up to each one; and choices in which any block, whenever written,
    is kept or dropped, the last one torn at a sector.
    """
    there, pending, kept = it.empty, list[Piece](), Blocks()
    total = _sum(there)
    seen, found = set[tuple[int, bool]](), list[State]()
    begun = acknowledged = False

    def add(kept: Blocks, choice: str) -> None:
        key = total ^ _sum(kept) ^ _sum({block: there.get(block, _NOTHING) for block in kept})
        if begun and (key, acknowledged) not in seen:
            seen.add((key, acknowledged))
            found.append(State(there, kept, acknowledged, choice))

    for number, event in enumerate(it.log):
        if begun and pending and not isinstance(event, Write):
            for _ in range(CHOICES):
                odds = rng.random()
                chosen = [piece for piece in pending if rng.random() < odds]
                chosen[-1:] = [piece.torn(rng) for piece in chosen[-1:]]
                add(_laid(there, {}, chosen), f"before event {number}: {len(chosen)} of {len(pending)} blocks")
        match event:
            case Write():
                pieces = _pieces(event)
                pending += pieces
                kept = _laid(there, kept, pieces)
                add(kept, f"event {number}: all {len(pending)} blocks since the flush")
            case Flush():
                total ^= _sum(kept) ^ _sum({block: there.get(block, _NOTHING) for block in kept})
                there, pending, kept = there | kept, [], {}
                add({}, f"event {number}: what was flushed")
            case Mark(what=what):
                begun, acknowledged = True, what != BEGUN
                add({}, f"{what}: what was flushed")
                if what == ENDED:
                    add(kept, "all of it")
                    return found
    raise AssertionError("the command did not end")


@dataclass(frozen=True)
class Piece:
    """The part of a write that lies in one block."""

    block: int
    at: int
    data: bytes

    def torn(self, rng: random.Random) -> Piece:
        """Some sectors of it, from the first.

        Never one of the superblock's two: ext4 takes it to be written at once, and mounts none whose checksum fails.
        """
        sectors = rng.randrange(len(self.data) // SECTOR + 1)
        if self.block == 0 and self.at + sectors * SECTOR == _WITHIN_SUPERBLOCK:
            sectors -= 1
        return replace(self, data=self.data[: sectors * SECTOR])


def _pieces(write: Write) -> list[Piece]:
    found, at, end = [], write.offset, write.offset + len(write.data)
    while at < end:
        until = min(end, (at // BLOCK + 1) * BLOCK)
        found.append(Piece(at // BLOCK, at % BLOCK, write.data[at - write.offset : until - write.offset]))
        at = until
    return found


def _laid(there: Blocks, kept: Blocks, pieces: Sequence[Piece]) -> Blocks:
    """``kept``, and the pieces over it."""
    kept = dict(kept)
    for piece in pieces:
        old = kept.get(piece.block) or there.get(piece.block, _NOTHING)
        kept[piece.block] = old[: piece.at] + piece.data + old[piece.at + len(piece.data) :]
    return kept


def _sum(blocks: Blocks) -> int:
    """The same for the same content, in whatever order it came; blocks of zeros do not count."""
    total = 0
    for block, data in blocks.items():
        if data != _NOTHING:
            total ^= int.from_bytes(
                hashlib.blake2b(data, digest_size=16, salt=block.to_bytes(8, "big")).digest(), "big"
            )
    return total


# ------------------------------------------------------------ judging


def play(name: str, *, mutant: str | None, restless: bool, mounts: int, seed: int, scratch: Path) -> Report:
    """Record a command, cut it, mount ``mounts`` of the states, judge each."""
    begun = time.monotonic()
    rng = random.Random(seed)
    recorded = record(name, mutant, rng if restless else None, scratch)
    possible = states(recorded, rng)
    report = Report(
        writes=sum(isinstance(event, Write) for event in recorded.log),
        flushes=sum(isinstance(event, Flush) for event in recorded.log),
        states=len(possible),
    )
    for state in _drawn(possible, mounts, rng):
        report.mounts += 1
        try:
            outcome = _look(state, STORIES[name], recorded, scratch)
            report.outcomes[outcome] = report.outcomes.get(outcome, 0) + 1
        except Exception as error:  # whatever it is, it is a state that must not be
            report.corrupt.append((state.choice, f"{type(error).__name__}: {error}"[:2000]))
            if len(report.corrupt) >= _STOP_AT:
                break
    report.seconds = round(time.monotonic() - begun, 1)
    return report


def _drawn(possible: Sequence[State], mounts: int, rng: random.Random) -> list[State]:
    """What was flushed when the command returned, and all of it; the others by chance."""
    told = next(state for state in possible if state.acknowledged)
    others = [state for state in possible if state is not told and state is not possible[-1]]
    return [told, possible[-1], *rng.sample(others, min(len(others), max(mounts - 2, 0)))]


def _look(state: State, story: Story, it: Recorded, scratch: Path) -> str:
    image = scratch / "cut"
    state.write(image)
    with mounted(image, scratch / "mounted") as top:
        return in_child(
            lambda: judge(top / HOME, it.before, it.after, acknowledged=state.acknowledged, again=story.again)
        )


def main() -> None:
    """Print the report as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("story", choices=STORIES)
    parser.add_argument("--mutant", choices=[it.name for it in MUTANTS])
    parser.add_argument("--restless", action="store_true", help="let the system write what it was not asked to, too")
    parser.add_argument("--mounts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, required=True)
    words = parser.parse_args()
    print(json.dumps(asdict(play(words.story, **{key: it for key, it in vars(words).items() if key != "story"}))))


if __name__ == "__main__":
    main()
