"""Who may do what. The one question that both doors ask before a verb that a role may be wanted for."""

from __future__ import annotations

import os
from enum import StrEnum

from kaivc.errors import PermissionDenied
from kaivc.repository import Repository


class Act(StrEnum):
    """What is asked for."""

    TEST = "test"
    """Run a version in a snapshot."""
    COMMIT = "commit"
    """Commit, promote or drop a snapshot."""


def authorize(repo: Repository, act: Act) -> None:
    """Raise PermissionDenied unless this process may do it to this agent.

    Without rules that say otherwise the home's owner may, root, and in a home that is shared with a group whoever is
    in it. Who asks is the uid that the system gives, not the name that goes into the log.
    """
    uid = os.geteuid()
    status = os.stat(repo.layout.kai)
    if uid in (0, status.st_uid):
        return
    if repo.home.shared and status.st_gid in (os.getegid(), *os.getgroups()):
        return
    may = "its owner and its group" if repo.home.shared else "its owner"
    raise PermissionDenied(
        f"user {uid} may not {act.value} snapshots of {repo.name}: only {may} and root may",
        unchanged="nothing ran" if act is Act.TEST else "nothing moved",
        hint=f"ask user {status.st_uid}, whose home it is",
        act=act.value,
        agent=repo.name,
        uid=uid,
        owner=status.st_uid,
    )
