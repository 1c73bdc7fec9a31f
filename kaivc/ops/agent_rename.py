"""Give an agent another name; its versions, its history and its workspace go along."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

from kaivc import intents, leases, making, relocation
from kaivc.errors import KaiError, NameTaken, OutcomeUnknown
from kaivc.names import Absent, Exactly, ObjectId, RefName, RefUpdate, check_name, heads_prefix, tags_prefix
from kaivc.records import dataclass, replace
from kaivc.repository import Landed, OpenHome, Repository
from kaivc.settings import Local
from kaivc.storage import journal
from kaivc.storage.catalog import drop_former, put_former
from kaivc.storage.gitobjects import Kind, encode_tag
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter


@dataclass(frozen=True)
class Renamed:
    """An agent under its new name; ``refs`` are how many moved with it."""

    former: str
    agent: str
    workspace: str
    linked: bool
    refs: int
    op_id: str
    seq: int


def agent_rename(home: OpenHome, old: str, new: str, *, reason: str = "") -> Renamed:
    """Rename an agent; nobody else may have the old name then, the agent itself may take it back.

    Version tags say the agent's name, so each gets a new tag object; commits do not, and stay as they are. Raises
    NoSuchAgent, InvalidName, NameTaken, AgentBusy while it runs, ChecksumMismatch for a damaged tag; nothing moved
    then.
    """
    check_name("agent", new)
    repo = home.repository(old)
    repo.require_live()
    if old == new:
        raise NameTaken(f"the agent is called {new!r} already", unchanged="nothing moved", name=new)
    making.check_free(home, new, repo.id)
    with (
        relocation.not_collected(repo),
        repo.lock(),
        leases.kept_out(repo),
        making.name_held(home, new, home.settings.lock_wait),
    ):
        making.check_free(home, new, repo.id)
        making.sweep(home, new)
        repo = repo.linked_now()
        intents.finish(repo)
        with home.catalog.transaction() as db:
            intent = relocation.rename(old, new)
            journal.put_intent(db, repo.id, intent.kind, intent.payload)
        try:
            relocation.prepare_rename(repo, new)
            landed, count = _land(repo, new, reason)
        except OutcomeUnknown:
            raise
        except BaseException:
            with suppress(KaiError):  # the next command that writes takes back what was prepared
                intents.finish(repo)
            raise
        here = Repository(_moved(repo.home, old, new), new, repo.id)
        intents.finish_landed(here, f"{old} is renamed to {new}")
    return Renamed(old, new, here.workspace, new in here.home.local.workspaces, count, landed.op.op_id, landed.seq)


def _land(repo: Repository, new: str, reason: str) -> tuple[Landed, int]:
    refs = repo.refs("refs/")
    with StoreWriter(repo.store) as writer:
        moves = {name: moved for name in refs if (moved := _renamed(name, repo.name, new))}
        targets = {name: _target(repo, writer, name, moves[name], refs[name]) for name in moves}
        reason = reason.strip() or f"renamed from {repo.name} to {new}"
        actor = repo.home.actor
        updates = [RefUpdate(name, Exactly(refs[name]), None, actor, reason) for name in moves]
        updates += [RefUpdate(moves[name], Absent(), oid, actor, reason) for name, oid in targets.items()]
        # Over there it keeps its name: what was known of that agent is not of this one.
        gone = [name for name in refs if name.startswith("refs/remotes/")]
        updates += [RefUpdate(name, Exactly(refs[name]), None, actor, reason) for name in gone]
        op = Op(journal.RENAME, repo.new_op_id(), str(actor), repo.home.clock.now_ns(), reason)
        writer.sync()
        relocation.link_packs(repo, new)  # one may be new

        def retire(db: sqlite3.Connection) -> None:
            drop_former(db, new)
            put_former(db, repo.name, repo.id)

        landed = repo.land(writer, updates, op, also=retire, become=lambda row: row._replace(name=new))
    return landed, len(moves)


def _renamed(name: RefName, old: str, new: str) -> RefName | None:
    """What a ref is called when its agent is; None for one that does not say the agent's name."""
    for prefix in (heads_prefix, tags_prefix):
        if name.startswith(prefix(old)):
            return RefName(prefix(new) + name.removeprefix(prefix(old)))
    return None


def _target(repo: Repository, writer: StoreWriter, old: RefName, new: RefName, oid: ObjectId) -> ObjectId:
    if not old.startswith(tags_prefix(repo.name)):
        return oid
    tag = repo.store.tag(oid)
    return writer.put(Kind.TAG, encode_tag(replace(tag, name=new.removeprefix("refs/tags/"))))


def _moved(home: OpenHome, old: str, new: str) -> OpenHome:
    """The home with the link of its workspace, if it has one, under the new name."""
    local = home.local
    links = {new if name == old else name: path for name, path in local.workspaces.items() if name != new}
    inodes = {new if name == old else name: inode for name, inode in local.inodes.items() if name != new}
    return replace(home, local=Local(links, local.secrets, inodes))
