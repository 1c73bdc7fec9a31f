"""``kai cat``."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument
from kaivc.cli.invocation import Invocation

if TYPE_CHECKING:
    from kaivc.ops.cat import StoredFile


def cat(
    door: Invocation,
    revision: arguments.AgentRev,
    path: Annotated[str, Argument(metavar="PATH", help="A file, from the top of the version.")],
) -> None:
    """Print a file of a version, byte for byte.

    Of a symbolic link, its target.
    """
    from kaivc.revisions import split

    agent, rev = split(revision)
    found = door.agent(agent).cat(path, rev or "current")
    if door.json:
        door.answer(lambda: _document(found), list)
        return
    for piece in found.stream():
        door.write(piece)
    door.write(flush=True)


def _document(found: StoredFile) -> render.Document:
    data = found.read()
    try:
        content = {"content": data.decode()}
    except UnicodeDecodeError:
        content = {"content_b64": base64.b64encode(data).decode("ascii")}
    return {**render.plain(found), **render.path(found.path), "mode": f"{found.mode:06o}", **content}
