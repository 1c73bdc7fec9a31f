"""Paths that a user names: what they stand for among those that are known, and the nearest on a miss."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from kaivc.errors import NoSuchPath
from kaivc.names import nearest
from kaivc.trees import show

TOP = b"."
"""The cleaned path of the top directory."""


def clean(path: str | bytes, unchanged: str = "") -> bytes:
    """A path from the top without empty parts, ``.`` and a slash at its end; NoSuchPath for what is none."""
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise NoSuchPath(f"{path!r} is no path", unchanged=unchanged) from error
    if not raw:
        raise NoSuchPath("an empty path names nothing", unchanged=unchanged, hint="'.' means all")
    return os.path.normpath(raw)


def chosen(
    paths: Iterable[str | bytes], known: Collection[bytes], where: str, *, unchanged: str = ""
) -> frozenset[bytes]:
    """The files among ``known`` that paths, each a file or a directory, stand for; NoSuchPath for one of none."""
    found: set[bytes] = set()
    for path in paths:
        wanted = clean(path, unchanged)
        below = {name for name in known if wanted in (name, TOP) or name.startswith(wanted + b"/")}
        if not below:
            raise missing(wanted, known, where, unchanged=unchanged)
        found |= below
    return frozenset(found)


def missing(path: bytes, known: Iterable[bytes], where: str, *, unchanged: str = "") -> NoSuchPath:
    """The error for a path that is not ``where`` one looked, with the nearest of those known."""
    close = nearest(show(path), sorted(map(show, known)))
    return NoSuchPath(
        f"{show(path)} is {where}",
        unchanged=unchanged,
        hint=f"did you mean {', '.join(close)}?" if close else "",
        path=show(path),
        nearest=close,
    )


def with_directories(files: Iterable[bytes]) -> set[bytes]:
    """Paths of files, and of all directories above them."""
    found = set(files)
    for path in list(found):
        while b"/" in path:
            path = path.rpartition(b"/")[0]  # noqa: PLW2901 - on its way up
            found.add(path)
    return found
