"""What a home answers to others: ``wire.Far`` over an open home, each question asked of ``Access`` first.

All carriers end here. An agent that may not be read is as good as absent: the answer is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from kaivc import landing, making, parcels, versions
from kaivc.errors import AgentBusy, LostRace, NameTaken, NoSuchAgent, PermissionDenied
from kaivc.incoming import Incoming
from kaivc.landing import Arrival
from kaivc.names import Actor, ObjectId, check_name, check_op_id, current_ref, snapshots_prefix, tags_prefix
from kaivc.parcels import Parcel
from kaivc.repository import OpenHome, Repository
from kaivc.roles import unseen
from kaivc.storage import oplog
from kaivc.storage.gitobjects import Kind
from kaivc.wire import Entry, Far, Head, Hello, Offer, Outcome, Update, malformed

KEPT = 4
"""Parcels whose plans are kept: each is asked for once more, or a few times when a connection is cut."""


class Access(Protocol):
    """Who asks, and what that one may do."""

    @property
    def name(self) -> str:
        """Who it is, for file names and logs: no secret."""

    def actor(self, said: str) -> Actor:
        """Who goes into the log, given what the peer says of itself."""

    def may_read(self, agent: str) -> bool:
        """Whether an agent may be read."""

    def require(self, agent: str, acts: frozenset[str]) -> None:
        """Raise PermissionDenied unless each of these may be done: version, current, snapshot, create."""


class FarHome:
    """A home as others see it through ``access``."""

    def __init__(self, home: OpenHome, access: Access) -> None:
        self._home = home
        self._access = access
        self._plans: dict[tuple[str, tuple[bytes, ...], tuple[bytes, ...]], Parcel] = {}

    # ------------------------------------------------------------ reading

    def hello(self) -> Hello:
        """Who is there."""
        live = [row.name for row in self._home.catalog.agents() if not row.removed_ns]
        agents = tuple(name for name in live if self._access.may_read(name))
        return Hello(self._home.id, self._home.format.name, agents)

    def _repository(self, agent: str) -> Repository:
        if not self._access.may_read(agent):
            raise unseen(agent)
        try:
            repo = self._home.repository(agent)
        except NoSuchAgent as error:
            now = error.facts.get("renamed")
            if isinstance(now, str) and self._access.may_read(now):
                raise
            raise unseen(agent) from error
        repo.require_live()
        return repo

    def head(self, agent: str) -> Head:
        """Where an agent's log stands, and the refs that travel."""
        repo = self._repository(agent)
        with self._home.catalog.snapshot():
            row = repo.row()
            shown: dict[str, bytes] = {str(name): oid for name, oid in landing.shown_refs(repo).items()}
            return Head(agent, row.op_seq, row.op_head, shown)

    def log(self, agent: str, after: int) -> Iterator[bytes]:
        """The op records behind a number."""
        return oplog.records(self._repository(agent).store, after)

    def offer(self, agent: str, wants: tuple[bytes, ...], haves: tuple[bytes, ...]) -> Offer:
        """What is missing."""
        return self._plan(agent, wants, haves).offer

    def _plan(self, agent: str, wants: tuple[bytes, ...], haves: tuple[bytes, ...]) -> Parcel:
        repo = self._repository(agent)
        shown = set(landing.shown_refs(repo).values())
        unknown = [oid for oid in wants if oid not in shown]
        if unknown:  # `current` may have moved on since it was told; what it pointed at is a version still
            versions = _versions(repo, shown)
            unknown = [oid for oid in unknown if oid not in versions]
        if unknown:
            raise LostRace(
                f"{unknown[0].hex()} is nothing that a ref of {agent} points at",
                unchanged="nothing was sent",
                hint="run the command again",
            )
        key = (agent, wants, haves)
        found = self._plans.pop(key, None)
        if found is None:
            while len(self._plans) >= KEPT:
                del self._plans[next(iter(self._plans))]
            found = parcels.plan(repo, wants, _known(repo, shown, haves))
        self._plans[key] = found
        return found

    def get(
        self, agent: str, wants: tuple[bytes, ...], haves: tuple[bytes, ...], offer: Offer, start: int
    ) -> Iterator[bytes]:
        """The bytes of a parcel."""
        parcel = self._plan(agent, wants, haves)
        if parcel.offer != offer:
            raise LostRace(
                f"what is missing of {agent} lies otherwise by now",
                unchanged="nothing was sent",
                hint="run the command again: it begins anew",
            )
        return parcels.stream(self._repository(agent), parcel, start)

    # ------------------------------------------------------------ writing

    def _may_send(self, agent: str) -> None:
        """Raise unless something may be pushed; what comes for an agent that is not there could only make it."""
        there = self._home.catalog.agent(agent) is not None
        self._access.require(agent, frozenset() if there else frozenset(["create"]))

    def _incoming(self, agent: str, parcel: Offer) -> Incoming:
        """Where a parcel of this peer arrives: one cannot touch, or learn of, another's."""
        check_name("agent", agent)
        return Incoming(self._home, agent, parcel, self._access.name)

    def held(self, agent: str, parcel: Offer) -> int:
        """How much of it has arrived."""
        self._may_send(agent)
        with self._incoming(agent, parcel) as arriving:
            return arriving.size

    def put(self, agent: str, parcel: Offer, start: int, data: Iterable[bytes]) -> int:
        """Take more of it."""
        self._may_send(agent)
        with self._incoming(agent, parcel) as arriving:
            if arriving.size != start:
                raise LostRace(
                    f"{arriving.size} bytes of the parcel are here, not {start}",
                    unchanged="nothing was taken",
                    hint="run the command again",
                )
            return arriving.take(data)

    def append(self, agent: str, entry: Entry) -> Outcome:
        """Make the next log entry, or none."""
        check_name("agent", agent)
        check_op_id(entry.op_id)
        versions.check_notes(entry.reason)
        actor = self._access.actor(entry.actor)
        self._access.require(agent, acts_of(agent, entry.updates))
        for update in entry.updates:
            if not landing.may_travel(agent, update.ref):
                raise PermissionDenied(
                    f"{update.ref} is no ref that may be pushed", unchanged="nothing moved", ref=update.ref
                )
            if update.new is None and not update.ref.startswith(snapshots_prefix(agent)):
                raise PermissionDenied(
                    f"{update.ref} cannot be deleted: only snapshots are", unchanged="nothing moved", ref=update.ref
                )
        if len({it.ref for it in entry.updates}) != len(entry.updates):
            raise malformed("an entry that moves a ref twice")  # only one of the two would be checked
        moves = ((it.ref, it.old, it.new) for it in entry.updates)
        updates = landing.updates_of(moves, actor, entry.reason)
        if not updates:
            raise malformed("an entry that moves nothing")
        arrival = Arrival("push", entry.op_id, actor, entry.reason, updates)
        tips = {it.ref: it.new for it in entry.updates if it.new is not None}
        if entry.parcel is None:
            return self._land(agent, None, arrival, tips)
        with self._incoming(agent, entry.parcel) as arrived:
            done = self._land(agent, arrived, arrival, tips)
            arrived.discard()
        return done

    def _land(self, agent: str, arrived: Incoming | None, arrival: Arrival, tips: dict[str, bytes]) -> Outcome:
        row = self._home.catalog.agent(agent)
        if row is None and arrived is not None:
            self._access.require(agent, frozenset(["create"]))
            with making.name_held(self._home, agent, self._home.settings.lock_wait):
                self._check_free(agent)
                done = landing.land_new(self._home, agent, arrived, arrival, tips)
        else:
            repo = self._repository(agent).linked_now()  # this process may have been here for a year
            try:
                done = landing.land(repo, arrived, arrival, tips, lambda: landing.shown_refs(repo).values())
            except AgentBusy as error:
                if "--live" in error.hint:  # which is for those who are here
                    error.hint = "stop it here, or name a `quiesce` command in its kai.yaml; then push again"
                raise
        return Outcome(done.seq, done.digest, done.backup)

    def _check_free(self, agent: str) -> None:
        """Raise NameTaken unless an agent may be made; what one is called now is told to who may read it."""
        try:
            making.check_free(self._home, agent)
        except NameTaken:
            now = self._home.catalog.renamed(agent)
            if now is None or self._access.may_read(now):
                raise
            what = f"{agent!r} was the name of another agent, and names are used once"
            raise NameTaken(what, unchanged="nothing moved", hint="choose another name", name=agent) from None

    def close(self) -> None:
        """The home is the caller's."""


def _versions(repo: Repository, shown: Iterable[ObjectId]) -> set[ObjectId]:
    """The commits that tags name."""
    return {repo.store.tag(oid).target for oid in shown if repo.store.kind(oid) is Kind.TAG}


def _known(repo: Repository, shown: set[ObjectId], haves: Iterable[bytes]) -> list[bytes]:
    """Of what the other side says it has, what it may know of: else the answer would tell whether the rest is here."""
    store, listed = repo.store, list(haves)
    asked = {oid for oid in listed if oid not in shown and store.find(oid) is not None}
    seen: set[bytes] = set(shown)
    todo = list(shown)
    while todo and not asked <= seen:
        oid = todo.pop()
        kind = store.kind(oid)
        behind = store.tag(oid).target if kind is Kind.TAG else store.commit(oid).parent
        if behind is not None and behind not in seen:
            seen.add(behind)
            todo.append(behind)
    return [oid for oid in listed if oid in seen]


def acts_of(agent: str, updates: Iterable[Update]) -> frozenset[str]:
    """What moves of an agent's refs amount to."""
    return frozenset(_act(agent, it.ref) for it in updates)


def _act(agent: str, ref: str) -> str:
    if ref.startswith(tags_prefix(agent)):
        return "version"
    return "current" if ref == current_ref(agent) else "snapshot"


_: type[Far] = FarHome
