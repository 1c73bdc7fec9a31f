"""Make a token."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kaivc import access
from kaivc.access import Token
from kaivc.errors import InvalidName
from kaivc.names import Actor, check_name
from kaivc.records import dataclass
from kaivc.repository import OpenHome

SECOND = 1_000_000_000
LONGEST = 200 * 365 * 24 * 3600
"""Seconds; a time in ns has 63 bits."""


@dataclass(frozen=True)
class TokenMade:
    """A token that was made, and its ``secret``: its text, which is kept nowhere."""

    token: Token
    secret: str


def token_add(
    home: OpenHome,
    name: str,
    role: str,
    agents: Sequence[str] = (),
    *,
    expires: float | None,
    actor: Actor | None = None,
) -> TokenMade:
    """Make a token with a role over the agents that fit ``agents`` (all, for none), for ``expires`` seconds.

    ``actor`` is whom the log names for what it does. Raises InvalidName, NameTaken; nothing was granted then.
    """
    check_name("token", name)
    if expires is not None and not 0 < expires <= LONGEST:
        raise InvalidName(
            f"no token holds for {expires} seconds", unchanged="nothing was granted", hint="None: for good"
        )
    grant = access.grant_of(role, agents)
    secret, now, identity = access.new_secret(), home.clock.now_ns(), os.urandom(6).hex()
    token = Token(
        id=identity,
        name=name,
        digest=access.digest_of(secret),
        actor=str(actor or Actor(name, f"token-{identity}@kai")),
        grant=grant,
        created_ns=now,
        expires_ns=None if expires is None else now + int(expires * SECOND),
    )
    access.change(home, lambda rules: access.with_token(rules, token))
    return TokenMade(token, secret)
