"""List the remotes of a home."""

from __future__ import annotations

from kaivc import remotelist
from kaivc.records import dataclass
from kaivc.repository import OpenHome


@dataclass(frozen=True)
class ListedRemote:
    """A remote; ``seen`` is how far the log of each agent had come when it was last looked at."""

    name: str
    url: str
    is_git: bool
    seen: dict[str, int]


@dataclass(frozen=True)
class RemoteList:
    """All remotes, by name."""

    remotes: tuple[ListedRemote, ...]


def remote_list(home: OpenHome) -> RemoteList:
    """The remotes, and what is known of each without asking it."""
    agents = home.catalog.agent_names()
    found = []
    for it in remotelist.known(home).values():
        notes = {agent: remotelist.seen(home, it.name, agent) for agent in agents}
        seen = {agent: note.seq for agent, note in notes.items() if note is not None}
        found.append(ListedRemote(it.name, remotelist.shown(it.url), remotelist.is_git(it.url), seen))
    return RemoteList(tuple(found))
