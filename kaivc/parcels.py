"""Parcels: what one side of a transfer has and the other lacks, as records that travel as they are stored.

A parcel is the magic of a pack and whole records behind it: no footer, no op records. A record goes as it is stored if
what it is encoded with goes along, or is known to be there already; else its content is encoded anew, by itself. So
that nobody learns of objects that were not asked for, a block goes only if all its members do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from kaivc.names import ObjectId
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.storage import index
from kaivc.storage.gitobjects import DIRECTORY, Kind, MalformedObject
from kaivc.storage.index import ObjectRow
from kaivc.storage.pack import LARGEST, MAGIC, RecordKind, encode
from kaivc.storage.store import ObjectStore
from kaivc.wire import Offer

BOUNDARY = 16
"""Commits of those that the other side has whose files are looked at; those next to what is missing come first."""
SHORT_WALK = 256
"""Commits that are looked at, unless a walk ends sooner, before all that lie behind the other side's are."""


@dataclass(frozen=True)
class Part:
    """Records of one place in a pack; ``whole`` if they go as they are stored."""

    rows: tuple[ObjectRow, ...]
    whole: bool

    @property
    def records(self) -> int:
        """How many records it becomes."""
        return 1 if self.whole else len(self.rows)


@dataclass(frozen=True)
class Parcel:
    """What is missing, in the order in which it is stored."""

    offer: Offer
    parts: tuple[Part, ...]


def plan(repo: Repository, wants: Iterable[bytes], haves: Iterable[bytes]) -> Parcel:
    """What must travel so that who has ``haves``, with all that they reach, has ``wants`` too; ids of commits and tags.

    Ids of ``haves`` that are not here are passed over. Reads trees and lists of chunks, no contents of files.
    """
    missing = _missing(repo, wants, haves)
    parts = tuple(_parts(repo.store, missing.rows, missing.there))
    digest = hashlib.sha256(repo.name.encode())
    for part in parts:
        for row in part.rows:
            digest.update(row.id)
        digest.update(b"\1" if part.whole else b"\0")
    size = len(MAGIC) + sum(part.rows[0].length if part.whole else _about(part) for part in parts)
    records = sum(part.records for part in parts)
    return Parcel(Offer(digest.hexdigest(), records, size), parts)


def rows_missing(repo: Repository, wants: Iterable[bytes], haves: Iterable[bytes]) -> list[ObjectRow]:
    """Where all that must travel lies, chunks included; as ``plan``."""
    return rows_missing_and_near(repo, wants, haves)[0]


def rows_missing_and_near(
    repo: Repository, wants: Iterable[bytes], haves: Iterable[bytes]
) -> tuple[list[ObjectRow], list[ObjectRow]]:
    """The same, and large blobs that the other side has next to what it lacks."""
    missing = _missing(repo, wants, haves)
    return list(missing.rows.values()), list(missing.near.values())


def rows_between(
    repo: Repository, tags: Iterable[ObjectId], commits: Iterable[ObjectId], known: Iterable[ObjectId]
) -> list[ObjectRow]:
    """Where these tags and commits lie, and all in their files that no commit of ``known`` holds; chunks included."""
    missing = _Missing(repo)
    missing.files_of(known)
    missing.just(tags, commits)
    return list(missing.rows.values())


def _missing(repo: Repository, wants: Iterable[bytes], haves: Iterable[bytes]) -> _Missing:
    missing = _Missing(repo)
    missing.without(haves)
    missing.reach(wants)
    return missing


def _about(part: Part) -> int:
    return sum(min(row.size, LARGEST[RecordKind(row.kind)]) for row in part.rows)


def stream(repo: Repository, parcel: Parcel, start: int = 0) -> Iterator[bytes]:
    """The bytes of a parcel, from one on."""
    at = 0
    for piece in _pieces(repo, parcel, start):
        if isinstance(piece, int):
            at += piece
            continue
        if at + len(piece) > start:
            yield piece[max(0, start - at) :]
        at += len(piece)


def _pieces(repo: Repository, parcel: Parcel, start: int) -> Iterator[bytes | int]:
    """The magic and all records; of those that are not asked for their lengths."""
    store, level = repo.store, repo.settings.compress_level
    yield MAGIC
    at = len(MAGIC)
    for part in parcel.parts:
        if part.whole and at + part.rows[0].length <= start:
            at += part.rows[0].length
            yield part.rows[0].length
            continue
        for record in [store.stored(part.rows[0])] if part.whole else _anew(store, part.rows, level):
            at += len(record)
            yield record


def _anew(store: ObjectStore, rows: Iterable[ObjectRow], level: int) -> Iterator[bytes]:
    for row in rows:
        most = LARGEST[RecordKind.CHUNK_LIST] if row.kind == RecordKind.CHUNK_LIST else None
        yield encode(row.kind, row.id, store.record(row, most), level)


# ---------------------------------------------------------------- what is missing


def _parts(store: ObjectStore, rows: dict[bytes, ObjectRow], there: set[bytes]) -> Iterator[Part]:
    for group in index.by_record(rows.values()):
        first = group[0]
        if first.within >= 0:
            whole = all(member.id in rows for member in store.members(first))
        elif first.base is None or first.base in rows:
            whole = True
        else:  # a list of chunks says the same of a blob in more than one way
            whole = first.base in there and first.kind != RecordKind.CHUNK_LIST
        yield Part(tuple(group), whole)


class _Missing:
    """Walks from what is wanted to what is there."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._store = repo.store
        self._heads: list[ObjectId] = []
        self._behind: set[ObjectId] = set()
        self.there: set[bytes] = set()
        self.rows: dict[bytes, ObjectRow] = {}
        self.near: dict[bytes, ObjectRow] = {}

    def without(self, haves: Iterable[bytes]) -> None:
        """The other side has these, and all that they reach."""
        for oid in haves:
            row = self._store.find(oid)
            if row is not None and row.kind in (RecordKind.COMMIT, RecordKind.TAG):
                self.there.add(oid)
                self._heads.append(self._commit_of(ObjectId(oid)))
        self._behind.update(self._heads)

    def _commit_of(self, oid: ObjectId) -> ObjectId:
        return self._store.tag(oid).target if self._store.kind(oid) is Kind.TAG else oid

    def reach(self, wants: Iterable[bytes]) -> None:
        """Note every object that the other side lacks."""
        commits: dict[ObjectId, None] = {}
        boundary: dict[ObjectId, None] = {}
        for oid in wants:
            if oid in self.there:
                continue
            kind = self._store.kind(ObjectId(oid))
            if kind not in (Kind.COMMIT, Kind.TAG):
                raise MalformedObject(f"{oid.hex()} is neither a commit nor a tag")
            if kind is Kind.TAG:
                self._note(oid)
            self._ancestry(self._commit_of(ObjectId(oid)), commits, boundary)
        commits = self._not_behind(commits, boundary)
        if not commits:
            return
        for oid in dict.fromkeys([*boundary, *self._heads[:BOUNDARY]]):
            self._mark(self._store.commit(oid).tree)
        for oid in reversed(commits):
            self._note(oid)
            self._tree(self._store.commit(oid).tree)
            self._repo.home.progress("looking for what is missing", len(self.rows), None)

    def files_of(self, commits: Iterable[ObjectId]) -> None:
        """The other side has all that is in these."""
        for oid in commits:
            self._mark(self._store.commit(oid).tree)

    def just(self, tags: Iterable[ObjectId], commits: Iterable[ObjectId]) -> None:
        """Note these and the files of the commits, whatever leads to them."""
        for oid in tags:
            self._note(oid)
        for oid in commits:
            self._note(oid)
            self._tree(self._store.commit(oid).tree)

    def _ancestry(self, oid: ObjectId | None, commits: dict[ObjectId, None], boundary: dict[ObjectId, None]) -> None:
        walked = 0
        while oid is not None and oid not in commits:
            if oid in self._behind:
                boundary[oid] = None
                return
            commits[oid] = None
            oid = self._store.commit(oid).parent
            walked += 1
            if walked == SHORT_WALK or oid is None:
                self._walk_behind()

    def _not_behind(self, commits: dict[ObjectId, None], boundary: dict[ObjectId, None]) -> dict[ObjectId, None]:
        """Those that do not lie behind what the other side has: the walk to an old version meets nothing of it."""
        left = [oid for oid in commits if oid not in self._behind]
        if len(left) < len(commits):
            parents = (self._store.commit(oid).parent for oid in left)
            boundary.update((oid, None) for oid in parents if oid is not None and oid in self._behind)
        return dict.fromkeys(left)

    def _walk_behind(self) -> None:
        """All that lies behind the commits of the other side: `current` may have been rolled back far."""
        for head in self._heads:
            at = self._store.commit(head).parent
            while at is not None and at not in self._behind:
                self._behind.add(at)
                at = self._store.commit(at).parent

    # ------------------------------------------------------------ what is there

    def _mark(self, tree: ObjectId) -> None:
        """The other side has a tree and all below it."""
        todo = [tree]
        while todo:
            oid = todo.pop()
            if oid in self.there:
                continue
            self.there.add(oid)
            blobs = []
            for _, entry in self._store.tree(oid):
                if entry.mode == DIRECTORY:
                    todo.append(entry.oid)
                elif entry.oid not in self.there:
                    blobs.append(entry.oid)
            self.there.update(blobs)
            for row in index.find_all(self._repo.catalog, self._repo.id, blobs).values():
                if row.kind == RecordKind.CHUNK_LIST:
                    self.near[row.id] = row
                    self.there.update(chunk for chunk, _ in self._store.chunk_list(row))

    # ------------------------------------------------------------ what is not

    def _tree(self, tree: ObjectId) -> None:
        todo = [tree]
        while todo:
            oid = todo.pop()
            if oid in self.there or oid in self.rows:
                continue
            self._note(oid)
            blobs = []
            for _, entry in self._store.tree(oid):
                if entry.mode == DIRECTORY:
                    todo.append(entry.oid)
                elif entry.oid not in self.there and entry.oid not in self.rows:
                    blobs.append(entry.oid)
            self._blobs(blobs)

    def _blobs(self, oids: list[ObjectId]) -> None:
        found = index.find_all(self._repo.catalog, self._repo.id, oids)
        for oid in oids:
            row = found.get(oid) or self._store.require(oid)
            self.rows[oid] = row
            if row.kind == RecordKind.CHUNK_LIST:
                wanted = {chunk for chunk, _ in self._store.chunk_list(row)} - self.there - self.rows.keys()
                chunks = index.find_all(self._repo.catalog, self._repo.id, wanted)
                for chunk in wanted:
                    self.rows[chunk] = chunks.get(chunk) or self._store.require(chunk)

    def _note(self, oid: bytes) -> None:
        self.rows[oid] = self._store.require(oid)
