"""Make a home of what a remote has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kaivc import remotelist, versions
from kaivc.errors import HomeExists, KaiError, NoSuchAgent, NoVersionYet
from kaivc.names import nearest
from kaivc.records import dataclass
from kaivc.remotes.base import Remote
from kaivc.remotes.tracking import make_agent
from kaivc.repository import OpenHome


@dataclass(frozen=True)
class ClonedAgent:
    """One agent as it came: the version in force, how many versions, and how many objects."""

    agent: str
    current: str | None
    versions: int
    objects: int


@dataclass(frozen=True)
class Cloned:
    """A new home; ``empty`` are agents over there that have no version, and so did not come."""

    path: str
    remote: str
    url: str
    object_format: str
    agents: tuple[ClonedAgent, ...]
    empty: tuple[str, ...]


def clone(
    far: Remote, url: str, make: Callable[[str], OpenHome], *, agents: Sequence[str] = (), remote: str = "origin"
) -> Cloned:
    """Bring some agents of a remote, or all, into a home that ``make`` makes in its object format.

    The home is there as soon as one agent is; an agent is there whole or not at all. NoSuchAgent before anything is
    made.
    """
    there = far.agents()
    for name in agents:
        if name not in there:
            close = nearest(name, list(there))
            hint = f"did you mean {', '.join(close)}?" if close else f"there are: {', '.join(there[:10])}"
            raise NoSuchAgent(f"there is no agent {name!r:.100} at {url}", unchanged="nothing was made", hint=hint)
    object_format = far.object_format
    try:
        home = make(object_format)
    except HomeExists as error:
        error.hint = "a clone that was cut goes on there with `kai pull AGENT`; `kai fetch` says which are missing"
        raise
    remotelist.add(home, remote, url)
    done: list[ClonedAgent] = []
    empty: list[str] = []
    wanted = list(dict.fromkeys(agents or there))
    for name in wanted:
        try:
            done.append(_bring(home, far, remote, name))
        except NoVersionYet:
            if agents:
                raise
            empty.append(name)
        except KaiError as error:
            error.unchanged = f"{home.layout.root} is there, with {len(done)} of {len(wanted)} agents"
            error.hint = f"{error.hint}; then `kai pull {name} {remote}` there goes on".removeprefix("; then ")
            raise
    return Cloned(home.layout.root, remote, remotelist.shown(url), object_format, tuple(done), tuple(empty))


def _bring(home: OpenHome, far: Remote, remote: str, name: str) -> ClonedAgent:
    done = make_agent(home, remote, far, name, "clone", f"clone from {remote}")
    repo = home.repository(name)
    oid = repo.current
    current = versions.describe(repo, oid).tag if oid is not None else None
    return ClonedAgent(name, current, len(versions.numbers(repo)), done.objects)
