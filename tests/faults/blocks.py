"""A disk that writes down what it is told: one file served by FUSE, each write and each flush in its order.

What is served is the image of a disk. A loop device over it passes on the writes of a file system, and its
barriers as fsync: FUSE without a write-back cache hands on each of them before it is answered.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZE = 64 << 20
BLOCK = 4096
SECTOR = 512
MARKS = "marks"
_FRAME = struct.Struct(">cQI")  # kind, offset, length; the data follow
_WRITE, _FLUSH, _MARK = b"w", b"f", b"m"
_START = 10  # seconds
_CLONE_NEWNS = 0x20000


@dataclass(frozen=True)
class Write:
    """Bytes went to a place of the disk, which may still hold them in its own memory."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Flush:
    """All writes before this are on the disk for good."""


@dataclass(frozen=True)
class Mark:
    """Whoever uses the disk says where he is."""

    what: str


Event = Write | Flush | Mark


def read_log(path: Path) -> list[Event]:
    """What a served disk wrote down so far."""
    found: list[Event] = []
    data, at = path.read_bytes(), 0
    while at < len(data):
        kind, offset, length = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        what = data[at : at + length]
        at += length
        found.append(_event(kind, offset, what))
    return found


def _event(kind: bytes, offset: int, what: bytes) -> Event:
    if kind == _WRITE:
        return Write(offset, what)
    return Flush() if kind == _FLUSH else Mark(what.decode())


def _serve(image: Path, log: Path, mountpoint: Path) -> None:
    """Serve ``image`` below ``mountpoint`` until killed."""
    import mfusepy

    disk = os.open(image, os.O_RDWR)
    book = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(kind: bytes, offset: int, data: bytes) -> None:
        os.write(book, _FRAME.pack(kind, offset, len(data)) + data)

    served_as = _operations(image.name, disk, note)
    mfusepy.FUSE(served_as, str(mountpoint), foreground=True, nothreads=True)


def _have_own_mounts() -> None:
    """What lies on this disk must not be its server's to unmount when all are killed.

    It would wait for its own answers, and any sync of the machine would wait with it.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")


def _operations(name: str, disk: int, note: Callable[[bytes, int, bytes], None]) -> Any:
    """What FUSE calls."""
    import mfusepy

    class Served(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def init(self, path: str) -> None:
            _have_own_mounts()

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
            if path not in {"/" + name, "/" + MARKS}:
                raise mfusepy.FuseOSError(errno.ENOENT)
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": 0 if path == "/" + MARKS else SIZE}

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(disk, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            if path == "/" + MARKS:
                note(_MARK, 0, data)
            else:
                os.pwrite(disk, data, offset)
                note(_WRITE, offset, data)
            return len(data)

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            note(_FLUSH, 0, b"")
            return 0

    return Served()


@contextmanager
def served(image: Path, log: Path, mountpoint: Path) -> Iterator[Path]:
    """Where the image can be used while it is served, by a process of its own."""
    mountpoint.mkdir()
    pid = os.fork()
    if pid == 0:
        try:
            _serve(image, log, mountpoint)
        finally:
            os._exit(0)
    try:
        deadline = time.monotonic() + _START
        while not (mountpoint / image.name).exists():
            if time.monotonic() > deadline:
                raise TimeoutError("FUSE did not come up")
            time.sleep(0.01)
        yield mountpoint / image.name
    finally:
        _unmount(mountpoint)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def mark(disk: Path, what: str) -> None:
    """Write down a word between the writes to a served image."""
    fd = os.open(disk.parent / MARKS, os.O_WRONLY)
    try:
        os.write(fd, what.encode())
    finally:
        os.close(fd)


def make(image: Path) -> None:
    """An empty ext4 as it comes, with a small journal; what it would zero later, when it is idle, is zeroed now."""
    with image.open("wb") as file:
        file.truncate(SIZE)
    command = ["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-J", "size=4", "-m", "0"]
    subprocess.run([*command, "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", str(image)], check=True)


@contextmanager
def mounted(image: Path, at: Path, *options: str) -> Iterator[Path]:
    """An image as a file system, over a loop device that goes with the mount."""
    at.mkdir(exist_ok=True)
    words = ",".join(("loop", "data=ordered", *options))
    done = subprocess.run(["mount", "-t", "ext4", "-o", words, image, at], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(errno.EIO, f"mount: {done.stderr.strip()}")
    try:
        yield at
    finally:
        _unmount(at)


def _unmount(at: Path) -> None:
    if subprocess.run(["umount", at], capture_output=True, check=False).returncode:
        subprocess.run(["umount", "-l", at], check=True)


def main() -> None:
    """Leave with 0 if a disk can be served, mounted and written here."""
    scratch = Path(sys.argv[1])
    image, log = scratch / "disk", scratch / "log"
    make(image)
    with served(image, log, scratch / "fuse") as disk, mounted(disk, scratch / "mounted") as top:
        (top / "file").write_bytes(b"x")
        mark(disk, "written")
    events = read_log(log)
    assert Mark("written") in events
    assert Flush() in events


if __name__ == "__main__":
    main()
