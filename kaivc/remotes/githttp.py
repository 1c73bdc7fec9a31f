"""Git's smart HTTP: https://git-scm.com/docs/http-protocol. Each request stands alone; a pack is sent as it is made."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from kaivc.errors import TransportError
from kaivc.remotes import credentials
from kaivc.remotes.base import Context
from kaivc.remotes.credentials import Credential, Origin
from kaivc.remotes.gitlines import Advertised, Read, clean, hint_for, lines_over, malformed, next_line, read_advertised

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

WHOLE = 1 << 20
"""A request of up to so many bytes is sent with its length: some proxies take no other."""
MAX_REDIRECTS = 5
CONNECT_SECONDS, IDLE_SECONDS = 30, 600
MAX_WORDS = 2000
_REDIRECTS = (301, 302, 303, 307, 308)
UNAUTHORIZED, TOO_LARGE = 401, 413


class HttpRepository:
    """A repository behind a URL, and what is known of it from one request to the next."""

    def __init__(self, context: Context, url: str, agent: str) -> None:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
        self._url = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
        self._user = unquote(parts.username or "")
        self._own = Origin.of(self._url)
        self._context = context
        self._agent = agent
        self._credential: tuple[Origin, Credential] | None = None
        self.secrets: set[str] = set()
        self._pools: dict[Origin, Any] = {}

    def begin(self, service: str) -> HttpSession:
        """What is there, by a service of git's."""
        with self.told():
            response = self._get(f"{self._url}/info/refs?service={service}", service)
            try:
                lines = lines_over(exactly(response))
                if next_line(lines) != b"# service=" + service.encode() + b"\n" or next_line(lines) is not None:
                    raise malformed("another service")
                return HttpSession(self, service, read_advertised(lines))
            finally:
                _let_go(response)

    def close(self) -> None:
        """Let go."""
        for pool in self._pools.values():
            pool.clear()
        self._pools.clear()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tell what goes wrong within as one of ours."""
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (HTTPError, OSError) as error:
            raise _unreachable(self._url, error) from error

    # ------------------------------------------------------------ requests

    def _get(self, url: str, service: str) -> BaseHTTPResponse:
        """Ask what is there; where the repository is somewhere else by now, there."""
        suffix = f"/info/refs?service={service}"
        for _ in range(MAX_REDIRECTS):
            response = self._authorised("GET", url, {"Accept": "*/*"}, None)
            if response.status not in _REDIRECTS:
                self._url = url.removesuffix(suffix)
                self._require(response, f"application/x-{service}-advertisement")
                return response
            to = urljoin(url, response.headers.get("Location", ""))
            response.drain_conn()
            _check_redirect(url, to, suffix)
            url = to
        raise malformed("too many redirects")

    def post(self, service: str, request: Callable[[], Iterable[bytes]]) -> BaseHTTPResponse:
        """Send a request, whatever its size; its answer."""
        headers = {
            "Content-Type": f"application/x-{service}-request",
            "Accept": f"application/x-{service}-result",
        }
        response = self._authorised("POST", f"{self._url}/{service}", headers, request)
        self._require(response, f"application/x-{service}-result")
        return response

    def _authorised(
        self, method: str, url: str, headers: Mapping[str, str], body: Callable[[], Iterable[bytes]] | None
    ) -> BaseHTTPResponse:
        """One request; where it is asked who one is, again with what is found."""
        origin = Origin.of(url)
        known = self._credential[1] if self._credential and self._credential[0] == origin else None
        response = self._send(method, url, headers, body, known)
        if response.status != UNAUTHORIZED:
            return response
        tried = 0
        if known is not None:
            credentials.tell(origin, known, self._environ, right=False)
            tried += 1
        user = self._user if origin == self._own else ""
        wanted = credentials.candidates(origin, user, self._environ, self._context.ask, own=origin == self._own)
        for credential in wanted:
            if credential == known:
                continue
            tried += 1
            response.drain_conn()
            response = self._send(method, url, headers, body, credential)
            if response.status != UNAUTHORIZED:
                self._credential = (origin, credential)
                credentials.tell(origin, credential, self._environ, right=True)
                return response
            credentials.tell(origin, credential, self._environ, right=False)
        raise credentials.needed(origin, tried)

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Callable[[], Iterable[bytes]] | None,
        credential: Credential | None,
    ) -> BaseHTTPResponse:
        from urllib3 import make_headers

        every = {**headers, "User-Agent": f"git/{self._agent}", "Accept-Encoding": "gzip"}
        if credential is not None:
            self.secrets.add(credential.secret)
            pair = make_headers(basic_auth=f"{credential.user}:{credential.secret}")
            self.secrets.add(pair["authorization"].partition(" ")[2])
            every.update(pair)
        data = None if body is None else _whole_or_pieces(body())
        response: BaseHTTPResponse = self._pool(url).request(
            method,
            url,
            headers=every,
            body=data,
            chunked=data is not None and not isinstance(data, bytes),
            preload_content=False,
            redirect=False,
            retries=False,
        )
        return response

    @property
    def _environ(self) -> Mapping[str, str]:
        return self._context.environ

    def _pool(self, url: str) -> Any:  # noqa: ANN401 - of urllib3, which is imported late
        import urllib3

        origin = Origin.of(url)
        if origin not in self._pools:
            trust = ssl.create_default_context(cafile=self._environ.get("SSL_CERT_FILE") or None)
            shared: dict[str, Any] = {"timeout": urllib3.Timeout(CONNECT_SECONDS, IDLE_SECONDS), "ssl_context": trust}
            proxy = proxy_for(origin, self._environ)
            self._pools[origin] = urllib3.ProxyManager(proxy, **shared) if proxy else urllib3.PoolManager(**shared)
        return self._pools[origin]

    def _require(self, response: BaseHTTPResponse, kind: str) -> None:
        """Raise unless it is a good answer of that kind."""
        found = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if response.status == 200 and found == kind:  # noqa: PLR2004 - OK
            return
        try:
            words = clean(re.sub(rb"<[^>]*>", b" ", response.read(MAX_WORDS) or b"")) if "text" in found else ""
        finally:
            response.close()
        if response.status == 200:  # noqa: PLR2004 - OK
            raise malformed(f"an answer of the type {clean(found)!r}")
        why = f"HTTP {response.status} {clean(response.reason or '')}" + (f": {words}" if words else "")
        hint = hint_for("too large" if response.status == TOO_LARGE else why)
        raise TransportError(
            f"the other end answers {why}", unchanged="nothing moved", hint=hint, status=response.status
        )


class HttpSession:
    """One service of a repository."""

    def __init__(self, repository: HttpRepository, service: str, advertised: Advertised) -> None:
        self._repository = repository
        self._service = service
        self._response: BaseHTTPResponse | None = None
        self.advertised = advertised

    def ask(self, request: Callable[[], Iterable[bytes]]) -> Read:
        """Send a request; what reads the answer."""
        with self._repository.told():
            self._response = self._repository.post(self._service, request)
        read = exactly(self._response)

        def guarded(size: int) -> bytes:
            with self._repository.told():
                return read(size)

        return guarded

    def close(self) -> None:
        """Let go; what is still coming is cut."""
        if self._response is not None:
            self._response.close()


def _let_go(response: BaseHTTPResponse) -> None:
    """Keep the connection for the next request if the answer has been read to its end, what marks that included."""
    if response.read(1):
        response.close()
    else:
        response.release_conn()


def exactly(response: BaseHTTPResponse) -> Read:
    """Exactly so many bytes of an answer, fewer only at its end."""

    def read(size: int) -> bytes:
        pieces, left = [], size
        while left:
            piece = response.read(left)
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    return read


def _whole_or_pieces(pieces: Iterable[bytes]) -> bytes | Iterator[bytes]:
    """A short body whole, a long one in pieces."""
    rest = iter(pieces)
    held: list[bytes] = []
    size = 0
    for piece in rest:
        held.append(piece)
        size += len(piece)
        if size > WHOLE:
            return chain(held, rest)
    return b"".join(held)


def _check_redirect(url: str, to: str, suffix: str) -> None:
    before, after = Origin.of(url), Origin.of(to)
    if after.scheme not in ("http", "https") or (before.scheme == "https" and after.scheme != "https"):
        raise malformed("a redirect to where nothing is encrypted")
    if not to.endswith(suffix) or urlsplit(to).username is not None:
        raise malformed("a redirect to what is no repository")


def proxy_for(origin: Origin, environ: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for an origin."""
    names = [f"{origin.scheme}_proxy", "all_proxy"]
    if origin.scheme == "https":
        names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    found = next((environ[name] for name in names if environ.get(name)), None)
    bypass = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if found is None or _is_bypassed(origin.host, bypass):
        return None
    return found if "://" in found else f"http://{found}"


def _is_bypassed(host: str, names: str) -> bool:
    """Whether a list of names has a host, or a domain that it is in."""
    listed = [name.strip().lower().lstrip("*.") for name in names.split(",")]
    return any(name and (host == name or host.endswith("." + name)) for name in listed) or names.strip() == "*"


def _unreachable(url: str, error: Exception) -> TransportError:
    return TransportError(
        f"{Origin.of(url)} cannot be reached, or broke off: {clean(str(error))}",
        unchanged="nothing moved here",
        hint="look at the URL and at the connection, then run the command again",
    )
