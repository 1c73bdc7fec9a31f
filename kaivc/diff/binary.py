"""Content that is no text: how to tell, the one line that stands for it, and git's binary patch.

The form is that of ``git diff --binary`` (git's ``diff.c``, ``emit_binary_diff_body``): the word
``literal``, the size, then the zlib stream in lines of at most 52 bytes, each led by a letter for its
length (A-Z is 1-26, a-z is 27-52) and written in base 85; a blank line ends each half.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator

_LOOKED_AT = 8000
_LINE = 52
_LENGTHS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def is_binary(data: bytes) -> bool:
    """Whether git takes it for binary: a NUL among the first 8000 bytes."""
    return data.find(b"\0", 0, _LOOKED_AT) >= 0


def summary(old: bytes, new: bytes) -> bytes:
    """The line in place of a patch; ``old`` and ``new`` are labels, quoted already."""
    return b"Binary files %s and %s differ\n" % (old, new)


def binary_patch(old: bytes, new: bytes) -> Iterator[bytes]:
    """Chunks of a patch that ``git apply`` takes in both directions: forward, then reverse."""
    yield b"GIT binary patch\n"
    yield from _literal(new)
    yield from _literal(old)


def _literal(data: bytes) -> Iterator[bytes]:
    yield b"literal %d\n" % len(data)
    packed = zlib.compress(data)
    for start in range(0, len(packed), _LINE):
        piece = packed[start : start + _LINE]
        letter = _LENGTHS[len(piece) - 1 : len(piece)]
        yield letter + base64.b85encode(piece, pad=True) + b"\n"
    yield b"\n"
