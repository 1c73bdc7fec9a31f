"""``kai run``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from kaivc.cli import arguments, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.invocation import Invocation

STDOUT, STDERR = 1, 2


def run(
    door: Invocation,
    agent: arguments.Agent,
    command: Annotated[
        list[str] | None, Argument(metavar="[-- CMD...]", help="What to run; the manifest's entry unless said.")
    ] = None,
    dirty: Annotated[
        bool, Option("--dirty", help="Run even if logic, config or lock files differ from current.")
    ] = False,
) -> int:
    """Run the agent in its workspace, and exit with its code."""
    known = door.agent(agent)
    with _stdout_for_the_document() if door.json else _as_it_is():
        ran = known.run(*(command or ()), dirty=dirty)
    door.answer(lambda: render.plain(ran), list)
    return ran.exit_code if ran.exit_code >= 0 else 128 - ran.exit_code


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _stdout_for_the_document() -> Iterator[None]:
    """What the agent prints goes to stderr."""
    sys.stdout.flush()
    ours = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        yield
    finally:
        os.dup2(ours, STDOUT)
        os.close(ours)
