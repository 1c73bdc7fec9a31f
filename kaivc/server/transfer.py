"""The transfer protocol over HTTP: ``POST /kai/v1``, a message in and what is behind it, an answer out.

The body of the request is what goes over a pipe: docs/format/transfer.md. So is that of the answer, whatever its status
says: an error is a message too.
"""

from __future__ import annotations

import os

from kaivc import dialogue, wire
from kaivc.errors import KaiError, NoSpace, NoSuchPath, TooLarge, TransportError
from kaivc.server.endpoint import House, Service
from kaivc.server.exchange import Exchange
from kaivc.serving import FarHome
from kaivc.wire import Fields

PATH = "/kai/v1"
CONTENT = "application/x-kai-transfer"
OK = 200


def service(house: House) -> Service:
    """How it is answered."""

    def answer(exchange: Exchange) -> None:
        if exchange.method != "POST":
            raise NoSuchPath("only POST is answered here", hint="this is where `kai` asks, not a browser")
        asked = _asked(exchange)
        exchange.message_is_read()
        _note(exchange, asked)
        _check_size(asked, house)
        behind = wire.read_data(exchange.read) if wire.has_data(asked) else iter(())
        told, pieces = dialogue.answer(FarHome(house.home, exchange.access), asked, behind)
        exchange.pass_over()
        exchange.start(OK, [("content-type", CONTENT)])
        exchange.write([wire.pack_message(told)])
        exchange.write(wire.pack_data(wire.gathered(pieces or ())))
        exchange.finish()

    return Service(answer, lambda error: (CONTENT, _frame(error)), _frame)


def _asked(exchange: Exchange) -> Fields:
    """The message; one that tells an error asks nothing."""
    try:
        return wire.read_message(exchange.read)
    except TransportError:
        raise
    except KaiError as error:
        raise wire.malformed("an error where a question should be") from error


def _note(exchange: Exchange, asked: Fields) -> None:
    """For the log: what is asked, and of which agent."""
    exchange.entry.verb = asked.text("verb", 16)
    exchange.entry.agent = None if exchange.entry.verb == "hello" else asked.name("agent")


def _check_size(asked: Fields, house: House) -> None:
    """Raise TooLarge, or NoSpace, for a parcel that would not fit."""
    parcel = asked.part("parcel")
    if parcel is None:
        return
    size, most = parcel.number("size"), house.limits.parcel
    if size > most:
        raise TooLarge(
            f"a parcel of {size} bytes; the server takes {most}",
            unchanged="nothing was taken",
            hint="send fewer versions at once, or ask whoever keeps the server for more",
        )
    disk = os.statvfs(house.home.layout.kai)
    if _needed(asked, size) > disk.f_bavail * disk.f_frsize:
        raise NoSpace(
            f"the server has no room for a parcel of {size} bytes",
            unchanged="nothing was taken",
            hint="tell whoever keeps the server",
        )


def _needed(asked: Fields, size: int) -> int:
    """Bytes of disk that are still to be written: what lands is written once as it comes, and once where it stays."""
    verb = asked.text("verb", 16)
    if verb == "put":
        return 2 * size - asked.number("start")
    return size if verb == "held" else 0


def _frame(error: KaiError) -> bytes:
    return wire.pack_message({"error": wire.error_map(error)})
