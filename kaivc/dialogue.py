"""Ask a home over whatever carries messages, and answer for one: ``wire.Far`` on both sides of a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from kaivc.errors import TransportError
from kaivc.wire import (
    MAX_WANTED,
    VERSION,
    Entry,
    Far,
    Fields,
    Head,
    Hello,
    Offer,
    Outcome,
    Read,
    framed,
    malformed,
    offer_map,
    pack_data,
    pack_message,
    read_data,
    read_message,
    read_offer,
    unframed,
)

# ---------------------------------------------------------------- asking


Exchange = Callable[[Mapping[str, Any], Iterable[bytes] | None], tuple[Fields, Iterator[bytes]]]
"""Carries one message, with bytes behind it or none, and gives the answer and what is behind that."""


def over_pipes(write: Callable[[bytes], object], flush: Callable[[], object], read: Read) -> Exchange:
    """Messages over a pair of pipes, one after the other; what is behind an answer is read before the next is asked."""
    unread: list[Iterator[bytes]] = []

    def exchange(message: Mapping[str, Any], data: Iterable[bytes] | None) -> tuple[Fields, Iterator[bytes]]:
        while unread:
            for _ in unread.pop():
                pass
        try:
            write(pack_message(message))
            for part in pack_data(data) if data is not None else ():
                write(part)
            flush()
        except TransportError as error:
            _say_why(read, error)
        told = read_message(read)
        behind = read_data(read)
        unread.append(behind)
        return told, behind

    return exchange


def _say_why(read: Read, broken: TransportError) -> NoReturn:
    """Raise what the other end said before it hung up; ``broken`` if that is nothing."""
    try:
        read_message(read)
    except TransportError as error:
        raise (broken if type(error) is TransportError else error) from None
    raise broken


class Client:
    """``Far`` over whatever carries messages."""

    def __init__(self, exchange: Exchange, close: Callable[[], None]) -> None:
        self._exchange = exchange
        self._close = close

    def _ask(self, verb: str, data: Iterable[bytes] | None = None, **fields: object) -> tuple[Fields, Iterator[bytes]]:
        return self._exchange({"v": VERSION, "verb": verb, **fields}, data)

    def hello(self) -> Hello:
        """Who is there."""
        told, _ = self._ask("hello")
        object_format = told.text("object_format")
        if object_format not in ("sha1", "sha256"):
            raise malformed("the home has no object format that there is")
        return Hello(told.home("home"), object_format, told.names("agents"))

    def head(self, agent: str) -> Head:
        """Where an agent's log stands."""
        told, _ = self._ask("head", agent=agent)
        return Head(agent, told.number("seq"), told.id("digest"), told.refs("refs"))

    def log(self, agent: str, after: int) -> Iterator[bytes]:
        """The op records behind number ``after``; each is framed by its length."""
        _, data = self._ask("log", agent=agent, after=after)
        return unframed(data)

    def offer(self, agent: str, wants: tuple[bytes, ...], haves: tuple[bytes, ...]) -> Offer:
        """What is missing between these."""
        told, _ = self._ask("offer", agent=agent, wants=list(wants), haves=list(haves))
        return read_offer(told)

    def get(
        self, agent: str, wants: tuple[bytes, ...], haves: tuple[bytes, ...], offer: Offer, start: int
    ) -> Iterator[bytes]:
        """The bytes of a parcel."""
        asked = {"agent": agent, "wants": list(wants), "haves": list(haves), "offer": offer_map(offer)}
        return self._ask("get", None, start=start, **asked)[1]

    def held(self, agent: str, parcel: Offer) -> int:
        """How much of a parcel is there."""
        return self._ask("held", agent=agent, parcel=offer_map(parcel))[0].number("held")

    def put(self, agent: str, parcel: Offer, start: int, data: Iterable[bytes]) -> int:
        """Send more of it."""
        told, _ = self._ask("put", data, agent=agent, parcel=offer_map(parcel), start=start)
        return told.number("held")

    def append(self, agent: str, entry: Entry) -> Outcome:
        """Ask for the next log entry."""
        told, _ = self._ask(
            "append",
            agent=agent,
            op_id=entry.op_id,
            actor=entry.actor,
            reason=entry.reason,
            updates=[[it.ref, it.old, it.new] for it in entry.updates],
            parcel=None if entry.parcel is None else offer_map(entry.parcel),
        )
        return Outcome(told.number("seq"), told.id("digest"), told.maybe_number("backup"))

    def close(self) -> None:
        """Let go."""
        self._close()


# ---------------------------------------------------------------- answering


Answer = tuple[Mapping[str, Any], Iterator[bytes] | None]


def answer(far: Far, asked: Fields, data: Iterator[bytes]) -> Answer:
    """What a home answers to one message: a message, and perhaps bytes behind it. Errors of ``far`` pass through."""
    if asked.number("v") != VERSION:
        raise TransportError(
            f"a peer speaks version {asked.number('v')} of the transfer protocol; this release speaks {VERSION}",
            unchanged="nothing moved",
            hint="use releases of kaivc that fit each other",
        )
    verb = asked.text("verb", 16)
    known = _ANSWERS.get(verb)
    if known is None:
        raise malformed(f"there is no verb {verb!r}")
    return known(far, asked, data)


def _hello(far: Far, asked: Fields, data: Iterator[bytes]) -> Answer:  # noqa: ARG001 - one shape for all verbs
    told = far.hello()
    return {"home": told.home, "object_format": told.object_format, "agents": list(told.agents)}, None


def _head(far: Far, asked: Fields, data: Iterator[bytes]) -> Answer:  # noqa: ARG001 - as above
    told = far.head(asked.name("agent"))
    return {"seq": told.seq, "digest": told.digest, "refs": dict(told.refs)}, None


def _log(far: Far, asked: Fields, data: Iterator[bytes]) -> Answer:  # noqa: ARG001 - as above
    return {}, framed(far.log(asked.name("agent"), asked.number("after")))


def _offer(far: Far, asked: Fields, data: Iterator[bytes]) -> Answer:  # noqa: ARG001 - as above
    return offer_map(far.offer(asked.name("agent"), asked.ids("wants", MAX_WANTED), asked.ids("haves"))), None


def _get(far: Far, asked: Fields, data: Iterator[bytes]) -> Answer:  # noqa: ARG001 - as above
    offer = read_offer(asked.part("offer") or asked)
    wants, haves = asked.ids("wants", MAX_WANTED), asked.ids("haves")
    pieces = far.get(asked.name("agent"), wants, haves, offer, asked.number("start"))
    return {}, pieces


def _held(far: Far, asked: Fields, data: Iterator[bytes]) -> Answer:  # noqa: ARG001 - as above
    return {"held": far.held(asked.name("agent"), read_offer(asked.part("parcel") or asked))}, None


def _put(far: Far, asked: Fields, data: Iterator[bytes]) -> Answer:
    parcel = read_offer(asked.part("parcel") or asked)
    return {"held": far.put(asked.name("agent"), parcel, asked.number("start"), data)}, None


def _append(far: Far, asked: Fields, data: Iterator[bytes]) -> Answer:  # noqa: ARG001 - as above
    parcel = asked.part("parcel")
    entry = Entry(
        asked.text("op_id", 64),
        asked.text("actor"),
        asked.text("reason", 64 << 10),
        asked.moves("updates"),
        None if parcel is None else read_offer(parcel),
    )
    told = far.append(asked.name("agent"), entry)
    return {"seq": told.seq, "digest": told.digest, "backup": told.backup}, None


_ANSWERS: Mapping[str, Callable[[Far, Fields, Iterator[bytes]], Answer]] = {
    "hello": _hello,
    "head": _head,
    "log": _log,
    "offer": _offer,
    "get": _get,
    "held": _held,
    "put": _put,
    "append": _append,
}
