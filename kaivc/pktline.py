"""Git's packet lines: https://git-scm.com/docs/gitprotocol-common. Four hex digits of length stand before each.

What the other end sends is read as it comes; TransportError for what is no packet, or is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kaivc.errors import TransportError

MAX_LINE = 65516
"""Bytes of the longest line, without its length."""
MAX_GROUP = 32 << 20
"""Bytes of the packets before a flush."""
FLUSH = b"0000"
DATA, PROGRESS, FATAL = 1, 2, 3
"""The bands of a side band."""
_HEAD = 4
_HEX = frozenset(b"0123456789abcdefABCDEF")

Read = Callable[[int], bytes]
"""Gives at most so many bytes; none at the end only."""


def line(data: bytes) -> bytes:
    """One packet."""
    if len(data) > MAX_LINE:
        raise ValueError("a packet that is too long")
    return b"%04x%s" % (len(data) + _HEAD, data)


def banded(band: int, data: bytes) -> Iterator[bytes]:
    """Bytes on a side band (side-band-64k), in as many packets as they take."""
    view = memoryview(data)
    for start in range(0, len(view), MAX_LINE - 1):
        yield line(bytes((band,)) + view[start : start + MAX_LINE - 1])


def malformed(why: str) -> TransportError:
    """The error for what git would not send."""
    return TransportError(
        f"the other end sent what is not git's protocol: {why}",
        unchanged="nothing moved",
        hint="is it git, of a release from 2.0 on?",
    )


class Lines:
    """Packets that come, and after them perhaps other bytes."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._buffer = b""

    def read(self, count: int) -> bytes:
        """At most so many bytes of what comes next; none at the end only."""
        if not self._buffer:
            return self._read(count)
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self.read(count)
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def next(self) -> bytes | None:
        """The next packet without a newline at its end, None for a flush; EOFError where all has ended before it."""
        head = self._exactly(_HEAD)
        if not head:
            raise EOFError
        if len(head) < _HEAD or set(head) - _HEX:
            raise malformed("what comes is no packet")
        length = int(head, 16)
        if length == 0:
            return None
        if not _HEAD <= length <= MAX_LINE + _HEAD:
            raise malformed("a packet has a length that it cannot have")
        data = self._exactly(length - _HEAD)
        if len(data) < length - _HEAD:
            raise malformed("a packet is cut")
        return data.removesuffix(b"\n")

    def to_flush(self, most: int) -> Iterator[bytes]:
        """The packets before the next flush, at most so many; a cut, or too many bytes, is TransportError."""
        size = 0
        for _ in range(most):
            try:
                found = self.next()
            except EOFError as error:
                raise malformed("it ends too early") from error
            if found is None:
                return
            size += len(found)
            if size > MAX_GROUP:
                break
            yield found
        raise malformed("far more at once than git sends")


def capabilities(words: Iterable[bytes]) -> dict[str, str]:
    """Capabilities by name, each with its value, empty for none."""
    found = {}
    for word in words:
        name, _, value = word.decode("ascii", "replace").partition("=")
        if name:
            found[name] = value
    return found
