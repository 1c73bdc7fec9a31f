"""``.kai/log``: what whoever looks after the machine should know, one JSON line each, of bounded size."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress

from kaivc.errors import KaiError, StorageError
from kaivc.repository import OpenHome
from kaivc.versions import rfc3339

MAX_BYTES = 1 << 20
"""A log that has as many is put aside under ``log.1``, in place of the one before."""
MAX_TEXT = 2000


def note(home: OpenHome, agent: str, error: KaiError) -> None:
    """Add a line for an error. Where that cannot be written nothing more is said: the error itself is raised."""
    if home.read_only:
        return
    facts = {key: _cut(it) for key, it in error.facts.items()}
    line = {
        "time": rfc3339(home.clock.now_ns() // 1_000_000_000),
        "code": error.code,
        "agent": agent,
        "actor": str(home.actor),
        "uid": os.geteuid(),
        "message": _cut(error.what),
        "hint": _cut(error.hint),
        "facts": facts,
    }
    with suppress(StorageError, OSError):
        _append(home, (json.dumps(line) + "\n").encode())


def _cut(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."


def _append(home: OpenHome, data: bytes) -> None:
    path = home.layout.log
    with suppress(FileNotFoundError):
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return
        if status.st_size >= MAX_BYTES:
            home.vfs.rename(path, path + ".1")
    fd = home.vfs.open_append(path)
    try:
        home.vfs.write(fd, data)
    finally:
        home.vfs.close(fd)
