"""A tree of version folders, read as a value and never written to.

::

    DIR/versions/vX.Y.Z/...                    the files of a version; the v may be absent
    DIR/versions/vX.Y.Z/snapshot_meta.json     what it says of itself, optional
    DIR/current                                a link, a text or a folder that names a version; else the highest
    DIR/workspace/...                          the live files, optional

It is what a home shows of an agent, and what others keep by hand. All of it is hostile until checked; InvalidLayout
names the file and the key.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from kaivc.errors import InvalidLayout, InvalidName, UnreadablePath
from kaivc.layout import META_FILE
from kaivc.names import Version, nearest
from kaivc.records import dataclass, replace
from kaivc.storage.gitobjects import LAST_SECOND
from kaivc.trees import show
from kaivc.versions import SNAPSHOT_TYPES, check_notes

META = META_FILE.decode()
MAX_META = 256 << 10
MAX_CURRENT = 4096
NAMED = 6
"""How many paths a message names."""
EXPECTED = frozenset(["versions", "current", "workspace", "snapshot_temp"])
SCRATCH = (".new-", ".old-")

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,]\d{1,12})?([Zz]|[+-]\d\d:\d\d)?\Z", re.ASCII)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Meta:
    """What a ``snapshot_meta.json`` says; None and empty where it says nothing. ``created`` in whole seconds UTC."""

    created: int | None = None
    zoned: bool = True
    commit_hash: str | None = None
    parent: Version | None = None
    names_parent: bool = False
    snapshot_type: str | None = None
    notes: str = ""
    agent_state_checksum: str | None = None
    config_checksum: str | None = None


@dataclass(frozen=True)
class Folder:
    """The folder of one version; ``meta`` is None where it has no ``snapshot_meta.json``."""

    version: Version
    name: str
    path: str
    meta: Meta | None
    parent: Version | None

    @property
    def meta_path(self) -> str:
        """Where it says what it is."""
        return os.path.join(self.path, META)


@dataclass(frozen=True)
class FolderTree:
    """A whole tree; ``folders`` with parents before children."""

    path: str
    folders: tuple[Folder, ...]
    current: Folder
    workspace: str | None
    notices: tuple[str, ...]


def wrong(path: str, key: str, problem: str, hint: str = "", **facts: object) -> InvalidLayout:
    """The error for a tree that cannot be imported: the file, the key in it (or none), and what is wrong."""
    where = show(os.fsencode(path))
    return InvalidLayout(
        f"{where}: {key} {problem}" if key else f"{where} {problem}",
        unchanged="nothing was imported",
        hint=hint,
        file=where,
        key=key or None,
        **facts,
    )


def read_folders(directory: str) -> FolderTree:
    """The tree at ``directory``; InvalidLayout or UnreadablePath otherwise."""
    if not directory:  # as an unset variable of a shell gives it: not the working directory
        raise InvalidLayout(
            "an empty path names no directory", unchanged="nothing was imported", hint="'.' is the working directory"
        )
    path = os.path.abspath(directory)
    notices: list[str] = []
    found = _versions(os.path.join(path, "versions"), notices)
    numbers = sorted(found)
    below = dict(zip(numbers, [None, *numbers], strict=False))
    folders = [_with_parent(_folder(number, found[number]), below) for number in numbers]
    by_version = {folder.version: folder for folder in folders}
    current = _current(os.path.join(path, "current"), by_version)
    notices += _beside(path)
    notices += [f"{it.name}: created has no zone: taken as UTC" for it in folders if it.meta and not it.meta.zoned]
    return FolderTree(path, tuple(_in_order(by_version)), current, _workspace(path), tuple(notices))


# ---------------------------------------------------------------- what lies where


def _listing(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except NotADirectoryError as error:
        raise wrong(path, "", "is no directory") from error
    except FileNotFoundError as error:
        raise wrong(path, "", "is not there", "name a directory that holds `versions/vX.Y.Z/`") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> UnreadablePath:
    where = show(os.fsencode(path))
    return UnreadablePath(
        f"{where} cannot be read: {error.strerror}",
        unchanged="nothing was imported",
        hint="give this user the right to read it",
        path=where,
    )


def _versions(path: str, notices: list[str]) -> dict[Version, str]:
    if os.path.islink(path):
        raise wrong(path, "", "is a symbolic link", "copy the folders, or name the directory that holds them")
    found: dict[Version, str] = {}
    junk: list[str] = []
    for entry in _listing(path):
        if entry.name.startswith(SCRATCH):
            continue  # what a cut command of kaivc left
        if entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
            notices.append(f"versions/{show(os.fsencode(entry.name))} is no version: left out")
            continue
        version = _number(entry.name) if entry.is_dir(follow_symlinks=False) else None
        if version is None:
            junk.append(show(os.fsencode(entry.name)))
        elif version in found:
            raise wrong(entry.path, "", f"is version {version}, as {os.path.basename(found[version])} is")
        else:
            found[version] = entry.path
    if junk:
        more = f" and {len(junk) - NAMED} more" if len(junk) > NAMED else ""
        raise wrong(
            path,
            "",
            f"holds what is no folder of a version: {', '.join(junk[:NAMED])}{more}",
            "name folders as vX.Y.Z, and move everything else away; --dry-run says whether all is well",
            junk=junk[:100],
        )
    if not found:
        raise wrong(path, "", "holds no folder of a version", "name them as vX.Y.Z")
    return found


def _number(name: str) -> Version | None:
    try:
        return Version.parse(name)
    except InvalidName:
        return None


def _beside(path: str) -> Iterator[str]:
    extra = [entry.name for entry in _listing(path) if entry.name not in EXPECTED]
    if "rollback.log" in extra:
        extra.remove("rollback.log")
        yield "rollback.log is left out: the agent's log begins with the import"
    if extra:
        more = f" and {len(extra) - NAMED} more" if len(extra) > NAMED else ""
        yield "left out: " + ", ".join(show(os.fsencode(it)) for it in extra[:NAMED]) + more


def _workspace(path: str) -> str | None:
    workspace = os.path.join(path, "workspace")
    if not os.path.lexists(workspace):
        return None
    if os.path.islink(workspace) or not os.path.isdir(workspace):
        raise wrong(workspace, "", "is no plain directory", "copy the live files there, or move it away")
    return workspace


# ---------------------------------------------------------------- current


def _current(path: str, folders: Mapping[Version, Folder]) -> Folder:
    if not os.path.lexists(path):
        return folders[max(folders)]
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            text = os.readlink(path)
        elif stat.S_ISDIR(mode):  # a copy that followed the link
            text = str(_object(os.path.join(path, META)).get("version"))
        else:
            text = _read(path, MAX_CURRENT).decode("utf-8", "backslashreplace").strip()
    except FileNotFoundError as error:
        raise wrong(path, "", f"is a directory without a {META} that says which version it is") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    above, _, name = text.rstrip("/").rpartition("/")
    version = _number(name)
    if version is None or version not in folders or (above and os.path.basename(above) != "versions"):
        known = [it.name for it in folders.values()]
        close = nearest(name, known) or known[-3:]
        raise wrong(
            path, "", f"names {show(os.fsencode(text))[:80]!r}, which is no version here: {', '.join(close)} are"
        )
    return folders[version]


# ---------------------------------------------------------------- snapshot_meta.json


def _read(path: str, limit: int) -> bytes:
    """A small plain file, no link followed; FileNotFoundError passes through."""
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        raise
    except OSError as error:
        if os.path.islink(path):
            raise wrong(path, "", "is a symbolic link, where a plain file should be") from error
        raise _unreadable(path, error) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise wrong(path, "", "is no plain file")
        if status.st_size > limit:
            raise wrong(path, "", f"has {status.st_size} bytes, and {limit} at most are read")
        return os.pread(fd, limit, 0)
    finally:
        os.close(fd)


def _object(path: str) -> dict[str, Any]:
    """The one JSON object that a file holds."""
    data = _read(path, MAX_META)
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        what = "is nested too deep" if isinstance(error, RecursionError) else f"is no JSON: {error}"
        raise wrong(path, "", what) from error
    if not isinstance(value, dict):
        raise wrong(path, "", "holds no JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value")


def _folder(version: Version, path: str) -> Folder:
    name = os.path.basename(path)
    meta = os.path.join(path, META)
    if not os.path.lexists(meta):
        return Folder(version, name, path, None, None)
    return Folder(version, name, path, _Reader(meta, _object(meta)).meta(version), None)


class _Reader:
    """Reads the known keys of one object; unknown ones are let be."""

    def __init__(self, path: str, values: Mapping[str, Any]) -> None:
        self._path = path
        self._values = values

    def meta(self, version: Version) -> Meta:
        if "version" in self._values and self._version("version") != version:
            raise self._wrong("version", f"says {self._shown('version')}, and the folder is that of {version}")
        created, zoned = self._created()
        return Meta(
            created=created,
            zoned=zoned,
            commit_hash=self._text("commit_hash"),
            parent=self._version("parent"),
            names_parent="parent" in self._values,
            snapshot_type=self._snapshot_type(),
            notes=self._notes(),
            agent_state_checksum=self._text("agent_state_checksum"),
            config_checksum=self._text("config_checksum"),
        )

    def _wrong(self, key: str, problem: str, hint: str = "") -> InvalidLayout:
        return wrong(self._path, key, problem, hint)

    def _shown(self, key: str) -> str:
        return show(repr(self._values[key])[:80].encode("utf-8", "backslashreplace"))

    def _text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, f"must be text, not {self._shown(key)}")
        return value

    def _version(self, key: str) -> Version | None:
        text = self._text(key)
        if text is None:
            return None
        try:
            return Version.parse(text)
        except InvalidName as error:
            raise self._wrong(key, f"is no version number: {self._shown(key)}", error.hint) from error

    def _created(self) -> tuple[int | None, bool]:
        text = self._text("created")
        if text is None:
            return None, True
        match = _TIME.match(text)
        try:
            if match is None:
                raise ValueError("no time")  # noqa: TRY301 - one way out for all that is none
            zone = match[3] or "Z"
            offset = "+00:00" if zone in "Zz" else zone
            leap = match[2].endswith(":60")
            clock = f"{match[2][:-2]}59" if leap else match[2]
            seconds = int(datetime.fromisoformat(f"{match[1]}T{clock}{offset}").astimezone(UTC).timestamp()) + leap
        except (ValueError, OverflowError) as error:
            raise self._wrong(
                "created", f"is no time: {self._shown('created')}", "write 2026-11-01T12:00:00Z"
            ) from error
        if not 0 <= seconds <= LAST_SECOND:
            raise self._wrong("created", f"is before 1970: {self._shown('created')}")
        return seconds, match[3] is not None

    def _snapshot_type(self) -> str | None:
        value = self._text("snapshot_type")
        if value is not None and value not in SNAPSHOT_TYPES:
            raise self._wrong("snapshot_type", f"is {self._shown('snapshot_type')}", f"use {', '.join(SNAPSHOT_TYPES)}")
        return value

    def _notes(self) -> str:
        try:
            return check_notes(self._text("notes") or "")
        except InvalidName as error:
            raise self._wrong("notes", f"cannot be kept: {error.what}", error.hint) from error


# ---------------------------------------------------------------- parents


def _with_parent(folder: Folder, below: Mapping[Version, Version | None]) -> Folder:
    """What the meta says, else the version before it; ``below`` has every version."""
    if folder.meta is not None and folder.meta.names_parent:
        parent = folder.meta.parent
        if parent is not None and parent not in below:
            raise wrong(
                folder.meta_path,
                "parent",
                f"is {parent}, and there is no folder of that version",
                "bring the folder, or take the line away: then the version before it counts",
            )
    else:
        parent = below[folder.version]
    return replace(folder, parent=parent)


def _in_order(folders: Mapping[Version, Folder]) -> Iterator[Folder]:
    """Parents first, and low numbers before high ones."""
    done: set[Version] = set()
    for version in sorted(folders):
        line: dict[Version, None] = {}
        at: Version | None = version
        while at is not None and at not in done:
            if at in line:
                raise wrong(
                    folders[version].meta_path, "parent", f"leads back to {at}: a version cannot be its own parent"
                )
            line[at] = None
            at = folders[at].parent
        for each in reversed(line):
            done.add(each)
            yield folders[each]
