"""What one agent's packs hold, read without a catalog, with what was found again of what they lost."""

from __future__ import annotations

from collections.abc import Callable

from kaivc.healing import Donor
from kaivc.names import tag_name
from kaivc.records import dataclass, field
from kaivc.storage.gather import AgentFacts, Place, PlaceReader
from kaivc.storage.gitobjects import (
    DIRECTORY,
    Kind,
    MalformedObject,
    ObjectFormat,
    decode_commit,
    decode_tag,
    decode_tree,
)
from kaivc.storage.oldcatalog import OldAgent
from kaivc.storage.pack import RecordKind
from kaivc.storage.rechain import Chain
from kaivc.storage.store import decode_chunk_list


@dataclass
class Source:
    """Where a healed record comes from."""

    kind: int
    load: Callable[[], bytes]
    origin: str
    size: int


@dataclass
class Stock:
    """One agent, being put together from its packs in ``directory``.

    ``sources`` are records that were found again, ``files`` blobs that files still hold; ``lost`` is nowhere.
    """

    name: str
    directory: str
    format: ObjectFormat
    facts: AgentFacts
    old: OldAgent | None
    chain: Chain
    refs: dict[str, bytes] = field(default_factory=dict)
    brought_back: list[str] = field(default_factory=list)
    lost_versions: list[str] = field(default_factory=list)
    sources: dict[bytes, Source] = field(default_factory=dict)
    files: dict[bytes, Donor] = field(default_factory=dict)
    lost: list[bytes] = field(default_factory=list)
    whole_lists: set[bytes] = field(default_factory=set)
    places: PlaceReader = field(init=False)

    def __post_init__(self) -> None:
        self.places = PlaceReader(self.directory, self.facts.objects.get)

    @property
    def damaged(self) -> list[str]:
        """The packs that cannot go on as they are."""
        return [name for name, pack in self.facts.packs.items() if pack.damaged]

    def read(self, oid: bytes) -> bytes:
        """The content of a record that was found whole; KeyError if there is none."""
        source = self.sources.get(oid)
        if source is not None:
            return source.load()
        place = self.facts.objects[oid]
        return self.content(place)

    def content(self, place: Place) -> bytes:
        """The content of a record."""
        return self.places.content(place)

    def through(self, place: Place) -> bytes:
        """The content of a record whose base was found again."""
        base = place.base or b""
        self.places.know(base, self.files[base].read() if base in self.files else self.read(base))
        return self.places.content(place)

    def stored(self, place: Place) -> bytes:
        """A whole record as it is stored."""
        return self.places.stored(place)

    def close(self) -> None:
        """Close all packs."""
        self.places.close()

    def missing(self, refs: dict[str, bytes]) -> dict[bytes, tuple[int, str]]:
        """What is reachable from some refs and cannot be had: by id, the kind that it must be and a ref it is under."""
        missing: dict[bytes, tuple[int, str]] = {}
        seen: set[bytes] = set()
        todo = [(oid, int(Kind.COMMIT if tag_name(name) is None else Kind.TAG), name) for name, oid in refs.items()]
        while todo:
            oid, kind, ref = todo.pop()
            if oid in seen:
                continue
            seen.add(oid)
            if not self.has(oid, kind):
                missing[oid] = (kind, ref)
            elif kind != Kind.BLOB:
                todo += [(below, what, ref) for below, what in self.below(oid, kind)]
        return missing

    def has(self, oid: bytes, kind: int) -> bool:
        """Whether an object of that kind can be had, large blobs with all their chunks."""
        if oid in self.sources or oid in self.files:
            return True
        place = self.facts.objects.get(oid)
        if place is None:
            return False
        if place.kind == RecordKind.CHUNK_LIST:
            return kind == Kind.BLOB and self.is_whole(oid)
        return place.kind == kind

    def is_whole(self, oid: bytes) -> bool:
        """Whether all chunks of a large blob are there, and make it."""
        if oid not in self.whole_lists:
            listed = self.listed(oid)
            digest = self.format.header(Kind.BLOB, sum(size for _, size in listed))
            for chunk_id, _ in listed:
                if chunk_id not in self.sources and chunk_id not in self.facts.objects:
                    return False
                digest.update(self.read(chunk_id))
            if digest.digest() != oid:
                return False
            self.whole_lists.add(oid)
        return True

    def listed(self, oid: bytes) -> list[tuple[bytes, int]]:
        """The (id, size) of each chunk of a large blob; none if its list cannot be read."""
        try:
            return decode_chunk_list(self.read(oid))
        except MalformedObject:
            return []

    def below(self, oid: bytes, kind: int) -> list[tuple[bytes, int]]:
        """What an object names, with the kinds that those must be."""
        data, width = self.read(oid), self.format.width
        try:
            if kind == Kind.TAG:
                return [(decode_tag(data, width).target, Kind.COMMIT)]
            if kind == Kind.COMMIT:
                commit = decode_commit(data, width)
                return [(commit.tree, Kind.TREE), *([(commit.parent, Kind.COMMIT)] if commit.parent else [])]
            entries = decode_tree(data, width)
            return [(entry.oid, Kind.TREE if entry.mode == DIRECTORY else Kind.BLOB) for _, entry in entries]
        except MalformedObject:
            return []

    def reached(self) -> set[bytes]:
        """The ids of all that refs, or moves of refs, name."""
        named = {oid for link in self.chain.links for move in link.record.moves for oid in (move.old, move.new) if oid}
        reached: set[bytes] = set()
        todo = [*named, *self.refs.values()]
        while todo:
            oid = todo.pop()
            place = self.facts.objects.get(oid)
            if oid in reached or (place is None and oid not in self.sources):
                continue
            reached.add(oid)
            if place is not None and place.base is not None:
                todo.append(place.base)
            kind = place.kind if place is not None else self.sources[oid].kind
            if kind == RecordKind.CHUNK_LIST:
                todo += [chunk_id for chunk_id, _ in self.listed(oid)]
            elif kind in (Kind.TAG, Kind.COMMIT, Kind.TREE):
                todo += [below for below, _ in self.below(oid, kind)]
        return reached

    def astray(self) -> dict[bytes, Place]:
        """Whole records that no index can name as they are: their base will be another record, or none."""
        return {
            oid: place
            for oid, place in self.facts.objects.items()
            if place.below is not None and not self._stays(place.base or b"", place.below)
        }

    def _stays(self, base: bytes, below: Place) -> bool:
        """Whether a base will be the record that it was."""
        if base in self.sources or base in self.files or self.facts.objects.get(base) != below:
            return False
        held = (self.facts.objects, self.sources)
        listed = self.listed_at(below) if below.kind == RecordKind.CHUNK_LIST else []
        return all(any(chunk_id in it for it in held) for chunk_id, _ in listed)

    def listed_at(self, place: Place) -> list[tuple[bytes, int]]:
        """The (id, size) of each chunk in a chunk list; none if it cannot be read."""
        try:
            return decode_chunk_list(self.content(place))
        except MalformedObject:
            return []
