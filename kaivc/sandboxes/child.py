"""Kai's side of a native sandbox's start: who runs it, what it is told, and the talk up to the moment of the look."""

from __future__ import annotations

import array
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Final, NamedTuple

from kaivc.errors import IsolationFailed
from kaivc.sandboxes import kernel, uids

PATIENCE: Final = 30.0
"""Seconds that one step of the start may take."""
_INSIDE_ID: Final = 1000
_CREDENTIALS: Final = struct.Struct("3i")
_ANCILLARY: Final = 1024
_HIGH_FD: Final = 10

# A fresh interpreter, isolated: no environment, no site, no directory of anybody's. The packages stand in for
# themselves, so that only the few modules that are named get read.
BOOT: Final = """\
import sys
for name, place in (("kaivc", sys.argv[1]), ("kaivc.sandboxes", sys.argv[1] + "/sandboxes")):
    package = type(sys)(name)
    package.__path__ = [place]
    sys.modules[name] = package
__import__("kaivc.sandboxes." + sys.argv[2], fromlist=["main"]).main()
"""

_HINTS: Final = {
    "namespaces": "allow user namespaces: kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, and "
    "kernel.apparmor_restrict_unprivileged_userns=0; a container must allow unshare and mount",
    "ids": "let this user map its own uid; as root, run with CAP_SETUID, CAP_SETGID and 65536 ids",
    "overlay": "let isolation.temp_dir lie on a file system with user.* attributes, such as ext4, xfs, btrfs or tmpfs",
    "root": "a container must show /proc in whole, and allow mounts; Linux 5.12 or newer",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER",
}


def refused(guard: str, what: str) -> IsolationFailed:
    """The error for a guard that could not be had."""
    return IsolationFailed(
        f"the command could not be isolated ({guard}): {what}",
        unchanged="the command has not run",
        hint=_HINTS.get(guard, "`kai doctor` says what each kind of sandbox needs"),
        guard=guard,
    )


class Who(NamedTuple):
    """The ids of the payload and of init, inside and on the host, and the maps that make them so."""

    inside: tuple[int, int]
    outside: tuple[int, int]
    init_inside: tuple[int, int]
    init_outside: tuple[int, int]
    maps: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]
    privileged: bool


def who(lower: str) -> Who:
    """Whom to be.

    Root's commands run under a uid that nobody else has. Init's stands for the owner of the version's files, which are
    seen through a mount that maps them so. An ordinary user can only be itself, under another number.
    """
    if os.geteuid() != 0:
        uid, gid = os.geteuid(), os.getegid()
        inside = (_INSIDE_ID, _INSIDE_ID)
        maps = ([(_INSIDE_ID, uid, 1)], [(_INSIDE_ID, gid, 1)])
        return Who(inside, (uid, gid), inside, (uid, gid), maps, privileged=False)
    payload = uids.unused()
    init = uids.unused()
    while init == payload:
        init = uids.unused()
    owner = os.stat(lower)
    init_inside = (owner.st_uid, owner.st_gid)
    own = next(it for it in range(_INSIDE_ID, _INSIDE_ID + 3) if it not in init_inside)
    users, groups = ([(own, payload, 1), (its, init, 1)] for its in init_inside)
    return Who((own, own), (payload, payload), init_inside, (init, init), (users, groups), privileged=True)


class Message(NamedTuple):
    """What one of the child's processes said; ``pid`` is its number here."""

    pid: int
    parts: list[bytes]


class Line:
    """The way to the child: a pair of sockets, over which the kernel says who speaks."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._theirs: socket.socket | None = theirs
        self.inode = os.fstat(theirs.fileno()).st_ino

    def fileno(self) -> int:
        """Kai's end."""
        return self._ours.fileno()

    def spawn(self, output: int, module: str = "inside") -> int:
        """Start the child with nothing but an empty input, ``output`` and its end of the line. Its pid."""
        if self._theirs is None or not sys.executable:
            raise refused("interpreter", "there is no interpreter to start")
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        import fcntl  # noqa: PLC0415

        with ExitStack() as stack:
            high = []
            for fd in (self._theirs.fileno(), output):  # away from the numbers that they are to get
                high.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD))
                stack.callback(os.close, high[-1])
            actions: list[tuple[int, int] | tuple[int, int, int] | tuple[int, int, bytes, int, int]] = [
                (os.POSIX_SPAWN_OPEN, 0, b"/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, high[1], 1),
                (os.POSIX_SPAWN_DUP2, high[1], 2),
                (os.POSIX_SPAWN_DUP2, high[0], 3),
            ]
            argv = [sys.executable, "-I", "-S", "-B", "-c", BOOT, package, module]
            try:
                return os.posix_spawn(
                    sys.executable, argv, {}, file_actions=actions, setsid=True, setsigmask=[], setsigdef=_signals()
                )
            except OSError as error:
                raise refused("interpreter", f"{sys.executable}: {error.strerror}") from error
            finally:
                self._theirs.close()
                self._theirs = None

    def tell(self, *parts: bytes, fds: Iterable[int] = ()) -> None:
        """Say something to whichever process listens."""
        data = kernel.pack(parts)
        passed = list(fds)
        self._ours.settimeout(PATIENCE)
        with suppress(BrokenPipeError, ConnectionResetError):  # it is gone, which `hear` finds out
            if passed:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))
                data = data[self._ours.sendmsg([data[:1]], [rights]) :]
            self._ours.sendall(data)

    def hear(self, patience: float = PATIENCE) -> Message | None:
        """The next message; None when all of the child is gone. Raises TimeoutError."""
        until = monotonic() + patience
        pid, head = self._take(4, until)
        if len(head) < 4:  # noqa: PLR2004
            return None
        _, body = self._take(int.from_bytes(head, "little"), until)
        return Message(pid, kernel.unpack(body))

    def _take(self, size: int, until: float) -> tuple[int, bytes]:
        pid, pieces = 0, b""
        while len(pieces) < size:
            self._ours.settimeout(max(0.001, until - monotonic()))
            try:
                piece, ancillary, _, _ = self._ours.recvmsg(size - len(pieces), _ANCILLARY)
            except ConnectionResetError:
                piece, ancillary = b"", []
            if not piece:
                break
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
            pieces += piece
        return pid, pieces

    def finish(self, patience: float = PATIENCE) -> None:
        """Say that nothing more comes, which ends who waits for it, and return when nobody holds the other end."""
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_WR)
            while self.hear(patience) is not None:
                pass

    def close(self) -> None:
        """Close it; what is left of the child then ends."""
        self._ours.close()
        if self._theirs is not None:
            self._theirs.close()


def _signals() -> list[int]:
    return [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]


def map_ids(pid: int, them: Who) -> None:
    """Write the maps of a process's user namespace, from outside."""
    try:
        if not them.privileged:
            kernel.put(f"/proc/{pid}/setgroups", b"deny")
        for name, rows in zip(("uid_map", "gid_map"), them.maps, strict=True):
            text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)
            kernel.put(f"/proc/{pid}/{name}", text.encode())
    except OSError as error:
        raise refused("ids", f"{error.filename or 'the map'}: {error.strerror}") from error


def told(values: Mapping[str, bytes | int | str | Iterable[bytes]]) -> list[bytes]:
    """What the child is to know, as the parts of one message."""
    parts = []
    for name, value in values.items():
        if isinstance(value, int):
            value = str(value)  # noqa: PLW2901
        if isinstance(value, str):
            value = os.fsencode(value)  # noqa: PLW2901
        parts += [name.encode(), value if isinstance(value, bytes) else kernel.pack(value)[4:]]
    return parts
