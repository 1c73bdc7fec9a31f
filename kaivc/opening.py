"""How a door opens a home: where it lies, what is set, who acts. The environment and the clock are read here."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping

from kaivc import settings as configuration
from kaivc.errors import InvalidName, NoSuchHome, UnreadablePath
from kaivc.layout import Layout, find_home
from kaivc.names import Actor
from kaivc.ports import Clock, Progress
from kaivc.repository import OpenHome
from kaivc.settings import Layer, Local, Settings
from kaivc.storage.catalog import Catalog
from kaivc.vfs import Vfs

USER_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Where the name of a user stands, as `getpass` looks for it."""
MAX_CONFIGURATION = 16 << 20
"""Bytes of a configuration that are read before it is refused."""


class SystemClock:
    """The machine's wall clock."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""
        return time.time_ns()


def layout_at(path: str | os.PathLike[str]) -> Layout:
    """The home at a path or above it; NoSuchHome otherwise."""
    root = find_home(os.fspath(path))
    if root is None:
        raise NoSuchHome(
            f"there is no home at {os.path.abspath(path)} or above",
            hint="make one with `kai init DIR`, or name it with --home or KAI_HOME",
            path=os.path.abspath(path),
        )
    return Layout(root)


def temp_of(environ: Mapping[str, str]) -> str:
    """Where scratch goes that a home does not take."""
    return environ.get("TMPDIR") or "/tmp"  # noqa: S108 - only private directories are made in it


def assemble(
    layout: Layout,
    catalog: Catalog,
    merged: Settings,
    vfs: Vfs,
    environ: Mapping[str, str],
    actor: Actor | None,
    clock: Clock | None,
    progress: Progress,
) -> OpenHome:
    """The home with all that a door hands in."""
    return OpenHome(
        layout=layout,
        catalog=catalog,
        settings=merged,
        local=local_of(layout),
        vfs=vfs,
        clock=clock or SystemClock(),
        sleep=time.sleep,
        actor=actor or actor_of(environ, merged),
        environ=environ,
        progress=progress,
        temp=temp_of(environ),
    )


def read_configuration(path: str) -> bytes | None:
    """The bytes of a configuration, None if there is none; UnreadablePath otherwise."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would keep us waiting
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnreadablePath(f"{path} is no plain file", hint="put a file there, or nothing", path=path)
            return file.read(MAX_CONFIGURATION)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadablePath(
            f"{path} cannot be read: {error.strerror}", hint="check its permissions", path=path
        ) from error


def merged_settings(layout: Layout, environ: Mapping[str, str], flags: Mapping[str, str]) -> Settings:
    """What is set: the user's, the home's, and the flags over both."""
    return Settings.layered(*layers_of(layout, environ, flags))


def layers_of(layout: Layout, environ: Mapping[str, str], flags: Mapping[str, str]) -> list[Layer]:
    """The same, layer by layer, the nearest last."""
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    layers: list[Layer] = []
    for path in (os.path.join(base, "kai", "config.yaml"), layout.config):
        data = read_configuration(path)
        if data is not None:
            layers.append(configuration.parse(data, path))
    if flags:
        layers.append(configuration.parse_flags(flags))
    return layers


def local_of(layout: Layout) -> Local:
    """What holds on this machine only."""
    data = read_configuration(layout.local)
    return Local() if data is None else configuration.parse_local(data, layout.local)


def actor_of(environ: Mapping[str, str], merged: Settings) -> Actor:
    """Who acts, unless it is said: KAI_AUTHOR, what is set, or the user."""
    if environ.get("KAI_AUTHOR"):
        return Actor.parse(environ["KAI_AUTHOR"])
    if merged.author is not None:
        return merged.author
    user = next(filter(None, map(environ.get, USER_VARIABLES)), None) or _user()
    try:
        return Actor.parse(f"{user} <{user}@{os.uname().nodename or 'localhost'}>")
    except InvalidName:
        return Actor("unknown", "unknown@localhost")


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"
