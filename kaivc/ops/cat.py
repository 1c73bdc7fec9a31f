"""The bytes of one file of a version."""

from __future__ import annotations

import os
from collections.abc import Iterator

from kaivc import paths, revisions, trees
from kaivc.errors import ChecksumMismatch, NoSuchPath, TooLarge, hit
from kaivc.names import ObjectId
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.storage.gitobjects import DIRECTORY, Kind
from kaivc.storage.store import ObjectStore

MAX_WHOLE = 32 << 20
"""Larger files are streamed only."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a version; a symbolic link's bytes are its target. ``path`` as ``os.fsdecode`` gives it."""

    agent: str
    version: str
    commit: str
    path: str
    mode: int
    oid: str
    size: int
    _store: ObjectStore

    def stream(self) -> Iterator[bytes]:
        """The bytes in pieces; ChecksumMismatch, after the last one at the latest, unless they are those of its id."""
        oid = ObjectId(bytes.fromhex(self.oid))
        digest = self._store.format.header(Kind.BLOB, self.size)
        with hit(f"{trees.show(os.fsencode(self.path))} of {self.agent}@{self.version}", path=self.path):
            for piece in self._store.stream(oid):
                digest.update(piece)
                yield piece
            if digest.digest() != oid:
                found = digest.hexdigest()
                raise ChecksumMismatch(
                    f"expected {self.oid}, found {found}",
                    hint=f"see what is hit with `kai verify {self.agent}`",
                    expected=self.oid,
                    found=found,
                )

    def read(self) -> bytes:
        """All bytes; TooLarge above 32 MiB."""
        if self.size > MAX_WHOLE:
            name = trees.show(os.fsencode(self.path))
            raise TooLarge(
                f"{name} has {self.size} bytes; no more than {MAX_WHOLE} are held at once",
                hint="stream it: `kai cat` without --json",
                size=self.size,
            )
        return b"".join(self.stream())


def cat(repo: Repository, path: str | bytes, rev: str = "current") -> StoredFile:
    """Find a file of the version that ``rev`` names; NoSuchPath, with the nearest, if it holds none there."""
    version = revisions.resolve(repo, rev)
    name, wanted = revisions.name_of(repo, version), paths.clean(path)
    with hit(f"{name} of {repo.name}", agent=repo.name, version=name):
        entry = trees.find(repo.store, version.tree_oid, wanted) if wanted != paths.TOP else None
        if wanted == paths.TOP or (entry is not None and entry.mode == DIRECTORY):
            raise NoSuchPath(
                f"{trees.show(wanted)} is a directory in {name}",
                hint=f"`kai ls-tree {repo.name}@{name} {trees.show(wanted)}/` lists it",
                path=trees.show(wanted),
                nearest=[],
            )
        if entry is None:
            raise paths.missing(wanted, trees.flatten(repo.store, version.tree_oid), f"not in {name}")
        size = repo.store.size(entry.oid)
    return StoredFile(
        repo.name, name, version.commit, os.fsdecode(wanted), entry.mode, entry.oid.hex(), size, repo.store
    )
