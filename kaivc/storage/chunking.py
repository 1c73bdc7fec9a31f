"""Content-defined boundaries of large blobs.

FastCDC (Xia et al., USENIX ATC 2016): an insertion in the middle of a blob moves the boundaries with it, so the
chunks around it are found again.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Protocol

MIN_CHUNK = 16 << 10
AVERAGE_CHUNK = 64 << 10
MAX_CHUNK = 256 << 10


class Source(Protocol):
    """Something that bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; empty at the end."""


class _Stream(io.RawIOBase):
    def __init__(self, source: Source) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def chunks(source: Source) -> Iterator[bytes]:
    """Cut what ``source`` gives; memory is bounded by a few chunks."""
    from pyfastcdc import FastCDC  # noqa: PLC0415 - 20 ms that only a large blob needs

    cutter = FastCDC(avg_size=AVERAGE_CHUNK, min_size=MIN_CHUNK, max_size=MAX_CHUNK)
    for chunk in cutter.cut_stream(_Stream(source)):
        yield bytes(chunk.data)
