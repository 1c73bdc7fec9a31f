"""Git packs made of what the store holds: https://git-scm.com/docs/gitformat-pack, version 2.

::

    plan = missing(repo, wants, haves)          # what is in it: its number stands at the head of a pack
    for piece in write_pack(repo, plan): ...    # its bytes; a blob of any size goes by in pieces

A large blob goes as a delta of one that is cut into the same chunks, every other object whole. An object is one zlib
stream behind its kind and size; the trailer is the home's own hash of all that went before.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, starmap
from typing import NamedTuple

from kaivc import parcels
from kaivc.gitdeltas import REF_DELTA, Deltas
from kaivc.names import ObjectId
from kaivc.records import dataclass
from kaivc.repository import OpenHome, Repository
from kaivc.storage import index
from kaivc.storage.gitobjects import Kind, ObjectFormat
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
    bases: tuple[ObjectRow, ...] = ()
    """Large blobs that the other side has, and that deltas may be of: a pack of such is thin."""


def missing(repo: Repository, wants: Iterable[bytes], haves: Iterable[bytes], *, thin: bool = False) -> PackPlan:
    """What must travel so that who has ``haves``, with all that they reach, has ``wants`` too; as ``parcels.plan``.

    ``thin``: large blobs may go as deltas of what the other side has.
    """
    rows, near = parcels.rows_missing_and_near(repo, wants, haves)
    return plan_of(rows, near if thin else ())


def plan_of(rows: Iterable[ObjectRow], bases: Iterable[ObjectRow] = ()) -> PackPlan:
    """A pack of these objects; chunks are passed over, since the blobs that they make are there too."""
    whole = [row for row in rows if row.kind != RecordKind.CHUNK]
    whole.sort(key=lambda row: (_ORDER.index(kind_of(row)), row.pack, row.offset, row.within))
    return PackPlan(tuple(whole), sum(row.size for row in whole), tuple(bases))


def kind_of(row: ObjectRow) -> Kind:
    """What git takes an object for."""
    return Kind.BLOB if row.kind == RecordKind.CHUNK_LIST else Kind(row.kind)


def write_pack(repo: Repository, plan: PackPlan) -> Iterator[bytes]:
    """The bytes of a pack, in pieces of about ``PIECE``."""
    return write_packs(repo.home, [(repo, plan)])


def write_packs(home: OpenHome, parts: Sequence[tuple[Repository, PackPlan]]) -> Iterator[bytes]:
    """The bytes of one pack of objects of several agents, none of them twice."""
    count = sum(len(plan.rows) for _, plan in parts)
    return written(home.format, count, chain.from_iterable(starmap(entries, parts)))


class Entry(NamedTuple):
    """An object of a pack, with its content in pieces that make ``size`` bytes.

    With ``base``, the id of another object, these are the instructions that make it of that one.
    """

    kind: Kind
    size: int
    content: Iterable[bytes]
    base: bytes = b""


def written(form: ObjectFormat, count: int, listed: Iterable[Entry]) -> Iterator[bytes]:
    """The bytes of a pack of so many entries, with the trailer of a format."""
    digest = form.new()
    for piece in _gathered(_pieces(count, listed)):
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


def _pieces(count: int, listed: Iterable[Entry]) -> Iterator[bytes]:
    yield struct.pack(">4sII", b"PACK", 2, count)
    for entry in listed:
        yield entry_head(REF_DELTA if entry.base else _TYPES[entry.kind], entry.size) + entry.base
        yield from _deflated(entry.content, entry.size)


def entries(repo: Repository, plan: PackPlan) -> Iterator[Entry]:
    """The objects of a plan, each to be read before the next is asked for."""
    store = repo.store
    deltas = Deltas(store, plan.bases)
    for start in range(0, len(plan.rows), index.AT_ONCE):
        group = plan.rows[start : start + index.AT_ONCE]
        store.look_up(row.id for row in group)
        for row in group:
            delta = deltas.of(row)
            if delta is None:
                yield Entry(kind_of(row), row.size, _content(store, row))
            else:
                yield Entry(Kind.BLOB, delta.length, delta.pieces(store), delta.base)


def _content(store: ObjectStore, row: ObjectRow) -> Iterator[bytes]:
    if row.kind in (RecordKind.BLOB, RecordKind.CHUNK_LIST):
        return store.stream(ObjectId(row.id))
    return iter([store.record(row)])


def _deflated(data: Iterable[bytes], size: int) -> Iterator[bytes]:
    zipped = zlib.compressobj(SMALL_LEVEL if size <= PIECE else LARGE_LEVEL)
    for piece in data:
        yield zipped.compress(piece)
    yield zipped.flush()


def entry_head(number: int, size: int) -> bytes:
    """Git's number of a kind, and the size, that stand before an object's zlib stream."""
    rest = size >> 4
    head = bytearray([number << 4 | size & 15 | (0x80 if rest else 0)])
    while rest:
        head.append(rest & 0x7F | (0x80 if rest > 0x7F else 0))  # noqa: PLR2004 - seven bits each
        rest >>= 7
    return bytes(head)
