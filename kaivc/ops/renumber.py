"""Give a version that was never pushed another number."""

from __future__ import annotations

from contextlib import suppress

from kaivc import intents, keeping, revisions, trees, versions
from kaivc.errors import InvalidName, NoSuchRevision, VersionTaken
from kaivc.names import (
    Absent,
    Actor,
    Exactly,
    RefUpdate,
    Version,
    check_op_id,
    current_ref,
    tag_name,
    version_ref,
    withdrawn_ref,
)
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.storage import caches, journal
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter
from kaivc.versions import AgentVersion, Draft


@dataclass(frozen=True)
class Renumbered:
    """The version as it was and as it is; ``kept_as`` is the old tag's ref, ``in_force`` that it is current."""

    agent: str
    former: str
    former_commit: str
    version: str
    commit: str
    kept_as: str
    in_force: bool
    op_id: str
    seq: int


def renumber(
    repo: Repository,
    rev: str,
    *,
    to: str | None = None,
    bump: str | None = None,
    reason: str = "",
    op_id: str | None = None,
) -> Renumbered:
    """Make a version of the same files, parent, notes, author and time under another number, in place of ``rev``.

    The number is ``to``, or ``bump`` (patch unless said) counts it from the highest one known, here and as fetched. The
    old commit and tag stay, under ``refs/kai/withdrawn/``. VersionTaken for a version that a remote has.
    """
    if bump is not None and to is not None:
        raise InvalidName("a version number and a bump exclude each other", hint="give one of them")
    check_op_id(op_id)
    repo.require_live()
    wanted = Version.parse(to) if to is not None else None
    with repo.lock():
        intents.finish(repo)
        done = _landed_before(repo, rev, op_id)
        if done is not None:
            return done
        old = _version(repo, rev)
        number = versions.choose_number(repo, wanted, bump, versions.highest(repo))
        return _renumber(repo, old, number, reason, op_id)


def _landed_before(repo: Repository, rev: str, op_id: str | None) -> Renumbered | None:
    """What the operation of that id did, if it landed; InvalidName if that was something else."""
    seq = journal.op_seq(repo.catalog, repo.id, op_id) if op_id is not None else None
    if seq is None or op_id is None:
        return None
    moves = journal.reflog_of(repo.catalog, repo.id, seq)
    tags = [it for it in moves if tag_name(it.ref) is not None and it.ref.startswith("refs/tags/")]
    made = next((it for it in tags if it.new is not None), None)
    gone = next((it for it in tags if it.old is not None), None)
    former = gone.ref.rsplit("/", 1)[1] if gone is not None else ""
    if made is None or gone is None or made.new is None or gone.old is None or _is_other(rev, former):
        raise InvalidName(
            f"operation {op_id} of {repo.name} was another one",
            unchanged="nothing moved",
            hint="choose another operation id, or none",
            op_id=op_id,
        )
    was, now = repo.store.tag(gone.old), repo.store.tag(made.new)
    return Renumbered(
        repo.name,
        former.removeprefix("v"),
        was.target.hex(),
        made.ref.rsplit("/", 1)[1].removeprefix("v"),
        now.target.hex(),
        withdrawn_ref(repo.name, Version.parse(former)),
        any(it.ref in repo.names_of(current_ref(repo.name)) for it in moves),
        op_id,
        seq,
    )


def _is_other(rev: str, number: str) -> bool:
    """Whether a revision is the number of another version; other words may have meant any."""
    with suppress(InvalidName):
        return Version.parse(rev) != Version.parse(number)
    return False


def _version(repo: Repository, rev: str) -> AgentVersion:
    old = revisions.resolve(repo, rev)
    if old.version is None or repo.ref(version_ref(repo.name, Version.parse(old.version))) is None:
        raise NoSuchRevision(
            f"{rev!r:.100} is no version of {repo.name}", hint="name one: `kai versions`", revision=rev
        )
    pushed = [name for name in repo.refs("refs/remotes/") if name.endswith(f"/tags/{repo.name}/{old.tag}")]
    tag = repo.ref(version_ref(repo.name, Version.parse(old.version)))
    known = [name for name in pushed if repo.ref(name) == tag]
    if known:
        remote = known[0].split("/")[2]
        raise VersionTaken(
            f"{repo.name}@{old.tag} is known at {remote}: its number is used",
            unchanged="nothing moved",
            hint="make another version with `kai commit --bump`",
            remote=remote,
        )
    return old


def _renumber(repo: Repository, old: AgentVersion, number: Version, reason: str, op_id: str | None) -> Renumbered:
    actor, former = repo.home.actor, Version.parse(old.version or "")
    why = reason.strip() or f"{old.tag} is {number.tag} now"
    versions.check_notes(why)
    old_tag = repo.store.tag(repo.ref(version_ref(repo.name, former)) or old.oid)
    with StoreWriter(repo.store) as writer:
        draft = Draft(
            trees.flatten(repo.store, old.tree_oid),
            versions.manifest_of(repo, old.tree_oid),
            versions.parent(repo, old),
            number,
            old.notes,
            old.snapshot_type,
            Actor.parse(old.author),
            repo.store.commit(old.oid).time,
        )
        commit = versions.write_commit(writer, draft, repo.store)
        tag = versions.write_tag(repo, writer, draft, number, commit)
        there = repo.ref(version_ref(repo.name, former))
        if there is None or old_tag.target != old.oid:
            raise NoSuchRevision(f"{old.tag} of {repo.name} is no version", unchanged="nothing moved")
        in_force = repo.current == old.oid
        updates = [
            RefUpdate(version_ref(repo.name, number), Absent(), tag, actor, why),
            RefUpdate(withdrawn_ref(repo.name, former), Absent(), there, actor, why),
            RefUpdate(version_ref(repo.name, former), Exactly(there), None, actor, why),
        ]
        if in_force:
            updates.append(RefUpdate(current_ref(repo.name), Exactly(old.oid), commit, actor, why))
        op = Op("renumber", op_id or repo.new_op_id(), str(actor), repo.home.clock.now_ns(), why)
        todo = [intents.link(), intents.log()] if in_force else []
        landed = repo.land(writer, updates, op, todo, lambda db: caches.drop_highest(db, repo.id))
        done = f"{old.tag} of {repo.name} is {number.tag}"
        intents.finish_landed(repo, done)
        with intents.landed(done):
            keeping.drop_directory(repo, old.tag)
    return Renumbered(
        repo.name,
        str(former),
        old.commit,
        str(number),
        commit.hex(),
        withdrawn_ref(repo.name, former),
        in_force,
        landed.op.op_id,
        landed.seq,
    )
