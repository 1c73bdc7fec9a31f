"""Git's smart HTTP: https://git-scm.com/docs/gitprotocol-http, so that real git clones, fetches and pushes.

::

    /AGENT.git    one agent: branch `current`, tags vX.Y.Z
    /_home.git    the whole home; no agent can have that name

A token goes as the password, whatever the user is called. Neither a request nor an answer is ever held whole.
"""

from __future__ import annotations

import re
import zlib
from urllib.parse import parse_qs

from kaivc import gitreceiving, gitserving
from kaivc.access import Anonymous
from kaivc.errors import KaiError, NoSuchAgent, NoSuchPath, PermissionDenied, TransportError
from kaivc.gitarrival import Limits
from kaivc.gitrefs import Site
from kaivc.gitserving import RECEIVE, UPLOAD
from kaivc.pktline import FLUSH, Read, line
from kaivc.server.endpoint import House, Service
from kaivc.server.exchange import Exchange
from kaivc.server.guard import CHALLENGE, UNAUTHORIZED

HOME = "_home"
LISTING = "/{site}.git/info/refs"
SERVICE = "/{site}.git/{service:str}"
PATHS = ((LISTING, "GET"), (SERVICE, "POST"))
MAX_ASKED = 64 << 20
"""Bytes of what is asked of an upload: ids that are wanted and had. A push is bounded by its own limits."""
PIECE = 64 << 10
OK, FORBIDDEN, UNSUPPORTED = 200, 403, 415
TEXT = "text/plain; charset=utf-8"
_PATH = re.compile(r"/([a-z0-9_][a-z0-9._-]{0,62})\.git/(info/refs|git-upload-pack|git-receive-pack)\Z")
_NEVER_CACHED = [
    ("cache-control", "no-cache, max-age=0, must-revalidate"),
    ("expires", "Fri, 01 Jan 1980 00:00:00 GMT"),
    ("pragma", "no-cache"),
    ("x-content-type-options", "nosniff"),
]


def service(house: House) -> Service:
    """How it is answered."""

    def answer(exchange: Exchange) -> None:
        try:
            _answer(house, exchange)
        except (PermissionDenied, NoSuchAgent) as error:
            if exchange.started or not isinstance(exchange.access, Anonymous):
                raise
            exchange.entry.code = error.code  # git asks its user for a token only when it is told to
            exchange.pass_over()
            exchange.respond(UNAUTHORIZED, [*CHALLENGE, ("content-type", TEXT)], _text(error)[1])

    return Service(answer, _text)


def _text(error: KaiError) -> tuple[str, bytes]:
    """An error for people: git shows what a server says beside its status only with GIT_CURL_VERBOSE."""
    text = f"{error.code}: {error.what}\n" + (f"{error.hint}\n" if error.hint else "")
    return TEXT, text.encode("utf-8", "backslashreplace")


def _answer(house: House, exchange: Exchange) -> None:
    found = _PATH.match(exchange.scope["path"].removeprefix(exchange.scope.get("root_path", "")))
    if found is None:
        raise NoSuchPath("nothing is here", hint="git asks at /AGENT.git, and at /_home.git for all agents")
    agent = None if found[1] == HOME else found[1]

    def told(error: KaiError) -> KaiError:
        exchange.entry.code = error.code
        return house.told(error, agent)

    site = Site(house.home, exchange.access, agent, told)
    exchange.entry.agent = agent
    if found[2] == "info/refs":
        _list(exchange, site)
        return
    asked = exchange.entry.verb = found[2]
    if exchange.header("content-type") != f"application/x-{asked}-request":
        exchange.respond(UNSUPPORTED, [("content-type", TEXT)], b"this is no request of git's\n")
        return
    answer = _Answer(exchange, f"application/x-{asked}-result")
    if asked == UPLOAD:
        gitserving.upload_pack(site, _body(exchange, MAX_ASKED), answer.write)
    else:
        exchange.message_is_read()  # a pack takes its time; it need only come fast enough
        limits = Limits(size=house.limits.parcel)
        gitreceiving.receive_pack(site, _body(exchange, limits.size + MAX_ASKED), answer.write, limits)
    answer.end()


def _list(exchange: Exchange, site: Site) -> None:
    words = parse_qs(exchange.scope.get("query_string", b"").decode("ascii", "replace"))
    asked = (words.get("service") or [""])[0]
    if asked not in (UPLOAD, RECEIVE):
        exchange.respond(FORBIDDEN, [("content-type", TEXT)], b"only git's smart protocol is spoken here\n")
        return
    exchange.entry.verb = f"{asked} refs"
    pieces = gitserving.advertise(site, asked)
    answer = _Answer(exchange, f"application/x-{asked}-advertisement")
    answer.write(line(f"# service={asked}\n".encode()) + FLUSH)
    for piece in pieces:
        answer.write(piece)
    answer.end()


class _Answer:
    """What is answered, in pieces of a good size; it begins with the first, so that an error before has a status."""

    def __init__(self, exchange: Exchange, kind: str) -> None:
        self._exchange = exchange
        self._kind = kind
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """More of it."""
        self._held.append(data)
        self._size += len(data)
        if self._size >= PIECE:
            self._flush()

    def _flush(self) -> None:
        if not self._exchange.started:
            self._exchange.start(OK, [("content-type", self._kind), *_NEVER_CACHED])
        held, self._held, self._size = self._held, [], 0
        self._exchange.write(held)

    def end(self) -> None:
        """It is whole."""
        self._exchange.pass_over()
        self._flush()
        self._exchange.finish()


# ---------------------------------------------------------------- what is asked


def _body(exchange: Exchange, most: int) -> Read:
    """Reads the request, inflated if it is deflated; TransportError past ``most`` bytes."""
    coding = exchange.header("content-encoding")
    if coding in ("gzip", "x-gzip"):
        return _bounded(_Inflated(exchange.read).read, most)
    if coding not in (None, "", "identity"):
        raise _refused("the request is encoded in a way that is not known here", UNSUPPORTED)
    return _bounded(exchange.read, most)


class _Inflated:
    """What a gzip stream (RFC 1952) holds, a piece at a time."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._rest = b""

    def read(self, count: int) -> bytes:
        """At most so many bytes; none at the end."""
        while not self._rest:
            if self._inflater.eof:
                return b""
            data = self._inflater.unconsumed_tail or self._read(PIECE)
            if not data:
                raise _refused("the request ends within a gzip stream")
            try:
                self._rest = self._inflater.decompress(data, PIECE)
            except zlib.error as error:
                raise _refused("the request is no gzip stream") from error
        data, self._rest = self._rest[:count], self._rest[count:]
        return data


def _bounded(read: Read, most: int) -> Read:
    left = most

    def bounded(count: int) -> bytes:
        nonlocal left
        data = read(count)
        left -= len(data)
        if left < 0:
            raise _refused(f"the request has more than {most} bytes", 413)
        return data

    return bounded


def _refused(why: str, status: int = 400) -> TransportError:
    return TransportError(why, unchanged="nothing moved", status=status)
