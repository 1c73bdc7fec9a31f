"""Follow a remote: make an agent of what it has, or adopt its versions and let ``current`` go where it is there."""

from __future__ import annotations

from kaivc import intents, landing
from kaivc.landing import Arrival
from kaivc.names import check_name, current_ref, tags_prefix
from kaivc.records import dataclass
from kaivc.remotes.base import Remote
from kaivc.remotes.planning import plan_pull
from kaivc.remotes.tracking import Fetched, conflict_error, fetch, make_agent, tracked_refs
from kaivc.repository import OpenHome, Repository
from kaivc.versions import describe, numbers


@dataclass(frozen=True)
class Pulled:
    """What came of a pull.

    ``adopted`` are the numbers of versions that are here now; ``from_version`` and ``to_version`` are those in force
    before and after, ``made`` says that the agent is new here. ``backup`` holds what the workspace held that no version
    has.
    """

    agent: str
    remote: str
    adopted: tuple[str, ...]
    from_version: str | None
    to_version: str | None
    made: bool
    backup: str | None
    objects: int
    seq: int | None


def follow(
    home: OpenHome, far: Remote, name: str, agent: str, why: str, *, live: bool = False, op_id: str | None = None
) -> Pulled:
    """Bring an agent here as the remote ``name`` has it; one that is not here yet is made.

    Diverged, once versions are adopted, if ``current`` moved on both sides. VersionConflict for numbers that
    are other versions here, once all else is done.
    """
    check_name("agent", agent)
    if home.catalog.agent(agent) is None:
        return _make(home, name, far, agent, why, op_id)
    repo = home.repository(agent)
    repo.require_live()
    return _follow(repo, name, fetch(repo, name, far, why), why, live=live, op_id=op_id)


def _make(home: OpenHome, name: str, far: Remote, agent: str, why: str, op_id: str | None) -> Pulled:
    done = make_agent(home, name, far, agent, "pull", why, op_id)
    with intents.landed(f"{agent} is made"):
        repo = home.repository(agent)
        tags, now = tuple(number.tag for number in numbers(repo)), _tag(repo)
    return Pulled(agent, name, tags, None, now, made=True, backup=None, objects=done.objects, seq=done.seq)


def _follow(repo: Repository, name: str, fetched: Fetched, why: str, *, live: bool, op_id: str | None) -> Pulled:
    home, theirs = repo.home, tracked_refs(repo, name)
    left = _tag(repo)
    plan = plan_pull(repo, name)
    moves: list[tuple[str, bytes | None, bytes | None]] = [(ref, None, theirs[ref]) for ref in plan.adopt]
    if plan.current is not None:
        moves.append((current_ref(repo.name), repo.current, plan.current))
    backup, seq = None, None
    if moves:
        updates = landing.updates_of(moves, home.actor, why)
        arrival = Arrival("pull", op_id or repo.new_op_id(), home.actor, why, updates)
        tips = {ref: new for ref, _, new in moves if new is not None}
        done = landing.land(repo, None, arrival, tips, None, live=live)
        backup = f"backups/{done.backup}" if done.backup else None
        seq = done.seq
    if plan.diverged is not None:
        raise plan.diverged
    prefix = tags_prefix(repo.name)
    adopted = tuple(ref.removeprefix(prefix) for ref in plan.adopt)
    if fetched.conflicts:
        rest = f"all else is done; adopted: {', '.join(adopted)}" if adopted else "all else is done"
        raise conflict_error(repo.name, name, fetched.conflicts, rest)
    with intents.landed("what was pulled is here"):
        now = _tag(repo)
    return Pulled(repo.name, name, adopted, left, now, made=False, backup=backup, objects=fetched.objects, seq=seq)


def _tag(repo: Repository) -> str | None:
    oid = repo.current
    return describe(repo, oid).tag if oid is not None else None
