"""Bring files of a version back into the workspace; ``current`` stays."""

from __future__ import annotations

from collections.abc import Sequence

from kaivc import intents, paths, revisions, trees, versions
from kaivc.capture import Capturer
from kaivc.movement import Move, MovePlan, Mover, landed_before
from kaivc.records import replace
from kaivc.repository import Repository
from kaivc.sinks import HashSink
from kaivc.versions import AgentVersion

_WHERE = "neither in the workspace nor in "


def restore(
    repo: Repository,
    names: Sequence[str | bytes] = (),
    *,
    source: str = "current",
    reason: str = "",
    dry_run: bool = False,
    live: bool = False,
    op_id: str | None = None,
) -> MovePlan:
    """Make ``names`` (files or directories; all, if none) equal to the version ``source``.

    What differs from ``current`` is saved as a backup first. NoSuchPath, with the nearest, for a path that neither
    side has.
    """
    if dry_run:
        return Mover(repo, _move(repo, names, source, reason, live=live)).dry_run()
    with repo.lock():
        intents.finish(repo, live=live)
        done = landed_before(repo, op_id)
        if done is not None:
            return done
        return Mover(repo, replace(_move(repo, names, source, reason, live=live), op_id=op_id)).apply()


def _move(repo: Repository, names: Sequence[str | bytes], source: str, reason: str, *, live: bool) -> Move:
    target = revisions.resolve(repo, source)
    name = revisions.name_of(repo, target)
    only = paths.chosen(names, _known(repo, target), _WHERE + name, unchanged="nothing moved") if names else None
    return Move("restore", reason.strip() or f"restore from {name}", None, target, only=only, live=live)


def _known(repo: Repository, target: AgentVersion) -> set[bytes]:
    left = versions.manifest_of(repo, versions.current(repo).tree_oid)
    live = Capturer(repo, HashSink(repo.home.format), {}, spare=left).run().files
    return live.keys() | trees.flatten(repo.store, target.tree_oid).keys()
