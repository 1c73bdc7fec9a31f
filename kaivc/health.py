"""How a home is: a table of checks, each one function.

To add a check is to add a function and its line in ``CHECKS``. Nothing is changed; what the disk can do is tried in
scratch of its own, which goes again.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence

from kaivc import mounts, settings, standing, trees, versions
from kaivc.errors import KaiError, StorageFailed
from kaivc.machine import PROBLEM, WARNING, Found, Line, ok, told
from kaivc.records import dataclass, values
from kaivc.repository import OpenHome, Repository
from kaivc.roots import live_manifest
from kaivc.settings import Layer, SecretFile, Settings
from kaivc.vfs import Vfs

LITTLE = 64 << 20
FEW_FILES = 1000
MINUTE_NS = 60_000_000_000
NAMED = 5


@dataclass(frozen=True)
class Patient:
    """A home, and the texts that its settings come from, the nearest last."""

    home: OpenHome
    layers: Sequence[Layer]

    def agents(self) -> Iterator[Repository]:
        """All agents that live."""
        for name in self.home.catalog.agent_names():
            yield self.home.repository(name)


def check(patient: Patient) -> Iterator[Line]:
    """All checks of a home."""
    for name, found in CHECKS.items():
        yield from told(name, lambda found=found: found(patient))  # type: ignore[misc]


# ---------------------------------------------------------------- the home and its settings


def _home(it: Patient) -> Found:
    home = it.home
    shared = ", shared with the group" if home.shared else ""
    yield ok(f"{home.layout.root}: format {home.meta['format']}, {home.format.name}{shared}, id {home.id}")


def _settings(it: Patient) -> Found:
    """What differs from the defaults, and from where: the nearest text that sets it."""
    default, said = Settings(), 0
    for name, usual in values(default).items():
        if name == "isolation":
            continue
        source = next((layer.source for layer in reversed(it.layers) if name in layer.values), None)
        value = getattr(it.home.settings, name)
        if source is not None and value != usual:
            said += 1
            yield ok(f"{_key(name)} is {_shown(value)}, from {source}")
    for name in sorted(it.home.settings.isolation.given):
        source = next((layer.source for layer in reversed(it.layers) if name in layer.isolation.given), "")
        value = getattr(it.home.settings.isolation, name)
        if value != getattr(default.isolation, name):
            said += 1
            yield ok(f"isolation.{name} is {_shown(value)}, from {source}")
    if not said:
        yield ok("as the defaults are")


def _key(name: str) -> str:
    return next(key for key in settings.READERS if key.replace(".", "_") == name)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _secrets(it: Patient) -> Found:
    """The sources of secrets that local.yaml names, never their values."""
    sources = it.home.local.secrets
    for name, origin in sorted(sources.items()):
        if not isinstance(origin, SecretFile):
            if origin.name not in it.home.environ:
                yield WARNING, f"{name} comes from the variable {origin.name}, which is not set", "set it for `kai run`"
            continue
        try:
            mode = os.stat(origin.path).st_mode
        except OSError as error:
            yield (
                WARNING,
                f"{name} comes from {origin.path}: {error.strerror}",
                "bring the file, or name another source",
            )
            continue
        if mode & 0o077:
            what = f"{origin.path}, where {name} comes from, has mode {stat.S_IMODE(mode):04o}: others may have it"
            yield PROBLEM if mode & 0o007 else WARNING, what, f"chmod 600 {origin.path}"
    yield ok(f"{len(sources)} named in {it.home.layout.local}")


# ---------------------------------------------------------------- where it lies


def _file_system(it: Patient) -> Found:
    mount = mounts.of(it.home.layout.kai, mounts.every())
    if mount is None:
        yield ok("of a kind that is not told here")
    elif mount.is_network:
        yield (
            WARNING,
            f"{mount.kind}: the catalog's log wants a local disk; two machines at once can damage it",
            "keep the home on a local disk",
        )
    elif mount.kind in mounts.FORGETFUL:
        yield WARNING, f"{mount.kind}: all of it is gone when the machine stops", "keep the home on a disk"
    else:
        yield ok(f"{mount.kind}, mounted at {os.fsdecode(mount.point)}")


def _one_disk(it: Patient) -> Found:
    """A restore renames files from the home into the workspace."""
    known = mounts.every()
    kai = it.home.layout.kai
    apart = 0
    for repo in it.agents():
        try:
            places = {repo.workspace, it.home.layout.agent(repo.name)}
        except KaiError:
            continue  # said by the check of workspaces
        for place in sorted(place for place in places if os.path.isdir(place)):
            if os.stat(place).st_dev != os.stat(kai).st_dev or mounts.of(place, known) != mounts.of(kai, known):
                apart += 1
                yield (
                    PROBLEM,
                    f"{place} lies on another mount than {kai}: no file can be renamed there, so no rollback works",
                    f"move it to the disk of the home, or link another with `kai agent link {repo.name} DIR`",
                )
    if not apart:
        yield ok("the home and its workspaces lie on one mount")


def _can_do(it: Patient) -> Found:
    """What the disk can do, done in scratch."""
    if it.home.read_only:
        yield (
            WARNING,
            f"not tried, for the home can only be read: {it.home.catalog.obstacle}",
            "ask its owner to run this",
        )
        return
    vfs = it.home.vfs
    vfs.make_dirs(it.home.layout.tmp, it.home.dir_mode)
    place = os.path.join(it.home.layout.tmp, f"doctor-{secrets.token_hex(8)}")
    vfs.make_dir(place)
    failed = 0
    try:
        for name, attempt in ATTEMPTS.items():
            try:
                attempt(vfs, place)
            except (StorageFailed, OSError) as error:
                failed += 1
                why = error.what if isinstance(error, KaiError) else str(error)
                yield PROBLEM, f"{name} does not work: {why}", "keep the home on a disk that can, such as ext4 or xfs"
    finally:
        vfs.remove_tree(place)
    if not failed:
        yield ok(", ".join(ATTEMPTS) + " work")


def _write(vfs: Vfs, path: str) -> None:
    fd = vfs.create(path)
    try:
        vfs.write(fd, b"kai")
        vfs.sync(fd)
    finally:
        vfs.close(fd)


def _link(vfs: Vfs, place: str) -> None:
    vfs.link(os.path.join(place, "file"), os.path.join(place, "linked"))
    if os.stat(os.path.join(place, "file")).st_nlink != 2:  # noqa: PLR2004 - two names
        raise StorageFailed("the second name is another file")


def _rename(vfs: Vfs, place: str) -> None:
    _write(vfs, os.path.join(place, "new"))
    vfs.rename(os.path.join(place, "new"), os.path.join(place, "file"))


def _lock(vfs: Vfs, place: str) -> None:
    path = os.path.join(place, "lock")
    one = vfs.lock(path)
    if one is None:
        raise StorageFailed("nobody holds the lock, and it is not to be had")
    try:
        two = vfs.lock(path)
        if two is not None:
            os.close(two)
            raise StorageFailed("two held one lock")
    finally:
        os.close(one)


ATTEMPTS: Mapping[str, Callable[[Vfs, str], None]] = {
    "fsync": lambda vfs, place: _write(vfs, os.path.join(place, "file")),
    "hard links": _link,
    "rename": _rename,
    "symbolic links": lambda vfs, place: vfs.swap_link("file", os.path.join(place, "symlink"), sync=False),
    "locks": _lock,
    "fsync of directories": lambda vfs, place: vfs.sync_dir(place),
}


def _space(it: Patient) -> Found:
    """Against what the next rollback of the largest agent may write: a backup, and every file anew."""
    found = os.statvfs(it.home.layout.kai)
    free, files = found.f_bavail * found.f_frsize, found.f_favail
    need = max((2 * _size(repo) for repo in it.agents()), default=0) + LITTLE
    what = f"{_mib(free)} free; a rollback may need {_mib(need)}"
    if it.home.read_only:
        yield ok(f"{_mib(free)} free")
    elif free < LITTLE:
        yield PROBLEM, what, "free some space, or see what `kai gc --dry-run` would give back"
    elif free < need:
        yield WARNING, what, "free some space, or see what `kai gc --dry-run` would give back"
    elif found.f_files and files < FEW_FILES:
        yield WARNING, f"{files} files more fit on the disk", "remove files there"
    else:
        yield ok(what)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def _size(repo: Repository) -> int:
    oid = repo.current
    if oid is None:
        return 0
    files = trees.flatten(repo.store, versions.describe(repo, oid).tree_oid)
    return sum(repo.store.size(entry.oid) for entry in files.values())


def _permissions(it: Patient) -> Found:
    home = it.home
    allowed = 0o770 if home.shared else 0o700
    said = 0
    for path in (home.layout.kai, home.layout.catalog, home.layout.packs, home.layout.config, home.layout.local):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o777 & ~allowed & 0o022:
            said += 1
            yield PROBLEM, f"{path} has mode {mode:04o}: others may change what kai keeps", f"chmod o-rwx,g-w {path}"
        elif mode & 0o777 & ~allowed & 0o044 and path == home.layout.kai:
            said += 1
            yield WARNING, f"{path} has mode {mode:04o}: others may read every version", f"chmod {allowed:o} {path}"
        if status.st_uid != os.geteuid() and not home.shared:
            said += 1
            what = f"{path} belongs to uid {status.st_uid}, and this is uid {os.geteuid()}"
            yield WARNING, what, "let one user run kai, or make the home with `kai init --shared group`"
    if home.read_only:
        said += 1
        yield WARNING, f"the home can only be read: {home.catalog.obstacle}", "commands that write need a user who may"
    if not said:
        yield ok("closed to others")


# ---------------------------------------------------------------- what is in it


def _workspaces(it: Patient) -> Found:
    """Each is there, and its manifest can be read."""
    count = linked = 0
    for repo in it.agents():
        count += 1
        linked += repo.name in it.home.local.workspaces
        yield from _workspace(repo)
    yield ok(f"those of {count} agents; {linked} linked from elsewhere")


def _workspace(repo: Repository) -> Found:
    try:
        fd = repo.vfs.open_dir(repo.workspace)
        try:
            live_manifest(fd)
        finally:
            repo.vfs.close(fd)
    except KaiError as error:
        yield PROBLEM, f"{repo.name}: {error.what}", error.hint
    try:
        oid = repo.current
        if oid is not None:
            versions.manifest_of(repo, versions.describe(repo, oid).tree_oid)
    except KaiError as error:
        yield PROBLEM, f"{repo.name}, the version in force: {error.what}", error.hint or f"see `kai verify {repo.name}`"


def _left_to_do(it: Patient) -> Found:
    said = 0
    for repo in it.agents():
        pending = standing.pending(repo)
        if pending or not standing.is_linked(repo):
            said += 1
            what = ", ".join(pending) or "the link `current`"
            yield (
                WARNING,
                f"{repo.name}: a command was cut; left to be done: {what}",
                f"the next command that writes does it, such as `kai commit {repo.name}`",
            )
    if not said:
        yield ok("nothing")


def _scratch(it: Patient) -> Found:
    """What cut commands left; some of it may be of one that runs now."""
    layout = it.home.layout
    busy = {repo.name for repo in it.agents() if standing.pending(repo)}
    left = _listed(layout.tmp, lambda name: name != "clock")
    left += _listed(layout.root, lambda name: name.startswith((".new-", ".kai-new-")))
    for repo in it.agents():
        left += _listed(layout.versions(repo.name), lambda name: name.startswith((".new-", ".old-")))
        if repo.name not in busy:
            left += _listed(layout.staging(repo.name)) + _listed(layout.displaced(repo.name))
    if left:
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        yield (
            WARNING,
            f"left by commands that were cut, or used by one that runs: {', '.join(left[:NAMED])}{more}",
            "the next command that writes clears an agent's own; while no command runs, the rest can be removed",
        )
    else:
        yield ok("nothing left")


def _listed(path: str, wanted: Callable[[str], bool] = bool) -> list[str]:
    try:
        return [os.path.join(path, name) for name in sorted(os.listdir(path)) if wanted(name)]
    except FileNotFoundError:
        return []


def _time(it: Patient) -> Found:
    row = it.home.catalog.row("SELECT max(time_ns) FROM reflog")
    newest = row[0] if row else None
    now = it.home.clock.now_ns()
    if not isinstance(newest, int | None):
        yield PROBLEM, "the log holds a time that is no number", "`kai fsck` says what is damaged"
    elif newest is not None and newest > now + MINUTE_NS:
        ahead = (newest - now) // 1_000_000_000
        yield WARNING, f"the newest operation is dated {ahead} s ahead of the clock", "set the clock"
    else:
        yield ok("no operation is dated ahead of the clock")


CHECKS: Mapping[str, Callable[[Patient], Found]] = {
    "home": _home,
    "settings": _settings,
    "secrets": _secrets,
    "file system": _file_system,
    "one disk": _one_disk,
    "abilities": _can_do,
    "space": _space,
    "permissions": _permissions,
    "workspaces": _workspaces,
    "left to do": _left_to_do,
    "scratch": _scratch,
    "times": _time,
}
