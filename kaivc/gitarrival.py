"""What comes as a git pack becomes a parcel: records of the store, made as it arrives, with bounded memory.

A blob above ``chunks.threshold`` goes by in pieces, whole or made by a delta. A delta may be of an object of the same
pack, or of one of the agent's that its sender may read (a thin pack); each object becomes a record that is encoded with
that one where the store allows it, so that a history stays small. Ids are those of the contents, hashed here.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

import msgpack

from kaivc.errors import ChecksumMismatch, TooLarge
from kaivc.incoming import LENT, Incoming, Lent, refused
from kaivc.receiving import Nothing, Reach
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.storage import bases, blocks
from kaivc.storage.bases import Link
from kaivc.storage.chunking import Listing, cut
from kaivc.storage.gitobjects import Kind
from kaivc.storage.gitpack import OFS_DELTA, TYPES, BadPack, Base, Delta, PackEntry, PackStream, WholeBase
from kaivc.storage.index import ObjectRow
from kaivc.storage.pack import (
    LARGEST,
    MAGIC,
    MAX_BASE,
    Encoded,
    RecordKind,
    encode,
    encode_after,
    encode_block,
)
from kaivc.storage.pack import Base as RecordBase
from kaivc.storage.store import ObjectStore
from kaivc.wire import Offer

GIB = 1 << 30
WAITING = 8 << 20
"""Bytes of deltas that are kept until what they are of comes; git sends it before them."""
DEEPEST = 4095
"""Deltas in a row: the most that git can be asked to make."""
GROWTH = 16
"""A delta may make so many times the bytes of its base and its own, and ``SLACK``; a bomb makes 100,000 times."""
SLACK = 16 << 20
OPEN_CHUNKS = 32
"""Chunks of a large base that are kept decoded."""
SEEKS = 8
"""The chunks of a large base are decoded so many times over before a delta that jumps to and fro is refused."""
BUFFER = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a pack may have: objects, bytes as it comes, bytes of content (``ratio`` times those, if that is more)."""

    objects: int = 1_000_000
    size: int = 64 * GIB
    content: int = 4 * GIB
    ratio: int = 256


def take_pack(
    read: Callable[[int], bytes],
    repo: Repository,
    arriving: Incoming,
    readable: Iterable[bytes],
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Offer | None:
    """Read a git pack to its end and write what it holds to ``arriving``, whose extent it gives; None for an empty one.

    ``read`` gives at most so many bytes, none at the end only. ``readable`` are commits and tags that the sender may
    read here, with all that they reach. RefusedArrival for what is no honest pack, TooLarge for what is past a limit:
    then the file is removed.
    """
    reach = Reach(repo, readable) if repo.id else Nothing()
    try:
        arrival = _Arrival(repo, arriving, reach, limits)
        try:
            return arrival.run(read)
        finally:
            arrival.close()
    except BadPack as error:
        arriving.discard()
        raise refused(error.what) from error
    except BaseException:
        arriving.discard()
        raise


class _Arrival:
    """One pack on its way into a parcel."""

    def __init__(self, repo: Repository, arriving: Incoming, reach: Reach | Nothing, limits: Limits) -> None:
        self._repo = repo
        self._format = repo.home.format
        self._threshold = repo.settings.chunks_threshold
        self._limits = limits
        self._reach = reach
        self._parcel = _Parcel(repo, arriving)
        self._lent = self._parcel.lent
        self._offsets = array("Q")  # of the entries whose ids are known, as they come,
        self._ids: list[bytes] = []  # and their ids
        self._late: dict[int, bytes] = {}  # the same of those that had to wait
        self._depths: dict[bytes, int] = {}
        self._waiting: dict[int | bytes, list[tuple[int, bytes]]] = {}
        self._waiting_size = 0
        self._content = 0

    def close(self) -> None:
        """Close what was read back."""
        self._lent.close()

    def run(self, read: Callable[[int], bytes]) -> Offer | None:
        """All of it."""
        self._stream = stream = PackStream(read, self._format, self._limits.size)
        if stream.count > self._limits.objects:
            raise TooLarge(
                f"a git pack of {stream.count} objects; {self._limits.objects} are allowed",
                unchanged="nothing moved",
                hint="push versions in smaller groups",
            )
        for number in range(stream.count):
            self._entry(stream, stream.entry())
            self._repo.home.progress("receiving objects", number + 1, stream.count)
        stream.finish()
        if self._waiting:
            raise BadPack("a git pack holds a delta of an object that neither came nor can be read here")
        return self._parcel.finish()

    # ------------------------------------------------------------ entries

    def _entry(self, stream: PackStream, entry: PackEntry) -> None:
        if entry.base is None:
            oid = self._take(TYPES[entry.kind], entry.size, stream.contents(entry), None)
            self._arrived(entry.offset, oid)
            return
        base = self._base_of(entry)
        if base is None:
            self._wait(stream, entry)
            return
        self._count(entry.size)
        self._arrived(entry.offset, self._patched(base, stream.contents(entry), entry.size))

    def _base_of(self, entry: PackEntry) -> bytes | None:
        """The id of what a delta is of, if that is there: in the pack, or of the agent's own and readable."""
        if entry.kind == OFS_DELTA:
            at = bisect_left(self._offsets, entry.base)  # type: ignore[type-var]
            if at < len(self._offsets) and self._offsets[at] == entry.base:
                return self._ids[at]
            return self._late.get(entry.base)  # type: ignore[arg-type]
        oid = entry.base
        return oid if isinstance(oid, bytes) and (oid in self._lent.rows or self._may_use(oid)) else None

    def _may_use(self, oid: bytes) -> bool:
        """Whether an object of the agent's own is one that the sender may rely on."""
        return self._lent.own.find(oid) is not None and oid in self._reach

    def _wait(self, stream: PackStream, entry: PackEntry) -> None:
        """Keep a delta until what it is of comes."""
        self._waiting_size += entry.size
        if entry.size > WAITING or self._waiting_size > WAITING:
            raise BadPack("a git pack holds deltas long before what they are of, or of what cannot be read here")
        data = b"".join(stream.contents(entry))
        key = entry.base
        if key is None:
            raise AssertionError("an entry that waits is a delta")
        self._waiting.setdefault(key, []).append((entry.offset, data))

    def _arrived(self, offset: int, oid: bytes) -> None:
        """Note an object, and make those that waited for it."""
        self._offsets.append(offset)
        self._ids.append(oid)
        todo = deque([(offset, oid)])
        while todo and self._waiting:
            at, base = todo.popleft()
            for key in (at, base):
                for later, data in self._waiting.pop(key, ()):
                    self._waiting_size -= len(data)
                    made = self._patched(base, iter([data]), len(data))
                    self._late[later] = made
                    todo.append((later, made))

    def _patched(self, base: bytes, pieces: Iterator[bytes], length: int) -> bytes:
        """The id of what a delta makes of an object; ``length`` is the delta's own."""
        row = self._lent.require(base)
        depth = self._depths.get(base, 0) + 1
        if depth > DEEPEST:
            raise BadPack(f"a git pack holds a chain of more than {DEEPEST} deltas")
        delta = Delta(pieces)
        if delta.size > GROWTH * (row.size + length) + SLACK:
            raise BadPack(f"a delta of {length} bytes makes {delta.size} of {row.size}")
        kind = Kind.BLOB if row.kind == RecordKind.CHUNK_LIST else Kind(row.kind)
        found = self._take(kind, delta.size, delta.apply(self._content_of(row, delta.size)), base)
        self._depths[found] = depth
        return found

    def _content_of(self, row: ObjectRow, makes: int) -> Base:
        if row.kind == RecordKind.CHUNK_LIST:
            self._parcel.write()
            return _ChunkedBase(self._lent, row, makes)
        return WholeBase(self._parcel.content(row.id, row.kind))

    # ------------------------------------------------------------ objects

    def _count(self, size: int) -> None:
        """Take note of more content, before any of it is made."""
        self._content += size
        most = max(self._limits.content, self._limits.ratio * self._stream.offset)
        if self._content > most:
            raise TooLarge(
                f"{self._stream.offset} bytes of a git pack hold more than {most} of content",
                unchanged="nothing moved, and nothing of it is kept",
                hint="push versions in smaller groups",
            )

    def _take(self, kind: Kind, size: int, pieces: Iterator[bytes], like: bytes | None) -> bytes:
        """Add one object; its id. ``like`` is what it was made of."""
        if kind is Kind.BLOB and size > self._threshold:
            return self._take_large(size, pieces, like)
        if size > LARGEST[RecordKind(kind)]:
            raise BadPack(f"a {kind.name.lower()} of {size} bytes; {LARGEST[RecordKind(kind)]} are allowed")
        self._count(size)
        data = b"".join(pieces)
        oid = self._format.hash(kind, data)
        self._once(oid)
        if kind is Kind.BLOB and like is None and 0 < size <= blocks.SMALL:
            self._parcel.gather(oid, data)
        else:
            self._parcel.add(RecordKind(kind), oid, data, size, self._base_for(RecordKind(kind), size, like))
        self._lent.contents.put(oid, data, proven=True)
        return oid

    def _once(self, oid: bytes) -> None:
        if oid in self._lent.rows:
            raise BadPack(f"a git pack holds object {oid.hex()} twice")

    def _take_large(self, size: int, pieces: Iterator[bytes], like: bytes | None) -> bytes:
        if size > self._repo.settings.limits_max_file:
            raise TooLarge(
                f"a file of {size} bytes; {self._repo.settings.limits_max_file} are allowed",
                unchanged="nothing moved",
                hint="raise `limits.max_file` in .kai/config.yaml",
            )
        self._count(size)
        digest = self._format.header(Kind.BLOB, size)
        listing: list[tuple[bytes, int]] = []
        done = 0
        for batch in cut(_Pieces(pieces), self._listing(like), digest.update):
            for piece in batch:
                count = len(piece.data)
                listing.append((piece.id, count))
                if piece.id not in self._lent.rows and not self._may_use(piece.id):
                    base = self._base_for(RecordKind.CHUNK, count, piece.like)
                    self._parcel.add(RecordKind.CHUNK, piece.id, piece.data, count, base)
                done += count
                self._repo.home.progress("receiving a large file", done, size)
        oid = digest.digest()
        self._once(oid)
        packed = msgpack.packb(listing)
        if len(packed) > LARGEST[RecordKind.CHUNK_LIST]:
            raise TooLarge(f"a file of {size} bytes has too many chunks", unchanged="nothing moved")
        self._parcel.add(RecordKind.CHUNK_LIST, oid, packed, size, None)
        return oid

    def _listing(self, oid: bytes | None) -> Listing:
        """How a large blob is cut that another one is made of."""
        row = None if oid is None else self._lent.require(oid)
        return self._lent.chunk_list(row) if row is not None and row.kind == RecordKind.CHUNK_LIST else ()

    # ------------------------------------------------------------ what a record is encoded with

    def _base_for(self, kind: RecordKind, size: int, like: bytes | None) -> RecordBase | None:
        """What the record of an object that comes after ``like`` is encoded with; commits and tags stand alone."""
        if like is None or kind in (RecordKind.COMMIT, RecordKind.TAG) or not bases.SMALLEST <= size <= MAX_BASE:
            return None
        found = bases.choose(like, self._link)
        if found is None:
            return None
        base, ordinal = found
        if not 0 < base.size <= MAX_BASE or not bases.suits(kind, base.kind) or base.kind == RecordKind.CHUNK_LIST:
            return None
        return RecordBase(base.id, self._parcel.content(base.id, base.kind), ordinal)

    def _link(self, oid: bytes) -> Link | None:
        row = self._lent.rows.get(oid)
        if row is not None:
            return Link(oid, row.kind, row.size, row.base, self._parcel.ordinals.get(oid, 0))
        if not self._may_use(oid):
            return None
        link = self._lent.own.link(oid)
        # Of the agent's own only the content counts: the record is read as if it were the first of its chain.
        too_large = link is not None and link.size > self._threshold
        return None if link is None or too_large else link._replace(base=None, ordinal=0)


class _Parcel:
    """The records that become of a pack, in the file that they arrive in; ``lent`` reads them back."""

    def __init__(self, repo: Repository, arriving: Incoming) -> None:
        self._arriving = arriving
        self._level = repo.settings.compress_level
        self._pending: list[bytes] = [MAGIC]
        self._pending_size = len(MAGIC)
        self._end = len(MAGIC)
        self._records = 0
        self._small: dict[bytes, bytes] = {}
        self._small_size = 0
        self.ordinals: dict[bytes, int] = {}
        self.lent = Lent(repo.store, arriving.path, {})

    def add(self, kind: RecordKind, oid: bytes, data: bytes | memoryview, size: int, base: RecordBase | None) -> None:
        """Add one object as a record of its own."""
        if base is None:
            encoded = Encoded(encode(kind, oid, data, self._level), None, 0)
        else:
            encoded = encode_after(base, kind, oid, data, self._level)
        if encoded.base is not None:
            self.ordinals[oid] = encoded.ordinal
        self.lent.have(ObjectRow(oid, kind, LENT, self._end, len(encoded.record), size, encoded.base))
        self._append(encoded.record)

    def gather(self, oid: bytes, data: bytes) -> None:
        """Add a small object, in a block with others."""
        if self._small_size + len(data) > blocks.MAX_BLOCK or len(self._small) >= blocks.MAX_MEMBERS:
            self._add_small()
        self.lent.have(ObjectRow(oid, RecordKind.BLOB, LENT, 0, 0, len(data)))  # its place is not known yet
        self._small[oid] = data
        self._small_size += len(data)

    def _add_small(self) -> None:
        members, self._small, self._small_size = self._small, {}, 0
        if len(members) < blocks.FEWEST:
            for oid, data in members.items():
                self.add(RecordKind.BLOB, oid, data, len(data), None)
            return
        record = encode_block([(RecordKind.BLOB, *it) for it in members.items()], self._level)
        within = 0
        for oid, data in members.items():
            self.lent.have(ObjectRow(oid, RecordKind.BLOB, LENT, self._end, len(record), len(data), None, within))
            within += len(data)
        self._append(record)

    def _append(self, record: bytes) -> None:
        self._records += 1
        self._end += len(record)
        self._pending.append(record)
        self._pending_size += len(record)
        if self._pending_size >= BUFFER:
            self.write()

    def write(self) -> None:
        """Let all records be read that were added; those that wait for a block are not there yet."""
        if self._pending:
            self._arriving.append(b"".join(self._pending))
            self._pending, self._pending_size = [], 0

    def content(self, oid: bytes, kind: int) -> bytes:
        """The content of an object that is no large blob: one that was added, or the agent's own."""
        waiting = self._small.get(oid)
        if waiting is not None:
            return waiting
        row = self.lent.rows.get(oid)
        if row is not None and row.offset + row.length > self._end - self._pending_size:
            self.write()
        return self.lent.proven(oid, kind)

    def finish(self) -> Offer | None:
        """All is there; None if nothing is."""
        if self._small:
            self._add_small()
        self.write()
        if not self._records:
            self._arriving.discard()
            return None
        return self._arriving.measured(self._records)


class _Pieces:
    """What an iterator gives, as something to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class _ChunkedBase:
    """A large blob as what a delta is applied to."""

    def __init__(self, store: ObjectStore, row: ObjectRow, makes: int) -> None:
        self._store = store
        self._listing = store.chunk_list(row)
        self._starts = array("Q", accumulate((size for _, size in self._listing), initial=0))
        self._open: OrderedDict[int, bytes] = OrderedDict()
        self._left = SEEKS * (row.size + makes)
        self.size = row.size

    def range(self, start: int, count: int) -> bytes:
        """Some of its bytes."""
        found = []
        at = bisect_left(self._starts, start + 1) - 1
        while count:
            chunk = self._chunk(at)
            part = chunk[start - self._starts[at] :][:count]
            found.append(part)
            start, count, at = start + len(part), count - len(part), at + 1
        return b"".join(found)

    def _chunk(self, number: int) -> bytes:
        data = self._open.pop(number, None)
        if data is None:
            oid, size = self._listing[number]
            self._left -= size
            if self._left < 0:
                raise BadPack("a delta takes what it copies of a large file from all over it, again and again")
            row = self._store.require(oid)
            data = self._store.record(row)
            if len(data) != size:
                raise ChecksumMismatch(f"chunk {oid.hex()} is not what its list says")
            while len(self._open) >= OPEN_CHUNKS:
                self._open.popitem(last=False)
        self._open[number] = data
        return data
