"""``kai snapshot promote``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Option
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.snapshot_promote import SnapshotPromoted


def snapshot_promote(  # noqa: PLR0913, PLR0917 - one for each option
    door: Invocation,
    snapshot: Annotated[str, arguments.SNAPSHOT],
    bump: Annotated[
        Literal["patch", "minor", "major"] | None,
        Option("--bump", alone="patch", help="Count from the highest number there is. [default: patch]"),
    ] = None,
    version: Annotated[str | None, Option("--version", metavar="X.Y.Z", help="The number itself.")] = None,
    notes: Annotated[
        list[str] | None, Option("-m", "--notes", metavar="TEXT", help="What is new; each further one is a paragraph.")
    ] = None,
    author: Annotated[str | None, Option("--author", metavar="AUTHOR", help='Who made it, as "Name <mail>".')] = None,
    with_state: Annotated[bool, Option("--with-state", help="Take the snapshot's state too.")] = False,
    force: Annotated[bool, Option("--force", help="Even if another version is in force now.")] = False,
    dry_run: arguments.DryRun = False,
    live: arguments.Live = False,
    op_id: arguments.OpId = None,
) -> None:
    """Make a committed snapshot a version, and put it in force.

    It has the snapshot's logic, config and lock files. The state of the workspace
    stays, unless --with-state is given.
    """
    if bump is not None and version is not None:
        raise Misuse("--bump and --version exclude each other", hint="give one of them")
    agent, name = door.open().with_snapshot(snapshot)
    done = agent.snapshot_promote(
        name,
        bump=bump,
        version=version,
        notes="\n\n".join(notes or ()),
        author=author,
        with_state=with_state,
        force=force,
        dry_run=dry_run,
        live=live,
        op_id=op_id,
    )
    door.answer(lambda: _document(done), lambda: _text(done, door.paint, dry_run=dry_run))


def _document(done: SnapshotPromoted) -> render.Document:
    move = render.moved(done.move)
    return {
        "agent": done.agent,
        "id": done.id,
        "version": done.version,
        "commit": done.commit,
        "parent": done.parent,
        "changes": render.changes(done.changes),
        **{name: move[name] for name in ("from_version", "from_commit", "reason", "writes", "removes", "kept")},
        **{name: move[name] for name in ("saved", "notices", "backup", "op_id", "seq", "applied")},
    }


def _text(done: SnapshotPromoted, paint: Paint, *, dry_run: bool) -> Iterator[str]:
    yield f"{paint('yellow', f'v{done.version}')} of snapshot {done.id}, after {done.parent}"
    yield from render.name_status(done.changes, paint)
    yield from render.move_text(done.move, paint, dry_run=dry_run)
