"""Read git's packs as they come over a wire: entry by entry, in pieces, with nothing believed.

Format: https://git-scm.com/docs/gitformat-pack. An entry is an object, or a delta: instructions that make it of another
one. Contents are inflated in pieces of at most ``PIECE`` bytes, deltas are applied to whatever gives ranges of a base,
so that memory does not follow what a header says. Everything wrong raises ``BadPack``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from kaivc.errors import ChecksumMismatch
from kaivc.storage.gitobjects import Kind, ObjectFormat

PIECE = 64 << 10
"""Bytes that are inflated, or copied by a delta, at once."""
OFS_DELTA, REF_DELTA = 6, 7
TYPES = {1: Kind.COMMIT, 2: Kind.TREE, 3: Kind.BLOB, 4: Kind.TAG}
"""By git's numbers, which are not those of our records."""
HEAD = struct.Struct(">4sLL")
VERSIONS = (2, 3)
_FEW = 512
_SEVEN = 0x7F
_MORE = 0x80
_MAX_SHIFT = 63

Read = Callable[[int], bytes]
"""Gives at most so many bytes; none at the end only."""


class BadPack(ChecksumMismatch):
    """Bytes that are no git pack, or one that promises something else than it holds."""


class PackEntry(NamedTuple):
    """The head of an entry: where it begins, the type in it, and the size of what is inflated.

    ``base`` is the offset (OFS_DELTA) or the id (REF_DELTA) of what a delta is applied to.
    """

    offset: int
    kind: int
    size: int
    base: int | bytes | None


class PackStream:
    """A pack as it arrives: ``entry()`` as often as ``count`` says, each with its ``contents``, then ``finish()``."""

    def __init__(self, read: Read, object_format: ObjectFormat, most: int) -> None:
        """``most`` is how many bytes the pack may have."""
        self._read = read
        self._format = object_format
        self._digest = object_format.new()
        self._most = most
        self._buffer = b""
        self._at = 0
        self._before = 0  # bytes of the pack that lie before the buffer
        magic, version, self.count = HEAD.unpack(self._take(HEAD.size))
        if magic != b"PACK" or version not in VERSIONS:
            raise BadPack("what comes is no git pack")

    @property
    def offset(self) -> int:
        """How far the pack has been read."""
        return self._before + self._at

    # ------------------------------------------------------------ bytes

    def _more(self) -> None:
        """Have at least one more byte behind those that are there."""
        self._digest.update(memoryview(self._buffer)[: self._at])
        self._before += self._at
        new = self._read(PIECE)
        if not new:
            raise BadPack(f"a git pack ends after {self._before + len(self._buffer) - self._at} bytes, within an entry")
        self._buffer, self._at = self._buffer[self._at :] + new, 0
        if self._before + len(self._buffer) > self._most:
            raise BadPack(f"a git pack of more than {self._most} bytes")

    def _byte(self) -> int:
        if self._at == len(self._buffer):
            self._more()
        self._at += 1
        return self._buffer[self._at - 1]

    def _take(self, count: int) -> bytes:
        while len(self._buffer) - self._at < count:
            self._more()
        self._at += count
        return self._buffer[self._at - count : self._at]

    # ------------------------------------------------------------ entries

    def entry(self) -> PackEntry:
        """The head of the next entry; its ``contents`` must be read before the one after it."""
        offset, byte = self.offset, self._byte()
        kind, size, shift = byte >> 4 & 7, byte & 15, 4
        while byte & _MORE:
            byte = self._byte()
            size |= (byte & _SEVEN) << shift
            shift += 7
            if shift > _MAX_SHIFT:
                raise BadPack(f"the size at byte {offset} of a git pack has no end")
        base: int | bytes | None = None
        if kind == OFS_DELTA:
            base = offset - self._distance(offset)
        elif kind == REF_DELTA:
            base = self._take(self._format.width)
        elif kind not in TYPES:
            raise BadPack(f"an entry of type {kind} at byte {offset} of a git pack")
        return PackEntry(offset, kind, size, base)

    def _distance(self, offset: int) -> int:
        byte = self._byte()
        found = byte & _SEVEN
        while byte & _MORE:
            byte = self._byte()
            found = (found + 1 << 7) | (byte & _SEVEN)
            if found > offset:
                break
        if not 0 < found <= offset - HEAD.size:
            raise BadPack(f"a delta at byte {offset} of a git pack is of something before it")
        return found

    def contents(self, entry: PackEntry) -> Iterator[bytes]:
        """What an entry inflates to, in pieces; BadPack unless that has the size that its head says."""
        inflater = zlib.decompressobj()
        left = entry.size
        while not inflater.eof:
            data = inflater.unconsumed_tail or self._some(left)
            try:
                piece = inflater.decompress(data, min(PIECE, left + 1))
            except zlib.error as error:
                raise BadPack(f"the entry at byte {entry.offset} of a git pack cannot be inflated") from error
            left -= len(piece)
            if left < 0:
                raise BadPack(
                    f"the entry at byte {entry.offset} of a git pack holds more than the {entry.size} bytes said"
                )
            if piece:
                yield piece
        self._at -= len(inflater.unused_data)
        if left:
            raise BadPack(f"the entry at byte {entry.offset} of a git pack holds {left} bytes less than said")

    def _some(self, size: int) -> bytes:
        """Bytes for the inflater, few for a small object: what it does not use is copied."""
        if self._at == len(self._buffer):
            self._more()
        data = self._buffer[self._at : self._at + max(_FEW, min(size, PIECE))]
        self._at += len(data)
        return data

    def finish(self) -> None:
        """Read the checksum at the end; BadPack unless it is right, and the last."""
        self._digest.update(memoryview(self._buffer)[: self._at])
        self._buffer, self._before, self._at = self._buffer[self._at :], self._before + self._at, 0
        said = b""
        hashed, self._digest = self._digest, self._format.new()  # what is read from here on is not in it
        said = self._take(self._format.width)
        if said != hashed.digest():
            raise BadPack("the checksum at the end of a git pack is not that of its bytes")
        if self._at != len(self._buffer) or self._read(1):
            raise BadPack("there is more behind the end of a git pack")


# ---------------------------------------------------------------- deltas


class Base(Protocol):
    """What a delta is applied to."""

    @property
    def size(self) -> int:
        """Its bytes."""

    def range(self, start: int, count: int) -> bytes:
        """Some of them; the range lies within it."""


class WholeBase:
    """A base that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self._data)

    def range(self, start: int, count: int) -> bytes:
        """Some of them."""
        return self._data[start : start + count]


class Delta:
    """Instructions, read as they come: the size of the base and of what they make are known first."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._at = 0
        self.base_size = self._number()
        self.size = self._number()

    def apply(self, base: Base) -> Iterator[bytes]:
        """What they make of a base, in pieces; BadPack unless it has the size that they say."""
        if base.size != self.base_size:
            raise BadPack(f"a delta for a base of {self.base_size} bytes is given one of {base.size}")
        left = self.size
        while self._is_more():
            code = self._byte()
            if code & _MORE:
                start, count = self._copy(code)
                if start + count > base.size:
                    raise BadPack("a delta copies from beyond the end of its base")
            elif code:
                start, count = -1, code
            else:
                raise BadPack("a delta holds an instruction that there is not")
            left -= count
            if left < 0:
                raise BadPack("a delta makes more than it says")
            if start < 0:
                yield self._take(count)
                continue
            for at in range(start, start + count, PIECE):
                yield base.range(at, min(PIECE, start + count - at))
        if left:
            raise BadPack("a delta makes less than it says")

    def _copy(self, code: int) -> tuple[int, int]:
        start = count = 0
        for bit in range(4):
            if code & 1 << bit:
                start |= self._byte() << 8 * bit
        for bit in range(3):
            if code & 16 << bit:
                count |= self._byte() << 8 * bit
        return start, count or 0x10000

    def _number(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & _SEVEN) << shift
            shift += 7
            if not byte & _MORE:
                return found
            if shift > _MAX_SHIFT:
                raise BadPack("a size in a delta has no end")

    # ------------------------------------------------------------ bytes

    def _is_more(self) -> bool:
        while self._at == len(self._buffer):
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._buffer, self._at = piece, 0
        return True

    def _byte(self) -> int:
        if not self._is_more():
            raise BadPack("a delta ends within an instruction")
        self._at += 1
        return self._buffer[self._at - 1]

    def _take(self, count: int) -> bytes:
        data = self._buffer[self._at : self._at + count]
        self._at += len(data)
        while len(data) < count:
            if not self._is_more():
                raise BadPack("a delta ends within an instruction")
            more = self._buffer[self._at : self._at + count - len(data)]
            self._at += len(more)
            data += more
        return data
