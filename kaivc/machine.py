"""What this machine gives: a table of checks, each one function.

To add a check is to add a function and its line in ``CHECKS``.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping

from kaivc.errors import KaiError
from kaivc.records import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"
RELEASED_NS = 1_767_225_600_000_000_000
"""2026-01-01, before which no clock that runs this is right."""
OLDEST_SQLITE = (3, 37, 0)
WAIT = 10.0


@dataclass(frozen=True)
class Line:
    """What one check found: how it stands, what that means, and what to do."""

    check: str
    level: str
    what: str
    hint: str = ""


@dataclass(frozen=True)
class Machine:
    """What only the doors see; ``kaivc`` is its version, ``terminal`` in words, ``now_ns`` since the epoch."""

    kaivc: str
    terminal: str
    now_ns: int
    temp: str
    environ: Mapping[str, str]


Found = Iterator[tuple[str, str, str]]
"""Level, what, hint."""


def ok(what: str) -> tuple[str, str, str]:
    """All is well."""
    return OK, what, ""


def told(name: str, found: Callable[[], Found]) -> Iterator[Line]:
    """The lines of one check; one that fails is a problem of its own, and the others go on."""
    try:
        for level, what, hint in found():
            yield Line(name, level, what, hint)
    except KaiError as error:
        yield Line(name, PROBLEM, error.what, error.hint)
    except OSError as error:
        yield Line(name, PROBLEM, f"{error.filename or 'a path'}: {error.strerror}", "look at its permissions")


def check(machine: Machine) -> Iterator[Line]:
    """All checks of the machine."""
    for name, found in CHECKS.items():
        yield from told(name, lambda found=found: found(machine))  # type: ignore[misc]


# ---------------------------------------------------------------- one function each


def _versions(machine: Machine) -> Found:
    yield ok(f"kai {machine.kaivc}, Python {platform.python_version()}, {platform.system()} {platform.release()}")


def _sqlite(_: Machine) -> Found:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        yield PROBLEM, f"SQLite {sqlite3.sqlite_version}; {oldest} or later is needed", "use a newer Python"
    else:
        yield ok(f"SQLite {sqlite3.sqlite_version}")


def _dependencies(_: Machine) -> Found:
    """What kaivc was declared to need, against what is there."""
    there = []
    for name, wanted in _needed():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield PROBLEM, f"{name} is not installed", "install kaivc again, with what it needs"
            continue
        if not fits(version, wanted):
            yield WARNING, f"{name} {version} is there; {wanted} was tested", "install kaivc again, with what it needs"
        there.append(f"{name} {version}")
    yield ok(", ".join(there) or "what kaivc needs is not said by its installation")


def _needed() -> Iterator[tuple[str, str]]:
    try:
        declared = importlib.metadata.requires("kaivc") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for text in declared:
        if "extra ==" not in text and (match := re.match(r"([A-Za-z0-9._-]+)\s*(.*)", text.partition(";")[0])):
            yield match[1], match[2].strip()


def fits(version: str, wanted: str) -> bool:
    """Whether a version is one of those that a requirement such as ``>=0.19,<0.29`` allows."""
    have = _numbers(version)
    for operator, text in re.findall(r"(==|>=|<=|~=|<|>)\s*([0-9.]+)", wanted):
        bound = _numbers(text)
        padded = have + (0,) * (len(bound) - len(have))
        short = padded[: len(bound)]
        holds = {
            "==": short == bound,
            ">=": padded >= bound,
            "<=": short <= bound,
            "~=": padded >= bound and padded[: len(bound) - 1] == bound[:-1],
            "<": padded < bound,
            ">": padded > bound,
        }
        if not holds[operator]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def _git(machine: Machine) -> Found:
    path = shutil.which("git", path=machine.environ.get("PATH", os.defpath))
    if path is None:
        yield WARNING, "git is not there; kai does not need it, whoever checks an export with it does", "install git"
        return
    try:
        done = subprocess.run(  # noqa: S603 - a program of the machine, no shell
            [path, "--version"], capture_output=True, text=True, timeout=WAIT, check=False, env=dict(machine.environ)
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield WARNING, f"{path} cannot be run: {error}", "install git anew"
        return
    yield ok(done.stdout.strip() or f"{path} says nothing of its version")


def _clock(machine: Machine) -> Found:
    if machine.now_ns < RELEASED_NS:
        yield PROBLEM, "the clock stands before 2026: commits would be dated wrongly", "set the clock"
    else:
        yield ok("the clock is past the release of kai")


def _umask(_: Machine) -> Found:
    """Read where nothing is changed by it."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        mask = next((int(line.split()[1], 8) for line in file if line.startswith("Umask:")), None)
    if mask is None:
        yield ok("the umask is not told here")
    elif mask & 0o700:
        yield PROBLEM, f"umask {mask:04o} takes rights from the owner of new files", "set `umask 022` or `umask 077`"
    elif not mask & 0o002:
        yield (
            WARNING,
            f"umask {mask:04o} lets everybody write what an agent makes; kai's own files are closed by their modes",
            "set `umask 022` or `umask 077`",
        )
    else:
        yield ok(f"umask {mask:04o}")


def _temp(machine: Machine) -> Found:
    if not os.path.isdir(machine.temp) or not os.access(machine.temp, os.W_OK | os.X_OK, effective_ids=True):
        what = f"{machine.temp} takes no scratch, which homes that can only be read need"
        yield WARNING, what, "name a directory in TMPDIR"
    else:
        yield ok(f"scratch of homes that can only be read goes to {machine.temp}")


def _terminal(machine: Machine) -> Found:
    yield ok(machine.terminal)


CHECKS: dict[str, Callable[[Machine], Found]] = {
    "versions": _versions,
    "sqlite": _sqlite,
    "dependencies": _dependencies,
    "git": _git,
    "clock": _clock,
    "umask": _umask,
    "scratch directory": _temp,
    "terminal": _terminal,
}
