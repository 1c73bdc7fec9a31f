"""zstd frames with hard limits, alone or with a prefix: other bytes that the frame refers to.

A frame may lie about its size, hold a bomb or trailing bytes; ``decompress`` believes the caller's size only.
"""

from __future__ import annotations

import threading
from functools import cached_property

import zstandard

from kaivc.errors import ChecksumMismatch

MAX_WINDOW = 8 << 20
"""The memory that a frame may ask of whoever reads it; level 19 asks for so much."""


FAST_FROM = 96 << 10
"""Bytes of prefix and content from which on one hash table finds as much as two, in less time."""


def _prefix_parameters(prefix: int, size: int) -> zstandard.ZstdCompressionParameters:
    """What measured best for near equal bytes: small tables, which are filled from the whole prefix each time.

    The window spans the content, so that the prefix stays in reach to its end.
    """
    fast = prefix + size > FAST_FROM
    table = max(8, (prefix + size).bit_length() - 4)
    return zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_FAST if fast else zstandard.STRATEGY_DFAST,
        window_log=max(10, size.bit_length()),
        hash_log=table,
        chain_log=max(6, table - 1),
        search_log=1,
        min_match=7 if fast else 5,
        target_length=0,
        write_content_size=True,
        write_checksum=True,  # of the content, which hangs on more bytes than the record has
    )


TEXT = (
    b"object \ntype commit\ntag /v1.0.0\ntagger  <@> 17 +0000\n\n"
    b"tree \nparent \nauthor  <@> 17\ncommitter  <@> 17 +0000\n\n\n\n"
    b"Kai-Format: 1\nKai-Version: 1.0.0\nKai-Parent-Version: 1.0.0\nKai-Snapshot-Type: manual\n"
    b"Kai-State-Checksum: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
    b"Kai-Config-Checksum: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
)
"""What commits and tags have in common; part of the format, so that each of them stands alone. It never changes."""


class _Contexts(threading.local):
    """What is used again and again, by one thread: zstd lets go of the interpreter's lock while it works on one."""

    def __init__(self) -> None:
        self._compressors: dict[tuple[int, bool], zstandard.ZstdCompressor] = {}

    def compressor(self, level: int, *, text: bool = False) -> zstandard.ZstdCompressor:
        """One of a level, alone or after ``TEXT``."""
        found = self._compressors.get((level, text))
        if found is None:
            # The record around the frame carries a checksum and the size.
            found = self._compressors[level, text] = zstandard.ZstdCompressor(
                level=level, dict_data=_raw(TEXT) if text else None, write_checksum=False, write_content_size=True
            )
        return found

    @cached_property
    def decompressor(self) -> zstandard.ZstdDecompressor:
        """Of frames that stand alone."""
        return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)

    @cached_property
    def text_decompressor(self) -> zstandard.ZstdDecompressor:
        """Of frames after ``TEXT``."""
        return _decompressor_after(TEXT)


_CONTEXTS = _Contexts()


def compress_text(data: bytes | memoryview, level: int) -> bytes:
    """One zstd frame of ``data`` that refers to ``TEXT``."""
    return _CONTEXTS.compressor(level, text=True).compress(data)


def _raw(prefix: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def compress_after(prefix: bytes, data: bytes | memoryview) -> bytes:
    """One zstd frame of ``data`` that refers to ``prefix`` (not empty), with a checksum of its content.

    A compressor for each: making one costs 9 us, and no other way to hand it a prefix is cheaper.
    """
    parameters = _prefix_parameters(len(prefix), len(data))
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=_raw(prefix)).compress(data)


def _decompressor_after(prefix: bytes) -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(dict_data=_raw(prefix), max_window_size=MAX_WINDOW)


def compress(data: bytes | memoryview, level: int) -> bytes:
    """One zstd frame (RFC 8878) of ``data``."""
    return _CONTEXTS.compressor(level).compress(data)


def decompress(frame: bytes, size: int, prefix: bytes | None = None) -> bytes:
    """The ``size`` bytes that a frame holds, after ``prefix``; ChecksumMismatch when it holds anything else."""
    try:
        stated = zstandard.frame_content_size(frame)
        if stated != size or not size:  # nothing is compressed to hold nothing
            raise ChecksumMismatch(f"a zstd frame states {stated} bytes where {size} are recorded")
        if prefix is TEXT:
            decoder = _CONTEXTS.text_decompressor
        else:
            decoder = _CONTEXTS.decompressor if prefix is None else _decompressor_after(prefix)
        data = decoder.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ChecksumMismatch(f"a zstd frame cannot be read: {error}") from error
    if len(data) != size:
        raise ChecksumMismatch(f"a zstd frame holds {len(data)} bytes where {size} are recorded")
    return data
