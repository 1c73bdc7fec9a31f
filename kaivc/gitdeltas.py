"""A large blob as git's delta of another one: the chunks that both hold are copied, the others are inserted.

Which chunks a blob has is known before any of them is read, and so is the size of its delta: it goes by in pieces, as
the blob itself would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from kaivc.records import dataclass
from kaivc.storage.chunking import Listing
from kaivc.storage.index import ObjectRow
from kaivc.storage.pack import RecordKind
from kaivc.storage.store import ObjectStore

REF_DELTA = 7
MOST = 512 << 20
"""Bytes of the largest blob that goes as a delta: git makes it in memory, and goes by this bound itself."""
DEEPEST = 50
"""Deltas in a row, as git makes them."""
WORTH = 2
"""A delta is made where it copies at least one part in so many."""
MOST_CHUNKS = 200_000
"""Chunks whose places are kept in mind."""
MAX_COPY = 0xFFFF00
MAX_INSERT = 127


@dataclass(frozen=True)
class BlobDelta:
    """What makes a blob of ``base``: ranges of it (start, count), and ids of chunks; ``length`` is the delta's own."""

    base: bytes
    head: bytes
    steps: tuple[tuple[int, int] | bytes, ...]
    length: int

    def pieces(self, store: ObjectStore) -> Iterator[bytes]:
        """The delta's bytes."""
        yield self.head
        for step in self.steps:
            if isinstance(step, tuple):
                yield _copies(*step)
            else:
                yield _inserts(store.record(store.require(step)))


class Deltas:
    """Finds a base for each large blob of a pack among those that went before it, or that the other side has."""

    def __init__(self, store: ObjectStore, known: Iterable[ObjectRow] = ()) -> None:
        self._store = store
        self._places: dict[bytes, tuple[bytes, int]] = {}
        self._depths: dict[bytes, int] = {}
        self._sizes: dict[bytes, int] = {}
        for row in known:
            if _fits(row):
                self._note(row, store.chunk_list(row), 0)

    def of(self, row: ObjectRow) -> BlobDelta | None:
        """How a blob goes as a delta; None if it is to go whole. From here on it may be a base itself."""
        if not _fits(row):
            return None
        listing = self._store.chunk_list(row)
        shared: Counter[bytes] = Counter()
        for chunk, size in listing:
            if chunk in self._places:
                shared[self._places[chunk][0]] += size
        base, copied = shared.most_common(1)[0] if shared else (b"", 0)
        found = None
        if copied * WORTH >= row.size and self._depths[base] < DEEPEST:
            found = self._against(base, row, listing)
        self._note(row, listing, 0 if found is None else self._depths[base] + 1)
        return found

    def _against(self, base: bytes, row: ObjectRow, listing: Listing) -> BlobDelta:
        steps: list[tuple[int, int] | bytes] = []
        length = 0
        for chunk, size in listing:
            of, start = self._places.get(chunk, (b"", 0))
            if of != base:
                steps.append(chunk)
                length += size + -(-size // MAX_INSERT)
            elif steps and isinstance(before := steps[-1], tuple) and sum(before) == start:
                steps[-1] = (before[0], before[1] + size)
            else:
                steps.append((start, size))
        head = _number(self._sizes[base]) + _number(row.size)
        length += len(head) + sum(len(_copies(*step)) for step in steps if isinstance(step, tuple))
        return BlobDelta(base, head, tuple(steps), length)

    def _note(self, row: ObjectRow, listing: Listing, depth: int) -> None:
        if len(self._places) + len(listing) > MOST_CHUNKS:
            self._places.clear()
        at = 0
        for chunk, size in listing:
            self._places[chunk] = (row.id, at)
            at += size
        self._depths[row.id] = depth
        self._sizes[row.id] = row.size


def _fits(row: ObjectRow) -> bool:
    return row.kind == RecordKind.CHUNK_LIST and row.size <= MOST


def _number(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits each
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _copies(start: int, count: int) -> bytes:
    """The instructions to copy a range; bytes that are 0 are left out, and a size of 0 would mean 64 KiB."""
    found = bytearray()
    while count:
        part = min(count, MAX_COPY)
        code, numbers = 0x80, bytearray()
        for bit, byte in enumerate(start.to_bytes(4, "little") + part.to_bytes(3, "little")):
            if byte:
                code |= 1 << bit
                numbers.append(byte)
        found.append(code)
        found += numbers
        start, count = start + part, count - part
    return bytes(found)


def _inserts(data: bytes) -> bytes:
    return b"".join(
        len(part).to_bytes(1, "big") + part
        for part in (data[at : at + MAX_INSERT] for at in range(0, len(data), MAX_INSERT))
    )
