"""``kai``: the console script.

``kai --version`` answers before the parser of arguments is even imported.
"""

from __future__ import annotations

import gc
import os
import sys

from kaivc import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

BROKEN_PIPE = 141
"""What a shell shows for a command that SIGPIPE ended."""

INTERRUPTED = 130

UNWRITTEN = 11

FEWER_COLLECTIONS = (20_000, 50, 50)
"""Importing makes many objects and no garbage: by the interpreter's thresholds, a tenth of a short command's time goes
into looking for some."""


def main(argv: Sequence[str] | None = None, *, leaving: bool = False) -> int:
    """Run one command line (that of the process, unless given); the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _answer(args, leaving=leaving)
        if not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _give_up_stdout()
        _tell(f"the answer could not be written: {error.strerror}")
        return UNWRITTEN
    return code


def script() -> NoReturn:
    """Run the process's command line and leave at once.

    The catalog is not closed: closing it would copy its log into the main file, two syncs that nothing waits for.
    """
    try:
        gc.set_threshold(*FEWER_COLLECTIONS)
        _fill_what_is_closed()
        code = main(leaving=True)
    except KeyboardInterrupt:  # of the command itself ``app.run`` says it
        code = INTERRUPTED
        _tell("interrupted")
    try:  # noqa: SIM105 - as in ``_tell``
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    os._exit(code)


def _fill_what_is_closed() -> None:
    """Streams that whoever started the process has closed are opened on nothing, for it and for what it runs.

    Else they would be the next files to be opened, such as those of a home.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            from kaivc.vfs import open_nothing

            setattr(sys, name, open_nothing())  # takes the lowest number that is free


def _give_up_stdout() -> None:
    """Close it: else the interpreter flushes it again at its end, and complains."""
    try:  # noqa: SIM105 - as in ``_tell``
        sys.stdout.close()
    except OSError:
        pass


def _tell(what: str) -> None:
    """Say it on stderr, if that takes it.

    Without contextlib, which imports much: an interrupt meanwhile would be a traceback.
    """
    try:  # noqa: SIM105
        print(f"kai: {what}", file=sys.stderr)
    except OSError:
        pass


def _answer(args: list[str], *, leaving: bool) -> int:
    if args in (["--version"], ["-V"]):
        print(f"kai {__version__}")
        return 0
    if args[:1] == ["__complete"]:
        from kaivc.cli.completing import complete

        complete(args[1:])
        return 0
    from kaivc.cli.app import run

    return run(args, leaving=leaving)
