"""Repository: one agent's objects, refs, settings and clock. OpenHome: the home that it lies in."""

from __future__ import annotations

import os
import random
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from kaivc import refs
from kaivc.errors import LockTimeout, NoSuchAgent
from kaivc.layout import Layout
from kaivc.names import Actor, ObjectId, ReflogEntry, RefName, RefUpdate, current_ref, nearest
from kaivc.ports import Clock, Progress, Sleep, silent
from kaivc.settings import Local, Settings
from kaivc.storage import journal
from kaivc.storage.catalog import AgentRow, Catalog
from kaivc.storage.gitobjects import FORMATS, ObjectFormat
from kaivc.storage.journal import Op
from kaivc.storage.store import ObjectStore, StorePlace
from kaivc.storage.writer import StoreWriter
from kaivc.vfs import Vfs

LOCK_POLL = 0.01


@dataclass(frozen=True)
class Intent:
    """Something to be done after the transaction; ``payload`` is msgpack."""

    kind: str
    payload: bytes


@dataclass(frozen=True)
class OpenHome:
    """A home and what the doors handed in.

    ``environ`` is what commands that kaivc starts get as their environment.
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

    @cached_property
    def meta(self) -> Mapping[str, object]:
        """What was fixed when the home was made."""
        return self.catalog.meta()

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

    @property
    def dir_mode(self) -> int:
        """The mode of directories that are written."""
        return 0o770 if self.shared else 0o700

    def repository(self, name: str) -> Repository:
        """One agent; NoSuchAgent with the nearest names."""
        row = self.catalog.agent(name) if name.isascii() else None
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

    @property
    def workspace(self) -> str:
        """The live directory."""
        return self.home.local.workspaces.get(self.name) or self.layout.workspace(self.name)

    # ------------------------------------------------------------ names

    def row(self) -> AgentRow:
        """The agent's row as it is now."""
        row = self.catalog.agent(self.name)
        if row is None:
            raise NoSuchAgent(f"agent {self.name!r} is gone", name=self.name)
        return row

    def ref(self, name: RefName) -> ObjectId | None:
        """What a ref points at."""
        return journal.ref(self.catalog, self.id, name)

    def refs(self, prefix: str) -> dict[RefName, ObjectId]:
        """All refs below a prefix."""
        return journal.refs(self.catalog, self.id, prefix)

    @property
    def current(self) -> ObjectId | None:
        """The commit in force."""
        return self.ref(current_ref(self.name))

    def reflog(self, name: RefName | None = None, limit: int = -1) -> list[ReflogEntry]:
        """The moves of one ref, or of all, newest first."""
        return journal.reflog(self.catalog, self.id, name, limit)

    # ------------------------------------------------------------ one mover at a time

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the agent's one mover; LockTimeout after ``lock.wait``."""
        fd = self._wait_for_lock()
        try:
            yield
        finally:
            os.close(fd)

    def _wait_for_lock(self) -> int:
        self.vfs.make_dirs(self.layout.locks, self.home.dir_mode)
        self.vfs.make_dirs(self.layout.versions(self.name), self.home.dir_mode)
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
    ) -> Landed:
        """Sync what ``writer`` added, then make it and the ref moves visible at once, with what ``also`` writes."""
        writer.sync()
        with self.catalog.transaction(op.op_id) as db:
            seq, record = refs.apply(self.catalog, db, self.home.id, self.row(), updates, op)
            writer.record(db)
            for intent in intents:
                journal.put_intent(db, self.id, intent.kind, intent.payload)
            if also is not None:
                also(db)
        writer.append_op(record)
        return Landed(seq, op)

    def new_op_id(self) -> str:
        """A name for one operation, unique anywhere."""
        return secrets.token_hex(8)
