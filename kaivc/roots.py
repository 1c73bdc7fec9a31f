"""The root of a workspace: which directories may be one, and the small texts that stand there."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from kaivc import manifest as manifests
from kaivc.errors import RefusedWorkspace, TooLarge, UnreadablePath
from kaivc.layout import KAI, Layout
from kaivc.manifest import MANIFEST, Manifest
from kaivc.trees import show

SMALL_TEXT = 1 << 20
WORKSPACE = "a workspace"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def refuse_root(path: str, layout: Layout, environ: Mapping[str, str], use: str = WORKSPACE) -> None:
    """Raise RefusedWorkspace for a directory that must not be an agent's workspace, or another ``use``."""
    real = os.path.realpath(path)
    user = os.path.realpath(environ["HOME"]) if environ.get("HOME") else None
    why = ""
    if use != WORKSPACE and _in_an_agent(real, layout):
        why = "it lies in an agent's directory"
    elif real in ("/", user) or (user and user.startswith(real + "/")):
        why = "it holds the user's home directory" if real != "/" else "it is the root of the system"
    elif (real + "/").startswith(os.path.realpath(layout.kai) + "/") or f"/{KAI}/" in real + "/":
        why = f"it lies in {KAI}"
    elif os.path.isdir(os.path.join(real, KAI)):
        why = "it holds a home of kaivc"
    if why:
        raise RefusedWorkspace(
            f"{show(os.fsencode(path))} cannot be {use}: {why}",
            unchanged="nothing was written",
            hint="use the directory that holds the agent's own files",
            path=show(os.fsencode(path)),
        )


def _in_an_agent(real: str, layout: Layout) -> bool:
    home = os.path.realpath(layout.root)
    if not real.startswith(home + "/"):
        return False
    agent = real.removeprefix(home + "/").split("/", 1)[0]
    return os.path.isdir(layout.versions(agent))


def open_root(root: bytes) -> int:
    """A descriptor of a workspace; UnreadablePath otherwise."""
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UnreadablePath(
            f"the workspace {show(root)} cannot be read: {error.strerror}",
            hint="`kai restore` brings the files of the version in force back",
            path=show(root),
        ) from error


def read_small(root: int, name: bytes) -> bytes | None:
    """A small text at the root of a workspace; None if it is not there as a plain file."""
    try:
        fd = os.open(name, _READ, dir_fd=root)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadablePath(f"{show(name)} cannot be read: {error.strerror}", path=show(name)) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_size > SMALL_TEXT:
            raise TooLarge(f"{show(name)} has {status.st_size} bytes; at most {SMALL_TEXT} are read", path=show(name))
        return os.pread(fd, SMALL_TEXT, 0)
    finally:
        os.close(fd)


def live_manifest(root: int) -> Manifest:
    """The manifest as it stands in a workspace."""
    data = read_small(root, MANIFEST)
    return manifests.DEFAULT if data is None else manifests.parse(data, MANIFEST.decode())
