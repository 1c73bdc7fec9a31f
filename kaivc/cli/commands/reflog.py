"""``kai reflog``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.names import ObjectId, ReflogEntry
    from kaivc.ops.reflog import Reflog


def reflog(
    door: Invocation,
    agent: arguments.Agent,
    ref: Annotated[
        str | None, Argument(metavar="[REF]", help="A branch or a full ref name; `current` unless said.")
    ] = None,
    every: Annotated[bool, Option("--all", help="The moves of every ref.")] = False,
    limit: arguments.Limit = None,
) -> None:
    """Show each move of a ref, newest first.

    What moved, when, by whom and why; nothing is ever erased from this log.
    """
    if every and ref is not None:
        raise Misuse("--all and a ref exclude each other", hint="give one of them")
    moves = door.agent(agent).reflog(None if every else ref or "current", limit=limit)
    door.answer(lambda: _document(moves), lambda: _text(moves, door.paint))


def _numbered(moves: Reflog) -> Iterator[tuple[int | None, ReflogEntry]]:
    """Each entry with its place in the log of its own ref, as in ``AGENT@{N}``; a ref is the same under former names.

    None for what concerns the agent as a whole, and is no move of the ref.
    """
    from kaivc.storage.journal import REMOVE, RENAME

    seen: Counter[str] = Counter()
    for entry in moves.entries:
        if entry.verb in (RENAME, REMOVE):
            yield None, entry
            continue
        parts = entry.ref.split("/")
        name = "/".join([*parts[:2], *(moves.agent if it in moves.former else it for it in parts[2:3]), *parts[3:]])
        yield seen[name], entry
        seen[name] += 1


def _named(moves: Reflog, oid: ObjectId | None) -> str | None:
    """The version, such as v1.0.0; None for what has no number."""
    name = moves.names.get(oid.hex(), "") if oid else ""
    return name if name.startswith("v") else None


def _document(moves: Reflog) -> render.Document:
    return {
        "agent": moves.agent,
        "ref": moves.ref,
        "entries": [
            {
                **render.plain(entry),
                "index": index,
                "collected": moves.collected(entry),
                "old": render.hexadecimal(entry.old),
                "new": render.hexadecimal(entry.new),
                "old_version": _named(moves, entry.old),
                "new_version": _named(moves, entry.new),
                "time": render.rfc3339(entry.time_ns),
            }
            for index, entry in _numbered(moves)
        ],
    }


def _mark(collected: list[str], entry: ReflogEntry) -> str:
    if "new" in collected or ("old" in collected and entry.new is None):
        return "collected"
    return "its backup is collected" if "backup" in collected else ""


def _text(moves: Reflog, paint: Paint) -> Iterator[str]:
    for index, entry in _numbered(moves):
        short = (entry.new.hex() if entry.new else "gone")[: render.SHORT]
        name = _named(moves, entry.new)
        mark = _mark(moves.collected(entry), entry)
        ref = escape(entry.ref.removeprefix("refs/heads/").removeprefix("refs/").removeprefix(f"{moves.agent}/"))
        yield (
            f"{paint('yellow', short)} {f'{name} ' if name else ''}{ref}{'' if index is None else f'@{{{index}}}'}: "
            f"{escape(entry.verb)}: {render.subject(entry.reason)}"
            + paint("dim", f"  ({render.rfc3339(entry.time_ns)}, {escape(entry.actor)})")
            + (paint("yellow", f" [{mark}]") if mark else "")
        )
