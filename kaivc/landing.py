"""Let what arrived, and was checked, count: all ref moves and all objects in one transaction, or nothing.

A move of ``current`` is a rollback in every respect: view, workspace, backup, link and log follow. An agent that is not
there yet is made of what arrived.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from kaivc import incoming, intents, making, receiving, trees, versions
from kaivc.errors import Diverged, InvalidName, LostRace, RefusedArrival, TooLarge, VersionConflict
from kaivc.incoming import Incoming, Lent
from kaivc.making import Beginning
from kaivc.movement import Move, Mover
from kaivc.names import (
    Absent,
    Actor,
    Exactly,
    ObjectId,
    RefName,
    RefUpdate,
    Version,
    current_ref,
    heads_prefix,
    is_name,
    snapshots_prefix,
    tags_prefix,
    version_ref,
)
from kaivc.receiving import Nothing, Reach
from kaivc.records import dataclass, replace
from kaivc.repository import OpenHome, Repository
from kaivc.storage import caches, journal
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter

Readable = Callable[[], Iterable[bytes]]

_BACKUP = re.compile(r"backups/[1-9][0-9]{0,17}\Z")


@dataclass(frozen=True)
class Arrival:
    """What is to count: the moves, who asks, why, and under which verb and id."""

    verb: str
    op_id: str
    actor: Actor
    reason: str
    updates: tuple[RefUpdate, ...]


@dataclass(frozen=True)
class Arrived:
    """What counts now; ``backup`` is the number of what the workspace held that no version has."""

    seq: int
    digest: bytes
    backup: int | None
    objects: int


def shown_refs(repo: Repository) -> dict[RefName, ObjectId]:
    """The refs that others may see: versions, what is in force, and snapshots. Backups stay at home."""
    heads = repo.refs(heads_prefix(repo.name))
    wanted = {name: oid for name, oid in heads.items() if not name.startswith(heads_prefix(repo.name) + "backups/")}
    return {**repo.refs(tags_prefix(repo.name)), **wanted}


def may_travel(agent: str, ref: str) -> bool:
    """Whether a ref is one that may be sent, by its name: a version, ``current`` or a snapshot."""
    if ref == current_ref(agent):
        return True
    if ref.startswith(tags_prefix(agent)):
        try:
            return version_ref(agent, Version.parse(ref.removeprefix(tags_prefix(agent)))) == ref
        except InvalidName:
            return False
    return ref.startswith(snapshots_prefix(agent)) and is_name(ref.removeprefix(snapshots_prefix(agent)))


def name_elsewhere(agent: str, ref: str) -> str:
    """What a ref is called in other homes.

    A backup has the number of an operation of this home, and an undo finds it by that: elsewhere it is a snapshot.
    """
    branch = ref.removeprefix(heads_prefix(agent))
    return f"{snapshots_prefix(agent)}{branch.replace('/', '-')}" if _BACKUP.match(branch) else ref


# ---------------------------------------------------------------- an agent that is there


@contextmanager
def opened(repo: Repository, arrived: Incoming | None, actor: Actor) -> Iterator[tuple[Repository, Lent | None]]:
    """The agent as ``actor`` sees it, with what arrived in sight; RefusedArrival removes that."""
    guest = replace(repo, home=replace(repo.home, actor=actor))
    if arrived is None:
        yield guest, None
        return
    with _removed_if_refused(arrived):
        lent = Lent(repo.store, arrived.path, incoming.rows_of(arrived.path, repo.store, arrived.parcel.records))
        vars(guest)["store"] = lent
        try:
            yield guest, lent
        finally:
            lent.close()


@contextmanager
def _removed_if_refused(arrived: Incoming) -> Iterator[None]:
    try:
        yield
    except (RefusedArrival, TooLarge):
        arrived.discard()
        raise


def land(
    repo: Repository,
    arrived: Incoming | None,
    arrival: Arrival,
    tips: Mapping[str, bytes],
    readable: Readable | None,
    *,
    tags: Mapping[str, bytes] | None = None,
    live: bool = False,
) -> Arrived:
    """Let the moves of ``arrival`` count.

    ``tips`` are their targets by the agent's own ref names; ``readable`` tells, once nobody else moves anything, what
    whoever sent them can read here, None where all of it is here and was checked when it came. ``tags`` are version
    tags that are known beside the agent's own.

    LostRace, VersionConflict, AgentBusy and RefusedArrival leave everything as it was, and so does InvalidName, for an
    id that another operation has.
    """
    before = landed_before(repo, arrival)
    if before is not None:  # what arrived for it is gone, or came again
        return before
    with opened(repo, arrived, arrival.actor) as (guest, lent), guest.lock():
        before = landed_before(guest, arrival)
        if before is not None:
            return before
        _expect(guest, arrival.updates)
        if readable is not None:
            # Most of what need not come lies next to what is in force.
            reach = Reach(repo, sorted(readable(), key=lambda oid: oid != guest.current))
            # What is named is looked at even if nothing came along: a tag's name, and what kind of object it is.
            receiving.check(guest, lent or Lent(repo.store, "", {}), reach, tips.items())
            _require(lent, reach, tips)
        if current_ref(guest.name) in tips:
            require_version(guest, ObjectId(tips[current_ref(guest.name)]), {**(tags or {}), **tips})
        intents.finish(guest)
        return _Lander(guest, lent, arrival, live=live).run()


def landed_before(repo: Repository, arrival: Arrival) -> Arrived | None:
    """What came of the same arrival, if it landed; InvalidName if its id is that of something else."""
    seq = journal.op_seq(repo.catalog, repo.id, arrival.op_id)
    if seq is None:
        return None
    moves = journal.reflog_of(repo.catalog, repo.id, seq)
    moved = {(it.ref, it.new) for it in moves}
    for update in arrival.updates:
        if update.new != _old(update) and not any((name, update.new) in moved for name in repo.names_of(update.name)):
            raise InvalidName(
                f"operation {arrival.op_id} of {repo.name} was another one: it did not move {update.name} so",
                unchanged="nothing moved",
                hint="choose another operation id, or none",
                op_id=arrival.op_id,
            )
    backup = next((it.backup for it in moves if it.backup), None)
    return Arrived(seq, journal.op_digest(repo.catalog, repo.id, seq) or b"", backup, 0)


def _old(update: RefUpdate) -> ObjectId | None:
    return update.expect.oid if isinstance(update.expect, Exactly) else None


def _expect(repo: Repository, updates: Sequence[RefUpdate]) -> None:
    """Say a lost race before anything is prepared, and that a version never moves; the transaction asks again."""
    for update in updates:
        found = repo.ref(update.name)
        if update.name.startswith("refs/tags/") and found is not None and update.new not in {None, found}:
            raise _conflict(update, found)
        wanted = _old(update)
        if found == wanted:
            continue
        raise LostRace(
            f"{update.name} is not where it was: somebody moved it",
            unchanged="nothing moved",
            hint="fetch, look at what is there now, then run the command again",
            ref=update.name,
            expected=wanted.hex() if wanted else None,
            found=found.hex() if found else None,
        )


def _conflict(update: RefUpdate, found: ObjectId) -> VersionConflict:
    name = update.name.removeprefix("refs/tags/").replace("/", "@", 1)
    return VersionConflict(
        f"{name} is another version over there: {found.hex()[:12]}",
        unchanged="nothing moved",
        hint=f"if yours was never pushed, `kai renumber {name}` gives it another number",
        ref=update.name,
        found=found.hex(),
        sent=update.new.hex() if update.new else None,
    )


def _require(lent: Lent | None, reach: Reach | Nothing, tips: Mapping[str, bytes]) -> None:
    """Nothing is named that did not come and could not be read here."""
    for ref, oid in tips.items():
        if not (lent is not None and oid in lent.rows) and oid not in reach:
            raise incoming.refused(f"{ref} would point at {oid.hex()}, which did not come along")


def require_version(repo: Repository, oid: ObjectId, tips: Mapping[str, bytes]) -> None:
    """Raise RefusedArrival unless a version tag names the commit that is to be in force."""
    number = versions.describe(repo, oid).version
    ref = version_ref(repo.name, Version.parse(number)) if number is not None else None
    tag = (tips.get(ref) or repo.ref(ref)) if ref is not None else None
    if tag is None or repo.store.tag(ObjectId(tag)).target != oid:
        raise incoming.refused(f"`current` would point at {oid.hex()}, which no version tag names")


class _Lander:
    """One arrival, under the agent's lock."""

    def __init__(self, guest: Repository, lent: Lent | None, arrival: Arrival, *, live: bool) -> None:
        self._guest = guest
        self._lent = lent
        self._arrival = arrival
        self._live = live
        self._objects = 0

    def bring(self, writer: StoreWriter) -> None:
        """Add the objects."""
        if self._lent is not None:
            self._objects = receiving.bring(self._lent, writer)

    def run(self) -> Arrived:
        """Let it count."""
        guest, arrival = self._guest, self._arrival
        name = current_ref(guest.name)
        moved = next((it for it in arrival.updates if it.name == name and it.new != guest.current), None)
        if moved is None or moved.new is None:
            return self._names_only()
        if guest.current is None:
            raise Diverged(
                f"{guest.name} is here without a version, so that what is in force over there cannot take its place",
                unchanged="nothing moved",
                hint=f"`kai commit {guest.name}` or `kai agent remove {guest.name}` first",
                agent=guest.name,
            )
        beside = [it for it in arrival.updates if it is not moved]
        to = versions.describe(guest, moved.new)
        move = Move(arrival.verb, arrival.reason, to, to, live=self._live, op_id=arrival.op_id)
        done = _Move(guest, move, self, beside).apply()
        backup = int(done.backup.removeprefix("backups/")) if done.backup else None
        return self._arrived(done.seq or 0, backup)

    def _arrived(self, seq: int, backup: int | None) -> Arrived:
        with intents.landed("what was asked has landed"):
            digest = journal.op_digest(self._guest.catalog, self._guest.id, seq) or b""
        return Arrived(seq, digest, backup, self._objects)

    def _names_only(self) -> Arrived:
        guest, arrival = self._guest, self._arrival
        with StoreWriter(guest.store) as writer:
            self.bring(writer)
            op = Op(arrival.verb, arrival.op_id, str(arrival.actor), guest.home.clock.now_ns(), arrival.reason)
            updates = [it for it in arrival.updates if it.new != guest.ref(it.name)]
            landed = guest.land(writer, updates, op, also=lambda db: caches.drop_highest(db, guest.id))
        return self._arrived(landed.seq, None)


class _Move(Mover):
    """A move to a version that arrives with it."""

    def __init__(self, repo: Repository, move: Move, lander: _Lander, beside: list[RefUpdate]) -> None:
        super().__init__(repo, move)
        self._lander = lander
        self._more = beside

    def _bring(self, writer: StoreWriter) -> None:
        self._lander.bring(writer)

    def _beside(self) -> list[RefUpdate]:
        return list(self._more)


# ---------------------------------------------------------------- an agent that is not there yet


def land_new(home: OpenHome, name: str, arrived: Incoming, arrival: Arrival, tips: Mapping[str, bytes]) -> Arrived:
    """Make an agent of what arrived; its workspace gets the files of what is in force. The name is held, and free."""
    newborn = making.newborn(home, name)
    with opened(newborn, arrived, arrival.actor) as (guest, lent):
        if lent is None:
            raise AssertionError("a new agent is made of a parcel")
        oid = tips.get(current_ref(name))
        if oid is None:
            raise incoming.refused("a new agent that has no version in force")
        receiving.check(guest, lent, Nothing(), tips.items())
        _require(lent, Nothing(), tips)
        require_version(guest, ObjectId(oid), tips)
        with StoreWriter(guest.store) as writer:
            with making.prepared(home, name) as workspace:
                making.prepare_packs(home, name)
                version = versions.describe(guest, ObjectId(oid))
                files = trees.flatten(guest.store, version.tree_oid)
                making.fill(guest.store, workspace, files, versions.manifest_of(guest, version.tree_oid), home)
                objects = receiving.bring(lent, writer)
                home.vfs.sync_disk()
            now = home.clock.now_ns()
            op = Op(arrival.verb, arrival.op_id, str(arrival.actor), now, arrival.reason, workspace=True)
            beginning = Beginning(op, arrival.updates, [intents.link(), intents.log()])
            repo = making.begin(home, name, writer, beginning)
    with intents.landed(f"{name} is made"):
        row = repo.row()
    return Arrived(row.op_seq, row.op_head, None, objects)


def updates_of(
    arrival_moves: Iterable[tuple[str, bytes | None, bytes | None]], actor: Actor, reason: str
) -> tuple[RefUpdate, ...]:
    """Ref updates of (ref, old, new); old of None: it must not be there."""
    return tuple(
        RefUpdate(
            RefName(ref),
            Absent() if old is None else Exactly(ObjectId(old)),
            None if new is None else ObjectId(new),
            actor,
            reason,
        )
        for ref, old, new in arrival_moves
    )
