"""Forget a remote."""

from __future__ import annotations

from kaivc import landing, remotelist
from kaivc.landing import Arrival
from kaivc.records import dataclass
from kaivc.repository import OpenHome, Repository


@dataclass(frozen=True)
class RemoteRemoved:
    """What was forgotten: the remote, and how many refs that said what it has."""

    name: str
    url: str
    refs: int


def remote_remove(home: OpenHome, name: str) -> RemoteRemoved:
    """Forget a remote, where its refs were, and how far its logs had come; NoSuchRemote otherwise.

    Versions that came from it stay.
    """
    home.require_writable()
    remotelist.find(home, name)
    refs = sum(_forget(home.repository(agent), name) for agent in home.catalog.agent_names())
    found = remotelist.change(home, name, None)
    return RemoteRemoved(name, remotelist.shown(found.url), refs)


def _forget(repo: Repository, name: str) -> int:
    tracked = repo.refs(f"refs/remotes/{name}/")
    if tracked:
        reason = f"remote {name} is removed"
        updates = landing.updates_of([(ref, oid, None) for ref, oid in tracked.items()], repo.home.actor, reason)
        arrival = Arrival("fetch", repo.new_op_id(), repo.home.actor, reason, updates)
        landing.land(repo, None, arrival, {}, None)
    return len(tracked)
