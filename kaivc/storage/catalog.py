"""The SQLite catalog of a home: its connection, its schema, its one transaction.

The tables' subjects stand in ``index.py`` (packs and objects), ``journal.py`` (refs, reflog, ops, intents) and
``caches.py`` (views, seals, stat cache). SQLite's pages carry no checksum, so rows that matter carry an xxh3-64 of
their own values, compared on each read. Schema and meaning: docs/format/catalog.md.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import msgpack
import xxhash

from kaivc.errors import (
    ChecksumMismatch,
    KaiError,
    LockTimeout,
    NoSpace,
    OutcomeUnknown,
    ReadOnlyHome,
    StorageError,
    StorageFailed,
    UnknownFormat,
)
from kaivc.names import is_name
from kaivc.storage import readonly
from kaivc.vfs import FULL_CATALOG, Vfs

FORMAT = 1
FORMATS = frozenset(["sha1", "sha256"])
BUSY_SECONDS = 5.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.02
"""Seconds between two looks whether it is one's turn to write."""

CHECKPOINT_PAGES = 4000
"""Pages in SQLite's log before they are copied into the catalog: a commit writes about 20, most of them each time."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE agents (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_ns INTEGER NOT NULL,
    op_seq INTEGER NOT NULL, op_head BLOB NOT NULL, removed_ns INTEGER NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE former (name TEXT PRIMARY KEY, agent INTEGER NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE packs (id INTEGER PRIMARY KEY, agent INTEGER NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
    committed INTEGER NOT NULL, checksum INTEGER NOT NULL, UNIQUE (agent, name));
CREATE TABLE objects (agent INTEGER NOT NULL, id BLOB NOT NULL, kind INTEGER NOT NULL, pack INTEGER NOT NULL,
    offset INTEGER NOT NULL, length INTEGER NOT NULL, size INTEGER NOT NULL, base BLOB, within INTEGER NOT NULL,
    checksum INTEGER NOT NULL, PRIMARY KEY (agent, id)) WITHOUT ROWID;
CREATE TABLE refs (agent INTEGER NOT NULL, name TEXT NOT NULL, oid BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (agent, name)) WITHOUT ROWID;
CREATE TABLE ops (agent INTEGER NOT NULL, seq INTEGER NOT NULL, op_id TEXT NOT NULL, digest BLOB NOT NULL,
    payload BLOB, pack INTEGER, offset INTEGER, PRIMARY KEY (agent, seq)) WITHOUT ROWID;
CREATE UNIQUE INDEX ops_by_id ON ops (agent, op_id);
CREATE TABLE reflog (agent INTEGER NOT NULL, seq INTEGER NOT NULL, ord INTEGER NOT NULL, ref TEXT NOT NULL,
    old BLOB, new BLOB, actor TEXT NOT NULL, time_ns INTEGER NOT NULL, reason TEXT NOT NULL, verb TEXT NOT NULL,
    op_id TEXT NOT NULL, undoes INTEGER, backup INTEGER, workspace INTEGER NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (agent, seq, ord)) WITHOUT ROWID;
CREATE INDEX reflog_by_ref ON reflog (agent, ref, seq);
CREATE TABLE intents (id INTEGER PRIMARY KEY, agent INTEGER NOT NULL, kind TEXT NOT NULL,
    payload BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE views (agent INTEGER NOT NULL, tag TEXT NOT NULL, used INTEGER NOT NULL, verified_ns INTEGER NOT NULL,
    own_bytes INTEGER NOT NULL, born TEXT NOT NULL, seen TEXT NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (agent, tag)) WITHOUT ROWID;
CREATE TABLE seals (agent INTEGER NOT NULL, dev INTEGER NOT NULL, inode INTEGER NOT NULL, oid BLOB NOT NULL,
    size INTEGER NOT NULL, mode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    checksum INTEGER NOT NULL, PRIMARY KEY (agent, dev, inode)) WITHOUT ROWID;
CREATE TABLE boots (agent INTEGER PRIMARY KEY, boot TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE highest (agent INTEGER PRIMARY KEY, seq INTEGER NOT NULL, version TEXT NOT NULL,
    checksum INTEGER NOT NULL);
CREATE TABLE stat_cache (agent INTEGER NOT NULL, dir BLOB NOT NULL, data BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (agent, dir)) WITHOUT ROWID;
"""


Kinds = tuple[type | tuple[type, ...], ...]
"""What the columns of a row hold, but for its checksum."""


def checksum(*values: object) -> int:
    """What a row's checksum column holds: xxh3-64 of the msgpack array of its other values, as signed 64 bits."""
    number: int = xxhash.xxh3_64_intdigest(msgpack.packb(values))
    return number - (1 << 64) if number >> 63 else number


def damaged(what: str) -> ChecksumMismatch:
    """The error for a row that is not what was written."""
    return ChecksumMismatch(
        f"the catalog's row of {what} is damaged",
        unchanged="nothing was written",
        hint="`kai fsck` says what is hit; `kai fsck --repair` makes the catalog anew from the packs",
        row=what,
    )


def older_than(agent: str) -> StorageFailed:
    """The error for a catalog that does not know operations which are in the packs of an agent."""
    return StorageFailed(
        f"the catalog is older than the packs of {agent}: they hold operations that it does not know",
        unchanged="nothing was written",
        hint="`kai fsck --repair` takes them up again; was a copy of an older catalog put in place?",
        agent=agent,
    )


def checked(row: Sequence[Any], what: str, kinds: Kinds) -> Sequence[Any]:
    """The row's values without its last one, the checksum, once they agree and are of the columns' kinds.

    SQLite takes a value of any type in any column, and whoever puts one there can make the checksum fit.
    """
    if not all(map(isinstance, row, kinds)) or checksum(*row[:-1]) != row[-1]:
        raise damaged(what)
    return row[:-1]


class AgentRow(NamedTuple):
    """One agent; ``op_seq`` and ``op_head`` are the number and the digest of its newest op record.

    ``removed_ns`` is when it was removed, 0 while it lives: its name and its versions stay.
    """

    id: int
    name: str
    created_ns: int
    op_seq: int
    op_head: bytes
    removed_ns: int = 0


_AGENT: Kinds = (int, str, int, int, bytes, int)
_AGENTS = "SELECT id, name, created_ns, op_seq, op_head, removed_ns, checksum FROM agents "


def _agent(row: Sequence[Any]) -> AgentRow:
    """An agent's row; its name becomes part of paths."""
    found = AgentRow(*checked(row, f"agent {row[1]!r:.80}", _AGENT))
    if not is_name(found.name):
        raise damaged(f"agent {found.name!r:.80}")
    return found


class Catalog:
    """The catalog at ``path``; one connection for each process and thread.

    ``obstacle`` says why it cannot be written; empty if it can.
    """

    def __init__(self, path: str, wait: float = BUSY_SECONDS, *, scratch: str = "", obstacle: str = "") -> None:
        self.path = path
        self.wait = wait
        self.obstacle = obstacle
        self._scratch = scratch
        self._local = threading.local()

    # ------------------------------------------------------------ connection

    @classmethod
    def create(cls, path: str, meta: dict[str, Any]) -> Catalog:
        """Make a new catalog with its schema; ``meta`` is kept for good."""
        catalog = cls(path)
        with _MAPPED, catalog._connect(path, "rwc") as db:
            db.execute("PRAGMA journal_mode=WAL")
        with catalog.transaction() as db:
            for statement in SCHEMA.split(";\n"):
                db.execute(statement)
            rows = {"format": FORMAT, **meta}.items()
            db.executemany("INSERT INTO meta VALUES (?, ?)", list(rows))
        return catalog

    @classmethod
    def open(cls, path: str, wait: float = BUSY_SECONDS, *, scratch: str = "", read_only: bool = False) -> Catalog:
        """Open the catalog of a home; UnknownFormat when another format wrote it.

        ``wait`` is how many seconds a transaction waits for another. One that cannot be written, or with ``read_only``,
        is read as ``readonly`` says, with private copies below ``scratch``.
        """
        obstacle = "it was opened to be read only" if read_only else readonly.obstacle(path)
        catalog = cls(path, wait, scratch=scratch, obstacle=obstacle)
        try:
            catalog._check_meta()
        except BaseException:
            catalog.close()
            raise
        return catalog

    def _check_meta(self) -> None:
        """Raise ChecksumMismatch or UnknownFormat unless this is a catalog of ours."""
        kept = self.meta()
        found = kept.get("format")
        if not isinstance(kept.get("home_id"), str) or kept.get("object_format") not in FORMATS:
            raise damaged("the home")
        if type(kept.get("shared")) is not int or type(found) is not int:
            raise damaged("the home")
        if found != FORMAT:
            raise UnknownFormat(
                f"the home's catalog has format {found!r}; this release knows {FORMAT}",
                hint="use the release that wrote it, or a later one",
            )

    @classmethod
    def unread(cls, path: str, wait: float, *, scratch: str) -> Catalog:
        """The catalog of a home that may be damaged: nothing is looked at yet."""
        return cls(path, wait, scratch=scratch, obstacle=readonly.obstacle(path))

    def _connect(self, path: str, mode: str) -> sqlite3.Connection:
        quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        return sqlite3.connect(f"file:{quoted}?mode={mode}", uri=True, isolation_level=None, timeout=self.wait)

    @property
    def db(self) -> sqlite3.Connection:
        """The thread's connection; never one that was carried over a fork."""
        pid, connection = getattr(self._local, "mine", _NOBODYS)
        if connection is None or pid != os.getpid():
            if connection is not None:
                _ORPHANS.append(connection)
            self._local.file = _file_at(self.path)
            if self._local.file is None:
                raise _missing(self.path)
            with _MAPPED:
                connection = self._connect_to_read() if self.obstacle else self._connect(self.path, "rw")
                try:
                    if not self.obstacle:
                        _keep_log(connection)
                    connection.execute("PRAGMA synchronous=FULL")
                    self._local.durable = True
                    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
                    connection.execute("PRAGMA trusted_schema=OFF")
                except BaseException:
                    connection.close()
                    raise
            self._local.mine = (os.getpid(), connection)
        return connection

    def refresh(self) -> bool:
        """Let go of a connection to a file that is no longer the catalog; whether it was one.

        A repair puts a new catalog in the place of the old one. Whoever waited for it must not go on with the old.
        """
        pid, connection = self._mine()
        if connection is None or pid != os.getpid() or self._local.file == _file_at(self.path):
            return False
        self.close()
        return True

    def _connect_to_read(self) -> sqlite3.Connection:
        try:
            self._local.view = readonly.connect(self.path, self.wait, self._scratch)
        except readonly.NotReadable as error:
            raise StorageFailed(
                f"the catalog cannot be read where it cannot be written ({self.obstacle}): {error}",
                unchanged="nothing was written",
                hint="let a user who may write the home run `kai status`, name a roomy directory in TMPDIR, "
                "or run the command again",
            ) from error
        connection: sqlite3.Connection = self._local.view.connection
        return connection

    def _mine(self) -> tuple[int, sqlite3.Connection | None]:
        return getattr(self._local, "mine", _NOBODYS)

    def close(self) -> None:
        """Close this thread's connection."""
        pid, connection = self._mine()
        if connection is not None and pid == os.getpid():
            connection.close()
        self._local.mine = (0, None)

    # ------------------------------------------------------------ reading and writing

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        found: list[Any] = self._read(sql, args, sqlite3.Cursor.fetchall)
        return found

    def row(self, sql: str, args: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        found: tuple[Any, ...] | None = self._read(sql, args, sqlite3.Cursor.fetchone)
        return found

    def _read(self, sql: str, args: Sequence[Any], fetch: Callable[[sqlite3.Cursor], Any]) -> Any:  # noqa: ANN401 - rows
        if not self.obstacle:
            try:
                return fetch(self.db.execute(sql, args))
            except _RAISED as error:
                raise _mapped(error) from error
        for _ in range(readonly.TRIES):
            db = self.db
            try:
                found = fetch(db.execute(sql, args))
            except sqlite3.Error as error:
                if self._local.view.is_current(self.path):
                    raise _translated(error) from error
            else:
                if self._local.view.is_current(self.path):
                    return found
            self.close()  # others wrote meanwhile: what was read may be of two states
        raise _changing()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that this thread reads within be of one state; where it cannot be written, each read is."""
        if self.obstacle:
            yield
            return
        db = self.db
        with _MAPPED:
            db.execute("BEGIN")
        try:
            yield
        finally:
            self._roll_back(db)

    @contextmanager
    def transaction(self, op_id: str = "", *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing; on the disk when it ends, if ``durable``.

        Raises OutcomeUnknown, with the op id, when the last sync fails: it may or may not have landed.
        """
        self.require_writable()
        line = self._stand_in_line()
        try:
            db = self._begin(durable=durable)
            try:
                with _MAPPED:
                    yield db
            except BaseException:
                self._roll_back(db)
                raise
            try:
                db.execute("COMMIT")
            except sqlite3.Error as error:
                self._after_failed_commit(db, error, op_id)
        finally:
            if line is not None:
                os.close(line)

    def _begin(self, *, durable: bool) -> sqlite3.Connection:
        while True:
            db = self.db
            with _MAPPED:
                if self._local.durable is not durable:
                    db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                    self._local.durable = durable
                db.execute("BEGIN IMMEDIATE")
            # A repair holds this lock while it swaps the catalog: what is current now stays so until the end.
            if self._local.file == _file_at(self.path):
                return db
            self._roll_back(db)
            self.close()

    def _stand_in_line(self) -> int | None:
        """Wait until no other process of ours writes; the descriptor that says so to them until it is closed.

        SQLite's own waiting sleeps for up to 100 ms while the lock, held for 1, is free; and a look at this line costs
        a fraction of one at SQLite's lock. It is a courtesy: what counts is SQLite's lock. So whoever stands in it for
        too long, behind one that is stopped, tries that all the same.
        """
        try:
            line = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        waited, pause = 0.0, SHORTEST_PAUSE
        try:
            while True:
                try:
                    _VFS.flock(line)
                except BlockingIOError:
                    if waited >= self.wait / 2:
                        return line
                except StorageError:  # no such locks on this disk
                    return line
                else:
                    return line
                import random  # noqa: PLC0415 - only who waits needs it

                time.sleep(pause * (0.5 + random.random()))  # noqa: S311 - spreads waiters, guards nothing
                waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE)
        except BaseException:
            os.close(line)
            raise

    def _roll_back(self, db: sqlite3.Connection) -> None:
        """Give a transaction up; where that fails the connection is let go, which ends it too."""
        if db.in_transaction:
            try:
                db.execute("ROLLBACK")
            except sqlite3.Error:
                self.close()

    def require_writable(self) -> None:
        """Raise ReadOnlyHome if the catalog cannot be written."""
        if self.obstacle:
            root = os.path.dirname(os.path.dirname(self.path))
            raise ReadOnlyHome(
                f"the home {root} can only be read: {self.obstacle}",
                unchanged="nothing was written",
                hint="run the command as a user who may write the home, or mount it writable; "
                "`kai checkout` and `kai export` write elsewhere",
                home=root,
                obstacle=self.obstacle,
            )

    def _after_failed_commit(self, db: sqlite3.Connection, error: sqlite3.Error, op_id: str) -> None:
        self._roll_back(db)
        self.close()
        if getattr(error, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_BUSY"):
            raise _translated(error) from error
        raise OutcomeUnknown(
            f"the catalog could not be synced ({error}); the operation may or may not have landed",
            hint=f"check the disk, then look whether `kai reflog` shows operation {op_id}; repeating with "
            f"`--op-id {op_id}` is safe"
            if op_id
            else "check the disk, then run the command again",
            op_id=op_id,
        ) from error

    # ------------------------------------------------------------ the home and its agents

    def meta(self) -> dict[str, Any]:
        """What was fixed when the home was made."""
        return dict(self.rows("SELECT key, value FROM meta"))

    def agent(self, name: str) -> AgentRow | None:
        """The agent of that name."""
        row = self.row(_AGENTS + "WHERE name = ?", (name,))
        if row is None or row[1] != name:  # a damaged name or index hides a row, or gives another: all are looked at
            return next((it for it in self.agents() if it.name == name), None)
        return _agent(row)

    def agents(self) -> list[AgentRow]:
        """All agents, removed ones too, by name; read without the index."""
        return sorted(map(_agent, self.rows(_AGENTS + "NOT INDEXED")), key=lambda it: it.name)

    def agent_names(self, *, removed: bool = False) -> list[str]:
        """The names of the agents that live, sorted; with ``removed``, of those too that were removed."""
        return [row.name for row in self.agents() if removed or not row.removed_ns]

    def name_of(self, agent: int) -> str | None:
        """What the agent of that number is called now."""
        row = self.row("SELECT name FROM agents WHERE id = ?", (agent,))
        return row[0] if row and is_name(row[0]) else None

    def renamed(self, name: str) -> str | None:
        """What the agent is called now that had this name before."""
        row = self.row("SELECT name, agent, checksum FROM former WHERE name = ?", (name,))
        if row is None:
            return None
        return self.name_of(checked(row, f"former name {name}", (str, int))[1])

    def former_names(self, agent: int) -> list[str]:
        """The names that an agent had before, sorted."""
        rows = self.rows("SELECT name, agent, checksum FROM former WHERE agent = ? ORDER BY name", (agent,))
        return [checked(row, f"former name {row[0]}", (str, int))[0] for row in rows]


def put_agent(db: sqlite3.Connection, agent: AgentRow) -> None:
    """Write an agent's row; the index of names is left alone if it has its name already."""
    sql = "UPDATE agents SET op_seq = ?, op_head = ?, removed_ns = ?, checksum = ? WHERE id = ? AND name = ?"
    values = (agent.op_seq, agent.op_head, agent.removed_ns, checksum(*agent), agent.id, agent.name)
    if agent.op_seq == 0 or not db.execute(sql, values).rowcount:
        db.execute("INSERT OR REPLACE INTO agents VALUES (?, ?, ?, ?, ?, ?, ?)", (*agent, checksum(*agent)))


def put_former(db: sqlite3.Connection, name: str, agent: int) -> None:
    """Note that an agent had this name before; nobody else may have it."""
    db.execute("INSERT OR REPLACE INTO former VALUES (?, ?, ?)", (name, agent, checksum(name, agent)))


def drop_former(db: sqlite3.Connection, name: str) -> None:
    """Forget a former name: its agent has taken it back."""
    db.execute("DELETE FROM former WHERE name = ?", (name,))


def _keep_log(connection: sqlite3.Connection) -> None:
    """A copy that SQLite made (``VACUUM INTO``, ``.backup``) keeps no log: its readers would hold up its writers."""
    with suppress(sqlite3.OperationalError):  # somebody is reading it: the next one does it
        connection.execute("PRAGMA journal_mode=WAL")


_NOBODYS: tuple[int, sqlite3.Connection | None] = (0, None)
_VFS = Vfs()
_ORPHANS: list[Any] = []
"""Connections from before a fork: closing one here would drop the parent's locks."""


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageFailed(f"the catalog {path!r} cannot be used: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _missing(path: str) -> ChecksumMismatch:
    return ChecksumMismatch(
        f"the catalog {path!r} is missing",
        unchanged="nothing was written",
        hint="`kai fsck --repair` makes it anew from the packs",
        catalog=path,
    )


def _changing() -> LockTimeout:
    return LockTimeout(
        "the catalog changed each time it was read",
        unchanged="nothing was written",
        hint="run the command again",
    )


class _Mapping:
    """Turns what SQLite raises within it into an error of ours; it is entered for every statement, so it is plain."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _RAISED):
            raise _mapped(error) from error


_MAPPED = _Mapping()
_RAISED = (sqlite3.Error, OverflowError, UnicodeDecodeError)


def _mapped(error: Exception) -> KaiError:
    if isinstance(error, sqlite3.Error):
        return _translated(error)
    if isinstance(error, OverflowError):  # a number that SQLite cannot hold comes from one that it held, and grew
        return damaged("something that counts")
    return damaged("its own tables")  # what SQLite says of a damaged schema quotes it


def _translated(error: sqlite3.Error) -> KaiError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return LockTimeout(
            "another process has been writing the catalog for too long",
            unchanged="nothing was written",
            hint="run the command again",
        )
    if name in FULL_CATALOG:
        return NoSpace(
            "the disk is full",
            unchanged="nothing was written",
            hint="free some space, then run the command again",
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or any(
        sign in str(error)
        for sign in ("no such table", "no such column", "Could not decode", "unsupported file format")
    ):
        return ChecksumMismatch(
            f"the catalog is damaged: {error}",
            unchanged="nothing was written",
            hint="`kai fsck --repair` makes it anew from the packs",
        )
    return StorageFailed(
        f"the catalog cannot be used: {error}",
        unchanged="nothing was written",
        hint="check permissions, space and the health of the disk, then run the command again",
    )
