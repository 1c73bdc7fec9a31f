"""Views: read-only directories of what was released.

A view is made from the store under another name and renamed into place whole. Where an inode is as its seal says, its
bytes need not be read again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from operator import itemgetter

from kaivc import leases, materialise, trees, versions
from kaivc.dirtree import DirTree
from kaivc.donor import Donor
from kaivc.errors import (
    AgentBusy,
    ChecksumMismatch,
    InvalidName,
    NoSuchRevision,
    StorageFailed,
)
from kaivc.keeping import Notes, drop_directory, looks, seal_of, walk
from kaivc.layout import META_FILE
from kaivc.names import ObjectId, Version, version_ref
from kaivc.plans import parents
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.storage import caches
from kaivc.storage.caches import Seal, ViewRow
from kaivc.storage.gitobjects import DIRECTORY, EXECUTABLE, SYMLINK, Entry, Kind
from kaivc.trees import Files, show
from kaivc.versions import AgentVersion
from kaivc.vfs import unless_short
from kaivc.workspace import hash_file

NAMED = 5
"""How many problems an error names."""
SMALL = 1 << 20
"""A load re-hashes files below this size, whatever their seal says."""


class ViewDamaged(ChecksumMismatch):
    """A view is not what its commit says; the store may still have the bytes."""


@dataclass(frozen=True)
class Problem:
    """A path of a view that is not what the commit says."""

    path: str
    expected: str | None
    found: str | None

    @property
    def what(self) -> str:
        """The problem in words, without the path."""
        if self.expected is None:
            return "is there, and the version does not hold it"
        if self.found is None:
            return "is missing"
        return f"expected {self.expected}, found {self.found}"

    def __str__(self) -> str:
        return f"{show(os.fsencode(self.path))}: {self.what}"


def meta_bytes(version: AgentVersion) -> bytes:
    """What ``snapshot_meta.json`` of a version holds."""
    from json.encoder import encode_basestring as quoted  # noqa: PLC0415 - only what makes or checks a view needs it

    # As json.dumps with an indent of 2, which takes twenty times as long for it.
    pairs = version.snapshot_meta().items()
    lines = (f"  {quoted(key)}: {'null' if value is None else quoted(value)}" for key, value in pairs)
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


class View:
    """The view of one version."""

    def __init__(self, repo: Repository, version: AgentVersion) -> None:
        self._repo = repo
        self._version = version
        self.path = repo.layout.view(repo.name, version.tag)
        self.files: Files = trees.flatten(repo.store, version.tree_oid)

    # ------------------------------------------------------------ make

    def exists(self) -> bool:
        """Whether the directory is there."""
        return os.path.isdir(self.path) and not os.path.islink(self.path)

    def make_whole(self, notes: Notes) -> None:
        """Make the view unless it is there; one that a cut command made, or a power cut may have hit, is looked at."""
        known = next((row for row in notes.rows(self._repo) if row.tag == self._version.tag), None)
        if not self.exists() or (known is None and self.check(full=True, notes=notes)):
            self.build(notes)
            return
        if os.stat(self.path).st_mode & stat.S_IWUSR:  # what made it was cut just before that
            with suppress(StorageFailed):  # another member of the group made it
                self._close_root()
        if known is not None and (not known.seen or known.seen != self._repo.home.boot):
            self.mend_cut()

    def mend_cut(self) -> None:
        """Mend what a power cut may have left in part; what else is wrong with it, its use will say."""
        problems = self.check(full=True)
        if problems and self.may_be_cut():
            self.mend(problems)

    def ensure(self, *, force: bool = False) -> list[str]:
        """Make the view, or check by its seals that it is whole; the tags of views that shared a mended file.

        Raises ChecksumMismatch, naming paths, when it is not; with ``force`` it is mended from the store instead.
        """
        if not self.exists():
            self.build()
            return []
        try:
            problems = self.check()
            if problems and force:
                self._require_no_test()
            if problems and (force or self.may_be_cut()):
                return self.mend(problems)
        except (ViewDamaged, StorageFailed, OSError):
            if not force:
                raise
            self._require_no_test()
            drop_directory(self._repo, self._version.tag)
            self.build()
            return []
        if problems:
            raise self.mismatch(problems)
        return []

    def _require_no_test(self) -> None:
        """AgentBusy while a snapshot is under test: it may have this view mounted, which must not change then."""
        if leases.is_testing(self._repo):
            name = f"{self._version.agent} {self._version.tag}"
            raise AgentBusy(
                f"the view of {name} is damaged, and a snapshot that is under test may be reading it",
                unchanged="nothing moved",
                hint="let it end, or stop it; then run the command again",
                agent=self._version.agent,
            )

    def may_be_cut(self) -> bool:
        """Whether the machine was started again since the view was made, and it was not seen whole since.

        Views are not synced: then what is wrong with one is what the power took, and the store has it.
        """
        row = self._row()
        return row.born == row.seen != self._repo.home.boot and bool(row.born)

    def mend(self, problems: list[Problem]) -> list[str]:
        """Give each damaged path a new inode, in place, so that the directory is there at every moment.

        The tags of views that shared a file of it.
        """
        vfs = self._repo.vfs
        with DirTree(vfs, self.path, 0o700) as tree:
            paths = sorted(os.fsencode(problem.path) for problem in problems)
            shared = self._sharing([status.st_ino for path in paths if (status := tree.stat(path))])
            opened = [path for path in {b"", *(it for name in self.files for it in parents(name))} if tree.is_dir(path)]
            for path in sorted(opened):
                vfs.chmod_fd(tree.directory(path), 0o700)
            for path in paths:
                self._mend_one(tree, path)
            self._close_directories(tree)
            vfs.chmod_fd(tree.fd, self._dir_mode())
        left = self.check(full=True)
        if left:
            raise self.mismatch(left)
        return shared

    def _mend_one(self, tree: DirTree, path: bytes) -> None:
        parent_path, slash, _ = path.rpartition(b"/")
        fresh = parent_path + slash + b".kai-new"
        for there in (path, fresh):
            status = tree.stat(there)
            if status is not None and (there == fresh or stat.S_ISDIR(status.st_mode) or path not in self._expected()):
                parent, name = tree.at(there)
                tree.forget(there)
                tree.vfs.remove_tree(name, at=parent)
        if path == META_FILE:
            self._write_meta(tree, fresh)
        elif path in self.files:
            entry = self.files[path]
            materialise.write_file(self._repo.store, tree, fresh, entry, self._mode(entry))
        else:
            return
        parent, name = tree.at(path)
        tree.vfs.rename(b".kai-new", name, parent, parent)

    def _sharing(self, inodes: list[int]) -> list[str]:
        """The other views that have a file of these inodes."""
        found = []
        for row in caches.views(self._repo.catalog, self._repo.id):
            root = self._repo.layout.view(self._repo.name, row.tag)
            if row.tag != self._version.tag and os.path.isdir(root):
                there = {status.st_ino for _, status in walk(os.fsencode(root), b"")}
                found += [row.tag] * bool(there & set(inodes))
        return found

    def build(self, notes: Notes | None = None) -> None:
        """Make the view whole under another name, then rename it into place."""
        repo, vfs = self._repo, self._repo.vfs
        materialise.check_tree_links(repo.store, self.files)
        parent = repo.layout.versions(repo.name)
        vfs.make_dirs(parent, repo.home.dir_mode)
        temporary = os.path.join(parent, f".new-{self._version.tag}")
        vfs.remove_tree(temporary)
        vfs.make_dir(temporary)
        own = self._fill(temporary, notes or Notes())
        if os.path.lexists(self.path):
            vfs.remove_tree(self.path)  # not ours, or it would be known
        vfs.rename(temporary, self.path)
        self._close_root()
        row = ViewRow(self._version.tag, 0, repo.home.clock.now_ns(), own, repo.home.boot, repo.home.boot)
        with suppress(FileNotFoundError):  # it went away: the next look makes it again
            self._seal(self._looked_over(), row, notes)

    def _fill(self, directory: str, notes: Notes) -> int:
        """Link or write every file below a directory, and close it; how many bytes were written."""
        repo, own = self._repo, 0
        with self._donor(notes) as donor, DirTree(repo.vfs, directory, 0o700) as tree:
            others = {path: entry for path, entry in self.files.items() if not donor.link(path, entry, tree)}
            for number, (path, entry) in enumerate(materialise.in_store_order(repo.store, others)):
                repo.home.progress("making the view", number, len(others))
                own += materialise.write_file(repo.store, tree, path, entry, self._mode(entry))
            self._write_meta(tree)
            self._close_directories(tree)
        return own

    def _write_meta(self, tree: DirTree, name: bytes = META_FILE) -> None:
        fd = tree.vfs.create(name, 0o600, at=tree.fd)
        try:
            tree.vfs.write(fd, self._meta)
            tree.vfs.chmod_fd(fd, 0o440 if self._repo.home.shared else 0o400)
        finally:
            tree.vfs.close(fd)

    def _close_root(self) -> None:
        root = self._repo.vfs.open_dir(self.path)
        try:
            self._repo.vfs.chmod_fd(root, self._dir_mode())
        finally:
            self._repo.vfs.close(root)

    def _close_directories(self, tree: DirTree) -> None:
        directories = {path for name in self.files for path in parents(name)}
        for path in sorted(directories, key=lambda path: path.count(b"/"), reverse=True):
            tree.vfs.chmod_fd(tree.directory(path), self._dir_mode())

    def _mode(self, entry: Entry) -> int:
        bits = 0o440 if self._repo.home.shared else 0o400
        return bits | bits >> 2 if entry.mode == EXECUTABLE else bits

    def _dir_mode(self) -> int:
        return 0o550 if self._repo.home.shared else 0o500

    def _donor(self, notes: Notes) -> Donor:
        for row in notes.rows(self._repo):
            if row.tag == self._version.tag or row.seen != self._repo.home.boot:
                continue
            if not os.path.isdir(self._repo.layout.view(self._repo.name, row.tag)):
                continue
            try:
                view = View(self._repo, self._other(row.tag))
            except (InvalidName, ChecksumMismatch, NoSuchRevision):  # its number may have been withdrawn
                continue
            return Donor(self._repo, view.path, view.files)
        return Donor()

    def _other(self, tag: str) -> AgentVersion:
        """Another version; the one before is known already."""
        before = versions.parent(self._repo, self._version) if tag == f"v{self._version.parent}" else None
        return before or versions.of_tag(self._repo, version_ref(self._repo.name, Version.parse(tag)))

    # ------------------------------------------------------------ check

    def check(self, *, full: bool = False, small: bool = False, notes: Notes | None = None) -> list[Problem]:
        """What is not as the commit says; files whose seal fits are not read.

        ``full`` re-hashes every file, as does the first look since the machine was started; ``small`` those below
        1 MiB. What was read and is right is sealed anew.
        """
        known, boot = self._row(), self._repo.home.boot
        full = full or not boot or known.seen != boot
        seals = {} if full else self._repo.seals
        try:
            extra, doubtful = self._in_doubt(seals, full=full, small=small)
        except FileNotFoundError:
            extra, doubtful = [], dict.fromkeys(self._expected())
        if (extra or doubtful) and not self.exists():
            return []  # dropped meanwhile: it comes back from the store when asked for
        problems = [Problem(os.fsdecode(path), None, "an extra file") for path in sorted(extra)]
        if doubtful and not full:
            seals = self._repo.seals_anew()
            doubtful = {
                path: it for path, it in doubtful.items() if it is None or self._must_read(path, it, seals, small)
            }
        fresh: dict[bytes, os.stat_result] = {}
        with DirTree(self._repo.vfs, self.path) as tree:
            for path, status in sorted(doubtful.items(), key=itemgetter(0)):
                problem = self._compare(tree, path, status)
                if problem:
                    problems.append(problem)
                elif status is not None:
                    fresh[path] = status
        if not problems and (fresh or full):
            now = self._repo.home.clock.now_ns()
            self._seal(fresh.items(), known._replace(verified_ns=now, seen=boot) if full else known, notes)
        return problems

    def mismatch(self, problems: list[Problem]) -> ViewDamaged:
        """The error that names what is wrong."""
        some = "; ".join(str(problem) for problem in problems[:NAMED])
        more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        return ViewDamaged(
            f"the view of {self._version.agent} {self._version.tag} is not what its commit says: {some}{more}",
            unchanged="nothing moved",
            hint=f"`kai rollback {self._version.agent} --to {self._version.tag} --force` makes it anew from the store",
            problems=[{"path": it.path, "expected": it.expected, "found": it.found} for it in problems],
        )

    def due_for_full_check(self) -> bool:
        """Whether the last full re-hash is longer ago than ``verify.full_every``."""
        age = self._repo.home.clock.now_ns() - self._row().verified_ns
        return age > self._repo.settings.verify_full_every * 1_000_000_000

    def _known(self) -> ViewRow | None:
        return caches.view(self._repo.catalog, self._repo.id, self._version.tag)

    def _row(self) -> ViewRow:
        known = self._known()
        if known is not None:
            return known
        return ViewRow(self._version.tag, 0, 0, sum(self._repo.store.size(entry.oid) for entry in self.files.values()))

    def _expected(self) -> set[bytes]:
        return {*self.files, META_FILE}

    def _in_doubt(
        self, seals: dict[tuple[int, int], Seal], *, full: bool, small: bool
    ) -> tuple[list[bytes], dict[bytes, os.stat_result | None]]:
        """The files that the version does not hold, and those that must be read, with how they look: None if missing.

        What is sealed is forgotten at once: there may be very many.
        """
        missing, extra = self._expected(), []
        doubtful: dict[bytes, os.stat_result | None] = {}
        for path, status in self._looked_over():
            if path not in missing:
                extra.append(path)
                continue
            missing.remove(path)
            if full or self._must_read(path, status, seals, small):
                doubtful[path] = status
        return extra, doubtful | dict.fromkeys(missing)

    def _must_read(
        self, path: bytes, status: os.stat_result, seals: dict[tuple[int, int], Seal], small: bool, /
    ) -> bool:
        """Whether the inode is not as a seal says, or the file small where ``small`` are read in any case."""
        if small and status.st_size < SMALL:
            return True
        return seals.get((status.st_dev, status.st_ino)) != looks(status, self._oid(path))

    def _oid(self, path: bytes) -> ObjectId:
        if path == META_FILE:
            return self._meta_oid
        return self.files[path].oid

    @cached_property
    def _meta(self) -> bytes:
        return meta_bytes(self._version)

    @cached_property
    def _meta_oid(self) -> ObjectId:
        return self._repo.store.format.hash(Kind.BLOB, self._meta)

    def _compare(self, tree: DirTree, path: bytes, status: os.stat_result | None) -> Problem | None:
        expected = self._oid(path)
        wants_link = path != META_FILE and self.files[path].mode == SYMLINK
        if status is None:
            return Problem(os.fsdecode(path), expected.hex(), None)
        if wants_link != stat.S_ISLNK(status.st_mode) or not (wants_link or stat.S_ISREG(status.st_mode)):
            return Problem(os.fsdecode(path), expected.hex(), "another type of file")
        wants_x = path != META_FILE and self.files[path].mode == EXECUTABLE
        if not wants_link and wants_x != bool(status.st_mode & stat.S_IXUSR):
            return Problem(
                os.fsdecode(path), "executable" if wants_x else "not executable", oct(status.st_mode & 0o777)
            )
        parent, name = tree.at(path)
        if wants_link:
            found = self._repo.store.format.hash(Kind.BLOB, os.fsencode(os.readlink(name, dir_fd=parent)))
        else:
            try:
                found = hash_file(self._repo, name, parent)
            except OSError as error:
                unless_short(error)
                return Problem(os.fsdecode(path), expected.hex(), str(error.strerror))
        return None if found == expected else Problem(os.fsdecode(path), expected.hex(), found.hex())

    # ------------------------------------------------------------ seals

    def _looked_over(self) -> Iterator[tuple[bytes, os.stat_result]]:
        try:
            yield from walk(os.fsencode(self.path), b"")
        except FileNotFoundError:
            raise
        except OSError as error:
            unless_short(error)
            raise self.mismatch([Problem(".", "a readable directory", str(error.strerror))]) from error

    def _seal(self, statuses: Iterable[tuple[bytes, os.stat_result]], row: ViewRow, notes: Notes | None = None) -> None:
        if self._repo.home.read_only:
            return  # the next look reads it again
        into = notes or Notes()
        for path, status in statuses:
            into.seals[status.st_dev, status.st_ino] = seal_of(status, self._oid(path))
        into.used[row.tag] = row
        if notes is None:
            into.keep(self._repo)

    def note_use(self, notes: Notes | None = None) -> None:
        """Note that the view was used."""
        if notes is None or self._version.tag not in notes.used:
            self._seal((), self._row(), notes)


# ---------------------------------------------------------------- asked for


def load(repo: Repository, version: AgentVersion) -> str:
    """The path of a version's view, made if absent, verified in any case; ChecksumMismatch otherwise.

    A home that can only be read is asked without its lock, and ReadOnlyHome raised for a view that is not there.
    """
    if version.version is None:
        raise NoSuchRevision(
            f"{version.tag} is a backup: only versions have a view",
            hint="`kai checkout` writes its files to a directory",
            revision=version.tag,
        )
    _check_objects(repo, version)
    view = View(repo, version)
    if not view.exists():
        repo.home.require_writable()
        view.build()
    problems = view.check(full=view.due_for_full_check(), small=True)
    if problems and view.may_be_cut() and not repo.home.read_only:
        view.mend(problems)
    elif problems:
        raise view.mismatch(problems)
    view.note_use()
    return view.path


def _check_objects(repo: Repository, version: AgentVersion) -> None:
    """Re-hash the commit and every tree: what the view is compared with."""
    repo.store.check(version.oid)
    todo = [version.tree_oid]
    while todo:
        oid = todo.pop()
        repo.store.check(oid)
        todo += [entry.oid for _, entry in repo.store.tree(oid) if entry.mode == DIRECTORY]
