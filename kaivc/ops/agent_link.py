"""Tell where a linked workspace lies now."""

from __future__ import annotations

from kaivc import leases, links
from kaivc.errors import RefusedWorkspace
from kaivc.records import dataclass
from kaivc.repository import OpenHome
from kaivc.roots import refuse_link


@dataclass(frozen=True)
class Linked:
    """An agent's linked workspace, and where it was linked to before."""

    agent: str
    workspace: str
    before: str


def agent_link(home: OpenHome, name: str, directory: str) -> Linked:
    """Link an agent that has a linked workspace to ``directory``: the same one at another place, or one in its stead.

    Neither directory is written. Raises NoSuchAgent, AgentBusy while it runs, RefusedWorkspace; nothing changed then.
    """
    repo = home.repository(name)
    with repo.lock(), leases.kept_out(repo):
        before = home.links().get(name)
        if before is None:
            raise RefusedWorkspace(
                f"{name} has a workspace of its own in the home: it is not linked",
                unchanged="nothing was written",
                hint=f"`kai new NAME --link DIR` makes an agent with a linked one; {name}'s is {repo.workspace}",
                path=repo.workspace,
            )
        with home.links_held():
            others = {agent: path for agent, path in home.links().items() if agent != name}
            real = refuse_link(home.layout, others, home.environ, directory)
            links.write(home.vfs, home.layout, {name: real})
    return Linked(name, real, before)
