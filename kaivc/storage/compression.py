"""zstd frames with hard limits.

A frame may lie about its size, hold a bomb or trailing bytes; ``decompress`` believes the caller's size only.
"""

from __future__ import annotations

from functools import lru_cache

import zstandard

from kaivc.errors import ChecksumMismatch

MAX_WINDOW = 8 << 20
"""The memory that a frame may ask of whoever reads it; level 19 asks for so much."""


@lru_cache(maxsize=4)
def _compressor(level: int) -> zstandard.ZstdCompressor:
    # The record around the frame carries a checksum and the size.
    return zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)


@lru_cache(maxsize=1)
def _decompressor() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)


def compress(data: bytes | memoryview, level: int) -> bytes:
    """One zstd frame (RFC 8878) of ``data``."""
    return _compressor(level).compress(data)


def decompress(frame: bytes, size: int) -> bytes:
    """The ``size`` bytes that a frame holds; ChecksumMismatch when it holds anything else."""
    try:
        stated = zstandard.frame_content_size(frame)
        if stated != size or not size:  # nothing is compressed to hold nothing
            raise ChecksumMismatch(f"a zstd frame states {stated} bytes where {size} are recorded")
        data = _decompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ChecksumMismatch(f"a zstd frame cannot be read: {error}") from error
    if len(data) != size:
        raise ChecksumMismatch(f"a zstd frame holds {len(data)} bytes where {size} are recorded")
    return data
