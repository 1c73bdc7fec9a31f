"""The transfer protocol: what one home can ask another about an agent, and how that travels.

::

    hello()                            who is there: home, object format, agents that may be read
    head(agent)                        where its log stands, and its refs
    log(agent, after)                  its op records from the next one on, as they are stored
    offer(agent, wants, haves)         what is missing between these, as a parcel: its id and its extent
    get(agent, offer, start)           the bytes of a parcel, from one on
    held(agent, parcel)                how much of a parcel has arrived here
    put(agent, parcel, start, data)    more of it
    append(agent, entry)               the next log entry: all its moves, or none

A message is a msgpack map in a frame, bytes travel in frames behind it: docs/format/transfer.md. Every value that comes
from the other end is checked when it is decoded, and is still hostile after that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import msgpack

from kaivc import errors
from kaivc.errors import KaiError, TransportError
from kaivc.names import is_name
from kaivc.records import dataclass

VERSION = 1
MAX_MESSAGE = 32 << 20
"""Bytes of one message; the refs of 100,000 versions take a third of it."""
MAX_DATA = 1 << 20
"""Bytes of one frame of data."""
MAX_IDS = 4096
"""Ids that one message may name as there."""
MAX_UPDATES = 100_000
MAX_WANTED = 2 * MAX_UPDATES
"""Ids that one message may name as wanted: all that its refs point at, for who has nothing yet."""
MAX_PARTS = 1_000_000
"""Values of one message. A byte of it may be an empty list, which takes 60 in memory."""
MAX_TEXT = 4096

FRAME = struct.Struct("<cI")
T = TypeVar("T", list[Any], dict[Any, Any])
MESSAGE, DATA, END = b"M", b"D", b"E"


# ---------------------------------------------------------------- values


@dataclass(frozen=True)
class Hello:
    """Who is there."""

    home: str
    object_format: str
    agents: tuple[str, ...]


@dataclass(frozen=True)
class Head:
    """Where an agent's log stands, and what its refs point at; ``seq`` 0 where there is no log."""

    agent: str
    seq: int
    digest: bytes
    refs: Mapping[str, bytes]


@dataclass(frozen=True)
class Offer:
    """A parcel that can be had: ``records`` is how many it holds, ``size`` about how many bytes."""

    id: str
    records: int
    size: int


@dataclass(frozen=True)
class Update:
    """One move that is asked for; ``old`` and ``new`` of None: not there."""

    ref: str
    old: bytes | None
    new: bytes | None


@dataclass(frozen=True)
class Entry:
    """A log entry to be made: all moves or none. ``parcel`` holds what they need and the other side lacks."""

    op_id: str
    actor: str
    reason: str
    updates: tuple[Update, ...]
    parcel: Offer | None


@dataclass(frozen=True)
class Outcome:
    """The entry that was made: its place in the log, and the backup of what the workspace held, if any."""

    seq: int
    digest: bytes
    backup: int | None = None


class Far(Protocol):
    """A home at the other end. Every method raises KaiError, TransportError above all."""

    def hello(self) -> Hello:
        """Who is there."""

    def head(self, agent: str) -> Head:
        """Where an agent's log stands; NoSuchAgent if there is none that may be read."""

    def log(self, agent: str, after: int) -> Iterator[bytes]:
        """The op records behind number ``after``, oldest first."""

    def offer(self, agent: str, wants: tuple[bytes, ...], haves: tuple[bytes, ...]) -> Offer:
        """What is missing to have ``wants``, for who has ``haves``."""

    def get(
        self, agent: str, wants: tuple[bytes, ...], haves: tuple[bytes, ...], offer: Offer, start: int
    ) -> Iterator[bytes]:
        """The bytes of that parcel from ``start`` on; LostRace if it cannot be made as it was."""

    def held(self, agent: str, parcel: Offer) -> int:
        """How many bytes of a parcel have arrived."""

    def put(self, agent: str, parcel: Offer, start: int, data: Iterable[bytes]) -> int:
        """Take more bytes of a parcel; how many there are now."""

    def append(self, agent: str, entry: Entry) -> Outcome:
        """Make the next log entry, or none; repeated with the same op id it says what that made."""

    def close(self) -> None:
        """Let go."""


# ---------------------------------------------------------------- decoding what came from elsewhere


class Fields:
    """A decoded message, read field by field; TransportError for one that is not there, or of another kind."""

    def __init__(self, values: object) -> None:
        if not isinstance(values, dict):
            raise malformed("a message is no map")
        self._values = values

    def text(self, key: str, most: int = MAX_TEXT) -> str:
        """A string of at most ``most`` characters."""
        found = self._values.get(key)
        if not isinstance(found, str) or len(found) > most:
            raise malformed(f"{key} is no text that fits")
        return found

    def number(self, key: str) -> int:
        """A count."""
        found = self._values.get(key)
        if type(found) is not int or not 0 <= found < 1 << 63:
            raise malformed(f"{key} is no count")
        return found

    def name(self, key: str) -> str:
        """A name that an agent may have."""
        found = self._values.get(key)
        if not is_name(found):
            raise malformed(f"{key} is no name")
        return str(found)

    def id(self, key: str) -> bytes:
        """An id or a digest."""
        return _id(self._values.get(key), key)

    def ids(self, key: str, most: int = MAX_IDS) -> tuple[bytes, ...]:
        """At most so many ids."""
        found = self._list(key, most)
        return tuple(_id(it, key) for it in found)

    def home(self, key: str) -> str:
        """The id of a home."""
        found = self.text(key, 32)
        if len(found) != 32 or set(found) - set("0123456789abcdef"):  # noqa: PLR2004 - 128 bits
            raise malformed(f"{key} is no id of a home")
        return found

    def names(self, key: str) -> tuple[str, ...]:
        """Names of agents."""
        found = self._list(key, MAX_UPDATES)
        if not all(map(is_name, found)):
            raise malformed(f"{key} holds what is no name")
        return tuple(found)

    def refs(self, key: str) -> dict[str, bytes]:
        """Refs and what they point at."""
        found = self._values.get(key)
        if not isinstance(found, dict) or len(found) > 2 * MAX_UPDATES:
            raise malformed(f"{key} is no map of refs")
        return {_ref(name): _id(oid, key) for name, oid in found.items()}

    def moves(self, key: str) -> tuple[Update, ...]:
        """Moves that are asked for."""
        moves = []
        for it in self._list(key, MAX_UPDATES):
            if not isinstance(it, list) or len(it) != 3:  # noqa: PLR2004 - ref, old, new
                raise malformed(f"{key} holds what is no move")
            old, new = (None if oid is None else _id(oid, key) for oid in it[1:])
            moves.append(Update(_ref(it[0]), old, new))
        return tuple(moves)

    def part(self, key: str) -> Fields | None:
        """A map within, or None."""
        found = self._values.get(key)
        return None if found is None else Fields(found)

    def parts(self, key: str) -> list[Fields]:
        """Maps within."""
        return [Fields(it) for it in self._list(key, MAX_UPDATES)]

    def maybe_number(self, key: str) -> int | None:
        """A count, or None."""
        return None if self._values.get(key) is None else self.number(key)

    def _list(self, key: str, most: int) -> list[Any]:
        found = self._values.get(key)
        if not isinstance(found, list) or len(found) > most:
            raise malformed(f"{key} is no list that fits")
        return found


def _id(found: object, key: str) -> bytes:
    if not isinstance(found, bytes) or len(found) not in (20, 32):
        raise malformed(f"{key} holds what is no id")
    return found


def _ref(found: object) -> str:
    if not isinstance(found, str) or not found.startswith("refs/") or len(found) > MAX_TEXT or not found.isprintable():
        raise malformed("a ref has no name of one")
    return found


def malformed(why: str) -> TransportError:
    """The error for what the other end should not have said; asked again it would say the same."""
    return TransportError(
        f"the other end sent what is not the transfer protocol: {why}",
        unchanged="nothing moved",
        hint="is it a home of kaivc, of a release that fits this one?",
        repeat=False,
    )


def read_offer(fields: Fields) -> Offer:
    """An offer; its id becomes part of a path."""
    found = Offer(fields.text("id"), fields.number("records"), fields.number("size"))
    if len(found.id) != 64 or set(found.id) - set("0123456789abcdef"):  # noqa: PLR2004 - SHA-256
        raise malformed("a parcel has no id of one")
    return found


def offer_map(offer: Offer) -> dict[str, Any]:
    """An offer as it travels."""
    return {"id": offer.id, "records": offer.records, "size": offer.size}


# ---------------------------------------------------------------- errors that travel


def error_map(error: KaiError) -> dict[str, Any]:
    """An error as it travels."""
    facts = {key: value for key, value in error.facts.items() if isinstance(value, str | int | bool | None)}
    return {"code": error.code, "what": error.what, "unchanged": error.unchanged, "hint": error.hint, "facts": facts}


def raise_error(fields: Fields) -> None:
    """Raise the error that the other end told."""
    code = fields.text("code", 8)
    kind = errors.by_code(code) or TransportError
    facts = fields.part("facts")
    given = facts._values if facts is not None else {}  # noqa: SLF001 - its own kind
    known = {str(key)[:40]: value for key, value in given.items() if isinstance(value, str | int | bool | None)}
    for taken in ("what", "unchanged", "hint", "self"):
        known.pop(taken, None)
    what, unchanged, hint = fields.text("what", 64 << 10), fields.text("unchanged"), fields.text("hint")
    raise told(kind(what, unchanged=unchanged, hint=hint, **known))


def told(error: KaiError) -> KaiError:
    """The same error, as one of the other end: nobody takes its words for those of this one."""
    error.what = f"the other end says: {error.what}"
    error.hint = f"the other end says: {error.hint}" if error.hint else ""
    error.args = (error.what,)
    return error


# ---------------------------------------------------------------- frames


Read = Callable[[int], bytes]
"""Gives exactly so many bytes, fewer only where the other end stopped."""


def pack(kind: bytes, data: bytes) -> bytes:
    """One frame."""
    return FRAME.pack(kind, len(data)) + data


def pack_message(values: Mapping[str, Any]) -> bytes:
    """A message in its frame."""
    data: bytes = msgpack.packb(dict(values))
    if len(data) > MAX_MESSAGE:
        raise malformed(f"a message of {len(data)} bytes")
    return pack(MESSAGE, data)


def pack_data(data: Iterable[bytes]) -> Iterator[bytes]:
    """Bytes in their frames, and the end of them."""
    for piece in data:
        view = memoryview(piece)
        for start in range(0, len(view), MAX_DATA):
            part = view[start : start + MAX_DATA]
            yield FRAME.pack(DATA, len(part))
            yield bytes(part)
    yield pack(END, b"")


def gathered(pieces: Iterable[bytes], size: int = 256 << 10) -> Iterator[bytes]:
    """The same bytes in pieces of about ``size``, for carriers to which each piece costs."""
    held: list[bytes] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= size:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)


def read_frame(read: Read) -> tuple[bytes, bytes]:
    """One frame: its kind and its bytes. TransportError where the other end stopped."""
    head = read(FRAME.size)
    if len(head) < FRAME.size:
        raise cut_off()
    kind, length = FRAME.unpack(head)
    if kind not in (MESSAGE, DATA, END) or length > (MAX_MESSAGE if kind == MESSAGE else MAX_DATA):
        raise malformed("what comes is no frame")
    data = read(length)
    if len(data) < length:
        raise cut_off()
    return kind, data


def cut_off() -> TransportError:
    """The error for a connection that ended early."""
    return TransportError(
        "the connection ended before the answer did",
        unchanged="nothing moved here; what had arrived is kept",
        hint="run the command again: it goes on from there",
    )


def has_data(asked: Fields) -> bool:
    """Whether bytes come behind a message that asks for something."""
    return asked.text("verb", 16) == "put"


def read_message(read: Read) -> Fields:
    """A message; raises the error that it tells."""
    kind, data = read_frame(read)
    if kind != MESSAGE:
        raise malformed("bytes where a message should be")
    return decode(data)


def decode(data: bytes) -> Fields:
    """The map of a message; raises the error that it tells."""
    left = MAX_PARTS

    def counted(found: T) -> T:
        nonlocal left
        left -= 1 + len(found)
        if left < 0:
            raise ValueError("too many values")
        return found

    try:
        values = msgpack.unpackb(
            data,
            strict_map_key=False,
            max_str_len=64 << 10,
            max_bin_len=64,
            max_array_len=MAX_WANTED,
            max_map_len=2 * MAX_UPDATES,
            max_ext_len=0,
            list_hook=counted,
            object_hook=counted,
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise malformed("a message cannot be read") from error
    fields = Fields(values)
    told = fields.part("error")
    if told is not None:
        raise_error(told)
    return fields


def read_data(read: Read) -> Iterator[bytes]:
    """The bytes behind a message, to their end; raises an error that is told among them."""
    while True:
        kind, data = read_frame(read)
        if kind == END:
            return
        if kind == MESSAGE:
            decode(data)
            raise malformed("a message among bytes")
        yield data


# ---------------------------------------------------------------- records in a row


def framed(records: Iterable[bytes]) -> Iterator[bytes]:
    """Records one after the other, each behind its length."""
    for record in records:
        yield struct.pack("<I", len(record)) + record


def unframed(data: Iterator[bytes], most: int = 16 << 20) -> Iterator[bytes]:
    """What ``framed`` made, in whatever pieces it comes."""
    buffer = bytearray()
    for piece in data:
        buffer += piece
        while len(buffer) >= 4:  # noqa: PLR2004 - a length
            (length,) = struct.unpack_from("<I", buffer)
            if length > most:
                raise malformed("a log entry that is too long")
            if len(buffer) < 4 + length:
                break
            yield bytes(buffer[4 : 4 + length])
            del buffer[: 4 + length]
    if buffer:
        raise cut_off()
