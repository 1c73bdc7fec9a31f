"""Linked workspaces: directories elsewhere, as ``.kai/local.yaml`` names them.

A link is known by its path and by the inode that the directory had when it was linked: at an unmounted or moved one
another directory may stand, or none, and that must not be taken for an agent's files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kaivc import yamltext
from kaivc.errors import InvalidSettings, LinkLost, LockTimeout
from kaivc.layout import Layout
from kaivc.ports import Sleep
from kaivc.settings import Local, parse_local
from kaivc.vfs import Vfs

LOCK = ".local"
"""The name of the lock of local.yaml; no agent has a name that begins so."""
POLL = 0.01
TOO_MANY = "let some agents have workspaces of their own, or keep them in another home"


# ---------------------------------------------------------------- the directory


def standing(local: Local, name: str) -> str | None:
    """The linked workspace of an agent, None if it has none; LinkLost unless it is the directory that was linked."""
    path = local.workspaces.get(name)
    if path is None:
        return None
    why = _why_lost(path, local.inodes.get(name))
    if why:
        raise LinkLost(
            f"the workspace of {name} is linked to {path}, and {why}",
            unchanged="nothing was written",
            hint=f"bring it back (mount it, move it back), or link another with `kai agent link {name} DIR`",
            agent=name,
            path=path,
        )
    return path


def _why_lost(path: str, inode: int | None) -> str:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return "that is not there"
    except OSError as error:
        return f"that cannot be reached: {error.strerror}"
    if stat.S_ISLNK(status.st_mode):
        return "that is a symbolic link now"
    if not stat.S_ISDIR(status.st_mode):
        return "that is no directory now"
    if inode is not None and status.st_ino != inode:
        return "that is another directory now than the one that was linked"
    return ""


# ---------------------------------------------------------------- local.yaml


def known(layout: Layout) -> Local:
    """What ``local.yaml`` says now; InvalidSettings with file and line."""
    if not os.path.exists(layout.local):
        return Local()
    with open(layout.local, "rb") as file:
        return parse_local(file.read(), layout.local)


@contextmanager
def held(vfs: Vfs, layout: Layout, sleep: Sleep, wait: float) -> Iterator[None]:
    """Be the one that changes ``local.yaml``; LockTimeout after ``wait`` seconds."""
    vfs.make_dirs(layout.locks)
    fd, waited = vfs.lock(layout.lock(LOCK)), 0.0
    while fd is None:
        if waited >= wait:
            raise LockTimeout(f"another command is writing {layout.local}", hint="run the command again")
        sleep(POLL)
        waited += POLL
        fd = vfs.lock(layout.lock(LOCK))
    try:
        yield
    finally:
        os.close(fd)


def write(vfs: Vfs, layout: Layout, changes: Mapping[str, str | None]) -> None:
    """Note where linked workspaces lie; None forgets one. The file is held. InvalidSettings if they are too many."""
    if not os.path.exists(layout.local) and not any(changes.values()):
        return
    document: dict[str, object] = {}
    if os.path.exists(layout.local):
        with open(layout.local, "rb") as file:
            document = yamltext.values(yamltext.load(file.read(), layout.local, InvalidSettings))
    given = document.get("workspaces")
    links = dict(given) if isinstance(given, dict) else {}
    wanted = {name: it for name, it in links.items() if name not in changes}
    wanted |= {name: _entry(path) for name, path in changes.items() if path is not None}
    if wanted != links:
        document["workspaces"] = wanted
        vfs.replace(layout.local, yamltext.dump(document, layout.local, InvalidSettings, TOO_MANY))


def _entry(path: str) -> dict[str, object]:
    return {"path": path, "inode": os.stat(path).st_ino}
