"""Write an agent's versions as a bare git repository."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing

from kaivc.errors import ChecksumMismatch, InvalidName, NoVersionYet, TargetNotEmpty
from kaivc.names import ObjectId, Version, current_ref, tags_prefix
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.roots import refuse_root
from kaivc.storage.catalog import damaged
from kaivc.storage.gitobjects import DIRECTORY, Kind, decode_commit, decode_tag, decode_tree
from kaivc.vfs import mapped

BRANCH = "current"
LEVEL = 1
"""git's own choice for loose objects: speed."""

Want = tuple[ObjectId, Kind]


@dataclass(frozen=True)
class Exported:
    """A bare repository that git reads; ``refs`` are its names and hex ids, ``bytes`` its objects' sizes unpacked."""

    agent: str
    path: str
    object_format: str
    refs: tuple[tuple[str, str], ...]
    objects: int
    bytes: int


def export(repo: Repository, directory: str) -> Exported:
    """Write all versions to ``directory``: absent or empty, and whole or not there at all.

    The branch is ``current``, which HEAD names, and the tags are ``vX.Y.Z``; every object is re-hashed on its way.
    TargetNotEmpty, RefusedWorkspace, NoVersionYet, ChecksumMismatch otherwise.
    """
    refs = _refs(repo)
    target = os.path.abspath(directory)
    refuse_root(directory, repo.layout, repo.home.environ, "written to")
    _need_empty(target)
    vfs = repo.vfs
    temporary = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.{repo.new_op_id()}")
    vfs.make_dirs(os.path.dirname(target), 0o777)
    vfs.make_dir(temporary, 0o755)
    try:
        _make_git(repo, temporary, refs)
        writer = _LooseWriter(repo, os.path.join(temporary, "objects"))
        writer.reachable(refs.values())
        vfs.sync_disk()
        vfs.rename(temporary, target)
    except BaseException:
        vfs.remove_tree(temporary)
        raise
    named = tuple((name, oid.hex()) for name, oid in refs.items())
    return Exported(repo.name, target, repo.home.format.name, named, len(writer.seen), writer.bytes)


def _refs(repo: Repository) -> dict[str, ObjectId]:
    """The refs as they are served for this agent alone; one look at the catalog, so that they fit each other."""
    found = repo.refs("refs/")
    current = found.get(current_ref(repo.name))
    if current is None:
        raise NoVersionYet(
            f"agent {repo.name} has no version yet",
            unchanged="nothing was written",
            hint=f"make one with `kai commit {repo.name}`",
            agent=repo.name,
        )
    tags = tags_prefix(repo.name)
    served = {f"refs/heads/{BRANCH}": current}
    for name, oid in found.items():
        if name.startswith(tags):
            served["refs/tags/" + _number(name.removeprefix(tags), name).tag] = oid
    if any(len(oid) != repo.home.format.width for oid in served.values()):
        raise damaged(f"a ref of {repo.name}")
    return dict(sorted(served.items()))


def _number(text: str, name: str) -> Version:
    """The version that a tag is named after: whoever writes the catalog could name it as a path."""
    try:
        return Version.parse(text)
    except InvalidName as error:
        raise damaged(f"ref {name}") from error


def _need_empty(target: str) -> None:
    if os.path.lexists(target) and (os.path.islink(target) or not os.path.isdir(target) or os.listdir(target)):
        raise TargetNotEmpty(
            f"{target} is not an empty directory",
            unchanged="nothing was written",
            hint="name a new one",
            path=target,
        )


def _make_git(repo: Repository, path: str, refs: Mapping[str, ObjectId]) -> None:
    """An empty bare repository of the home's format, with the names that its objects will have."""
    from dulwich.refs import Ref  # noqa: PLC0415 - dulwich costs 30-110 ms; only an export pays
    from dulwich.repo import Repo  # noqa: PLC0415 - as above

    with mapped("writing", path):
        made = Repo.init_bare(path, object_format=repo.home.format.name, default_branch=BRANCH.encode())
        with closing(made):
            for name, oid in refs.items():
                made.refs.add_if_new(Ref(name.encode()), oid.hex().encode())  # type: ignore[arg-type]


class _LooseWriter:
    """Writes loose objects, which can be streamed at any size: a pack would want them all compressed twice."""

    def __init__(self, repo: Repository, objects: str) -> None:
        self._repo = repo
        self._objects = objects
        self._known_directories: set[str] = set()
        self.seen: set[ObjectId] = set()
        self.bytes = 0

    def reachable(self, tips: Iterable[ObjectId]) -> None:
        """Write all that can be reached from tags and commits."""
        store = self._repo.store
        todo: list[Want] = [(oid, store.kind(oid)) for oid in tips]
        while todo:
            oid, kind = todo.pop()
            if oid in self.seen:
                continue
            self.seen.add(oid)
            self._repo.home.progress("exporting", len(self.seen), None)
            if kind is Kind.BLOB:
                self._write(oid, kind, store.size(oid), store.stream(oid))
                continue
            data = store.read(oid, kind)
            self._write(oid, kind, len(data), [data])
            todo += self._below(kind, data)

    def _below(self, kind: Kind, data: bytes) -> Iterator[Want]:
        width = self._repo.home.format.width
        if kind is Kind.TAG:
            yield decode_tag(data, width).target, Kind.COMMIT
        elif kind is Kind.COMMIT:
            commit = decode_commit(data, width)
            yield commit.tree, Kind.TREE
            if commit.parent:
                yield commit.parent, Kind.COMMIT
        else:
            for _, entry in decode_tree(data, width):
                yield entry.oid, Kind.TREE if entry.mode == DIRECTORY else Kind.BLOB

    def _write(self, oid: ObjectId, kind: Kind, size: int, pieces: Iterable[bytes]) -> None:
        """Header and bytes as one zlib stream (gitformat-loose); ChecksumMismatch unless they are those of the id."""
        vfs, digest = self._repo.vfs, self._repo.home.format.header(kind, size)
        packed = zlib.compressobj(LEVEL)
        fd = vfs.create(self._path(oid.hex()), 0o444)
        try:
            vfs.write(fd, packed.compress(b"%s %d\0" % (kind.name.lower().encode(), size)))
            for piece in pieces:
                digest.update(piece)
                vfs.write(fd, packed.compress(piece))
            vfs.write(fd, packed.flush())
        finally:
            vfs.close(fd)
        self.bytes += size
        if digest.digest() != oid:
            raise ChecksumMismatch(
                f"the stored bytes of {kind.name.lower()} {oid.hex()} are not those of its id",
                unchanged="nothing was exported",
                hint="a copy of the home, or a peer, has the bytes",
                expected=oid.hex(),
                found=digest.hexdigest(),
            )

    def _path(self, name: str) -> str:
        directory = os.path.join(self._objects, name[:2])
        if directory not in self._known_directories:
            self._repo.vfs.make_dir(directory, 0o755)
            self._known_directories.add(directory)
        return os.path.join(directory, name[2:])
