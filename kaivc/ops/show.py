"""What one version says and holds."""

from __future__ import annotations

import os

from kaivc import retention, revisions, trees, versions
from kaivc.errors import hit
from kaivc.manifest import FileClass
from kaivc.names import Version, version_ref
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.versions import AgentVersion


@dataclass(frozen=True)
class Shown:
    """A version, its tag, its files by class, and (letter, path) of what differs from its parent."""

    version: AgentVersion
    tag: str | None
    in_force: bool
    files: int
    bytes: int
    classes: dict[str, int]
    changes: tuple[tuple[str, str], ...]


def show(repo: Repository, rev: str = "current") -> Shown:
    """Describe the version that ``rev`` names."""
    version = revisions.resolve(repo, rev)
    with retention.reading(repo, version), hit(f"{version.tag} of {repo.name}", agent=repo.name, version=version.tag):
        return _show(repo, version)


def _show(repo: Repository, version: AgentVersion) -> Shown:
    files = trees.flatten(repo.store, version.tree_oid)
    manifest = versions.manifest_of(repo, version.tree_oid)
    classes = {kind.value: 0 for kind in FileClass}
    for path in files:
        classes[manifest.file_class(path).value] += 1
    tag = repo.ref(version_ref(repo.name, Version.parse(version.version))) if version.version else None
    with hit("its parent"):
        parent = versions.parent(repo, version)
    changes = trees.diff(repo.store, parent.tree_oid if parent else None, version.tree_oid)
    return Shown(
        version,
        tag.hex() if tag else None,
        repo.current == version.oid,
        len(files),
        sum(repo.store.size(entry.oid) for entry in files.values()),
        classes,
        tuple((change.status, os.fsdecode(change.path)) for change in changes),
    )
