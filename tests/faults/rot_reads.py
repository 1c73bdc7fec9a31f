"""What is asked of a damaged home, and what each answer is worth."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from kaivc.api import Agent, Home
from kaivc.errors import KaiError
from kaivc.vfs import Vfs
from tests.engine.homes import Files, read

ABSENT = {"E302", "E303", "E313", "E314", "E316", "E319"}
"""Errors that say of something that it is not there."""


@dataclass(frozen=True)
class Read:
    """One question; what it answers is compared with ``==`` unless it says itself that something is damaged."""

    name: str
    ask: Callable[[Home], Any]


def reads(home: Home, scratch: Path) -> list[Read]:
    """Every question that is asked of a home."""
    found = [
        Read("agents", lambda home: home.agents(removed=True)),
        Read("listing", lambda home: [replace(it, pack_bytes=0) for it in home.listing(removed=True).agents]),
    ]
    for name in home.agents():
        found += _reads(home.agent(name), scratch)
    return found


def _reads(agent: Agent, scratch: Path) -> Iterator[Read]:
    def add(what: str, ask: Callable[[Agent], Any]) -> Read:
        return Read(f"{what} {agent.name}", lambda home: ask(_agent(home, agent.name)))

    tags = [f"v{it.version}" for it in agent.versions()]
    revs = [*tags, *(ref.rpartition("heads/")[2].partition("/")[2] for ref in agent.repository.refs("refs/heads/"))]
    yield add("versions", _versions)
    yield add("log", lambda it: it.log())
    yield add("reflog", _reflog)
    yield add("reflog --all", lambda it: _reflog(it, None))
    yield add("status", lambda it: it.status())
    yield add("verify", lambda it: it.verify())
    yield add("diff to workspace", lambda it: _patch(it, "current", None))
    yield add("checkout", partial(_checkout, tags[0], scratch))
    yield add("checkout backup", partial(_checkout, revs[-1], scratch))
    yield add("load", _load)
    for rev in revs:
        yield add(f"show {rev}", lambda it, rev=rev: it.show(rev))  # type: ignore[misc]
        yield add(f"ls-tree {rev}", lambda it, rev=rev: it.ls_tree(rev, recursive=True, sizes=True))  # type: ignore[misc]
        yield add(f"cat {rev}", partial(_cats, rev, [each.path for each in agent.ls_tree(rev, recursive=True).entries]))
    for old, new in itertools.pairwise(tags):
        yield add(f"diff {old} {new}", lambda it, old=old, new=new: _patch(it, old, new))  # type: ignore[misc]


def _agent(home: Home, name: str) -> Agent:
    """One agent, looked up once for each home that is opened."""
    known: dict[str, Agent] = vars(home).setdefault("_asked", {})
    if name not in known:
        known[name] = home.agent(name)
    return known[name]


def _versions(agent: Agent) -> tuple[Any, ...]:
    found = agent.versions()
    return found.current, found.versions, found.damaged


def _reflog(agent: Agent, ref: str | None = "current") -> tuple[Any, ...]:
    found = agent.reflog(ref)
    return found.entries, found.names, found.gone, found.former


def _patch(agent: Agent, old: str, new: str | None) -> tuple[Any, ...]:
    found = agent.diff(old, new)
    return found.old, found.new, found.changes, tuple(found.files())


def _checkout(rev: str, scratch: Path, agent: Agent) -> Files:
    target = scratch / f"out-{os.getpid()}"
    try:
        agent.checkout(rev, target)
        return read(target)
    finally:
        if target.exists():
            Vfs().remove_tree(str(target))


def _load(agent: Agent) -> tuple[str, Files]:
    path = agent.load()
    return path.name, read(path)


def _cats(rev: str, paths: list[str], agent: Agent) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in paths:
        try:
            found[path] = agent.cat(path, rev).read()
        except KaiError as error:
            found[path] = Failed(error.code, error.what)
    return found


@dataclass(frozen=True)
class Failed:
    """A typed error."""

    code: str
    what: str = field(default="", compare=False)


# ---------------------------------------------------------------- verdicts

RIGHT, SAID, MISSING, OLDER, WRONG = "right", "typed error", "absent", "older", "wrong"


def judge(name: str, answer: object, truths: list[Any]) -> str:
    """What an answer is worth; ``truths`` are the right one, then those of states before the newest transaction."""
    right = truths[0]
    if answer == right:
        return RIGHT
    if isinstance(answer, Failed):
        return MISSING if answer.code in ABSENT else SAID
    if answer in truths[1:]:
        return OLDER
    kind = name.split(" ", 1)[0]
    return _PARTS[kind](answer, right) if kind in _PARTS else WRONG


def _part_of_cats(answer: Any, right: Any) -> str:
    verdicts = {judge("one", answer[path], [right[path]]) for path in right}
    return next(it for it in (WRONG, MISSING, SAID) if it in verdicts)


def _part_of_versions(answer: Any, right: Any) -> str:
    in_force, sound, damaged = answer
    if any(it not in right[1] for it in sound) or in_force not in (right[0], None):
        return WRONG
    return SAID if damaged and len(sound) + len(damaged) >= len(right[1]) else MISSING


def _part_of_agents(answer: Any, right: Any) -> str:
    return MISSING if set(answer) < set(right) else WRONG


def _part_of_listing(answer: Any, right: Any) -> str:
    names = {it.name: it for it in right}
    verdict = SAID if len(answer) == len(right) else MISSING
    for it in answer:
        if it.name not in names:
            return WRONG
        if it != names[it.name] and not it.problem:
            fewer = it.versions < names[it.name].versions or it.version is None
            verdict = MISSING if fewer else WRONG
    return verdict


def _part_of_reflog(answer: Any, right: Any) -> str:
    entries, names, gone, former = answer
    if any(it not in right[0] for it in entries) or any(it not in right[3] for it in former):
        return WRONG
    if any(name not in (right[1].get(oid), oid[:12]) for oid, name in names.items()):
        return WRONG
    whole = (len(entries), former) == (len(right[0]), right[3]) and gone == right[2]
    return SAID if whole else MISSING


def _part_of_verify(answer: Any, right: Any) -> str:
    if answer.findings:
        return SAID
    return MISSING if set(answer.versions) < set(right.versions) else WRONG


_PARTS: dict[str, Callable[[Any, Any], str]] = {
    "cat": _part_of_cats,
    "versions": _part_of_versions,
    "agents": _part_of_agents,
    "listing": _part_of_listing,
    "reflog": _part_of_reflog,
    "verify": _part_of_verify,
}
