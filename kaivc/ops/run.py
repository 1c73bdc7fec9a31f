"""Run an agent in its workspace, under a lease."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

from kaivc import intents, leases, trees, versions
from kaivc.dirtree import DirTree
from kaivc.drift import drifted
from kaivc.errors import ChecksumMismatch, MissingSecret, NoEntry, TooLarge
from kaivc.manifest import Manifest, StateClass
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.roots import live_manifest
from kaivc.settings import SecretFile
from kaivc.trees import show

MAX_SECRET = 1 << 20


@dataclass(frozen=True)
class Ran:
    """A run that ended; a negative code is the signal that ended it."""

    agent: str
    version: str
    command: tuple[str, ...]
    exit_code: int


def run(repo: Repository, command: Sequence[str] = (), *, dirty: bool = False) -> Ran:
    """Run ``command``, or the manifest's entry, in the workspace.

    Raises ChecksumMismatch when a logic, config or lock file differs from ``current``, unless ``dirty``; NoEntry and
    MissingSecret; nothing ran then.
    """
    with ExitStack() as stack:
        with repo.lock():
            intents.finish(repo)  # a restore that was cut is finished before anything runs on it
            lease = stack.enter_context(leases.running(repo))
        version = versions.current(repo)
        if not dirty:
            _refuse_drift(repo)
        manifest = _manifest(repo)
        argv = tuple(command) or manifest.entry
        if not argv:
            raise NoEntry(
                f"nothing says how to run {repo.name}",
                hint="name an `entry` in kai.yaml, or give a command after --",
                agent=repo.name,
            )
        _bring_secrets(repo, manifest)
        return Ran(repo.name, version.tag, argv, _wait(repo, argv, lease))


def _refuse_drift(repo: Repository) -> None:
    found = drifted(repo)
    if found:
        some = "; ".join(f"{it.path}: {it.problem}" for it in found[:5])
        raise ChecksumMismatch(
            f"the workspace of {repo.name} is not what {found[0].versions[0]} says: {some}",
            unchanged="nothing ran",
            hint="commit it, bring it back with `kai restore`, or run it as it is with --dirty",
            problems=[it.path for it in found],
        )


def _manifest(repo: Repository) -> Manifest:
    fd = repo.vfs.open_dir(repo.workspace)
    try:
        return live_manifest(fd)
    finally:
        repo.vfs.close(fd)


def _wait(repo: Repository, argv: Sequence[str], lease: int) -> int:
    environ = {**repo.home.environ, "KAI_HOME": repo.layout.root, "KAI_AGENT": repo.name}
    try:
        child = subprocess.Popen(argv, cwd=repo.workspace, env=environ, pass_fds=(lease,))  # noqa: S603 - no shell
    except OSError as error:
        raise NoEntry(f"{argv[0]!r} cannot be run: {error.strerror}", hint="see `entry` in kai.yaml") from error
    with _passing_on(child):
        return child.wait()


@contextmanager
def _passing_on(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """The child decides what a signal to kai means."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    try:
        before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP)}
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both
    except ValueError:
        before = {}  # not in the main thread: signals are the caller's affair
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------- secrets


def _bring_secrets(repo: Repository, manifest: Manifest) -> None:
    """Write the secret files that are absent from where this machine keeps them."""
    version = versions.current(repo)
    root = os.fsencode(repo.workspace)
    for path in trees.flatten(repo.store, version.tree_oid):
        if manifest.state_class(path) is not StateClass.SECRET or os.path.lexists(os.path.join(root, path)):
            continue
        name = manifest.secret_name(path) or ""
        data = _secret(repo, name)
        if data is None:
            raise MissingSecret(
                f"the secret file {show(path)} is absent, and nothing says where {name} comes from",
                unchanged="nothing ran",
                hint=f"write the file, or name a source under `secrets: {name}:` in .kai/local.yaml",
                path=show(path),
                name=name,
            )
        _write(repo, path, data)


def _secret(repo: Repository, name: str) -> bytes | None:
    origin = repo.home.local.secrets.get(name)
    if origin is None:
        return None
    if isinstance(origin, SecretFile):
        try:
            with open(origin.path, "rb") as file:
                data = file.read(MAX_SECRET + 1)
        except OSError as error:
            raise MissingSecret(f"the source of {name} cannot be read: {error.strerror}", name=name) from error
        if len(data) > MAX_SECRET:
            raise TooLarge(f"the source of {name} has more than {MAX_SECRET} bytes", unchanged="nothing ran", name=name)
        return data
    value = repo.home.environ.get(origin.name)
    return None if value is None else os.fsencode(value)


def _write(repo: Repository, path: bytes, data: bytes) -> None:
    """Make the file, following no link out of the workspace."""
    with DirTree(repo.vfs, repo.workspace, repo.home.dir_mode) as tree:
        parent, name = tree.at(path, create=True)
        fd = repo.vfs.create(name, 0o600, at=parent)
        try:
            repo.vfs.write(fd, data)
        finally:
            repo.vfs.close(fd)
