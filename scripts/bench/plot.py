"""Two pictures: how many times longer or larger the peers are, and how a home's costs grow. SVG, dark on white."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from scripts.bench.results import Results, ratio

INK, FAINT, GRID = "#1f2328", "#59636e", "#d1d9e0"
AHEAD, BEHIND = "#1a7f5a", "#c4432b"
LINES = ("#0b62c4", "#1a7f5a", "#c4432b", "#8a4fbf", "#a86400", "#0e7c86", "#5b5f66")
FONT = 'font-family="system-ui, sans-serif"'

WIDTH, LABEL, BAR, GAP = 420, 92, 15, 5
COLUMNS = 2
MARGIN = 24


@dataclass(frozen=True)
class Panel:
    """Bars of one measure: how many times kaivc's figure each peer's is."""

    title: str
    bars: Sequence[tuple[str, float]]


# ---------------------------------------------------------------- ratios


def ratios(results: Results) -> str:
    """One panel for each measure of each workload; a bar to the right means that the peer takes more."""
    panels = [panel for panel in _panels(results) if panel.bars]
    if not panels:
        return _nothing("no ratios were measured")
    values = [value for panel in panels for _, value in panel.bars]
    low = math.floor(math.log10(min(1.0, *values)))
    high = math.ceil(math.log10(max(10.0, *values)))
    rows = list(_rows(panels))
    top, parts = 66, []
    parts.append(_text(MARGIN, 26, "Peers beside kaivc: how many times its figure (log scale)", 16, INK, bold=True))
    legend = "bars to the right of 1x: the peer takes longer, or more room; to the left, in red: kaivc does"
    parts.append(_text(MARGIN, 46, legend, 12, FAINT))
    for row in rows:
        for column, panel in enumerate(row):
            parts.extend(_panel(panel, MARGIN + column * (WIDTH + MARGIN), top, low, high))
        top += 50 + max(len(panel.bars) for panel in row) * (BAR + GAP)
    return _svg(2 * MARGIN + COLUMNS * WIDTH + (COLUMNS - 1) * MARGIN, top, parts)


def _rows(panels: Sequence[Panel]) -> Iterator[Sequence[Panel]]:
    """Each workload begins on a row of its own."""
    for _, group in groupby(panels, lambda panel: panel.title.partition(":")[0]):
        found = list(group)
        yield from (found[at : at + COLUMNS] for at in range(0, len(found), COLUMNS))


def _panels(results: Results) -> Iterator[Panel]:
    steps: Sequence[tuple[str, str, Sequence[str], Sequence[str]]] = (
        ("next commit, durable, wall", "W1 W3 W4", ("next", "wall"), ("next", "durable_wall")),
        ("next commit, durable, CPU", "W1 W2 W3 W4", ("next", "cpu"), ("next", "durable_cpu")),
        ("first commit, returned, CPU", "W2 W3", ("first", "cpu"), ("first", "cpu")),
        ("restore, wall", "W1 W3 W4", ("restore", "wall"), ("restore", "wall")),
        ("restore, CPU", "W2", ("restore", "cpu"), ("restore", "cpu")),
    )
    for section in ("W1", "W2", "W3", "W4"):
        peers = [name for name in results.measured(section) if name != "kai"]
        for title, where, theirs, mine in steps:
            if section in where.split():
                own = results.value(section, "kai", *mine)
                found = {name: results.value(section, name, *theirs) for name in peers}
                yield _bars(f"{section}: {title}", found, own)
        count = results.value(section, "kai", "versions")
        whole = [name for name in peers if results.value(section, name, "versions") == count]
        own = results.room(section, "kai", "sizes", "packs", "catalog")
        found = {name: results.room(section, name, "sizes", "store") for name in whole}
        yield _bars(f"{section}: bytes kept", found, own)


def _bars(title: str, figures: Mapping[str, float | None], own: float | None) -> Panel:
    found = ((name, ratio(figure, own)) for name, figure in figures.items())
    return Panel(title, [(name, value) for name, value in found if value])


def _times(value: float) -> str:
    return f"{value:,.0f}x" if value >= 100 else f"{value:.3g}x"  # noqa: PLR2004 - three digits


def _panel(panel: Panel, left: float, top: float, low: int, high: int) -> Iterator[str]:
    width = WIDTH - LABEL - 52
    start = left + LABEL

    def across(value: float) -> float:
        return start + (math.log10(value) - low) / (high - low) * width

    bottom = top + 20 + len(panel.bars) * (BAR + GAP)
    yield _text(left, top + 8, panel.title, 13, INK, bold=True)
    for power in range(low, high + 1):
        at = across(10.0**power)
        yield _line(at, top + 16, at, bottom, INK if power == 0 else GRID)
        yield _text(at, bottom + 12, _times(10.0**power), 10, FAINT, anchor="middle")
    for number, (name, value) in enumerate(panel.bars):
        y = top + 20 + number * (BAR + GAP)
        near, far = sorted((across(1.0), across(value)))
        yield _text(start - 6, y + 12, name, 12, INK, anchor="end")
        colour = AHEAD if value >= 1 else BEHIND
        yield f'<rect x="{near:.1f}" y="{y:.1f}" width="{max(1.0, far - near):.1f}" height="{BAR}" fill="{colour}"/>'
        yield _text(far + 4, y + 12, _times(value), 11, INK)


# ---------------------------------------------------------------- growth


def growth(results: Results) -> str:
    """A line for each command, both axes logarithmic."""
    sizes = results.alone("W5", "sizes") or []
    curves = [curve for curve in _curves(sizes) if len(curve[1]) > 1]
    if not curves:
        return _nothing("no growth was measured")
    counts = [at for _, points in curves for at, _ in points]
    values = [value for _, points in curves for _, value in points]
    left, top, width, height = 84.0, 66.0, 560.0, 360.0
    x_low, x_high = math.log10(min(counts)), math.log10(max(counts))
    y_low, y_high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)

    def place(count: float, value: float) -> tuple[float, float]:
        x = left + (math.log10(count) - x_low) / (x_high - x_low) * width
        return x, top + height - (math.log10(value) - y_low) / max(1, y_high - y_low) * height

    parts = [_text(24, 26, "W5: what a command takes as the home grows", 16, INK, bold=True)]
    parts.append(_text(24, 46, "milliseconds, wall, in process, over versions in the home (both log scale)", 12, FAINT))
    for power in range(y_low, y_high + 1):
        y = place(counts[0], 10.0**power)[1]
        parts.append(_line(left, y, left + width, y, GRID))
        parts.append(_text(left - 8, y + 4, f"{10.0**power:g} ms", 11, FAINT, anchor="end"))
    for count in sorted(set(counts)):
        x = place(count, 10.0**y_low)[0]
        parts.append(_line(x, top, x, top + height, GRID))
        parts.append(_text(x, top + height + 18, f"{count:,}", 11, FAINT, anchor="middle"))
    for number, (name, points) in enumerate(curves):
        colour = LINES[number % len(LINES)]
        placed = [place(count, value) for count, value in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        y = top + 14 + number * 20
        parts.append(f'<rect x="{left + width + 20:.1f}" y="{y - 9:.1f}" width="14" height="4" fill="{colour}"/>')
        parts.append(_text(left + width + 40, y - 3, f"{name} ({points[-1][1]:.3g} ms)", 12, INK))
    return _svg(left + width + 260, top + height + 40, parts)


def _curves(sizes: Sequence[dict[str, dict[str, float]]]) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    for title, step, key in (
        ("open", "open", "wall"),
        ("commit, durable", "commit", "durable_wall"),
        ("commit, returned", "commit", "wall"),
        ("rollback", "rollback", "wall"),
        ("status", "status", "wall"),
        ("log", "log", "wall"),
        ("gc of an agent", "gc", "wall"),
    ):
        yield title, [(it["versions"], it[step][key] * 1_000) for it in sizes if it[step].get(key)]  # type: ignore[misc]


# ---------------------------------------------------------------- SVG


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>\n"])


def _nothing(what: str) -> str:
    return _svg(420, 60, [_text(24, 34, what, 14, FAINT)])


def _text(x: float, y: float, what: str, size: int, fill: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} {FONT} font-size="{size}" fill="{fill}"{weight}>{escape(what)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="1"/>'
