"""Git packs made by hand, honest or not."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable

COMMIT, TREE, BLOB, TAG, OFS, REF = 1, 2, 3, 4, 6, 7
TYPES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}


def head(kind: int, size: int) -> bytes:
    """The type and the size of an entry."""
    found, size = bytearray([kind << 4 | size & 15]), size >> 4
    while size:
        found[-1] |= 0x80
        found.append(size & 0x7F)
        size >>= 7
    return bytes(found)


def number(value: int) -> bytes:
    """A size in a delta."""
    found = bytearray()
    while True:
        found.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(found)


def distance(value: int) -> bytes:
    """How far back the base of an OFS delta lies."""
    found = [value & 0x7F]
    while value := value >> 7:
        value -= 1
        found.append(0x80 | value & 0x7F)
    return bytes(reversed(found))


def entry(kind: int, data: bytes, said: int | None = None) -> bytes:
    """A whole object; ``said`` is the size that its head says."""
    return head(kind, len(data) if said is None else said) + zlib.compress(data)


def ofs_delta(back: int, delta: bytes) -> bytes:
    """A delta of the entry that begins so many bytes before."""
    return head(OFS, len(delta)) + distance(back) + zlib.compress(delta)


def ref_delta(base: bytes, delta: bytes) -> bytes:
    """A delta of an object by its id."""
    return head(REF, len(delta)) + base + zlib.compress(delta)


def copy(start: int, count: int) -> bytes:
    """The instruction to copy a range, with all of its bytes."""
    return b"\xff" + struct.pack("<I", start) + struct.pack("<I", count)[:3]


def insert(data: bytes) -> bytes:
    """The instructions to insert some bytes."""
    return b"".join(bytes([len(data[at : at + 127])]) + data[at : at + 127] for at in range(0, len(data), 127))


def delta(base: int, makes: int, *instructions: bytes) -> bytes:
    """Instructions behind both sizes."""
    return number(base) + number(makes) + b"".join(instructions)


def pack(entries: Iterable[bytes], object_format: str, count: int | None = None, version: int = 2) -> bytes:
    """A pack with a good checksum."""
    listed = list(entries)
    data = struct.pack(">4sLL", b"PACK", version, len(listed) if count is None else count) + b"".join(listed)
    return data + hashlib.new(object_format, data).digest()


def oid(kind: int, data: bytes, object_format: str) -> bytes:
    """The id of an object."""
    return hashlib.new(object_format, b"%s %d\0" % (TYPES[kind], len(data)) + data).digest()
