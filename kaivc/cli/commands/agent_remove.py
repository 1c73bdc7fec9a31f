"""``kai agent remove``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kaivc.cli import arguments, render
from kaivc.cli.escape import escape_path
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.agent_remove import Removed


def agent_remove(
    door: Invocation,
    agent: arguments.Agent,
    reason: arguments.Reason = "",
    dry_run: arguments.DryRun = False,
) -> None:
    """Remove an agent; its versions can still be read and forked.

    What its workspace holds and no version does is saved as a backup first. Its
    name is not used again.
    """
    done = door.open().remove(agent, reason=reason, dry_run=dry_run)
    door.answer(lambda: _document(done), lambda: _text(done, door.paint, dry_run=dry_run))


def _document(done: Removed) -> render.Document:
    document = render.plain(done)
    for name in ("saved", "unsaved"):
        document[name] = render.paths(getattr(done, name))
    for name in ("kept_in", "left"):
        document[name] = None if document[name] is None else render.path(document[name])
    return document


def _text(done: Removed, paint: Paint, *, dry_run: bool) -> Iterator[str]:
    versions = render.counted(done.versions, "version")
    held = "stays" if done.versions == 1 else "stay"
    yield f"{done.agent}: removed; {versions} {held}" + (" (dry run: nothing was removed)" if dry_run else "")
    for word, listed in (("save", done.saved if done.backup else ()), ("keep", done.unsaved)):
        yield from (f"  {word:<8}{escape_path(it)}" for it in listed[: render.MANY])
        if len(listed) > render.MANY:
            yield f"  {word:<8}... and {len(listed) - render.MANY} more"
    if done.backup is not None:
        yield f"the workspace as it was is in {done.agent}@{done.backup}"
    if done.kept_in is not None:
        yield f"what no backup holds is, with the rest of the workspace, in {escape_path(done.kept_in)}"
    if done.left is not None:
        yield f"the linked workspace {escape_path(done.left)} is left as it is"
    yield from render.notices(done.notices, paint)
    if not dry_run:
        yield f"`kai new NAME --from {done.agent}` brings it back under another name"
