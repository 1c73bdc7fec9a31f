"""What this home knows of a remote: its refs as last fetched, its log as last seen.

``refs/remotes/R/heads/AGENT/...`` and ``refs/remotes/R/tags/AGENT/vX`` are the refs of R as they were last fetched from
it or pushed to it. Nothing else of the agent moves when they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from kaivc import intents, landing, making, remotelist
from kaivc.errors import (
    ForkedLog,
    LostRace,
    NoSuchAgent,
    NoVersionYet,
    RefusedArrival,
    VersionConflict,
    WrongFormat,
)
from kaivc.landing import Arrival, Arrived
from kaivc.names import (
    Absent,
    Exactly,
    ObjectId,
    RefName,
    RefUpdate,
    current_ref,
    remote_prefix,
    tag_name,
    tags_prefix,
)
from kaivc.records import dataclass
from kaivc.remotelist import Seen
from kaivc.remotes.base import Can, Remote
from kaivc.repository import OpenHome, Repository
from kaivc.storage.chain import read_op
from kaivc.storage.gitobjects import Kind, MalformedObject
from kaivc.storage.journal import GENESIS
from kaivc.wire import MAX_IDS, Head

TRIES = 5
"""How often it is noted anew what a push moved, if others note at the same time."""


@dataclass(frozen=True)
class Change:
    """What became of one ref over there; ids in hex, None for not there."""

    ref: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Conflict:
    """One number, two versions; commits in hex, or the tags where theirs has not come: ``kind`` says which."""

    version: str
    ours: str
    theirs: str
    kind: str = "commit"


@dataclass(frozen=True)
class Fetched:
    """What a fetch found of one agent. ``seq`` is the number of the newest entry of the remote's log, 0 for none."""

    agent: str
    remote: str
    changes: tuple[Change, ...]
    conflicts: tuple[Conflict, ...]
    objects: int
    seq: int


def tracked(remote: str, ref: str) -> RefName:
    """The ref that says where one of a remote's was last seen."""
    return RefName(remote_prefix(remote) + ref.removeprefix("refs/"))


def tracked_refs(repo: Repository, remote: str) -> dict[str, ObjectId]:
    """The refs of an agent as the remote had them, by the names that they have there."""
    prefix = remote_prefix(remote)
    return {"refs/" + name.removeprefix(prefix): oid for name, oid in repo.refs(prefix).items()}


# ---------------------------------------------------------------- looking


def require_format(home: OpenHome, remote: Remote, name: str) -> None:
    """Raise WrongFormat unless the remote hashes as this home does."""
    if remote.object_format != home.format.name:
        raise WrongFormat(
            f"{name} hashes with {remote.object_format}, this home with {home.format.name}",
            unchanged="nothing was sent or taken",
            hint=f"`kai clone` makes a home of its format; `kai mirror {name} --object-format "
            f"{remote.object_format}` keeps a re-encoded copy there",
        )


def look(home: OpenHome, name: str, remote: Remote, agent: str) -> Head:
    """Where an agent stands over there, once its log is known to go on from where it was last seen.

    ForkedLog otherwise, RefusedArrival's relatives for what is no log.
    """
    require_format(home, remote, name)
    head = remote.head(agent)
    last = remotelist.seen(home, name, agent)
    if Can.LOG in remote.can and last is not None:
        check_log(remote, name, head, last)
    return head


def check_log(remote: Remote, name: str, head: Head, last: Seen) -> int:
    """How many entries came since; ForkedLog unless they come after the one that was last seen."""
    if remote.home != last.home:
        raise _forked(name, head.agent, f"another home is there now: {remote.home:.32}, not {last.home:.32}")
    if head.seq < last.seq:
        raise _forked(name, head.agent, f"its log ends with entry {head.seq}; entry {last.seq} was seen")
    digest, seq = last.digest, last.seq
    if head.seq > seq:
        for record in remote.log(head.agent, seq):
            try:
                op = read_op(record)
            except MalformedObject as error:
                raise _forked(name, head.agent, error.what) from error
            if op.prev != digest or op.seq != seq + 1:
                raise _forked(name, head.agent, f"entry {seq + 1} does not come after the entry {seq} that was seen")
            digest, seq = op.digest, op.seq
            if seq == head.seq:
                break
    if (seq, digest) != (head.seq, head.digest):
        raise _forked(name, head.agent, f"its entry {head.seq} is another than its log leads to")
    return head.seq - last.seq


def _forked(name: str, agent: str, why: str) -> ForkedLog:
    return ForkedLog(
        f"the log of {agent} at {name} does not go on from where it was last seen: {why}",
        unchanged="nothing moved",
        hint="was an older copy of that home put back? Ask who keeps it; "
        f"`kai remote remove {name}` and `kai remote add` begin anew with what it says now",
        agent=agent,
        remote=name,
    )


def note(home: OpenHome, name: str, remote: Remote, head: Head) -> None:
    """Keep where a log stood. What it says has landed by then."""
    if Can.LOG in remote.can:
        with noting("what was to be moved has moved"):
            remotelist.note_seen(home, name, head.agent, Seen(remote.home, head.seq, head.digest or GENESIS))


def noting(what: str) -> AbstractContextManager[None]:
    """Let an error say that ``what`` was asked is done, and that only noting it here failed."""
    return intents.landed(what, "it was only not noted here, which `kai fetch` does again")


# ---------------------------------------------------------------- fetch


def haves(repo: Repository) -> list[bytes]:
    """The commits that the agent has by name, what is in force first, then the newest."""
    refs = repo.refs("refs/")
    named = sorted(refs.items(), key=lambda it: (it[0] != current_ref(repo.name), it[0]))
    found: dict[bytes, None] = {}
    for name, oid in [named[0], *reversed(named[1:])] if named else ():
        if len(found) >= MAX_IDS:
            break
        row = repo.store.find(oid)
        if row is not None:
            found[repo.store.tag(oid).target if tag_name(name) is not None else oid] = None
    return list(found)


def fetch(repo: Repository, name: str, remote: Remote, reason: str = "") -> Fetched:
    """Bring what the remote has of an agent, and note where its refs are. Only ``refs/remotes/NAME/`` moves."""
    home = repo.home
    head = look(home, name, remote, repo.name)
    theirs = {ref: oid for ref, oid in head.refs.items() if landing.may_travel(repo.name, ref)}
    before = tracked_refs(repo, name)
    moves = [(ref, before.get(ref), oid) for ref, oid in theirs.items() if before.get(ref) != oid]
    gone = [(ref, oid, None) for ref, oid in before.items() if ref not in theirs]
    for ref, old, new in moves:
        if ref.startswith(tags_prefix(repo.name)) and old is not None and new is not None:
            raise _moved_version(repo, name, ref, old, new)
    objects = 0
    if moves or gone:
        moved = [(tracked(name, ref), old, new) for ref, old, new in [*moves, *gone]]
        why = reason or f"fetch from {name}"
        updates = landing.updates_of(moved, home.actor, why)
        arrival = Arrival("fetch", repo.new_op_id(), home.actor, why, updates)
        tips = {ref: new for ref, _, new in moves}
        if moves:
            objects = _bring(repo, remote, arrival, tips, theirs)
        else:
            landing.land(repo, None, arrival, {}, None)
    note(home, name, remote, head)
    changes = tuple(
        Change(ref, old.hex() if old else None, new.hex() if new else None) for ref, old, new in [*moves, *gone]
    )
    with intents.landed("what was fetched is here", "whether a version of it is another one here was not looked at"):
        taken_twice = conflicts(repo, theirs)
    return Fetched(repo.name, name, changes, taken_twice, objects, head.seq)


def _bring(
    repo: Repository, remote: Remote, arrival: Arrival, tips: Mapping[str, bytes], theirs: Mapping[str, bytes]
) -> int:
    """Let what is missing arrive, and count; the number of objects. ``theirs`` are all refs over there."""

    def land(there: Sequence[bytes]) -> int:
        with remote.bring(repo, list(dict.fromkeys(tips.values())), there) as arrived:
            # A tag that came earlier names what is in force over there as well as one that comes now.
            done = landing.land(repo, arrived, arrival, tips, lambda: repo.refs("refs/").values(), tags=theirs)
            arrived.discard()
        return done.objects

    try:
        return land(haves(repo))
    except RefusedArrival as refused:
        # What is here may be cut in another way than over there, so that pieces are missing: all of it is asked for.
        try:
            return land([])
        except LostRace:  # a bundle holds no more than it does
            raise refused from None


def _moved_version(repo: Repository, name: str, ref: str, old: bytes, new: bytes) -> VersionConflict:
    number = ref.removeprefix(tags_prefix(repo.name))
    return VersionConflict(
        f"{repo.name}@{number} at {name} is another version than when it was last fetched: {new.hex()[:12]}, "
        f"it was {old.hex()[:12]}",
        unchanged="nothing moved",
        hint="a version never moves: ask who keeps that home",
        ref=ref,
        was=old.hex(),
        found=new.hex(),
    )


def conflicts(repo: Repository, theirs: Mapping[str, bytes]) -> tuple[Conflict, ...]:
    """The numbers that stand for one version here and for another over there."""
    prefix = tags_prefix(repo.name)
    ours = repo.refs(prefix)
    found = []
    for ref, oid in sorted(theirs.items()):
        mine = ours.get(RefName(ref)) if ref.startswith(prefix) else None
        if mine is not None and mine != oid:
            number = ref.removeprefix(prefix)
            ours_is, theirs_is = commit_of(repo, mine), commit_of(repo, oid)
            if ours_is is not None and theirs_is is not None:
                found.append(Conflict(number, ours_is.hex(), theirs_is.hex()))
            else:  # like is compared with like
                found.append(Conflict(number, mine.hex(), oid.hex(), "tag"))
    return tuple(found)


def commit_of(repo: Repository, tag: bytes) -> ObjectId | None:
    """The commit that a tag names; None if the tag is not here."""
    row = repo.store.find(tag)
    return repo.store.tag(ObjectId(tag)).target if row is not None and row.kind == Kind.TAG else None


def conflict_error(agent: str, remote: str, found: Iterable[Conflict], rest: str) -> VersionConflict:
    """The error for numbers that were taken twice; ``rest`` is what became of all else."""
    listed = list(found)
    first = listed[0]
    more = f", and {len(listed) - 1} more" if len(listed) > 1 else ""
    which = "" if first.kind == "commit" else f"{first.kind} "
    return VersionConflict(
        f"{agent}@{first.version} is {which}{first.ours[:12]} here and {which}{first.theirs[:12]} at {remote}{more}",
        unchanged=rest,
        hint=f"if yours was never pushed, `kai renumber {agent}@{first.version}` gives it another number",
        conflicts=[{"version": it.version, "ours": it.ours, "theirs": it.theirs, "kind": it.kind} for it in listed],
    )


def make_agent(
    home: OpenHome, name: str, remote: Remote, agent: str, verb: str, why: str, op_id: str | None = None
) -> Arrived:
    """Make an agent of what a remote has of it; NameTaken if something is in its place, NoVersionYet for nothing."""
    head = look(home, name, remote, agent)
    theirs = {ref: oid for ref, oid in head.refs.items() if landing.may_travel(agent, ref)}
    if current_ref(agent) not in theirs:
        raise NoVersionYet(
            f"agent {agent} has no version yet at {name}",
            unchanged="nothing was made",
            hint="it can come once it has one",
            agent=agent,
        )
    with making.name_held(home, agent, home.settings.lock_wait):
        making.check_free(home, agent)
        newborn = making.newborn(home, agent)
        with remote.bring(newborn, list(dict.fromkeys(theirs.values())), ()) as arrived:
            moves: list[tuple[str, bytes | None, bytes | None]] = []
            for ref, oid in theirs.items():
                moves += [(ref, None, oid), (tracked(name, ref), None, oid)]
            updates = landing.updates_of(moves, home.actor, why)
            arrival = Arrival(verb, op_id or newborn.new_op_id(), home.actor, why, updates)
            done = landing.land_new(home, agent, arrived, arrival, theirs)
            arrived.discard()
    note(home, name, remote, head)
    return done


# ---------------------------------------------------------------- after a push, and before the first


def note_pushed(repo: Repository, name: str, moved: Mapping[str, bytes | None], head: Head) -> None:
    """Note where the remote's refs are now that a push moved them; another command may be noting them as well."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return _note_pushed(repo, name, moved, head)
        except LostRace:
            if not left:
                raise
    return None


def _note_pushed(repo: Repository, name: str, moved: Mapping[str, bytes | None], head: Head) -> None:
    before = tracked_refs(repo, name)
    why = f"push to {name}"
    now = {**head.refs, **{ref: oid for ref, oid in moved.items() if oid is not None}}
    wanted = {
        ref: oid
        for ref, oid in now.items()
        if moved.get(ref, b"") is not None and landing.may_travel(repo.name, ref) and repo.store.find(oid) is not None
    }
    moves = [
        RefUpdate(
            tracked(name, ref),
            Exactly(before[ref]) if ref in before else Absent(),
            None if ref not in wanted else ObjectId(wanted[ref]),
            repo.home.actor,
            why,
        )
        for ref in [*wanted, *(ref for ref in before if ref in moved and moved[ref] is None)]
        if before.get(ref) != wanted.get(ref)
    ]
    if moves:
        arrival = Arrival("push", repo.new_op_id(), repo.home.actor, why, tuple(moves))
        landing.land(repo, None, arrival, {}, None)


def empty(agent: str) -> Head:
    """An agent that is not over there."""
    return Head(agent, 0, GENESIS, {})


def head_or_empty(home: OpenHome, name: str, remote: Remote, agent: str) -> Head:
    """Where an agent stands over there, or that it does not."""
    try:
        return look(home, name, remote, agent)
    except NoSuchAgent:
        if remotelist.seen(home, name, agent) is not None:
            raise
        return empty(agent)
