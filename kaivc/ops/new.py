"""Make an agent: empty, from a directory, or from a revision of another agent."""

from __future__ import annotations

import os

from kaivc import forking, links, making
from kaivc.capture import Capture
from kaivc.copying import Origin, copy_in
from kaivc.errors import InvalidName, NoSuchAgent
from kaivc.forking import Forked
from kaivc.names import check_name
from kaivc.records import dataclass
from kaivc.repository import OpenHome, Repository
from kaivc.roots import refuse_link, refuse_root


@dataclass(frozen=True)
class AgentMade:
    """A new agent. It has no version yet, unless it is ``forked``."""

    agent: str
    workspace: str
    files: int
    notices: tuple[str, ...]
    forked: Forked | None = None


def new(home: OpenHome, name: str, *, source: str | None = None, link: str | None = None) -> AgentMade:
    """Make the agent ``name``, its workspace a copy of ``source``, or ``link`` itself.

    ``source`` is a directory, or AGENT@REV: then the new agent begins with the versions up to REV. NameTaken,
    InvalidName, RefusedWorkspace, NoSuchAgent, NoSuchRevision, and what a capture or a read raises; nothing is there
    then.
    """
    check_name("agent", name)
    if source is not None and link is not None:
        raise InvalidName("a source to copy and a link exclude each other", hint="give one of them")
    with making.name_held(home, name):
        making.check_free(home, name)
        revision = _revision(home, source) if source is not None else None
        if revision is not None:
            return _fork(home, name, *revision)
        if source is not None:
            refuse_root(source, home.layout, home.environ)
        if link is None:
            return _make(home, name, source)
        with home.links_held():  # until the agent is there: nobody else may link the same meanwhile
            return _make_linked(home, name, refuse_link(home.layout, home.links(), home.environ, link))


def _revision(home: OpenHome, text: str) -> tuple[Repository, str] | None:
    """The agent and the revision that ``--from`` names; None for a directory.

    A directory is what has a slash before any ``@``, or begins with a dot. A bare word may be either, if only one of
    them is there; an agent's own directory, seen from the home, is the agent.
    """
    agent, at, rev = text.partition("@")
    if not agent or "/" in agent or agent.startswith("."):
        return None
    is_directory = os.path.isdir(text)
    try:
        repo = home.repository(agent)
    except NoSuchAgent as error:
        if is_directory and not at:
            return None
        error.hint = f"for a directory write ./{text}" if is_directory else f"{error.hint}; for a directory write ./DIR"
        error.unchanged = "nothing was written"
        raise
    if is_directory and not at and os.path.realpath(text) != os.path.realpath(home.layout.agent(agent)):
        raise InvalidName(
            f"{text!r} is both an agent and a directory",
            unchanged="nothing was written",
            hint=f"write ./{text} for the directory, {text}@current for the agent",
            name=text,
        )
    return repo, rev or "current"


def _fork(home: OpenHome, name: str, source: Repository, rev: str) -> AgentMade:
    _forget_link(home, name)
    forked, files = forking.fork(source, rev, name)
    return AgentMade(name, home.layout.workspace(name), files, (), forked)


def _make(home: OpenHome, name: str, source: str | None) -> AgentMade:
    capture = Capture()
    with making.prepared(home, name) as workspace:
        if source is not None:
            capture = copy_in(home, name, Origin(source), workspace)
    _forget_link(home, name)
    if capture.files:
        home.vfs.sync_disk()
    making.register(home, name)
    return AgentMade(name, home.layout.workspace(name), len(capture.without_secrets()), tuple(capture.notices()))


def _make_linked(home: OpenHome, name: str, directory: str) -> AgentMade:
    with making.prepared(home, name) as workspace:
        home.vfs.remove_dir(workspace)  # nothing must take it for the agent's
    links.write(home.vfs, home.layout, {name: directory})
    making.register(home, name)
    return AgentMade(name, directory, 0, ())


def _forget_link(home: OpenHome, name: str) -> None:
    """Forget what a cut command noted."""
    if name in links.known(home.layout).workspaces:
        with home.links_held():
            links.write(home.vfs, home.layout, {name: None})
