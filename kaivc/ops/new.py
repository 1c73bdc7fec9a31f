"""Make an agent, empty or from a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from kaivc.capture import Capture, Capturer
from kaivc.dirtree import DirTree
from kaivc.errors import NameTaken, RefusedWorkspace
from kaivc.layout import Layout
from kaivc.manifest import StateClass
from kaivc.names import ObjectId, check_name
from kaivc.repository import OpenHome, Repository
from kaivc.roots import refuse_root
from kaivc.settings import Local
from kaivc.storage.catalog import AgentRow, put_agent
from kaivc.storage.chunking import Source
from kaivc.storage.gitobjects import EXECUTABLE, SYMLINK, Kind
from kaivc.storage.journal import GENESIS
from kaivc.trees import show

LOCAL = ".local"
"""The lock of local.yaml; no agent has a name that begins so."""
POLL = 0.01
MARK = ".new"
"""Stands in a directory that was made, until the catalog names its agent."""


@dataclass(frozen=True)
class AgentMade:
    """A new agent; it has no version yet."""

    agent: str
    workspace: str
    files: int
    notices: tuple[str, ...]


def new(home: OpenHome, name: str, *, source: str | None = None, link: str | None = None) -> AgentMade:
    """Make the agent ``name``, its workspace a copy of ``source``, or ``link`` itself.

    NameTaken, InvalidName, RefusedWorkspace and what a capture raises; nothing is there then.
    """
    check_name("agent", name)
    with _name_held(home, name):
        _check(home, name, source, link)
        return _make(home, name, source, link)


@contextmanager
def _name_held(home: OpenHome, name: str, wait: float = 0) -> Iterator[None]:
    """One maker of a name at a time."""
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


def _check(home: OpenHome, name: str, source: str | None, link: str | None) -> None:
    if home.catalog.agent(name) is not None:
        raise NameTaken(f"there is an agent {name!r} already", unchanged="nothing was written", name=name)
    final = home.layout.agent(name)
    if os.path.lexists(final) and not os.path.exists(os.path.join(final, "snapshot_temp", MARK)):
        raise NameTaken(
            f"{final} is there, and is no agent's",
            unchanged="nothing was written",
            hint="move it away, or choose another name",
            path=final,
        )
    for directory in filter(None, (source, link)):
        refuse_root(directory, home.layout, home.environ)
    if link is not None:
        _check_link(home, name, link)


def _check_link(home: OpenHome, name: str, link: str) -> None:
    real = os.path.realpath(link)
    why = ""
    if not os.path.isdir(real):
        why = "it is no directory"
    elif os.stat(real).st_dev != os.stat(home.layout.kai).st_dev:
        why = "it lies on another disk than the home, so that files cannot be renamed into it"
    elif (real + "/").startswith(os.path.realpath(home.layout.root) + "/"):
        why = "it lies in the home"
    elif (os.path.realpath(home.layout.root) + "/").startswith(real + "/"):
        why = "the home lies in it"
    elif any(_overlap(real, os.path.realpath(path)) for agent, path in home.local.workspaces.items() if agent != name):
        why = "it holds, lies in or is the workspace of another agent"
    if why:
        raise RefusedWorkspace(f"{link} cannot be linked: {why}", unchanged="nothing was written", path=link)


def _overlap(one: str, two: str) -> bool:
    return (one + "/").startswith(two + "/") or (two + "/").startswith(one + "/")


def _make(home: OpenHome, name: str, source: str | None, link: str | None) -> AgentMade:
    vfs, mode = home.vfs, home.dir_mode
    temporary = os.path.join(home.layout.root, f".new-{name}")
    vfs.remove_tree(temporary)
    scratch = Layout(temporary)
    for directory in ("", "workspace", "versions", "snapshot_temp"):
        vfs.make_dir(os.path.join(temporary, directory), mode)
    vfs.close(vfs.create(os.path.join(temporary, "snapshot_temp", MARK)))
    workspace = os.path.join(scratch.root, "workspace")
    capture = _copy(home, name, source, workspace) if source is not None else Capture()
    final = home.layout.agent(name)
    vfs.remove_tree(final)
    vfs.rename(temporary, final)
    vfs.sync_dir(home.layout.root)
    if link is not None or name in home.local.workspaces:
        _write_local(home, name, os.path.realpath(link) if link is not None else None)
    if capture.files:
        vfs.sync_disk()
    now = home.clock.now_ns()
    with home.catalog.transaction() as db:
        if home.catalog.agent(name) is not None:
            raise NameTaken(f"there is an agent {name!r} already", unchanged="nothing was written", name=name)
        number = db.execute("SELECT coalesce(max(id), 0) + 1 FROM agents").fetchone()[0]
        put_agent(db, AgentRow(number, name, now, 0, GENESIS))
    vfs.unlink(os.path.join(home.layout.snapshot_temp(name), MARK), missing_ok=True)
    path = os.path.realpath(link) if link is not None else home.layout.workspace(name)
    return AgentMade(name, path, len(capture.files), tuple(capture.notices()))


def _write_local(home: OpenHome, name: str, path: str | None) -> None:
    """Note where a linked workspace lies; None forgets what a cut command noted."""
    import yaml  # noqa: PLC0415 - 16 ms that only a link needs

    with _name_held(home, LOCAL, wait=home.settings.lock_wait):
        text = ""
        if os.path.exists(home.layout.local):
            with open(home.layout.local, encoding="utf-8") as file:
                text = file.read()
        document = yaml.safe_load(text) or {}
        workspaces = document.setdefault("workspaces", {})
        workspaces.pop(name, None)
        if path is not None:
            workspaces[name] = path
        home.vfs.replace(home.layout.local, yaml.safe_dump(document, sort_keys=True).encode())


# ---------------------------------------------------------------- copying a directory in


class _CopySink:
    """Takes files as they are captured, and keeps each once under its id."""

    def __init__(self, home: OpenHome, tree: DirTree) -> None:
        self._format = home.format
        self._tree = tree
        self._count = 0
        self.kept: dict[ObjectId, bytes] = {}

    def put_blob(self, source: Source, size: int) -> ObjectId:
        """Write the bytes to a scratch file; their id."""
        name = b".copy-%d" % self._count
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


def _copy(home: OpenHome, name: str, source: str, workspace: str) -> Capture:
    """Capture ``source`` as a commit would, databases included, into plain files."""
    stand_in = Repository(
        _with_workspace(home, name, os.path.realpath(source)), name, 0
    )  # an agent that is not there yet: id 0 has no cache
    with DirTree(home.vfs, workspace, 0o755) as tree:
        sink = _CopySink(home, tree)
        capture = Capturer(stand_in, sink, {}).run()
        _place(home, tree, sink, capture, source)
    return capture


def _with_workspace(home: OpenHome, name: str, path: str) -> OpenHome:
    return replace(home, local=Local({**home.local.workspaces, name: path}, home.local.secrets))


def _place(home: OpenHome, tree: DirTree, sink: _CopySink, capture: Capture, source: str) -> None:
    for path, entry in capture.files.items():
        if capture.manifest.state_class(path) is StateClass.SECRET:
            continue  # never read: `kai run` brings it
        parent, last = tree.at(path, create=True)
        if entry.mode == SYMLINK:
            home.vfs.symlink(capture.links[entry.oid], last, at=parent)
            continue
        fd = home.vfs.create(last, 0o600, at=parent)
        try:
            _pour(home, tree, sink.kept[entry.oid], fd)
            mode = os.stat(os.path.join(os.fsencode(source), path)).st_mode & 0o777
            home.vfs.chmod_fd(fd, mode if entry.mode == EXECUTABLE else mode & 0o666)
        except OSError as error:
            raise RefusedWorkspace(f"{show(path)} went away while it was copied") from error
        finally:
            home.vfs.close(fd)
    for name in sink.kept.values():
        home.vfs.unlink(name, at=tree.fd)


def _pour(home: OpenHome, tree: DirTree, name: bytes, to: int) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tree.fd)
    try:
        while piece := os.read(fd, 1 << 20):
            home.vfs.write(to, piece)
    finally:
        os.close(fd)
