"""``kai diff``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape_path
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint, is_terminal

if TYPE_CHECKING:
    from kaivc.ops.diff import Diff
    from kaivc.storage.gitobjects import Entry

BAR = 40
"""Columns of the longest bar of --stat."""

Counts = tuple[bytes, int | None, int | None]


def diff(
    door: Invocation,
    old: Annotated[str, Argument(metavar="REV", help="AGENT or AGENT@REV.")],
    new: Annotated[
        str | None, Argument(metavar="[REV]", help="A revision of the same agent; the workspace unless said.")
    ] = None,
    name_status: Annotated[bool, Option("--name-status", help="Letters and paths only.")] = False,
    stat: Annotated[bool, Option("--stat", help="Counts of lines only.")] = False,
    binary: Annotated[bool, Option("--binary", help="A patch that `git apply` takes for files of any kind.")] = False,
    context: Annotated[int, Option("-U", metavar="N", min=0, help="Lines around a change.")] = 3,
    exit_code: arguments.ExitCode = False,
) -> int:
    """Show what differs between two revisions.

    With one, between it and the workspace.
    """
    from kaivc.revisions import split

    agent, rev = split(old)
    found = door.agent(agent).diff(rev or "current", None if new is None else _other(agent, new))
    if door.json:
        counts = found.stat() if stat else None
        door.answer(lambda: _document(found, counts), list)
    elif name_status:
        _write(_names(found), door)
    elif stat:
        _write(_stat(found.stat(), door.paint), door)
    else:
        patch = found.patch(binary=binary, context=context)
        _write(_painted(_shown(patch) if is_terminal(sys.stdout) else patch, door.paint), door)
    return int(exit_code and bool(found.changes))


def _other(agent: str, text: str) -> str:
    """The second revision: bare, or of the same agent."""
    if text == agent:
        return "current"
    name, sign, rev = text.partition("@")
    if not sign or (name == "current" and rev.startswith("{")):
        return text
    if name and name != agent:
        raise Misuse(f"{agent} and {name} are two agents", hint="a diff is between revisions of one")
    return rev or "current"


# ---------------------------------------------------------------- JSON


def _document(found: Diff, counts: list[Counts] | None) -> render.Document:
    rows = [
        {
            "status": change.status,
            **render.path(change.path),
            "old": _side(change.old),
            "new": _side(change.new),
        }
        for change in found.changes
    ]
    for row, (_, added, removed) in zip(rows, counts or (), strict=False):
        row |= {"added": added, "removed": removed}
    return {"agent": found.agent, "old": found.old, "new": found.new, "changes": rows}


def _side(entry: Entry | None) -> render.Document | None:
    return None if entry is None else {"mode": f"{entry.mode:06o}", "id": entry.oid.hex()}


# ---------------------------------------------------------------- bytes, as git prints them


def _write(chunks: Iterable[bytes], door: Invocation) -> None:
    for chunk in chunks:
        door.write(chunk)
    door.write(flush=True)


def _names(found: Diff) -> Iterator[bytes]:
    from kaivc.diff.quoting import quote

    return (b"%s\t%s\n" % (change.status.encode(), quote(change.path)) for change in found.changes)


def _stat(counts: list[Counts], paint: Paint) -> Iterator[bytes]:
    from kaivc.diff.quoting import quote

    names = [quote(name).decode("ascii") for name, _, _ in counts]
    width = max(map(len, names), default=0)
    most = max(((added or 0) + (removed or 0) for _, added, removed in counts), default=0)
    digits = max([len(str(most)), *(len("Bin") for _, added, _ in counts if added is None)])
    for name, (_, added, removed) in zip(names, counts, strict=True):
        if added is None or removed is None:
            yield f" {name:<{width}} | {'Bin':>{digits}}\n".encode()
            continue
        bar = paint("green", "+" * _scaled(added, most)) + paint("red", "-" * _scaled(removed, most))
        yield f" {name:<{width}} | {added + removed:>{digits}} {bar}".rstrip().encode() + b"\n"
    if counts:
        plus = sum(added or 0 for _, added, _ in counts)
        minus = sum(removed or 0 for _, _, removed in counts)
        files = render.counted(len(counts), "file")
        yield f" {files} changed, {plus} insertions(+), {minus} deletions(-)\n".encode()


def _scaled(count: int, most: int) -> int:
    return count if most <= BAR else -(-count * BAR // most)


def _shown(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What a terminal could obey, escaped: the bytes of files are a stranger's; a pipe gets them as they are."""
    for chunk in chunks:
        for line in chunk.removesuffix(b"\n").split(b"\n"):
            yield b"\t".join(escape_path(part).encode() for part in line.split(b"\t")) + b"\n"


def _painted(chunks: Iterable[bytes], paint: Paint) -> Iterator[bytes]:
    return _colored(chunks) if paint.on else iter(chunks)


def _colored(chunks: Iterable[bytes]) -> Iterator[bytes]:
    in_hunk = False
    for chunk in chunks:
        for line in chunk.splitlines(keepends=True):
            in_hunk = line.startswith(b"@@") or (in_hunk and not line.startswith(b"diff --git "))
            yield _color(line, in_hunk=in_hunk)


def _color(line: bytes, *, in_hunk: bool) -> bytes:
    body = line.removesuffix(b"\n")
    if not in_hunk:
        return b"\x1b[1m%s\x1b[0m\n" % body
    for start, code in ((b"@@", b"36"), (b"+", b"32"), (b"-", b"31")):
        if body.startswith(start):
            return b"\x1b[%sm%s\x1b[0m\n" % (code, body)
    return line
