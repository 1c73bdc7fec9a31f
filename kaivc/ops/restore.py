"""Bring files of a version back into the workspace; ``current`` stays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from kaivc import intents, revisions, trees, versions
from kaivc.capture import Capturer
from kaivc.errors import NoSuchPath
from kaivc.movement import Move, MovePlan, Mover, landed_before
from kaivc.names import nearest
from kaivc.repository import Repository
from kaivc.sinks import HashSink
from kaivc.trees import show


def restore(
    repo: Repository,
    paths: Sequence[str | bytes] = (),
    *,
    source: str = "current",
    reason: str = "",
    dry_run: bool = False,
    live: bool = False,
    op_id: str | None = None,
) -> MovePlan:
    """Make ``paths`` (files or directories; all, if none) equal to the version ``source``.

    What differs from ``current`` is saved as a backup first. NoSuchPath, with the nearest, for a path that neither
    side has.
    """
    if dry_run:
        return Mover(repo, _move(repo, paths, source, reason, live=live)).dry_run()
    with repo.lock():
        intents.finish(repo, live=live)
        done = landed_before(repo, op_id)
        if done is not None:
            return done
        return Mover(repo, replace(_move(repo, paths, source, reason, live=live), op_id=op_id)).apply()


def _move(repo: Repository, paths: Sequence[str | bytes], source: str, reason: str, *, live: bool) -> Move:
    target = revisions.resolve(repo, source)
    only = _select(repo, [_encoded(path) for path in paths], target) if paths else None
    return Move("restore", reason.strip() or f"restore from {target.tag}", None, target, only=only, live=live)


def _encoded(path: str | bytes) -> bytes:
    try:
        return os.fsencode(path)
    except UnicodeEncodeError as error:
        raise NoSuchPath(f"{path!r} is no path", unchanged="nothing moved") from error


def _select(repo: Repository, paths: list[bytes], target: versions.AgentVersion) -> frozenset[bytes]:
    files = trees.flatten(repo.store, target.tree_oid)
    left = versions.manifest_of(repo, versions.current(repo).tree_oid)
    live = Capturer(repo, HashSink(repo.home.format), {}, spare=left).run().files
    known = files.keys() | live.keys()
    chosen: set[bytes] = set()
    for path in paths:
        if not path:
            raise NoSuchPath("an empty path names nothing", unchanged="nothing moved", hint="'.' means all")
        wanted = os.path.normpath(path)
        found = {name for name in known if wanted in (name, b".") or name.startswith(wanted + b"/")}
        if not found:
            close = nearest(show(wanted), [show(name) for name in known])
            raise NoSuchPath(
                f"{show(path)} is neither in the workspace nor in {target.tag}",
                unchanged="nothing moved",
                hint=f"did you mean {', '.join(close)}?" if close else "",
                path=show(path),
                nearest=close,
            )
        chosen |= found
    return frozenset(chosen)
