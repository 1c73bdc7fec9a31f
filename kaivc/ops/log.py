"""The history of a version."""

from __future__ import annotations

from dataclasses import dataclass

from kaivc import revisions, versions
from kaivc.names import ObjectId
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
    found: list[AgentVersion] = [revisions.resolve(repo, rev)]
    while found[-1].parent_commit is not None and (limit is None or len(found) <= limit):
        found.append(versions.describe(repo, ObjectId(bytes.fromhex(found[-1].parent_commit))))
    cut = limit is not None and len(found) > limit
    in_force = repo.current
    return History(repo.name, in_force.hex() if in_force else None, tuple(found[:limit]), cut)
