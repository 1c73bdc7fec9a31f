"""``kai export``."""

from __future__ import annotations

from typing import Annotated

import typer

from kaivc.cli import arguments, render
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation


def export(
    ctx: typer.Context,
    agent: arguments.Agent,
    directory: Annotated[str, typer.Option("--git", metavar="DIR", help="Where to: absent or empty.")],
) -> None:
    """Write all versions of an agent as a bare git repository."""
    door: Invocation = ctx.obj
    done = door.agent(agent).export(directory)
    refs, objects = render.counted(len(done.refs), "ref"), render.counted(done.objects, "object")
    door.answer(
        lambda: {**render.plain(done), "refs": [{"name": name, "id": oid} for name, oid in done.refs]},
        lambda: [f"{done.agent} is in {escape(done.path)} ({done.object_format}, {refs}, {objects})"],
    )
