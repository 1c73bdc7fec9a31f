"""What a pull would move here, and what a push would move over there: values, before anything moves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kaivc import landing, versions
from kaivc.errors import Diverged, InvalidName
from kaivc.names import (
    ObjectId,
    ReflogEntry,
    RefName,
    Version,
    current_ref,
    tags_prefix,
    version_ref,
)
from kaivc.records import dataclass
from kaivc.remotes.tracking import Conflict, conflicts, tracked, tracked_refs
from kaivc.repository import Repository
from kaivc.storage import journal
from kaivc.wire import Update

# ---------------------------------------------------------------- pull


@dataclass(frozen=True)
class PullPlan:
    """What a pull would move here: numbers that are adopted, and ``current``, if it moves.

    ``diverged`` says why it cannot: the numbers are adopted all the same, so that either side can be chosen.
    """

    adopt: tuple[str, ...]
    current: ObjectId | None
    diverged: Diverged | None = None


def plan_pull(repo: Repository, name: str) -> PullPlan:
    """Adopt versions that are not here; follow ``current``, as it was just fetched, unless it was moved here since.

    It stands where both last agreed if the remote's was seen there, at its last own move or later. ``diverged`` if both
    stand elsewhere; nothing to follow where only this side moved.
    """
    theirs = tracked_refs(repo, name)
    prefix, name_of_current = tags_prefix(repo.name), current_ref(repo.name)
    ours = repo.refs(prefix)
    adopt = tuple(sorted(ref for ref in theirs if ref.startswith(prefix) and RefName(ref) not in ours))
    here, there = repo.current, theirs.get(name_of_current)
    if there is None or there == here or not _is_free(repo, there, theirs):
        return PullPlan(adopt, None)
    known = _seen_since(repo, tracked(name, name_of_current))
    if here is None or here in known.since or here == known.when_moved:
        return PullPlan(adopt, there)
    if there == known.when_moved:
        return PullPlan(adopt, None)
    if known.when_moved is None:  # they meet for the first time: what comes after goes before
        if _comes_after(repo, there, here):
            return PullPlan(adopt, there)
        if _comes_after(repo, here, there):
            return PullPlan(adopt, None)
    return PullPlan(adopt, None, _diverged(repo, name, here, there))


def _diverged(repo: Repository, name: str, here: ObjectId, there: ObjectId) -> Diverged:
    return Diverged(
        f"`current` of {repo.name} is {here.hex()[:12]} here and {there.hex()[:12]} at {name}, and both have moved "
        "since they were last seen to agree",
        unchanged="`current` is as it was; versions that were not here are",
        hint=f"`kai diff {repo.name}@{here.hex()[:12]} {there.hex()[:12]}`; then "
        f"`kai rollback {repo.name} --to {there.hex()[:12]}` takes theirs, or `kai push {repo.name}` sends yours",
        here=here.hex(),
        there=there.hex(),
    )


def _is_free(repo: Repository, commit: bytes, theirs: Mapping[str, bytes]) -> bool:
    """Whether a version of theirs can be in force here: its number is not another version's."""
    number = versions.describe(repo, ObjectId(commit)).version
    ref = version_ref(repo.name, Version.parse(number)) if number is not None else None
    return ref is not None and repo.ref(ref) in (None, theirs.get(ref))


def _comes_after(repo: Repository, later: ObjectId, earlier: ObjectId) -> bool:
    found = versions.ancestors(repo, versions.describe(repo, later))
    return any(it.oid == earlier for it in found)


@dataclass(frozen=True)
class _Known:
    """Where a remote's ``current`` was known to be when this home's was last moved, and at each fetch since."""

    when_moved: ObjectId | None
    since: tuple[ObjectId, ...]


def _seen_since(repo: Repository, ref: RefName) -> _Known:
    own = repo.reflog(current_ref(repo.name), 1)
    if own and own[0].verb == "renumber":  # which names anew what is in force, and chooses nothing
        own = [it for it in repo.reflog(current_ref(repo.name)) if it.verb != "renumber"]
    moved = own[0].seq if own else 0
    since: list[ObjectId] = []
    for entry in _history(repo, ref):
        if entry.seq <= moved:
            return _Known(entry.new, tuple(since))
        if entry.new is not None:
            since.append(entry.new)
    return _Known(None, tuple(since))


def _history(repo: Repository, ref: RefName) -> Iterator[ReflogEntry]:
    """The moves of a remote's ref, newest first, also of when the remote had another name."""
    former: str | None = ref
    before = repo.row().op_seq + 1
    while former is not None:
        entries = [it for it in repo.reflog(RefName(former)) if it.seq < before]
        yield from entries
        if not entries or entries[-1].old is not None:
            return
        first, inner = entries[-1], former.split("/", 3)[3]
        before = first.seq
        beside = journal.reflog_of(repo.catalog, repo.id, first.seq)
        left = (it.ref for it in beside if it.new is None and it.old == first.new and it.ref != former)
        former = next((it for it in left if it.split("/", 3)[3:] == [inner]), None)


# ---------------------------------------------------------------- push


@dataclass(frozen=True)
class PushPlan:
    """What a push would move over there."""

    updates: tuple[Update, ...]
    conflicts: tuple[Conflict, ...]


def plan_push(
    repo: Repository, name: str, theirs: Mapping[str, bytes], also: Iterable[str] = (), delete: Iterable[str] = ()
) -> PushPlan:
    """All versions and ``current``, and of the other refs those that are named; Diverged if ``current`` moved there.

    Every move says what the other side must still have: what it just told, which must be what this home last saw.
    """
    prefix, name_of_current = tags_prefix(repo.name), current_ref(repo.name)
    known = tracked_refs(repo, name)
    updates = [
        Update(ref, None, oid) for ref, oid in sorted(repo.refs(prefix).items(), key=_by_number) if ref not in theirs
    ]
    here, there = repo.current, theirs.get(name_of_current)
    if here is not None and here != there and _is_free_there(repo, here, theirs):
        if there is not None and there != known.get(name_of_current):
            last = known.get(name_of_current)
            raise Diverged(
                f"`current` of {repo.name} at {name} is {there.hex()[:12]}; "
                + (f"last seen it was {last.hex()[:12]}" if last else "it was never fetched"),
                unchanged="nothing was sent",
                hint=f"`kai pull {repo.name}` first; or `kai fetch` and look at both",
                here=here.hex(),
                there=there.hex(),
                last=last.hex() if last else None,
            )
        updates.append(Update(name_of_current, there, here))
    for ref in also:
        there_it_is = landing.name_elsewhere(repo.name, ref)
        mine, old = repo.ref(RefName(ref)), theirs.get(there_it_is)
        if mine != old:
            updates.append(Update(there_it_is, old, mine))
    updates += [Update(ref, theirs[ref], None) for ref in delete if ref in theirs]
    return PushPlan(tuple(updates), conflicts(repo, theirs))


def _is_free_there(repo: Repository, commit: ObjectId, theirs: Mapping[str, bytes]) -> bool:
    """Whether the version in force here can be so over there: its number is not another version's."""
    number = versions.describe(repo, commit).version
    ref = version_ref(repo.name, Version.parse(number)) if number is not None else None
    return ref is not None and theirs.get(ref) in (None, repo.ref(ref))


def _by_number(item: tuple[RefName, ObjectId]) -> tuple[bool, object]:
    try:
        return False, Version.parse(item[0].rsplit("/", 1)[1]).key
    except InvalidName:
        return True, item[0]
