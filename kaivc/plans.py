"""What a restore of the workspace would do, as a value: what differs, what is written, removed, kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgpack

from kaivc import manifest as manifests
from kaivc.capture import Capture
from kaivc.dirtree import DirTree
from kaivc.errors import ChecksumMismatch, Incompatible, InvalidManifest, KaiError
from kaivc.ignore import IGNORE_FILE, MAX_BYTES, IgnoreRules
from kaivc.manifest import Manifest, StateClass, strictest
from kaivc.names import ObjectId, check_op_id
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.sqlitefiles import SIDE_SUFFIXES
from kaivc.storage.gitobjects import (
    EXECUTABLE,
    FILE,
    SHA1,
    SHA256,
    SYMLINK,
    Entry,
    Kind,
    check_tree_name,
)
from kaivc.trees import Change, Files, show


@dataclass(frozen=True)
class Write:
    """A path that gets the bytes of ``entry``."""

    path: bytes
    entry: Entry
    private: bool


@dataclass(frozen=True)
class RestorePlan:
    """What a restore does; ``left`` is what stood at each path that changes, ``base`` the commit in force then.

    ``plain_sides`` are files of the target that are only named like side files of databases.
    """

    op: str
    base: ObjectId
    writes: tuple[Write, ...]
    removes: tuple[bytes, ...]
    left: dict[bytes, Entry]
    kept: tuple[bytes, ...] = ()
    live: bool = False
    plain_sides: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.writes or self.removes)

    def encode(self, backup: int) -> bytes:
        """The plan as an intent's payload."""
        packed: bytes = msgpack.packb(
            {
                "op": self.op,
                "base": self.base,
                "writes": [(write.path, *write.entry, write.private) for write in self.writes],
                "removes": list(self.removes),
                "left": [(path, *entry) for path, entry in self.left.items()],
                "live": self.live,
                "plain_sides": sorted(self.plain_sides),
                "backup": backup,
            }
        )
        return packed


def decode_plan(payload: bytes) -> tuple[RestorePlan, int]:
    """The plan and the number of the backup, from an intent's payload; ChecksumMismatch unless it is a plan.

    Its paths lead nowhere but into the workspace, and its names are names.
    """
    try:
        plan, backup = _read_plan(msgpack.unpackb(payload, max_ext_len=0))
        check_op_id(plan.op)
        for path in {*(write.path for write in plan.writes), *plan.removes, *plan.left, *plan.plain_sides}:
            for name in path.split(b"/"):
                check_tree_name(name)
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException, KaiError) as error:
        raise ChecksumMismatch(
            "what is still to be done cannot be read: the plan of a restore is damaged",
            unchanged="nothing was written",
            hint="`kai fsck --repair` makes the catalog anew from the packs",
        ) from error
    return plan, backup


def _read_plan(fields: dict[str, Any]) -> tuple[RestorePlan, int]:
    writes = tuple(Write(path, _entry(mode, oid), bool(private)) for path, mode, oid, private in fields["writes"])
    left = {path: _entry(mode, oid) for path, mode, oid in fields["left"]}
    plan = RestorePlan(
        fields["op"],
        _oid(fields["base"]),
        writes,
        tuple(fields["removes"]),
        left,
        live=bool(fields["live"]),
        plain_sides=frozenset(fields["plain_sides"]),
    )
    if type(fields["backup"]) is not int:
        raise TypeError("no number")
    return plan, fields["backup"]


def _entry(mode: object, oid: object) -> Entry:
    if mode not in (FILE, EXECUTABLE, SYMLINK):
        raise ValueError("no mode of a file")
    return Entry(mode, _oid(oid))


def _oid(value: object) -> ObjectId:
    if not isinstance(value, bytes) or len(value) not in (SHA1.width, SHA256.width):
        raise ValueError("no object id")
    return ObjectId(value)


# ---------------------------------------------------------------- what differs


@dataclass(frozen=True)
class Difference:
    """How a workspace differs from a tree: what counts, and what its class keeps out of it."""

    changes: tuple[Change, ...]
    kept: tuple[Change, ...]


def difference(live: Files, files: Files, *several: Manifest) -> Difference:
    """Sort what differs by whether its class, the strictest of several manifests', lets it count."""
    changes: list[Change] = []
    kept: list[Change] = []
    for path in sorted(live.keys() | files.keys()):
        old, new = files.get(path), live.get(path)
        if old == new:
            continue
        found = strictest(path, several)
        (kept if found > StateClass.RESTORE else changes).append(Change(path, old, new))
    return Difference(tuple(changes), tuple(kept))


def none_of_it(repo: Repository, live: Files, left: Files, target: Files) -> frozenset[bytes]:
    """What is in the workspace only, ``target`` ignores, and ``left``, the version that is left, does not hold so.

    It may have been ignored before: a restore must not take it away.
    """
    alone = [path for path, entry in live.items() if path not in target and left.get(path) != entry]
    rules = _rules_of(repo, target.get(IGNORE_FILE)) if alone else IgnoreRules()
    return frozenset(path for path in alone if rules.leave_out(path))


def _rules_of(repo: Repository, entry: Entry | None) -> IgnoreRules:
    """The ignore rules of a version; the defaults if it has none, or (a backup may hold any) none that can be read."""
    if entry is None or entry.mode == SYMLINK or repo.store.size(entry.oid) > MAX_BYTES:
        return IgnoreRules()
    try:
        return IgnoreRules.parse(repo.store.read(entry.oid, Kind.BLOB))
    except InvalidManifest:
        return IgnoreRules()


# ---------------------------------------------------------------- plan


class Planner:
    """Plans the restore of one workspace to ``target``.

    ``base`` is the commit that is left, ``left`` its manifest; ``manifest`` is that of the target. ``also`` captures
    paths that are ignored here, and that the target has.
    """

    def __init__(
        self,
        repo: Repository,
        capture: Capture,
        base: ObjectId,
        target: Files,
        left: Manifest,
        manifest: Manifest,
        also: Callable[[list[bytes]], None],
    ) -> None:
        self._repo = repo
        self._also = also
        self._capture = capture
        self._base = base
        self._target = target
        self._manifests = (capture.manifest, left, manifest)

    def plan(
        self,
        op: str,
        *,
        only: Collection[bytes] | None = None,
        keep: Collection[bytes] = (),
        beside: Collection[bytes] = (),
        live: bool = False,
        force: bool = False,
    ) -> RestorePlan:
        """The plan; Incompatible when something is in the way, or, without ``force``, a counter cannot be read.

        ``only`` bounds it to paths; paths of ``keep`` stay, whatever their class; those ``beside`` are passed over.
        """
        writes: list[Write] = []
        removes: list[bytes] = []
        kept: list[bytes] = []
        reasons: list[str] = []
        for path in sorted(self._capture.files.keys() | self._target.keys()):
            if path in beside or (only is not None and path not in only):
                continue
            here, there = self._capture.files.get(path), self._target.get(path)
            if here == there:
                continue
            try:
                stays = path in keep or self._stays(path, here, there, named=only is not None)
            except (ValueError, OSError) as error:
                stays = False
                if not force:
                    reasons.append(f"{show(path)}: {error}")
            if stays:
                kept.append(path)
            elif there is None:
                removes.append(path)
            else:
                writes.append(Write(path, there, self._manifests[2].is_private(path)))
        met = [*(write.path for write in writes), *kept]
        self._also([path for path in met if path not in self._capture.files])
        left = self._capture.files
        changed = {path: left[path] for path in [*removes, *(write.path for write in writes)] if path in left}
        sides = frozenset(path for path in self._target if path.endswith(SIDE_SUFFIXES))
        plan = RestorePlan(op, self._base, tuple(writes), tuple(removes), changed, tuple(kept), live, sides)
        reasons += self._in_the_way(plan)
        if reasons:
            raise Incompatible(
                "the workspace cannot be brought there: " + "; ".join(reasons),
                unchanged="nothing moved",
                hint="mend or move what is named, then run the command again; --force takes the version's own counters",
                reasons=reasons,
            )
        return plan

    def _stays(self, path: bytes, here: Entry | None, there: Entry | None, *, named: bool) -> bool:
        """Whether its class keeps a path as it is; one that the user named is kept only if it is a secret."""
        found = strictest(path, self._manifests)
        if found is StateClass.SECRET or named:
            return found is StateClass.SECRET
        if found is StateClass.KEEP:
            return True
        if found is not StateClass.MONOTONIC or there is None:
            return found is StateClass.MONOTONIC
        if here is None:
            return False
        pointer = next((it for it in (manifest.pointer(path) for manifest in self._manifests) if it is not None), "")
        if self._repo.store.size(there.oid) > manifests.MAX_COUNTER_BYTES:
            raise ValueError("is too large for a counter's file in the version")
        stored = self._repo.store.read(there.oid, Kind.BLOB)
        return self._live_counter(path, pointer) >= manifests.read_counter(stored, pointer)

    def _live_counter(self, path: bytes, pointer: str) -> int:
        with DirTree(self._repo.vfs, self._repo.workspace) as tree:
            parent, name = tree.at(path)
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            with os.fdopen(fd, "rb") as file:
                return manifests.read_counter(file.read(manifests.MAX_COUNTER_BYTES + 1), pointer)

    def _in_the_way(self, plan: RestorePlan) -> Iterator[str]:
        """What would stop the restore half-way: ignored things, other disks, directories that cannot be written."""
        gone = set(plan.removes) | plan.left.keys()
        with DirTree(self._repo.vfs, self._repo.workspace) as tree:
            for write in plan.writes:
                if tree.is_dir(write.path) and not _all_gone(self._repo.workspace, write.path, gone):
                    yield f"{show(write.path)} is a directory that holds files that stay, where the version has a file"
            touched = {b"", *(it for path in self._touched(plan) for it in parents(path))}
            disk = os.stat(self._repo.layout.kai).st_dev
            for path in sorted(touched):
                yield from self._unfit(tree, path, disk, gone)

    @staticmethod
    def _touched(plan: RestorePlan) -> list[bytes]:
        return [*plan.removes, *(write.path for write in plan.writes)]

    def _unfit(self, tree: DirTree, path: bytes, disk: int, gone: set[bytes]) -> Iterator[str]:
        status = tree.stat(path) if path else os.fstat(tree.fd)
        if status is None or path in gone:
            return
        if not stat.S_ISDIR(status.st_mode):
            yield f"{show(path)} stays, and stands where the version has a directory"
        elif status.st_dev != disk:
            linked = not path and self._repo.name in self._repo.home.local.workspaces
            way_out = f": move it there, and say so with `kai agent link {self._repo.name} DIR`" if linked else ""
            yield f"{show(path) or 'the workspace'} lies on another disk than the home{way_out}"
        elif not os.access(os.path.join(os.fsencode(self._repo.workspace), path), os.W_OK | os.X_OK):
            yield f"{show(path) or 'the workspace'} cannot be written by this user"


def parents(path: bytes) -> Iterator[bytes]:
    """The directories above a path, from the top."""
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        yield b"/".join(parts[:count])


def _all_gone(root: str, path: bytes, gone: set[bytes]) -> bool:
    base = os.fsencode(root)
    for directory, below, names in os.walk(os.path.join(base, path)):
        inside = os.path.relpath(directory, base)
        links = [name for name in below if os.path.islink(os.path.join(directory, name))]
        if any(os.path.join(inside, name) not in gone for name in [*names, *links]):
            return False
    return True
