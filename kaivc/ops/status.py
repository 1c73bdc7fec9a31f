"""How a workspace stands to the version in force."""

from __future__ import annotations

import os

from kaivc import leases, standing, trees, versions
from kaivc.capture import Capture, Capturer
from kaivc.errors import KaiError
from kaivc.manifest import DEFAULT
from kaivc.plans import difference
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.sinks import HashSink
from kaivc.storage import caches
from kaivc.trees import Change


@dataclass(frozen=True)
class Status:
    """A workspace against ``current``. ``changes`` are (letter, class of file, path), as ``kept`` are."""

    agent: str
    version: str | None
    commit: str | None
    dirty: bool
    changes: tuple[tuple[str, str, str], ...]
    kept: tuple[tuple[str, str, str], ...]
    notices: tuple[str, ...]
    running: bool
    pending: tuple[str, ...]
    linked: bool


def status(repo: Repository) -> Status:
    """Compare the workspace with ``current``; nothing is repaired. Raises what a capture raises."""
    oid = repo.current
    version = versions.describe(repo, oid) if oid else None
    files = trees.flatten(repo.store, version.tree_oid) if version else {}
    manifest = versions.manifest_of(repo, version.tree_oid) if version else DEFAULT
    capture = Capturer(repo, HashSink(repo.home.format), files).run()
    found = difference(capture.files, files, capture.manifest, manifest)
    _remember(repo, capture)
    return Status(
        agent=repo.name,
        version=version.version if version else None,
        commit=version.commit if version else None,
        dirty=bool(found.changes),
        changes=_rows(capture, found.changes),
        kept=_rows(capture, found.kept),
        notices=tuple(capture.notices()),
        running=leases.is_running(repo),
        pending=tuple(standing.pending(repo)),
        linked=standing.is_linked(repo),
    )


def _rows(capture: Capture, changes: tuple[Change, ...]) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (change.status, capture.manifest.file_class(change.path).value, os.fsdecode(change.path)) for change in changes
    )


def _remember(repo: Repository, capture: Capture) -> None:
    """Save reading the same files again; a home that cannot be written is none the worse."""
    if not capture.changed:
        return
    try:
        with repo.catalog.transaction(durable=False) as db:
            known = {name: capture.known.get(name, {}) for name in capture.changed}
            caches.put_known_files(db, repo.id, known, repo.home.boot)
    except KaiError:
        return
