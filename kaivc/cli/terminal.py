"""What a stream is: a terminal or not, coloured or not."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from kaivc.records import dataclass

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def is_terminal(stream: TextIO) -> bool:
    """Whether a person sits at the other end."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def wants_color(stream: TextIO) -> bool:
    """Whether to colour what goes to ``stream``: a terminal that can, and NO_COLOR unset or empty."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def tell(line: str) -> None:
    """A line on stderr, if that takes it: a full disk under it changes neither what was done nor the exit code."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)


@dataclass(frozen=True)
class Paint:
    """Colours, or none: ``paint("bold", text)``."""

    on: bool

    def __call__(self, color: str, text: str) -> str:
        """``text`` in ``color``."""
        return f"\x1b[{_CODES[color]}m{text}\x1b[0m" if self.on and text else text
