"""Git's format through libraries, in this process."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from scripts.bench.meter import Meter
from scripts.bench.systems.base import AUTHOR, MAIL, System, package_version


class Pygit2(System):
    """libgit2 with each file synced."""

    name = "pygit2"
    used = "library: index.add_all, write_tree, create_commit; fsync on"
    in_process = True
    peers = True
    judged = ("W1",)
    without = (".git",)

    def __init__(self, place: str, meter: Meter) -> None:
        super().__init__(place, meter)
        self._commits: list[Any] = []

    @classmethod
    def version(cls, meter: Meter) -> str | None:  # noqa: ARG003 - as the others
        """That of the package."""
        return package_version("pygit2", "pygit2")

    def prepare(self) -> None:
        """A repository beside the work tree."""
        self._lib = importlib.import_module("pygit2")
        self._lib.settings.enable_fsync_gitdir(True)
        os.mkdir(self.workspace)
        self._repo = self._lib.init_repository(self.store, workdir_path=self.workspace, initial_head="main")

    def commit(self, number: int) -> None:
        """Stage everything, write the tree, the commit and the branch."""
        index = self._repo.index
        index.add_all()
        index.write()
        author = self._lib.Signature(AUTHOR, MAIL)
        tree = index.write_tree()
        parents = self._commits[-1:]
        made = self._repo.create_commit("refs/heads/main", author, author, f"version {number}", tree, parents)
        self._commits.append(made)

    def restore(self, number: int, to: str) -> str:
        """Check out to another directory."""
        os.mkdir(to)
        force = self._lib.enums.CheckoutStrategy.FORCE | self._lib.enums.CheckoutStrategy.DONT_UPDATE_INDEX
        self._repo.checkout_tree(self._repo[self._commits[number]], directory=to, strategy=force)
        return to

    def status(self) -> bool:
        """Compare index, tree and work tree."""
        if self._repo.status():
            raise AssertionError("an unchanged work tree is called changed")
        return True

    def switch(self, number: int) -> bool:
        """Check out in place."""
        commit = self._repo[self._commits[number]]
        self._repo.checkout_tree(commit, strategy=self._lib.enums.CheckoutStrategy.SAFE)
        self._repo.set_head(commit.id)
        return True


class Dulwich(System):
    """Git in Python."""

    name = "dulwich"
    used = "library: porcelain.add, commit; build_index_from_tree"
    in_process = True
    peers = True
    fewer: ClassVar[Mapping[str, int]] = {"W1": 100}
    without = (".git",)

    def __init__(self, place: str, meter: Meter) -> None:
        super().__init__(place, meter)
        self._commits: list[bytes] = []

    @classmethod
    def version(cls, meter: Meter) -> str | None:  # noqa: ARG003 - as the others
        """That of the package."""
        return package_version("dulwich", "dulwich")

    @property
    def store(self) -> str:
        """In the work tree."""
        return os.path.join(self.workspace, ".git")

    def prepare(self) -> None:
        """A repository in the work tree."""
        self._porcelain = importlib.import_module("dulwich.porcelain")
        self._index = importlib.import_module("dulwich.index")
        os.mkdir(self.workspace)
        self._repo = self._porcelain.init(self.workspace)
        os.chdir(self.workspace)  # what `add` without paths looks at

    def commit(self, number: int) -> None:
        """Stage everything, then commit."""
        who = f"{AUTHOR} <{MAIL}>".encode()
        self._porcelain.add(self._repo)
        words = f"version {number}".encode()
        self._commits.append(self._porcelain.commit(self._repo, message=words, author=who, committer=who, all=True))

    def restore(self, number: int, to: str) -> str:
        """Write the tree to another directory."""
        os.mkdir(to)
        index = os.path.join(self.place, "restore.index")
        tree = self._repo[self._commits[number]].tree
        self._index.build_index_from_tree(to, index, self._repo.object_store, tree)
        os.unlink(index)
        return to

    def close(self) -> None:
        """Close the repository."""
        self._repo.close()
