"""The only durable writes: append, sync, replace, swap a link, lock.

Every change that kaivc makes to a disk goes through a ``Vfs``, so that a test can count the calls, cut the
process at any of them, or make one fail. (SQLite writes its own files.) Paths are str or bytes; ``at`` is the
descriptor of the directory that a relative path starts from.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress

from kaivc.errors import NoSpace, StorageError, StorageFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

Path = str | bytes

_FULL = {errno.ENOSPC, errno.EDQUOT}
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, *_FULL}
FULL_CATALOG = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
"""What SQLite says of a full disk; the second to who only reads, for the index of a log is a file, too."""
_HINTS = {
    errno.EMFILE: "let the process have more files open (`ulimit -n`), then run the command again",
    errno.ENFILE: "the system has too many files open: end some programs, then run the command again",
    errno.ENOMEM: "let the process have more memory (`ulimit -v`), or end some programs, then run the command again",
    errno.EROFS: "the file system has become read-only, perhaps for a fault of the disk (`dmesg` tells): mount it "
    "writable, then run the command again",
    errno.EFBIG: "let files be larger (`ulimit -f`), then run the command again",
}
OF_THE_SYSTEM = frozenset([errno.EIO, *_FULL, *_HINTS])
"""What a disk or a limit of the process refuses; it is no fault of kai."""
SPARE = 4
"""So many descriptors SQLite may need for a database: the file, its log, its index, their directory."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class mapped:  # noqa: N801 - read as a function, and entered for every call, so no generator
    """Turn an OSError into NoSpace or StorageFailed that says what was being done."""

    __slots__ = ("_doing", "_path")

    def __init__(self, doing: str, path: Path | int) -> None:
        self._doing = doing
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise refused(self._doing, self._path, error) from error


def refused(doing: str, path: Path | int, error: OSError) -> StorageError:
    """What the system said as NoSpace or StorageFailed; ``path`` may be a descriptor."""
    name = _name_of(path) if isinstance(path, int) else os.fsdecode(path)
    what = f"{doing} {name!r}: {error.strerror or error}"
    if error.errno in _FULL:
        return NoSpace(what, hint="free some space (`df -h`, quota), then run the command again")
    hint = "check permissions and the health of the disk, then run the command again"
    return StorageFailed(what, hint=_HINTS.get(error.errno or 0, hint))


def unless_short(error: BaseException) -> None:
    """Raise NoSpace or StorageFailed if an error comes of a full disk, too few descriptors or too little memory.

    Nothing was learnt of the file then, and least of all that it is damaged.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NoSpace):
            raise cause
        if isinstance(cause, OSError) and cause.errno in _SHORT:
            raise refused("reading", cause.filename or "a file", cause) from error
        name = getattr(cause, "sqlite_errorname", "")
        if name in FULL_CATALOG:
            raise refused("reading", "the catalog", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
        if name == "SQLITE_CANTOPEN":
            _try_descriptors()  # SQLite does not say why
        cause = cause.__cause__


def _try_descriptors() -> None:
    spare: list[int] = []
    with mapped("opening", os.devnull):
        try:
            for _ in range(SPARE):
                spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))  # noqa: PERF401 - closed if one fails
        finally:
            for fd in spare:
                os.close(fd)


def _name_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"descriptor {fd}"


def open_nothing() -> TextIO:
    """What swallows all and says nothing, also for programs that are started; its descriptor is the lowest free."""
    stream = open(os.devnull, "r+", encoding="utf-8")  # noqa: SIM115 - it stays open
    os.set_inheritable(stream.fileno(), True)
    return stream


class Vfs:
    """The real file system. With ``group``, what it makes for kaivc may be read and written by the group."""

    group = False

    # ------------------------------------------------------------ files

    def create(self, path: Path, mode: int = 0o600, at: int | None = None) -> int:
        """Open a new file for writing; it must not be there."""
        with mapped("creating", path):
            return os.open(path, _NEW, mode, dir_fd=at)

    def open_append(self, path: Path, mode: int = 0o600) -> int:
        """Open a file, made if absent, that every write goes to the end of."""
        with mapped("opening", path):
            fd = os.open(path, _APPEND, mode)
            try:
                self._share(fd, mode)
            except BaseException:
                os.close(fd)
                raise
            return fd

    def _share(self, fd: int, mode: int) -> None:
        """Give the group what the owner has, whatever the umask says."""
        if self.group and os.fstat(fd).st_uid == os.geteuid():
            os.fchmod(fd, mode | (mode & 0o600) >> 3)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        """Write all of ``data``."""
        with mapped("writing", fd):
            view = memoryview(data)
            while view:
                written = os.write(fd, view)
                if not written:
                    raise OSError(errno.EIO, "the system wrote nothing")
                view = view[written:]

    def skip(self, fd: int, count: int) -> None:
        """Leave a hole of ``count`` bytes."""
        with mapped("seeking", fd):
            os.lseek(fd, count, os.SEEK_CUR)

    def set_size(self, fd: int, size: int) -> None:
        """Give a file that ends in a hole its size."""
        with mapped("sizing", fd):
            os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Return when the file is on the disk. After an error never call it again for this file."""
        with mapped("syncing", fd):
            os.fsync(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        with mapped("closing", fd):
            os.close(fd)

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Make ``path`` hold ``data``: wholly the old or wholly the new content, whatever happens."""
        temporary = f"{path}.new"
        self.unlink(temporary, missing_ok=True)
        fd = self.create(temporary, mode)
        try:
            try:
                with mapped("setting the mode of", temporary):
                    self._share(fd, mode)
                self.write(fd, data)
                self.sync(fd)
            finally:
                self.close(fd)
            self.rename(temporary, path)
        except BaseException:
            with suppress(StorageError):  # the next one removes it
                self.unlink(temporary, missing_ok=True)
            raise
        try:
            self.sync_dir(os.path.dirname(path))
        except StorageError as error:
            error.unchanged = f"{path} is written; a power cut may leave what it held before"
            raise

    def hand_over(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Give a file to whoever asked for it: wholly or not at all, and nothing beside it is touched.

        A device or a pipe is written to, not replaced.
        """
        try:
            is_plain = stat.S_ISREG(os.stat(path).st_mode)
        except OSError:
            is_plain = True  # absent, or a link to nowhere
        if not is_plain:
            with mapped("opening", path):
                fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                self.write(fd, data)
            finally:
                self.close(fd)
            return
        temporary = f"{path}.{os.urandom(8).hex()}"
        fd = self.create(temporary, mode)
        try:
            try:
                self.write(fd, data)
                self.sync(fd)
            finally:
                self.close(fd)
            self.rename(temporary, path)
        except BaseException:
            self.unlink(temporary, missing_ok=True)
            raise
        self.sync_dir(os.path.dirname(path))

    # ------------------------------------------------------------ names

    def rename(self, old: Path, new: Path, old_at: int | None = None, new_at: int | None = None) -> None:
        """Give a file another name; what had that name is replaced in the same moment."""
        with mapped("renaming", old):
            os.rename(old, new, src_dir_fd=old_at, dst_dir_fd=new_at)

    def link(self, old: Path, new: Path, old_at: int | None = None, new_at: int | None = None) -> None:
        """Give a file a second name."""
        with mapped("linking", old):
            os.link(old, new, src_dir_fd=old_at, dst_dir_fd=new_at, follow_symlinks=False)

    def unlink(self, path: Path, at: int | None = None, *, missing_ok: bool = False) -> None:
        """Remove a name."""
        with mapped("removing", path):
            try:
                os.unlink(path, dir_fd=at)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    def symlink(self, target: Path, path: Path, at: int | None = None) -> None:
        """Make a symbolic link."""
        with mapped("linking", path):
            os.symlink(target, path, dir_fd=at)

    def swap_link(self, target: str, path: str, *, sync: bool) -> None:
        """Make the link at ``path`` point to ``target``; a reader sees the old or the new, never none."""
        temporary = f"{path}.new"
        self.unlink(temporary, missing_ok=True)
        self.symlink(target, temporary)
        self.rename(temporary, path)
        if sync:
            self.sync_dir(os.path.dirname(path))

    # ------------------------------------------------------------ directories

    def make_dir(self, path: Path, mode: int = 0o700, at: int | None = None) -> None:
        """Make a directory; one that is there stays."""
        with mapped("making directory", path):
            try:
                os.mkdir(path, mode, dir_fd=at)
                if self.group:
                    os.chmod(path, (mode & 0o770) | 0o2070, dir_fd=at)  # noqa: S103 - what "shared" means
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(path, dir_fd=at, follow_symlinks=False).st_mode):
                    raise

    def make_dirs(self, path: str, mode: int = 0o700) -> None:
        """Make a directory and its parents."""
        if not os.path.isdir(path):
            parent = os.path.dirname(path)
            if parent != path:
                self.make_dirs(parent, mode)
            self.make_dir(path, mode)

    def temporary_dir(self, parent: str) -> str:
        """Make a directory that only this user may enter, under a name that nobody can foresee."""
        path = os.path.join(os.path.abspath(parent), f"kai-{os.urandom(16).hex()}")
        with mapped("making a directory in", parent):
            os.mkdir(path, 0o700)
        return path

    def open_dir(self, path: Path, at: int | None = None) -> int:
        """A descriptor of a directory that is no symbolic link."""
        with mapped("opening directory", path):
            return os.open(path, _DIRECTORY, dir_fd=at)

    def open_mine(self, path: Path, at: int | None = None, *, directory: bool = False) -> int:
        """A descriptor to read a file or directory of this user's, whatever bits its mode lacks; they are added.

        For scratch alone, in which a stranger's program may have closed what it made. No link is followed.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_DIRECTORY if directory else os.O_NONBLOCK)
        wanted = 0o700 if directory else 0o400
        with mapped("opening", path):
            if os.geteuid() != 0:  # whom no bits hold back
                pinned = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                try:
                    mode = os.fstat(pinned).st_mode
                    if mode & wanted != wanted and not stat.S_ISLNK(mode):
                        os.chmod(f"/proc/self/fd/{pinned}", stat.S_IMODE(mode) | wanted)
                finally:
                    os.close(pinned)
            return os.open(path, flags, dir_fd=at)

    def sync_dir(self, path: Path) -> None:
        """Return when the names in a directory are on the disk."""
        fd = self.open_dir(path)
        try:
            self.sync(fd)
        finally:
            self.close(fd)

    def sync_disk(self) -> None:
        """Return when everything written so far, anywhere, is on the disk."""
        os.sync()

    def remove_dir(self, path: Path, at: int | None = None) -> None:
        """Remove an empty directory."""
        with mapped("removing directory", path):
            os.rmdir(path, dir_fd=at)

    def remove_tree(self, path: Path, at: int | None = None) -> None:
        """Remove a directory and all in it, following no link; one that is absent is well."""
        try:
            status = os.stat(path, dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            raise refused("removing", path, error) from error
        if not stat.S_ISDIR(status.st_mode):
            self.unlink(path, at)
            return
        fd = self.open_dir(path, at)
        try:
            if not status.st_mode & stat.S_IWUSR:
                self.chmod_fd(fd, 0o700)
            with mapped("listing", fd), os.scandir(fd) as entries:
                listing = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for name, is_dir in listing:
                if is_dir:
                    self.remove_tree(name, fd)
                else:
                    self.unlink(name, fd)
        finally:
            self.close(fd)
        self.remove_dir(path, at)

    # ------------------------------------------------------------ attributes

    def share(self, path: Path) -> None:
        """Let the group read and write a file that another library made."""
        with mapped("setting the mode of", path):
            os.chmod(path, 0o660)

    def chmod_fd(self, fd: int, mode: int) -> None:
        """Set the permission bits of an open file."""
        with mapped("setting the mode of", fd):
            os.fchmod(fd, mode)

    # ------------------------------------------------------------ locks, and what the machine says of itself

    def boot_id(self) -> str:
        """What names the time since the machine was started; empty where it does not say.

        What was written and not synced before another start may be gone, whatever its inode looks like.
        """
        try:
            with open("/proc/sys/kernel/random/boot_id", "rb") as file:
                return file.read(64).decode("ascii").strip()
        except (OSError, ValueError):
            return ""

    def lock(self, path: str, *, shared: bool = False) -> int | None:
        """Lock a file (flock), made if absent; None when another holds it.

        The lock ends when the last copy of the descriptor is closed, with the process at the latest.
        """
        fd = self.open_append(path)
        try:
            self.flock(fd, shared=shared)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return fd

    def flock(self, fd: int, *, shared: bool = False) -> None:
        """Lock an open file; BlockingIOError when another holds it."""
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            raise refused("locking", fd, error) from error

    def disk_now_ns(self, path: str) -> int:
        """The time that the file system gives to a write now, in ns; ``path`` is a scratch file."""
        with mapped("touching", path):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                self._share(fd, 0o600)
                os.utime(fd)
                return os.fstat(fd).st_mtime_ns
            finally:
                os.close(fd)
