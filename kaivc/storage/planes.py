"""Arrays of numbers, compressed by planes: the bytes of one significance together.

The mantissas of floating-point numbers are noise, and their exponents are nearly alike. Byte by byte they stand mixed,
and a compressor saves little; plane by plane it saves the exponents. A plane that does not shrink is kept as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from kaivc.storage import compression

WIDTHS = (2, 4, 8)
"""Bytes of a number, in the order in which they are tried."""
SMALLEST = 4096
"""Bytes of content below which it is not looked for numbers."""
SAMPLE = 1024
NOISY = 0.75
"""The part of its bytes that a sample takes in which little repeats."""
_RICH = 150  # of 512 bytes of noise about 220 differ, of text 80
_POOR = 0.6


def width_of(data: bytes | memoryview) -> int:
    """The bytes of a number, if a sample from the middle looks like an array of numbers; 0 otherwise."""
    if len(data) < SMALLEST:
        return 0
    middle = len(data) // 2
    sample = bytes(data[middle : middle + SAMPLE])
    if len(set(sample[:512])) < _RICH:
        return 0
    for width in WIDTHS:
        different = [len(set(sample[plane::width])) for plane in range(width)]
        if min(different) < _POOR * max(different):
            return width if _is_noise(data) else 0
    return 0


def _is_noise(data: bytes | memoryview) -> bool:
    """Whether little repeats, in a few thousand bytes: where rows do, a compressor finds more than planes do."""
    start = len(data) // 4
    sample = data[start : start + 8 * SAMPLE]
    return len(compression.compress(sample, 1)) > NOISY * len(sample)


def split(data: bytes | memoryview, width: int, level: int) -> list[bytes]:
    """The planes of an array, each compressed if that makes it smaller: one of its own length is as it was."""
    whole = bytes(data)
    planes = [whole[plane::width] for plane in range(width)]
    frames = [compression.compress(plane, level) for plane in planes]
    return [min(plane, frame, key=len) for plane, frame in zip(planes, frames, strict=True)]


def fit(lengths: Sequence[int], payload: int, size: int) -> bool:
    """Whether planes of these lengths may make ``size`` bytes, before any memory is taken for them."""
    width = len(lengths)
    return (
        width in WIDTHS
        and sum(lengths) == payload
        and all(0 < length <= _size(size, plane, width) for plane, length in enumerate(lengths))
    )


def join(payload: bytes, lengths: Sequence[int], size: int) -> bytes:
    """The array that planes make, which ``fit``; ChecksumMismatch when they hold anything else."""
    content, width, start = bytearray(size), len(lengths), 0
    for plane, length in enumerate(lengths):
        room = _size(size, plane, width)
        data = payload[start : start + length]
        content[plane::width] = data if length == room else compression.decompress(data, room)
        start += length
    return bytes(content)


def _size(size: int, plane: int, width: int) -> int:
    """The bytes of one plane of ``size`` bytes."""
    return (size - plane + width - 1) // width
