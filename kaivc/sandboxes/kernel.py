"""What is asked of the kernel by number, and what is written that it alone reads, or that ends with a process.

Nothing here is durable: files of /proc and of control groups, and names on file systems in memory. The child of a
native sandbox imports this in a fresh interpreter before anything else, so it imports little.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h
_TABLES = {
    "x86_64": {
        "mount": 165,
        "umount2": 166,
        "pivot_root": 155,
        "unshare": 272,
        "prctl": 157,
        "sethostname": 170,
        "setgroups": 116,
        "setresuid": 117,
        "setresgid": 119,
        "capset": 126,
        "keyctl": 250,
        "prlimit64": 302,
        "seccomp": 317,
        "ioctl": 16,
        "open_tree": 428,
        "move_mount": 429,
        "mount_setattr": 442,
        "landlock_create_ruleset": 444,
        "landlock_add_rule": 445,
        "landlock_restrict_self": 446,
    },
    "aarch64": {
        "mount": 40,
        "umount2": 39,
        "pivot_root": 41,
        "unshare": 97,
        "prctl": 167,
        "sethostname": 161,
        "setgroups": 159,
        "setresuid": 147,
        "setresgid": 149,
        "capset": 91,
        "keyctl": 219,
        "prlimit64": 261,
        "seccomp": 277,
        "ioctl": 29,
        "open_tree": 428,
        "move_mount": 429,
        "mount_setattr": 442,
        "landlock_create_ruleset": 444,
        "landlock_add_rule": 445,
        "landlock_restrict_self": 446,
    },
}
NUMBERS = _TABLES.get(os.uname().machine, {}) if os.uname().sysname == "Linux" else {}

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8  # as MS_ and as MOUNT_ATTR_ alike
ATTR_IDMAP = 0x00100000
MNT_DETACH = 2
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, 0o2000000
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
MOVE_FROM_EMPTY = 4

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 1, 4, 24, 28
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def call(name: str, *args: int | bytes | None) -> int:
    """One system call. Raises OSError, with the name of the call as its file name; ENOSYS on another architecture."""
    if name not in NUMBERS:
        raise OSError(38, "there is no table of system calls for this architecture", name)
    given = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result: int = _syscall(ctypes.c_long(NUMBERS[name]), *given)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


# ------------------------------------------------------------ mounts


def mount(source: bytes, target: bytes, kind: bytes, flags: int, options: bytes = b"") -> None:
    """Mount a file system, or bind one."""
    call("mount", source, target, kind or None, flags, options or None)


def set_attributes(target: bytes, wanted: int, *, recursive: bool = False) -> None:
    """Add attributes such as RDONLY to a mount, and with ``recursive`` to all below it; none is taken away."""
    _mount_setattr(AT_FDCWD, target, AT_RECURSIVE if recursive else 0, wanted)


def detached(path: str, wanted: int = 0, ids: int | None = None) -> int:
    """A copy of a directory's mount that hangs nowhere, and ends with its descriptor.

    ``ids``, a descriptor of a user namespace, says how owners are seen through it.
    """
    fd = call("open_tree", AT_FDCWD, os.fsencode(path), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
    try:
        _mount_setattr(fd, b"", AT_EMPTY_PATH, wanted | (0 if ids is None else ATTR_IDMAP), ids or 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def attach(fd: int, target: bytes) -> None:
    """Hang a detached mount into the tree."""
    call("move_mount", fd, b"", AT_FDCWD, target, MOVE_FROM_EMPTY)


def _mount_setattr(at: int, path: bytes, flags: int, wanted: int, ids: int = 0) -> None:
    attributes = b"".join(number.to_bytes(8, "little") for number in (wanted, 0, 0, ids))
    call("mount_setattr", at, path, flags, attributes, len(attributes))


# ------------------------------------------------------------ files that are not durable


def put(path: str | bytes, text: bytes) -> None:
    """Write a file of the kernel's, which takes it in one piece."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def say(fd: int, text: bytes) -> None:
    """Write to a pipe or a terminal."""
    os.write(fd, text)


def make_file(path: bytes, data: bytes = b"", mode: int = 0o644, size: int | None = None) -> None:
    """Make a file that is not there yet; ``size`` makes it longer than its bytes, with a hole."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        while data:
            data = data[os.write(fd, data) :]
        if size is not None:
            os.ftruncate(fd, size)
    finally:
        os.close(fd)


def make_dir(path: str | bytes, mode: int = 0o755) -> None:
    """Make a directory."""
    os.mkdir(path, mode)


def remove_dir(path: str | bytes) -> None:
    """Remove an empty directory, or a control group without members."""
    os.rmdir(path)


def make_link(target: bytes, path: bytes) -> None:
    """Make a symbolic link."""
    os.symlink(target, path)


def copy_file(source: str, target: str, mode: int) -> None:
    """Copy a file's bytes."""
    make_file(os.fsencode(target), mode=mode)
    have, copy = os.open(source, os.O_RDONLY | os.O_CLOEXEC), os.open(target, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while os.sendfile(copy, have, None, 1 << 30):
            pass
    finally:
        os.close(have)
        os.close(copy)


def move(path: str, target: str) -> None:
    """Give a directory another place on its file system."""
    os.rename(path, target)


def new_file(path: str, mode: int) -> int:
    """A descriptor of a file that is not there yet, for writing."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def copy_bytes(source: int, into: int, at: int, end: int) -> int:
    """Copy the bytes from ``at`` to ``end`` of one open file to the same place of another; how many there were."""
    os.lseek(into, at, os.SEEK_SET)
    first = at
    while at < end:
        count = os.sendfile(into, source, at, min(end - at, 1 << 30))
        if not count:
            break
        at += count
    return at - first


def set_size(fd: int, size: int) -> None:
    """Cut an open file, or lengthen it with a hole."""
    os.ftruncate(fd, size)


def set_mark(path: bytes, name: str, value: bytes) -> None:
    """Set an extended attribute."""
    os.setxattr(path, name, value)


def set_times(path: bytes, status: os.stat_result) -> None:
    """Give a path the times of another."""
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def set_mode(path: str, mode: int) -> None:
    """Set the permissions of what a path names."""
    os.chmod(path, mode)


def give(path: str, uid: int, gid: int) -> None:
    """Set an owner; links are not followed."""
    os.chown(path, uid, gid, follow_symlinks=False)


# ------------------------------------------------------------ messages between kai and the child


def pack(parts: Iterable[bytes]) -> bytes:
    """Pieces of bytes as one message: its length, then each piece after its own, in four bytes."""
    body = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return len(body).to_bytes(4, "little") + body


def unpack(body: bytes) -> list[bytes]:
    """The pieces of a message, without its length."""
    parts, at = [], 0
    while at < len(body):
        end = at + 4 + int.from_bytes(body[at : at + 4], "little")
        parts.append(body[at + 4 : end])
        at = end
    return parts
