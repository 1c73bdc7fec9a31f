"""What a restore of the workspace would do, as a value: what differs, what is written, removed, kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import msgpack

from kaivc import manifest as manifests
from kaivc.capture import Capture
from kaivc.dirtree import DirTree
from kaivc.errors import Incompatible
from kaivc.manifest import Manifest, StateClass
from kaivc.names import ObjectId
from kaivc.repository import Repository
from kaivc.storage.gitobjects import Entry, Kind
from kaivc.trees import Change, Files, show


@dataclass(frozen=True)
class Write:
    """A path that gets the bytes of ``entry``."""

    path: bytes
    entry: Entry
    private: bool


@dataclass(frozen=True)
class RestorePlan:
    """What a restore does; ``left`` is what stood at each path that changes, ``base`` the commit in force then."""

    op: str
    base: ObjectId
    writes: tuple[Write, ...]
    removes: tuple[bytes, ...]
    left: dict[bytes, Entry]
    kept: tuple[bytes, ...] = ()
    live: bool = False

    def __bool__(self) -> bool:
        return bool(self.writes or self.removes)

    def encode(self, backup: int | None) -> bytes:
        """The plan as an intent's payload."""
        packed: bytes = msgpack.packb(
            {
                "op": self.op,
                "base": self.base,
                "writes": [(write.path, *write.entry, write.private) for write in self.writes],
                "removes": list(self.removes),
                "left": [(path, *entry) for path, entry in self.left.items()],
                "live": self.live,
                "backup": backup,
            }
        )
        return packed


def decode_plan(payload: bytes) -> tuple[RestorePlan, int | None]:
    """The plan and the number of the backup, from an intent's payload."""
    fields: dict[str, Any] = msgpack.unpackb(payload)
    writes = tuple(Write(path, Entry(mode, ObjectId(oid)), private) for path, mode, oid, private in fields["writes"])
    left = {path: Entry(mode, ObjectId(oid)) for path, mode, oid in fields["left"]}
    base = ObjectId(fields["base"])
    plan = RestorePlan(fields["op"], base, writes, tuple(fields["removes"]), left, live=fields["live"])
    return plan, fields["backup"]


# ---------------------------------------------------------------- what differs


@dataclass(frozen=True)
class Difference:
    """How a workspace differs from a tree: what counts, and what its class keeps out of it."""

    changes: tuple[Change, ...]
    kept: tuple[Change, ...]


def difference(capture: Capture, files: Files, *tree_manifests: Manifest) -> Difference:
    """Sort what differs by whether its class lets it count."""
    changes: list[Change] = []
    kept: list[Change] = []
    for path in sorted(capture.files.keys() | files.keys()):
        old, new = files.get(path), capture.files.get(path)
        if old == new:
            continue
        found = _strictest(path, (capture.manifest, *tree_manifests))
        (kept if found > StateClass.RESTORE else changes).append(Change(path, old, new))
    return Difference(tuple(changes), tuple(kept))


def _strictest(path: bytes, several: Collection[Manifest]) -> StateClass:
    return max(manifest.state_class(path) for manifest in several)


# ---------------------------------------------------------------- plan


class Planner:
    """Plans the restore of one workspace to ``target``.

    ``base`` is the commit that is left, ``left`` its manifest; ``manifest`` is that of the target.
    """

    def __init__(
        self,
        repo: Repository,
        capture: Capture,
        base: ObjectId,
        target: Files,
        left: Manifest,
        manifest: Manifest,
    ) -> None:
        self._repo = repo
        self._capture = capture
        self._base = base
        self._target = target
        self._manifests = (capture.manifest, left, manifest)

    def plan(self, op: str, *, only: Collection[bytes] | None = None, live: bool = False) -> RestorePlan:
        """The plan; Incompatible when a counter cannot be read or something is in the way."""
        writes: list[Write] = []
        removes: list[bytes] = []
        kept: list[bytes] = []
        reasons: list[str] = []
        for path in sorted(self._capture.files.keys() | self._target.keys()):
            if only is not None and path not in only:
                continue
            here, there = self._capture.files.get(path), self._target.get(path)
            if here == there:
                continue
            try:
                stays = self._stays(path, here, there)
            except ValueError as error:
                reasons.append(f"{show(path)}: {error}")
                continue
            if stays:
                kept.append(path)
            elif there is None:
                removes.append(path)
            else:
                writes.append(Write(path, there, self._manifests[2].is_private(path)))
        left = self._capture.files
        changed = {path: left[path] for path in [*removes, *(write.path for write in writes)] if path in left}
        plan = RestorePlan(op, self._base, tuple(writes), tuple(removes), changed, tuple(kept), live)
        reasons += self._in_the_way(plan)
        if reasons:
            raise Incompatible(
                "the workspace cannot be brought there: " + "; ".join(reasons),
                unchanged="nothing moved",
                hint="mend or move what is named, then run the command again",
                reasons=reasons,
            )
        return plan

    def _stays(self, path: bytes, here: Entry | None, there: Entry | None) -> bool:
        found = _strictest(path, self._manifests)
        if found in (StateClass.SECRET, StateClass.KEEP):
            return True
        if found is not StateClass.MONOTONIC or there is None:
            return found is StateClass.MONOTONIC
        if here is None:
            return False
        pointer = next((it for it in (manifest.pointer(path) for manifest in self._manifests) if it is not None), "")
        stored = self._repo.store.read(there.oid, Kind.BLOB)
        return self._live_counter(path, pointer) >= manifests.read_counter(stored, pointer)

    def _live_counter(self, path: bytes, pointer: str) -> int:
        with DirTree(self._repo.vfs, self._repo.workspace) as tree:
            parent, name = tree.at(path)
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            with os.fdopen(fd, "rb") as file:
                return manifests.read_counter(file.read(manifests.MAX_COUNTER_BYTES + 1), pointer)

    def _in_the_way(self, plan: RestorePlan) -> Iterator[str]:
        """Ignored things that stand where the target has something else."""
        gone = set(plan.removes) | plan.left.keys()
        with DirTree(self._repo.vfs, self._repo.workspace) as tree:
            for write in plan.writes:
                for parent in parents(write.path):
                    status = tree.stat(parent)
                    if status is not None and not stat.S_ISDIR(status.st_mode) and parent not in gone:
                        yield f"{show(parent)} is ignored, and stands where the version has a directory"
                if tree.is_dir(write.path) and not _all_gone(self._repo.workspace, write.path, gone):
                    yield f"{show(write.path)} is a directory that holds ignored files, where the version has a file"


def parents(path: bytes) -> Iterator[bytes]:
    """The directories above a path, from the top."""
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        yield b"/".join(parts[:count])


def _all_gone(root: str, path: bytes, gone: set[bytes]) -> bool:
    base = os.fsencode(root)
    for directory, _, names in os.walk(os.path.join(base, path)):
        inside = os.path.relpath(directory, base)
        if any(os.path.join(inside, name) not in gone for name in names):
            return False
    return True
