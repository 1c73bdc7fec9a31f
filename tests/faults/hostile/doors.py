"""The doors that a hostile object, placed in a home, can come through."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from tests.engine.homes import copy
from tests.faults.hostile import measure
from tests.faults.hostile.forge import AGENT, dispose
from tests.faults.hostile.measure import TRIES, Outcome, run

EVIL = f"{AGENT}@v6.6.6"
READS_ALL = frozenset(["fsck", "audit", "verify", "export", "gc", "new"])
PER_RECORD = 0.001


@dataclass(frozen=True)
class Door:
    """A command line; ``touches``: it writes files of the version, so that it must refuse what is unsafe."""

    argv: tuple[str, ...]
    touches: bool = False
    writes: bool = False
    checks: bool = False

    @property
    def name(self) -> str:
        return " ".join(self.argv)


def _door(line: str, **more: bool) -> Door:
    return Door(tuple(line.format(evil=EVIL, agent=AGENT).split()), **more)


OBJECT_DOORS = (
    _door("checkout {evil} out/checkout", touches=True),
    _door("rollback {agent} --to v6.6.6", touches=True, writes=True),
    _door("restore {agent} --from v6.6.6", touches=True, writes=True),
    _door("verify {evil}", checks=True),
    _door("verify {agent}", checks=True),
    _door("fsck {agent}", checks=True),
    _door("audit {evil}", checks=True),
    _door("audit {agent}", checks=True),
    _door("show {evil}"),
    _door("show {evil} --json"),
    _door("log {evil}"),
    _door("log {agent}"),
    _door("versions {agent}"),
    _door("versions {agent} --json"),
    _door("diff {agent}@v1.0.0 v6.6.6 --stat"),
    _door("diff {evil} v1.0.0 --name-status"),
    _door("diff {evil}"),
    _door("cat {evil} logic.py"),
    _door("cat {evil} a/b/c"),
    _door("ls-tree {evil}"),
    _door("ls-tree -r -t {evil}"),
    _door("ls-tree -l {evil}"),
    _door("rev-parse {evil}"),
    _door("status {agent}"),
    _door("reflog {agent} --all"),
    _door("rollback {agent} --to v6.6.6 --dry-run"),
    _door("rollback {agent} --to ^6"),
    _door("new fork --from {evil}", writes=True),
    _door("export {agent} --git out/git"),
    _door("gc --dry-run"),
    _door("gc", writes=True),
    _door("fsck {agent} --repair", writes=True),
    _door("__complete zsh kai show summarizer@v"),
)
"""What is asked of each hostile object."""


@dataclass
class Sandbox:
    """A home that holds something hostile, with a canary beside it that nothing may touch."""

    top: Path

    @property
    def home(self) -> Path:
        return self.top / "home"

    @property
    def canary(self) -> Path:
        return self.top / "canary"

    def prepare(self, template: Path) -> None:
        """A home as it was made, and the canary."""
        self.top.mkdir()
        copy(template, self.home)
        (self.canary / "deep").mkdir(parents=True)
        (self.canary / "secret.txt").write_text("nobody reads or writes this\n")
        (self.canary / "deep/file").write_text("nor this\n")
        (self.top / "out").mkdir()

    def state(self) -> dict[str, tuple[int, ...]]:
        """What a stray write would change: the canary, and what lies beside the home."""
        found = {}
        for path in [self.canary, *self.canary.rglob("*"), self.top / "out"]:
            status = os.lstat(path)
            stamp = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            found[str(path)] = stamp if path != self.top / "out" else (status.st_ino, status.st_mode)
        return found | dict.fromkeys(os.listdir(self.top), ())

    def through(self, door: Door, env: dict[str, str] | None = None, records: int = 0) -> tuple[Outcome, list[str]]:
        """The best of several tries through a door, and what is wrong with it; the home is as before.

        A command that reads everything may take its time for each of the hostile ``records``.
        """
        best: Outcome | None = None
        wrong: list[str] = []
        limit = measure.MAX_CPU + (PER_RECORD * records if door.argv[0] in READS_ALL else 0)
        for _ in range(TRIES):
            outcome, wrong = self._once(door, env)
            if best is None or outcome.cpu < best.cpu:
                best = outcome if best is None else replace(outcome, extra=min(outcome.extra, best.extra))
            elif outcome.extra < best.extra:
                best = replace(best, extra=outcome.extra)
            if wrong or (best.cpu <= limit and best.extra <= measure.MAX_EXTRA):
                break
            if best.cpu > 4 * limit:
                break
        assert best is not None
        return best, wrong + best.problems(limit)

    def _once(self, door: Door, env: dict[str, str] | None) -> tuple[Outcome, list[str]]:
        here = self
        if door.writes:
            here = Sandbox(self.top.with_name(self.top.name + "-again"))
            dispose(here.top)
            subprocess.run(["cp", "-a", self.top, here.top], check=True)
        before = here.state()
        argv = tuple(part.replace("TOP", str(here.top)) for part in door.argv)
        tail = () if argv[0].startswith("__") else ("--home", str(here.home))
        outcome = run((*argv, *tail), here.top, {"KAI_HOME": str(here.home), **(env or {})})
        after = here.state()
        wrong = [f"touched {path}" for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
        if outcome.code and os.listdir(here.top / "out"):
            wrong.append(f"left {os.listdir(here.top / 'out')} behind")
        for name in os.listdir(here.top / "out"):
            dispose(here.top / "out" / name)
        return outcome, wrong
