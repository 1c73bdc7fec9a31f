"""Re-hash what a version is made of."""

from __future__ import annotations

import os
from dataclasses import dataclass

from kaivc import trees, versions
from kaivc.drift import Finding, drifted
from kaivc.errors import ChecksumMismatch, KaiError
from kaivc.manifest import FileClass
from kaivc.names import ObjectId, Version, version_ref
from kaivc.repository import Repository
from kaivc.storage.gitobjects import DIRECTORY, Entry
from kaivc.versions import AgentVersion
from kaivc.views import View


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
    verifier = _Verifier(repo)
    for name in names:
        verifier.version(name)
    if workspace:
        verifier.findings += drifted(repo)
    return Verified(repo.name, tuple(names), len(verifier.seen), verifier.bytes, tuple(verifier.findings))


class _Verifier:
    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self.seen: dict[ObjectId, str | None] = {}
        self.bytes = 0
        self.findings: list[Finding] = []

    def version(self, rev: str) -> None:
        """Check one version; what cannot be read is a finding, not an error."""
        before = len(self.findings)
        try:
            version = self._resolve(rev)
        except ChecksumMismatch as error:
            self.findings.append(Finding("store", rev, None, error.what))
            return
        if not self._object(version.oid, version.tag, None):
            return
        self._tree(version, version.tree_oid, b"")
        if len(self.findings) == before:
            self._checksums(version)
            self._view(version)

    def _resolve(self, rev: str) -> AgentVersion:
        version = versions.resolve(self._repo, rev)
        if version.version is not None:
            tag = self._repo.ref(version_ref(self._repo.name, Version.parse(version.version)))
            if tag is not None:
                self._object(tag, version.tag, None)
        return version

    def _object(self, oid: ObjectId, tag: str, path: bytes | None) -> bool:
        if oid not in self.seen:
            self.seen[oid] = self._problem(oid)
            self._repo.home.progress("verifying", len(self.seen), None)
        problem = self.seen[oid]
        if problem is not None:
            self.findings.append(Finding("store", tag, None if path is None else os.fsdecode(path), problem))
        return problem is None

    def _problem(self, oid: ObjectId) -> str | None:
        try:
            self._repo.store.check(oid)
            self.bytes += self._repo.store.size(oid)
        except KaiError as error:
            return error.what
        return None

    def _tree(self, version: AgentVersion, oid: ObjectId, prefix: bytes) -> None:
        if not self._object(oid, version.tag, prefix or None):
            return
        for name, entry in self._entries(version, oid, prefix):
            if entry.mode == DIRECTORY:
                self._tree(version, entry.oid, prefix + name + b"/")
            else:
                self._object(entry.oid, version.tag, prefix + name)

    def _entries(self, version: AgentVersion, oid: ObjectId, prefix: bytes) -> list[tuple[bytes, Entry]]:
        try:
            return self._repo.store.tree(oid)
        except ChecksumMismatch as error:
            self.findings.append(Finding("store", version.tag, os.fsdecode(prefix), error.what))
            return []

    def _checksums(self, version: AgentVersion) -> None:
        files = trees.flatten(self._repo.store, version.tree_oid)
        try:
            manifest = versions.manifest_of(self._repo, version.tree_oid)
        except KaiError as error:
            self.findings.append(Finding("store", version.tag, "kai.yaml", error.what))
            return
        stated = {FileClass.STATE: version.agent_state_checksum, FileClass.CONFIG: version.config_checksum}
        for kind, checksum in stated.items():
            found = versions.checksum(files, manifest, kind)
            if found != checksum:
                problem = f"the commit states {kind.value} checksum {checksum}, its files give {found}"
                self.findings.append(Finding("store", version.tag, None, problem))

    def _view(self, version: AgentVersion) -> None:
        if version.version is None:
            return
        view = View(self._repo, version)
        if view.exists():
            for problem in view.check(full=True):
                self.findings.append(Finding("view", version.tag, problem.path, problem.what))
