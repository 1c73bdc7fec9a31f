"""Every change that a command makes below the home goes through ``vfs.py``, or is SQLite's to its own files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, require_tool
from tests.engine.homes import ENVIRON
from tests.faults.bypass import TRACED, Change, changes
from tests.faults.stories import with_database

OF_SQLITE = re.compile(
    r"/(\.kai/catalog\.sqlite|\.kai/tmp/catalog-[0-9a-f]+|workspace/state\.db)(-wal|-shm|-journal)?$"
)
"""The catalog, also one that repair builds, and the workspace's database, each with its side files."""


def watch(scratch: Path, home: Path, *words: str) -> tuple[list[Change], list[str]]:
    """The changes that a command made beside and below a home, and those of Python outside of Vfs, with the stack."""
    scratch.mkdir()
    trace, notes = scratch / "trace", scratch / "notes"
    strace = [
        require_tool("strace"),
        "-ff",
        "-y",
        "-qq",
        "-e",
        f"trace={TRACED}",
        "-e",
        "signal=none",
        "-o",
        str(trace),
    ]
    command = [*strace, sys.executable, "-m", "tests.faults.bypass", str(notes), *words]
    environ = {**ENVIRON, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=home, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    noted = notes.read_text(encoding="utf-8").split("\0")
    top = str(home.parent)
    made = [change for change in changes(trace, [top]) if not change.path.startswith(str(scratch))]
    return made, [it for it in noted if f" {top}" in it.partition("\n")[0]]


def _is_of_sqlite(change: Change) -> bool:
    """Its own files; and the names of those, which it syncs by another call than we do."""
    if OF_SQLITE.search(change.path):
        return True
    return change.call == "fdatasync" and change.path.endswith(("/.kai", "/.kai/tmp", "/workspace"))


def bypassing(made: list[Change], noted: list[str]) -> list[str]:
    """What must not be: the call, the path, and where in Python it was made."""
    found = []
    for change in made:
        if not change.inside and not _is_of_sqlite(change):
            stacks = [it for it in noted if it.partition("\n")[0].endswith(" " + change.path)]
            found.append("\n".join((f"{change.call} {change.path}", *stacks)))
    return found + [f"by Python, on a file of SQLite: {it}" for it in noted if OF_SQLITE.search(it.partition("\n")[0])]


@pytest.fixture
def home(memory: Path) -> Path:
    """Three versions with a database, the workspace dirty."""
    path = Path(os.path.realpath(memory)) / "home"
    with_database(path)
    return path


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def test_only_vfs_and_sqlite_change_a_disk(home: Path, figure: Callable[..., None]) -> None:
    logic, catalog = home / "bot" / "workspace" / "logic.py", home / ".kai" / "catalog.sqlite"
    empty = home.parent / "another"
    empty.mkdir()
    commands: list[tuple[tuple[str, ...], Callable[[], object]]] = [
        (("commit", "bot"), lambda: None),
        (("rollback", "bot", "--to", "v1.0.0"), lambda: _write(logic, "dirty\n")),
        (("undo", "bot"), lambda: None),
        (("restore", "bot"), lambda: _write(logic, "dirty again\n")),
        (("gc", "bot"), lambda: None),
        (("new", "cat", "--from", "bot@v1.1.0"), lambda: None),
        (("agent", "rename", "cat", "dog"), lambda: None),
        (("fsck", "--repair"), catalog.unlink),
        (("agent", "remove", "dog"), lambda: None),
        (("init", str(empty)), lambda: None),
    ]
    seen, wrong = Counter[str](), []
    for number, (words, first) in enumerate(commands):
        first()
        where = empty if words[0] == "init" else home
        made, noted = watch(home.parent / f"watched-{number}", where, *words)
        inside = [change for change in made if change.inside]
        assert inside, f"kai {words}: no call of Vfs was seen"
        seen.update("made by vfs" if change.inside else "of SQLite" for change in made)
        seen["syncs among them"] += sum(change.is_sync for change in made)
        wrong += [f"kai {' '.join(words)}: {it}" for it in dict.fromkeys(bypassing(made, noted))]
    figure(f"{len(commands)} commands, {dict(seen)}", system_calls_that_change_a_disk=seen.total())
    assert not wrong, "\n".join(wrong)


def test_a_write_by_hand_is_caught(home: Path) -> None:
    made, noted = watch(home.parent / "watched", home, "--plant", "commit", "bot")
    found = bypassing(made, noted)
    assert {it.partition("\n")[0] for it in found} == {f"{call} {home}/planted" for call in ("openat", "write")}
    assert "in land" in found[0]
