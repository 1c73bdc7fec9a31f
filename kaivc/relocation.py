"""What follows a rename or a removal of an agent on the disk: its directory, its packs, its link.

Each is done again until done. A rename's intent is written before anything else is: without the transaction that
gives the new name, what was prepared for it is taken back.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from kaivc import links, trees, versions
from kaivc.errors import KaiError, LockTimeout, StorageFailed
from kaivc.manifest import DEFAULT, Manifest, StateClass
from kaivc.names import ObjectId
from kaivc.reading import is_settled, signature
from kaivc.repository import Intent, Repository
from kaivc.sqlitefiles import base_of
from kaivc.storage import caches, journal
from kaivc.storage.caches import Known
from kaivc.storage.gitobjects import SYMLINK, Entry, Kind
from kaivc.storage.writer import StoreWriter
from kaivc.trees import Files
from kaivc.workspace import hash_file

POLL = 0.05
_NEVER_READ = frozenset([b".git", b".kai"])
_WORTHLESS = b"__pycache__"


def rename(old: str, new: str) -> Intent:
    """Give the agent's directory and packs its new name."""
    return Intent(journal.RENAME, f"{old} {new}".encode())


def remove(saved: ObjectId | None) -> Intent:
    """Take the agent's directory away; ``saved`` is the commit that holds its workspace."""
    return Intent(journal.REMOVE, saved or b"")


# ---------------------------------------------------------------- rename


@contextmanager
def not_collected(repo: Repository) -> Iterator[None]:
    """Have no gc at work meanwhile: it makes packs where the agent's were. LockTimeout after ``lock.wait``."""
    repo.home.require_writable()
    repo.vfs.make_dirs(repo.layout.locks, repo.home.dir_mode)
    waited = 0.0
    while (fd := repo.vfs.lock(repo.layout.collecting(repo.name))) is None:
        if waited >= repo.settings.lock_wait:
            raise LockTimeout(
                f"a gc of {repo.name} is at work",
                unchanged="nothing moved",
                hint="let it end, then run the command again",
                agent=repo.name,
            )
        repo.home.sleep(POLL)
        waited += POLL
    try:
        yield
    finally:
        os.close(fd)


def prepare_rename(repo: Repository, new: str) -> None:
    """Make packs and link known under the new name too, so that a reader finds them under either."""
    path = links.standing(repo.home.local, repo.name)
    repo.vfs.make_dirs(repo.layout.pack_dir(new), repo.home.dir_mode)
    link_packs(repo, new)
    repo.vfs.sync_dir(repo.layout.packs)
    _note(repo, {new: path})


def link_packs(repo: Repository, new: str) -> None:
    """Give every pack a second name, under the agent's new one."""
    _link_packs(repo, repo.layout.pack_dir(repo.name), repo.layout.pack_dir(new))


def finish_rename(repo: Repository, payload: bytes) -> None:
    """Let the names on the disk follow that of the catalog; StorageFailed if something stands in the way.

    What moved is synced also where it moved before: it may have been killed in between.
    """
    old, new = journal.decode_rename(payload)
    if repo.name == new:
        _move_directory(repo, old)
        repo.vfs.sync_dir(repo.layout.root)
        _move_packs(repo, old)
        repo.vfs.sync_dir(repo.layout.packs)
        _note(repo, {old: None})
        _remove_scratch(repo, old)
    else:
        repo.vfs.remove_tree(repo.layout.pack_dir(new))
        _note(repo, {new: None})


def _move_directory(repo: Repository, old: str) -> None:
    source, target = repo.layout.agent(old), repo.layout.agent(repo.name)
    if not os.path.lexists(source):
        return
    if os.path.lexists(target):
        raise StorageFailed(
            f"{target} is in the way of the directory of {repo.name}, which was {old}",
            unchanged=f"the agent is renamed; its directory is still {source}",
            hint="move it away, then run the command again",
            path=target,
        )
    repo.vfs.rename(source, target)


def _move_packs(repo: Repository, old: str) -> None:
    source, target = repo.layout.pack_dir(old), repo.layout.pack_dir(repo.name)
    if not os.path.isdir(source):
        return
    with StoreWriter(repo.store) as writer:
        writer.sync()  # the record that says the new name: packs under a name that none of them says are nobody's
        with repo.catalog.transaction() as db:
            writer.record(db)
    _link_packs(repo, source, target)
    repo.vfs.remove_tree(source)


def _link_packs(repo: Repository, source: str, target: str) -> None:
    for name in sorted(os.listdir(source)) if os.path.isdir(source) else []:
        if not os.path.lexists(os.path.join(target, name)):
            repo.vfs.link(os.path.join(source, name), os.path.join(target, name))
    repo.vfs.sync_dir(target)


def _note(repo: Repository, changes: dict[str, str | None]) -> None:
    with repo.home.links_held():
        links.write(repo.vfs, repo.layout, changes)


def _remove_scratch(repo: Repository, name: str) -> None:
    repo.vfs.remove_tree(repo.layout.staging(name).rstrip("/"))
    repo.vfs.remove_tree(repo.layout.displaced(name).rstrip("/"))


# ---------------------------------------------------------------- remove


def finish_remove(repo: Repository, payload: bytes) -> None:
    """Take away what the store holds; what it does not hold is kept below ``.kai/removed``."""
    vfs, layout = repo.vfs, repo.layout
    source, aside = layout.agent(repo.name), layout.removed(repo.name)
    if os.path.lexists(source) and not os.path.lexists(aside):
        vfs.make_dirs(os.path.dirname(aside), repo.home.dir_mode)
        vfs.sync_dir(layout.kai)  # what is moved in has no second copy
        vfs.rename(source, aside)
    # Also where it was moved before: a removal may have been killed in between.
    if os.path.isdir(os.path.dirname(aside)):
        vfs.sync_dir(os.path.dirname(aside))
    vfs.sync_dir(layout.root)
    if os.path.isdir(aside) and not os.path.islink(aside):
        _empty(repo, os.fsencode(aside), ObjectId(payload) if payload else None)
    _note(repo, {repo.name: None})
    _remove_scratch(repo, repo.name)
    with repo.catalog.transaction(durable=False) as db:
        caches.forget(db, repo.id)


def _empty(repo: Repository, aside: bytes, saved: ObjectId | None) -> None:
    live = os.path.join(aside, b"workspace")
    if os.path.isdir(live):
        files, manifest = _held(repo, saved)
        if not list(unsaved(repo, live, files, manifest, repo.known_files())):
            repo.vfs.remove_tree(live)
    for own in (b"current", b"versions", b"rollback.log", b"snapshot_temp"):
        repo.vfs.remove_tree(os.path.join(aside, own))
    if not os.listdir(aside):
        repo.vfs.remove_dir(aside)


def _held(repo: Repository, saved: ObjectId | None) -> tuple[Files, Manifest]:
    if saved is None:
        return {}, DEFAULT
    try:
        tree = versions.describe(repo, saved).tree_oid
        return trees.flatten(repo.store, tree), versions.manifest_of(repo, tree)
    except KaiError:
        return {}, DEFAULT  # what cannot be read holds nothing


def unsaved(
    repo: Repository, root: bytes, files: Files, manifest: Manifest, known: dict[bytes, dict[bytes, Known]]
) -> Iterator[bytes]:
    """The paths of a workspace that ``files`` do not hold: ignored or secret ones, and those written since.

    ``.git`` is named, and not looked into. A file whose status is as ``known`` says is not read again.
    """
    above = {parent for path in files for parent in _above(path)}
    todo = [b""]
    while todo:
        prefix = todo.pop()
        with os.scandir(os.path.join(root, prefix)) as entries:
            listing = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
        names = {name for name, _ in listing}
        for name, status in listing:
            path = prefix + name
            if not stat.S_ISDIR(status.st_mode):
                held = path in files and manifest.state_class(path) is not StateClass.SECRET
                if not (held and _is_as_known(repo, root, path, files[path], status, known)) and not (
                    base_of(name) in names and prefix + (base_of(name) or b"") in files
                ):
                    yield path
            elif name in _NEVER_READ:
                yield path + b"/"
            elif name != _WORTHLESS or path in above:
                todo.append(path + b"/")


def _above(path: bytes) -> Iterator[bytes]:
    while path := path.rpartition(b"/")[0]:
        yield path


def _is_as_known(
    repo: Repository,
    root: bytes,
    path: bytes,
    entry: Entry,
    status: os.stat_result,
    known: dict[bytes, dict[bytes, Known]],
) -> bool:
    full = os.path.join(root, path)
    try:
        if stat.S_ISLNK(status.st_mode):
            return entry.mode == SYMLINK and repo.home.format.hash(Kind.BLOB, os.readlink(full)) == entry.oid
        directory, slash, name = path.rpartition(b"/")
        row = known.get(directory + slash, {}).get(name)
        if row is not None and row.oid == entry.oid and is_settled(row):
            log = os.stat(full + b"-wal") if os.path.exists(full + b"-wal") else None
            if row.signature == signature(status, log if log and log.st_size else None):
                return True
        return stat.S_ISREG(status.st_mode) and hash_file(repo, full) == entry.oid
    except OSError:
        return False
