"""Make a committed snapshot a version, and let ``current`` point at it."""

from __future__ import annotations

from kaivc import intents, keeping, promotion, retention, scratch, snapshots, versions
from kaivc.errors import InvalidName, NoSuchRevision
from kaivc.movement import MovePlan, landed_before
from kaivc.names import Actor, ObjectId, Version, check_op_id
from kaivc.promotion import Promoter, Promotion
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.snapshots import Snapshot
from kaivc.versions import AgentVersion

NANO = 1_000_000_000


@dataclass(frozen=True)
class SnapshotPromoted:
    """A version that a snapshot became, or would: how ``current`` and the workspace move, and what it holds.

    ``version`` has no v; ``commit`` is None in a dry run. ``changes`` are (letter, path) against ``parent``.
    """

    agent: str
    id: str
    version: str
    commit: str | None
    parent: str
    changes: tuple[tuple[str, str], ...]
    move: MovePlan


def snapshot_promote(  # noqa: PLR0913 - a keyword for each flag
    repo: Repository,
    name: str,
    *,
    bump: str | None = None,
    version: str | None = None,
    notes: str = "",
    author: Actor | None = None,
    time: int | None = None,
    with_state: bool = False,
    force: bool = False,
    dry_run: bool = False,
    live: bool = False,
    op_id: str | None = None,
) -> SnapshotPromoted:
    """Make a version of a snapshot's logic, config and lock files, and of the state that the workspace has.

    With ``with_state`` the state is the snapshot's too. The parent is what the snapshot was made of, which must be in
    force: LostRace otherwise, unless ``force``. The workspace follows; what no version holds of it is saved as a backup
    first. Raises VersionTaken, and what a move and a capture raise; nothing moves then.
    """
    if bump is not None and version is not None:
        raise InvalidName("a version number and a bump exclude each other", hint="give one of them")
    versions.check_notes(notes)
    check_op_id(op_id)
    wanted = Version.parse(version) if version is not None else None

    def planned() -> tuple[Promoter, AgentVersion]:
        at = _commit_of(repo, snapshots.find(repo, name))
        last = versions.highest(repo)
        number = versions.choose_number(repo, wanted, bump, last)
        said = notes.strip() or f"{repo.name} {number.tag}, of snapshot {snapshots.bare(name, repo.name)}"
        now = repo.home.clock.now_ns() // NANO if time is None else time
        actor, given = author or repo.home.actor, snapshots.bare(name, repo.name)
        return Promoter(
            repo,
            Promotion(at, given, number, last, said, actor, now, with_state, force, live, op_id),
        ), at

    if dry_run:
        promoter, at = planned()
        with retention.reading(repo, at):
            return _told(repo, promoter, promoter.dry_run(), at)
    repo.home.require_writable()
    scratch.collect(repo.home)
    with repo.lock():
        intents.finish(repo, live=live)
        if (before := landed_before(repo, op_id)) is not None:
            return _landed(repo, name, before)
        promoter, at = planned()
        done = _told(repo, promoter, promoter.apply(), at)
        keeping.evict_if_possible(repo)
    return done


def _commit_of(repo: Repository, found: Snapshot) -> AgentVersion:
    if found.commit is None:
        why = "it is under test" if found.running else "its layer waits to be looked at"
        raise NoSuchRevision(
            f"snapshot {found.id} of {repo.name} is not committed: {why}",
            unchanged="nothing moved",
            hint=f"`kai snapshot {repo.name} --test {found.version} --commit` makes one that can be promoted",
            revision=found.name,
        )
    return versions.describe(repo, ObjectId(bytes.fromhex(found.commit)))


def _told(repo: Repository, promoter: Promoter, move: MovePlan, at: AgentVersion) -> SnapshotPromoted:
    base = versions.parent(repo, at)
    commit = promoter.commit
    return SnapshotPromoted(
        agent=repo.name,
        id=promoter.name,
        version=move.to_version.removeprefix("v"),
        commit=commit.hex() if commit else None,
        parent=base.tag if base else "",
        changes=promoter.changes(),
        move=move,
    )


def _landed(repo: Repository, name: str, move: MovePlan) -> SnapshotPromoted:
    """What an operation of that id did."""
    made = versions.describe(repo, ObjectId(bytes.fromhex(move.to_commit)))
    base = versions.parent(repo, made)
    return SnapshotPromoted(
        agent=repo.name,
        id=snapshots.bare(name, repo.name),
        version=made.version or "",
        commit=made.commit,
        parent=base.tag if base else "",
        changes=promotion.changed(repo, base, made) if base else (),
        move=move,
    )
