"""A new agent: its name is held, its directory and packs are made aside, one transaction makes them an agent.

What a cut command leaves bears a mark, and is removed by the next one that makes an agent of that name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from kaivc import intents, refs
from kaivc.dirtree import DirTree
from kaivc.errors import NameTaken, NoSpace, OutcomeUnknown, StorageError
from kaivc.layout import UNFINISHED
from kaivc.manifest import Manifest, StateClass
from kaivc.materialise import check_tree_links, in_store_order, plain_mode, write_file
from kaivc.names import RefUpdate
from kaivc.records import dataclass
from kaivc.repository import Intent, OpenHome, Repository
from kaivc.storage import index, journal
from kaivc.storage.catalog import AgentRow, put_agent
from kaivc.storage.index import ObjectRow, PackRow
from kaivc.storage.journal import GENESIS, Op
from kaivc.storage.store import ObjectStore
from kaivc.storage.writer import StoreWriter
from kaivc.trees import Files

POLL = 0.01
MARK = UNFINISHED
UNKNOWN = 0
"""Stands for the number of an agent that has none yet; nothing in the catalog has it."""


# ---------------------------------------------------------------- the name


@contextmanager
def name_held(home: OpenHome, name: str, wait: float = 0) -> Iterator[None]:
    """One maker of a name at a time; NameTaken after ``wait`` seconds, ReadOnlyHome where nothing can be made."""
    home.require_writable()
    home.vfs.make_dirs(home.layout.locks, home.dir_mode)
    waited = 0.0
    while (fd := home.vfs.lock(home.layout.lock(name))) is None and waited < wait:
        home.sleep(POLL)
        waited += POLL
    if fd is None:
        raise NameTaken(f"another command is making or using {name!r}", unchanged="nothing was written", name=name)
    try:
        yield
    finally:
        os.close(fd)


def check_free(home: OpenHome, name: str, of: int = UNKNOWN) -> None:
    """Raise NameTaken unless a new agent may have the name and its place in the home.

    The agent whose number is ``of`` may take back a name that it had.
    """
    _check_catalog(home, name, of)
    final, packs = home.layout.agent(name), _packs(home, name)
    if os.path.lexists(final) and not os.path.exists(_mark(home, name)):
        raise _in_the_way(final)
    if os.path.isdir(packs) and os.listdir(packs) and not os.path.exists(_packs_mark(home, name)):
        raise _in_the_way(packs)


def _in_the_way(path: str) -> NameTaken:
    return NameTaken(
        f"{path} is there, and is no agent's",
        unchanged="nothing was written",
        hint="move it away, or choose another name",
        path=path,
    )


def _check_catalog(home: OpenHome, name: str, of: int = UNKNOWN) -> None:
    row = home.catalog.agent(name)
    former = home.catalog.row("SELECT agent FROM former WHERE name = ?", (name,))
    if row is None and (former is None or former[0] == of):
        return
    what, hint = f"there is an agent {name!r} already", "choose another name"
    if former is not None:
        what = f"{name!r} is the former name of {home.catalog.renamed(name)!r}, and names are used once"
    elif row is not None and row.removed_ns:
        what = f"{name!r} is the name of an agent that was removed, and names are used once"
        hint = f"`kai new NAME --from {name}` brings it back under another name"
    raise NameTaken(what, unchanged="nothing was written", hint=hint, name=name)


# ---------------------------------------------------------------- its directory


def _aside(home: OpenHome, name: str) -> str:
    return os.path.join(home.layout.root, f".new-{name}")


def _packs(home: OpenHome, name: str) -> str:
    return home.layout.pack_dir(name)


def _mark(home: OpenHome, name: str) -> str:
    return home.layout.unfinished(name)[0]


def _packs_mark(home: OpenHome, name: str) -> str:
    return home.layout.unfinished(name)[1]


@contextmanager
def prepared(home: OpenHome, name: str) -> Iterator[str]:
    """Make the agent's directory aside, let the block fill its workspace, whose path it gets, then put it in place.

    Whatever goes wrong within leaves nothing. The name is held, and free.
    """
    vfs = home.vfs
    temporary = _aside(home, name)
    sweep(home, name)
    try:
        for directory in ("", "workspace", "versions", "snapshot_temp"):
            vfs.make_dir(os.path.join(temporary, directory), home.dir_mode)
        vfs.close(vfs.create(os.path.join(temporary, "snapshot_temp", MARK)))
        yield os.path.join(temporary, "workspace")
        vfs.rename(temporary, home.layout.agent(name))
        vfs.sync_dir(home.layout.root)
    except BaseException:
        sweep(home, name)
        raise


def prepare_packs(home: OpenHome, name: str) -> None:
    """Make the agent's directory of packs, marked as that of nobody yet."""
    home.vfs.make_dirs(_packs(home, name), home.dir_mode)
    home.vfs.close(home.vfs.create(_packs_mark(home, name)))
    home.vfs.sync_dir(_packs(home, name))
    home.vfs.sync_dir(home.layout.packs)


def sweep(home: OpenHome, name: str) -> None:
    """Remove what a cut command left of an agent that never was; the name is held."""
    if home.catalog.agent(name) is not None:
        return
    home.vfs.remove_tree(_aside(home, name))
    if os.path.exists(_mark(home, name)):
        # Away in one step: a cut removal must not leave half of it without the mark.
        home.vfs.rename(home.layout.agent(name), _aside(home, name))
        home.vfs.remove_tree(_aside(home, name))
    if os.path.exists(_packs_mark(home, name)):
        _remove_packs(home, name)
    elif os.path.isdir(_packs(home, name)) and not os.listdir(_packs(home, name)):
        home.vfs.remove_dir(_packs(home, name))  # cut before it had its mark


def _remove_packs(home: OpenHome, name: str) -> None:
    """The mark goes last: without it the rest would be in the way for good."""
    directory = _packs(home, name)
    for each in os.listdir(directory):
        if each != MARK:
            home.vfs.remove_tree(os.path.join(directory, each))
    home.vfs.unlink(_packs_mark(home, name))
    home.vfs.remove_dir(directory)


def fill(store: ObjectStore, workspace: str, files: Files, manifest: Manifest, home: OpenHome) -> int:
    """Write the files of a version to a new workspace, each re-hashed; their number. Secrets wait for a run."""
    wanted = {path: entry for path, entry in files.items() if manifest.state_class(path) is not StateClass.SECRET}
    check_tree_links(store, files)
    _check_space(home, sum(store.size_without_holes(entry.oid) for entry in wanted.values()))
    with DirTree(home.vfs, workspace, 0o755) as tree:
        for number, (path, entry) in enumerate(in_store_order(store, wanted)):
            home.progress("writing the workspace", number, len(wanted))
            mode = plain_mode(entry) | (0o020 if home.shared else 0)
            write_file(store, tree, path, entry, mode & 0o700 if manifest.is_private(path) else mode)
    return len(wanted)


def _check_space(home: OpenHome, needed: int) -> None:
    status = os.statvfs(home.layout.kai)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise NoSpace(
            f"the workspace needs {needed} bytes and {free} are free",
            unchanged="nothing was made",
            hint="free some space, then run the command again",
        )


# ---------------------------------------------------------------- one transaction


@dataclass(frozen=True)
class Beginning:
    """What a new agent begins with: what its first operation moves, and packs that it shares."""

    op: Op
    updates: Sequence[RefUpdate]
    todo: Sequence[Intent]
    shared: Sequence[tuple[PackRow, Sequence[ObjectRow]]] = ()


def newborn(home: OpenHome, name: str) -> Repository:
    """An agent that the catalog does not name yet: it has a place for packs, and no objects."""
    return Repository(home, name, UNKNOWN)


def register(home: OpenHome, name: str) -> Repository:
    """Make the prepared directory an agent without versions."""
    now = home.clock.now_ns()
    with home.catalog.transaction() as db:
        _check_catalog(home, name)
        row = AgentRow(_next_number(home), name, now, 0, GENESIS)
        put_agent(db, row)
    _unmark(home, name)
    return Repository(home, name, row.id)


def begin(home: OpenHome, name: str, writer: StoreWriter, beginning: Beginning) -> Repository:
    """Make the prepared directory and what ``writer`` added an agent: its names, history and intents, all at once."""
    try:
        number, record = _land(home, name, writer, beginning)
    except OutcomeUnknown:
        raise
    except BaseException:
        sweep(home, name)
        raise
    writer.append_op(record)
    _unmark(home, name)
    repo = Repository(home, name, number)
    intents.finish_landed(repo, f"{name} is made")
    return repo


def _land(home: OpenHome, name: str, writer: StoreWriter, beginning: Beginning) -> tuple[int, bytes]:
    op = beginning.op
    writer.sync()
    home.vfs.sync_dir(_packs(home, name))
    with home.catalog.transaction(op.op_id) as db:
        _check_catalog(home, name)
        row = AgentRow(_next_number(home), name, op.time_ns, 0, GENESIS)
        put_agent(db, row)
        _, record = refs.apply(home.catalog, db, home.id, row, beginning.updates, op)
        for pack, objects in beginning.shared:
            number = index.put_pack(db, pack._replace(id=0, agent=row.id))
            index.put_objects(db, row.id, (it._replace(pack=number) for it in objects))
        writer.record(db, row.id)
        for intent in beginning.todo:
            journal.put_intent(db, row.id, intent.kind, intent.payload)
    return row.id, record


def _next_number(home: OpenHome) -> int:
    found = home.catalog.row("SELECT coalesce(max(id), 0) + 1 FROM agents")
    return int(found[0]) if found else 1


def _unmark(home: OpenHome, name: str) -> None:
    for mark in home.layout.unfinished(name):
        with suppress(StorageError):  # the catalog names the agent: its next writer removes the mark
            home.vfs.unlink(mark, missing_ok=True)
