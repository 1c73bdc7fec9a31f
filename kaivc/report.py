"""What an audit found, as values: the doors show them, and two reports of the same home and clock are equal.

Ids and digests are in hex, versions as ``v1.2.3``, times in nanoseconds since 1970 UTC.
"""

from __future__ import annotations

from kaivc.findings import Finding
from kaivc.records import dataclass


@dataclass(frozen=True)
class Recheck:
    """A shell command of git, sqlite3 and coreutils, and exactly what it prints if the report is right.

    The commands of a report are to be run in the home, in order: the first ones of an agent prepare the others.
    """

    what: str
    command: str
    expected: str


@dataclass(frozen=True)
class VersionReport:
    """One version, recomputed from the stored bytes.

    ``*_stated`` is what the commit says, ``*_found`` what its files give, None where they cannot be read. ``objects``
    counts the tag, the commit, the trees and the files, each once; ``bytes`` is the sum of the files' sizes. ``view``
    says whether its directory is there, and was compared.
    """

    version: str
    tag: str
    commit: str | None
    tree: str | None
    parent: str | None
    parent_commit: str | None
    created: str | None
    author: str | None
    notes: str | None
    snapshot_type: str | None
    state_stated: str | None
    state_found: str | None
    config_stated: str | None
    config_found: str | None
    files: int
    objects: int
    bytes: int
    view: bool
    in_force: bool
    findings: tuple[Finding, ...]
    recheck: tuple[Recheck, ...]

    @property
    def ok(self) -> bool:
        """Whether it is what it says it is."""
        return not any(finding.is_damage for finding in self.findings)


@dataclass(frozen=True)
class MoveReport:
    """One move of ``current``, oldest first: when, who, why, from where, to where.

    ``digest`` is that of its op record; ``undoes`` names the move that it reverses, ``undone_by`` the undo that holds.
    """

    seq: int
    digest: str | None
    time_ns: int
    verb: str
    actor: str
    reason: str
    from_version: str | None
    to_version: str | None
    from_commit: str | None
    to_commit: str | None
    undoes: int | None
    undone_by: int | None
    backup: int | None
    op_id: str


@dataclass(frozen=True)
class AgentReport:
    """One agent: its chain of op records up to ``head``, its names, its moves, its versions.

    ``findings`` are those of no listed version; ``removed_ns`` is 0 while it lives.
    """

    agent: str
    removed_ns: int
    head: str
    ops: int
    packs: int
    objects: int
    bytes: int
    refs: tuple[tuple[str, str], ...]
    moves: tuple[MoveReport, ...]
    versions: tuple[VersionReport, ...]
    findings: tuple[Finding, ...]
    recheck: tuple[Recheck, ...]

    @property
    def every(self) -> tuple[Finding, ...]:
        """All findings, each once."""
        own = (*self.findings, *(finding for version in self.versions for finding in version.findings))
        return tuple(dict.fromkeys(own))

    @property
    def differences(self) -> tuple[Finding, ...]:
        """The findings by which something is lost or wrong."""
        return tuple(finding for finding in self.every if finding.is_damage)

    @property
    def ok(self) -> bool:
        """Whether all is as it should be."""
        return not self.differences


@dataclass(frozen=True)
class AuditReport:
    """A home, as of one moment: who looked, when, with which release, and what was found.

    ``scope`` is what was asked for, ``AGENT`` or ``AGENT@vX``, None for all; ``expected_head`` the head of the chain
    that was to be found in it. ``findings`` are of no agent.
    """

    home: str
    object_format: str
    time_ns: int
    actor: str
    kaivc: str
    scope: str | None
    expected_head: str | None
    agents: tuple[AgentReport, ...]
    findings: tuple[Finding, ...]

    @property
    def differences(self) -> tuple[Finding, ...]:
        """The findings by which something is lost or wrong."""
        own = (finding for finding in self.findings if finding.is_damage)
        return (*own, *(finding for agent in self.agents for finding in agent.differences))

    @property
    def ok(self) -> bool:
        """Whether all is as it should be."""
        return not self.differences
