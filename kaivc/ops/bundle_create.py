"""Put agents into one file that can be carried."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kaivc import bundles, revisions
from kaivc.bundles import Part
from kaivc.errors import InvalidName, NoVersionYet
from kaivc.records import dataclass
from kaivc.repository import OpenHome


@dataclass(frozen=True)
class BundledAgent:
    """One agent in a bundle; ``since`` is the commit that whoever takes it in must have, None for all of it."""

    agent: str
    current: str
    versions: int
    records: int
    seq: int
    since: str | None


@dataclass(frozen=True)
class Bundled:
    """A bundle that was made; ``size`` in bytes."""

    path: str
    size: int
    agents: tuple[BundledAgent, ...]


def bundle_create(home: OpenHome, path: str, agents: Sequence[str] = (), since: str | None = None) -> Bundled:
    """Write a bundle of some agents, or of all that have a version; ``since`` is a revision that the other side has.

    The file appears whole, or not at all; one that is there already is replaced.
    """
    names = list(agents) or [name for name in home.catalog.agent_names() if home.repository(name).current is not None]
    if since is not None and len(names) != 1:
        raise InvalidName("--since is of one agent", unchanged="nothing was written", hint="name the agent")
    parts = []
    for name in names:
        repo = home.repository(name)
        repo.require_live()
        if repo.current is None:
            raise NoVersionYet(f"agent {name} has no version yet", hint=f"make one with `kai commit {name}`")
        have = (revisions.resolve(repo, since).oid,) if since is not None else ()
        parts.append(Part(repo, have))
    if not parts:
        raise NoVersionYet("no agent here has a version", unchanged="nothing was written", hint="commit one first")
    whole = os.path.abspath(path)
    size = _write(home, whole, parts)
    with open(whole, "rb") as file:
        found = bundles.read(whole, file)
    done = tuple(
        BundledAgent(
            it.head.agent,
            it.head.refs[f"refs/heads/{it.head.agent}/current"].hex(),
            sum(ref.startswith("refs/tags/") for ref in it.head.refs),
            it.offer.records,
            it.head.seq,
            it.needs[0].hex() if it.needs else None,
        )
        for it in found.sections
    )
    return Bundled(whole, size, done)


def _write(home: OpenHome, path: str, parts: list[Part]) -> int:
    temporary = f"{path}.new-{os.urandom(4).hex()}"
    fd = home.vfs.create(temporary)
    try:
        size = bundles.write(parts, lambda piece: home.vfs.write(fd, piece))
        home.vfs.sync(fd)
        home.vfs.rename(temporary, path)
        home.vfs.sync_dir(os.path.dirname(path))
    except BaseException:
        home.vfs.unlink(temporary, missing_ok=True)
        raise
    finally:
        home.vfs.close(fd)
    return size
