"""``kai role grant``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape
from kaivc.cli.grants import AGENTS, over, user_document
from kaivc.cli.invocation import Invocation

if TYPE_CHECKING:
    from kaivc.ops.role_grant import Granted


def role_grant(
    door: Invocation,
    user: Annotated[str, Argument(metavar="USER", help="A login of this machine, or a uid.")],
    role: Annotated[str, Argument(metavar="ROLE", help="viewer, tester, operator, maintainer or admin.")],
    agents: Annotated[list[str] | None, AGENTS] = None,
) -> None:
    """Give a user of this machine a role in this home.

    The first grant binds everybody from then on.
    """
    done = door.open().role_grant(user, role, agents or ())
    kept = None if done.kept is None else user_document(done.kept)
    door.answer(lambda: {**user_document(done.user), "kept": kept}, lambda: _text(done))


def _text(done: Granted) -> Iterator[str]:
    yield f"{escape(done.user.name)} is {done.user.grant.role} over {over(done.user.grant)}"
    if done.kept is not None:
        yield f"from now on roles count for everybody here; {escape(done.kept.name)} is admin over all agents"
