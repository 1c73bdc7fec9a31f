"""A directory that is entered once; every path below it is walked by descriptors, following no symbolic link.

So a parent that is swapped for a link while kaivc works cannot lead a read or a write out of the directory.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Self

from kaivc.errors import RefusedPath, StorageError
from kaivc.trees import show
from kaivc.vfs import Path, Vfs, refused

MAX_OPEN = 128


class DirTree:
    """The directory at ``root``; ``mode`` is that of directories made below it."""

    def __init__(self, vfs: Vfs, root: Path, mode: int = 0o777) -> None:
        self.vfs = vfs
        self.mode = mode
        self._fds: dict[bytes, int] = {b"": vfs.open_dir(root)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    @property
    def fd(self) -> int:
        """The directory itself."""
        return self._fds[b""]

    def directory(self, path: bytes, *, create: bool = False) -> int:
        """The descriptor of a directory below the root; FileNotFoundError or RefusedPath if it is none."""
        found = self._fds.get(path)
        if found is not None:
            return found
        parent, _, name = path.rpartition(b"/")
        above = self.directory(parent, create=create)
        if create:
            self._make(name, above, path)
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        except FileNotFoundError as error:
            if create:
                raise RefusedPath(f"{show(path)} went away while it was written to", path=show(path)) from error
            raise
        except OSError as error:
            raise _refused(path, error) from error
        if len(self._fds) >= MAX_OPEN:
            self._forget_leaves(keep=parent)
        self._fds[path] = fd
        return fd

    def _make(self, name: bytes, above: int, path: bytes) -> None:
        try:
            os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            self.vfs.make_dir(name, self.mode, at=above)
        except OSError as error:
            raise _refused(path, error) from error

    def _forget_leaves(self, keep: bytes) -> None:
        for path in [path for path in self._fds if path and not (keep + b"/").startswith(path + b"/")]:
            os.close(self._fds.pop(path))

    def forget(self, path: bytes) -> None:
        """Close what is open at or below a path that moves away."""
        for known in [known for known in self._fds if known == path or known.startswith(path + b"/")]:
            os.close(self._fds.pop(known))

    def at(self, path: bytes, *, create: bool = False) -> tuple[int, bytes]:
        """The descriptor of the parent of ``path``, and its last part."""
        parent, _, name = path.rpartition(b"/")
        return self.directory(parent, create=create), name

    def stat(self, path: bytes) -> os.stat_result | None:
        """What is at a path, no link followed; None if nothing is."""
        try:
            parent, name = self.at(path)
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except RefusedPath:
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise refused("looking at", path, error) from error

    def opened(self, path: bytes) -> int | None:
        """The descriptor of a directory, if there is one now: what was one a moment ago may be gone."""
        try:
            return self.directory(path)
        except (FileNotFoundError, RefusedPath):
            return None

    def is_dir(self, path: bytes) -> bool:
        """Whether a directory, not a link to one, is at a path."""
        status = self.stat(path)
        return status is not None and stat.S_ISDIR(status.st_mode)


def _refused(path: bytes, error: OSError) -> RefusedPath | StorageError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return RefusedPath(f"{show(path)} is no directory, or was swapped for a link", path=show(path))
    return refused("opening", path, error)
