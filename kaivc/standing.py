"""Whether the disk is as the catalog says of an agent: readers ask, and ``intents`` mends."""

from __future__ import annotations

import os

from kaivc import versions
from kaivc.errors import ChecksumMismatch
from kaivc.layout import link_target
from kaivc.repository import Repository
from kaivc.storage import journal


def pending(repo: Repository) -> list[str]:
    """The kinds of what is still to be done after a transaction."""
    return [row.kind for row in journal.intents(repo.catalog, repo.id)]


def is_linked(repo: Repository) -> bool:
    """Whether ``current`` points where the catalog says."""
    if repo.current is None or repo.row().removed_ns:
        return True
    path = repo.layout.current(repo.name)
    try:
        return os.readlink(path) == link_target(versions.current(repo).tag) and os.path.isdir(path)
    except ChecksumMismatch:
        return True  # what is in force cannot be read: going elsewhere is for the user to say
    except OSError:
        return False
