"""``kai bundle verify``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import render
from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape, escape_path
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.bundle_verify import BundleChecked

LACKS = 1


def bundle_verify(door: Invocation, file: Annotated[str, Argument(metavar="FILE", help="The bundle.")]) -> int:
    """Compare every byte of a bundle, and say what it holds.

    Exit with 1 if it builds on versions that this home does not have.
    """
    done = door.open().bundle_verify(file)
    door.answer(
        lambda: {
            **render.plain(done),
            "path": render.path(done.path),
            "fits": done.fits,
            "agents": [render.plain(it) for it in done.agents],
        },
        lambda: _text(done, door.paint),
    )
    return 0 if done.fits else LACKS


def _text(done: BundleChecked, paint: Paint) -> Iterator[str]:
    for it in done.agents:
        newest = f", {escape(it.versions[-1])} the last" if it.versions else ""
        yield f"{it.agent}: {render.counted(len(it.versions), 'version')}{newest}, log entry {it.seq}"
        for oid in it.missing:
            yield paint("red", f"  builds on {oid[: render.SHORT]}, which is not here")
    yield f"{escape_path(done.path)} is whole: {render.size(done.size)} of home {escape(done.home)}"
