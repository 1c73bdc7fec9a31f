"""The quarantine: where repairs put what is damaged or in the way. Nothing is ever removed from it."""

from __future__ import annotations

import os

from kaivc.vfs import Vfs


def set_aside(vfs: Vfs, path: str, directory: str) -> None:
    """Move a file or directory into the quarantine, under its own name."""
    if not os.path.lexists(path):
        return
    vfs.make_dirs(directory)
    if os.path.isdir(path) and not os.path.islink(path):
        fd = vfs.open_dir(path)
        try:
            vfs.chmod_fd(fd, 0o700)  # one that nobody may write cannot be moved
        finally:
            vfs.close(fd)
    vfs.rename(path, os.path.join(directory, os.path.basename(path)))
    vfs.sync_dir(directory)
    vfs.sync_dir(os.path.dirname(path))
