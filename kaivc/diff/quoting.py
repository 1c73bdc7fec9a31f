"""Paths as git prints them with ``core.quotePath=true`` (git-config(1), ``quote.c``)."""

from __future__ import annotations

import re

_NEEDS_QUOTES = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_LETTERS = {
    b"\a": b"\\a",
    b"\b": b"\\b",
    b"\t": b"\\t",
    b"\n": b"\\n",
    b"\v": b"\\v",
    b"\f": b"\\f",
    b"\r": b"\\r",
    b'"': b'\\"',
    b"\\": b"\\\\",
}


def quote(path: bytes, force: bool = False) -> bytes:
    """The path itself when it is plain ASCII, else in double quotes with C escapes; always ASCII."""
    if not force and not _NEEDS_QUOTES.search(path):
        return path
    return b'"' + _NEEDS_QUOTES.sub(_escape, path) + b'"'


def _escape(match: re.Match[bytes]) -> bytes:
    return _LETTERS.get(match[0]) or b"\\%03o" % match[0][0]
