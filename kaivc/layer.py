"""What a sandbox's layer changed, as values: read by descriptors, no link followed, whatever was planted in it.

A layer is the upper directory of an overlay, or a whole copy of the tree; the second is the first with a top directory
that hides all below it. What a version cannot hold is a refusal: said, and left where it is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Final, NamedTuple, TypeVar

from kaivc import manifest as manifests
from kaivc import sqlitefiles, trees
from kaivc.capture import LINKS_THAT_GIT_REFUSES
from kaivc.dirtree import DirTree
from kaivc.errors import KaiError, StorageError
from kaivc.ignore import IGNORE_FILE, IgnoreRules
from kaivc.layout import META_FILE
from kaivc.manifest import MANIFEST, Manifest, StateClass
from kaivc.names import ObjectId
from kaivc.reading import put_unit
from kaivc.records import dataclass, field
from kaivc.repository import Repository
from kaivc.roots import SMALL_TEXT
from kaivc.sinks import BlobSink, BytesSource, HashSink
from kaivc.storage.gitobjects import EXECUTABLE, FILE, SYMLINK, Entry, check_tree_name
from kaivc.trees import MAX_DEPTH, MAX_LINK, MAX_PATH, Files, show

MANY: Final = 1000
"""How many refusals, and how many paths that were left out, are named."""
OPAQUE: Final = ("user.overlay.opaque", "trusted.overlay.opaque")
ELSEWHERE: Final = ("redirect", "metacopy")
"""What an overlay writes where a name or its bytes are to be looked for in another place."""
_SIDES = (b"-wal", b"-journal")
_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True)
class LayerChange:
    """What became of a path: ``status`` as git's A, D, M, T; bytes before and after, None where there is no file."""

    status: str
    path: bytes
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Refusal:
    """A path that no version can hold, and why."""

    path: bytes
    why: str

    def __str__(self) -> str:
        return f"{show(self.path) or 'the layer'} {self.why}"


@dataclass(frozen=True)
class Layer:
    """A layer that was read: ``files`` are those below it with its changes, and ``manifest`` theirs."""

    files: Files
    manifest: Manifest
    changes: tuple[LayerChange, ...]
    refusals: tuple[Refusal, ...]
    ignored: tuple[bytes, ...]
    notices: tuple[str, ...]


class Lower(NamedTuple):
    """What lies below a layer: a directory, its files and their manifest."""

    path: str
    files: Files
    manifest: Manifest


def read(repo: Repository, lower: Lower, top: str, *, whole: bool, sink: BlobSink, most: int) -> Layer:
    """What the layer at ``top`` changed; ``whole`` says that it is a copy of the tree, not what an overlay wrote.

    The bytes of files go to ``sink``; of more than ``most`` bytes in all, none are read. Nothing may run in it.
    """
    reader = _Reader(repo, lower, sink, most)
    fd = repo.vfs.open_mine(top, directory=True)
    try:
        with DirTree(repo.vfs, lower.path) as below:
            return reader.run(fd, below, whole=whole)
    finally:
        os.close(fd)


@dataclass
class _Seen:
    """What the walk came by, by path."""

    files: dict[bytes, Entry] = field(default_factory=dict)
    sizes: dict[bytes, int] = field(default_factory=dict)
    gone: set[bytes] = field(default_factory=set)
    directories: set[bytes] = field(default_factory=set)
    opaque: set[bytes] = field(default_factory=set)
    links: dict[ObjectId, bytes] = field(default_factory=dict)
    inodes: dict[tuple[int, int], list[bytes]] = field(default_factory=dict)
    names: dict[tuple[int, int], int] = field(default_factory=dict)


class _Reader:
    def __init__(self, repo: Repository, lower: Lower, sink: BlobSink, most: int) -> None:
        self._repo, self._lower, self._sink, self._left = repo, lower, sink, most
        self._seen = _Seen()
        self._refusals: list[Refusal] = []
        self._ignored: list[bytes] = []
        self._notices: list[str] = []
        self._rules = IgnoreRules()
        self._manifest = lower.manifest
        self._is_overlay = True

    def run(self, top: int, below: DirTree, *, whole: bool) -> Layer:
        self._is_overlay = not whole
        hides = whole or self._is_opaque(top, b"")
        if hides:
            self._seen.opaque.add(b"")
        self._rules = self._text(top, below, IGNORE_FILE, IgnoreRules.parse, self._rules, hides=hides)
        self._manifest = self._text(top, below, MANIFEST, _manifest, manifests.DEFAULT, hides=hides)
        self._below = below
        self._directory(top, b"", 0)
        self._check_inodes(top)
        files = self._merged()
        changes = tuple(self._described(change) for change in trees.compare(self._lower.files, files))
        self._check_links(files)
        if changes and not self._refusals:
            self._try("cannot be made a version", lambda: trees.build(HashSink(self._repo.home.format), files))
        return Layer(
            files, self._manifest, changes, tuple(self._refusals), tuple(self._ignored[:MANY]), tuple(self._notices)
        )

    def _refuse(self, path: bytes, why: str) -> None:
        if len(self._refusals) < MANY:
            self._refusals.append(Refusal(path, why))

    def _try(self, why: str, act: Callable[[], object], path: bytes = b"") -> None:
        try:
            act()
        except StorageError:
            raise
        except KaiError as error:
            self._refuse(path, f"{why}: {error.what}")

    # ------------------------------------------------------------ the texts that rule the rest

    def _text(
        self,
        top: int,
        below: DirTree,
        name: bytes,
        parse: Callable[[bytes | None], _Parsed],
        usual: _Parsed,
        *,
        hides: bool,
    ) -> _Parsed:
        """A small text at the top, as the layer has it or lets it be seen; a refusal if it cannot be read."""
        try:
            status = os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            at, there = below.fd, not hides and stat.S_ISREG(getattr(below.stat(name), "st_mode", 0))
        else:
            at, there = top, stat.S_ISREG(status.st_mode)
            if stat.S_ISLNK(status.st_mode) or (name == MANIFEST and stat.S_ISDIR(status.st_mode)):
                self._refuse(name, "is no plain file: no workspace could be read with it")
        found: list[_Parsed] = []
        if there:
            self._try("cannot be read", lambda: found.append(parse(self._small(at, name))), name)
        return found[0] if found else usual

    def _small(self, at: int, name: bytes) -> bytes:
        fd = self._repo.vfs.open_mine(name, at)
        try:
            return os.pread(fd, SMALL_TEXT, 0)  # what is longer its parser refuses
        finally:
            os.close(fd)

    # ------------------------------------------------------------ directories

    def _directory(self, fd: int, prefix: bytes, depth: int) -> None:
        with os.scandir(fd) as entries:
            listing = sorted((os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in entries)
        names = {name for name, _ in listing}
        for name, status in listing:
            path, is_dir = prefix + name, stat.S_ISDIR(status.st_mode)
            if self._is_overlay and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                self._seen.gone.add(path)
            elif self._rules.ignored(path, is_dir):
                self._seen.gone |= {path} if not is_dir or path in self._lower.files else set()
                self._ignored += [path] * self._is_worth_saying(path)
            elif not self._is_nameable(name, path):
                self._seen.gone.add(path)
            elif is_dir:
                self._subdirectory(fd, name, path, depth)
            elif not self._is_side_file(fd, name, prefix, names):
                self._seen.gone.add(path)  # unless it turns out to be a file that a version can hold
                self._file(fd, name, path, status, names)

    def _is_worth_saying(self, path: bytes) -> bool:
        return len(self._ignored) < MANY and path != META_FILE and path.rpartition(b"/")[2] != b"__pycache__"

    def _is_nameable(self, name: bytes, path: bytes) -> bool:
        before = len(self._refusals)
        self._try("has a name that no version can hold", lambda: check_tree_name(name), path)
        if len(path) > MAX_PATH:
            self._refuse(path[:60], f"... has a path of {len(path)} bytes")
        return before == len(self._refusals)

    def _subdirectory(self, parent: int, name: bytes, path: bytes, depth: int) -> None:
        if depth >= MAX_DEPTH:
            self._refuse(path[:60], f"... is nested more than {MAX_DEPTH} deep")
            return
        fd = self._repo.vfs.open_mine(name, parent, directory=True)
        try:
            self._seen.directories.add(path)
            if self._is_opaque(fd, path):
                self._seen.opaque.add(path)
            self._directory(fd, path + b"/", depth + 1)
        finally:
            os.close(fd)

    def _is_opaque(self, fd: int, path: bytes) -> bool:
        if not self._is_overlay:
            return False
        if self._is_elsewhere(fd):
            self._refuse(path, "was moved in a way that its layer does not hold")
        return any(_attribute(fd, name) == b"y" for name in OPAQUE)

    @staticmethod
    def _is_elsewhere(fd: int) -> bool:
        names = (f"{space}.overlay.{it}" for space in ("user", "trusted") for it in ELSEWHERE)
        return any(_attribute(fd, name) is not None for name in names)

    def _is_side_file(self, fd: int, name: bytes, prefix: bytes, names: set[bytes]) -> bool:
        """Whether it belongs to a database: it is read with that, and never by itself."""
        base = sqlitefiles.base_of(name)
        if base is None:
            return False
        if base in names:
            return self._has_magic(fd, base)
        return prefix + base in self._lower.files and self._has_magic(self._below.fd, prefix + base)

    def _has_magic(self, at: int, name: bytes) -> bool:
        try:
            if not stat.S_ISREG(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                return False
            fd = self._repo.vfs.open_mine(name, at)
        except (OSError, StorageError):
            return False
        try:
            return os.pread(fd, len(sqlitefiles.MAGIC), 0) == sqlitefiles.MAGIC
        finally:
            os.close(fd)

    # ------------------------------------------------------------ files

    def _file(self, parent: int, name: bytes, path: bytes, status: os.stat_result, names: set[bytes]) -> None:
        seen = self._seen
        if len(seen.files) >= self._repo.settings.limits_max_files:
            self._refuse(b"", "holds more files than `limits.max_files` allows")
            return
        if self._is_secret(path):
            seen.files[path] = self._secret(path)
        elif stat.S_ISLNK(status.st_mode):
            self._link(parent, name, path)
        elif not stat.S_ISREG(status.st_mode):
            self._refuse(path, f"is {_kind_of(status.st_mode)}: a version cannot hold it")
        elif status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            self._refuse(path, "would run as another user (setuid or setgid)")
        else:
            self._plain(parent, name, path, status, names)

    def _is_secret(self, path: bytes) -> bool:
        return manifests.strictest(path, (self._manifest, self._lower.manifest)) is StateClass.SECRET

    def _secret(self, path: bytes) -> Entry:
        """A secret is never read: the tree holds its name, whatever the layer wrote."""
        self._notices.append(f"{show(path)} is a secret: what was written to it is not kept")
        if path in self._lower.files:
            return self._lower.files[path]
        name = self._manifest.secret_name(path) or self._lower.manifest.secret_name(path) or ""
        data = manifests.SECRET_PREFIX + name.encode()
        return Entry(FILE, self._sink.put_blob(BytesSource(data), len(data)))

    def _link(self, parent: int, name: bytes, path: bytes) -> None:
        target = os.fsencode(os.readlink(name, dir_fd=parent))
        if name.lower() in LINKS_THAT_GIT_REFUSES:
            self._refuse(path, "is a symbolic link: git takes that name for a file only")
            return
        if target.startswith(b"/") or len(target) > MAX_LINK:
            self._refuse(path, f"is a symbolic link that leads out of the agent, to {show(target[:200])}")
            return
        oid = self._sink.put_blob(BytesSource(target), len(target))
        self._seen.links[oid] = target
        self._seen.files[path], self._seen.sizes[path] = Entry(SYMLINK, oid), len(target)

    def _plain(self, parent: int, name: bytes, path: bytes, status: os.stat_result, names: set[bytes]) -> None:
        if status.st_size > min(self._left, self._repo.settings.limits_max_file):
            self._refuse(path, f"has {status.st_size} bytes: too many to be read")
            return
        self._left -= status.st_size
        if status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            self._seen.inodes.setdefault(inode, []).append(path)
            self._seen.names[inode] = status.st_nlink
        fd = self._repo.vfs.open_mine(name, parent)
        with os.fdopen(fd, "rb", buffering=0) as file:
            if self._is_overlay and self._is_elsewhere(fd):
                self._refuse(path, "was copied in a way that its layer does not hold")
                return
            like = self._lower.files.get(path)
            oid = self._database(parent, name, path, fd, names, like)
            if oid is None:
                oid = self._sink.put_blob(file, status.st_size, like.oid if like else None)
        mode = EXECUTABLE if status.st_mode & stat.S_IXUSR else FILE
        self._seen.files[path], self._seen.sizes[path] = Entry(mode, oid), status.st_size

    # ------------------------------------------------------------ databases

    def _database(
        self, parent: int, name: bytes, path: bytes, fd: int, names: set[bytes], like: Entry | None
    ) -> ObjectId | None:
        """The one state of a database and its logs; None for what is none, or has no logs."""
        sides = [it for it in _SIDES if name + it in names and self._weighs(parent, name + it)]
        if not sides or os.pread(fd, len(sqlitefiles.MAGIC), 0) != sqlitefiles.MAGIC:
            return None
        with ExitStack() as stack:
            unit = {b"": fd}
            for side in sides:
                unit[side] = self._repo.vfs.open_mine(name + side, parent)
                stack.callback(os.close, unit[side])
            try:
                return put_unit(self._repo, self._sink, unit, like.oid if like else None)
            except sqlitefiles.NotReadable:
                self._notices.append(f"{show(path)} is no database that SQLite reads: its logs are not kept")
                return None

    def _weighs(self, parent: int, name: bytes) -> bool:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or not status.st_size or status.st_size > self._left:
            return False
        self._left -= status.st_size
        return True

    # ------------------------------------------------------------ all of it together

    def _check_inodes(self, top: int) -> None:
        """A file that has a name outside the layer too is not only the layer's."""
        doubtful = {inode for inode, paths in self._seen.inodes.items() if len(paths) < self._seen.names[inode]}
        if not doubtful:
            return
        counts = dict.fromkeys(doubtful, 0)
        for inode in self._every(top, 0):
            if inode in counts:
                counts[inode] += 1
        for inode in doubtful:
            if counts[inode] < self._seen.names[inode]:
                self._refuse(self._seen.inodes[inode][0], "is a hard link to a file outside the agent")

    def _every(self, fd: int, depth: int) -> Iterator[tuple[int, int]]:
        """Each name of a file, left out ones too."""
        with os.scandir(fd) as entries:
            listing = [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in entries]
        for name, status in listing:
            if not stat.S_ISDIR(status.st_mode):
                yield status.st_dev, status.st_ino
            elif depth < MAX_DEPTH:
                inner = self._repo.vfs.open_mine(name, fd, directory=True)
                try:
                    yield from self._every(inner, depth + 1)
                finally:
                    os.close(inner)

    def _merged(self) -> dict[bytes, Entry]:
        """The files below with those of the layer laid over them."""
        seen = self._seen
        files = {**self._shining_through(), **seen.files}
        self._carry_secrets(files)
        return dict(sorted(files.items()))

    def _shining_through(self) -> dict[bytes, Entry]:
        """The files below that the layer does not hide, nor an ignore file that it wrote leaves out."""
        seen = self._seen
        if b"" in seen.opaque:
            return {}
        walls = seen.gone | seen.opaque
        hiding = walls | seen.directories
        files = {
            path: entry
            for path, entry in self._lower.files.items()
            if not hiding or (path not in hiding and not any(above in walls for above in _above(path)))
        }
        if IGNORE_FILE in seen.files or IGNORE_FILE in seen.gone:
            return {path: entry for path, entry in files.items() if not self._rules.leave_out(path)}
        return files

    def _carry_secrets(self, files: dict[bytes, Entry]) -> None:
        """A secret that is gone stays in the tree, as it does in a workspace, unless something took its place."""
        gone = [path for path in self._lower.files if path not in files and self._is_secret(path)]
        taken = {above for path in files for above in _above(path)} if gone else set()
        for path in gone:
            if path not in taken and not any(above in files for above in _above(path)):
                self._notices.append(f"{show(path)} is a secret: its name stays, though it was removed")
                files[path] = self._lower.files[path]

    def _described(self, change: trees.Change) -> LayerChange:
        before = self._below.stat(change.path) if change.old else None
        size = None if before is None else before.st_size
        after = None
        if change.new is not None:
            after = self._seen.sizes.get(change.path, size)
        return LayerChange(change.status, change.path, size, after)

    def _check_links(self, files: Files) -> None:
        """Refuse links that lead out of the agent on any way through it: the first one found."""
        links: Mapping[bytes, Entry] = {path: entry for path, entry in files.items() if entry.mode == SYMLINK}
        targets = dict(self._seen.links)
        for path, entry in links.items():
            if entry.oid not in targets:
                with suppress(OSError, KaiError):
                    parent, name = self._below.at(path)
                    targets[entry.oid] = os.fsencode(os.readlink(name, dir_fd=parent))
        if self._seen.files or self._seen.gone:
            self._try(
                "holds a link that it cannot", lambda: trees.check_links(links, lambda oid: targets.get(oid, b"."))
            )


def _manifest(data: bytes | None) -> Manifest:
    return manifests.DEFAULT if data is None else manifests.parse(data, MANIFEST.decode())


def _attribute(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError:
        return None


def _above(path: bytes) -> Iterator[bytes]:
    while path := path.rpartition(b"/")[0]:
        yield path


def _kind_of(mode: int) -> str:
    kinds = {
        stat.S_IFSOCK: "a socket",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFBLK: "a device",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no file, directory or link")
