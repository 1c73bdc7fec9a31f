"""Make what follows the catalog right again: views, the ``current`` link, ``rollback.log``. Nothing is deleted.

What stands in the way, or is not what the store says, goes to the quarantine; what replaces it is made from the store.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kaivc import inforce, inspection, leases, versions
from kaivc.dirtree import DirTree
from kaivc.errors import AgentBusy, ChecksumMismatch, KaiError, LockTimeout
from kaivc.findings import Finding
from kaivc.keeping import drop_directory
from kaivc.names import RefName, tags_prefix
from kaivc.quarantine import set_aside
from kaivc.repository import LOCK_POLL, OpenHome, Repository
from kaivc.storage.damage import Severity
from kaivc.vfs import unless_short
from kaivc.views import View

NAMED = 5


@contextmanager
def all_locked(home: OpenHome, names: Sequence[str]) -> Iterator[None]:
    """Be the one mover, and the one collector, of all these agents; LockTimeout after ``lock.wait`` for one of them."""
    held: list[int] = []
    shared = bool(os.stat(home.layout.kai).st_mode & stat.S_IWGRP)  # the catalog may not say
    home.vfs.group = shared
    home.vfs.make_dirs(home.layout.locks, 0o770 if shared else 0o700)
    try:
        for name in sorted(names):
            held.append(_locked(home, home.layout.collecting(name), name))
            held.append(_locked(home, home.layout.lock(name), name))
        yield
    finally:
        for fd in held:
            os.close(fd)


def _locked(home: OpenHome, path: str, name: str) -> int:
    waited = 0.0
    while (fd := home.vfs.lock(path)) is None:
        if waited >= home.settings.lock_wait:
            raise LockTimeout(
                f"another command has been at work on {name} for more than {home.settings.lock_wait:g} s",
                unchanged="nothing was repaired",
                hint="let it end, then run the command again",
                agent=name,
            )
        pause = LOCK_POLL * (0.5 + random.random())  # noqa: S311 - spreads waiters, guards nothing
        home.sleep(pause)
        waited += pause
    return fd


# ---------------------------------------------------------------- one agent


def follow(repo: Repository, quarantine: str) -> list[str]:
    """Views, link and log of one agent, as the catalog says; what was made anew, in words."""
    done = []
    for tag in _views(repo):
        done += [f"versions/{tag}"] if _mend(repo, tag, os.path.join(quarantine, "views", repo.name, tag)) else []
    if inspection.in_force(repo) and _link(repo, quarantine):
        done.append("current")
    if inspection.rollback_log(repo):
        _log(repo, os.path.join(quarantine, repo.name))
        done.append("rollback.log")
    return done


def needs_stillness(repo: Repository, found: Sequence[Finding]) -> None:
    """AgentBusy if the agent runs and something of it would be touched that it may be reading."""
    running, testing = leases.is_running(repo), leases.is_testing(repo)
    if (running or testing) and any(it.where in ("view", "link") for it in found):
        raise AgentBusy(
            f"{repo.name} is running" if running else f"a snapshot of {repo.name} is under test",
            unchanged="nothing was repaired",
            hint="stop it first",
            agent=repo.name,
        )


def _views(repo: Repository) -> list[str]:
    directory = repo.layout.versions(repo.name)
    there = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    known = {name.removeprefix(tags_prefix(repo.name)) for name in repo.refs(tags_prefix(repo.name))}
    return [name for name in there if name in known]


def _link(repo: Repository, quarantine: str) -> bool:
    """Let `current` point at the version in force; False if that has no view, and is too damaged to make one."""
    path = repo.layout.current(repo.name)
    if repo.current is None:
        set_aside(repo.vfs, path, os.path.join(quarantine, repo.name))
        return True
    if os.path.lexists(path) and not os.path.islink(path):
        set_aside(repo.vfs, path, os.path.join(quarantine, repo.name))
    try:
        inforce.link_current(repo, sync=True)
    except ChecksumMismatch:
        return False  # the other agents are repaired all the same; what is still wrong is said
    return True


def _mend(repo: Repository, tag: str, quarantine: str) -> bool:
    """Compare a view byte for byte, and make what is wrong anew; whether anything was."""
    path = repo.layout.view(repo.name, tag)
    try:
        version = versions.of_tag(repo, RefName(tags_prefix(repo.name) + tag))
        view = View(repo, version)
        if not view.exists():
            set_aside(repo.vfs, path, quarantine)
            view.build()
            return True
    except KaiError as error:
        unless_short(error)
        return False  # what it would be made from is damaged itself: it may be the last copy
    try:
        problems = view.check(full=True)
    except (KaiError, OSError) as error:
        unless_short(error)
        set_aside(repo.vfs, path, quarantine)
        drop_directory(repo, tag)
        view.build()
        return True
    if not problems:
        return False
    if any(not repo.store.contains(entry.oid) for entry in view.files.values()):
        return False
    _move_out(repo, path, [os.fsencode(it.path) for it in problems], quarantine)
    view.ensure(force=True)
    return True


def _move_out(repo: Repository, root: str, paths: Sequence[bytes], quarantine: str) -> None:
    """Give what is wrong in a view another name in the quarantine; a plain file stays until it is replaced."""
    vfs = repo.vfs
    with DirTree(vfs, root, 0o700) as tree:
        for path in paths:
            status = tree.stat(path)
            if status is None:
                continue
            target = os.path.join(os.fsencode(quarantine), path)
            vfs.make_dirs(os.fsdecode(os.path.dirname(target)))
            if os.path.lexists(target):
                continue
            parent, name = tree.at(path)
            vfs.chmod_fd(parent, 0o700)
            if stat.S_ISREG(status.st_mode):
                vfs.link(name, target, old_at=parent)
            else:
                tree.forget(path)
                vfs.rename(name, target, old_at=parent)


def _log(repo: Repository, quarantine: str) -> None:
    """``rollback.log`` from the reflog; one that says other things is kept."""
    path = repo.layout.rollback_log(repo.name)
    data = b"".join(inforce.log_lines(repo))
    if os.path.lexists(path) and not _is_beginning(path, data):
        set_aside(repo.vfs, path, quarantine)
    if data:
        repo.vfs.replace(path, data, 0o640 if repo.home.shared else 0o600)


def _is_beginning(path: str, data: bytes) -> bool:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return False
    with open(path, "rb") as file:
        there = file.read(len(data) + 1)
    return data.startswith(there)


def left_over(found: Sequence[Finding]) -> list[Finding]:
    """What is more than a note."""
    return [it for it in found if it.severity is not Severity.NOTE]
