"""``kai token add``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.grants import AGENTS, ROLE, over, token_document
from kaivc.cli.invocation import Invocation

if TYPE_CHECKING:
    from kaivc.ops.token_add import TokenMade

YEARS = 100 * 365 * 24 * 3600


def token_add(
    door: Invocation,
    name: Annotated[str, Argument(metavar="NAME", help="What to call it.")],
    role: Annotated[str, ROLE],
    agents: Annotated[list[str] | None, AGENTS] = None,
    expires: Annotated[
        str, Option("--expires", metavar="TIME", help="For how long it holds, as 30d; `never` for good.")
    ] = "90d",
    actor: Annotated[
        str | None, Option("--actor", metavar="ACTOR", help='Whom the log names for it: "Name <mail>".')
    ] = None,
) -> None:
    """Make a token for `kai serve`. It is shown this once.

    The home keeps its hash alone.
    """
    from kaivc.cli.amounts import duration

    seconds = None if expires == "never" else duration("--expires", expires, 1, YEARS)
    made = door.open().token_add(name, role, agents or (), expires=seconds, actor=actor)
    door.answer(lambda: {**token_document(made.token), "token": made.secret}, lambda: _text(made))


def _text(made: TokenMade) -> Iterator[str]:
    until = "for good" if made.token.expires_ns is None else f"until {render.rfc3339(made.token.expires_ns)}"
    yield made.secret
    yield f"token {made.token.id} {made.token.name}: {made.token.grant.role} over {over(made.token.grant)}, {until}"
    yield "it is shown this once, and kept nowhere here"
