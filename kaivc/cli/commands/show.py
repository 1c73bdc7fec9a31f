"""``kai show``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kaivc.cli import arguments, render
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.show import Shown


def show(door: Invocation, revision: arguments.AgentRev) -> None:
    """Show what a version says and holds."""
    from kaivc.revisions import split

    agent, rev = split(revision)
    shown = door.agent(agent).show(rev or "current")
    door.answer(lambda: _document(shown), lambda: _text(shown, door.paint))


def _document(shown: Shown) -> render.Document:
    held = {"version": render.version(shown.version), "changes": render.changes(shown.changes)}
    return {**render.plain(shown), **held}


def _text(shown: Shown, paint: Paint) -> Iterator[str]:
    it = shown.version
    yield from render.heading(it, paint, in_force=shown.in_force)
    yield f"Parent: {f'v{it.parent}' if it.parent else (it.parent_commit or 'none')[: render.SHORT]}"
    yield f"Type:   {it.snapshot_type}"
    yield f"State:  {it.agent_state_checksum}"
    yield f"Config: {it.config_checksum}"
    held = ", ".join(f"{number} {kind}" for kind, number in shown.classes.items() if number)
    of = f" ({held})" if held else ""
    yield f"Files:  {render.counted(shown.files, 'file')}{of}, {render.size(shown.bytes)}"
    yield from render.indented(it.notes)
    yield from render.name_status(shown.changes, paint, indent="")
