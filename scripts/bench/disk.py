"""What keeps one run from slowing down the next one on the same disk.

ext4 does not give the inode of a removed file away again for minutes, and steps over each such inode one by one: beside
20,000 files that were just removed, making a file took 115 to 370 us, where it takes 16 us. So nothing is removed
between runs, each run's directory is placed far from the others', and what a new file costs is noted with the figures.
"""

from __future__ import annotations

import array
import fcntl
import os
import resource
import tempfile
from contextlib import suppress

from scripts.bench import folders

GET_FLAGS, SET_FLAGS, TOP = 0x80086601, 0x40086602, 0x00020000
"""Of linux/fs.h, on 64 bits; a directory below one with TOP is put where there is most room."""
LARGE = 1 << 16
PROBES = 2_000
SPARE_BYTES, SPARE_FILES = 20 << 30, 2_000_000
"""With less than this left, what is done with is removed all the same."""


def spread(directory: str) -> None:
    """Let what is made in ``directory`` lie far apart, where the file system can."""
    flags = array.array("l", [0])
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.ioctl(fd, GET_FLAGS, flags)
            flags[0] |= TOP
            fcntl.ioctl(fd, SET_FLAGS, flags)
    finally:
        os.close(fd)


def retire(directory: str) -> None:
    """Give back the room of what is done with, and leave its inodes until all is over."""
    left = os.statvfs(directory)
    # A file system without a table of inodes says that it has none.
    few = bool(left.f_files) and left.f_favail < SPARE_FILES
    if left.f_bavail * left.f_frsize < SPARE_BYTES or few:
        folders.remove(directory)
        return
    for path in folders.files(directory):
        if not os.path.islink(path) and os.path.isfile(path) and os.path.getsize(path) >= LARGE:
            os.chmod(path, 0o600)
            os.truncate(path, 0)


def creation(parent: str) -> float:
    """CPU microseconds that one new small file takes in a new directory of ``parent``."""
    directory = tempfile.mkdtemp(prefix="probe-", dir=parent)
    before = _used()
    for number in range(PROBES):
        with open(os.path.join(directory, str(number)), "wb", buffering=0) as file:
            file.write(b"probe")
    return round((_used() - before) / PROBES * 1e6, 1)


def _used() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime
