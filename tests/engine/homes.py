"""Small homes to test with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import kaivc
from kaivc.api import Agent, Home
from kaivc.vfs import Vfs

ENVIRON = {"KAI_AUTHOR": "Ann Example <ann@example.org>", "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
Files = dict[str, bytes]


class Ticking:
    """A clock that moves one second at each look."""

    def __init__(self, start: int = 1_790_000_000) -> None:
        self.seconds = start

    def now_ns(self) -> int:
        self.seconds += 1
        return self.seconds * 1_000_000_000


def open_home(path: Path, vfs: Vfs | None = None, **settings: str) -> Home:
    """The home at a path, with nothing from the machine."""
    flags = {key.replace("__", "."): value for key, value in settings.items()}
    return kaivc.open(path, environ=ENVIRON, clock=Ticking(), vfs=vfs, flags=flags)


def make_home(path: Path, object_format: str = "sha256", **settings: str) -> Home:
    """A new home."""
    kaivc.init(path, object_format).close()
    return open_home(path, None, **settings)


def write(root: Path, files: Files) -> None:
    """Make ``root`` hold exactly these files."""
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not os.listdir(path):
                path.rmdir()
        elif path.relative_to(root).as_posix() not in files:
            path.unlink()
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)


def read(root: Path) -> Files:
    """The plain files below ``root``."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def copy(home: Path, to: Path) -> None:
    """A copy of a home at rest; files that views share are files of their own in it."""
    if to.exists():
        remove(to)
    shutil.copytree(home, to, symlinks=True)


def remove(path: Path) -> None:
    """Remove a home, read-only views and all."""
    Vfs().remove_tree(str(path))


def commit(agent: Agent, files: Files, **words: str) -> str:
    """Write files and commit them; the version's number."""
    write(agent.workspace, files)
    version = agent.commit(**words).version  # type: ignore[arg-type]
    assert version is not None
    return version
