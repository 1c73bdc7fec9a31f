"""Repository: one agent's objects, refs, settings and clock. OpenHome: the home that it lies in."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from kaivc import links, refs
from kaivc.errors import LockTimeout, NoSuchAgent, StorageFailed
from kaivc.layout import Layout
from kaivc.names import (
    Actor,
    ObjectId,
    ReflogEntry,
    RefName,
    RefUpdate,
    Version,
    current_ref,
    heads_prefix,
    nearest,
    tags_prefix,
)
from kaivc.ports import Clock, Progress, Sleep, silent
from kaivc.records import dataclass, field, replace
from kaivc.settings import Local, Settings
from kaivc.storage import caches, journal
from kaivc.storage.caches import Known, Seal
from kaivc.storage.catalog import AgentRow, Catalog
from kaivc.storage.gitobjects import FORMATS, ObjectFormat
from kaivc.storage.journal import Op
from kaivc.storage.store import ObjectStore, StorePlace
from kaivc.vfs import Vfs

if TYPE_CHECKING:
    from kaivc.storage.writer import StoreWriter

LOCK_POLL = 0.01


@dataclass(frozen=True)
class Intent:
    """Something to be done after the transaction; ``payload`` is msgpack."""

    kind: str
    payload: bytes


@dataclass(frozen=True)
class OpenHome:
    """A home and what the doors handed in.

    ``environ`` is what commands that kaivc starts get as their environment; ``temp`` is where scratch goes that a home
    which can only be read does not take.
    """

    layout: Layout
    catalog: Catalog
    settings: Settings
    local: Local
    vfs: Vfs
    clock: Clock
    sleep: Sleep
    actor: Actor
    environ: Mapping[str, str]
    progress: Progress = silent
    temp: str = "/tmp"  # noqa: S108 - only private directories are made in it

    @property
    def read_only(self) -> bool:
        """Whether this process can read the home and not write it."""
        return bool(self.catalog.obstacle)

    def require_writable(self) -> None:
        """Raise ReadOnlyHome if the home can only be read."""
        self.catalog.require_writable()

    @contextmanager
    def scratch_file(self) -> Iterator[str]:
        """The path of one file that is made, read and removed within the context."""
        if not self.read_only:
            yield os.path.join(self.layout.tmp, f"backup-{os.urandom(8).hex()}")
            return
        directory = self.vfs.temporary_dir(self.temp)
        try:
            yield os.path.join(directory, "backup")
        finally:
            self.vfs.remove_tree(directory)

    @cached_property
    def meta(self) -> Mapping[str, object]:
        """What was fixed when the home was made."""
        return self.catalog.meta()

    @cached_property
    def boot(self) -> str:
        """What names the time since the machine was started."""
        return self.vfs.boot_id()

    @property
    def id(self) -> str:
        """The home's own id."""
        return str(self.meta["home_id"])

    @property
    def format(self) -> ObjectFormat:
        """The hash format of all its objects."""
        return FORMATS[str(self.meta["object_format"])]

    @property
    def shared(self) -> bool:
        """Whether the group may read."""
        return bool(self.meta["shared"])

    def links(self) -> dict[str, str]:
        """Where the linked workspaces of the agents that live are, as it is noted now."""
        live = set(self.catalog.agent_names())
        return {name: path for name, path in links.known(self.layout).workspaces.items() if name in live}

    def links_held(self) -> AbstractContextManager[None]:
        """Be the one that changes links."""
        return links.held(self.vfs, self.layout, self.sleep, self.settings.lock_wait)

    @property
    def dir_mode(self) -> int:
        """The mode of directories that are written."""
        return 0o770 if self.shared else 0o700

    def repository(self, name: str) -> Repository:
        """One agent; NoSuchAgent with the nearest names."""
        row = self.catalog.agent(name) if name.isascii() else None
        now = self.catalog.renamed(name) if row is None and name.isascii() else None
        if now is not None:
            what, hint = f"agent {name!r} was renamed to {now!r}", f"say {now} instead"
            raise NoSuchAgent(what, hint=hint, name=name, renamed=now, nearest=[now])
        if row is None:
            names = self.catalog.agent_names()
            close = nearest(name, names)
            hint = f"did you mean {', '.join(close)}?" if close else "`kai new NAME` makes an agent"
            raise NoSuchAgent(f"there is no agent {name!r} in {self.layout.root}", hint=hint, name=name, nearest=close)
        return Repository(self, row.name, row.id)


@dataclass(frozen=True)
class Landed:
    """A transaction that landed."""

    seq: int
    op: Op


@dataclass
class _Held:
    """What the one mover of an agent has read under its lock: nobody else changes it before it lands."""

    row: AgentRow | None = None
    refs: dict[RefName, ObjectId | None] = field(default_factory=dict)


@dataclass
class Remembered:
    """What stays true of an agent as long as this process lives, or until its next operation.

    ``highest`` is the highest version after the operation of a number; ``settled``, that what a power cut may have left
    has been looked after since the machine was started.
    """

    highest: tuple[int, Version] | None = None
    settled: bool = False


class _Holders(threading.local):
    """What each thread holds."""

    held: _Held | None = None


@dataclass(frozen=True)
class Repository:
    """One agent of a home."""

    home: OpenHome
    name: str
    id: int

    @property
    def layout(self) -> Layout:
        """The home's paths."""
        return self.home.layout

    @property
    def catalog(self) -> Catalog:
        """The home's catalog."""
        return self.home.catalog

    @property
    def settings(self) -> Settings:
        """The home's settings."""
        return self.home.settings

    @property
    def vfs(self) -> Vfs:
        """The door to the disk."""
        return self.home.vfs

    @cached_property
    def store(self) -> ObjectStore:
        """The agent's objects."""
        place = StorePlace(self.layout, self.name, self.id, self.home.id, self.home.format)
        return ObjectStore(self.catalog, place, self.settings, self.vfs)

    def seals_anew(self) -> dict[tuple[int, int], Seal]:
        """The seals as others have written them meanwhile."""
        vars(self)["seals"] = found = caches.seals(self.catalog, self.id)
        return found

    @cached_property
    def seals(self) -> dict[tuple[int, int], Seal]:
        """The seals that this process knows, by (dev, inode): each stays true of an inode that looks as it says."""
        return caches.seals(self.catalog, self.id)

    @cached_property
    def remembered(self) -> Remembered:
        """What need not be asked again."""
        return Remembered()

    @cached_property
    def _listings(self) -> caches.Listings:
        return {}

    def known_files(self) -> dict[bytes, dict[bytes, Known]]:
        """What the stat cache knows of the files of each directory of the workspace; not to be changed."""
        return caches.known_files(self.catalog, self.id, self.home.boot, self._listings)

    @property
    def workspace(self) -> str:
        """The live directory; LinkLost unless a linked one is what was linked, NoSuchAgent once it is removed."""
        linked = self.home.local.workspaces.get(self.name)
        if self.id:  # else it stands in for an agent that is not there yet
            linked = links.standing(self.home.local, self.name)
        if linked is not None:
            return linked
        if not os.path.isdir(self.layout.agent(self.name)):
            return self.layout.workspace(self._not_moved_yet())
        return self.layout.workspace(self.name)

    def _not_moved_yet(self) -> str:
        """The name that the agent's directory still has while a rename is to be finished; else the agent's own."""
        self.require_live()
        for row in journal.intents(self.catalog, self.id):
            if row.kind == journal.RENAME:
                former, name = journal.decode_rename(row.payload)
                if name == self.name and os.path.isdir(self.layout.agent(former)):
                    return former
        return self.name

    def linked_now(self) -> Repository:
        """The same with its link as it is noted now; under the lock it stays so."""
        return Repository(replace(self.home, local=links.known(self.layout)), self.name, self.id)

    # ------------------------------------------------------------ names

    @cached_property
    def _mine(self) -> _Holders:
        return _Holders()

    def row(self) -> AgentRow:
        """The agent's row as it is now."""
        held = self._mine.held
        if held is None:
            return self._read_row()
        if held.row is None:
            held.row = self._read_row()
        return held.row

    def _read_row(self) -> AgentRow:
        row = self.catalog.agent(self.name)
        if row is None or row.id != self.id:
            self.home.repository(self.name)  # says what became of it
            raise NoSuchAgent(f"agent {self.name!r} is gone", name=self.name)
        return row

    def require_live(self) -> None:
        """Raise NoSuchAgent if the agent was removed: its versions can still be read, and nothing written."""
        row = self.catalog.agent(self.name)
        if row is not None and row.removed_ns:
            when = datetime.fromtimestamp(row.removed_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            raise NoSuchAgent(
                f"agent {self.name!r} was removed on {when}",
                unchanged="nothing was written",
                hint=f"its versions can be read; `kai new NAME --from {self.name}` brings it back as another agent",
                name=self.name,
                removed=when,
            )

    def ref(self, name: RefName) -> ObjectId | None:
        """What a ref points at."""
        held = self._mine.held
        if held is None:
            return journal.ref(self.catalog, self.id, name)
        if name not in held.refs:
            held.refs[name] = journal.ref(self.catalog, self.id, name)
        return held.refs[name]

    def refs(self, prefix: str) -> dict[RefName, ObjectId]:
        """All refs below a prefix."""
        return journal.refs(self.catalog, self.id, prefix)

    @property
    def current(self) -> ObjectId | None:
        """The commit in force."""
        return self.ref(current_ref(self.name))

    def names_of(self, name: RefName) -> list[RefName]:
        """The names that a ref has had: it was renamed with its agent."""
        heads, tags = heads_prefix(self.name), tags_prefix(self.name)
        found = [name]
        for former in self.catalog.former_names(self.id):
            if name.startswith(heads):
                found.append(RefName(heads_prefix(former) + name.removeprefix(heads)))
            elif name.startswith(tags):
                found.append(RefName(tags_prefix(former) + name.removeprefix(tags)))
        return found

    def moves_of(self, name: RefName, log: Iterable[ReflogEntry]) -> list[ReflogEntry]:
        """The moves of one ref among those of all, as ``reflog`` would give them."""
        names = self.names_of(name)
        return [entry for entry in log if entry.ref in names and entry.verb not in (journal.RENAME, journal.REMOVE)]

    def reflog(self, name: RefName | None = None, limit: int = -1, since: int = 0) -> list[ReflogEntry]:
        """The moves of one ref after operation ``since``, newest first; those of all refs for None."""
        if name is None:
            return journal.reflog(self.catalog, self.id, limit)
        return journal.reflog_of_ref(self.catalog, self.id, self.names_of(name), limit, since)

    # ------------------------------------------------------------ one mover at a time

    @contextmanager
    def lock(self, *, removed: bool = False) -> Iterator[None]:
        """Be the agent's one mover; LockTimeout after ``lock.wait``, ReadOnlyHome where nobody can move.

        NoSuchAgent if it was renamed or removed meanwhile; with ``removed``, one that was removed is taken too.
        """
        self.home.require_writable()
        fd = self._wait_for_lock()
        try:
            self._refresh()
            self._mine.held = _Held()
            if self.row().removed_ns and not removed:
                self.require_live()
            yield
        finally:
            self._mine.held = None
            os.close(fd)

    def _refresh(self) -> None:
        """A repair may have put a new catalog in place while this process had the old one open."""
        if self.catalog.refresh():
            self.store.close()
            self.store.forget()
            vars(self)["remembered"] = Remembered()
            if self.row().id != self.id:
                raise StorageFailed(
                    "the catalog was made anew by a repair",
                    unchanged="nothing moved",
                    hint="open the home again, then run the command again",
                )

    def _wait_for_lock(self) -> int:
        self.vfs.make_dirs(self.layout.locks, self.home.dir_mode)
        path, waited = self.layout.lock(self.name), 0.0
        while True:
            fd = self.vfs.lock(path)
            if fd is not None:
                return fd
            if waited >= self.settings.lock_wait:
                raise LockTimeout(
                    f"another command has been at work on {self.name} for more than {self.settings.lock_wait:g} s",
                    unchanged="nothing moved",
                    hint="run the command again, or wait longer with `lock.wait` in .kai/config.yaml",
                    agent=self.name,
                )
            import random  # noqa: PLC0415 - only who waits needs it

            pause = LOCK_POLL * (0.5 + random.random())  # noqa: S311 - spreads waiters, guards nothing
            self.home.sleep(pause)
            waited += pause

    # ------------------------------------------------------------ bytes, then names

    def land(
        self,
        writer: StoreWriter,
        updates: Sequence[RefUpdate],
        op: Op,
        intents: Sequence[Intent] = (),
        also: Callable[[sqlite3.Connection], None] | None = None,
        become: Callable[[AgentRow], AgentRow] | None = None,
    ) -> Landed:
        """Sync what ``writer`` added, then make it and the ref moves visible at once, with what ``also`` writes.

        ``become`` changes the agent's row with it.
        """
        writer.sync()
        try:
            with self.catalog.transaction(op.op_id) as db:
                row = self._read_row()
                seq, record = refs.apply(self.catalog, db, self.home.id, become(row) if become else row, updates, op)
                writer.record(db)
                caches.put_settled(db, self.id, self.home.boot)
                for intent in intents:
                    journal.put_intent(db, self.id, intent.kind, intent.payload)
                if also is not None:
                    also(db)
        finally:
            if self._mine.held:
                self._mine.held = _Held()
        writer.append_op(record)
        return Landed(seq, op)

    def new_op_id(self) -> str:
        """A name for one operation, unique anywhere."""
        return os.urandom(8).hex()
