"""A version copied for a sandbox that has no overlay: what is copied, and what of it was changed since."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, Self

from kaivc.records import dataclass
from kaivc.sandboxes import kernel

_FICLONE: Final = 0x40049409
_BLOCK: Final = 512  # the unit of st_blocks
_LONG: Final = 2000  # of the 4096 bytes that a path may have
_HELD: Final = 200
_LOOK: Final = 0o500  # to list a directory, and to ask about what is in it


@dataclass(frozen=True)
class Copied:
    """A copy at ``top``, for which ``size`` bytes were written; ``largest`` is the size of its longest file.

    ``stamps`` tells each file that nobody touched since, by its inode and time of change.
    """

    top: str
    size: int
    largest: int
    stamps: dict[int, int]


@dataclass(frozen=True)
class Taken:
    """What files take that are new or changed. ``hidden``: a directory could not be looked into."""

    size: int
    inodes: int
    hidden: bool


def stamps(paths: Iterable[str]) -> dict[int, int]:
    """What tells later whether files are still as they are now: the time of change by the inode."""
    return {it.st_ino: it.st_ctime_ns for it in map(os.lstat, paths)}


def make_box(box: str, owner: int | None = None) -> None:
    """A new directory for all that a command may write, with one for each purpose; the copy comes beside them."""
    for path, mode in ((box, 0o755), (f"{box}/tmp", 0o1777), (f"{box}/home", 0o700), (f"{box}/shm", 0o1777)):  # noqa: S108
        kernel.make_dir(path, mode)
        kernel.set_mode(path, mode)
        if owner is not None:
            kernel.give(path, owner, owner)


def copy(lower: str, top: str, owner: int | None = None) -> Copied:
    """Copy the tree ``lower`` into a new directory ``top``, writable, modes as 644 and 755, given to ``owner``.

    Data is shared with the original where the file system can. Raises OSError; ValueError for what is neither file,
    directory nor link.
    """
    size = largest = 0
    kernel.make_dir(top, 0o755)
    made, waiting = [top], [(lower, top)]
    while waiting:
        have, into = waiting.pop()
        with os.scandir(have) as entries:
            for entry in entries:
                target = f"{into}/{entry.name}"
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISLNK(status.st_mode):
                    kernel.make_link(os.fsencode(os.readlink(entry.path)), os.fsencode(target))
                elif stat.S_ISDIR(status.st_mode):
                    kernel.make_dir(target, 0o755)
                    waiting.append((entry.path, target))
                elif stat.S_ISREG(status.st_mode):
                    size += _file(entry.path, target, 0o755 if status.st_mode & 0o100 else 0o644)
                    largest = max(largest, status.st_size)
                else:
                    raise ValueError(f"{entry.path} is neither file, directory nor link")
                made.append(target)
    if owner is not None:
        for path in made:
            kernel.give(path, owner, owner)
    return Copied(top, size, largest, stamps(made))


def _file(have: str, target: str, mode: int) -> int:
    """The number of bytes that had to be written; holes stay holes."""
    source = os.open(have, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(source).st_size
        into = kernel.new_file(target, mode)
        try:
            try:
                fcntl.ioctl(into, _FICLONE, source)
                return 0
            except OSError:
                return _data(source, into, size)
        finally:
            os.close(into)
    finally:
        os.close(source)


def _data(source: int, into: int, size: int) -> int:
    written = at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as bad:
            if bad.errno != errno.ENXIO:  # no data is left
                raise
            break
        end = os.lseek(source, at, os.SEEK_HOLE)
        written += kernel.copy_bytes(source, into, at, end)
        at = end
    kernel.set_size(into, size)
    return written


def taken(roots: tuple[str, ...], stamps: dict[int, int], *, opening: bool = False) -> Taken:
    """What is below ``roots`` that ``stamps`` does not tell; each inode once, links not followed.

    ``opening``: directories of our own that are closed to us are opened for as long as this looks; for when nothing
    runs that has closed them.
    """
    size = inodes = 0
    hidden = False
    linked: set[int] = set()
    with _Directories(roots, opening=opening) as waiting:
        for directory in waiting:
            try:
                entries = list(os.scandir(waiting.near(directory)))
            except (FileNotFoundError, NotADirectoryError):
                continue  # it went while we looked
            except OSError:
                hidden = True
                continue
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError:
                    hidden = True
                    continue
                if stat.S_ISDIR(status.st_mode):
                    waiting.add(entry.path, status)
                if stamps.get(status.st_ino) == status.st_ctime_ns or status.st_ino in linked:
                    continue
                if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                    linked.add(status.st_ino)
                inodes += 1
                size += status.st_blocks * _BLOCK
    return Taken(size, inodes, hidden)


class _Directories:
    """Directories that are still to be looked at; a path that is too long for the system begins at a descriptor."""

    def __init__(self, roots: tuple[str, ...], *, opening: bool) -> None:
        self._opening = opening
        self._waiting: list[str] = []
        self._held: list[int] = []
        self._opened: list[tuple[str, int]] = []
        for root in roots:
            self.add(root, os.lstat(root))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for path, mode in reversed(self._opened):
            kernel.set_mode(path, mode)
        for fd in self._held:
            os.close(fd)

    def __iter__(self) -> Iterator[str]:
        while self._waiting:
            yield self._waiting.pop()

    def add(self, path: str, status: os.stat_result) -> None:
        """One more."""
        mode = stat.S_IMODE(status.st_mode)
        if self._opening and mode & _LOOK != _LOOK and status.st_uid == os.geteuid():
            with suppress(OSError):  # it stays hidden
                kernel.set_mode(path, mode | _LOOK)
                self._opened.append((path, mode))
        self._waiting.append(path)

    def near(self, path: str) -> str:
        """A short path of a directory, if there are not very many of long ones."""
        if len(path) < _LONG or len(self._held) >= _HELD:
            return path
        self._held.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        return f"/proc/self/fd/{self._held[-1]}"
