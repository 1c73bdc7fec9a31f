"""A bundle: what a remote would give of some agents, in one file that can be carried.

::

    file    = magic section* head tail
    magic   = "KAIBNDL" 01                                    8 bytes
    section = the op records of one agent, each behind its length, and its parcel
    head    = msgpack map: v, home, object_format, agents
    tail    = length of the head:u64, SHA-256 of all before the tail and of that length

Of each agent, in the order of the sections, the head says its name, where its log stands, its refs, the entry after
which its log begins here, the commits that whoever opens it must have, and how long both parts are. All numbers are
little-endian. Source: docs/format/transfer.md.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import msgpack

from kaivc import landing, parcels, wire
from kaivc.errors import NoSuchAgent, RefusedArrival, UnknownFormat
from kaivc.parcels import Parcel
from kaivc.records import dataclass
from kaivc.remotelist import BUNDLE
from kaivc.repository import Repository
from kaivc.storage import oplog
from kaivc.wire import Fields, Head, Offer

AT_ONCE = 1 << 20
LENGTH = struct.Struct("<Q")
DIGEST = 32
TAIL = LENGTH.size + DIGEST


@dataclass(frozen=True)
class Section:
    """One agent in a bundle; ``needs`` are the commits that are not in it. Places and lengths in bytes."""

    head: Head
    after: int
    needs: tuple[bytes, ...]
    offer: Offer
    log_at: int
    log_length: int
    parcel_at: int
    parcel_length: int


@dataclass(frozen=True)
class Bundle:
    """What a bundle says of itself."""

    path: str
    home: str
    object_format: str
    sections: tuple[Section, ...]
    size: int

    def section(self, agent: str) -> Section:
        """The part of an agent; NoSuchAgent if there is none."""
        for it in self.sections:
            if it.head.agent == agent:
                return it
        names = ", ".join(it.head.agent for it in self.sections)
        raise NoSuchAgent(f"there is no agent {agent!r} in {self.path}", hint=f"it holds: {names}", name=agent)


# ---------------------------------------------------------------- writing


@dataclass(frozen=True)
class Part:
    """What goes in of one agent: all, or what is behind ``since``, the commits that the other side has."""

    repo: Repository
    since: tuple[bytes, ...] = ()


class _Sink:
    """Hands bytes on, and keeps their number and digest."""

    def __init__(self, put: Callable[[bytes], object]) -> None:
        self._put = put
        self._digest = hashlib.sha256()
        self.size = 0

    def take(self, pieces: Iterable[bytes]) -> int:
        """Hand on some more; their number of bytes."""
        start = self.size
        for piece in pieces:
            self._digest.update(piece)
            self._put(piece)
            self.size += len(piece)
        return self.size - start

    def digest(self) -> bytes:
        """The digest of all so far."""
        return self._digest.digest()


def write(parts: Iterable[Part], put: Callable[[bytes], object]) -> int:
    """Write a bundle of at least one part; its size in bytes."""
    described, home, object_format = [], "", ""
    sink = _Sink(put)
    sink.take([BUNDLE])
    for part in parts:
        repo = part.repo
        home, object_format = repo.home.id, repo.home.format.name
        with repo.catalog.snapshot():
            row = repo.row()
            refs = {str(name): oid for name, oid in landing.shown_refs(repo).items()}
        parcel = parcels.plan(repo, refs.values(), part.since)
        described.append(
            {
                "name": repo.name,
                "seq": row.op_seq,
                "digest": row.op_head,
                "refs": refs,
                "after": 0,
                "needs": list(part.since),
                "parcel": {"id": parcel.offer.id, "records": parcel.offer.records, "size": parcel.offer.size},
                "log_length": sink.take(wire.framed(_log(repo, row.op_seq))),
                "parcel_length": sink.take(_told(repo, parcel)),
            }
        )
    head = msgpack.packb({"v": 1, "home": home, "object_format": object_format, "agents": described})
    sink.take([head, LENGTH.pack(len(head))])
    sink.take([sink.digest()])
    return sink.size


def _told(repo: Repository, parcel: Parcel) -> Iterator[bytes]:
    done = 0
    for piece in parcels.stream(repo, parcel):
        yield piece
        done += len(piece)
        repo.home.progress("bundling", done, max(parcel.offer.size, done))


def _log(repo: Repository, seq: int) -> Iterator[bytes]:
    """The op records up to a number: others may come while the bundle is written."""
    for number, record in enumerate(oplog.records(repo.store, 0), 1):
        if number > seq:
            return
        yield record


# ---------------------------------------------------------------- reading


def read(path: str, file: BinaryIO) -> Bundle:
    """What a bundle says of itself; RefusedArrival for what is none, UnknownFormat for one of another release."""
    if file.read(len(BUNDLE)) != BUNDLE:
        raise RefusedArrival(f"{path} is no bundle", unchanged="nothing moved", hint="`kai bundle create` makes one")
    size = os.fstat(file.fileno()).st_size
    if size < len(BUNDLE) + TAIL:
        raise _damaged(path, "it ends early")
    file.seek(size - TAIL)
    (length,) = LENGTH.unpack(_exactly(file, LENGTH.size, path))
    head_at = size - TAIL - length
    if length > wire.MAX_MESSAGE or head_at < len(BUNDLE):
        raise _damaged(path, "its end is not one of a bundle")
    file.seek(head_at)
    told = wire.decode(_exactly(file, length, path))
    if told.number("v") != 1:
        raise UnknownFormat(f"{path} has format {told.number('v')}; this release knows 1", hint="use a later release")
    object_format = told.text("object_format")
    at, sections = len(BUNDLE), []
    for it in told.parts("agents"):
        section, at = _section(it, at)
        sections.append(section)
    if object_format not in {"sha1", "sha256"} or at != head_at:
        raise _damaged(path, "it holds something else than it says")
    return Bundle(path, told.home("home"), object_format, tuple(sections), size)


def _section(told: Fields, at: int) -> tuple[Section, int]:
    head = Head(told.name("name"), told.number("seq"), told.id("digest"), told.refs("refs"))
    log_length, parcel_length = told.number("log_length"), told.number("parcel_length")
    parcel = told.part("parcel")
    offer = wire.read_offer(parcel if parcel is not None else told)
    parcel_at = at + log_length
    section = Section(head, told.number("after"), told.ids("needs"), offer, at, log_length, parcel_at, parcel_length)
    return section, parcel_at + parcel_length


def check(found: Bundle, file: BinaryIO) -> None:
    """Raise RefusedArrival unless every byte is the one that was written."""
    file.seek(0)
    digest, left = hashlib.sha256(), found.size - DIGEST
    while left:
        piece = _exactly(file, min(left, AT_ONCE), found.path)
        digest.update(piece)
        left -= len(piece)
    if file.read(DIGEST) != digest.digest():
        raise _damaged(found.path, "its bytes are not those that were written")


def pieces(file: BinaryIO, start: int, length: int, path: str) -> Iterator[bytes]:
    """Some bytes of it."""
    file.seek(start)
    while length:
        piece = _exactly(file, min(length, AT_ONCE), path)
        yield piece
        length -= len(piece)


def _exactly(file: BinaryIO, count: int, path: str) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise _damaged(path, "it ends early")
    return data


def _damaged(path: str, why: str) -> RefusedArrival:
    return RefusedArrival(
        f"the bundle {path} is damaged: {why}",
        unchanged="nothing moved",
        hint="copy it again from where it was made",
        path=path,
    )
