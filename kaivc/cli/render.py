"""Results as JSON documents and as pieces of text.

A document has the keys of the frozen result that it shows. Ids are hex; a path that is not UTF-8 is escaped in
``path``, and ``path_b64`` is exact. ``docs/reference/schemas`` holds the schema of each document.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kaivc.cli.escape import escape, escape_lines, escape_path
from kaivc.cli.terminal import Paint
from kaivc.records import values

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from kaivc.movement import MovePlan
    from kaivc.versions import AgentVersion

Document = dict[str, Any]

SHORT = 12
"""Digits of an id in text."""

MANY = 20
"""Paths listed before the rest is only counted."""

WORDS = {"A": "added", "D": "deleted", "M": "modified", "T": "typechange"}


# ---------------------------------------------------------------- documents


def plain(result: DataclassInstance) -> Document:
    """A frozen result of plain values, by its fields."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in _values(result)}


def _values(result: DataclassInstance) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in values(result).items() if not name.startswith("_"))


def path(name: str | bytes) -> Document:
    """A path, with its exact bytes if they are not UTF-8."""
    raw = os.fsencode(name)
    try:
        return {"path": raw.decode()}
    except UnicodeDecodeError:
        import base64

        return {"path": escape_path(raw), "path_b64": base64.b64encode(raw).decode("ascii")}


def paths(names: Iterable[str | bytes]) -> list[Document]:
    """Paths, each an object of its own."""
    return [path(name) for name in names]


def changes(rows: Iterable[tuple[str, ...]]) -> list[Document]:
    """(letter, path) or (letter, class of file, path)."""
    return [
        {"status": row[0], **({"class": row[1]} if len(row) > 2 else {}), **path(row[-1])}  # noqa: PLR2004 - as said
        for row in rows
    ]


def version(it: AgentVersion) -> Document:
    """One version."""
    return values(it)


def versions(them: Iterable[AgentVersion]) -> list[Document]:
    """Several versions."""
    return [version(it) for it in them]


def moved(plan: MovePlan) -> Document:
    """What a move did or would do."""
    listed = {name: paths(getattr(plan, name)) for name in ("writes", "removes", "kept", "saved")}
    return {**plain(plan), **listed}


def hexadecimal(oid: bytes | None) -> str | None:
    """An id in hex."""
    return None if oid is None else oid.hex()


def rfc3339(time_ns: int) -> str:
    """A time in nanoseconds as ``2026-11-01T12:00:00Z``."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------- text


def subject(notes: str) -> str:
    """The first line of the notes."""
    return escape(notes.strip().split("\n", 1)[0])


def heading(it: AgentVersion, paint: Paint, *, in_force: bool) -> Iterator[str]:
    """A version as ``git log`` shows a commit."""
    mark = paint("green", " (current)") if in_force else ""
    yield paint("yellow", f"version {it.tag}") + mark
    yield f"Commit: {it.commit[:SHORT]}"
    yield f"Author: {escape(it.author)}"
    yield f"Date:   {it.created}"


def indented(notes: str) -> Iterator[str]:
    """The notes, between empty lines."""
    yield ""
    yield from (f"    {line}".rstrip() for line in escape_lines(notes.strip()))
    yield ""


def row(it: AgentVersion, paint: Paint, *, in_force: bool, width: int = 0) -> str:
    """A version on one line."""
    mark = paint("green", "*") if in_force else " "
    return f"{mark} {paint('yellow', it.tag.ljust(width))}  {it.commit[:SHORT]}  {it.created}  {subject(it.notes)}"


def name_status(rows: Sequence[tuple[str, ...]], paint: Paint, indent: str = "  ") -> Iterator[str]:
    """Letters and paths; past MANY only their number."""
    for letter, *_, name in rows[:MANY]:
        yield f"{indent}{paint(_COLORS[letter], letter)}  {escape_path(name)}"
    if len(rows) > MANY:
        yield f"{indent}... and {len(rows) - MANY} more"


_COLORS = {"A": "green", "D": "red", "M": "yellow", "T": "yellow"}


def notices(lines: Iterable[str], paint: Paint) -> Iterator[str]:
    """What a user should be told."""
    return (paint("dim", f"note: {escape(line)}") for line in lines)


def counted(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Bytes, for people."""
    value, units = float(number), iter(("KiB", "MiB", "GiB", "TiB"))
    unit = "bytes"
    while value >= 1024 and (larger := next(units, "")):  # noqa: PLR2004 - what KiB means
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}" if unit != "bytes" else counted(number, "byte")


_MOVE_WORDS = (("writes", "write"), ("removes", "remove"), ("kept", "keep"), ("saved", "save"))


def move_text(plan: MovePlan, paint: Paint, *, dry_run: bool) -> Iterator[str]:
    """A move, told to people."""
    yield _move_line(plan, paint, dry_run=dry_run)
    for name, word in _MOVE_WORDS:
        listed: tuple[str, ...] = getattr(plan, name)
        yield from (f"  {word:<8}{escape_path(it)}" for it in listed[:MANY])
        if len(listed) > MANY:
            yield f"  {word:<8}... and {len(listed) - MANY} more"
    if plan.backup is not None:
        yield f"the workspace as it was is in {plan.backup}"
    yield from notices(plan.notices, paint)


def _move_line(plan: MovePlan, paint: Paint, *, dry_run: bool) -> str:
    agent, to = escape(plan.agent), paint("yellow", plan.to_version)
    if plan.verb == "restore":
        what = f"{agent}: {escape(plan.reason)}"
    else:
        what = f"{agent}: {plan.verb} {plan.from_version} -> {to}"
    if dry_run:
        return f"{what} (dry run: nothing moved)"
    if not plan.applied:
        return f"{agent} is at {to} already: nothing moved"
    return what
