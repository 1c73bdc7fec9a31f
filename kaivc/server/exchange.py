"""One request and its answer, as the thread that works on it sees them: plain reads and writes that wait.

What comes is read as it is needed, and what goes is sent as it is taken: the network waits for the thread, and the
thread for the network, and neither holds more than a few pieces.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from typing import Any, TypeVar

from kaivc.errors import KaiError, TransportError
from kaivc.server.accesslog import Entry
from kaivc.server.limits import Limits
from kaivc.serving import Access
from kaivc.wire import gathered

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[str, str]]

PASSED_OVER = 8 << 20
"""Bytes of a request that are read and forgotten, so that whoever sends it comes to read why it was refused."""
SLACK = 30.0


class GoneError(Exception):
    """The client is not there any more, or too slow: nobody would read an answer."""


class Exchange:
    """A request whose client is known, in the hands of one thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        scope: Scope,
        receive: Receive,
        send: Send,
        access: Access,
        limits: Limits,
        entry: Entry,
    ) -> None:
        self.scope = scope
        self.access = access
        self.entry = entry
        self._loop = loop
        self._receive = receive
        self._send = send
        self._limits = limits
        self._buffer = bytearray()
        self._ended = False
        self._began = time.monotonic()
        self._deadline: float | None = self._began + limits.message
        self.started = False

    @property
    def method(self) -> str:
        """The method of the request."""
        return str(self.scope["method"])

    def header(self, name: str) -> str | None:
        """A header of the request, by its name in lower case; None if it is not there, or there twice."""
        found = [value for key, value in self.scope["headers"] if key == name.encode()]
        return found[0].decode("latin-1") if len(found) == 1 else None

    # ------------------------------------------------------------ the request

    def read(self, count: int) -> bytes:
        """Exactly so many bytes of the body, fewer only at its end; TransportError for who is too slow."""
        while len(self._buffer) < count and not self._ended:
            self._more()
        with memoryview(self._buffer) as view:
            data = bytes(view[:count])
        del self._buffer[:count]
        return data

    def message_is_read(self) -> None:
        """From here on there is no deadline: what comes need only come fast enough."""
        self._deadline = None
        self._began = time.monotonic()

    def pass_over(self, most: int = PASSED_OVER) -> None:
        """Read what is left of the body, to a bound, and forget it."""
        self._buffer.clear()
        before = self.entry.bytes_in
        while not self._ended and self.entry.bytes_in - before < most:
            self._more()
            self._buffer.clear()

    def _more(self) -> None:
        patience = self._limits.idle
        if self._deadline is not None:
            patience = max(0.0, min(patience, self._deadline - time.monotonic()))
        try:
            event = self._wait(self._receive(), patience)
        except TimeoutError as error:
            raise too_slow() from error
        if event["type"] != "http.request":
            raise GoneError
        body = event.get("body", b"")
        self._buffer += body
        self.entry.bytes_in += len(body)
        self._ended = not event.get("more_body", False)
        took = time.monotonic() - self._began
        if not self._ended and took > self._limits.idle and self.entry.bytes_in < took * self._limits.rate:
            raise too_slow()

    # ------------------------------------------------------------ the answer

    def start(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        self.entry.status = status
        self.started = True
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        self._say({"type": "http.response.start", "status": status, "headers": encoded})

    def write(self, pieces: Iterable[bytes]) -> None:
        """More of the answer's body, gathered into pieces of a good size."""
        for piece in gathered(pieces):
            self._body(piece)

    def _body(self, data: bytes, *, more: bool = True) -> None:
        self.entry.bytes_out += len(data)
        self._say({"type": "http.response.body", "body": data, "more_body": more})

    def finish(self) -> None:
        """End the answer."""
        self._body(b"", more=False)

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer; to a request that is not read to its end it is the last one of the connection."""
        last = [] if self._ended else [("connection", "close")]
        self.start(status, [*headers, ("content-length", str(len(body))), *last])
        self._body(body, more=False)

    def _say(self, event: Mapping[str, Any]) -> None:
        try:
            self._wait(self._send(dict(event)), self._limits.idle)
        except TimeoutError as error:
            raise GoneError from error

    def _wait(self, what: Awaitable[T], patience: float) -> T:
        """Let the event loop do it; GoneError if the server stops meanwhile."""

        async def bounded() -> T:
            return await asyncio.wait_for(what, patience)

        todo: Coroutine[Any, Any, T] = bounded()
        try:
            return asyncio.run_coroutine_threadsafe(todo, self._loop).result(patience + SLACK)
        except (concurrent.futures.CancelledError, RuntimeError) as error:
            todo.close()
            raise GoneError from error


def too_slow() -> TransportError:
    """The error for who keeps the server waiting."""
    return TransportError(
        "what was sent came too slowly, and was given up",
        unchanged="nothing moved; what had arrived is kept",
        hint="run the command again: it goes on from there",
        status=408,
    )


def status_of(error: KaiError) -> int:
    """How HTTP says an error: what a client cannot have been understood for is its own fault."""
    if type(error) is not TransportError:
        return error.http_status
    status = error.facts.get("status")
    return status if isinstance(status, int) else 400
