"""Copy a directory into a new workspace: captured as a commit would, databases included, into plain files."""

from __future__ import annotations

import os

from kaivc.capture import Capture, Capturer
from kaivc.dirtree import DirTree
from kaivc.errors import RefusedWorkspace
from kaivc.materialise import plain_mode
from kaivc.names import ObjectId
from kaivc.records import dataclass, replace
from kaivc.repository import OpenHome, Repository
from kaivc.settings import Local
from kaivc.storage.chunking import Source
from kaivc.storage.gitobjects import EXECUTABLE, SYMLINK, Entry, Kind
from kaivc.trees import show


@dataclass(frozen=True)
class Origin:
    """A directory to copy.

    With ``still`` nobody runs it and not even SQLite may write to it; with ``released`` it is a read-only view, whose
    modes are not those of a workspace.
    """

    path: str
    still: bool = False
    released: bool = False


def stand_in(home: OpenHome, name: str, path: str) -> Repository:
    """An agent that is not there yet, with its workspace at ``path``: it has no cache and no objects."""
    local = Local({**home.local.workspaces, name: os.path.realpath(path)}, home.local.secrets)
    return Repository(replace(home, local=local), name, 0)


def copy_in(home: OpenHome, name: str, origin: Origin, workspace: str) -> Capture:
    """Fill ``workspace`` with what a commit of ``origin`` would hold; what was captured."""
    with DirTree(home.vfs, workspace, 0o755) as tree:
        sink = _CopySink(home, tree)
        capture = Capturer(stand_in(home, name, origin.path), sink, {}, still=origin.still).run()
        _place(home, tree, sink, capture, origin)
    return capture


class _CopySink:
    """Takes files as they are captured, and keeps each once under its id."""

    def __init__(self, home: OpenHome, tree: DirTree) -> None:
        self._format = home.format
        self._tree = tree
        self._count = 0
        self._prefix = b".copy-" + os.urandom(8).hex().encode()
        self.kept: dict[ObjectId, bytes] = {}

    def put_blob(self, source: Source, size: int, like: ObjectId | None = None) -> ObjectId:  # noqa: ARG002 - a sink's
        """Write the bytes to a scratch file; their id."""
        name = b"%s-%d" % (self._prefix, self._count)
        self._count += 1
        digest = self._format.header(Kind.BLOB, size)
        fd = self._tree.vfs.create(name, 0o600, at=self._tree.fd)
        try:
            while piece := source.read(1 << 20):
                digest.update(piece)
                self._tree.vfs.write(fd, piece)
        finally:
            self._tree.vfs.close(fd)
        oid = ObjectId(digest.digest())
        if oid in self.kept:
            self._tree.vfs.unlink(name, at=self._tree.fd)
        else:
            self.kept[oid] = name
        return oid

    def contains(self, oid: bytes) -> bool:
        """Nothing need be known before."""
        return ObjectId(oid) in self.kept


def _place(home: OpenHome, tree: DirTree, sink: _CopySink, capture: Capture, origin: Origin) -> None:
    for path, entry in capture.without_secrets().items():
        parent, last = tree.at(path, create=True)
        if entry.mode == SYMLINK:
            home.vfs.symlink(capture.links[entry.oid], last, at=parent)
            continue
        fd = home.vfs.create(last, 0o600, at=parent)
        try:
            _pour(home, tree, sink.kept[entry.oid], fd)
            home.vfs.chmod_fd(fd, _mode(home, capture, path, entry, origin))
        except OSError as error:
            raise RefusedWorkspace(f"{show(path)} went away while it was copied") from error
        finally:
            home.vfs.close(fd)
    for name in sink.kept.values():
        home.vfs.unlink(name, at=tree.fd)


def _mode(home: OpenHome, capture: Capture, path: bytes, entry: Entry, origin: Origin) -> int:
    if origin.released:
        mode = plain_mode(entry) | (0o020 if home.shared else 0)
        return mode & 0o700 if capture.manifest.is_private(path) else mode
    mode = os.stat(os.path.join(os.fsencode(origin.path), path)).st_mode & 0o777
    return mode if entry.mode == EXECUTABLE else mode & 0o666


def _pour(home: OpenHome, tree: DirTree, name: bytes, to: int) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tree.fd)
    try:
        while piece := os.read(fd, 1 << 20):
            home.vfs.write(to, piece)
    finally:
        os.close(fd)
