"""A fresh pack for what is worth keeping of damaged ones, and for what was found again."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container

import msgpack

from kaivc.errors import ChecksumMismatch
from kaivc.healing import Donor
from kaivc.repository import OpenHome
from kaivc.stock import Stock
from kaivc.storage.chunking import cut
from kaivc.storage.gather import Place
from kaivc.storage.gitobjects import Kind
from kaivc.storage.pack import PackWriter, RecordKind

Add = Callable[[int, bytes, bytes], None]


def write(home: OpenHome, stock: Stock, fresh: list[str], *, shared: bool) -> dict[bytes, Place]:
    """Write the good records of damaged packs, and what was healed, to a new pack, whose path goes to ``fresh``.

    Where they lie now; ChecksumMismatch if a file that bytes are taken from changes meanwhile.
    """
    damaged, astray = set(stock.damaged), stock.astray()
    if not damaged and not astray and not stock.sources and not stock.files:
        return {}
    vfs, layout, level = home.vfs, home.layout, home.settings.compress_level
    name = secrets.token_hex(8)
    path = layout.pack(stock.name, name)
    vfs.make_dirs(layout.pack_dir(stock.name), 0o770 if shared else 0o700)
    fresh.append(path)
    writer = PackWriter.create(vfs, path)
    moved: dict[bytes, Place] = {}

    def add(kind: int, oid: bytes, data: bytes) -> None:
        if oid not in moved:
            where = writer.add(kind, oid, data, level)
            moved[oid] = Place(name, where.offset, where.length, kind, len(data))

    try:
        moved |= _whole_records(stock, writer, name, astray)
        for oid, place in astray.items():
            add(place.kind, oid, stock.content(place))
        for oid, (_, place) in stock.facts.ops.items():
            if place.pack in damaged:
                add(place.kind, oid, stock.content(place))
        for oid, source in stock.sources.items():
            add(source.kind, oid, source.load())
        for oid, donor in stock.files.items():
            _add_file(home, stock, oid, donor, add)
        writer.sync()
    finally:
        writer.close()
        stock.close()
    vfs.sync_dir(layout.pack_dir(stock.name))
    vfs.sync_dir(layout.packs)
    return moved


def _whole_records(stock: Stock, writer: PackWriter, name: str, but: Container[bytes]) -> dict[bytes, Place]:
    """Copy the good records of damaged packs as they are stored, a block once for all of its objects."""
    damaged, moved = set(stock.damaged), {}
    copied: dict[tuple[str, int], int] = {}
    for oid, place in stock.facts.objects.items():
        if place.pack in damaged and oid not in but:
            at = copied.get((place.pack, place.offset))
            if at is None:
                at = copied[place.pack, place.offset] = writer.append(stock.stored(place)).offset
            moved[oid] = place._replace(pack=name, offset=at)
    return moved


def _add_file(home: OpenHome, stock: Stock, oid: bytes, donor: Donor, add: Add) -> None:
    """A blob from a file, as a commit would store it; ChecksumMismatch if it changed meanwhile."""
    if donor.is_link or donor.size <= home.settings.chunks_threshold:
        data = donor.read()
        _same(stock.format.hash(Kind.BLOB, data), oid)
        add(RecordKind.BLOB, oid, data)
        return
    digest = stock.format.header(Kind.BLOB, donor.size)
    listing: list[tuple[bytes, int]] = []
    with open(donor.path, "rb") as file:
        for piece in (piece for batch in cut(file, took=digest.update) for piece in batch):
            listing.append((piece.id, len(piece.data)))
            add(RecordKind.CHUNK, piece.id, bytes(piece.data))
    _same(digest.digest(), oid)
    add(RecordKind.CHUNK_LIST, oid, msgpack.packb(listing))


def _same(found: bytes, wanted: bytes) -> None:
    if found != wanted:
        raise ChecksumMismatch(
            "a file changed while bytes were taken from it", unchanged="nothing was repaired", hint="run it again"
        )
