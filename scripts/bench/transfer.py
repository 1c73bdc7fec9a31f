"""A state that is sent to another store, fetched into a new one, edited, and sent again: kai beside git, rsync, restic.

All but restic go through something that is called like ssh and runs the far end on this machine: bytes are those that
went either way, CPU and memory those of both ends. restic copies from store to store: bytes are what the other grew by.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import kaivc
from scripts.bench import folders
from scripts.bench.meter import Meter, ProgramFailed
from scripts.bench.startup import program

MIB = 1 << 20
SIZES = {"full": (256 * MIB, 1536 * MIB), "quick": (16 * MIB,), "tiny": (2 * MIB,)}
RUNS, SHARE = 16, 100
STEPS = ("push", "clone", "push again")
RELAY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "relay.py")
LINE = b'{"at": %d, "said": "the quick brown fox jumps over the lazy dog", "took": %d}\n'


class Sender(ABC):
    """One system with a directory to send."""

    name: ClassVar[str]

    def __init__(self, place: str) -> None:
        self.place = place
        self.source = os.path.join(place, "source")
        self.far = os.path.join(place, "far")
        self.fresh = os.path.join(place, "fresh")
        self._counts = os.path.join(place, "counts")
        self.ssh = os.path.join(place, "ssh")
        os.makedirs(place)
        with open(self.ssh, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-S", "-E", RELAY, self._counts])} "$@"\n')
        os.chmod(self.ssh, 0o700)
        self.meter = Meter({**os.environ, **self.environ()}, in_process=False)

    def environ(self) -> dict[str, str]:
        """Variables that its programs get."""
        return {}

    def sent(self) -> int:
        """Bytes that went either way since this was asked last."""
        if not os.path.exists(self._counts):
            return 0
        with open(self._counts, encoding="ascii") as file:
            total = sum(int(word) for word in file.read().split())
        os.unlink(self._counts)
        return total

    @property
    def workspace(self) -> str:
        """The directory that is sent."""
        return self.source

    @abstractmethod
    def prepare(self) -> None:
        """Both ends, with nothing in them."""

    @abstractmethod
    def commit(self, number: int) -> None:
        """Keep what the workspace holds."""

    @abstractmethod
    def push(self) -> None:
        """Send it."""

    @abstractmethod
    def clone(self) -> str:
        """Fetch all of it to a new place; the directory that then holds it."""


class Kai(Sender):
    """Over ``kai serve --stdio``."""

    name = "kai"

    @property
    def workspace(self) -> str:
        """The agent's."""
        return os.path.join(self.source, "bench", "workspace")

    def environ(self) -> dict[str, str]:
        """Settings of a user's own."""
        config = os.path.join(self.place, "config")
        os.makedirs(os.path.join(config, "kai"))
        kai = os.path.join(self.place, "kai")
        with open(kai, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec {shlex.join(program())} "$@"\n')
        os.chmod(kai, 0o700)
        with open(os.path.join(config, "kai", "config.yaml"), "w", encoding="utf-8") as file:
            file.write(f"ssh:\n  command: {self.ssh}\n  kai: {kai}\n")
        return {"XDG_CONFIG_HOME": config, "KAI_AUTHOR": "Bench <bench@example.invalid>"}

    def _kai(self, *words: str) -> None:
        self.meter.run(*program(), *words, cwd=self.source)

    def prepare(self) -> None:
        """Two homes."""
        for path in (self.source, self.far):
            kaivc.init(path, environ=self.meter.environ).close()
        self._kai("new", "bench")
        self._kai("remote", "add", "origin", f"ssh://far{self.far}")

    def commit(self, number: int) -> None:  # noqa: ARG002 - counts by itself
        """``kai commit``."""
        self._kai("commit", "bench")

    def push(self) -> None:
        """``kai push``."""
        self._kai("push", "bench")

    def clone(self) -> str:
        """``kai clone``."""
        self._kai("clone", f"ssh://far{self.far}", self.fresh)
        return os.path.join(self.fresh, "bench", "workspace")


class Git(Sender):
    """As it comes, over ssh."""

    name = "git"

    def environ(self) -> dict[str, str]:
        """The relay instead of ssh."""
        who = {f"GIT_{one}_{what}": "bench" for one in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return {"GIT_SSH_COMMAND": shlex.quote(self.ssh), "GIT_SSH_VARIANT": "simple", **who}

    def prepare(self) -> None:
        """A repository, and a bare one."""
        self.meter.run("git", "init", "--quiet", "--initial-branch=main", self.source)
        self.meter.run("git", "init", "--quiet", "--initial-branch=main", "--bare", self.far)
        for path in (self.source, self.far):
            self.meter.run("git", "config", "gc.auto", "0", cwd=path)
        self.meter.run("git", "remote", "add", "origin", f"ssh://far{self.far}", cwd=self.source)

    def commit(self, number: int) -> None:
        """``git add`` and ``git commit``."""
        self.meter.run("git", "add", "-A", cwd=self.source)
        self.meter.run("git", "commit", "--quiet", "-m", f"v{number}", cwd=self.source)

    def push(self) -> None:
        """``git push``."""
        self.meter.run("git", "push", "--quiet", "origin", "main", cwd=self.source)

    def clone(self) -> str:
        """``git clone``."""
        self.meter.run("git", "clone", "--quiet", f"ssh://far{self.far}", self.fresh)
        folders.remove(os.path.join(self.fresh, ".git"))
        return self.fresh


class Rsync(Sender):
    """Keeps no versions: the directory as it is now."""

    name = "rsync"

    def prepare(self) -> None:
        """Two directories."""
        os.mkdir(self.source)
        os.mkdir(self.far)

    def commit(self, number: int) -> None:
        """Nothing."""

    def push(self) -> None:
        """``rsync -a --inplace``, whose delta is by checksums of blocks."""
        words = ("-a", "-z", "--inplace", "--no-whole-file", "-e", self.ssh)
        self.meter.run("rsync", *words, f"{self.source}/", f"far:{self.far}/")

    def clone(self) -> str:
        """The other way."""
        self.meter.run("rsync", "-a", "-z", "-e", self.ssh, f"far:{self.far}/", f"{self.fresh}/")
        return self.fresh


class Restic(Sender):
    """``restic copy`` between two repositories of the same chunker; it always encrypts."""

    name = "restic"

    def environ(self) -> dict[str, str]:
        """The password of both."""
        cache = {"RESTIC_CACHE_DIR": os.path.join(self.place, "cache")}
        return {"RESTIC_PASSWORD": "bench", "RESTIC_FROM_PASSWORD": "bench", **cache}

    @property
    def _own(self) -> str:
        return os.path.join(self.place, "own")

    def prepare(self) -> None:
        """Two repositories."""
        os.mkdir(self.source)
        self.meter.run("restic", "--repo", self._own, "init", "--quiet")
        self._like(self.far)
        self._size = folders.room(self.far).apparent

    def _like(self, path: str) -> None:
        self.meter.run("restic", "--repo", path, "init", "--quiet", "--from-repo", self._own, "--copy-chunker-params")

    def commit(self, number: int) -> None:  # noqa: ARG002 - counts by itself
        """``restic backup``."""
        self.meter.run("restic", "--repo", self._own, "backup", "--quiet", ".", cwd=self.source)

    def push(self) -> None:
        """``restic copy``."""
        self.meter.run("restic", "--repo", self.far, "copy", "--quiet", "--from-repo", self._own)

    def clone(self) -> str:
        """``restic copy`` to a third one, and restore."""
        third = os.path.join(self.place, "third")
        self._like(third)
        self.meter.run("restic", "--repo", third, "copy", "--quiet", "--from-repo", self.far)
        self.meter.run("restic", "--repo", third, "restore", "--quiet", "--target", self.fresh, "latest")
        self._third = folders.room(third).apparent
        return self.fresh

    def sent(self) -> int:
        """What another repository grew by."""
        if os.path.exists(self.fresh) and (third := getattr(self, "_third", 0)):
            self._third = 0
            return int(third)
        before, self._size = self._size, folders.room(self.far).apparent
        return self._size - before


SENDERS: tuple[type[Sender], ...] = (Kai, Git, Rsync, Restic)


def run(size: str, place: str, say: Callable[[str], None]) -> dict[str, Any]:
    """For each size of the state, and each system, its three steps; ``left_out`` says why a peer has none.

    ``say`` hears how it goes.
    """
    found: dict[str, Any] = {}
    for number, length in enumerate(SIZES[size]):
        title = f"{length // MIB} MiB"
        cases = found[title] = {}
        for kind in SENDERS:
            began = time.monotonic()
            where = os.path.join(place, f"{kind.name}{number}")
            cases[kind.name] = (
                _case(kind, where, length) if shutil.which(_program(kind)) else _left_out("not installed")
            )
            folders.remove(where)
            say(f"transfer {title}: {kind.name}: {time.monotonic() - began:.0f} s")
        if "left_out" in cases["kai"]:
            found["failed"] = cases["kai"]["left_out"]
    return found


def _program(kind: type[Sender]) -> str:
    return program()[0] if kind is Kai else kind.name


def _left_out(why: str) -> dict[str, Any]:
    return {"left_out": " ".join(why.split())}


def _case(kind: type[Sender], place: str, length: int) -> dict[str, Any]:
    try:
        return _steps(kind(place), length)
    except ProgramFailed as error:
        return _left_out(str(error))


def _steps(sender: Sender, length: int) -> dict[str, Any]:
    sender.prepare()
    grow(sender.workspace, length)
    sender.commit(0)
    sender.sent()
    found = {"push": _step(sender, sender.push)}
    places: list[str] = []
    found["clone"] = _step(sender, lambda: places.append(sender.clone()))
    wrong = folders.difference(folders.contents(places[0]), folders.contents(sender.workspace, without=(".git",)))
    if wrong:
        return _left_out(f"gave back other bytes: {wrong}")
    edit(sender.workspace, length)
    sender.commit(1)
    sender.sent()
    found["push again"] = _step(sender, sender.push)
    return found


def _step(sender: Sender, act: Callable[[], None]) -> dict[str, Any]:
    with sender.meter.lap() as lap:
        act()
    return {"sent": sender.sent(), "wall": round(lap.wall, 3), "cpu": round(lap.cpu, 3), "peak": lap.peak}


def grow(workspace: str, length: int) -> None:
    """Half of the state is noise, as a matrix of vectors is, and half a log."""
    chance = random.Random(length)  # noqa: S311 - contents, not keys
    with open(os.path.join(workspace, "vectors.bin"), "wb") as file:
        file.writelines(chance.randbytes(MIB) for _ in range(length // 2 // MIB))
    with open(os.path.join(workspace, "log.jsonl"), "wb") as file:
        while file.tell() < length // 2:
            file.writelines(LINE % (chance.getrandbits(40), chance.randrange(999)) for _ in range(1000))


def edit(workspace: str, length: int) -> None:
    """A hundredth of the state gets other bytes, in so many runs."""
    chance, each = random.Random(length + 1), length // SHARE // RUNS  # noqa: S311 - as above
    with open(os.path.join(workspace, "vectors.bin"), "r+b") as file:
        for _ in range(RUNS):
            file.seek(chance.randrange(length // 2 - each))
            file.write(chance.randbytes(each))
