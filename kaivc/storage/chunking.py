"""Where a large blob is cut, and the ids of its pieces.

FastCDC (Xia et al., USENIX ATC 2016): an insertion in the middle of a blob moves the boundaries with it, so the
chunks around it are found again. A database is cut at every 64 KiB instead: it is changed page by page, in place.

A blob that another one comes before is cut where that one was, as long as the bytes between two boundaries still have
the id that they had. Bytes are equal when their BLAKE3 is: docs/design/decisions/0007-chunk-ids.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol

MIN_CHUNK = 16 << 10
AVERAGE_CHUNK = 128 << 10
MAX_CHUNK = 256 << 10
PAGES = 64 << 10
"""Bytes of each piece of a database."""
DATABASE = b"SQLite format 3\0"
"""How a file begins that is cut at every ``PAGES``; the size of a page is a power of two."""
AHEAD = 4
"""After how many changed chunks an old boundary is looked for in its old place."""
MARGIN = 2 * MAX_CHUNK
"""Bytes that are in memory beyond where a piece begins, unless the source ends before."""
WINDOW = 2 << 20

Listing = Sequence[tuple[bytes, int]]
"""The (id, size) of each chunk of a large blob."""


class Source(Protocol):
    """Something that bytes are read from. One that has ``readinto``, as files have, is read without a copy."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; empty at the end."""


class Piece(NamedTuple):
    """A chunk; ``data`` is good until the next batch, ``like`` the id of the old chunk in whose place it stands."""

    id: bytes
    data: memoryview
    like: bytes | None
    is_old: bool


@lru_cache(maxsize=1)
def _hasher() -> Callable[[bytes | memoryview], bytes]:
    from blake3 import blake3  # noqa: PLC0415 - what only a large blob needs

    return lambda data: blake3(data).digest()


def _cutter() -> Callable[[memoryview], int]:
    """The length of the next chunk; one for each blob, for two threads must not use the same."""
    from pyfastcdc import FastCDC  # noqa: PLC0415 - 20 ms that only a large blob needs

    cut = FastCDC(avg_size=AVERAGE_CHUNK, min_size=MIN_CHUNK, max_size=MAX_CHUNK).cut_buf
    return lambda data: int(next(iter(cut(data))).length)


def chunk_id(data: bytes | memoryview) -> bytes:
    """The id of a chunk: its BLAKE3, 32 bytes."""
    return _hasher()(data)


@lru_cache(maxsize=1)
def zeros_id() -> bytes:
    """The id of the chunk that a long run of zeros is cut into."""
    return chunk_id(bytes(MAX_CHUNK))


def fill(source: Source, room: memoryview) -> int:
    """Read into ``room`` until it is full or the source ends; how many bytes."""
    into = getattr(source, "readinto", None)
    at = 0
    while at < len(room):
        if into is not None:
            count = into(room[at:])
        else:
            data = source.read(len(room) - at)
            count = len(data)
            room[at : at + count] = data
        if not count:
            break
        at += count
    return at


def cut(source: Source, old: Listing = (), took: Callable[[memoryview], object] | None = None) -> Iterator[list[Piece]]:
    """Cut what ``source`` gives, in batches; memory is bounded by ``WINDOW``.

    ``old`` is how the blob before was cut. ``took`` is given all bytes, in order, each once.
    """
    buffer = memoryview(bytearray(WINDOW))
    walk: _Walk | None = None
    start = end = 0
    ended = False
    while not ended or start < end:
        kept = end - start
        buffer[:kept] = buffer[start:end]
        count = fill(source, buffer[kept:])
        if took is not None and count:
            took(buffer[kept : kept + count])
        start, end = 0, kept + count
        ended = end < WINDOW
        if walk is None:
            walk = _Walk(old, fixed=buffer[: min(end, len(DATABASE))] == DATABASE)
        pieces: list[Piece] = []
        while end - start >= (1 if ended else MARGIN):
            start = walk.step(buffer, start, end, pieces, ended=ended)
        if pieces:
            yield pieces


class _Walk:
    """Goes along a blob and along how the one before was cut."""

    def __init__(self, old: Listing, *, fixed: bool) -> None:
        self._fixed = fixed
        self._old = () if fixed and any(size != PAGES for _, size in old[:-1]) else old
        self._first = {id_: number for number, (id_, _) in reversed(list(enumerate(self._old)))}
        self._at = 0  # the old chunk that is next,
        self._past = 0  # and how far the blob is past its start, as if nothing had been inserted

    @cached_property
    def _cutter(self) -> Callable[[memoryview], int]:
        return _cutter()

    def step(self, buffer: memoryview, start: int, end: int, pieces: list[Piece], *, ended: bool) -> int:
        """Add the piece that begins at ``start``, or some; where the bytes after them begin."""
        if self._past or not self._may_keep(self._at, start, end, ended=ended):
            return self._cut(buffer, start, end, pieces)
        id_, size = self._old[self._at]
        data = buffer[start : start + size]
        found = chunk_id(data)
        if found == id_:
            pieces.append(Piece(id_, data, None, True))
            self._at += 1
            return start + size
        changed = 1 if self._fixed else self._changed(buffer, start, end, ended=ended)
        if not changed:
            return self._cut(buffer, start, end, pieces)
        pieces.append(Piece(found, data, id_, False))
        start += size
        for id_, size in self._old[self._at + 1 : self._at + changed]:
            data = buffer[start : start + size]
            pieces.append(Piece(chunk_id(data), data, id_, False))
            start += size
        self._at += changed
        return start

    def _may_keep(self, number: int, start: int, end: int, *, ended: bool) -> bool:
        """Whether an old chunk may end where it did: the end of the old blob is no boundary, unless it is one again."""
        if number >= len(self._old):
            return False
        size = self._old[number][1]
        if number == len(self._old) - 1:
            return ended and start + size == end
        return size >= MIN_CHUNK and start + size <= end

    def _changed(self, buffer: memoryview, start: int, end: int, *, ended: bool) -> int:
        """How many old chunks were changed in place; 0 if none of the next is where it was."""
        for number in range(self._at, self._at + AHEAD):
            start += self._old[number][1]
            if not self._may_keep(number + 1, start, end, ended=ended):
                return 0
            id_, size = self._old[number + 1]
            if chunk_id(buffer[start : start + size]) == id_:
                return number + 1 - self._at
        return 0

    def _cut(self, buffer: memoryview, start: int, end: int, pieces: list[Piece]) -> int:
        """Add a piece that is cut by what it holds."""
        most = buffer[start : min(end, start + MAX_CHUNK)]
        size = min(PAGES, len(most)) if self._fixed else self._cutter(most)
        data = most[:size]
        found = chunk_id(data)
        known = self._first.get(found)
        if known is not None:
            pieces.append(Piece(found, data, None, True))
            self._at, self._past = known + 1, 0
            return start + size
        like = self._old[self._at][0] if self._at < len(self._old) else None
        pieces.append(Piece(found, data, like, False))
        self._past += size
        while self._at < len(self._old) and self._past >= self._old[self._at][1]:
            self._past -= self._old[self._at][1]
            self._at += 1
        return start + size
