"""``kai commit``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Option
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.commit import Committed


def commit(  # noqa: PLR0913, PLR0917 - one for each option
    door: Invocation,
    agent: arguments.Agent,
    bump: Annotated[
        Literal["patch", "minor", "major"] | None,
        Option("--bump", alone="patch", help="Count from the highest number there is. [default: patch]"),
    ] = None,
    version: Annotated[str | None, Option("--version", metavar="X.Y.Z", help="The number itself.")] = None,
    notes: Annotated[
        list[str] | None,
        Option("-m", "--notes", metavar="TEXT", help="What is new; each further one is a paragraph."),
    ] = None,
    notes_file: Annotated[
        str | None, Option("--notes-file", metavar="FILE", help="Read the notes from FILE; `-` is stdin.")
    ] = None,
    author: Annotated[str | None, Option("--author", metavar="AUTHOR", help='Who made it, as "Name <mail>".')] = None,
    snapshot_type: Annotated[
        Literal["manual", "auto"], Option("--type", help="Whether a person or a program asked for it.")
    ] = "manual",
    allow_empty: Annotated[bool, Option("--allow-empty", help="Make a version even if nothing changed.")] = False,
    op_id: arguments.OpId = None,
) -> None:
    """Record the workspace as a version.

    `current` points at it then. A version number is used once, for good.
    """
    if bump is not None and version is not None:
        raise Misuse("--bump and --version exclude each other", hint="give one of them")
    if notes and notes_file is not None:
        raise Misuse("--notes and --notes-file exclude each other", hint="give one of them")
    text = "\n\n".join(notes or ()) if notes_file is None else _read(notes_file)
    done = door.agent(agent).record(
        bump=bump,
        version=version,
        notes=text,
        author=author,
        snapshot_type=snapshot_type,
        allow_empty=allow_empty,
        op_id=op_id,
    )
    door.answer(lambda: _document(done), lambda: _text(done, door.paint))


MAX_NOTES = 1 << 20
"""More than a version takes; the file may never end."""


def _read(name: str) -> str:
    try:
        if name == "-":
            return sys.stdin.buffer.read(MAX_NOTES).decode()
        with open(name, "rb") as file:
            return file.read(MAX_NOTES).decode()
    except OSError as error:
        raise Misuse(f"the notes cannot be read: {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misuse(f"the notes in {name} are not UTF-8") from error


def _document(done: Committed) -> render.Document:
    shown = {"version": render.version(done.version), "changes": render.changes(done.changes)}
    return {**render.plain(done), **shown}


def _text(done: Committed, paint: Paint) -> Iterator[str]:
    it = done.version
    yield f"[{it.agent} {paint('yellow', it.tag)} {it.commit[: render.SHORT]}] {render.subject(it.notes)}"
    yield f"  {render.counted(done.files, 'file')}, {len(done.changes)} changed"
    yield from render.name_status(done.changes, paint)
    yield from render.notices(done.notices, paint)
