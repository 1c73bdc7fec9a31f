"""Unified hunks of two texts, as git writes them (diff-generate-patch in git's documentation)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from kaivc.diff.matching import Change, changes

_NO_NEWLINE = b"\n\\ No newline at end of file\n"


def split_lines(data: bytes) -> list[bytes]:
    r"""The lines, each with its ``\n``; nothing else ends a line, and the last may lack it."""
    lines = data.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + [last] * bool(last)


def unified(old: bytes, new: bytes, context: int = 3) -> Iterator[bytes]:
    """The hunks, one chunk each; none when both are equal."""
    before, after = split_lines(old), split_lines(new)
    for group in _grouped(changes(before, after), context):
        yield _hunk(before, after, group, context)


def count(old: bytes, new: bytes) -> tuple[int, int]:
    """How many lines were added and removed."""
    added = removed = 0
    for change in changes(split_lines(old), split_lines(new)):
        added += change.new_end - change.new_start
        removed += change.old_end - change.old_start
    return added, removed


def _grouped(found: Iterable[Change], context: int) -> Iterator[list[Change]]:
    """Changes whose contexts meet, together."""
    group: list[Change] = []
    for change in found:
        if group and change.old_start - group[-1].old_end > 2 * context:
            yield group
            group = []
        group.append(change)
    if group:
        yield group


def _hunk(old: Sequence[bytes], new: Sequence[bytes], group: Sequence[Change], context: int) -> bytes:
    first, last = group[0], group[-1]
    lead = min(context, first.old_start)
    tail = min(context, len(old) - last.old_end)
    old_span = _span(first.old_start - lead, last.old_end + tail)
    new_span = _span(first.new_start - lead, last.new_end + tail)
    body = _body(old, new, group, first.old_start - lead, last.old_end + tail)
    return b"".join(chain((b"@@ -%s +%s @@\n" % (old_span, new_span),), body))


def _span(start: int, end: int) -> bytes:
    """``first,count``; a count of 1 is left out, and an empty span names the line before it."""
    length = end - start
    if length == 1:
        return b"%d" % (start + 1)
    return b"%d,%d" % (start + bool(length), length)


def _body(old: Sequence[bytes], new: Sequence[bytes], group: Sequence[Change], start: int, end: int) -> Iterator[bytes]:
    """The lines of one hunk, from line ``start`` to line ``end`` of ``old``."""
    for change in group:
        yield from _marked(b" ", old[start : change.old_start])
        yield from _marked(b"-", old[change.old_start : change.old_end])
        yield from _marked(b"+", new[change.new_start : change.new_end])
        start = change.old_end
    yield from _marked(b" ", old[start:end])


def _marked(mark: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield mark + line if line.endswith(b"\n") else mark + line + _NO_NEWLINE
