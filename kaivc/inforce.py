"""What a reader follows to the version in force: the ``current`` link, and ``rollback.log`` beside it."""

from __future__ import annotations

import errno
import os
import stat

from kaivc import standing, versions
from kaivc.errors import ChecksumMismatch
from kaivc.keeping import Notes
from kaivc.layout import link_target
from kaivc.names import ObjectId, ReflogEntry, current_ref
from kaivc.repository import Repository
from kaivc.storage import caches
from kaivc.storage.writer import StoreWriter
from kaivc.views import View

TAIL, LONGEST_LINE = 1 << 11, 1 << 20
"""Bytes at the end of a log in which its last line is looked for, first and last."""
MARGIN = 1 << 16
"""Bytes of a log that are looked at past those that it should have."""


def link_current(repo: Repository, *, sync: bool, notes: Notes | None = None) -> None:
    """Let ``current`` point at the view of the version in force.

    Without ``sync`` a power cut may leave the link where it was; the next writer mends it. What is learnt of the view
    goes to ``notes``, for the caller to write.
    """
    into = notes or Notes()
    version = versions.current(repo)
    view = View(repo, version)
    view.make_whole(into)
    target, path = link_target(version.tag), repo.layout.current(repo.name)
    if os.path.lexists(path) and not os.path.islink(path):
        repo.vfs.remove_tree(path)
    if not os.path.islink(path) or os.readlink(path) != target:
        repo.vfs.swap_link(target, path, sync=sync)
    view.note_use(into)
    if notes is None:
        into.keep(repo)


def settle(repo: Repository) -> None:
    """Bring link, view, log and packs to where the catalog says, after a cut command or a power cut.

    Links, views, the log and the tail of a pack are not synced: the first writer since the machine was started looks
    after them. For all others this is one look.
    """
    if not standing.is_linked(repo):
        link_current(repo, sync=False)
    if repo.current is None or repo.row().removed_ns:
        return
    try:
        if repo.remembered.settled or (repo.home.boot and caches.settled(repo.catalog, repo.id) == repo.home.boot):
            repo.remembered.settled = True
            return
        View(repo, versions.current(repo)).mend_cut()
        if _is_log_cut(repo):
            repo.vfs.replace(repo.layout.rollback_log(repo.name), b"".join(log_lines(repo)), _log_mode(repo))
        with StoreWriter(repo.store) as writer:  # op records of before are in a pack, and torn packs left, from here on
            writer.sync()
            with repo.catalog.transaction() as db:
                writer.record(db)
                caches.put_settled(db, repo.id, repo.home.boot)
    except ChecksumMismatch:
        return  # what is in force is damaged: going elsewhere is for the user to say


def _is_log_cut(repo: Repository) -> bool:
    """Whether the log lacks bytes that were on their way to the disk: read as zeros, or not there."""
    wanted = b"".join(log_lines(repo))
    try:
        found = read_log(repo, len(wanted) + MARGIN)
    except FileNotFoundError:
        found = b""
    except OSError:
        return False
    return b"\0" in found or (found != wanted and wanted.startswith(found))


def read_log(repo: Repository, most: int) -> bytes:
    """The first bytes of ``rollback.log``; OSError unless it is a plain file. It may be of any size."""
    fd = os.open(repo.layout.rollback_log(repo.name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "no plain file")
        return file.read(most)


def write_rollback_log(repo: Repository) -> None:
    """Bring ``rollback.log`` up to the reflog of ``current``."""
    path = repo.layout.rollback_log(repo.name)
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        repo.vfs.remove_tree(path)
    last = _last_logged(path)
    new = repo.reflog(current_ref(repo.name), since=last)[::-1]
    if not new and last > repo.row().op_seq:  # not our numbers: written anew
        last, new = 0, repo.reflog(current_ref(repo.name))[::-1]
    if not new:
        return
    data = b"".join(_lines(repo, new))
    if last:
        fd = repo.vfs.open_append(path, _log_mode(repo))
        try:
            repo.vfs.write(fd, data)  # not synced: what a power cut takes is written again from the reflog
        finally:
            repo.vfs.close(fd)
    else:
        repo.vfs.replace(path, data, _log_mode(repo))


def _log_mode(repo: Repository) -> int:
    return 0o640 if repo.home.shared else 0o600


def log_lines(repo: Repository) -> list[bytes]:
    """The lines that ``rollback.log`` must hold, by the reflog."""
    return _lines(repo, repo.reflog(current_ref(repo.name))[::-1])


def _lines(repo: Repository, entries: list[ReflogEntry]) -> list[bytes]:
    import json  # noqa: PLC0415 - only what writes needs it

    names: dict[bytes, str | None] = {}
    lines = []
    for entry in entries:
        line = {
            "seq": entry.seq,
            "time": versions.rfc3339(entry.time_ns // 1_000_000_000),
            "verb": entry.verb,
            "from": _tag_of(repo, entry.old, names),
            "to": _tag_of(repo, entry.new, names),
            "from_commit": entry.old.hex() if entry.old else None,
            "to_commit": entry.new.hex() if entry.new else None,
            "actor": entry.actor,
            "reason": entry.reason,
            "backup": f"backups/{entry.backup}" if entry.backup else None,
            "op_id": entry.op_id,
        }
        lines.append(json.dumps(line, ensure_ascii=True) + "\n")
    return [line.encode() for line in lines]


def _tag_of(repo: Repository, oid: ObjectId | None, names: dict[bytes, str | None]) -> str | None:
    if oid is None:
        return None
    if oid not in names:
        try:
            names[oid] = versions.describe(repo, oid).tag
        except ChecksumMismatch:
            names[oid] = oid.hex()[:12]
    return names[oid]


def _last_logged(path: str) -> int:
    """The number of the last whole line; 0 when the file must be written anew."""
    import json  # noqa: PLC0415 - only what writes needs it

    tail = b""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        size = os.fstat(fd).st_size
        for piece in (TAIL, LONGEST_LINE):
            tail = os.pread(fd, piece, max(0, size - piece))
            if not tail.endswith(b"\n"):
                return 0
            tail = tail.rstrip(b"\n")
            if b"\n" in tail:
                break
    except OSError:
        return 0
    finally:
        os.close(fd)
    try:
        return int(json.loads(tail.rpartition(b"\n")[2])["seq"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0
