"""Git as it comes, tuned, with every write synced, and with LFS."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

from scripts.bench.meter import Meter
from scripts.bench.systems.base import AUTHOR, MAIL, System, program_version


class Git(System):
    """``git add -A`` and ``git commit``, a process each, as one uses it."""

    name = "git"
    used = "git add -A + git commit; defaults, but gc.auto=0"
    judged: ClassVar[Sequence[str]] = ("W1", "W3", "W4")
    settings: ClassVar[Mapping[str, str]] = {}

    def __init__(self, place: str, meter: Meter) -> None:
        super().__init__(place, meter)
        self._environ = {"GIT_DIR": self.store, "GIT_WORK_TREE": self.workspace}

    @classmethod
    def version(cls, meter: Meter) -> str | None:
        """What it says."""
        return program_version(meter, "git", "--version")

    def git(self, *words: str, **environ: str) -> str:
        """Run one command of it."""
        return self.meter.run("git", *words, cwd=self.workspace, environ={**self._environ, **environ})

    def prepare(self) -> None:
        """A repository beside the work tree."""
        os.mkdir(self.workspace)
        self.git("init", "--quiet", "--initial-branch=main")
        always = {"core.bare": "false", "user.name": AUTHOR, "user.email": MAIL, "gc.auto": "0"}
        for name, value in {**always, **self.settings}.items():
            self.git("config", name, value)

    def commit(self, number: int) -> None:
        """Both commands count."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"version {number}")

    @cached_property
    def _commits(self) -> list[str]:
        return self.git("rev-list", "--reverse", "main").split()

    def restore(self, number: int, to: str) -> str:
        """Check out into another work tree, with an index of its own."""
        os.mkdir(to)
        index = os.path.join(self.place, "restore.index")
        self.git("checkout", "--quiet", self._commits[number], "--", ".", GIT_WORK_TREE=to, GIT_INDEX_FILE=index)
        os.unlink(index)
        return to

    def tidy(self) -> bool:
        """``git gc``."""
        self.git("gc", "--quiet", "--prune=now")
        return True

    def status(self) -> bool:
        """``git status --porcelain``."""
        if self.git("status", "--porcelain"):
            raise AssertionError("an unchanged work tree is called changed")
        return True

    def switch(self, number: int) -> bool:
        """``git checkout``."""
        self.git("checkout", "--quiet", "--detach", self._commits[number])
        return True


class GitTuned(Git):
    """Nothing synced, light compression, large files never deltified, a compact index."""

    name = "git-tuned"
    used = "as git; core.fsync=none, untracked cache, index v4, compression 1, bigFileThreshold 16m"
    judged = ()
    settings: ClassVar[Mapping[str, str]] = {
        "core.fsync": "none",
        "core.fsmonitor": "false",
        "core.untrackedCache": "true",
        "core.preloadIndex": "true",
        "core.compression": "1",
        "core.bigFileThreshold": "16m",
        "index.version": "4",
        "index.threads": "true",
        "pack.threads": "0",
        "pack.window": "10",
        "commit.gpgSign": "false",
    }


class GitSynced(Git):
    """As safe at each commit as kaivc is: every object, the index and the refs synced."""

    name = "git-synced"
    used = "as git; core.fsync=all"
    judged = ()
    settings: ClassVar[Mapping[str, str]] = {"core.fsync": "all", "core.fsyncMethod": "fsync"}


class GitLfs(Git):
    """The state in LFS, the rest in git."""

    name = "git-lfs"
    used = "as git; the state files through LFS"
    judged = ()
    workloads = ("W1", "W2")
    fewer: ClassVar[Mapping[str, int]] = {"W1": 100}
    large = ("*.sqlite", "*.f32", "*.jsonl", "state/*.json")

    @classmethod
    def version(cls, meter: Meter) -> str | None:
        """That of LFS."""
        return program_version(meter, "git-lfs", "version")

    def prepare(self) -> None:
        """A repository whose state files are filtered."""
        super().prepare()
        self.git("lfs", "install", "--local", "--skip-repo")
        os.makedirs(os.path.join(self.store, "info"), exist_ok=True)
        with open(os.path.join(self.store, "info", "attributes"), "w", encoding="ascii") as file:
            file.writelines(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in self.large)
