"""Backup programs and image stores: restic, borg, bup, casync, ostree."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from scripts.bench.meter import Meter
from scripts.bench.systems.base import System, program_version


class _Archive(System):
    fewer: ClassVar[Mapping[str, int]] = {"W1": 50}
    environ: ClassVar[Mapping[str, str]] = {}

    def prepare(self) -> None:
        """An empty store, an empty workspace."""
        os.mkdir(self.workspace)
        self.initialise()

    def initialise(self) -> None:
        """Make the store."""
        raise NotImplementedError

    def call(self, *command: str, cwd: str | None = None) -> str:
        """Run it in the workspace."""
        return self.meter.run(*command, cwd=cwd or self.workspace, environ=self.environ)


class Restic(_Archive):
    """Encrypts always, with AES."""

    name = "restic"
    used = "restic backup, restore (it always encrypts)"
    judged = ("W2",)
    environ: ClassVar[Mapping[str, str]] = {"RESTIC_PASSWORD": "bench", "GOGC": "100"}

    @classmethod
    def version(cls, meter: Meter) -> str | None:
        """What it says."""
        return program_version(meter, "restic", "version")

    def initialise(self) -> None:
        """``restic init``."""
        self.call("restic", "--repo", self.store, "init")

    def commit(self, number: int) -> None:
        """A snapshot with a tag."""
        self.call("restic", "--repo", self.store, "backup", "--quiet", "--tag", f"v{number}", ".")

    def restore(self, number: int, to: str) -> str:
        """All of its files."""
        self.call("restic", "--repo", self.store, "restore", "--quiet", "--tag", f"v{number}", "--target", to, "latest")
        return to

    def tidy(self) -> bool:
        """``restic prune``."""
        self.call("restic", "--repo", self.store, "prune", "--quiet")
        return True


class Borg(_Archive):
    """Compresses with lz4 as it comes; not encrypted here."""

    name = "borg"
    used = "borg create, extract; lz4 (its default), no encryption"
    judged = ("W2",)
    environ: ClassVar[Mapping[str, str]] = {
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    }

    @classmethod
    def version(cls, meter: Meter) -> str | None:
        """What it says."""
        return program_version(meter, "borg", "--version")

    def initialise(self) -> None:
        """``borg init``."""
        self.call("borg", "init", "--encryption=none", self.store)

    def commit(self, number: int) -> None:
        """An archive with a name."""
        self.call("borg", "create", f"{self.store}::v{number}", ".")

    def restore(self, number: int, to: str) -> str:
        """It extracts where it stands."""
        os.mkdir(to)
        self.call("borg", "extract", f"{self.store}::v{number}", cwd=to)
        return to

    def tidy(self) -> bool:
        """``borg compact``."""
        self.call("borg", "compact", self.store)
        return True


class Bup(_Archive):
    """Git packs cut by a rolling checksum."""

    name = "bup"
    used = "bup index + bup save; bup restore"
    judged = ("W2",)

    def __init__(self, place: str, meter: Meter) -> None:
        super().__init__(place, meter)
        self.environ = {"BUP_DIR": self.store}  # type: ignore[misc]

    @classmethod
    def version(cls, meter: Meter) -> str | None:
        """What it says."""
        return program_version(meter, "bup", "--version")

    def initialise(self) -> None:
        """``bup init``."""
        self.call("bup", "init")

    def commit(self, number: int) -> None:
        """A branch for each version, so that it has a name."""
        self.call("bup", "index", self.workspace)
        self.call("bup", "save", "--quiet", "--strip", "--name", f"v{number}", self.workspace)

    def restore(self, number: int, to: str) -> str:
        """The newest of its branch."""
        self.call("bup", "restore", "--quiet", "--outdir", to, f"/v{number}/latest/.")
        return to


class Casync(_Archive):
    """Chunks of a serialised tree."""

    name = "casync"
    used = "casync make, extract; zstd"
    judged = ("W2",)

    @classmethod
    def version(cls, meter: Meter) -> str | None:
        """What it says."""
        return program_version(meter, "casync", "--version")

    def initialise(self) -> None:
        """A directory for chunks and indexes."""
        os.mkdir(self.store)

    def _words(self, number: int) -> tuple[str, str, str]:
        chunks = os.path.join(self.store, "chunks")
        return f"--store={chunks}", "--compression=zstd", os.path.join(self.store, f"v{number}.caidx")

    def commit(self, number: int) -> None:
        """An index for each version."""
        self.call("casync", "make", *self._words(number), self.workspace)

    def restore(self, number: int, to: str) -> str:
        """All of its chunks."""
        self.call("casync", "extract", *self._words(number), to)
        return to


class Ostree(_Archive):
    """A store of whole files."""

    name = "ostree"
    used = "ostree commit, checkout; bare-user, not compressed"

    @classmethod
    def version(cls, meter: Meter) -> str | None:
        """What it says."""
        return program_version(meter, "ostree", "--version")

    def initialise(self) -> None:
        """``ostree init``."""
        self.call("ostree", "init", f"--repo={self.store}", "--mode=bare-user")

    def commit(self, number: int) -> None:
        """A branch for each version, so that it has a name."""
        parent = () if number == 0 else (f"--parent={self._id(number - 1)}",)
        self.call(
            "ostree", "commit", f"--repo={self.store}", f"--branch=v{number}", *parent, f"--tree=dir={self.workspace}"
        )

    def _id(self, number: int) -> str:
        with open(os.path.join(self.store, "refs", "heads", f"v{number}"), encoding="ascii") as file:
            return file.read().strip()

    def restore(self, number: int, to: str) -> str:
        """Copies, not links into the store."""
        self.call("ostree", "checkout", f"--repo={self.store}", "--user-mode", "--force-copy", f"v{number}", to)
        return to

    def tidy(self) -> bool:
        """``ostree prune``."""
        self.call("ostree", "prune", f"--repo={self.store}", "--refs-only")
        return True
