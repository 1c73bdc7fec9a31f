"""A Vfs that does what it is told and writes down what it did, in terms of files and directories, not of paths.

SQLite's own files are not watched call by call: they are modelled by what SQLite documents. A transaction of the
catalog is all there or not at all; once one with ``synchronous=FULL`` has returned it and all before it are on the
disk; later ones are there up to some point. What the catalog holds after each is written down whole.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kaivc.storage.catalog import Catalog
from kaivc.vfs import Path, Vfs


@dataclass(frozen=True)
class Made:
    """A file, directory or symbolic link came to be; ``node`` is it, for good."""

    node: int
    kind: str
    target: bytes
    mode: int


@dataclass(frozen=True)
class Entries:
    """Names in directories that changed in one step: (directory, name, node or None)."""

    changes: tuple[tuple[int, bytes, int | None], ...]


@dataclass(frozen=True)
class Written:
    """Bytes went to a place of a file."""

    node: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Sized:
    """A file got a size."""

    node: int
    size: int


@dataclass(frozen=True)
class Moded:
    """A file or directory got permission bits."""

    node: int
    mode: int


@dataclass(frozen=True)
class Synced:
    """A file, or the names in a directory, reached the disk; None for everything."""

    node: int | None


@dataclass(frozen=True)
class Transacted:
    """The catalog held this after a transaction."""

    node: int
    data: bytes
    durable: bool


@dataclass(frozen=True)
class Said:
    """Something was acknowledged to the caller."""

    what: str


Step = Made | Entries | Written | Sized | Moded | Synced | Transacted | Said


FULL = 2
"""SQLite's word for a commit that is on the disk when it returns."""


class Recording(Vfs):
    """Writes down every change below ``root``."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.log: list[Step] = []
        self._ids: dict[tuple[int, int], int] = {}
        self._next = 0
        self.top = self._fresh(os.stat(self.root))
        self._scan(self.root, self.top)
        self.log.append(Synced(None))

    # ------------------------------------------------------------ who is who

    def _fresh(self, status: os.stat_result) -> int:
        self._next += 1
        self._ids[status.st_dev, status.st_ino] = self._next
        return self._next

    def _scan(self, path: str, node: int) -> None:
        """What is there before anything is recorded."""
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda it: it.name):
                if entry.name.startswith("catalog.sqlite-"):
                    continue
                status = entry.stat(follow_symlinks=False)
                known = self._ids.get((status.st_dev, status.st_ino))
                child = known or self._meet(entry.path, status)
                self.log.append(Entries(((node, os.fsencode(entry.name), child),)))
                if stat.S_ISDIR(status.st_mode):
                    self._scan(entry.path, child)

    def _meet(self, path: str, status: os.stat_result) -> int:
        """Write down a file that was not made by us, with what it holds."""
        node = self._fresh(status)
        if stat.S_ISLNK(status.st_mode):
            self.log.append(Made(node, "link", os.fsencode(os.readlink(path)), 0))
        elif stat.S_ISDIR(status.st_mode):
            self.log.append(Made(node, "directory", b"", status.st_mode & 0o777))
        else:
            self.log.append(Made(node, "file", b"", status.st_mode & 0o777))
            if os.path.basename(path).startswith("catalog."):
                self.log.append(Transacted(node, _catalog_bytes(path), durable=True))
            else:
                with open(path, "rb") as file:
                    self.log.append(Written(node, 0, file.read()))
        return node

    def _found(self, path: str, status: os.stat_result) -> int | None:
        """A file that SQLite made by itself, and whose name nobody has synced yet."""
        place = self._place(path, None)
        if place is None:
            return None
        node = self._meet(path, status)
        self._name((place, node))
        return node

    def _node(self, status: os.stat_result) -> int | None:
        return self._ids.get((status.st_dev, status.st_ino))

    def _place(self, path: Path, at: int | None) -> tuple[int, bytes] | None:
        """The directory and the name that a path means; None outside of the root."""
        full = os.fsencode(path).rstrip(b"/")
        if at is not None:
            full = os.path.join(os.fsencode(f"/proc/self/fd/{at}"), full)
        parent = self._node(os.stat(os.path.dirname(full) or b"."))
        return None if parent is None else (parent, os.path.basename(full))

    def _there(self, path: Path, at: int | None) -> os.stat_result | None:
        try:
            return os.stat(path, dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _name(self, *changes: tuple[tuple[int, bytes] | None, int | None]) -> None:
        known = tuple((place[0], place[1], node) for place, node in changes if place is not None)
        if known:
            self.log.append(Entries(known))

    def _make(self, place: tuple[int, bytes] | None, status: os.stat_result, kind: str, target: bytes = b"") -> None:
        if place is not None:
            node = self._fresh(status)
            self.log.append(Made(node, kind, target, status.st_mode & 0o777))
            self._name((place, node))

    # ------------------------------------------------------------ files

    def create(self, path: Path, mode: int = 0o600, at: int | None = None) -> int:
        place = self._place(path, at)
        fd = super().create(path, mode, at)
        self._make(place, os.fstat(fd), "file")
        return fd

    def open_append(self, path: Path, mode: int = 0o600) -> int:
        was = self._there(path, None)
        fd = super().open_append(path, mode)
        if was is None:
            self._make(self._place(path, None), os.fstat(fd), "file")
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> None:
        appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        offset = os.fstat(fd).st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
        super().write(fd, data)
        node = self._node(os.fstat(fd))
        if node is not None:
            self.log.append(Written(node, offset, bytes(data)))

    def set_size(self, fd: int, size: int) -> None:
        super().set_size(fd, size)
        node = self._node(os.fstat(fd))
        if node is not None:
            self.log.append(Sized(node, size))

    def sync(self, fd: int) -> None:
        super().sync(fd)
        status = os.fstat(fd)
        node = self._node(status)
        if node is None and stat.S_ISREG(status.st_mode):
            node = self._found(os.readlink(f"/proc/self/fd/{fd}"), status)
        if node is not None:
            self.log.append(Synced(node))

    def chmod_fd(self, fd: int, mode: int) -> None:
        super().chmod_fd(fd, mode)
        node = self._node(os.fstat(fd))
        if node is not None:
            self.log.append(Moded(node, mode))

    # ------------------------------------------------------------ names

    def rename(self, old: Path, new: Path, old_at: int | None = None, new_at: int | None = None) -> None:
        status = self._there(old, old_at)
        places = self._place(old, old_at), self._place(new, new_at)
        super().rename(old, new, old_at, new_at)
        node = self._node(status) if status is not None else None
        self._name((places[0], None), (places[1], node))

    def link(self, old: Path, new: Path, old_at: int | None = None, new_at: int | None = None) -> None:
        status = self._there(old, old_at)
        place = self._place(new, new_at)
        super().link(old, new, old_at, new_at)
        self._name((place, self._node(status) if status is not None else None))

    def unlink(self, path: Path, at: int | None = None, *, missing_ok: bool = False) -> None:
        was = self._there(path, at)
        super().unlink(path, at, missing_ok=missing_ok)
        if was is not None:
            self._name((self._place(path, at), None))

    def symlink(self, target: Path, path: Path, at: int | None = None) -> None:
        super().symlink(target, path, at)
        status = self._there(path, at)
        assert status is not None
        self._make(self._place(path, at), status, "link", os.fsencode(target))

    # ------------------------------------------------------------ directories

    def make_dir(self, path: Path, mode: int = 0o700, at: int | None = None) -> None:
        was = self._there(path, at)
        super().make_dir(path, mode, at)
        status = self._there(path, at)
        if was is None and status is not None:
            self._make(self._place(path, at), status, "directory")

    def remove_dir(self, path: Path, at: int | None = None) -> None:
        place = self._place(path, at)
        super().remove_dir(path, at)
        self._name((place, None))

    def sync_disk(self) -> None:
        super().sync_disk()
        self.log.append(Synced(None))

    # ------------------------------------------------------------ the catalog

    def transacted(self, catalog: Catalog) -> None:
        """Write down what the catalog holds now; durable if SQLite was told to sync it."""
        durable = catalog.db.execute("PRAGMA synchronous").fetchone()[0] >= FULL
        status = os.stat(catalog.path)
        if self._node(status) is None:
            self._make(self._place(catalog.path, None), status, "file")
        node = self._node(status)
        if node is not None:
            self.log.append(Transacted(node, catalog.db.serialize(), durable))

    def say(self, what: str) -> None:
        """Note that the caller knows."""
        self.log.append(Said(what))


def _catalog_bytes(path: str) -> bytes:
    connection = sqlite3.connect(path)
    try:
        return connection.serialize()
    finally:
        connection.close()


@contextmanager
def recorded(vfs: Recording) -> Iterator[Recording]:
    """Write down the catalog's transactions too."""
    real = Catalog.transaction

    @contextmanager
    def transaction(self: Catalog, op_id: str = "", *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        with real(self, op_id, durable=durable) as db:
            yield db
        if os.path.realpath(self.path).startswith(vfs.root + "/"):
            vfs.transacted(self)

    Catalog.transaction = transaction  # type: ignore[method-assign]
    try:
        yield vfs
    finally:
        Catalog.transaction = real  # type: ignore[method-assign]
