"""What an agent's names keep from collection, and for how long.

Versions are never collected, nor is anything that a ref points at. Only backups expire by themselves; what a snapshot
that was dropped, or any other ref, used to point at is kept for a time after its entry in the reflog.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from kaivc.errors import ChecksumMismatch, Collected
from kaivc.names import ObjectId, ReflogEntry, RefName, heads_prefix
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.settings import Settings
from kaivc.versions import AgentVersion

SECOND = 1_000_000_000
_BRANCH = re.compile(r"refs/heads/[^/]+/(backups|snapshots)/")


@dataclass(frozen=True)
class Backup:
    """A ref that may expire. ``time`` is that of its commit, in whole seconds UTC."""

    ref: RefName
    oid: ObjectId
    number: int
    time: int


def protected(entries: Iterable[ReflogEntry], settings: Settings, now_ns: int) -> set[ObjectId]:
    """The ids that entries of the reflog keep, whether they are still stored or not.

    An entry of a backup keeps nothing: its ref does. That of a snapshot keeps what it dropped.
    """
    kept: set[ObjectId] = set()
    for entry in entries:
        match = _BRANCH.match(entry.ref)
        age = (now_ns - entry.time_ns) / SECOND
        if match is None and age <= settings.reflog_expire:
            kept |= {oid for oid in (entry.old, entry.new) if oid}
        elif match is not None and match[1] == "snapshots" and entry.old and age <= settings.snapshots_expire:
            kept.add(entry.old)
    return kept


def backups(repo: Repository, refs: Mapping[RefName, ObjectId]) -> list[Backup]:
    """The agent's backups, newest first."""
    prefix = heads_prefix(repo.name) + "backups/"
    found = [
        Backup(name, oid, int(name.removeprefix(prefix)), repo.store.commit(oid).time)
        for name, oid in refs.items()
        if name.startswith(prefix) and name.removeprefix(prefix).isdecimal()
    ]
    return sorted(found, key=lambda it: it.number, reverse=True)


def why_expired(backup: Backup, rank: int, held: int, settings: Settings, now_ns: int) -> str | None:
    """Why a backup goes, ``age`` or ``bytes``; None if it stays.

    ``rank`` counts from the newest, 0; ``held`` are the bytes that only it and newer backups hold.
    """
    if rank < settings.backups_keep:
        return None
    if now_ns / SECOND - backup.time > settings.backups_max_age:
        return "age"
    return "bytes" if held > settings.backups_max_bytes else None


def needed(candidates: Collection[ReflogEntry | None], found: Iterable[Backup]) -> set[RefName]:
    """The backups that the next undo and the next redo need, by the entries that these would reverse."""
    numbers = {entry.backup if entry.backup is not None else entry.seq for entry in candidates if entry is not None}
    return {backup.ref for backup in found if backup.number in numbers}


# ---------------------------------------------------------------- what is gone


def collected(repo: Repository, ref: RefName) -> ReflogEntry | None:
    """The entry of the gc that dropped a ref; None if it is there, or went another way."""
    newest = next(iter(repo.reflog(ref, 1)), None)
    return newest if newest is not None and newest.new is None and newest.verb == "gc" else None


@contextmanager
def reading(repo: Repository, *several: AgentVersion) -> Iterator[None]:
    """Read what versions, backups or snapshots hold; Collected, not damage, if gc took one away meanwhile."""
    try:
        yield
    except ChecksumMismatch as error:
        gone = next((it for it in several if not repo.store.contains(it.oid)), None)
        if gone is None:
            raise
        raise Collected(
            f"{gone.tag} of {repo.name} was collected while it was read",
            unchanged="nothing was written",
            hint="it had expired: see `kai reflog --all`",
            commit=gone.commit,
        ) from error
