"""The far end of a transfer over two pipes: messages in, answers out, until the other side is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from kaivc import dialogue, wire
from kaivc.errors import KaiError
from kaivc.wire import Far, Fields


def serve(far: Far, source: BinaryIO, sink: BinaryIO) -> None:
    """Answer one message after the other. What cannot be understood ends it, for then nobody knows what follows."""
    while True:
        try:
            kind, data = _frame(source)
            asked = wire.decode(data) if kind else None
        except KaiError as error:
            _say(sink, error)
            return
        if asked is None or not _answer(far, asked, source, sink):
            return


def _frame(source: BinaryIO) -> tuple[bytes, bytes]:
    """The next message; nothing at the end of what comes."""
    first = source.read(1)
    if not first:
        return b"", b""

    def read(count: int) -> bytes:
        nonlocal first
        begun, first = first, b""
        return begun + source.read(count - len(begun))

    kind, data = wire.read_frame(read)
    if kind != wire.MESSAGE:
        raise wire.malformed("bytes where a message should be")
    return kind, data


def _answer(far: Far, asked: Fields, source: BinaryIO, sink: BinaryIO) -> bool:
    """Answer one; whether the next one can be read."""
    behind = _Behind(wire.read_data(source.read) if wire.has_data(asked) else iter(()))
    try:
        told, pieces = dialogue.answer(far, asked, behind)
        sink.write(wire.pack_message(told))
        sink.writelines(wire.pack_data(pieces or ()))
    except KaiError as error:
        _say(sink, error)
        return behind.is_over()
    sink.flush()
    return behind.is_over()


class _Behind:
    """The bytes behind a message; what nobody took is passed over, up to a bound."""

    MOST = 64 << 20

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def __next__(self) -> bytes:
        return next(self._pieces)

    def is_over(self) -> bool:
        """Whether all of it is read now."""
        left = self.MOST
        try:
            for piece in self._pieces:
                left -= len(piece)
                if left < 0:
                    return False
        except KaiError:
            return False
        return True


def _say(sink: BinaryIO, error: KaiError) -> None:
    sink.write(wire.pack_message({"error": wire.error_map(error)}))
    sink.flush()
