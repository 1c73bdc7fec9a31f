"""What is still to be done after a transaction; done again until done.

Each effect takes its target from the catalog, never from memory, and may be done twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from kaivc import inforce, plans, trees, versions, workspace
from kaivc.names import Absent, Exactly, ObjectId, RefUpdate, backup_ref
from kaivc.plans import RestorePlan
from kaivc.repository import Intent, Repository
from kaivc.sqlitefiles import Guards, NotReadable, Scratch, backup, size_of
from kaivc.storage import journal
from kaivc.storage.gitobjects import EXECUTABLE, FILE, SYMLINK, Entry, Kind
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter
from kaivc.versions import Draft
from kaivc.workspace import Applier, Displaced

LINK, WORKSPACE, LOG = "link", "workspace", "rollback.log"


def link() -> Intent:
    """Let ``current`` follow its ref."""
    return Intent(LINK, b"")


def log() -> Intent:
    """Bring ``rollback.log`` up to the reflog."""
    return Intent(LOG, b"")


def restore(plan: RestorePlan, backup_number: int | None) -> Intent:
    """Carry a staged plan out in the workspace."""
    return Intent(WORKSPACE, plan.encode(backup_number))


def finish(repo: Repository, *, guarded: bool = False) -> list[str]:
    """Do everything that is to be done, under the agent's lock; the kinds of what was done.

    ``guarded`` says that the caller holds the databases that change. Without it they are locked here, for this is
    then a restore that was cut.
    """
    rows = journal.intents(repo.catalog, repo.id)
    if not rows and not inforce.is_linked(repo):
        inforce.link_current(repo, sync=False)
    moved_workspace = any(row.kind == WORKSPACE for row in rows)
    for row in rows:
        if row.kind == WORKSPACE:
            _restore(repo, row.payload, guarded=guarded)
            # Synced: done again after a power cut it would undo what the agent wrote since.
            with repo.catalog.transaction() as db:
                journal.drop_intents(db, [row.id])
            _clean_up(repo, row.payload)
        else:
            EFFECTS[row.kind](repo, sync=moved_workspace)
    if not rows:
        _sweep(repo)
    quick = [row.id for row in rows if row.kind != WORKSPACE]
    if quick:
        with repo.catalog.transaction(durable=False) as db:
            journal.drop_intents(db, quick)
    return [row.kind for row in rows]


def _sweep(repo: Repository) -> None:
    """Remove scratch that a cut operation left; with no intent, nothing of it is wanted."""
    for path in (repo.layout.staging(repo.name), repo.layout.displaced(repo.name)):
        if os.path.isdir(path):
            repo.vfs.remove_tree(path)


def pending(repo: Repository) -> list[str]:
    """The kinds of what is to be done; readers report it."""
    return [row.kind for row in journal.intents(repo.catalog, repo.id)]


def _link(repo: Repository, *, sync: bool) -> None:
    inforce.link_current(repo, sync=sync)


def _log(repo: Repository, *, sync: bool) -> None:  # noqa: ARG001 - one shape for all effects
    inforce.write_rollback_log(repo)


EFFECTS: dict[str, Callable[..., None]] = {LINK: _link, LOG: _log}

# ---------------------------------------------------------------- the workspace


def _restore(repo: Repository, payload: bytes, *, guarded: bool) -> None:
    plan, number = plans.decode_plan(payload)
    with Guards(repo.settings.lock_wait, repo.home.sleep) as guards:
        if not guarded and not plan.live:
            for path in sorted(plan.left):
                full = os.path.join(os.fsencode(repo.workspace), path)
                if workspace.is_database(full) and guards.watch(full):
                    guards.lock(full)
        moved = Applier(repo, plan).run()
    # The databases' locks are let go before this: whoever waited for one has the old file open.
    _save_late_changes(repo, plan, moved, number)


def _clean_up(repo: Repository, payload: bytes) -> None:
    plan, _ = plans.decode_plan(payload)
    Applier(repo, plan).clean_up()


def _save_late_changes(repo: Repository, plan: RestorePlan, moved: list[Displaced], number: int | None) -> None:
    """Add what was written to a displaced file after it was captured to the backup."""
    with StoreWriter(repo.store) as writer:
        late = {}
        for item in moved:
            entry = _entry_of(repo, plan, item, writer)
            if entry is not None and entry != plan.left.get(item.path):
                late[item.path] = entry
        if late:
            _amend(repo, writer, late, plan, number)


def _entry_of(repo: Repository, plan: RestorePlan, item: Displaced, writer: StoreWriter) -> Entry | None:
    path = os.path.join(os.fsencode(repo.layout.displaced(repo.name, plan.op)), item.name)
    if os.path.islink(path):
        return Entry(SYMLINK, writer.put(Kind.BLOB, os.fsencode(os.readlink(path))))
    mode = EXECUTABLE if os.stat(path).st_mode & 0o100 else FILE
    if workspace.is_database(path):
        if not plan.live and not os.path.exists(path + b"-wal"):
            return None  # It was locked from before it was captured, and is moved now: SQLite writes to it no more.
        return Entry(mode, _put_database(repo, path, writer))
    with open(path, "rb") as file:
        return Entry(mode, writer.put_blob(file, os.fstat(file.fileno()).st_size))


def _put_database(repo: Repository, path: bytes, writer: StoreWriter) -> ObjectId:
    scratch = os.path.join(repo.layout.tmp, f"backup-{repo.new_op_id()}")
    try:
        with Scratch(repo.vfs, scratch) as file:
            source = backup(path, file, repo.settings.lock_wait)
            return writer.put_blob(source, size_of(source))
    except NotReadable:
        with open(path, "rb") as plain:
            return writer.put_blob(plain, os.fstat(plain.fileno()).st_size)


def _amend(
    repo: Repository, writer: StoreWriter, late: dict[bytes, Entry], plan: RestorePlan, number: int | None
) -> None:
    """Move the backup on to one with the late changes; make one if the workspace was clean."""
    seq = number if number is not None else repo.row().op_seq + 1
    name = backup_ref(repo.name, seq)
    old = repo.ref(name)
    base = versions.describe(repo, old or plan.base)
    files = trees.flatten(repo.store, base.tree_oid) | late
    now = repo.home.clock.now_ns()
    actor = repo.home.actor
    notes = f"What was written while operation {plan.op} replaced the workspace"
    manifest = versions.manifest_of(repo, versions.describe(repo, plan.base).tree_oid)
    draft = Draft(files, manifest, base, None, notes, "rollback", actor, now // 1_000_000_000)
    commit = versions.write_commit(writer, draft, fold=False)
    update = RefUpdate(name, Exactly(old) if old else Absent(), commit, actor, notes)
    repo.land(writer, [update], Op("backup", repo.new_op_id(), str(actor), now, notes, backup=seq))
