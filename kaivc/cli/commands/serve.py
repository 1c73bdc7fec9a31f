"""``kai serve``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Literal

from kaivc.cli import render
from kaivc.cli.arguments import Option
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.errors import InvalidSettings
from kaivc.records import dataclass

if TYPE_CHECKING:
    from kaivc.api import Home
    from kaivc.server.listening import Place

TIB = 1 << 40


@dataclass(frozen=True)
class _Wanted:
    """What the options say of HTTP."""

    listen: str
    tls_cert: str | None
    tls_key: str | None
    anonymous: bool
    access_log: str | None
    proxy: str | None
    max_parcel: str
    max_requests: int


def serve(  # noqa: PLR0913, PLR0917 - one for each option
    door: Invocation,
    listen: Annotated[
        str, Option("--listen", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")
    ] = "127.0.0.1:8750",
    tls_cert: Annotated[
        str | None, Option("--tls-cert", metavar="FILE", help="The certificate with its chain, PEM: speak TLS.")
    ] = None,
    tls_key: Annotated[
        str | None, Option("--tls-key", metavar="FILE", help="Its key, PEM; in the same file unless said.")
    ] = None,
    anonymous: Annotated[
        Literal["viewer"] | None, Option("--anonymous", help="Let whoever shows no token read all agents.")
    ] = None,
    access_log: Annotated[
        str | None, Option("--access-log", metavar="FILE", help="One JSON line for each request; stderr unless said.")
    ] = None,
    trusted_proxy: Annotated[
        str | None,
        Option("--trusted-proxy", metavar="ADDRESS", help="The proxy whose X-Forwarded-For says who asks."),
    ] = None,
    max_parcel: Annotated[
        str, Option("--max-parcel", metavar="SIZE", help="The most that one push may bring, as 500MiB.")
    ] = "16GiB",
    max_requests: Annotated[
        int, Option("--max-requests", metavar="N", min=1, help="So many are worked on at once, half for one token.")
    ] = 32,
    stdio: Annotated[
        bool, Option("--stdio", help="Answer over stdin and stdout: what ssh starts at the far end.")
    ] = False,
) -> None:
    """Serve the home to other machines: over HTTP, or over pipes."""
    from kaivc import api

    home = api.open(door.place, flags=door.flags)
    try:
        if stdio:
            _pipes(home)
            return
        log, proxy, nobody = access_log, trusted_proxy, anonymous is not None
        _http(door, home, _Wanted(listen, tls_cert, tls_key, nobody, log, proxy, max_parcel, max_requests))
    finally:
        home.close()


def _pipes(home: Home) -> None:
    from kaivc.access import UserAccess
    from kaivc.server import stdio
    from kaivc.serving import FarHome

    stdio.serve(FarHome(home.opened, UserAccess(home.opened)), sys.stdin.buffer, sys.stdout.buffer)


def _http(door: Invocation, home: Home, wanted: _Wanted) -> None:
    from kaivc.cli.amounts import size
    from kaivc.server import listening
    from kaivc.server.accesslog import AccessLog
    from kaivc.server.app import build
    from kaivc.server.endpoint import House
    from kaivc.server.guard import Guard
    from kaivc.server.limits import Limits

    limits = Limits(parcel=size("--max-parcel", wanted.max_parcel, 1, 1024 * TIB), requests=wanted.max_requests)
    place = listening.Place.parse(wanted.listen)
    if wanted.tls_cert is None and wanted.tls_key is not None:
        raise InvalidSettings(
            "--tls-key is given, and no --tls-cert", unchanged="nothing was started", hint="give both, or neither"
        )
    context = None if wanted.tls_cert is None else listening.tls(wanted.tls_cert, wanted.tls_key)
    _check_open(home, place, anonymous=wanted.anonymous)
    guard = Guard(home.opened.layout, limits, anonymous=wanted.anonymous)
    with AccessLog(wanted.access_log) as log, House(home.opened, guard, limits, log) as house:
        listener, there = listening.bound(place)
        _say(door, home, there, is_tls=context is not None, anonymous=wanted.anonymous)
        listening.run(build(house), listener, limits, context=context, proxy=wanted.proxy, reopen=log.reopen)


def _check_open(home: Home, place: Place, *, anonymous: bool) -> None:
    """Refuse to listen to the world when nobody could come in: that is surely not what was meant."""
    if not home.tokens() and not place.is_loopback and not anonymous:
        raise InvalidSettings(
            f"there is no token yet, and {place} is open to other machines",
            unchanged="nothing was started",
            hint="make one first: `kai token add NAME --role ROLE`; or listen at 127.0.0.1",
        )


def _say(door: Invocation, home: Home, there: Place, *, is_tls: bool, anonymous: bool) -> None:
    url = f"{'https' if is_tls else 'http'}://{there}"
    tokens = sum(not it.expired for it in home.tokens())
    notices = []
    if not tokens:
        notices.append("nobody has a token: `kai token add NAME --role ROLE` makes one, at any time")
    if anonymous:
        notices.append("whoever shows no token may read all agents")
    if not is_tls and not there.is_loopback:
        notices.append("nothing is encrypted here: put a proxy with TLS before it, or give --tls-cert")
    document = {
        "url": url,
        "host": there.host,
        "port": there.port,
        "tls": is_tls,
        "home": render.path(home.opened.layout.root),
        "pid": os.getpid(),
        "tokens": tokens,
        "anonymous": anonymous,
        "notices": notices,
    }
    lines = [f"serving {escape(home.opened.layout.root)} at {url}", *notices]
    door.answer(lambda: document, lambda: lines)
