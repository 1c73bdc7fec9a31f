"""A home over HTTP: ``kai serve`` at the other end. A message and what is behind it are one POST, streamed both ways.

No redirect is followed: whoever answers with one could have the token, or what is sent, go elsewhere.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from kaivc import access, wire
from kaivc.dialogue import Client
from kaivc.errors import KaiError, TransportError
from kaivc.remotes import credentials
from kaivc.remotes.base import Context
from kaivc.remotes.credentials import Credential, Origin
from kaivc.remotes.githttp import exactly, proxy_for
from kaivc.remotes.gitlines import clean
from kaivc.remotes.homes import HomeRemote
from kaivc.wire import Far, Fields

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

PATH = "/kai/v1"
CONTENT = "application/x-kai-transfer"
CONNECT_SECONDS, IDLE_SECONDS = 30, 900
"""An answer begins when all that was sent is checked, and that may take a while."""
STREAMS = frozenset(["log", "get"])
"""What is answered by more than a message."""
UNAUTHORIZED = 401
REDIRECTS = (301, 302, 303, 307, 308)
PASSING = (502, 503, 504)
"""What a proxy says when the server behind it is not there for a moment."""


def connect(context: Context, url: str) -> HomeRemote:
    """The home that a URL names; nothing is asked yet."""
    return HomeRemote(context, _Server(context, url).far)


class _Server:
    """A server, and who one is to it; that is found out once, whatever connections break."""

    def __init__(self, context: Context, url: str) -> None:
        parts = urlsplit(url)
        self._context = context
        self._origin = Origin.of(url)
        self._user = unquote(parts.username or "")
        self._url = f"{self._origin}{parts.path.rstrip('/')}{PATH}"
        self._credential: Credential | None = None
        self._secrets: set[str] = set()

    def far(self) -> Far:
        """What can be asked there, over connections of its own."""
        pool = self._pool()
        return Client(lambda message, data: self._exchange(pool, message, data), pool.clear)

    def _pool(self) -> Any:  # noqa: ANN401 - of urllib3, which is imported late
        import urllib3

        environ = self._context.environ
        wait = urllib3.Timeout(connect=CONNECT_SECONDS, read=IDLE_SECONDS)
        trust = _trust(environ.get("SSL_CERT_FILE")) if self._origin.scheme == "https" else None
        proxy = proxy_for(self._origin, environ)
        if proxy is not None:
            return urllib3.ProxyManager(proxy, timeout=wait, ssl_context=trust, retries=False)
        return urllib3.PoolManager(timeout=wait, ssl_context=trust, retries=False)

    # ------------------------------------------------------------ one question

    def _exchange(
        self,
        pool: Any,  # noqa: ANN401 - as above
        message: Mapping[str, Any],
        data: Iterable[bytes] | None,
    ) -> tuple[Fields, Iterator[bytes]]:
        with self._told():
            response = self._asked(pool, wire.pack_message(message), data)
            try:
                self._require_ours(response)
                told = wire.read_message(exactly(response))
            except BaseException:
                response.close()
                raise
        behind = self._behind(response)
        if message["verb"] in STREAMS:
            return told, behind
        for _ in behind:
            pass
        return told, iter(())

    def _asked(self, pool: Any, head: bytes, data: Iterable[bytes] | None) -> BaseHTTPResponse:  # noqa: ANN401 - as above
        """The answer; where it is asked who one is, to the question asked again with what is found.

        What is behind a message can be sent once only: then whoever is asked must know already who one is.
        """
        response = self._send(pool, head, data, self._credential)
        if response.status != UNAUTHORIZED or data is not None:
            return response
        tried, environ = 0, self._context.environ
        if self._credential is not None:
            credentials.tell(self._origin, self._credential, environ, right=False)
            tried, self._credential = 1, None
        for credential in credentials.candidates(self._origin, self._user, environ, self._context.ask, own=True):
            tried += 1
            response.drain_conn()
            response = self._send(pool, head, None, credential)
            right = response.status != UNAUTHORIZED
            credentials.tell(self._origin, credential, environ, right=right)
            if right:
                self._credential = credential
                return response
        response.close()
        raise credentials.needed(self._origin, tried)

    def _send(
        self,
        pool: Any,  # noqa: ANN401 - as above
        head: bytes,
        data: Iterable[bytes] | None,
        credential: Credential | None,
    ) -> BaseHTTPResponse:
        if credential is not None:
            self._secrets.add(credential.secret)
        headers = {"Content-Type": CONTENT, "Accept": CONTENT, "User-Agent": "kai", **_authorization(credential)}
        body = head if data is None else wire.gathered(chain([head], wire.pack_data(wire.gathered(data))))
        response: BaseHTTPResponse = pool.request(
            "POST",
            self._url,
            headers=headers,
            body=body,
            chunked=data is not None,
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
        )
        return response

    # ------------------------------------------------------------ one answer

    def _require_ours(self, response: BaseHTTPResponse) -> None:
        """Raise unless a home answers. What else does is not shown: it may be anything."""
        status = response.status
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if kind == CONTENT and status not in REDIRECTS:
            return
        what, hint = f"{self._origin} answers HTTP {status}, and not as `kai serve` does", "look at the URL"
        if status in REDIRECTS:
            to = clean(response.headers.get("Location", "").partition("?")[0])[:200]
            what = f"{self._origin} says to go to {to or 'nowhere'}, and that is not followed"
            hint = "if that is where the home is, `kai remote add` it by that URL"
        elif status in PASSING:
            hint = "a proxy answers, and the server behind it does not: try again in a moment"
        raise TransportError(what, unchanged="nothing moved", hint=hint, status=status, repeat=status in PASSING)

    def _behind(self, response: BaseHTTPResponse) -> Iterator[bytes]:
        whole = False
        try:
            with self._told():
                yield from wire.read_data(exactly(response))
                whole = not response.read(1)
        finally:
            if whole:
                response.release_conn()
            else:
                response.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what goes wrong within, without secrets."""
        from urllib3.exceptions import HTTPError

        try:
            yield
        except KaiError as error:
            raise credentials.without(error, self._secrets) from None
        except (HTTPError, OSError) as error:
            raise credentials.without(self._unreachable(error), self._secrets) from None

    def _unreachable(self, error: Exception) -> TransportError:
        from urllib3.exceptions import SSLError

        reason = getattr(error, "reason", None) or error
        hint = "look at the URL and at the connection, then run the command again: it goes on from where it was cut"
        if "WRONG_VERSION_NUMBER" in str(reason):
            hint = f"TLS is not spoken there: is it http://{self._origin.host}:{self._origin.port}?"
        elif isinstance(error, SSLError) or isinstance(reason, ssl.SSLCertVerificationError):
            hint = "its certificate is not one that is trusted here; SSL_CERT_FILE names others to trust"
        return TransportError(
            f"{self._origin} cannot be reached, or broke off: {_words(reason)}",
            unchanged="nothing moved here",
            hint=hint,
            repeat=not isinstance(error, SSLError),
        )


def _words(error: object) -> str:
    """What the system says, without the objects that urllib3 names: `<...>: ` once, `HTTPConnection(...): ` now."""
    text = clean(str(error)).rpartition(">: ")[2]
    return re.sub(r"^\w+\(host=[^)]*\): ", "", text) or type(error).__name__


def _authorization(credential: Credential | None) -> dict[str, str]:
    if credential is None:
        return {}
    if access.is_token(credential.secret):
        return {"Authorization": f"Bearer {credential.secret}"}
    from urllib3 import make_headers

    return make_headers(basic_auth=f"{credential.user}:{credential.secret}")


def _trust(path: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path or None)
    except (OSError, ssl.SSLError) as error:
        raise TransportError(
            f"the certificates in {path} cannot be read",
            unchanged="nothing was sent",
            hint="let SSL_CERT_FILE name a file of PEM certificates",
            repeat=False,
        ) from error
