"""List tokens."""

from __future__ import annotations

from kaivc import access
from kaivc.access import Token
from kaivc.records import dataclass
from kaivc.repository import OpenHome


@dataclass(frozen=True)
class TokenItem:
    """A token, and whether its time is over."""

    token: Token
    expired: bool


def token_list(home: OpenHome) -> tuple[TokenItem, ...]:
    """The tokens of a home, by name, those too whose time is over."""
    now = home.clock.now_ns()
    tokens = sorted(access.read(home.layout).tokens, key=lambda it: it.name)
    return tuple(TokenItem(it, it.expired(now)) for it in tokens)
