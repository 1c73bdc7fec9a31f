"""The history of a version."""

from __future__ import annotations

from itertools import islice

from kaivc import revisions, versions
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.versions import AgentVersion


@dataclass(frozen=True)
class History:
    """A version and those before it, newest first; ``more`` if the limit cut it."""

    agent: str
    current: str | None
    versions: tuple[AgentVersion, ...]
    more: bool


def log(repo: Repository, rev: str = "current", *, limit: int | None = None) -> History:
    """The version that ``rev`` names and its parents."""
    first = revisions.resolve(repo, rev)
    found = [first, *islice(versions.ancestors(repo, first), limit)]
    cut = limit is not None and len(found) > limit
    in_force = repo.current
    return History(repo.name, in_force.hex() if in_force else None, tuple(found[:limit]), cut)
