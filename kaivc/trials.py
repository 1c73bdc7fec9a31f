"""Trials: what is known of each test of a snapshot, one JSON record in AGENT/snapshot_temp/ID.json.

A record says how far a trial came and where its layer lies; the branch of a committed snapshot is in the catalog, and
what the two say together is the truth: a record without a branch or a layer is a left-over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final, get_type_hints

from kaivc.layout import Layout
from kaivc.names import is_name
from kaivc.records import dataclass, values
from kaivc.vfs import Vfs

FORMAT: Final = 1
MAX_BYTES: Final = 1 << 20
MAX_COMMAND: Final = 64 << 10
"""Bytes of a command that its record keeps."""
_SUFFIX = ".json"


class Status(StrEnum):
    """How far a trial came."""

    READY = "ready"
    """It has an empty layer; nothing ran."""
    TESTING = "testing"
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    """The test could not be carried out, or its end not be read."""


OPEN: Final = (Status.READY, Status.TESTING)
"""What a trial says that is at work, or was killed."""


@dataclass(frozen=True)
class Trial:
    """One trial. ``base`` is the commit that was tested, ``state`` committed or live; times in ns, sizes in bytes.

    ``scratch`` is the directory that holds its layer, which lies at ``top`` below it; None once it is gone.
    """

    id: str
    status: str
    base: str
    base_version: str | None
    state: str
    command: tuple[str, ...]
    uid: int
    actor: str
    created_ns: int
    scratch: str | None = None
    backend: str | None = None
    level: str | None = None
    ended_by: str | None = None
    exit_code: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    left_running: int | None = None
    whole: bool | None = None
    top: str | None = None
    problem: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it says that it is at work."""
        return self.status in OPEN


def encode(trial: Trial) -> bytes:
    """The record's bytes."""
    fields = {name: list(it) if isinstance(it, tuple) else it for name, it in values(trial).items()}
    return (json.dumps({"format": FORMAT, **fields}, indent=2) + "\n").encode()


def decode(data: bytes, name: str) -> Trial | None:
    """The trial of that id; None unless it is one, whole and well-formed."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.pop("format", None) != FORMAT or found.get("id") != name:
        return None
    hints = get_type_hints(Trial)
    if found.keys() != hints.keys() or not all(_fits(found[key], hints[key]) for key in hints):
        return None
    return Trial(**{**found, "command": tuple(found["command"])})


def _fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - an annotation
    kinds = getattr(hint, "__args__", (hint,))
    if hint == tuple[str, ...]:
        return isinstance(value, list) and all(isinstance(it, str) for it in value)
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds:
        return True
    return type(value) in kinds


# ---------------------------------------------------------------- on the disk


def write(vfs: Vfs, layout: Layout, agent: str, trial: Trial) -> None:
    """Put a record down: wholly the old or wholly the new."""
    vfs.make_dirs(layout.snapshot_temp(agent))
    vfs.replace(layout.snapshot_record(agent, trial.id), encode(trial))


def read(layout: Layout, agent: str, name: str) -> Trial | None:
    """One record; None if there is none that can be read."""
    try:
        fd = os.open(layout.snapshot_record(agent, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return decode(file.read(MAX_BYTES), name)
    except OSError:
        return None


def ids(layout: Layout, agent: str) -> list[str]:
    """The ids of all records, readable or not, oldest first."""
    try:
        names = os.listdir(layout.snapshot_temp(agent))
    except OSError:
        return []
    return sorted(it for name in names if name.endswith(_SUFFIX) and is_name(it := name.removesuffix(_SUFFIX)))


def every(layout: Layout, agent: str) -> Iterator[Trial]:
    """All records that can be read, oldest first."""
    return filter(None, (read(layout, agent, name) for name in ids(layout, agent)))


def remove(vfs: Vfs, layout: Layout, agent: str, name: str) -> None:
    """Take a record away, if it is there."""
    vfs.unlink(layout.snapshot_record(agent, name), missing_ok=True)
