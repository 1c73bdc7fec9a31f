"""``kai role list``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kaivc.cli.escape import escape
from kaivc.cli.grants import over, user_document
from kaivc.cli.invocation import Invocation

if TYPE_CHECKING:
    from kaivc.access import User


def role_list(door: Invocation) -> None:
    """List the roles of users of this machine."""
    found = door.open().roles()
    door.answer(lambda: {"users": [user_document(it) for it in found]}, lambda: _text(found))


def _text(found: tuple[User, ...]) -> Iterator[str]:
    names = max((len(escape(it.name)) for it in found), default=0)
    for it in found:
        yield f"{it.uid:>6}  {escape(it.name):<{names}}  {it.grant.role} over {over(it.grant)}"
    if not found:
        yield "nobody has a role: whoever owns the home, or its group, may everything"
