"""``kai bundle unbundle``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.bundle_unbundle import Unbundled


def bundle_unbundle(
    door: Invocation,
    file: Annotated[str, Argument(metavar="FILE", help="The bundle.")],
    agents: Annotated[list[str] | None, Argument(metavar="[AGENT]...", help="The agents; all unless said.")] = None,
    reason: arguments.Reason = "",
    live: arguments.Live = False,
) -> None:
    """Take in what a bundle holds, as a pull would.

    Every byte is compared first, and every object re-hashed.
    """
    done = door.open().unbundle(file, agents or (), reason=reason, live=live)
    door.answer(
        lambda: {
            **render.plain(done),
            "path": render.path(done.path),
            "agents": [render.plain(it) for it in done.agents],
        },
        lambda: _text(done, door.paint),
    )


def _text(done: Unbundled, paint: Paint) -> Iterator[str]:
    for it in done.agents:
        now = paint("yellow", escape(it.to_version or "-"))
        what = "made" if it.made else render.counted(len(it.adopted), "new version")
        yield f"{it.agent}: {what}, {render.counted(it.objects, 'object')}; {now} is in force"
        if it.backup is not None:
            yield f"  the workspace as it was is in {it.backup}"
