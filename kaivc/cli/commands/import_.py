"""``kai import``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.import_ import Imported


def import_(
    door: Invocation,
    directory: Annotated[str, Argument(metavar="DIR", help="The tree; it is only read.")],
    layout: Annotated[Literal["folders"], Option("--layout", metavar="LAYOUT", help="How it is laid out: `folders`.")],
    name: Annotated[
        str | None, Option("--name", metavar="NAME", help="What to call the agent. [default: as DIR is called]")
    ] = None,
    author: Annotated[
        str | None, Option("--author", metavar="AUTHOR", help='Who made the versions, as "Name <mail>".')
    ] = None,
    dry_run: arguments.DryRun = False,
) -> None:
    """Adopt a tree of version folders as an agent.

    Each folder becomes a version, all at once or none.
    """
    done = door.open().import_(directory, layout=layout, name=name, author=author, dry_run=dry_run)
    door.answer(lambda: _document(done), lambda: _text(done, door.paint))


def _document(done: Imported) -> render.Document:
    places = {name: render.path(getattr(done, name)) for name in ("directory", "workspace", "workspace_from")}
    return {**render.plain(done), **places, "versions": render.versions(done.versions)}


def _text(done: Imported, paint: Paint) -> Iterator[str]:
    number = render.counted(len(done.versions), "version")
    said = "imported" if done.applied else "would import"
    current = paint("yellow", done.current)
    yield f"{said} {number} of {escape(done.directory)} as agent {done.agent}; {current} is in force"
    width = max(len(it.tag) for it in done.versions)
    yield from (render.row(it, paint, in_force=it.tag == done.current, width=width) for it in done.versions)
    files = render.counted(done.files, "file")
    yield f"workspace: {escape(done.workspace)}, with {files} of {escape(done.workspace_from)}"
    yield from render.notices(done.notices, paint)
    if not done.applied:
        yield "dry run: nothing was imported"
