"""How far the released files of a workspace have drifted from ``current``."""

from __future__ import annotations

import os

from kaivc import trees, versions
from kaivc.capture import Capturer
from kaivc.findings import Finding
from kaivc.manifest import FileClass
from kaivc.plans import difference
from kaivc.repository import Repository
from kaivc.sinks import HashSink


def drifted(repo: Repository) -> list[Finding]:
    """The logic, config and lock files of the workspace that differ from ``current``; state is live and may."""
    version = versions.current(repo)
    files = trees.flatten(repo.store, version.tree_oid)
    manifest = versions.manifest_of(repo, version.tree_oid)
    capture = Capturer(repo, HashSink(repo.home.format), files, spare=manifest).run()
    found = []
    # By the committed manifest alone: the live one may say what it likes of itself.
    for change in difference(capture.files, files, manifest).changes:
        if manifest.file_class(change.path) is FileClass.STATE:
            continue
        expected = change.old.oid.hex() if change.old else "nothing"
        there = change.new.oid.hex() if change.new else "nothing"
        what = f"expected {expected}, found {there}"
        found.append(Finding("workspace", what, repo.name, (version.tag,), os.fsdecode(change.path)))
    return found
