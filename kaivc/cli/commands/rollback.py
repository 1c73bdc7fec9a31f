"""``kai rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NoReturn

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Option
from kaivc.cli.failures import report
from kaivc.cli.invocation import Invocation
from kaivc.errors import InvalidRollbackVersion

if TYPE_CHECKING:
    from kaivc.movement import MovePlan
    from kaivc.ops.versions import VersionList


def rollback(  # noqa: PLR0913, PLR0917 - one for each option
    door: Invocation,
    agent: arguments.Agent,
    to: Annotated[
        str | None, Option("--to", metavar="REV", help="The version; without it, a terminal offers a choice.")
    ] = None,
    reason: arguments.Reason = "",
    dry_run: arguments.DryRun = False,
    force: Annotated[bool, Option("--force", help="Make a damaged view anew from the store.")] = False,
    live: arguments.Live = False,
    keep: Annotated[
        list[str] | None,
        Option("--keep", metavar="PATH", help="Leave a file or directory as it is; may be repeated."),
    ] = None,
    op_id: arguments.OpId = None,
) -> None:
    """Go to another version, earlier or later.

    `current` points at it then, and the workspace holds its files; what no version
    holds is saved first. `kai undo` takes it back.
    """
    known = door.agent(agent)

    def move(rev: str) -> MovePlan:
        return known.rollback(rev, reason=reason, dry_run=dry_run, force=force, live=live, keep=keep or (), op_id=op_id)

    try:
        plan = move(to if to is not None else _unnamed(known.versions()))
    except InvalidRollbackVersion as error:
        from kaivc.cli import picker

        if door.json or not error.facts.get("nearest") or not picker.possible():
            raise
        if to is not None:
            report(error, door)
        plan = move(picker.pick(known.versions()))
    door.answer(lambda: render.moved(plan), lambda: render.move_text(plan, door.paint, dry_run=dry_run))


def _unnamed(known: VersionList) -> NoReturn:
    others = [it.tag for it in reversed(known) if it.version != known.current] or [it.tag for it in known]
    hint = f"name one with --to: {', '.join(others[:3])}" if others else f"make one with `kai commit {known.agent}`"
    raise InvalidRollbackVersion("no version is named", unchanged="nothing moved", hint=hint, nearest=others[:3])
