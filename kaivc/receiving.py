"""What arrived is checked before any of it counts: hashes, links between objects, and what fsck asks of a version.

Whoever sends may rely on what it need not send only as far as it could read it anyway: on what the refs reach that are
shown to it. An object that lies in the store and is reached by none of these is as good as absent.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable

from kaivc.errors import ChecksumMismatch, KaiError, RefusedArrival
from kaivc.incoming import Lent, refused
from kaivc.names import ObjectId, current_ref
from kaivc.repository import Repository
from kaivc.storage import bases, index
from kaivc.storage.chunking import chunk_id
from kaivc.storage.damage import Damage, Severity
from kaivc.storage.gitobjects import DIRECTORY, SHA1, Kind
from kaivc.storage.index import ObjectRow
from kaivc.storage.pack import LARGEST, RecordKind
from kaivc.storage.store import ObjectStore
from kaivc.storage.writer import StoreWriter
from kaivc.walk import Root, Walk

SHOWN = 3
"""So many findings are named of what is refused."""


class Reach:
    """What some refs of an agent reach, followed only as far as it is asked for, the first of them first."""

    def __init__(self, repo: Repository, tips: Iterable[bytes]) -> None:
        self._repo = repo
        self._store = repo.store
        self._kinds: dict[bytes, Kind] = {}
        self._chunks: set[bytes] = set()
        self._todo: deque[bytes] = deque(tips)

    def has(self, oid: bytes, kind: Kind) -> bool:
        """Whether an object of that kind is reached."""
        if oid not in self._kinds and self._may_come(oid):
            while oid not in self._kinds and self._todo:
                self._next()
        return self._kinds.get(oid) is kind

    def __contains__(self, oid: bytes) -> bool:
        if oid not in self._kinds and oid not in self._chunks and self._may_come(oid):
            while oid not in self._kinds and oid not in self._chunks and self._todo:
                self._next()
        return oid in self._kinds or oid in self._chunks

    def _may_come(self, oid: bytes) -> bool:
        """Whether to go on: most of what is asked for is new, and not here at all."""
        return bool(self._todo) and self._store.find(oid) is not None

    def _next(self) -> None:
        oid = ObjectId(self._todo.popleft())
        if oid in self._kinds:
            return
        kind = self._kinds[oid] = self._store.kind(oid)
        if kind is Kind.TAG:
            self._todo.appendleft(self._store.tag(oid).target)
        elif kind is Kind.COMMIT:
            commit = self._store.commit(oid)
            if commit.parent is not None:
                self._todo.append(commit.parent)
            self._tree(commit.tree)

    def _tree(self, tree: ObjectId) -> None:
        todo = [tree]
        while todo:
            oid = todo.pop()
            if oid in self._kinds:
                continue
            self._kinds[oid] = Kind.TREE
            blobs = []
            for _, entry in self._store.tree(oid):
                if entry.mode == DIRECTORY:
                    todo.append(entry.oid)
                elif entry.oid not in self._kinds:
                    self._kinds[entry.oid] = Kind.BLOB
                    blobs.append(entry.oid)
            for row in index.find_all(self._repo.catalog, self._repo.id, blobs).values():
                if row.kind == RecordKind.CHUNK_LIST:
                    self._chunks.update(chunk for chunk, _ in self._store.chunk_list(row))


class Nothing:
    """Reaches nothing: for an agent that is not there yet."""

    def has(self, oid: bytes, kind: Kind) -> bool:  # noqa: ARG002 - as in ``Reach``
        """Never."""
        return False

    def __contains__(self, oid: bytes) -> bool:
        return False


# ---------------------------------------------------------------- checks


def check(guest: Repository, lent: Lent, reach: Reach | Nothing, tips: Iterable[tuple[str, bytes]]) -> None:
    """Raise RefusedArrival unless all that ``tips`` (ref, object) lead to came along whole, or is within ``reach``.

    Refs as the agent names them. What came and is led to by none of them is forgotten by ``lent``.
    """
    if not isinstance(reach, Nothing):
        lent.without(reach.__contains__)
    for row in lent.rows.values():
        if row.base is not None and row.base not in lent.rows and row.base not in reach:
            raise refused(f"{row.id.hex()} is encoded with {row.base.hex()}, which did not come along")
    looked = _Looked(lent, reach)
    walk = Walk(guest, looked.problem, reach, abroad=True)
    for ref, oid in tips:
        _follow(walk, guest, ref, ObjectId(oid))
    bad = [found for found in walk.findings() if found.severity is Severity.DAMAGE]
    if bad:
        shown = "; ".join(" ".join(filter(None, [", ".join(it.versions), it.path, it.problem])) for it in bad[:SHOWN])
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise refused(shown + more)
    lent.only(looked.used)


def _follow(walk: Walk, guest: Repository, ref: str, oid: ObjectId) -> None:
    label = ref.rsplit("/", 1)[1] if ref.startswith("refs/tags/") else ref.split("/", 3)[3]
    try:
        is_tag = ref.startswith("refs/tags/")
        commit = walk.root(Root(label, ref, oid)) if is_tag else walk.commit(label, oid)
        walk.parents(label, commit)
    except KaiError as error:
        if isinstance(error, RefusedArrival):
            raise
        raise refused(f"{label}: {error.what}") from error
    row = guest.store.find(oid)
    if ref == current_ref(guest.name) and row is not None and row.kind != Kind.COMMIT:
        raise refused("`current` is no commit")


class _Looked:
    """Looks at each object that came, once."""

    def __init__(self, lent: Lent, reach: Reach | Nothing) -> None:
        self._lent = lent
        self._reach = reach
        self.used: set[bytes] = set()

    def problem(self, oid: ObjectId) -> Damage | None:
        """What is wrong with an object; None if it came, and is what its id says."""
        agent = self._lent.place.agent
        row = self._lent.rows.get(oid)
        if row is None:
            return Damage("object", f"object {oid.hex()} is missing", agent, object=oid.hex())
        try:
            if row.kind == RecordKind.CHUNK_LIST:
                self._check_chunks(row)
            else:
                self._lent.check(oid)
            self._compare(oid)
        except KaiError as error:
            return Damage("object", error.what, agent, object=oid.hex())
        self.used.add(oid)
        return None

    def _check_chunks(self, row: ObjectRow) -> None:
        """A chunk is what its own id says, and all of them make the blob: other blobs will be made of it."""
        lent = self._lent
        digest = lent.format.header(Kind.BLOB, row.size)
        for oid, size in lent.chunk_list(row):
            came = lent.rows.get(oid)
            if came is None and oid not in self._reach:
                raise ChecksumMismatch(f"chunk {oid.hex()} is missing")
            chunk = came or lent.require(oid)
            if chunk.kind != RecordKind.CHUNK or chunk.size != size:
                raise ChecksumMismatch(f"chunk {oid.hex()} is not what its list says")
            piece = lent.record(chunk)
            if came is not None and oid not in self.used:
                if chunk_id(piece) != oid:
                    raise ChecksumMismatch(f"chunk {oid.hex()} has other bytes")
                self.used.add(oid)
            digest.update(piece)
        if digest.digest() != row.id:
            raise ChecksumMismatch(f"the chunks of blob {row.id.hex()} do not make it")

    def _compare(self, oid: ObjectId) -> None:
        """SHA-1 can be made to collide: what is here under the same id must be the same by a better hash."""
        own = self._lent.own
        if own.format is not SHA1 or own.find(oid) is None:
            return
        if _strong(own, oid) != _strong(self._lent, oid):
            raise ChecksumMismatch(f"object {oid.hex()} is known here with other bytes")


def _strong(store: ObjectStore, oid: ObjectId) -> bytes:
    kind = store.kind(oid)
    digest = hashlib.sha256()
    for piece in store.stream(oid) if kind is Kind.BLOB else [store.read(oid, kind)]:
        digest.update(piece)
    return digest.digest()


# ---------------------------------------------------------------- into the store


def bring(lent: Lent, writer: StoreWriter) -> int:
    """Add what came, and was checked, to the agent's packs, as it is stored where that fits; the number of objects."""
    own, added = lent.own, 0
    for group in index.by_record(lent.rows.values()):
        fresh = [row for row in group if own.find(row.id) is None]
        added += len(fresh)
        if fresh and _fits(lent, fresh[0]):
            writer.copy(fresh, lent.stored(fresh[0]))
        else:
            for row in fresh:
                writer.put_record(RecordKind(row.kind), row.id, lent.record(row, _most(row)), row.size)
    return added


def _most(row: ObjectRow) -> int | None:
    return LARGEST[RecordKind.CHUNK_LIST] if row.kind == RecordKind.CHUNK_LIST else None


def _fits(lent: Lent, row: ObjectRow) -> bool:
    """Whether a record can be read here as it is: what it is encoded with must have a place in its chain.

    A block goes in only with all that is in it, and nothing is encoded with what came unchecked under an id of ours.
    """
    if row.within >= 0:
        return all(member.id in lent.rows for member in lent.members(row))
    if row.base is None:
        return True
    if lent.came_unseen(row.base):
        return False
    here = lent.own.link(row.base) if lent.own.find(row.base) is not None else None
    if here is None:
        return row.base in lent.rows
    mine = lent.link(row.id)
    return (
        mine is not None
        and RecordKind.CHUNK_LIST not in {row.kind, here.kind}
        and bases.weight(here.ordinal) < bases.weight(mine.ordinal)
    )
