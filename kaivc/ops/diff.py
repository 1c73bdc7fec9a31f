"""What differs between two versions, or between a version and the workspace."""

from __future__ import annotations

from collections.abc import Iterator

from kaivc import retention, revisions, trees
from kaivc.capture import Capturer
from kaivc.diff.model import FileDiff, Side
from kaivc.diff.patch import render, stat
from kaivc.errors import ChecksumMismatch, Collected
from kaivc.names import ObjectId
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.sinks import HashSink
from kaivc.storage.chunking import Source
from kaivc.storage.gitobjects import Entry, Kind
from kaivc.trees import Change
from kaivc.versions import AgentVersion

MAX_SHOWN = 32 << 20
"""Larger files are not loaded; a diff says only that they differ."""


@dataclass(frozen=True)
class Diff:
    """What differs; ``old`` and ``new`` say between what."""

    agent: str
    old: str
    new: str
    changes: tuple[Change, ...]
    _loader: _Loader

    def files(self) -> Iterator[FileDiff]:
        """Each change with its bytes, one at a time."""
        return (self._loader.load(change) for change in self.changes)

    def patch(self, *, binary: bool = False, context: int = 3) -> Iterator[bytes]:
        """The patch as git writes it; with ``binary``, one that ``git apply`` takes for any file.

        TooLarge, with ``binary``, for a changed file above 32 MiB.
        """
        return render(self.files(), binary=binary, context=context)

    def stat(self) -> list[tuple[bytes, int | None, int | None]]:
        """(path, lines added, lines removed); None for binary files."""
        return stat(self.files())


def diff(repo: Repository, old: str, new: str | None = None) -> Diff:
    """Compare two revisions; without ``new``, ``old`` with the workspace."""
    before = revisions.resolve(repo, old)
    if new is not None:
        after = revisions.resolve(repo, new)
        with retention.reading(repo, before, after):
            changes = trees.diff(repo.store, before.tree_oid, after.tree_oid)
        return Diff(repo.name, before.tag, after.tag, tuple(changes), _Loader(repo, {}, (before, after)))
    sink = _KeepingSink(repo)
    with retention.reading(repo, before):
        files = trees.flatten(repo.store, before.tree_oid)
    capture = Capturer(repo, sink, files).run()
    return Diff(
        repo.name,
        before.tag,
        "workspace",
        tuple(trees.compare(files, capture.files)),
        _Loader(repo, sink.sizes, (before,)),
    )


class _KeepingSink(HashSink):
    """Hashes, and keeps what the store does not have, up to a bound for each file."""

    def __init__(self, repo: Repository) -> None:
        super().__init__(repo.home.format)
        self._repo = repo
        self.sizes: dict[ObjectId, tuple[int, bytes | None]] = {}

    def put_blob(self, source: Source, size: int, like: ObjectId | None = None) -> ObjectId:
        """The id of the bytes."""
        kept = _Kept(source, keep=size <= MAX_SHOWN)
        oid = super().put_blob(kept, size, like)
        if not self._repo.store.contains(oid):
            self.sizes[oid] = (size, b"".join(kept.pieces) if size <= MAX_SHOWN else None)
        return oid

    def contains(self, oid: bytes) -> bool:
        """Whether the bytes can be had without reading the workspace."""
        return self._repo.store.find(oid) is not None


class _Kept:
    def __init__(self, source: Source, *, keep: bool) -> None:
        self._source = source
        self._keep = keep
        self.pieces: list[bytes] = []

    def read(self, size: int, /) -> bytes:
        piece = self._source.read(size)
        if self._keep:
            self.pieces.append(piece)
        return piece


class _Loader:
    def __init__(
        self, repo: Repository, live: dict[ObjectId, tuple[int, bytes | None]], named: tuple[AgentVersion, ...]
    ) -> None:
        self._repo = repo
        self._live = live
        self._named = named

    def load(self, change: Change) -> FileDiff:
        with retention.reading(self._repo, *self._named):
            old = self._side(change.old)
            new = self._side(change.new) if len(self._named) > 1 else self._live_side(change.new)
        return FileDiff(change.path, old, new)

    def _live_side(self, entry: Entry | None) -> Side | None:
        """A file of the workspace whose bytes the store had, of a backup perhaps that has expired since."""
        try:
            return self._side(entry)
        except ChecksumMismatch as error:
            if entry is None or self._repo.store.contains(entry.oid):
                raise
            raise Collected(
                "what the store had of the workspace was collected while it was compared",
                unchanged="nothing was written",
                hint="run the command again: it will read the workspace",
                object=entry.oid.hex(),
            ) from error

    def _side(self, entry: Entry | None) -> Side | None:
        if entry is None:
            return None
        if entry.oid in self._live:
            size, data = self._live[entry.oid]
        else:
            size = self._repo.store.size(entry.oid)
            data = self._repo.store.read(entry.oid, Kind.BLOB) if size <= MAX_SHOWN else None
        return Side(entry.mode, entry.oid.hex(), size, data)
