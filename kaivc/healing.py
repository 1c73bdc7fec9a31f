"""Where the bytes of a damaged object may still be: files of views and workspaces, and what other objects say.

Whatever is found counts only if its hash is the id that is looked for.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from kaivc.errors import ChecksumMismatch
from kaivc.layout import META_FILE
from kaivc.names import ObjectId
from kaivc.ports import Progress
from kaivc.records import dataclass
from kaivc.storage.chunking import Listing, chunk_id, cut
from kaivc.storage.gitobjects import (
    DIRECTORY,
    EXECUTABLE,
    FILE,
    SYMLINK,
    Commit,
    Entry,
    Kind,
    ObjectFormat,
    Tag,
    clean_message,
    encode_commit,
    encode_tag,
    encode_tree,
)
from kaivc.storage.rechain import Chain
from kaivc.versions import TRAILERS, parse_message

PIECE = 1 << 20
MAX_META = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_META_KEYS = ("version", "parent", "snapshot_type", "agent_state_checksum", "config_checksum")
_STATED = dict(zip(TRAILERS[1:], _META_KEYS, strict=True))


@dataclass(frozen=True)
class Donor:
    """A file (or a symbolic link) whose bytes have an id that may be wanted."""

    path: bytes
    size: int
    is_link: bool = False

    def read(self) -> bytes:
        """Its bytes."""
        if self.is_link:
            return os.readlink(self.path)
        with open(os.open(self.path, _READ), "rb") as file:
            return file.read()


@dataclass(frozen=True)
class Stretch:
    """A stretch of a file whose bytes had the id of a chunk."""

    id: bytes
    path: bytes
    at: int
    size: int

    def read(self) -> bytes:
        """Its bytes; ChecksumMismatch if they are others by now."""
        with open(os.open(self.path, _READ), "rb") as file:
            file.seek(self.at)
            data = file.read(self.size)
        if chunk_id(data) != self.id:
            raise ChecksumMismatch(
                "a file changed while bytes were taken from it", unchanged="nothing was repaired", hint="run it again"
            )
        return data


class Donors:
    """Everything that the views and workspaces of some agents hold, hashed once, when it is first asked for."""

    def __init__(
        self, object_format: ObjectFormat, views: Iterable[str], workspaces: Iterable[str], progress: Progress
    ) -> None:
        self._format = object_format
        self._views = [os.fsencode(path) for path in views]
        self._workspaces = [os.fsencode(path) for path in workspaces]
        self._progress = progress
        self._files: dict[ObjectId, Donor] | None = None
        self._trees: dict[ObjectId, bytes] = {}
        self._metas: list[tuple[ObjectId, dict[str, object]]] = []
        self._missed: set[bytes] = set()

    def file(self, oid: bytes) -> Donor | None:
        """A file with the bytes of a blob."""
        return self._look().get(ObjectId(oid))

    def tree(self, oid: bytes) -> bytes | None:
        """The bytes of a tree, made again from a directory of a view."""
        self._look()
        return self._trees.get(ObjectId(oid))

    def chunks(self, listing: Listing, wanted: Collection[bytes]) -> dict[bytes, Stretch]:
        """Where those chunks of a large blob lie that some large file still holds; none if one was missed before."""
        found: dict[bytes, Stretch] = {}
        if not self._missed.isdisjoint(wanted):
            return found
        for donor in self._look().values():
            if donor.size >= PIECE and not donor.is_link and len(found) < len(wanted):
                for stretch in _cut(donor.path, listing):
                    if stretch.id in wanted:
                        found.setdefault(stretch.id, stretch)
        self._missed |= set(wanted) - found.keys()
        return found

    def commit(self, oid: bytes, chain: Chain | None) -> bytes | None:
        """The bytes of a version's commit, made again from its view and its op record."""
        self._look()
        for tree, meta in self._metas:
            for link in chain.links if chain else ():
                for move in link.record.moves:
                    if move.new == oid and move.ref.endswith("/current"):
                        data = _commit(tree, meta, move.old, link.record.op.actor)
                        if data is not None and self._format.hash(Kind.COMMIT, data) == oid:
                            return data
        return None

    # ------------------------------------------------------------ reading what is there

    def _look(self) -> dict[ObjectId, Donor]:
        if self._files is None:
            self._files = {}
            for root in self._views:
                tree = self._directory(root, b"")
                meta = _meta(root)
                if tree is not None and meta is not None:
                    self._metas.append((tree, meta))
            for root in self._workspaces:
                self._directory(root, b"")
        return self._files

    def _directory(self, root: bytes, prefix: bytes) -> ObjectId | None:
        """Note all files below a directory; the id of its tree, None if it holds what no tree can."""
        entries: list[tuple[bytes, Entry]] = []
        whole = True
        for name, status in _listing(os.path.join(root, prefix)):
            if not prefix and name == META_FILE:
                continue
            entry = self._entry(root, prefix + name, status)
            if entry is None:
                whole = False
            else:
                entries.append((name, entry))
        if not whole:
            return None
        data = encode_tree(entries)
        oid = self._format.hash(Kind.TREE, data)
        self._trees[oid] = data
        return oid

    def _entry(self, root: bytes, path: bytes, status: os.stat_result) -> Entry | None:
        full = os.path.join(root, path)
        if stat.S_ISDIR(status.st_mode):
            oid = self._directory(root, path + b"/")
            return None if oid is None else Entry(DIRECTORY, oid)
        try:
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(full)
                return Entry(SYMLINK, self._keep(self._format.hash(Kind.BLOB, target), Donor(full, len(target), True)))
            if stat.S_ISREG(status.st_mode):
                mode = EXECUTABLE if status.st_mode & stat.S_IXUSR else FILE
                return Entry(mode, self._keep(self._hash(full, status.st_size), Donor(full, status.st_size)))
        except OSError:
            return None
        return None

    def _hash(self, path: bytes, size: int) -> ObjectId:
        self._progress("looking for bytes", len(self._files or ()), None)
        digest = self._format.header(Kind.BLOB, size)
        with open(os.open(path, _READ), "rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
        return ObjectId(digest.digest())

    def _keep(self, oid: ObjectId, donor: Donor) -> ObjectId:
        if self._files is not None:
            self._files.setdefault(oid, donor)
        return oid


def _cut(path: bytes, listing: Listing) -> Iterator[Stretch]:
    """The chunks of a file, cut where the blob was."""
    at = 0
    try:
        with open(os.open(path, _READ), "rb") as file:
            for batch in cut(file, listing):
                for piece in batch:
                    yield Stretch(piece.id, path, at, len(piece.data))
                    at += len(piece.data)
    except OSError:
        return


def _listing(path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    try:
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda it: it.name):
                yield entry.name, entry.stat(follow_symlinks=False)
    except OSError:
        return


def _meta(root: bytes) -> dict[str, object] | None:
    """What a view says of its version."""
    try:
        with open(os.open(os.path.join(root, META_FILE), _READ), "rb") as file:
            found = json.loads(file.read(MAX_META))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _commit(tree: ObjectId, meta: dict[str, object], parent: bytes | None, who: str) -> bytes | None:
    try:
        time = int(datetime.fromisoformat(str(meta["created"])).timestamp())
        stated = {name: meta[key] for name, key in _STATED.items()}
        trailers = ["Kai-Format: 1", *(f"{name}: {value}" for name, value in stated.items() if value)]
        message = clean_message(str(meta["notes"])) + "\n" + "\n".join(trailers) + "\n"
        return encode_commit(Commit(tree, ObjectId(parent) if parent else None, who, time, message))
    except (KeyError, ValueError, OverflowError):
        return None


def tag_of(commit: Commit, target: bytes, name: str) -> bytes:
    """The tag that a commit's version got, which says again what the commit says; ``name`` as AGENT/vX.Y.Z."""
    notes, _ = parse_message(commit.message)
    return encode_tag(Tag(ObjectId(target), name, commit.who, commit.time, clean_message(notes)))
