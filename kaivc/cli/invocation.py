"""What holds for one command line, whatever its verb: where the home is, and how to answer."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kaivc.cli.progress import Line
from kaivc.cli.terminal import Paint, is_terminal, wants_color
from kaivc.errors import StorageFailed
from kaivc.ports import Progress, silent
from kaivc.records import dataclass, field

if TYPE_CHECKING:
    from kaivc.api import Agent, Home

HOME_VARIABLE = "KAI_HOME"


@dataclass
class Invocation:
    """The global options, and the doors to the home and to the terminal. What it opened, ``close`` closes."""

    home: str | None = None
    json: bool = False
    debug: bool = False
    flags: dict[str, str] = field(default_factory=dict)
    _opened: list[Home] = field(default_factory=list)

    def take(self, option: str, value: str | bool) -> bool:
        """One of ``arguments.EVERYWHERE``; whether its value makes sense."""
        if option != "config":
            setattr(self, option, value)
            return True
        key, sign, text = str(value).partition("=")
        if sign and key:
            self.flags[key] = text
        return bool(sign and key)

    # ------------------------------------------------------------ the home

    @property
    def place(self) -> str:
        """Where to look for the home, and above: ``--home``, else KAI_HOME, else here."""
        return self.home or os.environ.get(HOME_VARIABLE) or "."

    def open(self) -> Home:
        """The home; NoSuchHome if there is none."""
        from kaivc import api

        opened = api.open(self.place, flags=self.flags, progress=self.progress)
        self._opened.append(opened)
        return opened

    def agent(self, name: str) -> Agent:
        """One agent of the home; NoSuchAgent, with the nearest names, if there is none."""
        return self.open().agent(name)

    def close(self) -> None:
        """Close what was opened, and leave no half-drawn line."""
        self.clear()
        for home in self._opened:
            home.close()
        self._opened.clear()

    # ------------------------------------------------------------ the terminal

    @cached_property
    def progress(self) -> Progress:
        """Where long work says how far it is."""
        if not is_terminal(sys.stderr):
            return silent
        import shutil

        return Line(sys.stderr, shutil.get_terminal_size().columns - 1)

    def clear(self) -> None:
        """Take the line of progress away."""
        if isinstance(self.progress, Line):
            self.progress.clear()

    @cached_property
    def paint(self) -> Paint:
        """The colours of stdout."""
        return Paint(wants_color(sys.stdout))

    def answer(self, document: Callable[[], Mapping[str, Any]], text: Callable[[], Iterable[str]]) -> None:
        """Print the one JSON document, or the lines for people."""
        lines = [as_json(document())] if self.json else text()
        for line in lines:
            self.write((line + "\n").encode(sys.stdout.encoding, "backslashreplace"))
        self.write(flush=True)

    def write(self, data: bytes = b"", *, flush: bool = False) -> None:
        """Bytes to stdout as they are; StorageFailed if it does not take them, BrokenPipeError if nobody reads."""
        self.clear()
        try:
            sys.stdout.buffer.write(data)
            if flush:
                sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritten(error) from error


def _unwritten(error: OSError) -> StorageFailed:
    """The error for an answer that stdout does not take."""
    with contextlib.suppress(OSError):
        sys.stdout.close()  # what is left in its buffer would fail again
    return StorageFailed(f"the answer could not be written: {error.strerror}", unchanged="the command itself is done")


def as_json(document: Mapping[str, Any]) -> str:
    """A document as pure printable ASCII."""
    import json

    return json.dumps(document, indent=2).replace("\x7f", "\\u007f")
