"""Append-only packs of checksummed records.

::

    file    = magic record*
    record  = prefix header check4 payload check8
    prefix  = "KR" kind:u8 codec:u8 header_len:u16 flags:u16 payload_len:u64      (little-endian, 16 bytes)
    header  = msgpack map of small integers to values; a reader passes over keys that it does not know
    check4  = low 32 bits of xxh3-64 of prefix and header
    check8  = xxh3-64 of payload

A pack is never truncated and never rewritten; what a crash leaves past the committed end is garbage that nobody
names. A sealed pack ends with a FOOTER record, which lists the others, and a trailer that says where it is.
The full description stands in docs/format/pack.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack
import xxhash

from kaivc.errors import ChecksumMismatch, StorageFailed, UnknownFormat
from kaivc.records import dataclass
from kaivc.storage import blocks, compression, planes
from kaivc.storage.blocks import MAX_BLOCK, Member
from kaivc.storage.chunking import MAX_CHUNK
from kaivc.storage.gitobjects import MAX_TEXT_BYTES, MAX_TREE_BYTES
from kaivc.vfs import Vfs, refused

MAGIC = b"KAIPACK\x01"
TRAILER_MAGIC = b"KAIPEND\x01"
PREFIX = struct.Struct("<2sBBHHQ")
MARK = b"KR"
TRAILER = struct.Struct("<Q8s")
HEAD = PREFIX.size + 128
"""Bytes that hold the head of nearly every record."""
AT_ONCE = 256 << 10
"""Bytes of the longest record that is read in one go."""
MAX_HEADER = 4096
MAX_PAYLOAD = 1 << 31
MIN_GAIN = 16
PAYS = 0.97
"""The part of its content that an array of numbers must stay below to be kept in planes."""
SURE = 12
"""A frame that is so many times smaller than its content need not be compared with one that has no base."""
LIMITS = {
    "max_bin_len": MAX_HEADER,
    "max_str_len": MAX_HEADER,
    "max_map_len": 64,
    "max_array_len": 64,
    "max_ext_len": 0,
}


class RecordKind(IntEnum):
    """What a record holds; 1 to 4 are git's objects."""

    BLOB = 1
    TREE = 2
    COMMIT = 3
    TAG = 4
    CHUNK = 5
    CHUNK_LIST = 6
    OP = 7
    FOOTER = 8
    BLOCK = 9


MAX_RECORD = 16 << 20
"""Bytes of the largest blob that is one record; a larger one is a list of chunks."""
LARGEST = {
    RecordKind.BLOB: MAX_RECORD,
    RecordKind.TREE: MAX_TREE_BYTES,
    RecordKind.COMMIT: MAX_TEXT_BYTES,
    RecordKind.TAG: MAX_TEXT_BYTES,
    RecordKind.CHUNK: MAX_CHUNK,
    RecordKind.CHUNK_LIST: 24 << 20,
    RecordKind.OP: 16 << 20,
    RecordKind.BLOCK: MAX_BLOCK,
}
"""Bytes that the content of a record may have: a small frame could make any number of them."""


MAX_BASE = 4 << 20
"""Bytes of the largest record that another is encoded with."""
CHAIN = 64
"""Records of a chain of bases; each has an ordinal below."""


class Codec(IntEnum):
    """How a payload is encoded.

    ZSTD_PREFIX: as a frame that refers to the content of another record, its base. PLANES: as an array of numbers.
    ZSTD_TEXT: as a frame that refers to a text which is part of the format.
    """

    RAW = 0
    ZSTD = 1
    ZSTD_PREFIX = 2
    PLANES = 3
    ZSTD_TEXT = 4


CODECS = frozenset(int(codec) for codec in Codec)


class Key(IntEnum):
    """Keys of a record's header; BASE and ORDINAL are those of codec ZSTD_PREFIX, PLANES of the codec of that name."""

    ID = 1
    SIZE = 2
    BASE = 3
    ORDINAL = 4
    MEMBERS = 5
    PLANES = 6


class Base(NamedTuple):
    """What a record is encoded with: the id and the content of another one, and the new one's place in the chain."""

    id: bytes
    content: bytes
    ordinal: int


class Location(NamedTuple):
    """Where a record lies: its first byte and its length with all its parts."""

    offset: int
    length: int


class Header(NamedTuple):
    """The checked head of a record; ``payload_at`` counts from the start of the file.

    ``base`` is the id of the record whose content is needed to decode this one, None for none; ``planes`` are the
    lengths of the planes that it has, ``members`` the objects of a block.
    """

    kind: int
    codec: int
    id: bytes
    size: int
    where: Location
    payload_at: int
    payload_len: int
    base: bytes | None = None
    ordinal: int = 0
    planes: tuple[int, ...] = ()
    members: tuple[Member, ...] = ()


class Encoded(NamedTuple):
    """A whole record, and the base that it is encoded with, if it is."""

    record: bytes
    base: bytes | None
    ordinal: int


def _check8(data: bytes | memoryview) -> bytes:
    return struct.pack("<Q", xxhash.xxh3_64_intdigest(data))


def encode(kind: int, id_: bytes, data: bytes | memoryview, level: int) -> bytes:
    """A whole record; compressed when that saves enough to pay for reading it.

    Op records are kept as they are, so that a pack shows them to whoever has no zstd.
    """
    codec: Codec = Codec.RAW
    payload: bytes | memoryview = data
    fields: dict[int, Any] = {int(Key.ID): id_, int(Key.SIZE): len(data)}
    if kind == RecordKind.CHUNK and (width := planes.width_of(data)):
        parts = planes.split(data, width, level)
        lengths = list(map(len, parts))
        if sum(lengths) < PAYS * len(data):
            return _record(kind, Codec.PLANES, {**fields, int(Key.PLANES): lengths}, b"".join(parts))
    if kind != RecordKind.OP and len(data) > 3 * MIN_GAIN:
        is_text = kind in (RecordKind.COMMIT, RecordKind.TAG)
        frame = compression.compress_text(data, level) if is_text else compression.compress(data, level)
        if len(frame) + MIN_GAIN < len(data):
            codec, payload = Codec.ZSTD_TEXT if is_text else Codec.ZSTD, frame
    return _record(kind, codec, fields, payload)


def encode_block(members: Sequence[tuple[int, bytes, bytes]], level: int) -> bytes:
    """A whole record of some small objects: (kind, id, content) of each."""
    data = b"".join(content for _, _, content in members)
    listing = blocks.listed((kind, id_, len(content)) for kind, id_, content in members)
    fields: dict[int, Any] = {int(Key.ID): b"", int(Key.SIZE): len(data), int(Key.MEMBERS): listing}
    frame = compression.compress(data, level)
    if len(frame) < len(data):
        return _record(RecordKind.BLOCK, Codec.ZSTD, fields, frame)
    return _record(RecordKind.BLOCK, Codec.RAW, fields, data)


def encode_after(base: Base, kind: int, id_: bytes, data: bytes | memoryview, level: int) -> Encoded:
    """A whole record, encoded with a base unless it is smaller without."""
    frame = compression.compress_after(base.content, data)
    header = {int(Key.ID): id_, int(Key.SIZE): len(data), int(Key.BASE): base.id, int(Key.ORDINAL): base.ordinal}
    record = _record(kind, Codec.ZSTD_PREFIX, header, frame)
    if len(frame) * SURE > len(data) or len(frame) >= len(data):
        whole = encode(kind, id_, data, level)
        if len(whole) <= len(record):
            return Encoded(whole, None, 0)
    return Encoded(record, base.id, base.ordinal)


def _record(kind: int, codec: Codec, fields: dict[int, Any], payload: bytes | memoryview) -> bytes:
    header = msgpack.packb(fields)
    head = PREFIX.pack(MARK, kind, codec, len(header), 0, len(payload)) + header
    return b"".join([head, _check8(head)[:4], payload, _check8(payload)])


@dataclass(frozen=True)
class PackReader:
    """Reads one pack by positioned reads into bounded buffers.

    Positioned reads, not mmap: a map of a file that is cut short kills the process.
    """

    fd: int
    path: str

    @classmethod
    def open(cls, path: str) -> PackReader:
        """Open a pack; UnknownFormat if it is none. FileNotFoundError passes through."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise refused("opening pack", path, error) from error
        try:
            check_magic(fd, path)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, path)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def header(self, offset: int) -> Header:
        """The head of the record at ``offset``; ChecksumMismatch unless it is whole."""
        return read_header(self.fd, offset, self.path)

    def record(self, offset: int, length: int) -> tuple[Header, bytes]:
        """The head of the record at ``offset``, and its bytes, if ``length`` is theirs and they are few.

        ChecksumMismatch unless the head is whole.
        """
        raw = read_at(self.fd, length if HEAD < length <= AT_ONCE else HEAD, offset)
        header = _decode_header(raw, self.fd, offset, self.path)
        return header, raw if len(raw) == header.where.length else b""

    def whole(self, offset: int, length: int) -> tuple[Header, bytes]:
        """The head and the bytes of a record, to be copied as it is; ChecksumMismatch unless these very bytes fit."""
        raw = read_at(self.fd, length, offset)
        header = _decode_header(raw, self.fd, offset, self.path)
        if len(raw) != header.where.length:
            raise _damaged(self.path, offset, "it has another length")
        self.stored(header, raw)
        return header, raw

    def payload(self, header: Header, base: bytes | None = None, record: bytes = b"") -> bytes:
        """The decoded content of a record; ChecksumMismatch unless it is what was written.

        ``base`` is the content of the record that the header names as its base; not None if it names one. ``record``
        are its bytes, if they have been read.
        """
        data = self.stored(header, record)
        if header.codec == Codec.RAW:
            return data
        if header.codec == Codec.ZSTD_TEXT:
            return compression.decompress(data, header.size, compression.TEXT)
        if header.base is not None and not base:
            raise _damaged(self.path, header.where.offset, "what it is encoded with is empty")
        if header.codec == Codec.PLANES:
            return planes.join(data, header.planes, header.size)
        return compression.decompress(data, header.size, base if header.base is not None else None)

    def stored(self, header: Header, record: bytes = b"") -> bytes:
        """The payload of a record as it is stored, compared with its checksum."""
        self._check_sizes(header, is_there=bool(record))
        if record:
            raw = record[-header.payload_len - 8 :]
        else:
            raw = read_at(self.fd, header.payload_len + 8, header.payload_at)
        if len(raw) != header.payload_len + 8 or _check8(memoryview(raw)[:-8]) != raw[-8:]:
            raise _damaged(self.path, header.where.offset, "the payload's checksum does not match")
        return raw[:-8]

    def _check_sizes(self, header: Header, *, is_there: bool) -> None:
        """Raise ChecksumMismatch for sizes that cannot be, before any memory is taken for them."""
        if header.codec not in CODECS:
            raise UnknownFormat(
                f"a record of {self.path} is encoded in a way that this release does not know",
                hint="use the release that wrote it, or a later one",
            )
        fits = header.payload_len == header.size if header.codec == Codec.RAW else header.payload_len < header.size
        if header.codec == Codec.PLANES and not planes.fit(header.planes, header.payload_len, header.size):
            fits = False
        if not fits or header.size > _largest(header):
            raise _damaged(self.path, header.where.offset, "the size does not match")
        if not is_there and header.where.offset + header.where.length > os.fstat(self.fd).st_size:
            raise _damaged(self.path, header.where.offset, "the file ends within it")


def check_magic(fd: int, path: str) -> None:
    """Raise UnknownFormat unless the file starts as a pack does."""
    if read_at(fd, len(MAGIC), 0) != MAGIC:
        raise UnknownFormat(f"{path} is not a pack that this release can read")


def read_at(fd: int, count: int, offset: int) -> bytes:
    """Up to ``count`` bytes at ``offset``; fewer only at the end of the file. StorageFailed if the disk says no."""
    try:
        data = os.pread(fd, count, offset)
        while len(data) < count:
            more = os.pread(fd, count - len(data), offset + len(data))
            if not more:
                break
            data += more
    except OSError as error:
        raise refused("reading", fd, error) from error
    return data


def _damaged(path: str, offset: int, why: str) -> ChecksumMismatch:
    return ChecksumMismatch(
        f"a stored record is damaged: {why} ({path}, byte {offset})",
        unchanged="nothing was written",
        hint="see what is hit with `kai verify`; a copy of the home, or a peer, has the bytes",
        pack=path,
        offset=offset,
    )


def read_header(fd: int, offset: int, path: str) -> Header:
    """The head of the record at ``offset`` of an open pack; ChecksumMismatch unless it is whole."""
    return _decode_header(read_at(fd, HEAD, offset), fd, offset, path)


def _decode_header(start: bytes, fd: int, offset: int, path: str) -> Header:
    """The head of a record from the first bytes of it, and more from the file if need be."""
    if len(start) < PREFIX.size:
        raise _damaged(path, offset, "the file ends before it")
    mark, kind, codec, header_len, _flags, payload_len = PREFIX.unpack_from(start)
    if mark != MARK or header_len > MAX_HEADER or payload_len > MAX_PAYLOAD:
        raise _damaged(path, offset, "no record begins there")
    end = PREFIX.size + header_len
    if len(start) < end + 4:
        start = read_at(fd, end + 4, offset)
    if _check8(memoryview(start)[:end])[:4] != start[end : end + 4]:
        raise _damaged(path, offset, "the header's checksum does not match")
    fields = _unpack_header(start[PREFIX.size : end], path, offset)
    where = Location(offset, end + 4 + payload_len + 8)
    header = Header(kind, codec, fields[Key.ID], fields[Key.SIZE], where, offset + end + 4, payload_len)
    if codec == Codec.PLANES:
        return _with_planes(header, fields, path)
    if kind == RecordKind.BLOCK:
        return _with_members(header, fields, path)
    return header if codec != Codec.ZSTD_PREFIX else _with_base(header, fields, path)


def _with_planes(header: Header, fields: dict[int, Any], path: str) -> Header:
    lengths = fields.get(Key.PLANES)
    if not isinstance(lengths, list) or not all(type(length) is int for length in lengths):
        raise _damaged(path, header.where.offset, "the header lacks the planes that it must have")
    return header._replace(planes=tuple(lengths))


def _with_members(header: Header, fields: dict[int, Any], path: str) -> Header:
    members = blocks.parse(fields.get(Key.MEMBERS), header.size)
    if members is None or header.codec not in (Codec.RAW, Codec.ZSTD):
        raise _damaged(path, header.where.offset, "the header does not list objects that make a block")
    return header._replace(members=members)


def _with_base(header: Header, fields: dict[int, Any], path: str) -> Header:
    base, ordinal = fields.get(Key.BASE), fields.get(Key.ORDINAL)
    if not isinstance(base, bytes) or type(ordinal) is not int or not 0 < ordinal < CHAIN:
        raise _damaged(path, header.where.offset, "the header lacks the base that it must have")
    if header.kind in (RecordKind.OP, RecordKind.FOOTER):
        raise _damaged(path, header.where.offset, "a record of its kind has no base")
    return header._replace(base=base, ordinal=ordinal)


def _unpack_header(data: bytes, path: str, offset: int) -> dict[int, Any]:
    try:
        fields = msgpack.unpackb(data, strict_map_key=False, **LIMITS)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise _damaged(path, offset, "the header cannot be read") from error
    if (
        not isinstance(fields, dict)
        or not isinstance(fields.get(Key.ID), bytes)
        or type(fields.get(Key.SIZE)) is not int
        or not 0 <= fields[Key.SIZE] <= MAX_PAYLOAD
    ):
        raise _damaged(path, offset, "the header lacks what it must have")
    return fields


def scan(fd: int, path: str, start: int, end: int) -> Iterator[Header]:
    """The heads of all records between two offsets; ChecksumMismatch at the first that is not whole.

    Payload checksums are compared too, in pieces.
    """
    offset = start
    while offset < end:
        if end - offset == TRAILER.size and read_at(fd, TRAILER.size, offset).endswith(TRAILER_MAGIC):
            return
        header = read_header(fd, offset, path)
        if offset + header.where.length > end:
            raise _damaged(path, offset, "the file ends within it")
        digest = xxhash.xxh3_64()
        position, left = header.payload_at, header.payload_len
        while left:
            piece = read_at(fd, min(left, 1 << 20), position)
            digest.update(piece)
            position, left = position + len(piece), left - len(piece)
        if read_at(fd, 8, position) != struct.pack("<Q", digest.intdigest()):
            raise _damaged(path, offset, "the payload's checksum does not match")
        yield header
        offset += header.where.length


def _largest(header: Header) -> int:
    """The bytes that the content may have; a footer says less of each record than the record takes."""
    return LARGEST.get(header.kind, header.where.offset + MAX_HEADER)  # type: ignore[call-overload, no-any-return]


class PackWriter:
    """Appends records to one pack, whose lock it holds until closed.

    After a failed write or sync the writer is ``failed``: nothing from it may be acknowledged.
    """

    BUFFER = 1 << 20

    def __init__(self, vfs: Vfs, fd: int, path: str, end: int) -> None:
        self.path = path
        self.end = end
        self.failed = False
        self.synced = end
        self._vfs = vfs
        self._fd = fd
        self._pending: list[bytes] = []
        self._pending_size = 0

    @classmethod
    def create(cls, vfs: Vfs, path: str) -> PackWriter:
        """Start a new pack, locked."""
        fd = vfs.open_append(path)
        try:
            vfs.flock(fd)
        except BaseException:
            vfs.close(fd)
            raise
        writer = cls(vfs, fd, path, 0)
        writer._append(MAGIC)
        return writer

    def add(self, kind: int, id_: bytes, data: bytes, level: int) -> Location:
        """Append one record; it is on the disk after ``sync``."""
        return self.append(encode(kind, id_, data, level))

    def append(self, record: bytes) -> Location:
        """Append a whole record as it is; it is on the disk after ``sync``."""
        where = Location(self.end, len(record))
        self._append(record)
        return where

    def _append(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        self.end += len(data)
        if self._pending_size >= self.BUFFER:
            self.flush()

    def flush(self) -> None:
        """Hand all records to the system."""
        if not self._pending:
            return
        data, self._pending, self._pending_size = b"".join(self._pending), [], 0
        with self._failing():
            self._vfs.write(self._fd, data)

    def sync(self) -> None:
        """Return when all records are on the disk."""
        self.flush()
        if self.synced == self.end:
            return
        with self._failing():
            self._vfs.sync(self._fd)
        self.synced = self.end

    def seal(self) -> None:
        """Append the footer and the trailer, and sync."""
        self.flush()
        listing = [
            [header.kind, header.id, header.where.offset, header.where.length, header.size]
            for header in scan(self._fd, self.path, len(MAGIC), self.end)
        ]
        footer = self.add(RecordKind.FOOTER, b"", msgpack.packb({"v": 0, "records": listing}), 3)
        self._append(TRAILER.pack(footer.offset, TRAILER_MAGIC))
        self.sync()

    def tail(self, committed: int) -> list[Header]:
        """What lies past the committed end; ChecksumMismatch unless it is whole records, and a seal among them whole.

        The writer then goes on after them.
        """
        size = os.fstat(self._fd).st_size
        if size < committed:
            raise _damaged(self.path, size, "the pack is shorter than what was committed")
        headers = list(scan(self._fd, self.path, committed, size))
        footer = next((it.where.offset for it in headers if it.kind == RecordKind.FOOTER), None)
        if footer is not None:
            trailer = read_at(self._fd, TRAILER.size, size - TRAILER.size)
            if trailer != TRAILER.pack(footer, TRAILER_MAGIC):
                raise _damaged(self.path, footer, "its seal was cut")
        self.end = size
        self.synced = committed
        return headers

    def payload(self, header: Header) -> bytes:
        """The content of a record of this pack."""
        return PackReader(self._fd, self.path).payload(header)

    def abandon(self) -> None:
        """Let go of the lock; what is pending is forgotten."""
        self._pending, self._pending_size = [], 0
        self._vfs.close(self._fd)

    def close(self) -> None:
        """Hand out what is pending and let go of the lock."""
        try:
            if not self.failed:
                self.flush()
        finally:
            self._vfs.close(self._fd)

    def _failing(self) -> _Failing:
        return _Failing(self)


class _Failing:
    def __init__(self, writer: PackWriter) -> None:
        self._writer = writer

    def __enter__(self) -> None:
        if self._writer.failed:
            raise StorageFailed(f"{self._writer.path} failed before; nothing more is written to it")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self._writer.failed = True
