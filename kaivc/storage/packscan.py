"""Read a pack leniently: every record that is whole, and every range of bytes that belongs to none.

After damage the scan goes on at the next place where a record begins: its head carries a checksum, so that bytes which
only look like one are passed over. Each byte of a pack lies in the magic, in a ``Record``, in a ``Gap`` or in the
trailer, and each of these is compared with what it must be.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

import msgpack

from kaivc.errors import ChecksumMismatch, KaiError, StorageFailed, UnknownFormat
from kaivc.storage.chunking import chunk_id
from kaivc.storage.gitobjects import Kind, ObjectFormat
from kaivc.storage.pack import (
    MAGIC,
    MARK,
    TRAILER,
    TRAILER_MAGIC,
    Header,
    PackReader,
    RecordKind,
    read_at,
)

WINDOW = 1 << 20
SECTOR = 4096
"""What a disk that cannot read a place leaves out, as a rule."""
KINDS = frozenset(int(kind) for kind in RecordKind)
GIT_KINDS = frozenset(int(kind) for kind in Kind)


class Record(NamedTuple):
    """A whole record and its decoded content."""

    header: Header
    data: bytes

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.header.where.offset + self.header.where.length


class Delta(NamedTuple):
    """A record that is whole as it is stored; its content is had with that of its base only."""

    header: Header

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.header.where.offset + self.header.where.length


class Gap(NamedTuple):
    """Bytes that are no whole record; ``kind`` and ``id`` are known where only the payload is damaged."""

    offset: int
    end: int
    why: str
    kind: int | None = None
    id: bytes | None = None


def open_reader(path: str) -> PackReader:
    """Open a pack whatever its first bytes say; OSError passes through, and is raised for what is no plain file."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no plain file", path)
    return PackReader(fd, path)


def magic_is_whole(reader: PackReader) -> bool:
    """Whether the file starts as a pack does."""
    return read_at(reader.fd, len(MAGIC), 0) == MAGIC


def size(reader: PackReader) -> int:
    """The bytes of the file."""
    return os.fstat(reader.fd).st_size


def survey(reader: PackReader, start: int, end: int) -> Iterator[Record | Delta | Gap]:
    """All records and gaps between two offsets, in order; a trailer at the end is left out.

    Memory is bounded by one record.
    """
    offset = start
    while offset < end:
        found = _record(reader, offset, end)
        if isinstance(found, Gap):
            if found.kind is None:
                if is_trailer(reader, offset, end):
                    return
                found = found._replace(end=_next_mark(reader, offset + 1, end))
            yield found
            offset = found.end
        else:
            yield found
            offset = found.end


def _record(reader: PackReader, offset: int, end: int) -> Record | Delta | Gap:
    try:
        header = reader.header(offset)
    except (ChecksumMismatch, StorageFailed) as error:
        return Gap(offset, end, why(error))
    after = offset + header.where.length
    if header.kind not in KINDS:
        return Gap(offset, min(after, end), f"a record of the unknown kind {header.kind}", header.kind, header.id)
    if after > end:
        return Gap(offset, end, "the file ends within a record", header.kind, header.id)
    try:
        if header.base is not None:
            reader.stored(header)
            return Delta(header)
        return Record(header, reader.payload(header))
    except (ChecksumMismatch, UnknownFormat, StorageFailed) as error:
        return Gap(offset, after, why(error), header.kind, header.id)


def why(error: KaiError) -> str:
    """What is wrong, without the place: that is said beside it."""
    return error.what.removeprefix("a stored record is damaged: ").split(" (", 1)[0]


def _next_mark(reader: PackReader, start: int, end: int) -> int:
    """Where the next record (or the trailer) begins at or after ``start``; ``end`` if there is none."""
    position = start
    while position < end:
        window = _window(reader, position, end)
        if window is None:
            position = (position // SECTOR + 1) * SECTOR
            continue
        if not window:
            return end
        at = window.find(MARK)
        while at >= 0:
            if _begins(reader, position + at, end):
                return position + at
            at = window.find(MARK, at + 1)
        position += max(1, len(window) - 1)  # a mark may lie across two windows
    trailer = end - TRAILER.size
    return trailer if trailer >= start and is_trailer(reader, trailer, end) else end


def _window(reader: PackReader, position: int, end: int) -> bytes | None:
    """Some bytes from there on; None if the disk does not give even one sector."""
    for count in (WINDOW, SECTOR - position % SECTOR):
        try:
            return read_at(reader.fd, min(count, end - position), position)
        except StorageFailed:
            continue
    return None


def _begins(reader: PackReader, offset: int, end: int) -> bool:
    try:
        header = reader.header(offset)
    except (ChecksumMismatch, StorageFailed):
        return False
    return header.kind in KINDS and offset + header.where.length <= end


# ---------------------------------------------------------------- sealed packs


def is_trailer(reader: PackReader, offset: int, end: int) -> bool:
    """Whether a trailer stands there, and nothing after it."""
    return end - offset == TRAILER.size and read_at(reader.fd, TRAILER.size, offset).endswith(TRAILER_MAGIC)


def footer_offset(reader: PackReader, end: int) -> int | None:
    """What the trailer says; None if there is no trailer."""
    if end < len(MAGIC) + TRAILER.size or not is_trailer(reader, end - TRAILER.size, end):
        return None
    (offset,) = struct.unpack_from("<Q", read_at(reader.fd, TRAILER.size, end - TRAILER.size))
    return int(offset)


def footer_of(headers: list[Header]) -> bytes:
    """What the footer of a pack with these records must hold."""
    listing = [[int(it.kind), it.id, it.where.offset, it.where.length, it.size] for it in headers]
    packed: bytes = msgpack.packb({"v": 0, "records": listing})
    return packed


# ---------------------------------------------------------------- ids


def objects_in(record: Record) -> list[tuple[int, Record]]:
    """The objects of a record, each as a record, and where it begins in a block: its members, or itself and -1."""
    header = record.header
    if header.kind != RecordKind.BLOCK:
        return [(-1, record)]
    return [
        (it.within, Record(header._replace(kind=it.kind, id=it.id, size=it.size), record.data[it.within :][: it.size]))
        for it in header.members
    ]


def true_id(record: Record, object_format: ObjectFormat) -> bytes | None:
    """The id that the content has; None for a chunk list, whose id is that of what it makes, and for a footer."""
    return true_id_of(record.header.kind, record.data, object_format)


def true_id_of(kind: int, data: bytes, object_format: ObjectFormat) -> bytes | None:
    """The same of a content and its kind."""
    if kind in GIT_KINDS:
        return object_format.hash(Kind(kind), data)
    if kind == RecordKind.CHUNK:
        return chunk_id(data)
    if kind == RecordKind.OP:
        return hashlib.sha256(data).digest()
    return None
