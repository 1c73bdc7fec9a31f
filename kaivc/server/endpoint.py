"""What each request goes through, whatever it asks: who is it, is there room, a thread for it, a line in the log."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

from kaivc import adminlog, links
from kaivc.access import Anonymous
from kaivc.errors import InternalError, KaiError, PermissionDenied, StorageError, TransportError
from kaivc.records import dataclass, replace
from kaivc.repository import OpenHome
from kaivc.server.accesslog import AccessLog, Entry
from kaivc.server.exchange import Exchange, GoneError, Receive, Scope, Send, status_of
from kaivc.server.guard import CHALLENGE, UNAUTHORIZED, Guard, Refused
from kaivc.server.limits import Limits
from kaivc.serving import Access

UNAVAILABLE = 503
SHORT = 256 << 10
MOMENT = 2.0
GONE = 499
"""What the log says of a client that went away; nobody is told."""


@dataclass(frozen=True)
class Service:
    """How a protocol is answered. Both run in a thread of the request's own.

    ``answer`` reads the request and answers it; what it raises goes to ``refuse``, with a status and headers, unless
    the answer has begun: then with none.
    """

    answer: Callable[[Exchange], None]
    refuse: Callable[[KaiError], tuple[str, bytes]]
    """An error as the body of an answer, and its content type."""
    cut: Callable[[KaiError], bytes] | None = None
    """An error in the middle of an answer; None where nothing can be said there: then the connection is cut."""


class House:
    """What all endpoints share: the home, who may come in, how many at once, and the log. Use it as a context."""

    def __init__(self, home: OpenHome, guard: Guard, limits: Limits, log: AccessLog) -> None:
        self._home = home
        self.guard = guard
        self.limits = limits
        self.log = log
        self._busy: Counter[tuple[str, str]] = Counter()
        self._threads = ThreadPoolExecutor(limits.requests, "kai-serve")

    @property
    def home(self) -> OpenHome:
        """The home as it is now, for the thread that asks: a repair may have put another catalog in place."""
        self._home.catalog.refresh()
        return replace(self._home, local=links.known(self._home.layout))

    def endpoint(self, service: Service) -> Endpoint:
        """An ASGI application that answers requests of one protocol."""
        return Endpoint(self, service)

    def has_room(self, access: Access, client: str) -> bool:
        """Whether one more request may be worked on, for this token; of who shows none, for this address too."""
        each, mine = self.limits.each, _seat(access, client)
        if isinstance(access, Anonymous) and self._busy[mine] >= max(1, each // 2):
            return False
        theirs = sum(count for name, count in self._busy.items() if name[0] == mine[0])
        return self._busy.total() < self.limits.requests and theirs < each

    async def work(self, access: Access, client: str, job: Callable[[], None]) -> None:
        """Do it in a thread."""
        mine = _seat(access, client)
        self._busy[mine] += 1
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, job)
        finally:
            self._busy[mine] -= 1
            self._busy += Counter()  # forgets who has none

    def told(self, error: Exception, agent: str | None) -> KaiError:
        """An error as a client may read it: without paths of this machine; a fault of ours is noted here."""
        if not isinstance(error, KaiError):
            known: KaiError = InternalError(
                "the server failed",
                unchanged="what was asked may or may not have landed",
                hint="run the command again; whoever keeps the server finds more in its log",
            )
            adminlog.note(self._home, agent or "", InternalError(f"kai serve: {type(error).__name__}: {error}"))
            return known
        if isinstance(error, StorageError):
            adminlog.note(self._home, agent or "", error)
        return _without(error, self._places())

    def _places(self) -> dict[str, str]:
        """Paths of this machine that an error may name, and what stands for them."""
        found = {self._home.layout.root: "HOME"}
        with suppress(KaiError, OSError):
            found |= dict.fromkeys(links.known(self._home.layout).workspaces.values(), "WORKSPACE")
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Endpoint:
    """One protocol, at the paths that it is mounted at."""

    def __init__(self, house: House, service: Service) -> None:
        self._house = house
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        client = str((scope.get("client") or ("",))[0])
        entry = Entry(client, str(scope["method"]), str(scope["path"]))
        began = time.monotonic()
        try:
            await self._admitted(scope, receive, send, entry)
        finally:
            entry.seconds = time.monotonic() - began
            self._house.log.write(entry)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send, entry: Entry) -> None:
        house = self._house
        try:
            access = house.guard.admit(scope)
        except Refused as no:
            await _pass_over(receive)
            await self._refuse(send, entry, no.error, no.status, no.headers)
            return
        except KaiError as error:
            await self._refuse(send, entry, house.told(error, None), error.http_status)
            return
        entry.who = who(access)
        if not house.has_room(access, entry.client):
            await _pass_over(receive)
            await self._refuse(send, entry, busy(), UNAVAILABLE, [("retry-after", "1")])
            return
        loop = asyncio.get_running_loop()
        exchange = Exchange(loop, scope, receive, send, access, house.limits, entry)
        await house.work(access, entry.client, lambda: self._work(exchange))

    async def _refuse(
        self, send: Send, entry: Entry, error: KaiError, status: int, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Answer without a thread; the connection ends with it, for nobody reads what may still come."""
        entry.status, entry.code = status, error.code
        kind, body = self._service.refuse(error)
        said = [*headers, ("content-type", kind), ("content-length", str(len(body))), ("connection", "close")]
        encoded = [(name.encode(), value.encode()) for name, value in said]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        entry.bytes_out = len(body)
        await send({"type": "http.response.body", "body": body, "more_body": False})

    # ------------------------------------------------------------ in the thread

    def _work(self, exchange: Exchange) -> None:
        try:
            try:
                self._service.answer(exchange)
            except GoneError:
                raise
            except Exception as error:  # noqa: BLE001 - the door: whatever happened, the client is told
                self._tell(exchange, self._house.told(error, exchange.entry.agent))
        except GoneError:
            exchange.entry.status, exchange.entry.code = GONE, None

    def _tell(self, exchange: Exchange, error: KaiError) -> None:
        exchange.entry.code = error.code
        if exchange.started:
            if self._service.cut is None:
                raise GoneError
            exchange.write([self._service.cut(error)])
            exchange.finish()
            return
        kind, body = self._service.refuse(error)
        status, headers = status_of(error), [("content-type", kind)]
        if isinstance(exchange.access, Anonymous) and isinstance(error, PermissionDenied):
            status, headers = UNAUTHORIZED, [*headers, *CHALLENGE]  # with a token it may be another matter
        exchange.entry.status = status
        if error.facts.get("status") != 408:  # noqa: PLR2004 - who is too slow is not waited for again
            exchange.pass_over()
        exchange.respond(status, headers, body)


async def _pass_over(receive: Receive) -> None:
    """Read a short body, for a moment: a connection that is closed with bytes unread may lose the answer."""
    left = SHORT

    async def read() -> None:
        nonlocal left
        while left > 0:
            event = await receive()
            left -= len(event.get("body", b""))
            if not event.get("more_body", False):
                return

    with suppress(TimeoutError):
        await asyncio.wait_for(read(), MOMENT)


def _seat(access: Access, client: str) -> tuple[str, str]:
    """Who is busy: all that show no token are one, and told apart by their address."""
    return access.name, client if isinstance(access, Anonymous) else ""


def who(access: Access) -> str:
    """Who it is, for the log."""
    token = getattr(access, "token", None)
    return access.name if token is None else f"{token.id} {token.name}"


def busy() -> TransportError:
    """The error for a server that has enough to do."""
    return TransportError(
        "the server has as many requests as it takes at once", unchanged="nothing moved", hint="try again in a moment"
    )


def _without(error: KaiError, places: Mapping[str, str]) -> KaiError:
    def cleaned(text: str) -> str:
        for path in sorted(places, key=len, reverse=True):
            text = text.replace(path, places[path])
        return text

    facts = {key: cleaned(it) if isinstance(it, str) else it for key, it in error.facts.items()}
    return type(error)(cleaned(error.what), unchanged=cleaned(error.unchanged), hint=cleaned(error.hint), **facts)
