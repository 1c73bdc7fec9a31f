"""Where ``current`` stood over time, drawn by hand as inline SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape as html_escape
from typing import TYPE_CHECKING

from kaivc.cli import render
from kaivc.cli.escape import escape

if TYPE_CHECKING:
    from kaivc.report import MoveReport

MOST = 40
"""Moves that a drawing shows: the newest."""
LABEL = 16
LEFT, STEP, ROW, TOP, BOTTOM, WIDTH = 120, 22, 20, 16, 30, 980


def drawing(moves: Sequence[MoveReport]) -> Iterator[str]:
    """A line for each version, the newest at the top; a dot for each move, hollow where it was undone."""
    shown = moves[-MOST:]
    names = _names(shown)
    height = TOP + ROW * len(names) + BOTTOM
    step = min(STEP * 3, (WIDTH - LEFT - 20) / max(len(shown), 1))
    at = {name: TOP + ROW * (len(names) - 1 - number) + ROW / 2 for number, name in enumerate(names)}
    dots = [(LEFT + step * (number + 0.5), at[_to(move)], move) for number, move in enumerate(shown)]
    yield f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="the version in force after each move">'
    for name, y in at.items():
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_short(name)}</text>'
    yield f'<path class="path" d="{_steps([(x, y) for x, y, _ in dots])}"/>'
    for x, y, move in dots:
        kind = "move" if move.undone_by is None else "undone"
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{_title(move)}</title></circle>'
    baseline = height - BOTTOM + 18
    for number in sorted({0, len(shown) - 1}):
        x, anchor = dots[number][0], "start" if number == 0 else "end"
        day = render.rfc3339(dots[number][2].time_ns)[:10]
        if len(shown) > 1 or number == 0:
            yield f'<text class="soft" x="{x:.1f}" y="{baseline}" text-anchor="{anchor}">{day}</text>'
    yield "</svg>"
    if len(moves) > MOST:
        yield f"<p class=soft>The newest {MOST} of {len(moves)} moves are drawn; the table has all.</p>"


def _names(moves: Sequence[MoveReport]) -> list[str]:
    """The versions of the drawing in the order in which they were first gone to."""
    return list(dict.fromkeys(_to(move) for move in moves))


def _to(move: MoveReport) -> str:
    return move.to_version or (move.to_commit or "nothing")[: render.SHORT]


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """A path that stays on a line until the next move."""
    x, y = points[0]
    return f"M{x:.1f} {y:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in points[1:])


def _short(name: str) -> str:
    shown = escape(name)
    return html_escape(shown if len(shown) <= LABEL else shown[: LABEL - 1] + "…")


def _title(move: MoveReport) -> str:
    undone = "" if move.undone_by is None else f", undone by {move.undone_by}"
    text = (
        f"{move.seq}: {move.verb} to {_to(move)}{undone}, {render.rfc3339(move.time_ns)}, {move.actor}: {move.reason}"
    )
    return html_escape(escape(text))
