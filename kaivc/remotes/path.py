"""A home in a directory of this machine."""

from __future__ import annotations

from kaivc.access import UserAccess
from kaivc.remotes.base import Context
from kaivc.remotes.homes import HomeRemote
from kaivc.serving import FarHome
from kaivc.wire import Far


def connect(context: Context, path: str) -> HomeRemote:
    """The home at ``path``; NoSuchHome if there is none."""

    def far() -> Far:
        home = context.open_home(path)
        return FarHome(home, UserAccess(home))

    return HomeRemote(context, far)
