"""``kai renumber``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation


def renumber(
    door: Invocation,
    version: Annotated[str, Argument(metavar="AGENT@VERSION", help="A version that was never pushed.")],
    to: Annotated[str | None, Option("--to", metavar="VERSION", help="The number to give it.")] = None,
    bump: Annotated[
        str | None, Option("--bump", metavar="LEVEL", help="Count from the highest number: major, minor or patch.")
    ] = None,
    reason: arguments.Reason = "",
    op_id: arguments.OpId = None,
) -> None:
    """Give a version that was never pushed another number.

    Files, parent, notes, author and time stay as they are; the old tag is kept aside.
    """
    from kaivc.revisions import split

    agent, rev = split(version)
    if rev is None:
        raise Misuse("no version is named", hint=f"name one: kai renumber {agent}@v1.2.3")
    done = door.agent(agent).renumber(rev, to=to, bump=bump, reason=reason, op_id=op_id)
    in_force = ", and is in force" if done.in_force else ""
    door.answer(
        lambda: render.plain(done),
        lambda: [
            f"{done.agent} v{done.former} is v{done.version} now{in_force}",
            f"its commit is {done.commit[: render.SHORT]}",
            f"{done.former_commit[: render.SHORT]} stays at {done.kept_as}",
        ],
    )
