"""The file systems of this machine, as /proc/self/mountinfo tells them."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_NETWORK = "9p afs beegfs ceph cifs coda gfs2 glusterfs lustre ncpfs nfs nfs4 ocfs2 orangefs smb3 smbfs"
NETWORK = frozenset(_NETWORK.split())
FORGETFUL = frozenset(["tmpfs", "ramfs"])
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mounted file system; ``number`` tells two mounts of one disk apart."""

    number: int
    point: bytes
    kind: str

    @property
    def is_network(self) -> bool:
        """Whether its files lie on another machine."""
        return (
            self.kind in NETWORK or self.kind.startswith("fuse.ssh") or self.kind in ("fuse.rclone", "fuse.glusterfs")
        )


def parse(data: bytes) -> list[Mount]:
    """The mounts of a mountinfo (https://docs.kernel.org/filesystems/proc.html), those that hide others last."""
    found = []
    for line in data.splitlines():
        left, sign, right = line.partition(b" - ")
        fields, kind = left.split(), right.split()
        if sign and len(fields) >= 5 and kind:  # noqa: PLR2004 - as the page says
            point = _ESCAPED.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), fields[4])
            found.append(Mount(int(fields[0]), point, kind[0].decode("ascii", "replace")))
    return found


def of(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that a path lies on; None where that cannot be told."""
    real = os.fsencode(os.path.realpath(path))
    best: Mount | None = None
    for mount in mounts:
        inside = real == mount.point or real.startswith(mount.point.rstrip(b"/") + b"/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def every() -> list[Mount]:
    """The mounts that this process sees; none where /proc is not there."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return parse(file.read())
    except OSError:
        return []
