"""Who asks: the token in a request's head, looked up anew each time, so that one that is revoked is none at once."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterable, Mapping
from typing import Any

from kaivc import access
from kaivc.access import Anonymous, Rules, Token, TokenAccess
from kaivc.errors import CredentialsNeeded, StorageFailed
from kaivc.layout import Layout
from kaivc.server.limits import Limits
from kaivc.serving import Access

CHALLENGE = (("www-authenticate", 'Bearer realm="kai"'), ("www-authenticate", 'Basic realm="kai", charset="UTF-8"'))
"""Programs of ours send the token as it is; git sends it as a password."""
MINUTE = 60.0
MAX_ADDRESSES = 10_000
UNAUTHORIZED, TOO_MANY = 401, 429


class Refused(Exception):
    """A request that is answered without being looked at further."""

    def __init__(self, status: int, error: CredentialsNeeded, headers: Iterable[tuple[str, str]]) -> None:
        super().__init__(error.what)
        self.status, self.error, self.headers = status, error, tuple(headers)


class Guard:
    """Tells who asks, and slows down who guesses."""

    def __init__(self, layout: Layout, limits: Limits, *, anonymous: bool = False) -> None:
        self._layout = layout
        self._limits = limits
        self._anonymous = anonymous
        self._known: tuple[bytes, Rules] = (b"", Rules())
        self._failed: dict[str, tuple[float, int]] = {}

    def admit(self, scope: Mapping[str, Any]) -> Access:
        """Who asks; Refused for no token where one is needed, and for one that is not right."""
        headers = [value for name, value in scope["headers"] if name == b"authorization"]
        if not headers and self._anonymous:
            return Anonymous()
        texts = secrets_in(headers[0]) if len(headers) == 1 else ()
        rules = self._rules()
        for text in texts:
            token = rules.token(text, time.time_ns())
            if token is not None:
                return TokenAccess(token, self._holds)
        raise self._refused(str((scope.get("client") or ("",))[0]), guessed=bool(headers))

    def _holds(self, token: Token) -> bool:
        return token in self._rules().tokens and not token.expired(time.time_ns())

    def _rules(self) -> Rules:
        """What the file says now; it is small, and read again only where its bytes are others."""
        try:
            with open(self._layout.access, "rb") as file:
                data = file.read(access.MAX_FILE + 1)
        except FileNotFoundError:
            return Rules()
        except OSError as error:
            raise StorageFailed(
                "the server cannot read who may what", unchanged="nothing moved", hint="tell whoever keeps the server"
            ) from error
        if data != self._known[0]:
            self._known = data, access.decode(data, "access.json")
        return self._known[1]

    def _refused(self, client: str, *, guessed: bool) -> Refused:
        error = CredentialsNeeded(
            "the token is not taken here: it is wrong, revoked, or its time is over"
            if guessed
            else "a token is needed here",
            unchanged="nothing moved",
            hint="`kai token add NAME --role ROLE` over there makes one",
        )
        if guessed and self._is_too_many(client):
            return Refused(TOO_MANY, error, [("retry-after", str(int(MINUTE)))])
        return Refused(UNAUTHORIZED, error, CHALLENGE)

    def _is_too_many(self, client: str) -> bool:
        now = time.monotonic()
        since, count = self._failed.pop(client, (now, 0))
        if now - since > MINUTE:
            since, count = now, 0
        while len(self._failed) >= MAX_ADDRESSES:
            del self._failed[next(iter(self._failed))]
        self._failed[client] = since, count + 1
        return count >= self._limits.refusals


def secrets_in(header: bytes) -> tuple[str, ...]:
    """The texts of an Authorization header that may be a token: what Bearer says, or the password or user of Basic."""
    kind, _, rest = header.strip().partition(b" ")
    value = rest.strip()
    if kind.lower() == b"bearer":
        texts = [value]
    elif kind.lower() == b"basic":
        try:
            user, _, password = base64.b64decode(value, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return ()
        texts = [password, user]
    else:
        return ()
    decoded = (text.decode("ascii", "replace") for text in texts)
    return tuple(text for text in decoded if access.is_token(text))
