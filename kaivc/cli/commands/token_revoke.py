"""``kai token revoke``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli.arguments import Argument
from kaivc.cli.grants import token_document
from kaivc.cli.invocation import Invocation


def token_revoke(
    door: Invocation,
    token: Annotated[str, Argument(metavar="ID", help="Its id, or its name.")],
) -> None:
    """Take a token back: the next request that shows it is refused."""
    gone = door.open().token_revoke(token)
    door.answer(lambda: token_document(gone), lambda: [f"token {gone.id} {gone.name} is revoked"])
