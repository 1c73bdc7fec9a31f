"""Collect what nothing names any more: plan, say, apply."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from kaivc import incoming, intents, keeping, making, retention, reversal, scratch, versions
from kaivc.errors import InvalidName, LockTimeout, NameTaken, StorageError, StorageFailed
from kaivc.layout import KAI
from kaivc.names import Exactly, ObjectId, ReflogEntry, RefName, RefUpdate, check_name, current_ref
from kaivc.records import dataclass
from kaivc.repository import OpenHome, Repository
from kaivc.retention import SECOND, Backup
from kaivc.storage import gc as records
from kaivc.storage import switching
from kaivc.storage.gc import Contents, Marker, PackPlan, StorePlan
from kaivc.storage.index import ObjectRow, stored_bytes
from kaivc.storage.journal import Op
from kaivc.storage.switching import Copier
from kaivc.storage.writer import StoreWriter

DAY_NS = 24 * 3600 * SECOND
POLL = 0.05


@dataclass(frozen=True)
class Expired:
    """A backup that goes. ``why`` is ``age`` or ``bytes``; ``created`` is RFC 3339 UTC."""

    ref: str
    commit: str
    created: str
    why: str


@dataclass(frozen=True)
class GcPlan:
    """What a gc of one agent does.

    ``delete`` are packs of which nothing stays, ``rewrite`` those out of which the rest is copied, ``leftover`` files
    that cut commands left. ``back`` are the bytes of packs that come back. ``findings`` are what fsck must see to.
    """

    agent: str
    expired: tuple[Expired, ...]
    dead_objects: int
    dead_bytes: int
    live_objects: int
    live_bytes: int
    delete: tuple[PackPlan, ...]
    rewrite: tuple[PackPlan, ...]
    leftover: tuple[PackPlan, ...]
    back: int
    findings: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.expired or self.dead_objects or self.delete or self.rewrite or self.leftover)


@dataclass(frozen=True)
class Done:
    """What was done of a plan. What is not done of it stands in ``spared`` and ``left``.

    ``spared`` are refs and objects that a command has taken up since the plan, ``left`` packs that are damaged, with
    what is wrong with them. ``op_id`` and ``seq`` are None where nothing had to be recorded.
    """

    expired: int
    objects: int
    delete: int
    rewrite: int
    leftover: int
    back: int
    spared: tuple[str, ...]
    left: tuple[str, ...]
    op_id: str | None
    seq: int | None


@dataclass(frozen=True)
class Collected:
    """A plan, and what was done of it; None for a dry run."""

    plan: GcPlan
    done: Done | None

    @property
    def findings(self) -> tuple[str, ...]:
        """What fsck must see to."""
        return self.plan.findings + (self.done.left if self.done else ())


def gc(repo: Repository, *, dry_run: bool = False, before: Callable[[GcPlan], None] | None = None) -> Collected:
    """Let backups expire, and give back the bytes of what no name leads to; versions always stay.

    ``before`` is called with the plan before anything is done. Raises LockTimeout when another gc is at work,
    ChecksumMismatch when what leads on is damaged, and then nothing is collected.
    """
    if dry_run:
        with records.hold_open_packs(repo.store) as held:
            planned = _Planner(repo, set(held)).plan()
        return Collected(planned.said, None)
    with _alone(repo):
        with repo.lock(removed=True):
            intents.finish_what_fits(repo)
        _sweep(repo)
        with records.hold_open_packs(repo.store) as held:
            planned = _Planner(repo, set(held)).plan()
            going = {pack.name for pack in planned.store.packs}
            records.release(held, held.keys() - going)
            if before is not None:
                before(planned.said)
            done = _Collector(repo, planned).run()
        return Collected(planned.said, done)


@contextmanager
def _alone(repo: Repository) -> Iterator[None]:
    """One gc of an agent at a time."""
    repo.home.require_writable()
    repo.vfs.make_dirs(repo.layout.locks, repo.home.dir_mode)
    waited = 0.0
    while (fd := repo.vfs.lock(repo.layout.collecting(repo.name))) is None:
        if waited >= repo.settings.lock_wait:
            raise LockTimeout(
                f"another gc of {repo.name} is at work",
                unchanged="nothing was collected",
                hint="it does what this one would",
                agent=repo.name,
            )
        repo.home.sleep(POLL)
        waited += POLL
    try:
        yield
    finally:
        os.close(fd)


# ---------------------------------------------------------------- plan


@dataclass(frozen=True)
class _Planned:
    said: GcPlan
    store: StorePlan
    contents: Contents
    expired: tuple[Backup, ...]
    marker: Marker


class _Planner:
    def __init__(self, repo: Repository, held: set[str]) -> None:
        self._repo = repo
        self._now = repo.home.clock.now_ns()
        self._contents = contents = records.look(repo.store, repo.name, held)
        self._marker = Marker(repo.store, contents.rows, repo.home.progress)
        self._why: dict[RefName, str] = {}

    def plan(self) -> _Planned:
        contents, rows = self._contents, self._contents.rows
        found = retention.backups(self._repo, contents.refs)
        live, expired = self._mark(found)
        store = records.plan(self._repo.store, contents, live)
        if store.blocked:
            expired = ()
        missing = tuple(
            f"object {oid.hex()} is missing: `kai fsck` says what is hit" for oid in sorted(self._marker.missing)
        )
        said = GcPlan(
            agent=self._repo.name,
            expired=tuple(self._expired(backup) for backup in expired),
            dead_objects=len(store.dead),
            dead_bytes=stored_bytes(store.dead),
            live_objects=len(live),
            live_bytes=stored_bytes(row for oid, row in rows.items() if oid in live),
            delete=store.delete,
            rewrite=store.rewrite,
            leftover=store.leftover,
            back=store.back,
            findings=store.findings + missing,
        )
        return _Planned(said, store, contents, expired, self._marker)

    def _mark(self, found: list[Backup]) -> tuple[set[bytes], tuple[Backup, ...]]:
        """What is live, and which backups go; each backup is weighed by what only it and newer ones hold."""
        repo, rows = self._repo, self._contents.rows
        branches = {backup.ref for backup in found}
        needed = _needed(self._contents.log, found, repo)
        roots = {oid for name, oid in self._contents.refs.items() if name not in branches}
        roots |= {oid for oid in retention.protected(self._contents.log, repo.settings, self._now) if oid in rows}
        live = self._marker.reach(roots, ())
        expired, held = [], 0
        for rank, backup in enumerate(found):
            own = self._marker.reach([backup.oid], live)
            held += stored_bytes(rows[oid] for oid in own)
            why = retention.why_expired(backup, rank, held, repo.settings, self._now)
            if why is None or backup.ref in needed:
                live |= own
            else:
                self._why[backup.ref] = why
                expired.append(backup)
        return live, tuple(expired)

    def _expired(self, backup: Backup) -> Expired:
        name = backup.ref.removeprefix(f"refs/heads/{self._repo.name}/")
        return Expired(name, backup.oid.hex(), versions.rfc3339(backup.time), self._why[backup.ref])


def _needed(log: tuple[ReflogEntry, ...], found: list[Backup], repo: Repository) -> set[RefName]:
    moves = repo.moves_of(current_ref(repo.name), log)
    return retention.needed((reversal.undoable(moves), reversal.redoable(moves)), found)


# ---------------------------------------------------------------- apply


class _Collector:
    def __init__(self, repo: Repository, planned: _Planned) -> None:
        self._repo = repo
        self._planned = planned
        self._spared: list[str] = []
        self._landing = False

    def run(self) -> Done:
        """Copy without any lock, then switch and unlink under the agent's."""
        repo, store = self._repo, self._planned.store
        with StoreWriter(repo.store, fresh=bool(store.rewrite)) as writer:
            copier = Copier(repo.store, self._planned.contents, writer, repo.home.progress)
            try:
                self._copy(copier)
                with repo.lock(removed=True):
                    intents.finish_what_fits(repo)
                    return self._switch(writer, copier)
            except BaseException:
                if not self._landing:
                    writer.discard()
                raise

    def _copy(self, copier: Copier) -> None:
        store, rows = self._planned.store, self._planned.contents.rows
        numbers = {pack.id: pack.name for pack in self._planned.contents.packs}
        staying: dict[str, list[ObjectRow]] = {pack.name: [] for pack in store.rewrite}
        for oid, row in rows.items():
            name = numbers.get(row.pack)
            if name in staying and oid in store.live:
                staying[name].append(row)
        for name, wanted in staying.items():
            copier.pack(name, wanted)

    def _switch(self, writer: StoreWriter, copier: Copier) -> Done:
        repo, planned = self._repo, self._planned
        switching.check_base(repo.store, planned.contents, {pack.name for pack in planned.store.packs})
        expired = self._still_expired()
        revived = self._revived(expired)
        self._rescue(copier, revived)
        going = {pack.name for pack in planned.store.packs} - copier.left.keys()
        dead = [row for row in planned.store.dead if row.id not in revived]
        op = None
        if expired or dead or going:
            op = self._land(writer, expired, dead, going)
        leftover = [pack.name for pack in planned.store.leftover]
        with intents.landed("what was planned is collected") if op else nullcontext():
            switching.unlink(repo.store, leftover, repo.home.progress)
        keeping.evict_if_possible(repo)
        gone = [pack for pack in planned.store.packs if pack.name in going]
        deleted = sum(pack.name in going for pack in planned.store.delete)
        return Done(
            expired=len(expired),
            objects=len(dead),
            delete=deleted,
            rewrite=len(gone) - deleted,
            leftover=len(leftover),
            back=sum(pack.back for pack in (*gone, *planned.store.leftover)) - copier.rescued,
            spared=tuple(self._spared),
            left=tuple(copier.left.values()),
            op_id=op[0] if op else None,
            seq=op[1] if op else None,
        )

    def _still_expired(self) -> list[Backup]:
        """Those expired backups that still are where they were, and that no undo has come to need."""
        repo = self._repo
        refs = repo.refs("refs/")
        log = tuple(repo.reflog(current_ref(repo.name)))
        needed = _needed(log, list(self._planned.expired), repo)
        kept = []
        for backup in self._planned.expired:
            if refs.get(backup.ref) == backup.oid and backup.ref not in needed:
                kept.append(backup)
            else:
                self._spared.append(backup.ref)
        return kept

    def _revived(self, expired: list[Backup]) -> set[bytes]:
        """What was dead in the plan and has been taken up since; marking goes on from where the plan's ended."""
        repo, planned = self._repo, self._planned
        gone = {backup.ref for backup in expired}
        roots: set[ObjectId] = {oid for name, oid in repo.refs("refs/").items() if name not in gone}
        since = [entry for entry in repo.reflog() if entry.seq > planned.contents.agent.op_seq]
        now = repo.home.clock.now_ns()
        roots |= {oid for oid in retention.protected(since, repo.settings, now) if repo.store.contains(oid)}
        reached = planned.marker.reach(roots, planned.store.live)
        revived = {row.id for row in planned.store.dead if row.id in reached}
        self._spared += sorted(oid.hex() for oid in revived)
        return revived

    def _rescue(self, copier: Copier, revived: set[bytes]) -> None:
        """Copy what was revived out of packs that go."""
        numbers = {pack.id: pack.name for pack in self._planned.contents.packs}
        going = {pack.name for pack in self._planned.store.packs}
        found: dict[str, list[ObjectRow]] = {}
        for row in self._planned.store.dead:
            if row.id in revived and numbers[row.pack] in going:
                found.setdefault(numbers[row.pack], []).append(row)
        for name, rows in found.items():
            copier.rescue(name, rows)

    def _land(
        self, writer: StoreWriter, expired: list[Backup], dead: list[ObjectRow], going: set[str]
    ) -> tuple[str, int]:
        repo, contents = self._repo, self._planned.contents
        actor = repo.home.actor
        reason = f"{_counted(len(expired), 'backup')} expired, {_counted(len(dead), 'object')} collected"
        updates = [RefUpdate(backup.ref, Exactly(backup.oid), None, actor, reason) for backup in expired]
        op = Op("gc", repo.new_op_id(), str(actor), repo.home.clock.now_ns(), reason)
        self._landing = True
        landed = repo.land(writer, updates, op, also=lambda db: switching.switch(repo.store, db, contents, dead, going))
        return op.op_id, landed.seq


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


# ---------------------------------------------------------------- scratch


def _sweep(repo: Repository) -> None:
    """Remove scratch of commands that were cut.

    What was to be an agent, layers of snapshots, transfers that nobody went on with, and files that nobody has used for
    a day.
    """
    home, vfs = repo.home, repo.vfs
    scratch.collect(home)
    vfs.make_dirs(home.layout.tmp, home.dir_mode)
    now = vfs.disk_now_ns(os.path.join(home.layout.tmp, "clock"))
    for entry in _entries(home.layout.root):
        if entry.name.startswith(f"{KAI}-new-"):
            _remove(repo, entry.path)
    for name in _unmade(home):
        _remove_unmade(home, name)
    for entry in _entries(home.layout.incoming("")):
        with suppress(StorageFailed):  # as in ``_remove``
            incoming.sweep(home, entry.name, now)
    for entry in _entries(home.layout.tmp):
        with suppress(FileNotFoundError):
            if now - entry.stat(follow_symlinks=False).st_mtime_ns > DAY_NS:
                _remove(repo, entry.path)


def _unmade(home: OpenHome) -> set[str]:
    """The names of what was to be an agent."""
    there = [entry.name for entry in _entries(home.layout.root)]
    found = {name.removeprefix(".new-") for name in there if name.startswith(".new-")}
    found |= {name for name in there if any(os.path.lexists(mark) for mark in home.layout.unfinished(name))}
    found |= {entry.name for entry in _entries(home.layout.packs)}
    return found - set(home.catalog.agent_names(removed=True))


def _remove_unmade(home: OpenHome, name: str) -> None:
    """Remove what was to be an agent, unless a command is making it."""
    # It may be no agent's name, one that is being made, or another member's of the group.
    with suppress(InvalidName, NameTaken, StorageError), making.name_held(home, check_name("agent", name)):
        making.sweep(home, name)


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return list(found)
    except FileNotFoundError:
        return []


def _remove(repo: Repository, path: str) -> None:
    with suppress(StorageFailed):  # another member of the group made it
        repo.vfs.remove_tree(path)
