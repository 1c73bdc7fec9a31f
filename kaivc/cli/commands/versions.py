"""``kai versions``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from kaivc.cli import arguments, render
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.versions import VersionList


def versions(ctx: typer.Context, agent: arguments.Agent) -> None:
    """List all versions of an agent, lowest number first."""
    from kaivc.ops.versions import versions as every

    door: Invocation = ctx.obj
    known = every(door.agent(agent).repository)
    door.answer(
        lambda: {**render.plain(known), "versions": render.versions(known.versions)},
        lambda: _text(known, door.paint),
    )


def _text(known: VersionList, paint: Paint) -> Iterator[str]:
    width = max((len(it.tag) for it in known.versions), default=0)
    for it in known.versions:
        yield render.row(it, paint, in_force=it.version == known.current, width=width)
    if not known.versions:
        yield f"{known.agent} has no version yet; make one with `kai commit {known.agent}`"
