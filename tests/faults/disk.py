"""What a disk may hold when the power goes: every choice of what was not synced.

A write that no sync followed may be there, be gone, read as zeros, or be there in part. A change of names that no
sync of its directory followed may be there or not; a rename is one change, as on every journaling file system. A
sync of a file says nothing of its name.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.faults.recording import Entries, Made, Moded, Said, Sized, Step, Synced, Transacted, Written

KEPT, GONE, ZEROED, TORN = "kept", "gone", "zeroed", "torn"
SECTOR = 512


@dataclass
class Node:
    """A file, directory or link, as it is on the disk, and what is on its way there."""

    kind: str
    target: bytes
    mode: int
    data: bytes = b""
    names: dict[bytes, int] = field(default_factory=dict)
    pending: list[Written | Sized] = field(default_factory=list)
    states: list[bytes] = field(default_factory=list)  # of a catalog: the last durable one and those after it


@dataclass(frozen=True)
class Image:
    """One disk state: what is at each path below the root; ``step`` and ``choice`` say how it came to be."""

    files: dict[bytes, tuple[str, bytes, int]]
    step: int
    choice: str

    @property
    def key(self) -> bytes:
        """Equal for equal contents."""
        digest = hashlib.blake2b(digest_size=12)
        for path, (kind, data, mode) in sorted(self.files.items()):
            digest.update(b"%s\0%s\0%o\0%d\0" % (path, kind.encode(), mode, len(data)))
            digest.update(data)
        return digest.digest()

    def write(self, root: str) -> None:
        """Make ``root``, which is absent, hold this image."""
        os.mkdir(root, 0o700)
        base = os.fsencode(root)
        directories = []
        for path, (kind, data, mode) in sorted(self.files.items()):
            full = os.path.join(base, path)
            if kind == "directory":
                os.mkdir(full, 0o700)
                directories.append((full, mode))
            elif kind == "link":
                os.symlink(data, full)
            else:
                fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                os.write(fd, data)
                os.fchmod(fd, mode)
                os.close(fd)
        for full, mode in reversed(directories):
            os.chmod(full, mode)


class Disk:
    """Replays a log up to any step."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.nodes: dict[int, Node] = {top: Node("directory", b"", 0o700)}
        self.changes: list[Entries] = []
        self.said: list[str] = []

    def play(self, step: Step) -> None:  # noqa: C901 - one case for each kind of step
        """One step further."""
        match step:
            case Made(node, kind, target, mode):
                self.nodes[node] = Node(kind, target, mode)
            case Entries():
                self.changes.append(step)
            case Written(node) | Sized(node):
                self.nodes[node].pending.append(step)
            case Moded(node, mode):
                self.nodes[node].mode = mode
            case Transacted(node, data, durable):
                kept = [] if durable else self.nodes[node].states
                self.nodes[node].states = [*kept, data]
            case Said(what):
                self.said.append(what)
            case Synced(None):
                self._settle(self.changes)
                for each in self.nodes.values():
                    _flush(each)
            case Synced(node):
                if node is not None:
                    _flush(self.nodes[node])
                    self._settle([change for change in self.changes if any(it[0] == node for it in change.changes)])

    def _settle(self, changes: Sequence[Entries]) -> None:
        for change in changes:
            _rename(self.nodes, change)
        self.changes = [change for change in self.changes if change not in changes]

    # ------------------------------------------------------------ choices

    @property
    def writes(self) -> list[tuple[int, int]]:
        """(node, number) of each write that is on its way, of files that some choice gives a name."""
        return [(node, at) for node, each in self.nodes.items() for at in range(len(each.pending))]

    def image(
        self,
        step: int,
        choice: str,
        write: Callable[[tuple[int, int]], str],
        change: Callable[[int], bool],
        catalog: int = -1,
    ) -> Image:
        """The disk with one choice made for everything that is on its way."""
        names = {node: dict(each.names) for node, each in self.nodes.items() if each.kind == "directory"}
        there = _below(names, self.top)
        for number, entries in enumerate(self.changes):
            # Into a directory that did not come to be nothing can have gone: no journal has it so.
            if change(number) and all(it[0] in there for it in entries.changes if it[2] is not None):
                for directory, name, node in entries.changes:
                    _put(names[directory], name, node)
                    if node in names:
                        there |= _below(names, node)
        files: dict[bytes, tuple[str, bytes, int]] = {}
        contents: dict[int, bytes] = {}

        def walk(directory: int, prefix: bytes, above: frozenset[int]) -> None:
            for name, number in names[directory].items():
                node = self.nodes[number]
                if node.kind == "directory":
                    if number in above:
                        continue
                    files[prefix + name] = ("directory", b"", node.mode)
                    walk(number, prefix + name + b"/", above | {number})
                    continue
                if number not in contents:
                    contents[number] = self._content(number, node, write, catalog)
                files[prefix + name] = (node.kind, contents[number], node.mode)

        walk(self.top, b"", frozenset([self.top]))
        return Image(files, step, choice)

    def _content(self, number: int, node: Node, write: Callable[[tuple[int, int]], str], catalog: int) -> bytes:
        if node.kind == "link":
            return node.target
        if node.states:
            return node.states[max(catalog, -len(node.states))]
        if not node.pending:
            return node.data
        data = bytearray(node.data)
        for at, step in enumerate(node.pending):
            _apply(data, step, write((number, at)))
        return bytes(data)


def _below(names: dict[int, dict[bytes, int]], top: int) -> set[int]:
    """A directory and all directories in it."""
    found, todo = {top}, [top]
    while todo:
        inside = {node for node in names[todo.pop()].values() if node in names} - found
        found |= inside
        todo += inside
    return found


def _flush(node: Node) -> None:
    data = bytearray(node.data)
    for step in node.pending:
        _apply(data, step, KEPT)
    node.data, node.pending = bytes(data), []


def _apply(data: bytearray, step: Written | Sized, how: str) -> None:
    if how == GONE:
        return
    if isinstance(step, Sized):
        del data[step.size :]
        data.extend(bytes(step.size - len(data)))
        return
    new = step.data
    if how == ZEROED:
        new = bytes(len(new))
    elif how == TORN:
        new = new[: max(len(new) // 2 // SECTOR * SECTOR, len(new) // 2 if len(new) < 2 * SECTOR else 0)]
    end = step.offset + len(new)
    if len(data) < end:
        data.extend(bytes(end - len(data)))
    data[step.offset : end] = new


def _put(names: dict[bytes, int], name: bytes, node: int | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _rename(nodes: dict[int, Node], entries: Entries) -> None:
    for directory, name, node in entries.changes:
        _put(nodes[directory].names, name, node)


def images(disk: Disk, step: int, rng: random.Random, more: int = 8) -> Iterator[Image]:
    """The states that a power cut may leave after ``step``: each single deviation from all and from nothing, and
    beyond them every one, or ``more`` drawn at random where there are more than that."""
    writes, changes = disk.writes, range(len(disk.changes))
    states = max((len(node.states) for node in disk.nodes.values()), default=0)
    for catalog in range(-1, -max(states, 1) - 1, -1):
        yield disk.image(step, f"all, catalog {catalog}", lambda _: KEPT, lambda _: True, catalog)
        yield disk.image(step, f"nothing, catalog {catalog}", lambda _: GONE, lambda _: False, catalog)
        yield disk.image(step, f"names only, catalog {catalog}", lambda _: GONE, lambda _: True, catalog)
        yield disk.image(step, f"bytes only, catalog {catalog}", lambda _: KEPT, lambda _: False, catalog)
    for one, how in itertools.product(writes, (GONE, ZEROED, TORN)):
        yield disk.image(step, f"{one} {how}", lambda it, one=one, how=how: how if it == one else KEPT, lambda _: True)  # type: ignore[misc]
    for one in writes:
        yield disk.image(step, f"only {one}", lambda it, one=one: KEPT if it == one else GONE, lambda _: True)  # type: ignore[misc]
    for change in changes:
        yield disk.image(step, f"not name {change}", lambda _: KEPT, lambda it, one=change: it != one)  # type: ignore[misc]
        yield disk.image(step, f"only name {change}", lambda _: KEPT, lambda it, one=change: it == one)  # type: ignore[misc]
    if len(writes) + len(changes) + states <= 1:
        return
    ways = (KEPT, GONE, ZEROED, TORN)
    if len(ways) ** len(writes) * 2 ** len(changes) * max(states, 1) <= more:
        fates, names = (
            itertools.product(ways, repeat=len(writes)),
            itertools.product((True, False), repeat=len(changes)),
        )
        for number, (fate, name, catalog) in enumerate(itertools.product(fates, names, range(1, max(states, 1) + 1))):
            every = dict(zip(writes, fate, strict=True)), dict(zip(changes, name, strict=True))
            yield _drawn(disk, step, f"number {number} of all", *every, -catalog)
        return
    for number in range(more):
        chosen = {one: rng.choice((KEPT, KEPT, GONE, ZEROED, TORN)) for one in writes}
        named = {one: rng.random() < 0.6 for one in changes}
        yield _drawn(disk, step, f"random {number}", chosen, named, -rng.randint(1, max(states, 1)))


def _drawn(
    disk: Disk, step: int, name: str, chosen: dict[tuple[int, int], str], named: dict[int, bool], catalog: int
) -> Image:
    return disk.image(step, name, lambda it: chosen[it], lambda it: named[it], catalog)
