"""``kai``: the console script.

``kai --version`` answers before the parser of arguments is even imported.
"""

from __future__ import annotations

import sys

from kaivc import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BROKEN_PIPE = 141
"""What a shell shows for a command that SIGPIPE ended."""

UNWRITTEN = 11


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process, unless given); the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _answer(args)
        if not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _give_up_stdout()
        print(f"kai: the answer could not be written: {error.strerror}", file=sys.stderr)
        return UNWRITTEN
    return code


def _give_up_stdout() -> None:
    """Close it: else the interpreter flushes it again at its end, and complains."""
    import contextlib

    with contextlib.suppress(OSError):
        sys.stdout.close()


def _answer(args: list[str]) -> int:
    if args in (["--version"], ["-V"]):
        print(f"kai {__version__}")
        return 0
    from kaivc.cli.app import run

    return run(args)
