"""The transfer protocol over HTTP: ``POST /kai/v1``, a message in and what is behind it, an answer out.

The body of the request is what goes over a pipe: docs/format/transfer.md. So is that of the answer, whatever its status
says: an error is a message too.
"""

from __future__ import annotations

from kaivc import wire
from kaivc.errors import KaiError, NoSuchPath, TooLarge, TransportError
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
        _check_size(asked, house.limits.parcel)
        behind = wire.read_data(exchange.read) if wire.has_data(asked) else iter(())
        told, pieces = wire.answer(FarHome(house.home, exchange.access), asked, behind)
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


def _check_size(asked: Fields, most: int) -> None:
    parcel = asked.part("parcel")
    if parcel is not None and parcel.number("size") > most:
        raise TooLarge(
            f"a parcel of {parcel.number('size')} bytes; the server takes {most}",
            unchanged="nothing was taken",
            hint="send fewer versions at once, or ask whoever keeps the server for more",
        )


def _frame(error: KaiError) -> bytes:
    return wire.pack_message({"error": wire.error_map(error)})
