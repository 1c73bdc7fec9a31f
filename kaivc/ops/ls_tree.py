"""What a version's directories hold, as git lists them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from kaivc import paths, revisions, trees
from kaivc.errors import hit
from kaivc.names import ObjectId
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.storage.gitobjects import DIRECTORY, Entry


@dataclass(frozen=True)
class TreeEntry:
    """A file (type ``blob``) or a directory (``tree``); ``size`` in bytes if it was asked for, None for a tree."""

    mode: int
    type: str
    oid: str
    size: int | None
    path: str


@dataclass(frozen=True)
class TreeListing:
    """Entries of a version, in git's order. Paths as ``os.fsdecode`` gives them."""

    agent: str
    version: str
    commit: str
    tree: str
    entries: tuple[TreeEntry, ...]


def ls_tree(
    repo: Repository,
    rev: str = "current",
    only: Sequence[str | bytes] = (),
    *,
    recursive: bool = False,
    show_trees: bool = False,
    only_trees: bool = False,
    sizes: bool = False,
) -> TreeListing:
    """List the top directory of a version, or what paths name: ``dir`` is the directory, ``dir/`` what it holds.

    NoSuchPath, with the nearest, for a path that the version does not hold.
    """
    version = revisions.resolve(repo, rev)
    name = revisions.name_of(repo, version)
    with hit(f"{name} of {repo.name}", agent=repo.name, version=name):
        if recursive:
            trees.check_size(repo.store, version.tree_oid)
        wanted = [_wanted(repo, path, version.tree_oid, name) for path in only]
        lister = _Lister(repo, wanted, recursive, show_trees or (recursive and only_trees), only_trees)
        found = [
            TreeEntry(
                entry.mode,
                "tree" if entry.mode == DIRECTORY else "blob",
                entry.oid.hex(),
                repo.store.size(entry.oid) if sizes and entry.mode != DIRECTORY else None,
                os.fsdecode(path),
            )
            for path, entry in lister.list(version.tree_oid, b"")
        ]
    return TreeListing(repo.name, name, version.commit, version.tree, tuple(found))


def _wanted(repo: Repository, path: str | bytes, tree: ObjectId, name: str) -> bytes:
    """A path as the walk takes it: empty for the top, a slash at its end if the user wrote one."""
    wanted = paths.clean(path)
    if wanted == paths.TOP:
        return b""
    entry = trees.find(repo.store, tree, wanted)
    inside = os.fsencode(path).endswith(b"/")
    if entry is None or (inside and entry.mode != DIRECTORY):
        known = paths.with_directories(trees.flatten(repo.store, tree))
        where = f"not in {name}" if entry is None else f"no directory in {name}"
        raise paths.missing(wanted, known, where)
    return wanted + b"/" if inside else wanted


@dataclass(frozen=True)
class _Lister:
    """git's walk (builtin/ls-tree.c): a directory is entered if it is above a path, or always."""

    repo: Repository
    wanted: list[bytes]
    recursive: bool
    show_trees: bool
    only_trees: bool

    def list(self, tree: ObjectId, above: bytes) -> Iterator[tuple[bytes, Entry]]:
        for name, entry in trees.listing(self.repo.store, tree, above):
            path = above + name
            is_tree = entry.mode == DIRECTORY
            if self.wanted and not any(_concerns(path, is_tree, it) for it in self.wanted):
                continue
            enter = is_tree and (self.recursive or any(it.startswith(path + b"/") for it in self.wanted))
            if self.show_trees if enter else (is_tree or not self.only_trees):
                yield path, entry
            if enter:
                yield from self.list(entry.oid, path + b"/")


def _concerns(path: bytes, is_tree: bool, wanted: bytes) -> bool:
    """Whether an entry is what is wanted, lies below it, or is a directory above it."""
    below = not wanted or path.startswith(wanted.rstrip(b"/") + b"/")
    return below or path == wanted or (is_tree and wanted.startswith(path + b"/"))
