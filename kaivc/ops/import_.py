"""Adopt an existing tree of version folders as a new agent."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial

from kaivc import folders, intents, making, versions
from kaivc.capture import Capture, Capturer
from kaivc.copying import Origin, copy_in, stand_in
from kaivc.errors import InvalidName, KaiError, UnsettledFile
from kaivc.folders import Folder, FolderTree, wrong
from kaivc.making import Beginning
from kaivc.manifest import FileClass
from kaivc.names import Absent, Actor, ObjectId, RefUpdate, Version, check_name, current_ref, version_ref
from kaivc.records import dataclass, replace
from kaivc.repository import OpenHome
from kaivc.sinks import HashSink
from kaivc.storage.gitobjects import FORMATS, LAST_SECOND, Kind, encode_commit
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter
from kaivc.trees import show
from kaivc.versions import AgentVersion, Draft

LAYOUTS = ("folders",)
NAMED = 3
"""How many versions a notice names."""

_OURS = re.compile(r"sha256:[0-9a-f]{64}\Z")
_CHECKSUMS = {"agent_state_checksum": FileClass.STATE, "config_checksum": FileClass.CONFIG}


@dataclass(frozen=True)
class Imported:
    """What was imported, or would be; ``versions`` lowest number first, ``workspace_from`` below ``directory``."""

    agent: str
    directory: str
    workspace: str
    workspace_from: str
    files: int
    current: str
    versions: tuple[AgentVersion, ...]
    notices: tuple[str, ...]
    op_id: str | None = None
    seq: int | None = None
    applied: bool = False


def import_(
    home: OpenHome,
    directory: str,
    *,
    layout: str = "folders",
    name: str | None = None,
    author: Actor | None = None,
    time: int | None = None,
    dry_run: bool = False,
) -> Imported:
    """Make an agent of the versions that lie in ``directory``, which is only read; wholly, or not at all.

    The folders do not say who made them: ``author`` did, else the home's actor. ``time`` (whole seconds UTC) is that of
    versions which do not say theirs; without it the newest mtime of their files counts. Raises InvalidLayout,
    NameTaken, InvalidName, and what a capture raises.
    """
    if layout not in LAYOUTS:
        raise InvalidName(f"{layout!r} is no layout", unchanged="nothing was imported", hint=f"use {LAYOUTS[0]}")
    tree = folders.read_folders(directory)
    name = _name(tree, name)
    reader = partial(_Importer, home, tree, name, author or home.actor, time)
    if dry_run:
        making.check_free(home, name)
        return reader(HashSink(home.format)).plan(_count_workspace(home, tree, name))
    with making.name_held(home, name):
        making.check_free(home, name)
        with StoreWriter(making.newborn(home, name).store) as writer:
            importer = reader(writer)
            with making.prepared(home, name) as workspace:
                making.prepare_packs(home, name)
                importer.run()
                copied = importer.fill(workspace)
                beginning = importer.beginning()
                home.vfs.sync_disk()
            making.begin(home, name, writer, beginning)
        return replace(importer.result(copied), op_id=beginning.op.op_id, seq=1, applied=True)


def _name(tree: FolderTree, name: str | None) -> str:
    if name is not None:
        return check_name("agent", name)
    try:
        return check_name("agent", os.path.basename(tree.path))
    except InvalidName as error:
        error.hint = f"name the agent with --name NAME; {error.hint}"
        raise


def _count_workspace(home: OpenHome, tree: FolderTree, name: str) -> Capture | None:
    """What a commit of the workspace would hold; None where that of ``current`` is taken."""
    if tree.workspace is None:
        return None
    return _captured(home, name, tree.workspace, "workspace", HashSink(home.format))


def _captured(home: OpenHome, name: str, path: str, shown: str, sink: StoreWriter | HashSink) -> Capture:
    """Read one folder as a commit would; errors say which."""
    try:
        return Capturer(stand_in(home, name, path), sink, {}, still=True).run()
    except KaiError as error:
        raise _within(error, shown) from error


def _within(error: KaiError, shown: str) -> KaiError:
    error.what = f"{shown}: {error.what}"
    error.args = (error.what,)
    error.unchanged = "nothing was imported"
    return error


class _Importer:
    """Turns folders into commits and tags, parents first."""

    def __init__(
        self,
        home: OpenHome,
        tree: FolderTree,
        name: str,
        author: Actor,
        time: int | None,
        sink: StoreWriter | HashSink,
    ) -> None:
        self._home = home
        self._tree = tree
        self._name = name
        self._author = author
        self._time = time
        self._sink = sink
        self._made: dict[Version, AgentVersion] = {}
        self._tags: dict[Version, ObjectId] = {}
        self._in_force = Capture()
        self._other_ids: list[str] = []
        self._notices = list(tree.notices)

    def run(self) -> None:
        """Add every version; typed errors name the folder, and the file and key where one is wrong."""
        for number, folder in enumerate(self._tree.folders):
            self._home.progress(f"importing {folder.name}", number, len(self._tree.folders))
            self._version(folder)

    def plan(self, workspace: Capture | None) -> Imported:
        """What an import would do."""
        self.run()
        if workspace is not None:
            self._notices += _notices("workspace", workspace)
        return self.result(len((workspace or self._in_force).without_secrets()))

    def result(self, files: int) -> Imported:
        """What was imported, with so many files in its workspace."""
        tree = self._tree
        source = tree.workspace or tree.current.path
        return Imported(
            agent=self._name,
            directory=tree.path,
            workspace=self._home.layout.workspace(self._name),
            workspace_from=os.path.relpath(source, tree.path),
            files=files,
            current=tree.current.version.tag,
            versions=tuple(self._made[number] for number in sorted(self._made)),
            notices=(*self._notices, *self._on_ids()),
        )

    # ------------------------------------------------------------ one version

    def _version(self, folder: Folder) -> None:
        capture = _captured(self._home, self._name, folder.path, folder.name, self._sink)
        self._check(folder, capture)
        meta = folder.meta or folders.Meta()
        draft = Draft(
            capture.files,
            capture.manifest,
            self._made[folder.parent] if folder.parent else None,
            folder.version,
            meta.notes.strip() or f"{self._name} {folder.version.tag}",
            meta.snapshot_type or "manual",
            self._author,
            self._created(folder, capture) if meta.created is None else meta.created,
        )
        try:
            commit = versions.compose(self._sink, draft)
        except KaiError as error:
            raise _within(error, folder.name) from error
        oid = self._sink.put(Kind.COMMIT, encode_commit(commit))
        newborn = making.newborn(self._home, self._name)
        self._tags[folder.version] = versions.write_tag(newborn, self._sink, draft, folder.version, oid)
        self._made[folder.version] = versions.of_commit(self._name, oid, commit)
        if meta.commit_hash is not None and meta.commit_hash.lower() != oid.hex():
            self._other_ids.append(folder.version.tag)
        if folder == self._tree.current:
            self._in_force = capture
        capture.reserved = False  # it was read
        capture.hard_links.clear()  # views of a home share their files
        self._notices += _notices(folder.name, capture)

    def _created(self, folder: Folder, capture: Capture) -> int:
        if self._time is not None:
            return self._time
        root = os.fsencode(folder.path)
        try:
            times = [os.lstat(os.path.join(root, path)).st_mtime_ns for path in capture.files or [b""]]
        except FileNotFoundError as error:
            raise _changed(folder.name) from error
        return min(max(0, max(times) // 1_000_000_000), LAST_SECOND)  # a disk takes any

    def _check(self, folder: Folder, capture: Capture) -> None:
        """Compare the checksums that the folder states."""
        for key, kind in _CHECKSUMS.items():
            stated = getattr(folder.meta, key, None)
            if stated is None:
                continue
            if not _OURS.match(stated):
                self._notices.append(f"{folder.name}: {key} is of another kind: not compared")
                continue
            found = versions.checksum(capture.files, capture.manifest, kind)
            if stated != found and stated != self._in_other_format(folder, kind):
                raise wrong(
                    folder.meta_path,
                    key,
                    f"is not that of the files: they give {found}, it says {stated}",
                    f"bring the files of {folder.name} back as they were released, or take the line away",
                    expected=stated,
                    found=found,
                )

    def _in_other_format(self, folder: Folder, kind: FileClass) -> str:
        """The checksum in a home of git's other hash, for it is made of ids."""
        other = next(it for it in FORMATS.values() if it != self._home.format)
        capture = _captured(self._home, self._name, folder.path, folder.name, HashSink(other))
        return versions.checksum(capture.files, capture.manifest, kind)

    def _on_ids(self) -> list[str]:
        if not self._other_ids:
            return []
        some = ", ".join(self._other_ids[:NAMED])
        more = f" and {len(self._other_ids) - NAMED} more" if len(self._other_ids) > NAMED else ""
        notice = (
            f"the ids of {some}{more} are others than their commit_hash says: a folder does not name its author "
            "(--author does), and another home may hash differently"
        )
        return [notice]

    # ------------------------------------------------------------ the agent

    def fill(self, workspace: str) -> int:
        """Copy the live files, or those of the version in force, to the new workspace; their number."""
        tree = self._tree
        if tree.workspace is not None:
            shown, origin = "workspace", Origin(tree.workspace, still=True)
        else:
            shown, origin = tree.current.name, Origin(tree.current.path, still=True, released=True)
        try:
            capture = copy_in(self._home, self._name, origin, workspace)
        except KaiError as error:
            raise _within(error, shown) from error
        if tree.workspace is not None:
            self._notices += _notices(shown, capture)
        elif capture.files != self._in_force.files:
            raise _changed(shown)
        return len(capture.without_secrets())

    def beginning(self) -> Beginning:
        """What the agent begins with: all tags, and ``current``."""
        home, name = self._home, self._name
        number = f"{len(self._tags)} version{'s' if len(self._tags) > 1 else ''}"
        reason = f"{number} of {show(os.fsencode(os.path.basename(self._tree.path)))}"
        moves = {current_ref(name): self._made[self._tree.current.version].oid}
        moves |= {version_ref(name, number): self._tags[number] for number in sorted(self._tags)}
        updates: Sequence[RefUpdate] = [RefUpdate(ref, Absent(), oid, home.actor, reason) for ref, oid in moves.items()]
        op_id = making.newborn(home, name).new_op_id()
        op = Op("import", op_id, str(home.actor), home.clock.now_ns(), reason, workspace=True)
        return Beginning(op, updates, [intents.link(), intents.log()])


def _changed(shown: str) -> UnsettledFile:
    return UnsettledFile(
        f"{shown} changed while it was read",
        unchanged="nothing was imported",
        hint="run the command again once nothing writes there",
    )


def _notices(shown: str, capture: Capture) -> list[str]:
    return [f"{shown}: {line}" for line in capture.notices()]
