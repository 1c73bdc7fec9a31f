"""What is known of views and of their inodes, and which views stay.

A seal is what an inode looked like when its bytes were known. Views share inodes: one that goes changes how those of
others look, which are sealed anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress

from kaivc import leases, versions
from kaivc.errors import LockTimeout, NoVersionYet, StorageError, StorageFailed
from kaivc.names import ObjectId
from kaivc.records import dataclass, field
from kaivc.repository import Repository
from kaivc.storage import caches
from kaivc.storage.caches import Seal, ViewRow

SLACK = 4
"""The part of ``views.keep`` that may gather above it before views are dropped."""


@dataclass
class Notes:
    """What is learnt of views and of their inodes on the way, to be written at once."""

    used: dict[str, ViewRow] = field(default_factory=dict)
    seals: dict[tuple[int, int], Seal] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    gone: set[tuple[int, int]] = field(default_factory=set)
    _rows: list[ViewRow] | None = None

    def rows(self, repo: Repository) -> list[ViewRow]:
        """The views that were known before, most recently used first; asked for once, under the agent's lock."""
        if self._rows is None:
            self._rows = caches.views(repo.catalog, repo.id)
        return self._rows

    def write(self, repo: Repository, db: sqlite3.Connection) -> None:
        """Write all of it, within a transaction."""
        for tag in self.dropped:
            caches.drop_view(db, repo.id, tag)
        caches.drop_seals(db, repo.id, self.gone)
        caches.put_seals(db, repo.id, self.seals.values())
        for row in self.used.values():
            caches.put_view(db, repo.id, row)
        if "seals" in vars(repo):  # else they are read when they are asked for
            for inode in self.gone:
                repo.seals.pop(inode, None)
            repo.seals.update(self.seals)

    def keep(self, repo: Repository) -> None:
        """Write all of it, in a transaction of its own; it need not be durable."""
        with repo.catalog.transaction(durable=False) as db:
            self.write(repo, db)


def looks(status: os.stat_result, oid: ObjectId) -> tuple[int, int, bytes, int, int, int, int]:
    """What a seal holds, without the class: a look at a view compares one for each file."""
    return (
        status.st_dev,
        status.st_ino,
        oid,
        status.st_size,
        status.st_mode,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def seal_of(status: os.stat_result, oid: ObjectId) -> Seal:
    """The seal of an inode that has the bytes of ``oid``."""
    return Seal(*looks(status, oid))


def walk(root: bytes, prefix: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Everything below a view that is no directory."""
    with os.scandir(os.path.join(root, prefix)) as entries:
        for entry in entries:
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from walk(root, path + b"/")
            else:
                yield path, entry.stat(follow_symlinks=False)


# ---------------------------------------------------------------- dropping


def drop_directory(repo: Repository, tag: str) -> None:
    """Remove a view, and seal anew the inodes that other views share with it (their ctime changes)."""
    notes = Notes()
    _drop(repo, [tag], notes)
    notes.keep(repo)


def _drop(repo: Repository, tags: list[str], notes: Notes) -> None:
    """Remove views that a later transaction of ``notes`` forgets."""
    shared: dict[tuple[int, int], Seal] = {}
    for tag in tags:
        root = os.fsencode(repo.layout.view(repo.name, tag))
        if not os.path.isdir(root):
            notes.dropped.add(tag)  # a command was cut that had removed it
            continue
        statuses = _readable(root)
        # Away in one step: a cut removal must not leave half a view under its name.
        aside = repo.layout.view(repo.name, f".old-{tag}")
        try:
            repo.vfs.remove_tree(aside)
            repo.vfs.rename(root, aside)
            repo.vfs.remove_tree(aside)
        except (StorageFailed, OSError):  # another member of the group made it
            if len(tags) == 1:
                raise
            continue
        notes.dropped.add(tag)
        for status in statuses.values():
            inode = (status.st_dev, status.st_ino)
            notes.gone.add(inode)
            seal = notes.seals.get(inode) or repo.seals.get(inode)
            if status.st_nlink > 1 and seal and (inode in shared or _fits(seal, status)):
                shared[inode] = seal
    again = {(seal.dev, seal.inode): seal for seal in _sealed_again(repo, shared, notes)}
    notes.gone -= again.keys()
    notes.seals.update(again)


def _readable(root: bytes) -> dict[bytes, os.stat_result]:
    try:
        return dict(walk(root, b""))
    except OSError:
        return {}  # what cannot be looked at has no seals worth keeping


def _fits(seal: Seal, status: os.stat_result) -> bool:
    return seal == seal_of(status, ObjectId(seal.oid))


def _sealed_again(repo: Repository, shared: dict[tuple[int, int], Seal], notes: Notes) -> Iterator[Seal]:
    """The seals of inodes as other views show them now; the newest view has most of them."""
    left = dict(shared)
    if not left:
        return
    tags = dict.fromkeys([*notes.used, *(row.tag for row in notes.rows(repo))])
    for tag in tags:
        root = os.fsencode(repo.layout.view(repo.name, tag))
        if not left or tag in notes.dropped or not os.path.isdir(root):
            continue
        for status in _readable(root).values():
            seal = left.pop((status.st_dev, status.st_ino), None)
            if seal is not None and _fits(seal._replace(ctime_ns=status.st_ctime_ns), status):
                yield seal_of(status, ObjectId(seal.oid))


def _linked(repo: Repository) -> list[str]:
    """The view that ``current`` leads to: not yet that in force where there was no room for it."""
    try:
        return [os.path.basename(os.readlink(repo.layout.current(repo.name)))]
    except OSError:
        return []


def evict_if_possible(repo: Repository, notes: Notes | None = None) -> None:
    """Drop views after what was asked is done: what fails now the next command does."""
    with suppress(StorageError, LockTimeout, NoVersionYet):
        evict(repo, notes)


def evict(repo: Repository, notes: Notes | None = None) -> list[str]:
    """Drop the views used least recently, down to what the settings keep; none in a run or a test.

    Never that in force, nor that which ``current`` leads to. Above ``views.keep`` a quarter of it may gather first: to
    drop several costs little more than to drop one.
    """
    into, stay = notes or Notes(), {versions.current(repo).tag, *_linked(repo)}
    rows = [row for row in into.rows(repo) if row.tag not in stay]
    most = repo.settings.views_keep
    count = len({row.tag for row in rows} | into.used.keys() | stay)
    if count <= most + most // SLACK and sum(row.own_bytes for row in rows) <= repo.settings.views_max_bytes:
        return []
    if leases.is_running(repo) or leases.is_testing(repo):
        return []
    kept, total, dropped = len(stay), 0, []
    for row in rows:
        if kept < most and total + row.own_bytes <= repo.settings.views_max_bytes:
            kept, total = kept + 1, total + row.own_bytes
        else:
            dropped.append(row.tag)
    _drop(repo, dropped, into)
    if notes is None and into.dropped:
        into.keep(repo)
    return sorted(into.dropped)
