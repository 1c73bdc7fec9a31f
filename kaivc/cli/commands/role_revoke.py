"""``kai role revoke``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape
from kaivc.cli.grants import over, user_document
from kaivc.cli.invocation import Invocation


def role_revoke(
    door: Invocation,
    user: Annotated[str, Argument(metavar="USER", help="A login of this machine, or a uid.")],
    role: Annotated[str | None, Argument(metavar="[ROLE]", help="The role to take; all unless said.")] = None,
) -> None:
    """Take roles from a user of this machine.

    When the last one goes nobody is bound any more.
    """
    taken = door.open().role_revoke(user, role)
    door.answer(
        lambda: {"taken": [user_document(it) for it in taken]},
        lambda: [f"{escape(it.name)} is no longer {it.grant.role} over {over(it.grant)}" for it in taken],
    )
