"""ObjectStore: the objects of one agent, read from packs and added through a ``StoreWriter``.

A blob of up to ``chunks.threshold`` bytes is one record. A larger one is a list of chunks, each stored once; its id is
still git's id of the whole. Blobs stream both ways, so memory is bounded at any size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import msgpack

from kaivc.errors import ChecksumMismatch, Collected, TooLarge
from kaivc.layout import Layout
from kaivc.names import ObjectId
from kaivc.records import dataclass
from kaivc.settings import Settings
from kaivc.storage import bases, blocks, index
from kaivc.storage.bases import Contents, Found, Link
from kaivc.storage.blocks import Member
from kaivc.storage.catalog import Catalog
from kaivc.storage.chunking import MAX_CHUNK, MIN_CHUNK, chunk_id, zeros_id
from kaivc.storage.gitobjects import (
    Commit,
    Entry,
    Kind,
    MalformedObject,
    ObjectFormat,
    Tag,
    decode_commit,
    decode_tag,
    decode_tree,
)
from kaivc.storage.index import ObjectRow
from kaivc.storage.pack import LARGEST, Header, PackReader, RecordKind
from kaivc.vfs import Vfs

OPEN_READERS = 16
OPEN_BLOCKS = 32
"""How many blocks are kept decoded."""
KNOWN = 4096
"""How many trees, and how many commits and tags, are kept decoded."""
SHORT_TEXT = 4096
"""Characters of a message above which a commit or tag is not kept."""
MAX_WHOLE = 256 << 20
MAX_PAIR = 48
"""Bytes that a chunk takes in its list, at most."""


@dataclass(frozen=True)
class StorePlace:
    """Whose objects, and where."""

    layout: Layout
    agent: str
    agent_id: int
    home_id: str
    format: ObjectFormat


class ObjectStore:
    """Reads the objects of one agent."""

    def __init__(self, catalog: Catalog, place: StorePlace, settings: Settings, vfs: Vfs) -> None:
        self.catalog = catalog
        self.place = place
        self.settings = settings
        self.vfs = vfs
        self.format = place.format
        self._readers: dict[int, PackReader] = {}
        self.contents = Contents()
        self._blocks: dict[tuple[int, int], tuple[Header, bytes]] = {}
        self._near: dict[bytes, ObjectRow] = {}
        self._trees: dict[ObjectId, list[tuple[bytes, Entry]]] = {}
        self._texts: dict[ObjectId, Commit | Tag] = {}
        self.flat: dict[ObjectId, dict[bytes, Entry]] = {}
        self.described: dict[ObjectId, Any] = {}

    # ------------------------------------------------------------ what is there

    def find(self, oid: bytes) -> ObjectRow | None:
        """Where an object or chunk lies."""
        return index.find(self.catalog, self.place.agent_id, oid)

    def contains(self, oid: ObjectId) -> bool:
        """Whether the object is stored."""
        return self.find(oid) is not None

    def require(self, oid: bytes) -> ObjectRow:
        """Where an object lies; ChecksumMismatch if it is missing."""
        row = self._near.get(oid) or self.find(oid)
        if row is None:
            raise ChecksumMismatch(
                f"object {oid.hex()} of agent {self.place.agent} is missing",
                unchanged="nothing was written",
                hint="see what is hit with `kai verify`; a copy of the home, or a peer, has it",
                object=oid.hex(),
            )
        return row

    def size(self, oid: ObjectId) -> int:
        """The size of an object in bytes."""
        return self.require(oid).size

    def size_without_holes(self, oid: ObjectId) -> int:
        """The bytes that a file of this blob takes on a disk that keeps holes, about."""
        row = self.require(oid)
        if row.kind != RecordKind.CHUNK_LIST:
            return row.size
        zeros = zeros_id()
        return sum(size for chunk_id, size in self.chunk_list(row) if chunk_id != zeros)

    def kind(self, oid: ObjectId) -> Kind:
        """What kind of object it is; MalformedObject for a chunk."""
        kind = self.require(oid).kind
        if kind == RecordKind.CHUNK_LIST:
            return Kind.BLOB
        try:
            return Kind(kind)
        except ValueError as error:
            raise MalformedObject(f"{oid.hex()} is no git object") from error

    # ------------------------------------------------------------ whole objects

    def read(self, oid: ObjectId, kind: Kind) -> bytes:
        """The bytes of an object that must be of ``kind``; held whole in memory, so 256 MiB at most."""
        row = self.require(oid)
        if (Kind.BLOB if row.kind == RecordKind.CHUNK_LIST else row.kind) != kind or row.size > MAX_WHOLE:
            raise MalformedObject(f"object {oid.hex()} is no {kind.name.lower()} that can be read whole")
        if row.kind == RecordKind.CHUNK_LIST:
            return b"".join(self.stream(oid))
        return self.record(row)

    def tree(self, oid: ObjectId) -> list[tuple[bytes, Entry]]:
        """The entries of one directory."""
        found = self._trees.get(oid)
        if found is None:
            found = decode_tree(self._whole(oid, Kind.TREE), self.format.width)
            if len(self._trees) > KNOWN:
                self._trees.clear()
            self._trees[oid] = found
        return found

    def commit(self, oid: ObjectId) -> Commit:
        """A commit."""
        found = self._texts.get(oid)
        if not isinstance(found, Commit):
            found = decode_commit(self._whole(oid, Kind.COMMIT), self.format.width)
            self._keep(oid, found)
        return found

    def tag(self, oid: ObjectId) -> Tag:
        """An annotated tag."""
        found = self._texts.get(oid)
        if not isinstance(found, Tag):
            found = decode_tag(self._whole(oid, Kind.TAG), self.format.width)
            self._keep(oid, found)
        return found

    def forget(self) -> None:
        """Forget what was decoded: the next look reads the disk."""
        self._trees.clear()
        self._texts.clear()
        self.flat.clear()
        self.described.clear()
        self.contents.clear()
        self._blocks.clear()
        self._near = {}

    def _keep(self, oid: ObjectId, text: Commit | Tag) -> None:
        if len(text.message) > SHORT_TEXT:
            return
        if len(self._texts) > KNOWN:
            self._texts.clear()
        self._texts[oid] = text

    def _whole(self, oid: ObjectId, kind: Kind) -> bytes:
        """What leads on is hashed each time it is read: a commit that comes before itself cannot be made then."""
        data = self.at_hand(oid, kind)
        if data is None:
            data = self.read(oid, kind)
            self._require_id(oid, kind, self.format.hash(kind, data))
        return data

    def at_hand(self, oid: bytes, kind: Kind) -> bytes | None:
        """The bytes of an object that was written or read a moment ago, hashed; None if they are not in memory."""
        data = self.contents.get(oid)
        return data if data is not None and self.format.hash(kind, data) == oid else None

    @staticmethod
    def _require_id(oid: bytes, kind: int, found: bytes) -> None:
        if found != oid:
            raise ChecksumMismatch(
                f"the stored bytes of {RecordKind(kind).name.lower()} {oid.hex()} are not those of its id",
                unchanged="nothing was written",
                hint="see what is hit with `kai verify`; a copy of the home, or a peer, has the bytes",
                expected=oid.hex(),
                found=found.hex(),
            )

    def stream(self, oid: ObjectId) -> Iterator[bytes]:
        """The bytes of a blob, in pieces of at most a chunk; each record's checksum is compared."""
        row = self.require(oid)
        if row.kind == RecordKind.BLOB:
            yield self.record(row)
            return
        if row.kind != RecordKind.CHUNK_LIST:
            raise MalformedObject(f"object {oid.hex()} is no blob")
        listing = self.chunk_list(row)
        for start in range(0, len(listing), index.AT_ONCE):
            group = listing[start : start + index.AT_ONCE]
            self.look_up(piece for piece, _ in group)
            for piece, size in group:
                chunk = self._near.get(piece) or self.require(piece)
                if chunk.kind != RecordKind.CHUNK or chunk.size != size:
                    raise MalformedObject(f"a chunk of {oid.hex()} is not what its list says")
                yield self.record(chunk)

    def chunk_list(self, row: ObjectRow) -> list[tuple[bytes, int]]:
        """The (id, size) of each chunk of a large blob; MalformedObject unless they make its size."""
        if row.size > self.settings.limits_max_file:
            raise TooLarge(
                f"blob {row.id.hex()} has {row.size} bytes; {self.settings.limits_max_file} are allowed",
                hint="raise `limits.max_file` in .kai/config.yaml",
            )
        try:
            data = self.record(row, (row.size // MIN_CHUNK + 2) * MAX_PAIR)
            pairs = decode_chunk_list(data)
        except MalformedObject as error:
            raise MalformedObject(f"the chunk list of {row.id.hex()}: {error.what}") from error
        total = sum(size for _, size in pairs)
        if total != row.size:
            raise MalformedObject(f"the chunks of {row.id.hex()} add up to {total} bytes, not {row.size}")
        return pairs

    def check(self, oid: ObjectId) -> None:
        """Re-hash an object; ChecksumMismatch unless its bytes are those of its id."""
        kind = self.kind(oid)
        digest = self.format.header(kind, self.size(oid))
        for piece in self.stream(oid) if kind is Kind.BLOB else [self.read(oid, kind)]:
            digest.update(piece)
        self._require_id(oid, kind, digest.digest())

    # ------------------------------------------------------------ records

    def record(self, row: ObjectRow, most: int | None = None) -> bytes:
        """The decoded record of an object or chunk; ChecksumMismatch unless it is what was written.

        ``most`` bounds the bytes of a chunk list's own record; those of the others are what the index says. gc may have
        moved it since the row was read, and may have unlinked its pack: then the catalog is asked once more. Collected
        when it is gone from there too.
        """
        asked = False
        while True:
            try:
                return self._record(row, most)
            except ChecksumMismatch:
                now = self.find(row.id)
                if now is None:
                    raise self._collected(row.id) from None
                if asked and now == row:
                    raise
                self._near.clear()
                self._blocks.clear()  # a repair may have given another pack this number
                self.close()  # and the pack of what it is encoded with another
                row, asked = now, True

    def _collected(self, oid: bytes) -> Collected:
        return Collected(
            f"object {oid.hex()} of agent {self.place.agent} was collected while it was read",
            unchanged="nothing was written",
            hint="what named it has expired: see `kai reflog --all`",
            object=oid.hex(),
        )

    def _record(self, row: ObjectRow, most: int | None) -> bytes:
        found = self._found(row)
        if found.header.size > (row.size if most is None else most):
            raise MalformedObject(f"the chunk list of {row.id.hex()} is too long for its size")
        # The id of a list says nothing of how it is cut, and another process may have cut it anew.
        known = Contents() if found.header.kind == RecordKind.CHUNK_LIST else self.contents
        return bases.decode(found, self._base, known)

    def _found(self, row: ObjectRow) -> Found:
        if row.within >= 0:
            header, content = self._block(row)
            content = content[row.within : row.within + row.size]
            header = header._replace(kind=row.kind, id=row.id, size=row.size, members=())
            return Found(header, lambda: self._reader(row), content=content)
        header, record = self._reader(row).record(row.offset, row.length)
        self._check_header(header, row)
        return Found(header, lambda: self._reader(row), record)

    def _base(self, oid: bytes) -> Found:
        """The record that another one is encoded with."""
        return self._found(self._near.get(oid) or self.require(oid))

    def look_up(self, oids: Iterable[bytes]) -> dict[bytes, ObjectRow]:
        """Ask once where objects lie that are about to be read, with all that they are encoded with."""
        near = index.find_all(self.catalog, self.place.agent_id, set(oids))
        below = {row.base for row in near.values() if row.base is not None} - near.keys()
        for _ in range(bases.DEEPEST):
            if not below:
                break
            found = index.find_all(self.catalog, self.place.agent_id, below)
            near |= found
            below = {row.base for row in found.values() if row.base is not None} - near.keys()
        self._near = near
        return near

    def stored(self, row: ObjectRow) -> bytes:
        """The whole record that a row points at, as it is stored, compared with its checksums."""
        if row.within >= 0:
            self._block(row)
        header, record = self._reader(row).whole(row.offset, row.length)
        if row.within < 0:
            self._check_header(header, row)
        return record

    def _block(self, row: ObjectRow) -> tuple[Header, bytes]:
        """The block that an object lies in, if it lies there, and its content."""
        key = (row.pack, row.offset)
        found = self._blocks.pop(key, None)
        if found is None:
            reader = self._reader(row)
            header, record = reader.record(row.offset, row.length)
            if header.kind != RecordKind.BLOCK:
                raise _another_record(row)
            found = header, reader.payload(header, None, record)
            while len(self._blocks) >= OPEN_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
        self._blocks[key] = found
        member = blocks.member_at(found[0].members, row.within, row.id)
        stated = (member.kind, member.size, found[0].where.length) if member is not None else None
        if stated != (row.kind, row.size, row.length) or row.base is not None:
            raise _another_record(row)
        return found

    def op_record(self, pack: int, offset: int) -> bytes:
        """The op record at a place; ChecksumMismatch if there is none."""
        row = ObjectRow(b"", RecordKind.OP, pack, offset, 0, 0)
        reader = self._reader(row)
        header = reader.header(offset)
        if header.kind != RecordKind.OP:
            raise _another_record(row)
        return reader.payload(header)

    def members(self, row: ObjectRow) -> tuple[Member, ...]:
        """The objects of the block that an object lies in."""
        return self._reader(row).header(row.offset).members

    def link(self, oid: bytes) -> Link | None:
        """A stored object as one that may be a base."""
        row = self._near.get(oid) or self.find(oid)
        if row is None:
            return None
        if row.within >= 0:
            return Link(row.id, row.kind, row.size, None, 0)
        header = self._header(self._reader(row), row)
        return Link(row.id, row.kind, header.size, header.base, header.ordinal)

    def proven(self, oid: bytes, kind: int) -> bytes:
        """The content of an object's record: others may be encoded with it. Hashed, or a list of chunks just read."""
        data = self.contents.get(oid, proven=True) if kind != RecordKind.CHUNK_LIST else None
        if data is None:
            row = self._near.get(oid) or self.require(oid)
            data = self.record(row, LARGEST[RecordKind.CHUNK_LIST] if row.kind == RecordKind.CHUNK_LIST else None)
            if row.kind == RecordKind.CHUNK:
                self._require_id(oid, row.kind, chunk_id(data))
            elif row.kind != RecordKind.CHUNK_LIST:
                self._require_id(oid, row.kind, self.format.hash(Kind(row.kind), data))
            if row.kind != RecordKind.CHUNK_LIST:
                self.contents.put(oid, data, proven=True)
        return data

    def _header(self, reader: PackReader, row: ObjectRow) -> Header:
        """The head of the record that a row points at, if it is the one that the row says."""
        header = reader.header(row.offset)
        self._check_header(header, row)
        return header

    @staticmethod
    def _check_header(header: Header, row: ObjectRow) -> None:
        same = (header.id, header.kind, header.where.length, header.base) == (row.id, row.kind, row.length, row.base)
        if not same or (header.size != row.size and header.kind != RecordKind.CHUNK_LIST):
            raise _another_record(row)

    def _reader(self, row: ObjectRow) -> PackReader:
        reader = self._readers.get(row.pack)
        if reader is None:
            while len(self._readers) >= OPEN_READERS:
                self._readers.pop(next(iter(self._readers))).close()
            reader = self._readers[row.pack] = self._open(row.pack)
        return reader

    def _open(self, number: int) -> PackReader:
        names = {pack.id: pack.name for pack in index.packs(self.catalog, self.place.agent_id)}
        name = names.get(number, f"unknown-{number}")
        path = self.place.layout.pack(self.place.agent, name)
        if not os.path.exists(path):  # its agent may have been renamed since this store was opened
            path = self.place.layout.pack(self.catalog.name_of(self.place.agent_id) or self.place.agent, name)
        try:
            return PackReader.open(path)
        except FileNotFoundError as error:
            raise ChecksumMismatch(
                f"pack {path!r} is missing",
                unchanged="nothing was written",
                hint="restore it from a copy of the home",
                pack=path,
            ) from error

    def close(self) -> None:
        """Close all packs."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def __del__(self) -> None:
        """Many stores come and go in one process; one that was never made has none."""
        if hasattr(self, "_readers"):
            self.close()


def _another_record(row: ObjectRow) -> ChecksumMismatch:
    return ChecksumMismatch(
        f"the index of object {row.id.hex()} points at another record",
        hint="see what is hit with `kai verify`",
        object=row.id.hex(),
    )


def decode_chunk_list(data: bytes) -> list[tuple[bytes, int]]:
    """The (id, size) of each chunk of a large blob; MalformedObject unless it is a list of them."""
    try:
        pairs = msgpack.unpackb(data, use_list=False, max_bin_len=64, max_str_len=0, max_map_len=0, max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MalformedObject("it cannot be read") from error
    if not isinstance(pairs, tuple) or not all(map(_is_chunk, pairs)):
        raise MalformedObject("it holds what is no chunk")
    return list(pairs)


def _is_chunk(pair: Any) -> bool:  # noqa: ANN401 - whatever stands in a list of chunks
    """Whether it is the id and the size of a chunk."""
    return (
        isinstance(pair, tuple)
        and len(pair) == 2  # noqa: PLR2004 - a pair
        and isinstance(pair[0], bytes)
        and type(pair[1]) is int
        and 0 < pair[1] <= MAX_CHUNK
    )
