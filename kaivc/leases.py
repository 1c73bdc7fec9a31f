"""Leases: who runs an agent, and how a running one is asked to hold still.

A lease is a shared lock on a file; the child that runs holds it too, so it ends with the last of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kaivc.errors import AgentBusy, CommandFailed
from kaivc.manifest import Manifest
from kaivc.repository import Repository

TIMEOUT = 120.0
POLL = 0.01
LOOKS = 5
SHOWN = 2000


@contextmanager
def running(repo: Repository) -> Iterator[int]:
    """Hold a lease while the agent runs; AgentBusy while a rollback is at work. Gives the lease's descriptor."""
    fd = _wait(repo, repo.layout.lease(repo.name))
    if fd is None:
        raise AgentBusy(f"a rollback of {repo.name} is at work", hint="run the command again", agent=repo.name)
    try:
        yield fd
    finally:
        os.close(fd)


def is_running(repo: Repository) -> bool:
    """Whether anything holds a lease; in a home that can only be read, as far as the lease can be looked at."""
    if repo.home.read_only:
        return _is_held(repo)
    fd = _keep_out(repo)
    if fd is not None:
        os.close(fd)
    return fd is None


def _is_held(repo: Repository) -> bool:
    """Whether the lease, if there is one, is held; nothing is made or written."""
    try:
        fd = os.open(repo.layout.lease(repo.name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        for _ in range(LOOKS):
            try:
                repo.vfs.flock(fd)
            except BlockingIOError:
                repo.home.sleep(POLL)
            else:
                return False
        return True
    finally:
        os.close(fd)


def _keep_out(repo: Repository) -> int | None:
    """The lease, for nobody else; None if a run holds it. A look at it by others passes in a moment."""
    repo.vfs.make_dirs(repo.layout.locks, repo.home.dir_mode)
    for _ in range(LOOKS):
        fd = repo.vfs.lock(repo.layout.lease(repo.name))
        if fd is not None:
            return fd
        repo.home.sleep(POLL)
    return None


@contextmanager
def kept_out(repo: Repository) -> Iterator[None]:
    """Let nothing run meanwhile; AgentBusy while something does, or a snapshot is under test."""
    fd = _keep_out(repo)
    if fd is None:
        raise AgentBusy(f"{repo.name} is running", unchanged="nothing moved", hint="stop it first", agent=repo.name)
    try:
        if is_testing(repo):
            what = f"a snapshot of {repo.name} is under test"
            raise AgentBusy(what, unchanged="nothing moved", hint="let it end, or stop it", agent=repo.name)
        yield
    finally:
        os.close(fd)


@contextmanager
def testing(repo: Repository) -> Iterator[None]:
    """Have a snapshot under test: the agent stays where it is, and so do its views. It holds no rollback up."""
    repo.vfs.make_dirs(repo.layout.locks, repo.home.dir_mode)
    fd = _wait(repo, repo.layout.testing(repo.name))
    if fd is None:
        raise AgentBusy(f"{repo.name} is being moved", hint="run the command again", agent=repo.name)
    try:
        yield
    finally:
        os.close(fd)


def _wait(repo: Repository, path: str) -> int | None:
    waited = 0.0
    while (fd := repo.vfs.lock(path, shared=True)) is None and waited < repo.settings.lock_wait:
        repo.home.sleep(POLL)
        waited += POLL
    return fd


def is_testing(repo: Repository) -> bool:
    """Whether a snapshot is under test; asked before something is done that it would not live through."""
    path = repo.layout.testing(repo.name)
    if not os.path.exists(path):
        return False
    fd = repo.vfs.lock(path)
    if fd is not None:
        os.close(fd)
    return fd is None


@contextmanager
def held_still(repo: Repository, manifest: Manifest, *, live: bool) -> Iterator[bool]:
    """Have no run in the way: keep new ones out, or ask the one that runs to pause; whether one was asked.

    Raises AgentBusy when one runs that has no ``quiesce`` command, unless ``live``.
    """
    fd = _keep_out(repo)
    try:
        if fd is not None or live:
            yield False
            return
        if manifest.quiesce is None:
            raise AgentBusy(
                f"{repo.name} is running",
                unchanged="nothing moved",
                hint="stop it, name a `quiesce` command in kai.yaml, or say --live",
                agent=repo.name,
            )
        with quiesced(repo, manifest):
            yield True
    finally:
        if fd is not None:
            os.close(fd)


@contextmanager
def quiesced(repo: Repository, manifest: Manifest) -> Iterator[None]:
    """Run ``quiesce`` before and ``resume`` after, come what may; CommandFailed says what either printed."""
    try:
        if manifest.quiesce is not None:
            command(repo, "quiesce", manifest.quiesce, "nothing moved")
        yield
    finally:
        if manifest.resume is not None:
            command(repo, "resume", manifest.resume, "what was asked is done; the agent may still be paused")


def command(repo: Repository, name: str, argv: tuple[str, ...], unchanged: str) -> None:
    """Run a command of the manifest in the workspace; CommandFailed unless it ends with 0 in time."""
    import subprocess  # noqa: PLC0415 - few manifests name one

    try:
        done = subprocess.run(  # noqa: S603 - the agent's own command, no shell
            argv,
            cwd=repo.workspace,
            env=dict(repo.home.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(
            f"the {name} command could not be run: {error}", unchanged=unchanged, command=list(argv)
        ) from error
    if done.returncode:
        said = done.stdout[-SHOWN:].decode("utf-8", "replace").strip()
        raise CommandFailed(
            f"the {name} command ended with {done.returncode}: {said}",
            unchanged=unchanged,
            hint=f"mend `{name}` in kai.yaml, or stop the agent and run the command again",
            command=list(argv),
        )
