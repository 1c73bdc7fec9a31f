"""Version control for data: DVC and Oxen."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from scripts.bench import folders
from scripts.bench.folders import Room
from scripts.bench.meter import Meter
from scripts.bench.systems.base import AUTHOR, MAIL, System, package_version

FEW = 50


class Dvc(System):
    """One directory under DVC in a git repository."""

    name = "dvc"
    used = "dvc add + git commit; git checkout + dvc checkout"
    peers = True
    fewer: ClassVar[Mapping[str, int]] = {"W1": FEW}

    def __init__(self, place: str, meter: Meter) -> None:
        super().__init__(place, meter)
        self._commits: list[str] = []

    @classmethod
    def version(cls, meter: Meter) -> str | None:  # noqa: ARG003 - as the others
        """That of the package."""
        return package_version("dvc", "dvc")

    @property
    def _root(self) -> str:
        return os.path.join(self.place, "repository")

    @property
    def workspace(self) -> str:
        """The directory that `dvc add` is given."""
        return os.path.join(self._root, "data")

    def dvc(self, *words: str) -> str:
        """Run one command of it."""
        environ = {"DVC_NO_ANALYTICS": "1", "PATH": f"{os.path.dirname(sys.executable)}:{self.meter.environ['PATH']}"}
        return self.meter.run(sys.executable, "-m", "dvc", *words, cwd=self._root, environ=environ)

    def git(self, *words: str) -> str:
        """Run one command of git."""
        return self.meter.run("git", *words, cwd=self._root)

    def prepare(self) -> None:
        """Both repositories; no cache outside of the place."""
        os.makedirs(self.workspace)
        self.git("init", "--quiet", "--initial-branch=main")
        for name, value in {"user.name": AUTHOR, "user.email": MAIL, "gc.auto": "0"}.items():
            self.git("config", name, value)
        self.dvc("init", "--quiet")
        self.dvc("config", "core.site_cache_dir", os.path.join(self.place, "site"))
        self.dvc("config", "core.check_update", "false")

    def commit(self, number: int) -> None:
        """Both add and commit."""
        self.dvc("add", "--quiet", "data")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"version {number}")

    def restore(self, number: int, to: str) -> str:  # noqa: ARG002 - it restores in place
        """Bring the directory itself there."""
        if not self._commits:
            self._commits = self.git("rev-list", "--reverse", "main").split()
        self.git("checkout", "--quiet", self._commits[number], "--", "data.dvc")
        self.dvc("checkout", "--quiet", "--force", "data.dvc")
        return self.workspace

    def sizes(self) -> dict[str, Room]:
        """Both stores."""
        return {"store": folders.room(os.path.join(self._root, ".dvc"), os.path.join(self._root, ".git"))}


class Oxen(System):
    """Its Python library."""

    name = "oxen"
    used = "library: Repo.add, commit, checkout"
    in_process = True
    peers = True
    fewer: ClassVar[Mapping[str, int]] = {"W1": FEW}
    without = (".oxen",)

    def __init__(self, place: str, meter: Meter) -> None:
        super().__init__(place, meter)
        self._repo: Any = None

    @classmethod
    def version(cls, meter: Meter) -> str | None:  # noqa: ARG003 - as the others
        """That of the package."""
        return package_version("oxen", "oxenai")

    @property
    def store(self) -> str:
        """In the workspace."""
        return os.path.join(self.workspace, ".oxen")

    def prepare(self) -> None:
        """A repository in the workspace."""
        oxen = importlib.import_module("oxen")
        oxen.user.config_user(AUTHOR, MAIL)
        os.mkdir(self.workspace)
        self._repo = oxen.Repo(self.workspace)
        self._repo.init()

    def commit(self, number: int) -> None:
        """Add everything, then commit, on a branch for each version: the library checks out nothing else."""
        if number:
            self._repo.checkout(_branch(number), create=True)
        self._repo.add(self.workspace)
        self._repo.commit(f"version {number}")

    def restore(self, number: int, to: str) -> str:  # noqa: ARG002 - it restores in place
        """Bring the workspace itself there."""
        self._repo.checkout(_branch(number))
        return self.workspace


def _branch(number: int) -> str:
    return f"v{number}" if number else "main"
