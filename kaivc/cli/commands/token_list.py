"""``kai token list``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kaivc.cli import render
from kaivc.cli.grants import over, token_document
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.token_list import TokenItem


def token_list(door: Invocation) -> None:
    """List the tokens of a home, and what each may."""
    found = door.open().tokens()
    door.answer(
        lambda: {"tokens": [{**token_document(it.token), "expired": it.expired} for it in found]},
        lambda: _text(found, door.paint),
    )


def _text(found: tuple[TokenItem, ...], paint: Paint) -> Iterator[str]:
    names = max((len(it.token.name) for it in found), default=0)
    for it in found:
        token = it.token
        until = "for good" if token.expires_ns is None else f"until {render.rfc3339(token.expires_ns)}"
        if it.expired:
            until = paint("red", f"expired {until.removeprefix('until ')}")
        yield f"{token.id}  {token.name:<{names}}  {token.grant.role} over {over(token.grant)}  {until}"
    if not found:
        yield "there is no token; `kai token add NAME --role ROLE` makes one"
