"""An agent looked at beside writers: what comes and goes meanwhile is no damage.

An inspection reads one snapshot of the catalog, but packs, views, `current` and `rollback.log` as they are. A gc may
take a pack away, an eviction a view, and a commit may be half-way. So damage counts only if the next look finds it too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kaivc import inspection
from kaivc.errors import LockTimeout, NoSuchAgent, StorageFailed
from kaivc.findings import Finding
from kaivc.inspection import Inspected
from kaivc.records import dataclass, replace
from kaivc.repository import OpenHome, Repository
from kaivc.storage import fsck, salvage
from kaivc.storage.catalog import AgentRow

LOOKS = 3
FOLLOWING = ("link", "rollback.log")
"""What is written behind each transaction."""

Key = tuple[object, ...]


@dataclass(frozen=True)
class Look:
    """What was found, and the snapshot that it was found in."""

    found: Inspected
    db: sqlite3.Connection
    row: AgentRow


def connect(home: OpenHome) -> sqlite3.Connection:
    """A snapshot of the catalog; StorageFailed if there is none to be had."""
    try:
        return salvage.connect(home.layout.catalog, home.temp)
    except sqlite3.Error as error:
        raise StorageFailed(f"the catalog cannot be read: {error}", unchanged="nothing was written") from error


@contextmanager
def agent(repo: Repository) -> Iterator[Look]:
    """Inspect an agent, again if anything is damaged; NoSuchAgent if its row cannot be read.

    The snapshot is closed at the end of the context.
    """
    lasting: set[Key] | None = None
    for number in range(LOOKS):
        db = connect(repo.home)
        try:
            row = _row(repo, db)
            found = inspection.agent(repo, db, row)
            damage = {_key(it) for it in found.findings if it.is_damage}
            lasting = damage if lasting is None else lasting & damage
            if not lasting or (number and lasting == damage) or number == LOOKS - 1:
                lasting -= _settled(repo, found, row)
                kept = tuple(it for it in found.findings if not it.is_damage or _key(it) in lasting)
                yield Look(replace(found, findings=kept), db, row)
                return
        finally:
            db.close()


def _row(repo: Repository, db: sqlite3.Connection) -> AgentRow:
    for row in fsck.agents(db):
        if row.id == repo.id:
            return row
    raise NoSuchAgent(f"the catalog's row of agent {repo.name!r} cannot be read", name=repo.name)


def _key(it: Finding) -> Key:
    """What makes it the same finding in another look; the words may tell of what moved meanwhile."""
    return it.where, it.versions, it.path, it.pack, it.offset, it.object, it.row, it.seq


def _settled(repo: Repository, found: Inspected, row: AgentRow) -> set[Key]:
    """What follows transactions and looked wrong, but is right while nobody moves."""
    seen = {_key(it) for it in found.findings if it.where in FOLLOWING and it.is_damage}
    if not seen or repo.home.read_only or row.removed_ns:
        return set()
    with suppress(LockTimeout, NoSuchAgent), repo.lock():
        still = inspection.in_force(repo) + inspection.rollback_log(repo)
        return seen - {_key(it) for it in still if it.is_damage}
    return set()
