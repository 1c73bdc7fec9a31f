"""Read a live workspace as the files of a version.

Each file is read through one descriptor whose status must not change meanwhile. A database and its side files are
read as one committed state. What the stat cache knows is not read again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from kaivc import manifest as manifests
from kaivc import sqlitefiles
from kaivc.dirtree import DirTree
from kaivc.errors import (
    InvalidManifest,
    RefusedPath,
    TooLarge,
    UnreadablePath,
    WorkspaceError,
)
from kaivc.ignore import IGNORE_FILE, IgnoreRules
from kaivc.layout import META_FILE
from kaivc.manifest import MANIFEST, Manifest, StateClass
from kaivc.names import ObjectId
from kaivc.reading import Reader, StillReader, is_settled, signature, unreadable
from kaivc.records import dataclass, field
from kaivc.repository import Repository
from kaivc.roots import live_manifest, open_root, read_small, refuse_root
from kaivc.sinks import BlobSink, BytesSource
from kaivc.storage.caches import Known
from kaivc.storage.gitobjects import EXECUTABLE, FILE, SYMLINK, Entry, check_tree_name
from kaivc.trees import MAX_DEPTH, MAX_PATH, Files, check_links, show

BELOW = 64
"""Bytes that the name of a view has at most, with what is beside a path while it is written."""
SAID = 6
"""How many paths a notice names."""
LINKS_THAT_GIT_REFUSES = frozenset([b".gitmodules", b"gitmod~1"])


@dataclass
class Capture:
    """A workspace as it was: its files, the manifest among them, and what is to be said of it."""

    files: dict[bytes, Entry] = field(default_factory=dict)
    manifest: Manifest = manifests.DEFAULT
    known: dict[bytes, dict[bytes, Known]] = field(default_factory=dict)
    changed: set[bytes] = field(default_factory=set)
    databases: set[bytes] = field(default_factory=set)
    links: dict[ObjectId, bytes] = field(default_factory=dict)
    empty_directories: list[bytes] = field(default_factory=list)
    hard_links: list[bytes] = field(default_factory=list)
    plain_databases: list[bytes] = field(default_factory=list)
    default_ignored: list[bytes] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    reserved: bool = False

    def without_secrets(self) -> dict[bytes, Entry]:
        """The files that a copy has; `kai run` brings the others."""
        return {path: it for path, it in self.files.items() if self.manifest.state_class(path) is not StateClass.SECRET}

    def notices(self) -> list[str]:
        """What a user should be told, a line each."""
        lines = [f"{show(path)}/ is empty: directories are not kept without files" for path in self.empty_directories]
        if self.hard_links:
            some = ", ".join(map(show, self.hard_links[:3]))
            lines.append(f"hard links come back as separate files: {some}")
        lines += [
            f"{show(path)} is no database that SQLite reads: kept as a plain file" for path in self.plain_databases
        ]
        if self.default_ignored:
            some = ", ".join(show(path) for path in self.default_ignored[:SAID])
            more = len(self.default_ignored) - SAID
            lines.append(f"left out by default: {some}" + (f" and {more} more" if more > 0 else ""))
        lines += self.left_out
        if self.reserved:
            lines.append(f"{META_FILE.decode()} is a reserved name: the file is not kept")
        return lines


def _above(path: bytes) -> Iterator[bytes]:
    while path := path.rpartition(b"/")[0]:
        yield path


class Capturer:
    """Reads the workspace of one agent into a sink.

    ``base`` is the tree that secrets which are absent here are taken from, and that files here are likely to be like;
    what ``base_manifest``, its manifest, calls secret is never read, whatever the live one says. With ``spare``, a
    manifest, what a version could not hold is left out instead of refused, and ``spare`` stands in for a manifest that
    cannot be read: a workspace that is about to be left must not stand in the way. With ``still``, the directory is one
    that nobody runs and that must not be written to, not even by SQLite.
    """

    def __init__(
        self,
        repo: Repository,
        sink: BlobSink,
        base: Files,
        *,
        spare: Manifest | None = None,
        base_manifest: Manifest = manifests.DEFAULT,
        still: bool = False,
    ) -> None:
        self._repo = repo
        self._sink = sink
        self._base = base
        self._spare = spare
        self._base_manifest = base_manifest
        self._root = os.fsencode(repo.workspace)
        self._reader = reader = (StillReader if still else Reader)(repo, sink)
        self._result = Capture(known=reader.known, databases=reader.databases, plain_databases=reader.plain_databases)
        self._rules = IgnoreRules.parse(None)
        self._has_secrets = True
        self._largest = repo.settings.limits_max_file
        above = max(len(self._root), len(os.fsencode(repo.layout.versions(repo.name))))
        self._longest = MAX_PATH - above - BELOW  # else no view of it can be made
        self._inodes: dict[tuple[int, int], bytes] = {}
        self._wanted: set[bytes] = set()

    def run(self) -> Capture:
        """Walk and read everything; typed errors name the path that could not be."""
        repo, result = self._repo, self._result
        refuse_root(repo.workspace, repo.layout, repo.home.environ)
        root = open_root(self._root)
        try:
            result.manifest = self._manifest(root)
            self._has_secrets = bool(result.manifest.secret or self._base_manifest.secret)
            self._rules = self._ignore_rules(root)
            self._directory(root, b"", 0)
        finally:
            os.close(root)
        self._carry_secrets()
        result.changed |= self._reader.cache.keys() - result.known.keys()
        if self._spare is None:
            check_links(result.files, self._target)
        return result

    def _carry_secrets(self) -> None:
        """A secret that is absent here stays in the tree, unless something else took its place."""
        if not self._has_secrets:
            return
        files = self._result.files
        taken = {parent for path in files for parent in _above(path)}
        for path, entry in self._base.items():
            if path in files or not self._is_secret(path):
                continue
            if path not in taken and not any(parent in files for parent in _above(path)):
                files[path] = entry

    def _is_secret(self, path: bytes) -> bool:
        return StateClass.SECRET in (self._result.manifest.state_class(path), self._base_manifest.state_class(path))

    def add(self, paths: Iterable[bytes]) -> None:
        """Read paths that the walk passed over, because they are ignored here and a restore will replace them."""
        with DirTree(self._repo.vfs, self._root) as tree:
            for path in paths:
                status = tree.stat(path)
                if status is None or not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
                    continue
                self._wanted.add(path)
                parent, name = tree.at(path)
                self._file(parent, name, path, status, {os.fsencode(it) for it in os.listdir(parent)})

    def _manifest(self, root: int) -> Manifest:
        try:
            return live_manifest(root)
        except WorkspaceError as error:
            if self._spare is None:
                raise
            self._result.left_out.append(f"the manifest was not used: {error.what}")
            return self._spare

    def _ignore_rules(self, root: int) -> IgnoreRules:
        try:
            return IgnoreRules.parse(read_small(root, IGNORE_FILE), IGNORE_FILE.decode())
        except WorkspaceError as error:
            if self._spare is None:
                raise
            self._result.left_out.append(f"the ignore rules were not used: {error.what}")
            return IgnoreRules.parse(None)

    def _target(self, oid: ObjectId) -> bytes:
        return self._result.links[oid]

    # ------------------------------------------------------------ directories

    def _directory(self, fd: int, prefix: bytes, depth: int) -> None:
        if depth > MAX_DEPTH:
            if self._spare is not None:
                self._result.left_out.append(f"{show(prefix)} is nested too deep for a version: it stays as it is")
                return
            raise RefusedPath(f"{show(prefix)} is nested more than {MAX_DEPTH} deep", path=show(prefix))
        try:
            with os.scandir(fd) as entries:
                listing = sorted((os.fsencode(entry.name), entry) for entry in entries)
        except OSError as error:
            raise unreadable(prefix or b".", error) from error
        names = {name for name, _ in listing}
        found = [(name, status) for name, entry in listing if (status := _lstat(entry, prefix + name)) is not None]
        before, known = self._reader.cache.get(prefix, {}), self._reader.known.setdefault(prefix, {})
        crowded = len(self._result.files) + len(found) > self._repo.settings.limits_max_files
        for name, status in found:
            learnt = before.get(name)
            if learnt is not None and not crowded and self._is_as_learnt(prefix + name, status, names, learnt):
                known[name] = learnt
            else:
                self._entry(fd, prefix, name, status, names, depth)
        if prefix and not found:
            self._result.empty_directories.append(prefix[:-1])
        if known != before:
            self._result.changed.add(prefix)

    def _is_as_learnt(self, path: bytes, status: os.stat_result, names: set[bytes], learnt: Known) -> bool:
        """Take a file as the version before has it, if nothing is to be said, asked or read of it; the usual case.

        Its name was checked when it was learnt, and is checked again when a tree is made of it.
        """
        base = self._base.get(path)
        if base is None or learnt.signature != signature(status) or base.oid != learnt.oid:
            return False  # (of a database with a log the signature is longer)
        mode = status.st_mode
        if base.mode != (EXECUTABLE if mode & stat.S_IXUSR else FILE) or not stat.S_ISREG(mode):
            return False
        if status.st_nlink > 1 or status.st_size > self._largest or self._has_secrets or not is_settled(learnt):
            return False
        if path.endswith(sqlitefiles.SIDE_SUFFIXES) or path[path.rfind(b"/") + 1 :] + b"-wal" in names:
            return False
        if self._rules.ignored(path, False):
            return False
        self._result.files[path] = base
        return True

    def _entry(
        self, fd: int, prefix: bytes, name: bytes, status: os.stat_result, names: set[bytes], depth: int
    ) -> None:
        path = prefix + name
        is_dir = stat.S_ISDIR(status.st_mode)
        if self._rules.ignored(path, is_dir):
            self._note_ignored(path)
            return
        if not self._nameable(name, path):
            return
        if path == MANIFEST and not stat.S_ISREG(status.st_mode) and self._spare is None:
            raise InvalidManifest(f"{MANIFEST.decode()} is no plain file", unchanged="nothing was written")
        if is_dir:
            self._subdirectory(fd, name, path, depth)
        elif not self._is_side_file(fd, name, prefix, names):
            self._file(fd, name, path, status, names)

    def _note_ignored(self, path: bytes) -> None:
        """What only the defaults leave out is said: nobody wrote it down."""
        self._result.reserved |= path == META_FILE
        name = path.rpartition(b"/")[2]
        if path != META_FILE and name != b"__pycache__" and not self._rules.named(path):
            self._result.default_ignored.append(path)

    def _nameable(self, name: bytes, path: bytes) -> bool:
        try:
            check_tree_name(name)
        except RefusedPath as error:
            if self._spare is None:
                raise RefusedPath(
                    f"{show(path)} has a name that a version cannot hold", hint="rename it", path=show(path)
                ) from error
            self._result.left_out.append(f"{show(path)} has a name that no version can hold: it stays as it is")
            return False
        return True

    def _subdirectory(self, parent: int, name: bytes, path: bytes, depth: int) -> None:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as error:
            if self._spare is None:
                raise unreadable(path, error) from error
            self._result.left_out.append(f"{show(path)}/ cannot be read: it stays as it is")
            return
        try:
            self._directory(fd, path + b"/", depth + 1)
        finally:
            os.close(fd)

    def _is_side_file(self, fd: int, name: bytes, prefix: bytes, names: set[bytes]) -> bool:
        base = sqlitefiles.base_of(name)
        if base is None or base not in names:
            return False
        if self._rules.ignored(prefix + base, False):
            return False
        if prefix + base in self._reader.plain_databases:
            return False
        return prefix + base in self._reader.databases or self._reader.has_magic(fd, base)

    # ------------------------------------------------------------ files

    def _file(self, parent: int, name: bytes, path: bytes, status: os.stat_result, names: set[bytes]) -> None:
        result = self._result
        if not self._within_limits(path):
            return
        if self._is_secret(path):
            result.files[path] = Entry(FILE, self._secret(path))
            return
        if stat.S_ISLNK(status.st_mode):
            if self._spare is None and name.lower() in LINKS_THAT_GIT_REFUSES:
                raise RefusedPath(
                    f"{show(path)} is a symbolic link: git takes that name for a file only",
                    unchanged="nothing was written",
                    hint="make it a file, or list it in .kaiignore",
                    path=show(path),
                )
            try:
                target = os.fsencode(os.readlink(name, dir_fd=parent))
            except OSError:
                return  # it went away
            link = self._sink.put_blob(BytesSource(target), len(target))
            result.links[link] = target
            result.files[path] = Entry(SYMLINK, link)
            return
        if not stat.S_ISREG(status.st_mode):
            if self._spare is not None:
                result.left_out.append(f"{show(path)} is {_kind_of(status.st_mode)}: it stays as it is")
                return
            raise RefusedPath(
                f"{show(path)} is {_kind_of(status.st_mode)}: a version cannot hold it",
                unchanged="nothing was written",
                hint="remove it, or list it in .kaiignore",
                path=show(path),
            )
        self._check_size(path, status)
        if status.st_nlink > 1 and self._inodes.setdefault((status.st_dev, status.st_ino), path) != path:
            result.hard_links.append(path)
        oid = self._bytes(parent, name, path, status, names)
        if oid is None:
            return
        result.files[path] = Entry(EXECUTABLE if status.st_mode & stat.S_IXUSR else FILE, oid)

    def _bytes(
        self, parent: int, name: bytes, path: bytes, status: os.stat_result, names: set[bytes]
    ) -> ObjectId | None:
        base = self._base.get(path)
        oid = self._reader.known_id(parent, name, path, status, names, base.oid if base else None)
        if oid is not None:
            return oid
        try:
            return self._reader.read(parent, name, path, base.oid if base else None)
        except UnreadablePath:
            if self._spare is None or path in self._wanted:
                raise
            self._result.left_out.append(f"{show(path)} cannot be read: it stays as it is")
            return None

    def _secret(self, path: bytes) -> ObjectId:
        name = self._result.manifest.secret_name(path)
        if name is None:
            name = self._base_manifest.secret_name(path) or ""
            self._result.left_out.append(
                f"{show(path)} is no secret any more: the version after this one will hold its bytes"
            )
        data = manifests.SECRET_PREFIX + name.encode()
        return self._sink.put_blob(BytesSource(data), len(data))

    def _within_limits(self, path: bytes) -> bool:
        limit = self._repo.settings.limits_max_files
        if len(self._result.files) >= limit and self._spare is None:
            raise TooLarge(
                f"the workspace holds more than {limit} files",
                unchanged="nothing was written",
                hint="raise `limits.max_files` in .kai/config.yaml, or list some in .kaiignore",
            )
        if len(path) <= self._longest:
            return True
        if self._spare is None:
            raise RefusedPath(
                f"a path of {len(path)} bytes is longer than a disk takes in one piece: {show(path[:60])}...",
                unchanged="nothing was written",
                hint="nest it less deep, or list it in .kaiignore",
                path=show(path),
            )
        self._result.left_out.append(f"{show(path[:60])}... has a path that no version can hold: it stays as it is")
        return False

    def _check_size(self, path: bytes, status: os.stat_result) -> None:
        limit = self._repo.settings.limits_max_file
        if status.st_size > limit:
            raise TooLarge(
                f"{show(path)} has {status.st_size} bytes; the limit is {limit}",
                unchanged="nothing was written",
                hint="raise `limits.max_file` in .kai/config.yaml, or list the file in .kaiignore",
                path=show(path),
            )


def _lstat(entry: os.DirEntry[str], path: bytes) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error


def _kind_of(mode: int) -> str:
    kinds = {
        stat.S_IFSOCK: "a socket",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFBLK: "a device",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no file, directory or link")
