"""A home in a directory of this machine."""

from __future__ import annotations

from kaivc.access import UserAccess
from kaivc.remotes.base import Context
from kaivc.remotes.homes import HomeRemote
from kaivc.serving import FarHome
from kaivc.wire import Far


class _Opened(FarHome):
    """A home that was opened for this."""

    def close(self) -> None:
        """Close its catalog."""
        self._home.catalog.close()


def connect(context: Context, path: str) -> HomeRemote:
    """The home at ``path``; NoSuchHome if there is none."""

    def far() -> Far:
        home = context.open_home(path)
        return _Opened(home, UserAccess(home))

    return HomeRemote(context, far)
