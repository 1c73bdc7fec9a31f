"""Exceptions, as people and programs read them, and as exit codes. The table of codes is ``kaivc.errors``."""

from __future__ import annotations

import os
import sys

from kaivc.cli.escape import escape_lines
from kaivc.cli.invocation import Invocation, as_json
from kaivc.cli.terminal import Paint, tell, wants_color
from kaivc.errors import InternalError, KaiError, StorageFailed, UnreadablePath

USAGE, INTERRUPTED = 2, 130
MAX_LINE = 2000


class Misuse(KaiError):
    """A command line that says nothing sensible; no code of the catalogue, exit 2."""

    code = "usage"
    exit_code = USAGE


def report(error: Exception, invocation: Invocation) -> int:
    """Say on stderr what went wrong; the exit code."""
    invocation.clear()
    if invocation.debug:
        import traceback

        tell("".join(traceback.format_exception(error)).rstrip("\n"))
    known = understood(error)
    if invocation.json:
        tell(as_json(known.as_dict()))
    else:
        for line in as_text(known, Paint(wants_color(sys.stderr))):
            tell(line)
    return known.exit_code


def understood(error: Exception) -> KaiError:
    """Any exception as one of ours."""
    if isinstance(error, KaiError):
        return error
    if isinstance(error, PermissionError) and error.filename is not None:
        return UnreadablePath(f"{error.filename}: {error.strerror}", path=str(error.filename))
    if isinstance(error, FileNotFoundError) and _is_nowhere():
        return UnreadablePath("the working directory was removed", hint="go to another", path=".")
    if isinstance(error, OSError):
        from kaivc import vfs

        if error.errno in vfs.OF_THE_SYSTEM:
            return vfs.refused("using", error.filename or "a file", error)
    if isinstance(error, MemoryError):
        return StorageFailed("there is too little memory", hint="let the process have more memory (`ulimit -v`)")
    return InternalError(
        f"{type(error).__name__}: {error}" if str(error) else type(error).__name__,
        hint="this is a fault of kai: run again with --debug for the traceback",
    )


def _is_nowhere() -> bool:
    """Whether the working directory was removed: then no relative path can be made sense of."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def as_text(error: KaiError, paint: Paint) -> list[str]:
    """``kai: E101: what``, then what did not happen, then what to do."""
    code = "" if isinstance(error, Misuse) else f"{error.code}: "
    first, *more = map(_cut, escape_lines(error.what))
    lines = [f"kai: {paint('red', code)}{first}", *(f"  {line}" for line in more)]
    for note in filter(None, (error.unchanged, error.hint)):
        lines += [f"  {_cut(line)}" for line in escape_lines(note)]
    return lines


def _cut(line: str) -> str:
    """A line that a person can read: it may quote what somebody else wrote at any length."""
    return line if len(line) <= MAX_LINE else line[:MAX_LINE] + "..."
