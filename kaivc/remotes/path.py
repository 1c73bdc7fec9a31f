"""A home in a directory of this machine."""

from __future__ import annotations

from kaivc.names import Actor
from kaivc.remotes.base import Context
from kaivc.remotes.homes import HomeRemote
from kaivc.repository import OpenHome
from kaivc.serving import FarHome
from kaivc.wire import Far


class Mine:
    """Whoever can open the directory: what the system lets them do is what they may."""

    name = "path"

    def __init__(self, home: OpenHome) -> None:
        self._home = home

    def actor(self, said: str) -> Actor:
        """Who goes into the log."""
        return Actor.parse(said)

    def may_read(self, agent: str) -> bool:  # noqa: ARG002 - the system has let them open the home
        """Whether an agent may be read."""
        return True

    def require(self, agent: str, acts: frozenset[str]) -> None:  # noqa: ARG002 - as above
        """Raise ReadOnlyHome where nothing can be written."""
        self._home.require_writable()


def connect(context: Context, path: str) -> HomeRemote:
    """The home at ``path``; NoSuchHome if there is none."""

    def far() -> Far:
        home = context.open_home(path)
        return FarHome(home, Mine(home))

    return HomeRemote(context, far)
