"""Records that are encoded with another one: which base a new one takes, and how contents are read through bases.

Versions of one thing make a chain of up to ``CHAIN`` records. Record n has as base the one at n with its lowest octal
digit that is not 0 made one less (a skip-delta), so that at most 14 bases lie below any record. A base is named by id,
never by place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from kaivc.errors import ChecksumMismatch
from kaivc.storage.pack import CHAIN, MAX_BASE, Header, PackReader, RecordKind

KEPT = 8 << 20
"""Bytes of contents that are kept decoded."""
SMALLEST = 64
"""Bytes of content below which a base does not pay: its id alone takes half as many."""


def weight(ordinal: int) -> int:
    """How many bases lie below a record of this ordinal, at most: the sum of its two octal digits."""
    return (ordinal >> 3) + (ordinal & 7)


DEEPEST = weight(CHAIN - 1) + 1
"""So many steps lead out of any chain that is as it must be."""


class Found(NamedTuple):
    """The checked head of a record, and what opens its pack, which may have been closed meanwhile.

    ``record`` are its bytes, if they have been read; ``content`` is that of an object in a block.
    """

    header: Header
    reader: Callable[[], PackReader]
    record: bytes = b""
    content: bytes | None = None


class Contents:
    """Contents of records by id, those used last, up to a bound in bytes.

    Those that are ``proven`` have been hashed: new records may be encoded with them.
    """

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._size = 0
        self._kept: OrderedDict[bytes, tuple[bytes, bool]] = OrderedDict()

    def get(self, oid: bytes, *, proven: bool = False) -> bytes | None:
        """The content of a record, if it is at hand."""
        found = self._kept.get(oid)
        if found is None or (proven and not found[1]):
            return None
        self._kept.move_to_end(oid)
        return found[0]

    def put(self, oid: bytes, data: bytes, *, proven: bool = False) -> None:
        """Keep a content for a while; one that is larger than any base is not."""
        if len(data) > MAX_BASE:
            return
        before = self._kept.pop(oid, None)
        if before is not None:
            self._size -= len(before[0])
            if before[1] and not proven:
                data, proven = before
        self._kept[oid] = (data, proven)
        self._size += len(data)
        while self._size > self._most:
            self._size -= len(self._kept.popitem(last=False)[1][0])

    def clear(self) -> None:
        """Forget all: what is read next comes from the disk."""
        self._kept.clear()
        self._size = 0


def decode(found: Found, look: Callable[[bytes], Found], known: Contents) -> bytes:
    """The content of a record; ``look`` finds a base by its id, or raises ChecksumMismatch.

    Memory is bounded by the record and two bases; ChecksumMismatch for bases that cannot be.
    """
    chain, content = [found], None
    while (base := chain[-1].header.base) is not None:
        content = known.get(base)
        if content is not None:
            break
        below = look(base)
        require_base(chain[-1].header, below.header)
        chain.append(below)
    for it in reversed(chain):
        content = it.reader().payload(it.header, content, it.record) if it.content is None else it.content
        if it is not found:
            known.put(it.header.id, content)
    if content is None:
        raise AssertionError("a chain has at least one record")
    return content


def require_base(record: Header, base: Header) -> None:
    """Raise ChecksumMismatch unless one record may be encoded with the other.

    The weights of ordinals fall from one to the next, so that no chain is longer than the largest, or comes back.
    """
    why = ""
    if weight(base.ordinal) >= weight(record.ordinal):
        why = f"has the ordinal {base.ordinal}, it itself {record.ordinal}"
    elif base.size > MAX_BASE:
        why = f"has {base.size} bytes"
    elif not suits(record.kind, base.kind):
        why = "is of another kind"
    if why:
        raise ChecksumMismatch(
            f"record {record.id.hex()} is encoded with {base.id.hex()}, which {why}",
            unchanged="nothing was written",
            hint="see what is hit with `kai verify`; a copy of the home, or a peer, has the bytes",
            object=record.id.hex(),
            base=base.id.hex(),
        )


def suits(kind: int, base: int) -> bool:
    """Whether a record of one kind may be encoded with one of the other.

    A blob's id says which bytes it has; as a list of chunks the same id stands for other bytes.
    """
    return (kind == RecordKind.CHUNK_LIST) == (base == RecordKind.CHUNK_LIST) and base <= RecordKind.CHUNK_LIST


class Link(NamedTuple):
    """What is known of a stored record that may be a base."""

    id: bytes
    kind: int
    size: int
    base: bytes | None
    ordinal: int


def choose(like: bytes, link: Callable[[bytes], Link | None]) -> tuple[Link, int] | None:
    """The base of the record that comes after ``like`` in its chain, and the new one's ordinal; None for none."""
    at = link(like)
    if at is None or at.ordinal + 1 >= CHAIN:
        return None
    ordinal = at.ordinal + 1
    for _ in range(DEEPEST):
        if weight(at.ordinal) < weight(ordinal):
            return at, ordinal
        below = link(at.base) if at.base is not None else None
        if below is None:
            return None
        at = below
    return None
