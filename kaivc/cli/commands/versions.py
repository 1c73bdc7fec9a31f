"""``kai versions``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kaivc.cli import arguments, render
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint
from kaivc.errors import ChecksumMismatch
from kaivc.records import values

if TYPE_CHECKING:
    from kaivc.ops.versions import VersionList


def versions(door: Invocation, agent: arguments.Agent) -> None:
    """List all versions of an agent, lowest number first.

    Exit with 4 if one of them cannot be read; the others are listed.
    """
    known = door.agent(agent).versions()
    document = {"versions": render.versions(known), "damaged": [values(it) for it in known.damaged]}
    door.answer(lambda: {**render.plain(known), **document}, lambda: _text(known, door.paint))
    if not known.ok:
        damaged = ", ".join(f"v{it.version}" for it in known.damaged)
        raise ChecksumMismatch(
            f"{damaged} of {known.agent} cannot be read",
            hint=f"`kai verify {known.agent}` says what is hit",
            agent=known.agent,
            versions=[it.version for it in known.damaged],
        )


def _text(known: VersionList, paint: Paint) -> Iterator[str]:
    names = [it.tag for it in known] + [f"v{it.version}" for it in known.damaged]
    width = max(map(len, names), default=0)
    for it in known:
        yield render.row(it, paint, in_force=it.version == known.current, width=width)
    for bad in known.damaged:
        mark = paint("green", "*") if bad.version == known.current else " "
        name = paint("red", escape(f"v{bad.version}").ljust(width))
        yield f"{mark} {name}  {(bad.commit or '?')[: render.SHORT]:<{render.SHORT}}  damaged: {escape(bad.problem)}"
    if not names:
        yield f"{known.agent} has no version yet; make one with `kai commit {known.agent}`"
