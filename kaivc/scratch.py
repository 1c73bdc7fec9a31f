"""Where layers lie: one directory for each snapshot, in one for each user, in ``isolation.temp_dir``.

::

    TEMP_DIR/                 real; ours, or root's and sticky
      UID/                    0700, ours
        .kai-scratch          locked by whoever makes or collects
        ID/                   locked (flock) while a kai is at work on it
          layer/  lower/      what a sandbox writes; what it reads, where that is no view
          kept                a failed layer that waits until it is dropped
        ID.gone/              what is being removed, taken apart

What a stranger's program wrote lies here: 3,000 directories deep, closed with mode 0000. So no step recurses, and no
link is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from kaivc import trials
from kaivc.errors import IsolationFailed, StorageError
from kaivc.layout import find_home
from kaivc.names import snapshot_ref
from kaivc.records import dataclass, replace
from kaivc.repository import OpenHome, Repository
from kaivc.trials import Trial
from kaivc.vfs import Vfs

LOCK: Final = ".kai-scratch"
KEPT: Final = "kept"
GONE: Final = ".gone"
POLL = 0.01
_DIGITS = 6


@dataclass(frozen=True)
class Scratch:
    """The directory of one snapshot."""

    path: str

    @property
    def layer(self) -> str:
        """What the sandbox writes."""
        return f"{self.path}/layer"

    @property
    def lower(self) -> str:
        """What it reads, where that is no view."""
        return f"{self.path}/lower"

    @property
    def kept(self) -> str:
        """Says that the layer waits until it is dropped."""
        return f"{self.path}/{KEPT}"


def new_id(now_ns: int) -> str:
    """A name for a snapshot: when, and what nobody else has; as time goes on it grows."""
    from datetime import UTC, datetime  # noqa: PLC0415 - only who makes one needs it

    when = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime("%y%m%d-%H%M%S")
    return f"{when}-{os.urandom(_DIGITS).hex()[:_DIGITS]}"


# ---------------------------------------------------------------- the directories above


def place_for(home: OpenHome, temp_dir: str) -> str:
    """Give this user's directory in ``temp_dir``, made if it is not there; IsolationFailed if either is not safe."""
    above = find_home(os.path.realpath(temp_dir))
    _require(f"it lies in the home {above}" if above else "", temp_dir)
    if temp_dir != home.settings.isolation.temp_dir:
        _require(_why_not_common(temp_dir), temp_dir)
    # Made by root it is for all users, as /tmp is; else the directory of one.
    _make(home.vfs, temp_dir, 0o1777 if os.geteuid() == 0 else 0o700)
    _require(_why_unsafe(temp_dir), temp_dir)
    path = own_place(temp_dir)
    _make(home.vfs, path, 0o700)
    _require(_why_not_mine(path), path)
    return path


def own_place(temp_dir: str) -> str:
    """What this user's directory in ``temp_dir`` is called."""
    return os.path.join(temp_dir, str(os.geteuid()))


def _make(vfs: Vfs, path: str, mode: int) -> None:
    if os.path.lexists(path):
        return
    above = os.path.dirname(path)
    _require("" if os.path.isdir(above) else f"there is no directory {above}", path)
    vfs.make_dir(path)
    _set_mode(vfs, path, mode)


def _set_mode(vfs: Vfs, path: str, mode: int) -> None:
    fd = vfs.open_dir(path)
    try:
        vfs.chmod_fd(fd, mode)
    finally:
        os.close(fd)


def _require(why: str, path: str) -> None:
    if why:
        raise IsolationFailed(
            f"layers cannot lie in {path}: {why}",
            unchanged="nothing ran",
            hint="name a directory of your own with `isolation.temp_dir` in the home's or the user's config, or have"
            " root make this one with mode 1777",
            guard="temp_dir",
            path=path,
            why=why,
        )


def _why_not_common(path: str) -> str:
    """What a manifest names, which may be a stranger's, is a place where anybody may write."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return ""
    return "kai.yaml may only name a directory that is sticky, as /tmp is, or one to be made in such a directory"


def _why_unsafe(path: str) -> str:
    try:
        status = os.lstat(path)
    except OSError as error:
        return str(error.strerror)
    if not stat.S_ISDIR(status.st_mode):
        return "it is a symbolic link" if stat.S_ISLNK(status.st_mode) else "it is no directory"
    others_write = status.st_mode & 0o022
    sticky = status.st_mode & stat.S_ISVTX
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {status.st_uid}"
    if status.st_uid == 0 != os.geteuid() and not sticky:
        return "it is root's, and not sticky"
    return "others may write in it, and it is not sticky" if others_write and not sticky else ""


def _why_not_mine(path: str) -> str:
    try:
        status = os.lstat(path)
    except OSError as error:
        return str(error.strerror)
    if not stat.S_ISDIR(status.st_mode):
        return "it is a symbolic link" if stat.S_ISLNK(status.st_mode) else "it is no directory"
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}"
    return "others may look into it" if stat.S_IMODE(status.st_mode) & 0o077 else ""


# ---------------------------------------------------------------- one snapshot


@contextmanager
def made(home: OpenHome, place: str, name: str) -> Iterator[Scratch]:
    """Make a snapshot's directory in this user's place, and be at work on it; what is not kept then goes."""
    vfs = home.vfs
    scratch = Scratch(os.path.join(place, name))
    with _alone(home, place):
        vfs.make_dir(scratch.path)
        _set_mode(vfs, scratch.path, 0o700)
        held = vfs.open_dir(scratch.path)
        try:
            _lock(home, held)
        except BaseException:
            os.close(held)
            raise
    try:
        vfs.make_dir(scratch.layer)
        _set_mode(vfs, scratch.layer, 0o700)
        yield scratch
    finally:
        try:
            if not os.path.lexists(scratch.kept):
                with suppress(StorageError, OSError):  # the next one collects it
                    remove(vfs, scratch.path)
        finally:
            os.close(held)


def _lock(home: OpenHome, fd: int) -> None:
    """A look by others at whether it is locked passes in a moment."""
    while True:
        try:
            return home.vfs.flock(fd)
        except BlockingIOError:
            home.sleep(POLL)


def keep(home: OpenHome, scratch: Scratch) -> None:
    """Let a layer stay until it is dropped."""
    home.vfs.replace(scratch.kept, home.id.encode())


def is_at_work(path: str, vfs: Vfs) -> bool:
    """Whether a kai is at work on a snapshot's directory, as far as this user can tell."""
    try:
        fd = vfs.open_dir(path)
    except StorageError:
        return False
    try:
        vfs.flock(fd, shared=True)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@contextmanager
def _alone(home: OpenHome, place: str) -> Iterator[None]:
    """Be the only one who makes or collects in a place."""
    path = os.path.join(place, LOCK)
    while (fd := home.vfs.lock(path)) is None:
        home.sleep(POLL)
    try:
        yield
    finally:
        os.close(fd)


# ---------------------------------------------------------------- removing


def remove(vfs: Vfs, path: str) -> None:
    """Remove a directory and all in it, however deep and closed: it is taken apart level by level."""
    bin_ = path + GONE
    if os.path.lexists(path):
        vfs.make_dir(bin_)
        vfs.rename(path, os.path.join(bin_, _free_name(bin_)))
    if not os.path.lexists(bin_):
        return
    fd = vfs.open_dir(bin_)
    try:
        vfs.flock(fd)
        _empty(vfs, fd)
        vfs.remove_dir(bin_)
    except BlockingIOError:
        return  # another kai is at it
    finally:
        os.close(fd)


def _free_name(directory: str | int) -> str:
    numbers = (int(name) for name in os.listdir(directory) if name.isdecimal() and name.isascii())
    return str(max(numbers, default=0) + 1)


def _empty(vfs: Vfs, bin_: int) -> None:
    """Take what lies in a bin apart: a directory's directories move up, and it goes."""
    number = int(_free_name(bin_))
    while names := os.listdir(bin_):
        for name in names:
            if not stat.S_ISDIR(os.stat(name, dir_fd=bin_, follow_symlinks=False).st_mode):
                vfs.unlink(name, bin_)
                continue
            inner = vfs.open_mine(name, bin_, directory=True)
            try:
                for entry in os.listdir(inner):
                    number += _take(vfs, entry, inner, bin_, number)
            finally:
                os.close(inner)
            vfs.remove_dir(name, bin_)


def _take(vfs: Vfs, name: str, at: int, bin_: int, number: int) -> bool:
    """Remove a file, or move a directory into the bin; whether the number is used up."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
        vfs.unlink(name, at)
        return False
    os.close(vfs.open_mine(name, at, directory=True))  # a closed directory cannot be moved
    vfs.rename(name, str(number), at, bin_)
    return True


# ---------------------------------------------------------------- left-overs


def collect(home: OpenHome) -> list[str]:
    """Remove what a killed kai left, of this user's: layers that nobody is at work on, and their records.

    A layer that is kept stays while a record says so. What cannot be removed is left for the next time. The paths.
    """
    if home.read_only:
        return []
    agents = [home.repository(name) for name in home.catalog.agent_names()]
    known = {(repo.name, it.id): it for repo in agents for it in trials.every(home.layout, repo.name) if _is_mine(it)}
    places = {own_place(home.settings.isolation.temp_dir)}
    places |= {os.path.dirname(it.scratch) for it in known.values() if it.scratch}
    kept = {it.scratch for it in known.values() if not it.is_open}
    removed: list[str] = []
    for place in sorted(places):
        with suppress(StorageError, OSError):
            removed += _collect(home, place, kept)
    for (agent, _), trial in known.items():
        with suppress(StorageError, OSError):
            _settle(home.repository(agent), trial)
    return removed


def _is_mine(trial: Trial) -> bool:
    if trial.uid != os.geteuid():
        return False
    return trial.scratch is None or (
        os.path.basename(trial.scratch) == trial.id
        and os.path.basename(os.path.dirname(trial.scratch)) == str(trial.uid)
    )


def _collect(home: OpenHome, place: str, kept: set[str | None]) -> list[str]:
    if _why_unsafe(os.path.dirname(place)) or _why_not_mine(place) or not os.path.lexists(os.path.join(place, LOCK)):
        return []
    with _alone(home, place):
        paths = [os.path.join(place, name) for name in sorted(os.listdir(place)) if name != LOCK]
        left_over = [path for path in paths if _is_left_over(home, path, kept)]
    removed = []
    for path in left_over:  # whoever was at work on it is dead: nobody else takes it up
        with suppress(StorageError, OSError):
            remove(home.vfs, path.removesuffix(GONE))
            removed.append(path)
    return removed


def _is_left_over(home: OpenHome, path: str, kept: set[str | None]) -> bool:
    """Whether nobody is at work on it, or waits for it; the kept layers of another home are that home's affair."""
    if is_at_work(path, home.vfs):
        return False
    scratch = Scratch(path)
    if path.endswith(GONE) or not os.path.lexists(scratch.kept):
        return True
    return path not in kept and _home_of(scratch) == home.id


def _home_of(scratch: Scratch) -> str:
    try:
        with open(scratch.kept, encoding="ascii") as file:
            return file.read(64)
    except (OSError, ValueError):
        return ""


def _settle(repo: Repository, trial: Trial) -> None:
    """Let a record say what is: a trial without a layer and without a branch never was."""
    now = trials.read(repo.layout, repo.name, trial.id)
    if now != trial or (trial.scratch and os.path.lexists(trial.scratch)):
        return
    if repo.ref(snapshot_ref(repo.name, trial.id)) is None:
        trials.remove(repo.vfs, repo.layout, repo.name, trial.id)
    elif trial.scratch or trial.is_open:
        done = replace(trial, scratch=None, status=trials.Status.PASSED.value)
        trials.write(repo.vfs, repo.layout, repo.name, done)
