"""The agents of a home."""

from __future__ import annotations

import os

from kaivc import versions
from kaivc.errors import KaiError
from kaivc.records import dataclass
from kaivc.repository import OpenHome, Repository
from kaivc.storage import index
from kaivc.storage.catalog import AgentRow

LIVE, REMOVED = "live", "removed"


@dataclass(frozen=True)
class AgentItem:
    """One agent. ``workspace`` is None once it is removed, ``removed_ns`` while it lives.

    ``pack_bytes`` are those of its packs, shared ones too; ``problem`` says why what it holds cannot be told.
    """

    name: str
    state: str
    version: str | None
    versions: int
    workspace: str | None
    linked: bool
    pack_bytes: int
    former: tuple[str, ...]
    removed_ns: int | None
    problem: str | None


@dataclass(frozen=True)
class AgentList:
    """The agents, by name."""

    agents: tuple[AgentItem, ...]


def agent_list(home: OpenHome, *, removed: bool = False) -> AgentList:
    """The agents that live; with ``removed``, those too that were removed."""
    rows = [row for row in home.catalog.agents() if removed or not row.removed_ns]
    return AgentList(tuple(_item(home, row) for row in rows))


def _item(home: OpenHome, row: AgentRow) -> AgentItem:
    repo = Repository(home, row.name, row.id)
    version, count, size, problem = None, 0, 0, None
    linked = home.local.workspaces.get(row.name)
    workspace = linked or home.layout.workspace(row.name)
    try:
        size = _pack_bytes(repo)
        count = len(versions.numbers(repo))
        version = versions.current(repo).version if repo.current else None
        if not row.removed_ns:
            workspace = repo.workspace  # says so if a link is lost
            problem = None if os.path.isdir(workspace) else f"its workspace {workspace} is not there"
    except KaiError as error:  # one agent's damage does not hide the others
        problem = error.what
    return AgentItem(
        name=row.name,
        state=REMOVED if row.removed_ns else LIVE,
        version=version,
        versions=count,
        workspace=None if row.removed_ns else workspace,
        linked=linked is not None and not row.removed_ns,
        pack_bytes=size,
        former=tuple(home.catalog.former_names(row.id)),
        removed_ns=row.removed_ns or None,
        problem=problem,
    )


def _pack_bytes(repo: Repository) -> int:
    total = 0
    for pack in index.packs(repo.catalog, repo.id):
        path = repo.layout.pack(repo.name, pack.name)
        total += os.stat(path).st_size if os.path.exists(path) else 0
    return total
