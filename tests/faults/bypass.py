"""Which changes of a disk did not go through ``vfs.py``: what strace saw, between marks that each call of it makes.

As a program (``python -m tests.faults.bypass NOTES [--plant] WORDS...``) it is ``kai WORDS...`` with those marks.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

MARK = "/kai-vfs/"
"""Below it, where nothing is, ``access`` is asked for ``enter/METHOD`` and ``leave/METHOD``."""

_BY_FD = {"write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate", "fchmod", "fchown"}
_BY_FD |= {"copy_file_range", "sendfile", "splice", "fsetxattr", "fremovexattr", "mmap", "ioctl"}
_BY_NAME = {"open", "openat", "openat2", "creat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir"}
_BY_NAME |= {"mkdirat", "rmdir", "link", "linkat", "symlink", "symlinkat", "mknod", "mknodat", "chmod", "fchmodat"}
_BY_NAME |= {"fchmodat2", "chown", "lchown", "fchownat", "truncate", "utime", "utimes", "utimensat", "futimesat"}
_BY_NAME |= {"setxattr", "lsetxattr", "removexattr", "lremovexattr"}
_SYNCS = {"fsync", "fdatasync", "syncfs", "sync_file_range"}
TRACED = ",".join(f"?{name}" for name in sorted(_BY_FD | _BY_NAME | _SYNCS | {"access"}))

_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+|0x[0-9a-f]+|\?)")
_FD = re.compile(r"(?:\d+|AT_FDCWD)<([^>]*)>(?:\(deleted\))?")
_STRING = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>(?:\(deleted\))?, )?"((?:[^"\\]|\\.)*)"')
_WRITING = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC)")
_CHANGING = {
    **dict.fromkeys(("open", "openat", "openat2"), _WRITING),
    "mmap": re.compile(r"PROT_WRITE.*MAP_SHARED"),
    "ioctl": re.compile(r"FICLONE|FS_IOC_SETFLAGS|FS_IOC_FSSETXATTR"),
}
"""What such a call says if it changes anything."""


@dataclass(frozen=True)
class Change:
    """A system call that changes what is below a root, or syncs it."""

    call: str
    path: str
    inside: str
    """The outermost method of Vfs that it was made in; empty for none."""

    @property
    def is_sync(self) -> bool:
        return self.call in _SYNCS


def changes(trace: Path, roots: list[str]) -> Iterator[Change]:
    """What each thread (a file ``TRACE.TID`` of ``strace -ff -y``) changed below the roots."""
    for each in sorted(trace.parent.glob(trace.name + ".*")):
        within: list[str] = []
        for line in each.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            if (match := _CALL.match(line)) is None:
                continue
            call, words, result = match.groups()
            if call == "access":
                _follow(within, words)
            elif not result.startswith("-"):
                for path in paths(call, words):
                    if any(path == root or path.startswith(root + "/") for root in roots):
                        yield Change(call, path, within[0] if within else "")


def _follow(within: list[str], words: str) -> None:
    if words.startswith(f'"{MARK}'):
        what, _, name = words[len(MARK) + 1 :].partition('"')[0].partition("/")
        if what == "enter":
            within.append(name)
        else:
            assert within.pop() == name


def paths(call: str, words: str) -> list[str]:
    """What a call changes or syncs."""
    if (wanted := _CHANGING.get(call)) is not None and not wanted.search(words):
        return []
    if call in {"copy_file_range", "splice"}:
        return _FD.findall(words)[-1:]  # they name the source first
    if call in _SYNCS | _BY_FD:
        return _FD.findall(words)[:1]
    named = [os.path.normpath(os.path.join(at, _plain(name))) for at, name in _STRING.findall(words)]
    if call in {"symlink", "symlinkat"}:
        return named[1:] or named
    return named or _FD.findall(words)[:1]  # utimensat of a descriptor has no name


def _plain(name: str) -> str:
    return name.encode("latin-1", "backslashreplace").decode("unicode_escape")


# ------------------------------------------------------------ the command that is watched


def mark_calls() -> Callable[[], bool]:
    """Let each public method of Vfs say when it begins and ends; whether the caller is within one."""
    import threading

    from kaivc.vfs import Vfs

    here = threading.local()

    def marked(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(real)
        def call(*args: Any, **words: Any) -> Any:
            here.depth = getattr(here, "depth", 0) + 1
            os.access(f"{MARK}enter/{name}", os.F_OK)
            try:
                return real(*args, **words)
            finally:
                os.access(f"{MARK}leave/{name}", os.F_OK)
                here.depth -= 1

        return call

    for name, value in list(vars(Vfs).items()):
        if callable(value) and not name.startswith("_"):
            setattr(Vfs, name, marked(name, value))
    return lambda: getattr(here, "depth", 0) > 0


_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.chown"}
_EVENTS |= {"os.truncate", "os.utime", "os.setxattr", "os.removexattr", "os.mknod"}


def note_stacks(notes: Path, within: Callable[[], bool]) -> None:
    """Write down where Python itself changes a disk outside of Vfs: EVENT, PATH and the stack."""
    book = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writing = event == "open" and isinstance(args[2], int) and args[2] & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC)
        if (writing or event in _EVENTS) and not within():
            path = args[0] if isinstance(args[0], int) else os.path.abspath(os.fsdecode(args[0]))
            os.write(book, f"{event} {path}\n{''.join(traceback.format_stack(limit=8)[:-1])}\0".encode())

    sys.addaudithook(hook)


def _plant() -> None:
    """A mistake: a file of the home is written by hand."""
    from kaivc import repository

    real = repository.Repository.land

    def land(self: Any, *args: Any, **words: Any) -> Any:
        with open(os.path.join(self.layout.root, "planted"), "w", encoding="utf-8") as file:
            file.write("by hand")
        return real(self, *args, **words)

    repository.Repository.land = land  # type: ignore[method-assign]


def main() -> None:
    """Run a command line of kai, watched."""
    notes, *words = sys.argv[1:]
    note_stacks(Path(notes), mark_calls())
    if words[0] == "--plant":
        words.pop(0)
        _plant()
    from kaivc.cli.main import script

    sys.argv = ["kai", *words]
    script()


if __name__ == "__main__":
    main()
