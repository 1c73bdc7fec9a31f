"""Choose a version from a numbered list, on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kaivc.cli import render
from kaivc.cli.terminal import Paint, is_terminal, wants_color
from kaivc.errors import InvalidRollbackVersion

if TYPE_CHECKING:
    from kaivc.api import Agent


def possible() -> bool:
    """Whether somebody can see the list and answer."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def pick(agent: Agent) -> str:
    """Offer all versions, newest first; the one that was chosen by number or by name.

    InvalidRollbackVersion if none was.
    """
    current, known = agent.current, list(reversed(agent.versions()))
    paint = Paint(wants_color(sys.stderr))
    width = max(len(it.tag) for it in known)
    for number, it in enumerate(known, 1):
        line = render.row(it, paint, in_force=it.commit == current.commit, width=width)
        print(f"{number:>3} {line}", file=sys.stderr)
    print("go to which? (number or version; empty for none) ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip()
    if not answer:
        raise InvalidRollbackVersion("no version was chosen", unchanged="nothing moved")
    if answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(known):
        return known[int(answer) - 1].tag
    return answer
