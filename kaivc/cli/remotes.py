"""What the verbs of remotes share: which remote is meant, whom to ask for secrets, and how moved refs are shown."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint, is_terminal
from kaivc.errors import KaiError, NoSuchRemote

if TYPE_CHECKING:
    from kaivc.api import Home
    from kaivc.remotes.base import Ask

ORIGIN = "origin"

Move = tuple[str, str | None, str | None]
"""A ref, and what it pointed at and points at, in hex; None for not there."""

Remote = Annotated[
    str | None, Argument(metavar="[REMOTE]", help="The remote; `origin`, or the only one, unless it is named.")
]
Agents = Annotated[list[str] | None, Option("--agent", metavar="AGENT", help="Only this agent; may be repeated.")]


def chosen(home: Home, name: str | None) -> str:
    """The remote that is meant; NoSuchRemote if none is named and several could be meant."""
    if name is not None:
        return name
    names = [it.name for it in home.remotes().remotes]
    if ORIGIN in names or not names:
        return ORIGIN
    if len(names) > 1:
        raise NoSuchRemote(
            "there are several remotes, and none of them is named origin",
            unchanged="nothing was sent or taken",
            hint=f"name one: {', '.join(names[:10])}",
            nearest=names[:10],
        )
    return names[0]


# ---------------------------------------------------------------- asking


def ask(door: Invocation) -> Ask:
    """Asks on the terminal, secrets without echo; nobody where none is, or where a program reads the answer."""
    from kaivc.api import nobody

    if door.json or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return nobody

    def asked(question: str, secret: bool) -> str | None:
        door.clear()
        shown = escape(question)
        try:
            if secret:
                from getpass import getpass

                return getpass(shown, sys.stderr) or None
            print(shown, end="", file=sys.stderr, flush=True)
            line = sys.stdin.buffer.readline()
            return line.decode(errors="replace").strip() if line else None
        except EOFError:
            return None

    return asked


# ---------------------------------------------------------------- refs that moved


def lines(
    home: Home, agent: str, moves: Iterable[Move], paint: Paint, before: str = "", *, ids: bool = False
) -> Iterator[str]:
    """A line for each ref, as ``v1.0.6 [new]``; ``before`` stands before each name.

    With ``ids`` the commit stands behind it: what was only fetched is known by nothing else here.
    """
    for ref, old, new in moves:
        name = f"{before}{escape(short(agent, ref))}"
        if old is None:
            said = paint("green", "[new]")
        elif new is None:
            said = paint("red", "[gone]")
        else:
            said = f"{_called(home, agent, old)} -> {paint('yellow', _called(home, agent, new))}"
        behind = f" ({_commit(home, agent, new)[: render.SHORT]})" if ids and new is not None else ""
        yield f"{name} {said}{behind}"


def short(agent: str, ref: str) -> str:
    """A ref as a revision of its agent: ``v1.0.6``, ``current``, ``snapshots/ID``."""
    return ref.removeprefix(f"refs/tags/{agent}/").removeprefix(f"refs/heads/{agent}/")


def _commit(home: Home, agent: str, oid: str) -> str:
    from kaivc.remotes.tracking import commit_of

    return (commit_of(home.agent(agent).repository, bytes.fromhex(oid)) or bytes.fromhex(oid)).hex()


def _called(home: Home, agent: str, oid: str) -> str:
    """The version of a commit, else the first digits of the id."""
    try:
        version = home.agent(agent).rev_parse(oid).version
    except KaiError:
        version = None
    return f"v{escape(version)}" if version else oid[: render.SHORT]
