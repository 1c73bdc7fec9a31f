"""Write blobs from the store as files, each re-hashed on its way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from kaivc.dirtree import DirTree
from kaivc.errors import ChecksumMismatch
from kaivc.names import ObjectId
from kaivc.storage.gitobjects import EXECUTABLE, SYMLINK, Entry, Kind
from kaivc.storage.store import ObjectStore
from kaivc.trees import MAX_LINK, Files, check_links, show
from kaivc.vfs import Vfs

AT_ONCE = 1024
"""How many files are put in the order of the store."""
NOWHERE = (0, 0, 0)
HOLE = bytes(4096)
SPARSE_FROM = 1 << 20
"""Blobs above this size come back with holes where they hold long runs of zeros."""


def link_target(store: ObjectStore, oid: ObjectId) -> bytes:
    """What a symbolic link points to."""
    if store.size(oid) > MAX_LINK:
        raise ChecksumMismatch(f"symbolic link {oid.hex()} is longer than any disk takes")
    return store.read(oid, Kind.BLOB)


def check_tree_links(store: ObjectStore, files: Files, *, backup: bool = False) -> None:
    """Refuse symbolic links that lead out of the tree, but in a backup: it holds what was there, and gives it back."""
    if not backup:
        check_links(files, lambda oid: link_target(store, oid))


def in_store_order(store: ObjectStore, files: Files) -> Iterator[tuple[bytes, Entry]]:
    """The files so that what lies together is read together, and where it lies is asked for many at a time."""
    listing = iter(files.items())
    while group := list(itertools.islice(listing, AT_ONCE)):
        rows = store.look_up(entry.oid for _, entry in group if store.contents.get(entry.oid) is None)
        places = {oid: (row.pack, row.offset, row.within) for oid, row in rows.items()}
        yield from sorted(group, key=lambda item: places.get(item[1].oid, NOWHERE))
    store.look_up(())


def write_file(store: ObjectStore, tree: DirTree, path: bytes, entry: Entry, mode: int, *, sync: bool = False) -> int:
    """Make a new file or link of a stored blob; its size. ChecksumMismatch if the bytes are not those of its id.

    ``mode`` holds the permission bits, exactly.
    """
    parent, name = tree.at(path, create=True)
    if entry.mode == SYMLINK:
        target = link_target(store, entry.oid)
        _require(store.format.hash(Kind.BLOB, target) == entry.oid, path, entry)
        tree.vfs.symlink(target, name, at=parent)
        return len(target)
    fd = tree.vfs.create(name, mode & 0o700, at=parent)
    try:
        size = _write_blob(store, tree.vfs, fd, path, entry)
        tree.vfs.chmod_fd(fd, mode)
        if sync:
            tree.vfs.sync(fd)
    finally:
        tree.vfs.close(fd)
    return size


def _write_blob(store: ObjectStore, vfs: Vfs, fd: int, path: bytes, entry: Entry) -> int:
    data = store.at_hand(entry.oid, Kind.BLOB)
    if data is not None and len(data) < SPARSE_FROM:
        vfs.write(fd, data)
        return len(data)
    size = store.size(entry.oid)
    digest = store.format.header(Kind.BLOB, size)
    put = _sparse(vfs, fd) if size >= SPARSE_FROM else lambda piece: vfs.write(fd, piece)
    for piece in store.stream(entry.oid):
        digest.update(piece)
        if piece:
            put(piece)
    if size >= SPARSE_FROM:
        vfs.set_size(fd, size)
    _require(digest.digest() == entry.oid, path, entry)
    return size


def _sparse(vfs: Vfs, fd: int) -> Callable[[bytes], None]:
    """Writes that leave holes for whole blocks of zeros."""

    def put(piece: bytes) -> None:
        if 0 not in piece[:: len(HOLE)]:  # the first bytes of all blocks: none is a hole
            vfs.write(fd, piece)
            return
        if piece.startswith(HOLE) and piece.count(0) == len(piece):
            vfs.skip(fd, len(piece))
            return
        view, written = memoryview(piece), 0
        for start in range(0, len(piece), len(HOLE)):
            if not piece[start] and piece.startswith(HOLE, start):
                if written < start:
                    vfs.write(fd, view[written:start])
                vfs.skip(fd, len(HOLE))
                written = start + len(HOLE)
        if written < len(piece):
            vfs.write(fd, view[written:])

    return put


def _require(same: bool, path: bytes, entry: Entry) -> None:
    if not same:
        raise ChecksumMismatch(
            f"the stored bytes of {show(path)} are not those of blob {entry.oid.hex()}",
            unchanged="nothing moved",
            hint="a copy of the home, or a peer, has the bytes",
            path=show(path),
            expected=entry.oid.hex(),
        )


def plain_mode(entry: Entry) -> int:
    """The permission bits of a file that nothing more is known of."""
    return 0o755 if entry.mode == EXECUTABLE else 0o644
