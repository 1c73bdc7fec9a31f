"""``kai remote list``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kaivc.cli import render
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation

if TYPE_CHECKING:
    from kaivc.ops.remote_list import ListedRemote, RemoteList


def remote_list(door: Invocation) -> None:
    """List the remotes of a home."""
    known = door.open().remotes()
    door.answer(lambda: {"remotes": [_document(it) for it in known.remotes]}, lambda: _text(known))


def _document(it: ListedRemote) -> render.Document:
    document = render.plain(it)
    document["seen"] = [{"agent": agent, "seq": seq} for agent, seq in sorted(document["seen"].items())]
    return document


def _text(known: RemoteList) -> Iterator[str]:
    width = max((len(it.name) for it in known.remotes), default=0)
    for it in known.remotes:
        kind = " (git)" if it.is_git else ""
        yield f"{it.name:<{width}}  {escape(it.url)}{kind}"
    if not known.remotes:
        yield "no remote is known; `kai remote add NAME URL` notes one"
