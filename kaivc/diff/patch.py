"""A whole diff, as a patch that ``git apply`` takes, as counts or as letters.

The headers are git's extended ones (diff-generate-patch in git's documentation), with full object ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kaivc.diff.binary import binary_patch, is_binary, summary
from kaivc.diff.model import FileDiff, Side, Status
from kaivc.diff.quoting import quote
from kaivc.diff.text import count, unified
from kaivc.errors import TooLarge

Stat = tuple[bytes, int | None, int | None]


def render(diffs: Iterable[FileDiff], *, binary: bool, context: int = 3) -> Iterator[bytes]:
    """Chunks of the patch, to be joined; paths come in the order given.

    With ``binary``, content that is not text comes whole, and content that was not loaded is TooLarge;
    without, one line says that it differs.
    """
    for diff in diffs:
        if binary and not diff.same_content:
            _check_loaded(diff)
        for part in _parts(diff):
            yield b"".join(_header(part))
            yield from _content(part, binary=binary, context=context)


def stat(diffs: Iterable[FileDiff]) -> list[Stat]:
    """Path, lines added and lines removed of each; None for both where the content is not text."""
    return [(diff.path, *_counts(diff)) for diff in diffs]


def name_status(diffs: Iterable[FileDiff]) -> list[tuple[Status, bytes]]:
    """The letter and path of each, as ``git diff --name-status --no-renames``."""
    return [(diff.status, diff.path) for diff in diffs]


def _check_loaded(diff: FileDiff) -> None:
    if diff.loaded:
        return
    name = quote(diff.path).decode("ascii")
    size = max(side.size for side in diff.sides)
    raise TooLarge(
        f"{name} is too large for a binary patch ({size} bytes)",
        hint="a patch without binary content only says that it differs",
        path=name,
        size=size,
    )


def _parts(diff: FileDiff) -> Iterator[FileDiff]:
    """The diff itself; a change of type, which no patch can state, as a removal and an addition."""
    if diff.status == "T":
        yield FileDiff(diff.path, diff.old, None)
        yield FileDiff(diff.path, None, diff.new)
    else:
        yield diff


def _counts(diff: FileDiff) -> tuple[int | None, int | None]:
    if not _is_text(diff):
        return None, None
    return (0, 0) if diff.same_content else count(*diff.contents)


def _is_text(diff: FileDiff) -> bool:
    return diff.loaded and not any(map(is_binary, diff.contents))


# ---------------------------------------------------------------- headers


def _header(diff: FileDiff) -> Iterator[bytes]:
    # git apply cannot read "a/x /y b/x /y" off this line unless it is quoted, though git writes it plain.
    force = b" /" in diff.path
    yield b"diff --git %s %s\n" % (quote(b"a/" + diff.path, force), quote(b"b/" + diff.path, force))
    yield from _modes(diff.old, diff.new)
    if not diff.same_content:
        yield _index(diff)


def _modes(old: Side | None, new: Side | None) -> Iterator[bytes]:
    if old is None and new is not None:
        yield b"new file mode %06o\n" % new.mode
    elif new is None and old is not None:
        yield b"deleted file mode %06o\n" % old.mode
    elif old is not None and new is not None and old.mode != new.mode:
        yield b"old mode %06o\nnew mode %06o\n" % (old.mode, new.mode)


def _index(diff: FileDiff) -> bytes:
    """``index OLD..NEW``, zeros for what is absent, and the mode where both sides have the same."""
    zeros = "0" * len(diff.sides[0].oid)
    old, new = (side.oid if side else zeros for side in (diff.old, diff.new))
    line = f"index {old}..{new}".encode("ascii")
    if diff.old and diff.new and diff.old.mode == diff.new.mode:
        line += b" %06o" % diff.new.mode
    return line + b"\n"


# ---------------------------------------------------------------- content


def _content(diff: FileDiff, *, binary: bool, context: int) -> Iterator[bytes]:
    if diff.same_content:
        return
    if _is_text(diff):
        yield from _text(diff, context)
    elif binary:
        yield from binary_patch(*diff.contents)
    else:
        yield summary(*_labels(diff))


def _text(diff: FileDiff, context: int) -> Iterator[bytes]:
    """The hunks under their two file lines; nothing at all where there is no hunk (an empty file)."""
    old, new = map(_file_label, _labels(diff))
    lead = b"--- %s\n+++ %s\n" % (old, new)
    for hunk in unified(*diff.contents, context):
        yield lead + hunk
        lead = b""


def _labels(diff: FileDiff) -> tuple[bytes, bytes]:
    old = quote(b"a/" + diff.path) if diff.old else b"/dev/null"
    new = quote(b"b/" + diff.path) if diff.new else b"/dev/null"
    return old, new


def _file_label(label: bytes) -> bytes:
    """A tab ends a name with a space, so that other tools do not read a date into it (as git does)."""
    return label + b"\t" if b" " in label else label
