"""All versions of an agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from kaivc import versions as known
from kaivc.errors import ChecksumMismatch
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.versions import AgentVersion, DamagedVersion


@dataclass(frozen=True)
class VersionList(Sequence[AgentVersion]):
    """The versions that can be read, lowest number first, as a sequence; ``current`` is the number in force.

    ``damaged`` are those that cannot: what damage hits one does not hide the others.
    """

    agent: str
    current: str | None
    versions: tuple[AgentVersion, ...]
    damaged: tuple[DamagedVersion, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every version can be read."""
        return not self.damaged

    def __len__(self) -> int:
        return len(self.versions)

    @overload
    def __getitem__(self, at: int) -> AgentVersion: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[AgentVersion, ...]: ...

    def __getitem__(self, at: int | slice) -> AgentVersion | tuple[AgentVersion, ...]:
        return self.versions[at]


def versions(repo: Repository) -> VersionList:
    """List the versions of an agent; what cannot be read is listed as damaged, not raised."""
    good, bad = known.every(repo)
    return VersionList(repo.name, _in_force(repo, bad), tuple(good), tuple(bad))


def _in_force(repo: Repository, bad: list[DamagedVersion]) -> str | None:
    oid = repo.current
    if oid is None:
        return None
    try:
        return known.describe(repo, oid).version
    except ChecksumMismatch:
        return next((it.version for it in bad if it.commit == oid.hex()), None)
