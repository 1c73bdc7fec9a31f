"""``kai agent list``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import render
from kaivc.cli.arguments import Option
from kaivc.cli.escape import escape, escape_path
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.agent_list import AgentItem, AgentList


def agent_list(
    door: Invocation,
    everyone: Annotated[bool, Option("--all", help="Those too that were removed.")] = False,
) -> None:
    """List the agents of a home."""
    known = door.open().listing(removed=everyone)
    door.answer(
        lambda: {"agents": [_document(it) for it in known.agents]},
        lambda: _text(known, door.paint),
    )


def _document(it: AgentItem) -> render.Document:
    document = render.plain(it)
    removed_ns = document.pop("removed_ns")
    document["workspace"] = None if it.workspace is None else render.path(it.workspace)
    return {**document, "removed": None if removed_ns is None else render.rfc3339(removed_ns)}


def _text(known: AgentList, paint: Paint) -> Iterator[str]:
    names = max((len(it.name) for it in known.agents), default=0)
    tags = max((len(_tag(it)) for it in known.agents), default=0)
    for it in known.agents:
        held = f"{render.counted(it.versions, 'version')}, {render.size(it.pack_bytes)}"
        yield f"{it.name:<{names}}  {paint('yellow', _tag(it).ljust(tags))}  {held}  {_where(it)}"
        if it.problem:
            yield paint("red", f"  {escape(it.problem)}")
    if not known.agents:
        yield "no agent is here; `kai new NAME` makes one"


def _tag(it: AgentItem) -> str:
    return f"v{it.version}" if it.version else "-"


def _where(it: AgentItem) -> str:
    if it.removed_ns is not None:
        return f"removed {render.rfc3339(it.removed_ns)}"
    return f"{'linked to ' if it.linked else ''}{escape_path(it.workspace or '')}"
