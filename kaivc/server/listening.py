"""The process: a socket, TLS, uvicorn on it, and an end that lets requests end first."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from kaivc.errors import InvalidSettings, TransportError
from kaivc.records import dataclass
from kaivc.server.limits import Limits

MAX_HEAD = 16 << 10
KEEP_ALIVE = 30
BACKLOG = 512
FILES = 256
"""Descriptors that are kept free of connections: the catalog, packs, and the list of tokens above all."""


@dataclass(frozen=True)
class Place:
    """Where to listen; ``host`` may be a name."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read HOST:PORT, [V6]:PORT or :PORT, which is every address; InvalidSettings otherwise."""
        host, colon, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not (port.isascii() and port.isdigit() and int(port) < 1 << 16) or "/" in host:
            raise InvalidSettings(
                f"{text!r:.100} is no place to listen at",
                unchanged="nothing was started",
                hint="write HOST:PORT, as 127.0.0.1:8750; port 0 takes one that is free",
            )
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can come in."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Door(socket.socket):
    """A listening socket that hangs up on whoever is one too many.

    Counted as they are accepted: one that says nothing, or does not get through TLS, holds a descriptor too, and where
    there is none left the event loop never gets to its feet again.
    """

    most = each = Limits().connections
    """Connections that may be open; and of one address."""
    idle = Limits().idle
    """Seconds that what was sent may wait to be taken, also once the connection is closed here."""

    def __init__(self, *words: Any, **more: Any) -> None:  # noqa: ANN401 - as a socket has them
        super().__init__(*words, **more)
        self._inside: dict[socket.socket, str] = {}

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that there is room for."""
        while True:
            connection, address = super().accept()
            self._inside = {it: where for it, where in self._inside.items() if it.fileno() >= 0}
            where = str(address[0])
            if len(self._inside) < self.most and sum(it == where for it in self._inside.values()) < self.each:
                self._inside[connection] = where
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.idle * 1000))
                return connection, address
            connection.close()


def bound(place: Place) -> tuple[Door, Place]:
    """A socket that listens, and where it is now that the port is known; TransportError."""
    try:
        where = socket.getaddrinfo(place.host or None, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = where[0]
        found = Door(family, kind, protocol)
    except OSError as error:
        raise _unbound(place, error) from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise _unbound(place, error) from error
    name = found.getsockname()
    return found, Place(str(name[0]), int(name[1]))


def _unbound(place: Place, error: OSError) -> TransportError:
    return TransportError(
        f"{place} cannot be listened at: {error.strerror or error}",
        unchanged="nothing was started",
        hint="is another server there? `--listen HOST:PORT` chooses another place",
    )


def tls(certificate: str, key: str | None) -> ssl.SSLContext:
    """What TLS is spoken with; InvalidSettings for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else error.reason
        raise InvalidSettings(
            f"the certificate {certificate} cannot be used: {why or 'it and its key do not fit'}",
            unchanged="nothing was started",
            hint="give PEM files: the certificate with its chain by --tls-cert, its key, not encrypted, by --tls-key",
        ) from error
    return context


def _no_password() -> str:
    """A server has nobody to ask."""
    return ""


# ---------------------------------------------------------------- uvicorn


class Connection(H11Protocol):
    """uvicorn's, with a time by which the head of a request must have come: it has none of its own."""

    seconds = Limits().head
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to count."""
        super().connection_made(transport)
        self._count()

    def data_received(self, data: bytes) -> None:
        """Count from the first byte of a request on, until its head is there."""
        super().data_received(data)
        self._count()

    def on_response_complete(self) -> None:
        """Count for the next request: a part of it may be here already."""
        super().on_response_complete()
        self._count()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count no more."""
        self._stop()
        super().connection_lost(exc)

    @property
    def _waits(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _count(self) -> None:
        if not self._waits:
            self._stop()
        elif self._late is None:
            self._late = self.loop.call_later(self.seconds, self._give_up)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._waits and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """One that ends well when it is told to: a signal is no error."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: ``run`` asks for signals itself."""
        yield


def _room(connections: int) -> int:
    """How many of so many may be open, with all the descriptors that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - FILES))


def run(
    app: Any,  # noqa: ANN401 - an ASGI application
    listener: Door,
    limits: Limits,
    *,
    context: ssl.SSLContext | None,
    proxy: str | None,
    reopen: Callable[[], None],
) -> None:
    """Answer until SIGTERM or SIGINT; then take nothing new, and let what is begun end within ``limits.grace``.

    SIGHUP calls ``reopen``. ``proxy`` is the address whose word counts for where a request comes from.
    """
    listener.most = _room(limits.connections)
    listener.each = listener.most if proxy is not None else max(1, listener.most // 2)
    listener.idle = limits.idle
    connection = type("_Connection", (Connection,), {"seconds": limits.head})
    config = uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=proxy is not None,
        forwarded_allow_ips=proxy,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(limits.grace),
        h11_max_incomplete_event_size=MAX_HEAD,
        ssl_context_factory=None if context is None else lambda _, __: context,
    )
    server = _Server(config)

    def stop() -> None:
        server.force_exit = server.should_exit  # told twice, it waits for nobody
        server.should_exit = True

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        loop.add_signal_handler(signal.SIGHUP, reopen)
        await server.serve([listener])

    asyncio.run(serve())
