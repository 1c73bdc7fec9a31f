"""``kai ls-tree``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation

if TYPE_CHECKING:
    from kaivc.ops.ls_tree import TreeEntry, TreeListing


def ls_tree(  # noqa: PLR0913, PLR0917 - one for each option
    door: Invocation,
    revision: arguments.AgentRev,
    paths: Annotated[
        list[str] | None,
        Argument(metavar="[PATH...]", help="From the top; `dir` is the directory, `dir/` what it holds."),
    ] = None,
    recursive: Annotated[bool, Option("-r", help="Go into directories.")] = False,
    show_trees: Annotated[bool, Option("-t", help="Show directories also where they are gone into.")] = False,
    only_trees: Annotated[bool, Option("-d", help="Show directories only.")] = False,
    long: Annotated[bool, Option("-l", "--long", help="Show the sizes of files.")] = False,
    null: Annotated[bool, Option("-z", help="End lines with NUL, and quote no path.")] = False,
    name_only: Annotated[bool, Option("--name-only", help="Show paths only.")] = False,
) -> None:
    """List the files and directories of a version, as git does."""
    from kaivc.revisions import split

    if long and name_only:
        raise Misuse("-l and --name-only exclude each other", hint="give one of them")
    agent, rev = split(revision)
    found = door.agent(agent).ls_tree(
        rev or "current",
        *(paths or ()),
        recursive=recursive,
        show_trees=show_trees,
        only_trees=only_trees,
        sizes=long or door.json,
    )
    if door.json:
        door.answer(lambda: _document(found), list)
        return
    for line in _lines(found, long=long, null=null, name_only=name_only):
        door.write(line)
    door.write(flush=True)


def _document(found: TreeListing) -> render.Document:
    entries = [{**render.plain(it), **render.path(it.path), "mode": f"{it.mode:06o}"} for it in found.entries]
    return {**render.plain(found), "entries": entries}


def _lines(found: TreeListing, *, long: bool, null: bool, name_only: bool) -> Iterator[bytes]:
    from kaivc.diff.quoting import quote

    for it in found.entries:
        raw = os.fsencode(it.path)
        head = "" if name_only else _head(it, long=long)
        yield head.encode() + (raw + b"\0" if null else quote(raw) + b"\n")


def _head(it: TreeEntry, *, long: bool) -> str:
    size = f" {'-' if it.size is None else it.size:>7}" if long else ""
    return f"{it.mode:06o} {it.type} {it.oid}{size}\t"
