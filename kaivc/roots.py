"""The root of a workspace: which directories may be one, and the small texts that stand there."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from kaivc import manifest as manifests
from kaivc.errors import RefusedWorkspace, TooLarge, UnreadablePath
from kaivc.layout import KAI, Layout, find_home
from kaivc.manifest import MANIFEST, Manifest
from kaivc.trees import show

SMALL_TEXT = 1 << 20
WORKSPACE = "a workspace"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def refuse_root(path: str, layout: Layout, environ: Mapping[str, str], use: str = WORKSPACE) -> None:
    """Raise RefusedWorkspace for a directory that must not be an agent's workspace, or another ``use``."""
    if not path:  # as an unset variable of a shell gives it: not the working directory
        raise RefusedWorkspace(
            "an empty path names no directory",
            unchanged="nothing was written",
            hint="'.' is the working directory",
        )
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


def refuse_link(layout: Layout, others: Mapping[str, str], environ: Mapping[str, str], directory: str) -> str:
    """The real path of a directory that may be linked; RefusedWorkspace otherwise.

    ``others`` are the linked workspaces of other agents.
    """
    refuse_root(directory, layout, environ)
    real = os.path.realpath(directory)
    why = _why_refused(layout, others, real)
    if why:
        raise RefusedWorkspace(
            f"{show(os.fsencode(directory))} cannot be linked: {why}",
            unchanged="nothing was written",
            hint="use the directory that holds the agent's own files",
            path=show(os.fsencode(directory)),
        )
    return real


def _why_refused(layout: Layout, others: Mapping[str, str], real: str) -> str:
    home = os.path.realpath(layout.root)
    why = ""
    if not os.path.isdir(real):
        why = "it is no directory"
    elif os.stat(real).st_dev != os.stat(layout.kai).st_dev:
        why = "it lies on another disk than the home, so that files cannot be renamed into it"
    elif not real.isprintable() or not _is_utf8(real):
        why = "its path holds control characters, or is not UTF-8"
    elif (real + "/").startswith(home + "/"):
        why = "it lies in the home"
    elif (home + "/").startswith(real + "/"):
        why = "the home lies in it"
    elif above := find_home(real):
        why = f"it lies in the home {show(os.fsencode(above))}"
    elif other := next((it for it, path in others.items() if _overlap(real, os.path.realpath(path))), None):
        why = f"it holds, lies in or is the workspace of {other}"
    elif below := _home_below(real):
        why = f"the home {show(below)} lies in it"
    return why


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _overlap(one: str, two: str) -> bool:
    return (one + "/").startswith(two + "/") or (two + "/").startswith(one + "/")


def _home_below(root: str) -> bytes | None:
    """A home somewhere below a directory; ``.git`` is not looked into."""
    for path, names, _ in os.walk(os.fsencode(root)):
        if KAI.encode() in names:
            return path
        names[:] = [name for name in names if name != b".git"]
    return None


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
            hint="look whether it is there, and this user may read it; `kai restore` makes an agent's own anew",
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
