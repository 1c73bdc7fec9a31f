"""Directories: what they hold, whether two hold the same, how much room they take, and their end."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

BLOCK = 512
PIECE = 1 << 20

Contents = dict[str, str]
"""SHA-256 of each file, by its path."""


@dataclass(frozen=True)
class Room:
    """Bytes of all files, and bytes of the disk blocks that they take."""

    apparent: int
    allocated: int

    def __add__(self, other: Room) -> Room:
        return Room(self.apparent + other.apparent, self.allocated + other.allocated)


def files(directory: str) -> Iterator[str]:
    """The paths of everything below ``directory`` that is no directory."""
    for parent, below, names in os.walk(directory):
        yield from (os.path.join(parent, name) for name in names)
        yield from (path for path in (os.path.join(parent, name) for name in below) if os.path.islink(path))


def contents(directory: str, without: Sequence[str] = ()) -> Contents:
    """What ``directory`` holds, but for what is named in ``without`` at its root."""
    found = {}
    for path in files(directory):
        name = os.path.relpath(path, directory)
        if name.partition("/")[0] not in without:
            found[name] = _digest(path)
    return found


def _digest(path: str) -> str:
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode):
        return f"no plain file: {stat.filemode(mode)}"
    digest = hashlib.sha256()
    piece = memoryview(bytearray(PIECE))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()


def digest(found: Mapping[str, str]) -> str:
    """One hash for all that a directory holds."""
    lines = "".join(f"{found[name]} {name}\n" for name in sorted(found))
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def difference(found: Contents, wanted: Contents) -> str:
    """What is wrong first with what was restored; "" when nothing is."""
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in wanted:
            return f"{name} was never committed"
        if found[name] != wanted[name]:
            return f"{name} has other bytes"
    return ""


def room(*places: str) -> Room:
    """What files and directories take, each inode counted once."""
    seen: set[tuple[int, int]] = set()
    total = Room(0, 0)
    for place in places:
        for path in files(place) if os.path.isdir(place) else [place]:
            try:
                at = os.lstat(path)
            except FileNotFoundError:
                continue
            if (at.st_dev, at.st_ino) not in seen:
                seen.add((at.st_dev, at.st_ino))
                total += Room(at.st_size, at.st_blocks * BLOCK)
    return total


def copy(source: str, target: str) -> None:
    """Let ``target`` hold the files of ``source``; it is made."""
    shutil.copytree(source, target, symlinks=True)


def remove(directory: str) -> None:
    """Remove a directory, with what in it may not be written."""
    if not os.path.lexists(directory):
        return
    for parent, below, _ in os.walk(directory):
        for path in (parent, *(os.path.join(parent, name) for name in below)):
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(directory)
