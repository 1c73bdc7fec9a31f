"""All versions of an agent."""

from __future__ import annotations

from dataclasses import dataclass

from kaivc import versions as known
from kaivc.repository import Repository
from kaivc.versions import AgentVersion


@dataclass(frozen=True)
class VersionList:
    """Every version, lowest number first; ``current`` is the number in force."""

    agent: str
    current: str | None
    versions: tuple[AgentVersion, ...]


def versions(repo: Repository) -> VersionList:
    """List the versions of an agent."""
    oid = repo.current
    in_force = known.describe(repo, oid).version if oid else None
    return VersionList(repo.name, in_force, tuple(known.every(repo)))
