"""Findings as documents and as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kaivc.cli import render
from kaivc.cli.escape import escape, escape_path
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.findings import Finding

COLORS = {"damage": "red", "warning": "yellow", "note": "dim"}
SHOWN = 3


def document(it: Finding) -> render.Document:
    """One finding for a program."""
    return {
        "severity": it.severity.value,
        "where": it.where,
        "agent": it.agent,
        "versions": list(it.versions),
        **({"path": None} if it.path is None else render.path(it.path)),
        "problem": it.problem,
        "pack": it.pack,
        "offset": it.offset,
        "end": it.end,
        "object": it.object,
        "row": it.row,
        "seq": it.seq,
    }


def line(it: Finding, paint: Paint) -> str:
    """One finding for people: how bad, where, what it takes along, what is wrong."""
    at = [it.where, *([named(it.versions)] if it.versions else []), *([escape_path(it.path)] if it.path else [])]
    place = f" ({place_of(it)})" if it.pack is not None else ""
    return f"{paint(COLORS[it.severity.value], it.severity.value)}: {' '.join(at)}: {escape(it.problem)}{place}"


def named(versions: Sequence[str]) -> str:
    """The first and the last of some versions, and how many they are."""
    some = [escape(it) for it in versions]
    if len(some) <= SHOWN:
        return ", ".join(some)
    return f"{some[0]} ... {some[-1]} ({len(some)} versions)"


def place_of(it: Finding) -> str:
    """Where the bytes lie."""
    at = f", byte {it.offset}" if it.offset is not None else ""
    return f"pack {escape(it.pack or '')}{at}"
