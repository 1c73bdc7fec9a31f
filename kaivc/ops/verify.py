"""Re-hash what a version is made of."""

from __future__ import annotations

from kaivc import inspection, revisions, versions
from kaivc.drift import drifted
from kaivc.errors import ChecksumMismatch, InvalidName
from kaivc.findings import Finding
from kaivc.names import Version, version_ref
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.versions import AgentVersion
from kaivc.walk import Root, Walk


@dataclass(frozen=True)
class Verified:
    """What was re-hashed, and what was found."""

    agent: str
    versions: tuple[str, ...]
    objects: int
    bytes: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(repo: Repository, rev: str | None = None, *, workspace: bool = False) -> Verified:
    """Re-hash every object of a version (of all, for None), and its view if there is one.

    With ``workspace``, also compare the workspace's logic, config and lock files with ``current``.
    """
    names = [number.tag for number in versions.numbers(repo)] if rev is None else [rev]
    walk = Walk(repo)
    found: list[Finding] = []
    for name in names:
        found += _one(repo, walk, name)
    found = walk.findings() + found
    if workspace:
        found += drifted(repo)
    return Verified(repo.name, tuple(names), len(walk.reached), walk.size, tuple(found))


def _one(repo: Repository, walk: Walk, rev: str) -> list[Finding]:
    """Follow one version; what cannot be read is a finding, not an error."""
    try:
        version = revisions.resolve(repo, rev)
    except ChecksumMismatch as error:
        return _unresolved(repo, walk, rev, error)
    return _followed(repo, walk, version)


def _followed(repo: Repository, walk: Walk, version: AgentVersion) -> list[Finding]:
    if version.version is None:
        walk.commit(version.tag, version.oid)
        return []
    name = version_ref(repo.name, Version.parse(version.version))
    tag = repo.ref(name)
    if tag is None:
        walk.commit(version.tag, version.oid)
    else:
        walk.root(Root(version.tag, name, tag))
    return _view(repo, walk, version)


def _view(repo: Repository, walk: Walk, version: AgentVersion) -> list[Finding]:
    """The view of a version, unless what it is compared with is damaged itself."""
    if any(version.tag in finding.versions for finding in walk.findings()):
        return []
    return inspection.view(repo, version)


def _unresolved(repo: Repository, walk: Walk, rev: str, error: ChecksumMismatch) -> list[Finding]:
    """What cannot be read as a version may still be followed as far as it goes."""
    try:
        name = version_ref(repo.name, Version.parse(rev))
        tag = repo.ref(name)
    except (ChecksumMismatch, InvalidName):
        return [Finding("store", error.what, repo.name, (rev,))]
    if tag is not None:
        walk.root(Root(name.rpartition("/")[2], name, tag))
    return [] if walk.findings() else [Finding("store", error.what, repo.name, (rev,))]
