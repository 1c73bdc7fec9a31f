"""Read everything that packs hold, without a catalog: what a new one can be made from.

Only whole records count, and objects only if their bytes are those of their id. Memory: a small constant for each
object and op record.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from kaivc.errors import ChecksumMismatch, KaiError, StorageFailed
from kaivc.ports import Progress
from kaivc.records import dataclass, field, replace
from kaivc.storage import bases, packscan
from kaivc.storage.bases import Contents, Found
from kaivc.storage.chain import OpRecord, read_op
from kaivc.storage.gitobjects import SHA1, SHA256, MalformedObject, ObjectFormat
from kaivc.storage.pack import MAGIC, TRAILER, Header, PackReader, RecordKind
from kaivc.storage.packscan import GIT_KINDS, Delta, Gap, Record
from kaivc.storage.store import decode_chunk_list
from kaivc.vfs import unless_short

SUFFIX = ".pack"
READERS = 16
OPEN_BLOCKS = 8
COPIES = 32
"""Further records of one object that are looked at: a home has a few, a forged pack any number."""


class Place(NamedTuple):
    """A whole record: its pack's name, where in it, and what its header says; ``within`` is the place in a block.

    ``below`` is the very record that a chunk list is encoded with: its id says which blob, not how that is cut. So is
    that of another whose base's id has copies of different kinds.
    """

    pack: str
    offset: int
    length: int
    kind: int
    size: int
    base: bytes | None = None
    within: int = -1
    ordinal: int = 0
    below: Place | None = None


@dataclass(frozen=True)
class PackFacts:
    """One pack as it is: ``end`` is where its last whole record (or its trailer) ends.

    ``damaged`` says why it cannot go on as it is; empty if it can. A torn tail is no damage: nothing names it.
    """

    name: str
    size: int
    end: int
    sealed: bool
    torn: bool
    damaged: str


@dataclass
class AgentFacts:
    """What the packs of one directory hold. ``ops`` are by digest, with where they lie.

    ``copies`` are further records of objects: gc forgets one that is dead, but leaves it where too little comes back.
    ``waiting`` are records whose content cannot be had, for what they are encoded with is missing.
    """

    name: str
    packs: dict[str, PackFacts] = field(default_factory=dict)
    objects: dict[bytes, Place] = field(default_factory=dict)
    ops: dict[bytes, tuple[OpRecord, Place]] = field(default_factory=dict)
    copies: dict[bytes, list[Place]] = field(default_factory=dict)
    waiting: dict[bytes, list[Place]] = field(default_factory=dict)

    def add(self, oid: bytes, place: Place) -> None:
        """Let a record count that is what its id says."""
        if self.objects.setdefault(oid, place) is not place:
            copies = self.copies.setdefault(oid, [])
            if len(copies) < COPIES:
                copies.append(place)

    def places(self, oid: bytes) -> list[Place]:
        """All records of an object, the one that counts first."""
        return [self.objects[oid], *self.copies.get(oid, ())] if oid in self.objects else []


class PlaceReader:
    """Reads the contents of records by their places in one directory; ``place_of`` finds a base by its id."""

    def __init__(self, directory: str, place_of: Callable[[bytes], Place | None]) -> None:
        self._directory = directory
        self._place_of = place_of
        self._readers: dict[str, PackReader] = {}
        self._contents = Contents()
        self._blocks: dict[tuple[str, int], tuple[Header, bytes]] = {}

    def content(self, place: Place) -> bytes:
        """The content of a record; ChecksumMismatch if it is not whole, or what it is encoded with cannot be had."""
        if place.below is not None:  # no deeper than weights fall
            reader = self._reader(place.pack)
            return reader.payload(reader.header(place.offset), self.content(place.below))
        return bases.decode(self._found(place), self._base, self._contents)

    def stored(self, place: Place) -> bytes:
        """A whole record as it is stored."""
        return self._reader(place.pack).whole(place.offset, place.length)[1]

    def know(self, oid: bytes, data: bytes) -> None:
        """Use a content that lies in no pack yet."""
        self._contents.put(oid, data)

    def _found(self, place: Place) -> Found:
        if place.within >= 0:
            header, data = self._block(place)
            content = data[place.within :][: place.size]
            return Found(
                header._replace(kind=place.kind, size=place.size), lambda: self._reader(place.pack), b"", content
            )
        header = self._reader(place.pack).header(place.offset)
        if place.below is not None:
            return Found(header._replace(base=None), lambda: self._reader(place.pack), b"", self.content(place))
        return Found(header, lambda: self._reader(place.pack))

    def _block(self, place: Place) -> tuple[Header, bytes]:
        """The block that an object lies in; a few are kept, for its neighbours."""
        key = (place.pack, place.offset)
        if key not in self._blocks:
            reader = self._reader(place.pack)
            header = reader.header(place.offset)
            while len(self._blocks) >= OPEN_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[key] = header, reader.payload(header)
        return self._blocks[key]

    def _base(self, oid: bytes) -> Found:
        place = self._place_of(oid)
        if place is None:
            raise ChecksumMismatch(f"record {oid.hex()}, which others are encoded with, is in no pack")
        return self._found(place)

    def _reader(self, pack: str) -> PackReader:
        reader = self._readers.get(pack)
        if reader is None:
            while len(self._readers) >= READERS:
                self._readers.pop(next(iter(self._readers))).close()
            reader = self._readers[pack] = packscan.open_reader(os.path.join(self._directory, pack + SUFFIX))
        return reader

    def close(self) -> None:
        """Close all packs."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


def directories(packs: str) -> list[str]:
    """The names of the directories that hold packs."""
    if not os.path.isdir(packs):
        return []
    with os.scandir(packs) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def pack_names(directory: str) -> list[str]:
    """The names of the packs in a directory, without their suffix."""
    if not os.path.isdir(directory):
        return []
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def gather(
    name: str, directory: str, object_format: ObjectFormat, committed: dict[str, int], progress: Progress
) -> AgentFacts:
    """Read the packs of one agent. ``committed`` is how far each one is known to have been written, if it is."""
    facts = AgentFacts(name)
    for pack in pack_names(directory):
        path = os.path.join(directory, pack + SUFFIX)
        try:
            reader = packscan.open_reader(path)
        except PermissionError as error:
            raise StorageFailed(
                f"pack {path!r} cannot be opened: {error.strerror}",
                unchanged="nothing was repaired",
                hint="run it as a user who may read the pack: without it, what it holds would be taken for lost",
            ) from error
        except OSError as error:
            unless_short(error)
            facts.packs[pack] = _unreadable(pack, f"it cannot be opened: {error.strerror}")
            continue
        try:
            facts.packs[pack] = _one(facts, reader, pack, object_format, committed.get(pack, 0))
        except StorageFailed as error:
            facts.packs[pack] = _unreadable(pack, error.what)
        finally:
            reader.close()
        progress("reading packs", len(facts.objects), None)
    places = PlaceReader(directory, facts.objects.get)
    try:
        resolve(facts, places, object_format)
    finally:
        places.close()
    return facts


def resolve(facts: AgentFacts, places: PlaceReader, object_format: ObjectFormat) -> None:
    """Let those of the waiting records count whose bases are there, and whose bytes are those of their ids.

    One that has its base and is something else all the same makes its pack damaged. Of several records of an object the
    one of the least weight counts, for whatever is encoded with any of them may be encoded with that one; of several
    chunk lists the first whose chunks are there.
    """
    waiting = [(oid, place) for oid, copies in facts.waiting.items() for place in copies]
    facts.waiting.clear()
    # Lists last: by then it is known which chunks there are.
    for oid, place in sorted(
        waiting, key=lambda it: (it[1].kind == RecordKind.CHUNK_LIST, bases.weight(it[1].ordinal))
    ):
        below = [it for it in facts.places(place.base or b"") if _may_be_base(it, place)]
        if not below:
            facts.waiting.setdefault(oid, []).append(place)
        elif (true := _true(oid, place, below, facts, places, object_format)) is not None:
            facts.add(oid, true)
        elif not facts.packs[place.pack].damaged:
            why = f"the bytes at byte {place.offset} are not those of their id"
            facts.packs[place.pack] = replace(facts.packs[place.pack], damaged=why)
    for oid in facts.copies:
        _prefer_whole_list(oid, facts, places)


def _may_be_base(base: Place, place: Place) -> bool:
    return bases.suits(place.kind, base.kind) and bases.weight(base.ordinal) < bases.weight(place.ordinal)


def _true(
    oid: bytes, place: Place, below: list[Place], facts: AgentFacts, places: PlaceReader, object_format: ObjectFormat
) -> Place | None:
    """A record that has a base, if it is what its id says with one of the records that its base may be."""
    if place.kind != RecordKind.CHUNK_LIST and below[0] is facts.objects[place.base or b""]:
        return place if _is_true(oid, place, places, object_format) else None  # any copy of that has the same bytes
    bound = (place._replace(below=it) for it in below)
    return next((it for it in bound if _is_true(oid, it, places, object_format)), None)


def _prefer_whole_list(oid: bytes, facts: AgentFacts, places: PlaceReader) -> None:
    """Let the first record of a large blob count all of whose chunks are there: each copy may be cut otherwise."""
    copies = facts.places(oid)
    if copies[0].kind != RecordKind.CHUNK_LIST:
        return
    for number, place in enumerate(copies):
        if place.kind != RecordKind.CHUNK_LIST or all(chunk in facts.objects for chunk, _ in _listed(place, places)):
            facts.objects[oid] = copies.pop(number)
            facts.copies[oid] = copies
            return


def _listed(place: Place, places: PlaceReader) -> list[tuple[bytes, int]]:
    try:
        return decode_chunk_list(places.content(place))
    except (KaiError, OSError) as error:
        unless_short(error)
        return [(b"", 0)]


def _is_true(oid: bytes, place: Place, places: PlaceReader, object_format: ObjectFormat) -> bool:
    """Whether a record that has a base is what its id says."""
    try:
        found = packscan.true_id_of(place.kind, places.content(place), object_format)
    except (KaiError, OSError) as error:
        unless_short(error)
        return False
    return found in (None, oid)


def _unreadable(pack: str, why: str) -> PackFacts:
    return PackFacts(pack, 0, 0, sealed=False, torn=True, damaged=why)


def _one(facts: AgentFacts, reader: PackReader, pack: str, object_format: ObjectFormat, committed: int) -> PackFacts:
    size = packscan.size(reader)
    why = "" if packscan.magic_is_whole(reader) else "it does not begin as a pack does"
    end, gap = len(MAGIC), None
    headers: list[Header] = []
    footer: Record | None = None
    for item in packscan.survey(reader, len(MAGIC), size):
        if isinstance(item, Gap):
            gap = gap or item
            continue
        if gap is not None:
            why = why or f"{gap.why} at byte {gap.offset}"  # whole records follow: it is no torn tail
        end = item.end
        if isinstance(item, Record) and item.header.kind == RecordKind.FOOTER:
            footer = item
            continue
        headers.append(item.header)
        if isinstance(item, Delta):
            facts.waiting.setdefault(item.header.id, []).append(_place(item.header, pack))
        elif not _note_all(facts, item, pack, object_format):
            why = why or f"the bytes at byte {item.header.where.offset} are not those of their id"
    torn = gap is not None and gap.offset >= end
    if gap is not None and gap.offset < committed:
        why = why or f"{gap.why} at byte {gap.offset}"
    if size < committed:
        why = why or f"it ends at byte {size}, {committed} were committed"
    trailer = packscan.footer_offset(reader, size)
    why = why or _unsealed(footer, trailer, headers, size)
    sealed = footer is not None and trailer is not None
    return PackFacts(pack, size, size if sealed else end, sealed=sealed, torn=torn, damaged=why)


def _unsealed(footer: Record | None, trailer: int | None, headers: list[Header], size: int) -> str:
    """What is wrong with the end of a sealed pack; nothing is with that of an open one."""
    if footer is None and trailer is None:
        return ""
    if footer is None or trailer != footer.header.where.offset or footer.end + TRAILER.size != size:
        return "its footer and its trailer do not fit"
    return "" if packscan.footer_of(headers) == footer.data else "its footer lists other records"


def _note_all(facts: AgentFacts, record: Record, pack: str, object_format: ObjectFormat) -> bool:
    """Keep all objects of a record that are what their ids say; whether all are."""
    kept = [_note(facts, it, pack, object_format, within) for within, it in packscan.objects_in(record)]
    return all(kept)


def _note(facts: AgentFacts, record: Record, pack: str, object_format: ObjectFormat, within: int) -> bool:
    """Keep a record that is what its id says; whether it is."""
    header = record.header
    true = packscan.true_id(record, object_format)
    if true is not None and true != header.id:
        return False
    place = _place(header, pack)._replace(within=within)
    if header.kind == RecordKind.OP:
        try:
            facts.ops.setdefault(header.id, (read_op(record.data), place))
        except MalformedObject:
            return False
    else:
        facts.add(header.id, place)
    return True


def _place(header: Header, pack: str) -> Place:
    return Place(
        pack, header.where.offset, header.where.length, header.kind, header.size, header.base, -1, header.ordinal
    )


def guess_format(directories_: list[str]) -> ObjectFormat | None:
    """The object format that the ids in some packs have; None if none holds a git object."""
    for directory in directories_:
        for pack in pack_names(directory):
            for record in _records(os.path.join(directory, pack + SUFFIX)):
                if record.header.kind in GIT_KINDS:
                    return SHA1 if len(record.header.id) == SHA1.width else SHA256
    return None


def has_chain(directory: str, name: str) -> bool:
    """Whether the packs in a directory hold an op record of the agent of that name."""
    for pack in pack_names(directory):
        for record in _records(os.path.join(directory, pack + SUFFIX)):
            if record.header.kind == RecordKind.OP:
                with suppress(MalformedObject):
                    if read_op(record.data).agent == name:
                        return True
    return False


def _records(path: str) -> Iterator[Record]:
    try:
        reader = packscan.open_reader(path)
    except OSError as error:
        unless_short(error)
        return
    try:
        for item in packscan.survey(reader, len(MAGIC), packscan.size(reader)):
            if isinstance(item, Record):
                yield item
    except StorageFailed:
        return
    finally:
        reader.close()
