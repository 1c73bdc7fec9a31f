"""Give a remote a name."""

from __future__ import annotations

import os

from kaivc import remotelist
from kaivc.records import dataclass
from kaivc.repository import OpenHome


@dataclass(frozen=True)
class RemoteNamed:
    """A remote: its name, its URL without secrets, and whether git's own protocol is spoken there."""

    name: str
    url: str
    is_git: bool


def remote_add(home: OpenHome, name: str, url: str) -> RemoteNamed:
    """Note a remote; nothing is asked of it yet. NameTaken, InvalidName or RefusedUrl otherwise.

    A path is kept whole, so that it means the same from everywhere.
    """
    home.require_writable()
    whole = os.path.abspath(url) if remotelist.is_path(remotelist.check_url(url)) else url
    found = remotelist.add(home, name, whole)
    return RemoteNamed(found.name, remotelist.shown(found.url), remotelist.is_git(found.url))
