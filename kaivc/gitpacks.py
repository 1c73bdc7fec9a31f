"""Git packs made of what the store holds: https://git-scm.com/docs/gitformat-pack, version 2.

::

    plan = missing(repo, wants, haves)          # what is in it: its number stands at the head of a pack
    for piece in write_pack(repo, plan): ...    # its bytes; a blob of any size goes by in pieces

Every object is whole: one that is encoded with another has no place in a pack that is made as it is sent. An object is
one zlib stream behind its kind and size; the trailer is the home's own hash of all that went before.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

from kaivc import parcels
from kaivc.names import ObjectId
from kaivc.records import dataclass
from kaivc.repository import OpenHome, Repository
from kaivc.storage import index
from kaivc.storage.gitobjects import Kind
from kaivc.storage.index import ObjectRow
from kaivc.storage.pack import RecordKind
from kaivc.storage.store import ObjectStore

PIECE = 32 << 10
"""Bytes that are given at once, about; small enough for one packet of git's protocol."""
SMALL_LEVEL, LARGE_LEVEL = 6, 1
"""How hard zlib tries: what is large is sent as it comes."""
_TYPES = {Kind.COMMIT: 1, Kind.TREE: 2, Kind.BLOB: 3, Kind.TAG: 4}
"""By git's numbers, which are not those of our records."""
_ORDER = (Kind.COMMIT, Kind.TAG, Kind.TREE, Kind.BLOB)
"""Names come first, so that who reads a pack learns early whose it is."""


@dataclass(frozen=True)
class PackPlan:
    """The git objects of a pack, in the order in which they go; ``size`` is their content, in bytes."""

    rows: tuple[ObjectRow, ...]
    size: int


def missing(repo: Repository, wants: Iterable[bytes], haves: Iterable[bytes]) -> PackPlan:
    """What must travel so that who has ``haves``, with all that they reach, has ``wants`` too; as ``parcels.plan``."""
    return plan_of(parcels.rows_missing(repo, wants, haves))


def plan_of(rows: Iterable[ObjectRow]) -> PackPlan:
    """A pack of these objects; chunks are passed over, since the blobs that they make are there too."""
    whole = [row for row in rows if row.kind != RecordKind.CHUNK]
    whole.sort(key=lambda row: (_ORDER.index(kind_of(row)), row.pack, row.offset, row.within))
    return PackPlan(tuple(whole), sum(row.size for row in whole))


def kind_of(row: ObjectRow) -> Kind:
    """What git takes an object for."""
    return Kind.BLOB if row.kind == RecordKind.CHUNK_LIST else Kind(row.kind)


def write_pack(repo: Repository, plan: PackPlan) -> Iterator[bytes]:
    """The bytes of a pack, in pieces of about ``PIECE``."""
    return write_packs(repo.home, [(repo, plan)])


def write_packs(home: OpenHome, parts: Sequence[tuple[Repository, PackPlan]]) -> Iterator[bytes]:
    """The bytes of one pack of objects of several agents, none of them twice."""
    digest = home.format.new()
    for piece in _gathered(_pieces(parts)):
        digest.update(piece)
        yield piece
    yield digest.digest()


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that are neither tiny nor large."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= PIECE:
            view = memoryview(b"".join(held))
            held, size = [], 0
            for start in range(0, len(view), PIECE):
                yield bytes(view[start : start + PIECE])
    if held:
        yield b"".join(held)


def _pieces(parts: Sequence[tuple[Repository, PackPlan]]) -> Iterator[bytes]:
    yield struct.pack(">4sII", b"PACK", 2, sum(len(plan.rows) for _, plan in parts))
    for repo, plan in parts:
        yield from _entries(repo, plan)


def _entries(repo: Repository, plan: PackPlan) -> Iterator[bytes]:
    store = repo.store
    for start in range(0, len(plan.rows), index.AT_ONCE):
        group = plan.rows[start : start + index.AT_ONCE]
        store.look_up(row.id for row in group)
        for row in group:
            yield entry_head(kind_of(row), row.size)
            yield from _deflated(_content(store, row), row.size)


def _content(store: ObjectStore, row: ObjectRow) -> Iterator[bytes]:
    if row.kind in (RecordKind.BLOB, RecordKind.CHUNK_LIST):
        return store.stream(ObjectId(row.id))
    return iter([store.record(row)])


def _deflated(data: Iterable[bytes], size: int) -> Iterator[bytes]:
    zipped = zlib.compressobj(SMALL_LEVEL if size <= PIECE else LARGE_LEVEL)
    for piece in data:
        yield zipped.compress(piece)
    yield zipped.flush()


def entry_head(kind: Kind, size: int) -> bytes:
    """The kind and the size that stand before an object's zlib stream."""
    rest = size >> 4
    head = bytearray([_TYPES[kind] << 4 | size & 15 | (0x80 if rest else 0)])
    while rest:
        head.append(rest & 0x7F | (0x80 if rest > 0x7F else 0))  # noqa: PLR2004 - seven bits each
        rest >>= 7
    return bytes(head)
