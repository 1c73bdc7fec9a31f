"""Bring what a remote has, and note where its refs are."""

from __future__ import annotations

from collections.abc import Sequence

from kaivc import remotelist
from kaivc.errors import NoSuchAgent
from kaivc.names import check_name
from kaivc.records import dataclass
from kaivc.remotes import connect
from kaivc.remotes.base import Context
from kaivc.remotes.tracking import Fetched
from kaivc.remotes.tracking import fetch as fetch_one
from kaivc.repository import OpenHome


@dataclass(frozen=True)
class FetchedAll:
    """What was fetched of each agent; ``absent`` are agents over there that are not here, and never were."""

    remote: str
    url: str
    agents: tuple[Fetched, ...]
    absent: tuple[str, ...]


def fetch(home: OpenHome, context: Context, remote: str, agents: Sequence[str] = ()) -> FetchedAll:
    """Fetch some agents, or all that both sides have. Nothing moves but ``refs/remotes/``.

    Each agent is a transaction of its own: what an error leaves out, the next fetch brings.
    """
    home.require_writable()
    found = remotelist.find(home, remote)
    here = home.catalog.agent_names()
    for name in agents:
        if name not in here:
            home.repository(check_name("agent", name)).require_live()
    far = connect(context, found.url)
    try:
        there = far.agents()
        missing = [name for name in agents if name not in there]
        if missing:
            if remotelist.seen(home, remote, missing[0]) is not None:
                far.head(missing[0])  # says what became of it
            raise NoSuchAgent(
                f"there is no agent {missing[0]!r} at {remote}",
                unchanged="nothing was fetched",
                hint=f"`kai push {missing[0]} {remote}` makes it there",
                name=missing[0],
            )
        wanted = list(agents) or [name for name in there if name in here]
        known = {*here, *home.catalog.agent_names(removed=True)}
        absent = tuple(name for name in there if name not in known and home.catalog.renamed(name) is None)
        done = tuple(fetch_one(home.repository(name), remote, far) for name in wanted)
    finally:
        far.close()
    return FetchedAll(remote, remotelist.shown(found.url), done, absent)
