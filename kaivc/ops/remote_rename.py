"""Give a remote another name."""

from __future__ import annotations

from kaivc import landing, remotelist
from kaivc.landing import Arrival
from kaivc.names import check_name
from kaivc.records import dataclass
from kaivc.repository import OpenHome, Repository


@dataclass(frozen=True)
class RemoteRenamed:
    """What it was called, what it is called now, and how many refs went along."""

    former: str
    name: str
    url: str
    refs: int


def remote_rename(home: OpenHome, old: str, new: str) -> RemoteRenamed:
    """Rename a remote with all that is known of it; NoSuchRemote, NameTaken or InvalidName otherwise."""
    home.require_writable()
    check_name("remote", new)
    found = remotelist.change(home, old, new)
    refs = sum(_rename(home.repository(agent), old, new) for agent in home.catalog.agent_names())
    return RemoteRenamed(old, new, remotelist.shown(found.url), refs)


def _rename(repo: Repository, old: str, new: str) -> int:
    before, after = f"refs/remotes/{old}/", f"refs/remotes/{new}/"
    tracked = repo.refs(before)
    if tracked:
        reason = f"remote {old} is {new} now"
        moves: list[tuple[str, bytes | None, bytes | None]] = []
        for ref, oid in tracked.items():
            moves += [(ref, oid, None), (after + ref.removeprefix(before), None, oid)]
        updates = landing.updates_of(moves, repo.home.actor, reason)
        landing.land(repo, None, Arrival("fetch", repo.new_op_id(), repo.home.actor, reason, updates), {}, None)
    return len(tracked)
