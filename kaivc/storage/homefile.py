"""``.kai/home.json``: what a home is, for whoever has no catalog. Format: docs/format/home.md."""

from __future__ import annotations

import json
import os
import re

from kaivc.records import dataclass
from kaivc.storage.catalog import FORMAT
from kaivc.storage.gitobjects import FORMATS, ObjectFormat
from kaivc.vfs import Vfs

MAX_BYTES = 4096
_HOME_ID = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True)
class HomeFacts:
    """What was fixed when the home was made."""

    home_id: str
    object_format: str
    shared: bool

    @property
    def format(self) -> ObjectFormat:
        """The hash format of all its objects."""
        return FORMATS[self.object_format]

    def meta(self) -> dict[str, object]:
        """As the catalog keeps it."""
        return {"home_id": self.home_id, "object_format": self.object_format, "shared": int(self.shared)}


def check(home_id: object, object_format: object, shared: object) -> HomeFacts | None:
    """The facts, if each is one."""
    if not isinstance(home_id, str) or not _HOME_ID.match(home_id):
        return None
    if not isinstance(object_format, str) or object_format not in FORMATS or shared not in (0, 1):
        return None
    return HomeFacts(home_id, object_format, bool(shared))


def read(path: str) -> HomeFacts | None:
    """What the file says; None if it is not there or says something else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would keep us waiting
        with os.fdopen(fd, "rb") as file:
            found = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    return check(found.get("home_id"), found.get("object_format"), found.get("shared"))


def write(vfs: Vfs, path: str, facts: HomeFacts) -> None:
    """Write the file: wholly or not at all."""
    document = {
        "format": FORMAT,
        "home_id": facts.home_id,
        "object_format": facts.object_format,
        "shared": facts.shared,
    }
    vfs.replace(path, (json.dumps(document, indent=2) + "\n").encode(), 0o660 if facts.shared else 0o600)
