"""What git sees of a home: all of its agents under one URL, or one agent under its own.

::

    of a home     refs/heads/AGENT/current   refs/heads/AGENT/snapshots/ID   refs/tags/AGENT/vX.Y.Z
    of an agent   refs/heads/current         refs/heads/snapshots/ID         refs/tags/vX.Y.Z

HEAD names the branch of what is in force. Backups and remotes stay at home; so does what the one who asks may not read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from kaivc import landing
from kaivc.errors import KaiError, NoSuchAgent
from kaivc.names import ObjectId, current_ref, heads_prefix, is_name, tags_prefix
from kaivc.records import dataclass
from kaivc.repository import OpenHome, Repository
from kaivc.roles import unseen
from kaivc.serving import Access
from kaivc.storage.gitobjects import Kind

HEADS, TAGS = "refs/heads/", "refs/tags/"


@dataclass(frozen=True)
class Site:
    """One URL: what is shown there, to whom; ``agent`` of None stands for the whole home.

    ``told`` takes note of an error that git is told of within an answer, and gives it as a peer may read it.
    """

    home: OpenHome
    access: Access
    agent: str | None
    told: Callable[[KaiError], KaiError] = lambda error: error

    def repository(self, agent: str) -> Repository | None:
        """An agent that lives and may be read; None for any other."""
        if not is_name(agent) or not self.access.may_read(agent):
            return None
        row = self.home.catalog.agent(agent)
        return None if row is None or row.removed_ns else Repository(self.home, row.name, row.id)

    @cached_property
    def repositories(self) -> dict[str, Repository]:
        """The agents that are shown, by name."""
        names = self.home.catalog.agent_names() if self.agent is None else [self.agent]
        found = ((name, self.repository(name)) for name in sorted(names))
        return {name: repo for name, repo in found if repo is not None}

    def require(self) -> None:
        """Raise NoSuchAgent unless there is something to be read."""
        if self.agent is not None and not self.repositories:
            raise unseen(self.agent)

    # ------------------------------------------------------------ names

    def git_name(self, agent: str, ref: str) -> str:
        """How git sees a ref of an agent."""
        if self.agent is None:
            return ref
        for prefix, own in ((HEADS, heads_prefix(agent)), (TAGS, tags_prefix(agent))):
            if ref.startswith(own):
                return prefix + ref.removeprefix(own)
        raise AssertionError(f"{ref} is no ref of {agent}")

    def own_name(self, ref: str) -> tuple[str, str] | None:
        """The agent and its own name of a ref that git names; None for one that no home has."""
        for prefix in (HEADS, TAGS):
            if ref.startswith(prefix):
                rest = ref.removeprefix(prefix)
                agent, name = rest.split("/", 1) if self.agent is None and "/" in rest else (self.agent, rest)
                return (agent, f"{prefix}{agent}/{name}") if agent and is_name(agent) else None
        return None

    # ------------------------------------------------------------ refs

    @cached_property
    def refs(self) -> dict[str, ObjectId]:
        """All that is shown, by git's names, in their order; one look at the catalog, so that they fit each other."""
        found: dict[str, ObjectId] = {}
        with self.home.catalog.snapshot():
            for name, repo in self.repositories.items():
                found |= {self.git_name(name, ref): oid for ref, oid in landing.shown_refs(repo).items()}
        return dict(sorted(found.items()))

    @cached_property
    def head(self) -> str | None:
        """The branch that HEAD names; None if nothing is in force."""
        names = [name for name in self.repositories if self.git_name(name, current_ref(name)) in self.refs]
        chosen = self.home.settings.head
        name = chosen if chosen in names else min(names, default=None)
        return None if name is None else self.git_name(name, current_ref(name))

    def peeled(self, ref: str, oid: ObjectId) -> ObjectId | None:
        """The commit of a tag; None for what is no tag."""
        if not ref.startswith(TAGS):
            return None
        store = self.of(ref).store
        return store.tag(oid).target if store.kind(oid) is Kind.TAG else None

    def of(self, ref: str) -> Repository:
        """The agent whose ref it is, by git's name."""
        found = self.own_name(ref)
        if found is None or found[0] not in self.repositories:
            raise NoSuchAgent(f"{ref} is of no agent that is shown", name=ref)
        return self.repositories[found[0]]
