"""What is still to be done after a transaction; done again until done.

Each effect takes its target from the catalog, never from memory, and may be done twice.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kaivc import inforce, plans, relocation, trees, versions, workspace
from kaivc.errors import KaiError, NoSpace, StorageFailed
from kaivc.keeping import Notes, evict_if_possible
from kaivc.names import Absent, Exactly, ObjectId, RefUpdate, backup_ref
from kaivc.plans import RestorePlan
from kaivc.reading import put_as_it_is
from kaivc.repository import Intent, Repository
from kaivc.sqlitefiles import Guards, NotReadable, Scratch, backup, size_of
from kaivc.storage import journal
from kaivc.storage.gitobjects import EXECUTABLE, FILE, SYMLINK, Entry, Kind
from kaivc.storage.journal import IntentRow, Op
from kaivc.storage.writer import StoreWriter
from kaivc.versions import Draft
from kaivc.workspace import Applier, Displaced

WORKSPACE = "workspace"


def link() -> Intent:
    """Let ``current`` follow its ref."""
    return Intent(journal.LINK, b"")


def log() -> Intent:
    """Bring ``rollback.log`` up to the reflog."""
    return Intent(journal.LOG, b"")


def restore(plan: RestorePlan, backup_number: int) -> Intent:
    """Carry a staged plan out in the workspace; the number is that of the backup, made or not."""
    return Intent(WORKSPACE, plan.encode(backup_number))


def finish(repo: Repository, *, guarded: bool = False, live: bool = False, evict: bool = False) -> list[str]:
    """Do everything that is to be done, under the agent's lock; the kinds of what was done.

    ``guarded`` says that the caller holds the databases that change. Without it they are locked here, for this is
    then a restore that was cut; with ``live`` it goes on beside an agent that has them open. With ``evict`` views that
    are too many go as well.
    """
    rows = journal.intents(repo.catalog, repo.id)
    _relocate(repo, rows)  # first of all: the rest goes by the agent's name
    if not guarded:
        inforce.settle(repo)
    notes = Notes()
    moved_workspace = any(row.kind == WORKSPACE for row in rows)
    for row in rows:
        if row.kind == WORKSPACE:
            _restore(repo, row, guarded=guarded, live=live)
            # Synced: done again after a power cut it would undo what the agent wrote since.
            with repo.catalog.transaction() as db:
                journal.drop_intents(db, repo.id, [row.id])
            _clean_up(repo, row.payload)
        elif row.kind in EFFECTS:
            EFFECTS[row.kind](repo, notes, sync=moved_workspace)
    if not guarded:
        _sweep(repo)
    if evict:
        evict_if_possible(repo, notes)
    quick = [row.id for row in rows if row.kind in EFFECTS]
    if quick:
        with repo.catalog.transaction(durable=False) as db:
            journal.drop_intents(db, repo.id, quick)
            notes.write(repo, db)
    return [row.kind for row in rows]


def finish_what_fits(repo: Repository) -> None:
    """Do everything that is to be done, for who makes room on the disk: what the disk has no room for can wait.

    View, link and log can, for nothing is read from them that the store does not say. NoSpace for anything else.
    """
    try:
        finish(repo)
    except NoSpace:
        if any(row.kind not in EFFECTS for row in journal.intents(repo.catalog, repo.id)):
            raise
        _sweep(repo)


def relocate(repo: Repository) -> None:
    """Do what a rename or a removal that was cut left to do, under the agent's lock."""
    _relocate(repo, journal.intents(repo.catalog, repo.id))


def _relocate(repo: Repository, rows: list[IntentRow]) -> None:
    for row in rows:
        if row.kind in RELOCATIONS:
            RELOCATIONS[row.kind](repo, row.payload)
            with repo.catalog.transaction() as db:
                journal.drop_intents(db, repo.id, [row.id])


def _sweep(repo: Repository) -> None:
    """Remove scratch that a cut operation left; with no intent, nothing of it is wanted."""
    for path in (repo.layout.staging(repo.name), repo.layout.displaced(repo.name)):
        if os.path.isdir(path):
            repo.vfs.remove_tree(path)
    versions_dir = repo.layout.versions(repo.name)
    for name in os.listdir(versions_dir) if os.path.isdir(versions_dir) else []:
        if name.startswith((".new-", ".old-")):
            with suppress(StorageFailed):  # another member of the group made it
                repo.vfs.remove_tree(os.path.join(versions_dir, name))
    for mark in repo.layout.unfinished(repo.name):
        if os.path.lexists(mark):
            repo.vfs.unlink(mark, missing_ok=True)


@contextmanager
def landed(what: str, rest: str = "the next command that writes does what is left") -> Iterator[None]:
    """Let an error say that ``what`` was asked is done, and what of the ``rest``: the transaction is through."""
    try:
        yield
    except KaiError as error:
        error.unchanged = f"{what}; {rest}"
        raise


def finish_landed(repo: Repository, what: str) -> None:
    """Do what a transaction of this very command left to do, databases held."""
    with landed(what):
        finish(repo, guarded=True)


def _link(repo: Repository, notes: Notes, *, sync: bool) -> None:
    inforce.link_current(repo, sync=sync, notes=notes)


def _log(repo: Repository, notes: Notes, *, sync: bool) -> None:  # noqa: ARG001 - one shape for all effects
    inforce.write_rollback_log(repo)


EFFECTS: dict[str, Callable[..., None]] = {journal.LINK: _link, journal.LOG: _log}
RELOCATIONS = {journal.RENAME: relocation.finish_rename, journal.REMOVE: relocation.finish_remove}

# ---------------------------------------------------------------- the workspace


def _restore(repo: Repository, row: IntentRow, *, guarded: bool, live: bool) -> None:
    plan, number = plans.decode_plan(row.payload)
    repo.vfs.make_dirs(repo.workspace, repo.home.dir_mode)
    with Guards(repo.settings.lock_wait, repo.home.sleep) as guards:
        if not guarded and not live and not plan.live:
            for path in Applier(repo, plan).left_to_do():
                full = os.path.join(os.fsencode(repo.workspace), path)
                if workspace.is_database(full) and guards.watch(full):
                    guards.lock(full)
        moved = Applier(repo, plan).run()
    # The databases' locks are let go before this: whoever waited for one has the old file open.
    held = guarded and not plan.live
    _save_late_changes(repo, plan, [it for it in moved if not (held and it.is_database)], number, row.id)


def _clean_up(repo: Repository, payload: bytes) -> None:
    plan, _ = plans.decode_plan(payload)
    Applier(repo, plan).clean_up()


def _save_late_changes(repo: Repository, plan: RestorePlan, moved: list[Displaced], number: int, intent: int) -> None:
    """Add what was written to a displaced file after it was captured to the backup."""
    rounds: list[dict[bytes, Entry]] = []
    with StoreWriter(repo.store) as writer:
        for item in moved:
            entry = _entry_of(repo, plan, item, writer)
            if entry is not None and entry != plan.left.get(item.path):
                free = next((late for late in rounds if item.path not in late), None)
                if free is None:
                    rounds.append(free := {})
                free[item.path] = entry
        for late in rounds:
            _amend(repo, writer, late, plan, number, intent if late is rounds[-1] else None)


def _entry_of(repo: Repository, plan: RestorePlan, item: Displaced, writer: StoreWriter) -> Entry | None:
    path = os.path.join(os.fsencode(repo.layout.displaced(repo.name, plan.op)), item.name)
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        return None  # a pipe, a socket: it held nothing
    if stat.S_ISLNK(mode):
        return Entry(SYMLINK, writer.put(Kind.BLOB, os.fsencode(os.readlink(path))))
    git_mode = EXECUTABLE if mode & stat.S_IXUSR else FILE
    left = plan.left.get(item.path)
    like = left.oid if left is not None else None
    if workspace.is_database(path):
        return Entry(git_mode, _put_database(repo, path, item, writer, like))
    return Entry(git_mode, put_as_it_is(writer, path, item.path, repo.settings.read_tries, like))


def _put_database(
    repo: Repository, path: bytes, item: Displaced, writer: StoreWriter, like: ObjectId | None
) -> ObjectId:
    scratch = os.path.join(repo.layout.tmp, f"backup-{repo.new_op_id()}")
    try:
        with Scratch(repo.vfs, scratch) as file:
            source = backup(path, file, repo.settings.lock_wait)
            return writer.put_blob(source, size_of(source), like)
    except NotReadable:
        return put_as_it_is(writer, path, item.path, repo.settings.read_tries, like)


def _amend(
    repo: Repository, writer: StoreWriter, late: dict[bytes, Entry], plan: RestorePlan, number: int, intent: int | None
) -> None:
    """Move the backup on to one with the late changes, or make it if the workspace was clean.

    The intent goes with it: done twice, this would save the same changes again.
    """
    name = backup_ref(repo.name, number)
    old = repo.ref(name)
    base = versions.describe(repo, old or plan.base)
    files = {**trees.flatten(repo.store, base.tree_oid), **late}
    now = repo.home.clock.now_ns()
    actor = repo.home.actor
    notes = f"What was written while operation {plan.op} replaced the workspace"
    manifest = versions.manifest_of(repo, versions.describe(repo, plan.base).tree_oid)
    draft = Draft(files, manifest, base, None, notes, "rollback", actor, now // 1_000_000_000)
    commit = versions.write_commit(writer, draft, repo.store, fold=False)
    update = RefUpdate(name, Exactly(old) if old else Absent(), commit, actor, notes)
    op = Op("backup", repo.new_op_id(), str(actor), now, notes, backup=number)
    done = [intent] if intent is not None else []
    repo.land(writer, [update], op, also=lambda db: journal.drop_intents(db, repo.id, done))
