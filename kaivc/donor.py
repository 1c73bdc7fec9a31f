"""The view whose files a new view shares."""

from __future__ import annotations

import os
from typing import Self

from kaivc.dirtree import DirTree
from kaivc.errors import StorageFailed
from kaivc.keeping import looks
from kaivc.names import ObjectId
from kaivc.repository import Repository
from kaivc.storage.gitobjects import SYMLINK, Entry
from kaivc.trees import Files


class Donor:
    """Another view, whose files of equal bytes may be linked instead of written; or none."""

    def __init__(self, repo: Repository | None = None, path: str = "", files: Files | None = None) -> None:
        self._repo = repo
        self._asked_anew = False
        self._linked: set[tuple[int, int]] = set()
        self._paths = {(entry.oid, entry.mode): name for name, entry in files.items()} if files else {}
        self._tree = DirTree(repo.vfs, path) if repo else None

    def link(self, path: bytes, entry: Entry, tree: DirTree) -> bool:
        """Give a file of the donor a second name in ``tree``, if its seal says that it is as it was."""
        source = self._paths.get((entry.oid, entry.mode))
        if self._tree is None or source is None or entry.mode == SYMLINK:
            return False
        status = self._tree.stat(source)
        if status is None or not self._is_sealed(status, entry.oid):
            return False
        old_parent, old_name = self._tree.at(source)
        parent, name = tree.at(path, create=True)
        try:
            tree.vfs.link(old_name, name, old_parent, parent)
        except StorageFailed:  # a file of another user, or a disk without hard links: written instead
            return False
        self._linked.add((status.st_dev, status.st_ino))
        return True

    def _is_sealed(self, status: os.stat_result, oid: ObjectId) -> bool:
        inode = (status.st_dev, status.st_ino)
        if self._repo is None or inode in self._linked:  # a link changed how it looks
            return False
        if self._repo.seals.get(inode) == looks(status, oid):
            return True
        if self._asked_anew:
            return False
        self._asked_anew = True  # another process may have linked it, and sealed it again
        return self._repo.seals_anew().get(inode) == looks(status, oid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tree is not None:
            self._tree.__exit__()
