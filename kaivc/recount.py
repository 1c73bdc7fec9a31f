"""Recompute one version from its stored bytes: what it says of itself, what its files give, how many there are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from kaivc import recheck, trees, versions
from kaivc.errors import KaiError
from kaivc.findings import Finding
from kaivc.manifest import FileClass, Manifest
from kaivc.names import ObjectId
from kaivc.report import VersionReport
from kaivc.repository import Repository
from kaivc.storage.gitobjects import DIRECTORY, Tag
from kaivc.trees import Files
from kaivc.versions import AgentVersion


def version(repo: Repository, label: str, oid: ObjectId, findings: Sequence[Finding]) -> VersionReport:
    """What can be recomputed of the version whose tag is ``oid``; what cannot be read is None, or 0."""
    tag: Tag | None = None
    it: AgentVersion | None = None
    files: Files = {}
    manifest: Manifest | None = None
    trees_seen: set[ObjectId] = set()
    sizes: dict[ObjectId, int] = {}
    with suppress(KaiError):
        tag = repo.store.tag(oid)
        it = versions.describe(repo, tag.target)
        files = trees.flatten(repo.store, it.tree_oid)
        trees_seen = set(_trees(repo, it.tree_oid))
        sizes = {entry.oid: repo.store.size(entry.oid) for entry in files.values()}
        manifest = versions.manifest_of(repo, it.tree_oid)
    in_force = False
    with suppress(KaiError):  # said of the ref
        in_force = tag is not None and repo.current == tag.target
    has_view = os.path.isdir(repo.layout.view(repo.name, label))
    sums = {} if manifest is None else {kind: versions.checksum(files, manifest, kind) for kind in FileClass}
    return VersionReport(
        version=label,
        tag=oid.hex(),
        commit=tag.target.hex() if tag else None,
        tree=it.tree if it else None,
        parent=f"v{it.parent}" if it and it.parent else None,
        parent_commit=it.parent_commit if it else None,
        created=it.created if it else None,
        author=it.author if it else None,
        notes=it.notes if it else None,
        snapshot_type=it.snapshot_type if it else None,
        state_stated=it.agent_state_checksum if it else None,
        state_found=sums.get(FileClass.STATE),
        config_stated=it.config_checksum if it else None,
        config_found=sums.get(FileClass.CONFIG),
        files=len(files),
        objects=len(trees_seen) + len(sizes) + (tag is not None) + (it is not None),
        bytes=sum(sizes.get(entry.oid, 0) for entry in files.values()),
        view=has_view,
        in_force=in_force,
        findings=tuple(findings),
        recheck=tuple(recheck.version(it, oid.hex(), tag, files, manifest, view=has_view))
        if it and tag and manifest
        else (),
    )


def _trees(repo: Repository, oid: ObjectId) -> Iterator[ObjectId]:
    yield oid
    for _, entry in repo.store.tree(oid):
        if entry.mode == DIRECTORY:
            yield from _trees(repo, entry.oid)
