"""Text that others wrote, made safe to print: a terminal obeys some of what it is shown.

Names, notes and paths may hold escape sequences, line breaks and characters that turn the direction of text.
"""

from __future__ import annotations

import os

_LOW, _HIGH = "\udc80", "\udcff"


def escape(text: str) -> str:
    """``text`` on one line, with everything that is not printable shown as an escape."""
    return text if text.isprintable() else "".join(map(_shown, text))


def escape_lines(text: str) -> list[str]:
    """The lines of ``text``, each escaped."""
    return [escape(line.expandtabs()) for line in text.split("\n")]


def escape_path(path: str | bytes) -> str:
    """A path, escaped; a byte that is not UTF-8 as x and two digits after a backslash."""
    return escape(os.fsdecode(path))


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    if _LOW <= char <= _HIGH:  # a byte that was no UTF-8 (surrogateescape)
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
