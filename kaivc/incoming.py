"""The quarantine of a transfer: a parcel arrives in a file that nothing names, and is read there as a store.

What was cut stays and goes on where it ended; what turns out to be other than it should be is removed. ``Lent`` is the
agent's store with the records of the parcel in sight, so that all that reads objects reads these too, before any of
them counts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Self

from kaivc.errors import ChecksumMismatch, LockTimeout, NoSpace, RefusedArrival, StorageError, TooLarge, UnknownFormat
from kaivc.repository import OpenHome
from kaivc.storage import index, packscan
from kaivc.storage.bases import Found
from kaivc.storage.blocks import Member
from kaivc.storage.gitobjects import MalformedObject
from kaivc.storage.index import ObjectRow
from kaivc.storage.pack import MAGIC, MAX_BASE, Header, Location, PackReader, RecordKind
from kaivc.storage.store import ObjectStore, decode_chunk_list
from kaivc.wire import Offer

LENT = -1
"""The number of the arriving file among packs; none in the catalog has it."""
FORGOTTEN_NS = 7 * 24 * 3600 * 1_000_000_000
"""What was cut and not gone on with for so long is removed."""
SUFFIX = ".parcel"
CARRIED = frozenset(
    [RecordKind.BLOB, RecordKind.TREE, RecordKind.COMMIT, RecordKind.TAG, RecordKind.CHUNK, RecordKind.CHUNK_LIST]
)
MAX_OBJECTS = 5_000_000
ROOM = 2.0
"""A parcel may have so many times the bytes that were announced: what is encoded anew is announced by its content."""
SLACK = 1 << 20
POLL = 0.05
"""Seconds between two tries to have a parcel's file."""


class Incoming:
    """The file of one parcel, held by the one process that takes it in. Use it as a context."""

    def __init__(self, home: OpenHome, agent: str, parcel: Offer, of: str = "") -> None:
        """``of`` is whose it is: nobody can touch, or learn of, another's."""
        self._home = home
        self._agent = agent
        self._fd = -1
        self.parcel = parcel
        name = hashlib.sha256(f"{of}\0{parcel.id}".encode()).hexdigest()
        self.path = home.layout.incoming(agent, name)

    def __enter__(self) -> Self:
        home, directory = self._home, self._home.layout.incoming(self._agent)
        home.vfs.make_dirs(directory, home.dir_mode)
        while True:
            self._fd = home.vfs.open_append(self.path)
            try:
                self._hold()
                if _is_at(self._fd, self.path):
                    return self
            except BaseException:
                home.vfs.close(self._fd)
                raise
            home.vfs.close(self._fd)  # whoever held it was done with it, and removed it

    def _hold(self) -> None:
        """Have it alone; the other end of a client that was stopped may need a moment to be done with it."""
        waited = 0.0
        while True:
            try:
                return self._home.vfs.flock(self._fd)
            except BlockingIOError as error:
                if waited >= self._home.settings.lock_wait:
                    raise LockTimeout(
                        f"another transfer is taking in the same versions of {self._agent}",
                        unchanged="nothing moved",
                        hint="let it end, then run the command again",
                        agent=self._agent,
                    ) from error
            self._home.sleep(POLL)
            waited += POLL

    def __exit__(self, *_: object) -> None:
        try:
            if not self.size and _is_at(self._fd, self.path):
                self.discard()  # somebody only asked
        finally:
            with suppress(StorageError):  # what came is checked when it lands, and may have landed
                self._home.vfs.close(self._fd)

    @property
    def size(self) -> int:
        """The bytes that have arrived."""
        return os.fstat(self._fd).st_size

    def take(self, pieces: Iterable[bytes]) -> int:
        """Append what arrives, RefusedArrival if it is far more than was announced; how much there is now."""
        most = int(self.parcel.size * ROOM) + SLACK
        there = self.size
        self._check_room(self.parcel.size - there)
        for piece in pieces:
            there += len(piece)
            if there > most:
                self.discard()
                raise RefusedArrival(
                    f"{self.parcel.size} bytes were announced, and more than {most} came",
                    unchanged="nothing moved; what came was removed",
                )
            self._home.vfs.write(self._fd, piece)
            self._home.progress("receiving", there, max(there, self.parcel.size))
        return there

    def _check_room(self, needed: int) -> None:
        status = os.statvfs(self.path)
        free = status.f_bavail * status.f_frsize
        if needed > free:
            raise NoSpace(
                f"{needed} bytes of versions are to come, and {free} are free",
                unchanged="nothing moved; what had arrived is kept",
                hint="free some space where the home is, then run the command again",
            )

    def append(self, data: bytes) -> None:
        """Append records that are made here, of what arrives in another form; who makes them bounds them."""
        self._home.vfs.write(self._fd, data)

    def measured(self, records: int) -> Offer:
        """All is there: so many records."""
        self.parcel = Offer(self.parcel.id, records, self.size)
        return self.parcel

    def discard(self) -> None:
        """Remove the file: it has landed, or is no parcel. What cannot be removed, gc does in a week."""
        with suppress(StorageError):
            self._home.vfs.unlink(self.path, missing_ok=True)


def unmeasured() -> Offer:
    """A parcel whose extent is known at its end only; nobody else can name it."""
    return Offer(os.urandom(32).hex(), 0, 0)


def sweep(home: OpenHome, agent: str, now: int) -> None:
    """Remove parcels of an agent that were cut, and that nobody went on with; ``now`` is the disk's time, in ns."""
    directory = home.layout.incoming(agent)
    for name in os.listdir(directory) if os.path.isdir(directory) else []:
        path = os.path.join(directory, name)
        try:
            age = now - os.lstat(path).st_mtime_ns
        except FileNotFoundError:
            continue
        if name.endswith(SUFFIX) and age > FORGOTTEN_NS:
            _remove(home, path)


def _remove(home: OpenHome, path: str) -> None:
    """Remove a parcel that nobody holds."""
    fd = home.vfs.open_append(path)
    try:
        home.vfs.flock(fd)
        if _is_at(fd, path):
            home.vfs.unlink(path, missing_ok=True)
    except BlockingIOError:
        pass  # somebody goes on with it just now
    finally:
        home.vfs.close(fd)


def _is_at(fd: int, path: str) -> bool:
    """Whether a file that was opened is still the one of its name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    return False


# ---------------------------------------------------------------- what is in it


def rows_of(path: str, store: ObjectStore, records: int) -> dict[bytes, ObjectRow]:
    """Where the objects of a parcel lie in it; RefusedArrival unless it is whole records of objects, all of them."""
    found: dict[bytes, ObjectRow] = {}
    count = 0
    for header in _headers(path):
        count += 1
        if header.kind == RecordKind.BLOCK:
            for member in header.members:
                _add(found, _member_row(header, member))
        elif header.kind in CARRIED:
            where = header.where
            _add(found, ObjectRow(header.id, header.kind, LENT, *where, header.size, header.base))
        else:
            raise refused(f"a record of kind {header.kind}")
        if len(found) > MAX_OBJECTS:
            raise TooLarge(
                f"a parcel of more than {MAX_OBJECTS} objects",
                unchanged="nothing moved",
                hint="send versions in smaller groups",
            )
    if count != records:
        raise refused(f"{records} records were announced, {count} came")
    width = store.format.width
    for row in found.values():
        if len(row.id) != (32 if row.kind == RecordKind.CHUNK else width):
            raise refused("an id of another hash")
    return found


def _add(found: dict[bytes, ObjectRow], row: ObjectRow) -> None:
    if row.id in found:
        raise refused(f"object {row.id.hex()} twice")
    found[row.id] = row


def _member_row(header: Header, member: Member) -> ObjectRow:
    return ObjectRow(member.id, member.kind, LENT, *header.where, member.size, None, member.within)


def _headers(path: str) -> Iterator[Header]:
    reader = packscan.open_reader(path)
    try:
        if not packscan.magic_is_whole(reader):
            raise refused("no parcel")
        end, at = packscan.size(reader), len(MAGIC)
        for item in packscan.survey(reader, at, end):
            if isinstance(item, packscan.Gap):
                raise refused(f"{item.why}, at byte {item.offset}")
            at = item.end
            yield item.header
        if at != end:
            raise refused(f"the end of a pack, at byte {at}")
    finally:
        reader.close()


def refused(why: str) -> RefusedArrival:
    """The error for what a parcel must not hold."""
    return RefusedArrival(
        f"what arrived is not what a home may hold: {why}",
        unchanged="nothing moved, and nothing of it is kept",
        hint="`kai fsck` over there says whether that home is whole",
    )


# ---------------------------------------------------------------- read as a store


class Lent(ObjectStore):
    """An agent's objects, and beside them those of a parcel that has arrived.

    A record of the parcel that is encoded with one of the agent's takes that one's content, whatever chain it is in.
    """

    def __init__(self, store: ObjectStore, path: str, rows: Mapping[bytes, ObjectRow]) -> None:
        super().__init__(store.catalog, store.place, store.settings, store.vfs)
        self._path = path
        self._all = dict(rows)
        self.own = store
        self.rows = dict(rows)
        for oid in [oid for oid, row in self.rows.items() if row.kind == RecordKind.CHUNK_LIST]:
            self.rows[oid] = self._with_size(self.rows[oid])

    def _with_size(self, row: ObjectRow) -> ObjectRow:
        """A list of chunks has the size of the blob that they make."""
        try:
            data = self.record(row, row.size)
            total = sum(size for _, size in decode_chunk_list(data))
        except (ChecksumMismatch, UnknownFormat) as error:
            raise refused(error.what) from error
        if total > self.settings.limits_max_file:
            raise TooLarge(
                f"a file of {total} bytes; {self.settings.limits_max_file} are allowed",
                unchanged="nothing moved",
                hint="raise `limits.max_file` in .kai/config.yaml",
            )
        return row._replace(size=total)

    def have(self, row: ObjectRow) -> None:
        """One more is there."""
        self.rows[row.id] = self._all[row.id] = row

    def without(self, readable: Callable[[bytes], bool]) -> None:
        """Let those not be seen that the agent has and that are ``readable``: what is here counts, not what came."""
        known = index.find_all(self.catalog, self.place.agent_id, self.rows)
        for oid in [oid for oid in known if readable(oid)]:
            del self.rows[oid]

    def came_unseen(self, oid: bytes) -> bool:
        """Whether an object came that nobody has checked, or that what is here stands in for."""
        return oid in self._all and oid not in self.rows

    def only(self, wanted: Container[bytes]) -> None:
        """Let only these be seen: nothing leads to the others, and nobody has checked them."""
        self.rows = {oid: row for oid, row in self.rows.items() if oid in wanted}

    def find(self, oid: bytes) -> ObjectRow | None:
        """Where an object lies; in the parcel first."""
        return self.rows.get(oid) or super().find(oid)

    def look_up(self, oids: Iterable[bytes]) -> dict[bytes, ObjectRow]:
        """Ask once where objects lie that are about to be read."""
        wanted = set(oids)
        found = super().look_up(wanted - self.rows.keys())
        return found | {oid: self.rows[oid] for oid in wanted & self.rows.keys()}

    def record(self, row: ObjectRow, most: int | None = None) -> bytes:
        """The decoded record of an object; of the agent's own as ever."""
        return super().record(row, most) if row.pack == LENT else self.own.record(row, most)

    def _base(self, oid: bytes) -> Found:
        """What a record is encoded with: of the agent's own only the content counts."""
        there = self._all.get(oid)
        if there is not None:
            return self._found(there)
        row = self.own.require(oid)
        if row.kind == RecordKind.CHUNK_LIST or row.size > MAX_BASE:
            raise MalformedObject("a record that is encoded with what may be cut in another way here")
        header = Header(row.kind, 0, row.id, row.size, Location(0, 0), 0, 0)
        return Found(header, lambda: self._reader(row), content=self.own.proven(oid, row.kind))

    def _open(self, number: int) -> PackReader:
        return packscan.open_reader(self._path) if number == LENT else super()._open(number)
