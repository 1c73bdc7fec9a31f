"""Take a token back."""

from __future__ import annotations

from kaivc import access
from kaivc.access import Rules, Token
from kaivc.repository import OpenHome


def token_revoke(home: OpenHome, text: str) -> Token:
    """Revoke the token of an id or a name: from the next request on it is none. InvalidName if there is none."""
    found = access.find_token(access.read(home.layout), text)

    def become(rules: Rules) -> Rules:
        return access.without_token(rules, found)

    access.change(home, become)
    return found
