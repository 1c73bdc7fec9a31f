"""The ids behind a revision."""

from __future__ import annotations

from kaivc import revisions
from kaivc.names import Version, version_ref
from kaivc.records import dataclass
from kaivc.repository import Repository


@dataclass(frozen=True)
class Parsed:
    """What a revision names: ``name`` as people call it, ids in hex; ``tag`` of None for what has no number.

    ``short`` are the first digits of the commit, 12 or as many as no other commit of the agent begins with.
    """

    agent: str
    revision: str
    name: str
    version: str | None
    commit: str
    short: str
    tree: str
    tag: str | None


def rev_parse(repo: Repository, rev: str = "current") -> Parsed:
    """Find the version, snapshot or backup that ``rev`` names."""
    found = revisions.resolve(repo, rev)
    tag = repo.ref(version_ref(repo.name, Version.parse(found.version))) if found.version else None
    return Parsed(
        repo.name,
        rev,
        revisions.name_of(repo, found),
        found.version,
        found.commit,
        revisions.abbreviate(repo, found.oid),
        found.tree,
        tag.hex() if tag else None,
    )
