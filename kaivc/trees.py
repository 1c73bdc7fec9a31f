"""Trees as flat maps of paths: build, flatten, compare, and what makes one safe.

``Files`` maps a path in bytes, with ``/`` between its parts, to its mode and blob.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from kaivc.errors import RefusedPath, TooLarge, hit
from kaivc.layout import META_FILE
from kaivc.names import ObjectId
from kaivc.storage.gitobjects import (
    DIRECTORY,
    MAX_TREE_BYTES,
    SYMLINK,
    Entry,
    Kind,
    MalformedObject,
    ObjectSink,
    check_tree_name,
    encode_tree,
    folded,
)
from kaivc.storage.store import ObjectStore

Files = Mapping[bytes, Entry]
FLAT = 3
"""How many trees are kept flat: that of the version in force, of the next one, and of a view to link from."""
MAX_DEPTH = 128
MAX_DIRECTORIES = 1_000_000
MAX_PATH = 4096
MAX_LINK = 4096
MAX_HOPS = 40


class Change(NamedTuple):
    """What became of a path; ``old`` of None: added, ``new`` of None: removed."""

    path: bytes
    old: Entry | None
    new: Entry | None

    @property
    def status(self) -> str:
        """As git prints it: A, D, M, or T for another type."""
        if self.old is None:
            return "A"
        if self.new is None:
            return "D"
        return "M" if (self.old.mode == SYMLINK) == (self.new.mode == SYMLINK) else "T"


# ---------------------------------------------------------------- build and flatten


def build(
    sink: ObjectSink, files: Files, *, fold: bool = True, before: Mapping[bytes, ObjectId] | None = None
) -> ObjectId:
    """Add the trees of ``files``; the id of the root. ``before`` are the trees of ``directories`` of an earlier state.

    RefusedPath if a disk could not hold them; with ``fold``, also if one that folds case could not.
    """
    known = before or {}
    return _build(files, lambda path, data: sink.put(Kind.TREE, data, known.get(path)), fold=fold)


def directories(store: ObjectStore, tree: ObjectId) -> dict[bytes, ObjectId]:
    """The trees of all directories below one, by path; that of the top is ``b""``. ChecksumMismatch for a damaged one.

    Of a tree that passed ``check_size``.
    """
    found, todo = {b"": tree}, [b""]
    while todo:
        path = todo.pop()
        for name, entry in listing(store, found[path], path):
            if entry.mode == DIRECTORY:
                found[_join(path, name)] = entry.oid
                todo.append(_join(path, name))
    return found


def _build(files: Files, put: Callable[[bytes, bytes], ObjectId], *, fold: bool) -> ObjectId:
    directories: dict[bytes, dict[bytes, Entry]] = {b"": {}}
    for path, entry in files.items():
        parent, _, name = path.rpartition(b"/")
        _need_directory(directories, parent)[name] = entry
    if len(directories) > MAX_DIRECTORIES:
        raise TooLarge(f"more than {MAX_DIRECTORIES} directories", unchanged="nothing was written")
    for path in sorted(directories, key=lambda path: path.count(b"/") if path else -1, reverse=True):
        listing = directories[path]
        if fold:
            _check_listing(path, listing)
        data = encode_tree(listing.items())
        if len(data) > MAX_TREE_BYTES:
            raise TooLarge(
                f"{show(path) or 'the top directory'} holds {len(listing)} names: too many for one directory",
                unchanged="nothing was written",
                hint="spread them over several directories, or list some in .kaiignore",
                path=show(path),
            )
        oid = put(path, data)
        if not path:
            return oid
        parent, _, name = path.rpartition(b"/")
        if name in directories[parent]:
            raise RefusedPath(f"{show(path)} is both a file and a directory", path=show(path))
        directories[parent][name] = Entry(DIRECTORY, oid)
    raise AssertionError("the root is always there")


def _need_directory(directories: dict[bytes, dict[bytes, Entry]], path: bytes) -> dict[bytes, Entry]:
    found = directories.get(path)
    if found is None:
        found = directories[path] = {}
        _need_directory(directories, path.rpartition(b"/")[0])
    return found


def _check_listing(directory: bytes, names: Mapping[bytes, Entry]) -> None:
    seen: dict[str, bytes] = {}
    for name in names:
        check_tree_name(name)
        other = seen.setdefault(folded(name), name)
        if other is not name:
            first, second = sorted([show(_join(directory, other)), show(_join(directory, name))])
            raise RefusedPath(
                f"{first} and {second} are one name on a disk that folds case",
                unchanged="nothing was written",
                hint="rename one of them",
                paths=[first, second],
            )


def flatten(store: ObjectStore, tree: ObjectId) -> Files:
    """The files of a tree, in git's order of full paths; TooLarge past ``limits.max_files``."""
    found = store.flat.get(tree)
    if found is None:
        check_size(store, tree)
        found = dict(_walk(store, tree, b""))
        while len(store.flat) >= FLAT:
            del store.flat[next(iter(store.flat))]
        store.flat[tree] = found
    return found


def _walk(store: ObjectStore, tree: ObjectId, prefix: bytes) -> Iterator[tuple[bytes, Entry]]:
    for name, entry in listing(store, tree, prefix):
        if entry.mode == DIRECTORY:
            yield from _walk(store, entry.oid, prefix + name + b"/")
        else:
            yield prefix + name, entry


class Extent(NamedTuple):
    """How much lies below a directory; levels, and the bytes of the longest path."""

    files: int
    directories: int
    depth: int
    longest: int


NOTHING = Extent(0, 0, 0, 0)


def check_size(store: ObjectStore, tree: ObjectId) -> None:
    """Raise TooLarge for a tree of more than ``limits.max_files`` files, however often they share directories.

    MalformedObject if it is deeper than any disk, holds itself, or keeps the reserved name. Each distinct directory is
    read once, so that ten which hold each other ten times cost ten reads and not 10^10.
    """
    if any(name == META_FILE for name, _ in listing(store, tree, b"")):
        raise MalformedObject(f"a tree holds {show(META_FILE)}, which is made from the commit")
    _extent(store, tree, b"", {})


def _extent(store: ObjectStore, tree: ObjectId, path: bytes, known: dict[ObjectId, Extent | None]) -> Extent:
    found = known.get(tree, NOTHING)
    if found is None:
        raise MalformedObject("a tree that holds itself")
    if tree not in known:
        if path.count(b"/") > MAX_DEPTH:
            raise _too_deep()
        known[tree] = None
        for name, entry in listing(store, tree, path):
            below, own = NOTHING, (1, 0)
            if entry.mode == DIRECTORY:
                below, own = _extent(store, entry.oid, path + name + b"/", known), (0, 1)
            found = Extent(
                found.files + below.files + own[0],
                found.directories + below.directories + own[1],
                max(found.depth, below.depth + 1),
                max(found.longest, below.longest + len(name) + 1),
            )
        known[tree] = found
    _check_extent(found, path, store.settings.limits_max_files)
    return found


def _check_extent(found: Extent, path: bytes, most: int) -> None:
    if found.files > most:
        raise TooLarge(f"a tree of more than {most} files", hint="raise `limits.max_files` in .kai/config.yaml")
    if found.directories > MAX_DIRECTORIES:
        raise TooLarge(f"a tree of more than {MAX_DIRECTORIES} directories")
    if path.count(b"/") + found.depth > MAX_DEPTH + 1 or len(path) + found.longest > MAX_PATH + 1:
        raise _too_deep()


def _too_deep() -> MalformedObject:
    return MalformedObject("a tree that is deeper than any disk")


def listing(store: ObjectStore, tree: ObjectId, path: bytes) -> list[tuple[bytes, Entry]]:
    """The entries of the directory at ``path``; ChecksumMismatch that names it if it is damaged."""
    where = show(path.rstrip(b"/"))
    with hit(f"directory {where}" if where else "the top directory", path=where or "."):
        return store.tree(tree)


def find(store: ObjectStore, tree: ObjectId, path: bytes) -> Entry | None:
    """What a tree holds at a path."""
    entry = Entry(DIRECTORY, tree)
    for name in path.split(b"/"):
        if entry.mode != DIRECTORY:
            return None
        listing = dict(store.tree(entry.oid))
        if name not in listing:
            return None
        entry = listing[name]
    return entry


# ---------------------------------------------------------------- compare


def compare(old: Files, new: Files) -> list[Change]:
    """What differs, by path."""
    changed = [path for path, entry in old.items() if new.get(path) != entry]
    changed += [path for path in new if path not in old]
    return [Change(path, old.get(path), new.get(path)) for path in sorted(changed)]


def diff(store: ObjectStore, old: ObjectId | None, new: ObjectId | None) -> list[Change]:
    """What differs between two trees, by path; equal subtrees are not read. Raises what ``check_size`` does."""
    for tree in filter(None, (old, new)):
        check_size(store, tree)
    return sorted(_diff(store, old, new, b""))


def _diff(store: ObjectStore, old: ObjectId | None, new: ObjectId | None, prefix: bytes) -> Iterator[Change]:
    if old == new:
        return
    left = dict(store.tree(old)) if old else {}
    right = dict(store.tree(new)) if new else {}
    for name in left.keys() | right.keys():
        one, two = left.get(name), right.get(name)
        if one == two:
            continue
        path = prefix + name
        one_tree = one.oid if one and one.mode == DIRECTORY else None
        two_tree = two.oid if two and two.mode == DIRECTORY else None
        if one_tree or two_tree:
            yield from _diff(store, one_tree, two_tree, path + b"/")
        one_file = None if one_tree else one
        two_file = None if two_tree else two
        if one_file or two_file:
            yield Change(path, one_file, two_file)


# ---------------------------------------------------------------- safety


def check_links(files: Files, target_of: Callable[[ObjectId], bytes]) -> None:
    """Refuse symbolic links that are absolute, or that lead out of the tree on any way through it."""
    links = {path: target_of(entry.oid) for path, entry in files.items() if entry.mode == SYMLINK}
    ends: dict[bytes, list[bytes] | None] = {}
    for path in links:
        ends[path] = _follow(path, links, ends)


def _follow(path: bytes, links: Mapping[bytes, bytes], ends: Mapping[bytes, list[bytes] | None]) -> list[bytes] | None:
    """Resolve a link part by part, as a kernel would, within the tree; where it ends, None if nowhere.

    ``ends`` are those of links that were resolved before.
    """
    at: list[bytes] = []
    todo = path.split(b"/")[::-1]
    hops = 0
    while todo:
        part = todo.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not at:
                raise _refused_link(path, links[path], "leads out of the agent")
            at.pop()
            continue
        at.append(part)
        target = links.get(b"/".join(at))
        if target is None:
            continue
        if (known := b"/".join(at)) in ends:
            end = ends[known]
            if end is None:
                return None
            at = list(end)
            continue
        hops += 1
        if target.startswith(b"/") or not target or len(target) > MAX_LINK or b"\0" in target:
            raise _refused_link(path, target, "is absolute, empty or overlong")
        if hops > MAX_HOPS:
            return None  # A loop stays inside, and the kernel refuses to follow it.
        at.pop()
        todo += target.split(b"/")[::-1]
    return at


def _refused_link(path: bytes, target: bytes, why: str) -> RefusedPath:
    return RefusedPath(
        f"the symbolic link {show(path)} -> {show(target)} {why}",
        unchanged="nothing was written",
        hint="make it relative and let it stay within the agent, or list it in .kaiignore",
        path=show(path),
    )


def show(path: bytes) -> str:
    """A path for people: what is not printable UTF-8 is escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
