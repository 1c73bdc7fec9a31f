"""Sandboxes: one file for each way of running a command apart; what goes in and comes out stands in `base`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Final

from kaivc.errors import IsolationFailed
from kaivc.sandboxes.base import Ability, Level, Sandbox
from kaivc.settings import PARTIAL

KINDS: Final[dict[str, Callable[[], type[Sandbox]]]] = {
    "native": lambda: import_module("kaivc.sandboxes.native").Native,
    "bubblewrap": lambda: import_module("kaivc.sandboxes.bubblewrap").Bubblewrap,
    "landlock": lambda: import_module("kaivc.sandboxes.landlock").Landlock,
}
"""Every kind, the one that is taken first first; each is imported only when it is come to."""


def every() -> Iterator[Sandbox]:
    """Each kind in turn."""
    return (kind()() for kind in KINDS.values())


def choose(require: str) -> Sandbox:
    """The first kind that gives what is required here, ``full`` or ``partial``; IsolationFailed says what lacks.

    With ``partial`` one that gives all is still taken first.
    """
    return chosen(require)[0]


def chosen(require: str) -> tuple[Sandbox, Ability]:
    """As ``choose``, with what it gives: to ask is to try, which takes a process."""
    looked: list[tuple[Sandbox, Ability]] = []
    for sandbox in every():
        ability = sandbox.ability()
        if ability.level is Level.FULL:
            return sandbox, ability
        looked.append((sandbox, ability))
    if require == PARTIAL:
        some = next((it for it in looked if it[1].level is Level.PARTIAL), None)
        if some is not None:
            return some
    raise _none(require, [ability for _, ability in looked])


def _none(require: str, abilities: list[Ability]) -> IsolationFailed:
    lacks = {it.name: it.why or f"gives only {it.level}" for it in abilities}
    less = [it.name for it in abilities if it.level is Level.PARTIAL and require != PARTIAL]
    hint = "`kai doctor` says what each kind of sandbox needs"
    if less:
        hint += f"; `isolation.require: partial` in the home's or the user's config takes {less[0]}, which holds less"
    return IsolationFailed(
        "this machine gives no sandbox: " + "; ".join(f"{name}: {why}" for name, why in lacks.items()),
        unchanged="nothing ran",
        hint=hint,
        guard="sandbox",
        why=lacks,
    )
