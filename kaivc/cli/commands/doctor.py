"""``kai doctor``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kaivc.cli import render
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint, is_terminal, wants_color

if TYPE_CHECKING:
    from kaivc.ops.doctor import Diagnosis

COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(door: Invocation) -> int:
    """Check what this machine and this home give."""
    from kaivc import api

    found = api.doctor(door.place, flags=door.flags, terminal=_terminal())
    door.answer(lambda: _document(found), lambda: _text(found, door.paint))
    return int(found.problems > 0)


def _terminal() -> str:
    if not is_terminal(sys.stdout):
        return f"stdout is no terminal; text goes out as {sys.stdout.encoding}"
    colors = "with colours" if wants_color(sys.stdout) else "without colours"
    return f"{os.environ.get('TERM') or 'a terminal without TERM'}, {colors}, {sys.stdout.encoding}"


def _document(found: Diagnosis) -> render.Document:
    return {
        "home": found.home,
        "problems": found.problems,
        "warnings": found.warnings,
        "checks": [render.plain(line) for line in found.lines],
    }


def _text(found: Diagnosis, paint: Paint) -> Iterator[str]:
    width = max(len(line.check) for line in found.lines)
    for line in found.lines:
        yield f"{paint(COLORS[line.level], f'{line.level:<7}')}  {line.check:<{width}}  {escape(line.what)}"
        if line.hint:
            yield f"{'':<7}  {'':<{width}}  {escape(line.hint)}"
    if found.home is None:
        yield "there is no home here or above: only the machine was checked"
    yield f"{render.counted(found.problems, 'problem')}, {render.counted(found.warnings, 'warning')}"
