"""Choose a version from a numbered list, on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kaivc.cli import render
from kaivc.cli.terminal import Paint, is_terminal, wants_color
from kaivc.errors import InvalidRollbackVersion

if TYPE_CHECKING:
    from kaivc.ops.versions import VersionList


def possible() -> bool:
    """Whether somebody can see the list and answer."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def pick(known: VersionList) -> str:
    """Offer the newest versions; what was chosen by number, or the revision that was typed.

    InvalidRollbackVersion if nothing was.
    """
    newest = known.versions[: -render.MANY - 1 : -1]
    paint = Paint(wants_color(sys.stderr))
    width = max((len(it.tag) for it in newest), default=0)
    for number, it in enumerate(newest, 1):
        line = render.row(it, paint, in_force=it.version == known.current, width=width)
        print(f"{number:>3} {line}", file=sys.stderr)
    if len(known) > len(newest):
        print(f"    ... and {len(known) - len(newest)} more: see `kai versions {known.agent}`", file=sys.stderr)
    print("go to which? (number or version; empty for none) ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.buffer.readline().decode(errors="surrogateescape").strip()
    if not answer:
        raise InvalidRollbackVersion("no version was chosen", unchanged="nothing moved")
    by_number = {str(number): it.tag for number, it in enumerate(newest, 1)}
    return by_number.get(answer, answer)
