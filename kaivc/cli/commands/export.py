"""``kai export``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Option
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation


def export(
    door: Invocation,
    agent: arguments.Agent,
    directory: Annotated[str, Option("--git", metavar="DIR", help="Where to: absent or empty.")],
) -> None:
    """Write all versions of an agent as a bare git repository."""
    done = door.agent(agent).export(directory)
    refs, objects = render.counted(len(done.refs), "ref"), render.counted(done.objects, "object")
    door.answer(
        lambda: {**render.plain(done), "refs": [{"name": name, "id": oid} for name, oid in done.refs]},
        lambda: [f"{done.agent} is in {escape(done.path)} ({done.object_format}, {refs}, {objects})"],
    )
