"""Home and Agent: every verb of the command line, with typed results.

::

    home = kaivc.open("agents")
    agent = home.agent("summarizer")
    agent.commit(bump="minor", notes="shorter answers")
    agent.rollback("v1.0.0", reason="it rambles")
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kaivc import __version__
from kaivc.agent import Agent, epoch, require
from kaivc.errors import KaiError, NoSuchHome, TargetNotEmpty
from kaivc.layout import KAI, Layout, find_home
from kaivc.names import Actor
from kaivc.opening import SystemClock, assemble, layers_of, layout_at, local_of, merged_settings, temp_of
from kaivc.ports import Clock, Progress, silent
from kaivc.records import dataclass, replace
from kaivc.repository import OpenHome
from kaivc.settings import Settings
from kaivc.storage.catalog import Catalog
from kaivc.vfs import Vfs

if TYPE_CHECKING:
    from pathlib import Path

    from kaivc.access import Token, User
    from kaivc.ops.agent_link import Linked
    from kaivc.ops.agent_list import AgentList
    from kaivc.ops.agent_remove import Removed
    from kaivc.ops.agent_rename import Renamed
    from kaivc.ops.audit_against import Compared
    from kaivc.ops.bundle_create import Bundled
    from kaivc.ops.bundle_unbundle import Unbundled
    from kaivc.ops.bundle_verify import BundleChecked
    from kaivc.ops.clone import Cloned
    from kaivc.ops.doctor import Diagnosis
    from kaivc.ops.fetch import FetchedAll
    from kaivc.ops.fsck import Fscked
    from kaivc.ops.import_ import Imported
    from kaivc.ops.mirror import Mirrored
    from kaivc.ops.new import AgentMade
    from kaivc.ops.pull import Pulled
    from kaivc.ops.push import Pushed
    from kaivc.ops.remote_add import RemoteNamed
    from kaivc.ops.remote_list import RemoteList
    from kaivc.ops.remote_remove import RemoteRemoved
    from kaivc.ops.remote_rename import RemoteRenamed
    from kaivc.ops.role_grant import Granted
    from kaivc.ops.token_add import TokenMade
    from kaivc.ops.token_list import TokenItem
    from kaivc.remotes.base import Ask, Context
    from kaivc.report import AuditReport

__all__ = ["Agent", "Home", "SystemClock", "clone", "doctor", "fsck", "init", "nobody", "open"]

EVERY = "*"
"""The pattern that every agent fits."""


def nobody(question: str, secret: bool) -> str | None:  # noqa: ARG001 - as ``Ask`` has it
    """Answers nothing: there is nobody to ask."""
    return None


def open(  # noqa: A001 - kaivc.open
    path: str | os.PathLike[str] = ".",
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    actor: Actor | None = None,
    clock: Clock | None = None,
    vfs: Vfs | None = None,
    progress: Progress = silent,
    read_only: bool = False,
) -> Home:
    """Open the home at ``path`` or above it; NoSuchHome otherwise.

    With ``read_only``, or where this user may not write, every reading verb works and nothing is written, not even what
    would save work next time; a verb that writes raises ReadOnlyHome.
    """
    layout = layout_at(path)
    environment = dict(os.environ if environ is None else environ)
    merged = merged_settings(layout, environment, flags or {})
    catalog = Catalog.open(layout.catalog, merged.lock_wait, scratch=temp_of(environment), read_only=read_only)
    try:
        disk = vfs or Vfs()
        disk.group = bool(catalog.meta()["shared"])
        return Home(assemble(layout, catalog, merged, disk, environment, actor, clock, progress))
    except BaseException:
        catalog.close()
        raise


def fsck(  # noqa: PLR0913 - a keyword for each thing that a door hands in
    path: str | os.PathLike[str] = ".",
    agent: str | None = None,
    *,
    repair: bool = False,
    dry_run: bool = False,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    actor: Actor | None = None,
    clock: Clock | None = None,
    vfs: Vfs | None = None,
    progress: Progress = silent,
) -> Fscked:
    """Check the home at ``path`` or above it, and repair it; it may be one that cannot be opened."""
    from kaivc.ops.fsck import fsck as check

    layout = layout_at(path)
    environment = dict(os.environ if environ is None else environ)
    merged = merged_settings(layout, environment, flags or {})
    catalog = Catalog.unread(layout.catalog, merged.lock_wait, scratch=temp_of(environment))
    opened = assemble(layout, catalog, merged, vfs or Vfs(), environment, actor, clock, progress)
    try:
        if repair and not dry_run:
            require(opened, "maintain", agent or EVERY)
        return check(opened, agent, repair=repair, dry_run=dry_run)
    finally:
        catalog.close()


def init(
    path: str | os.PathLike[str] = ".",
    object_format: str = "sha256",
    *,
    shared: bool = False,
    environ: Mapping[str, str] | None = None,
    actor: Actor | None = None,
    clock: Clock | None = None,
    vfs: Vfs | None = None,
) -> Home:
    """Make a home and open it; HomeExists if there is one."""
    from kaivc.ops.init import init as make

    made = make(vfs or Vfs(), os.fspath(path), object_format=object_format, shared=shared)
    return open(made.path, environ=environ, actor=actor, clock=clock, vfs=vfs)


def clone(  # noqa: PLR0913 - a keyword for each thing that a door hands in
    url: str,
    path: str | os.PathLike[str],
    *,
    agents: Sequence[str] = (),
    remote: str = "origin",
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    actor: Actor | None = None,
    clock: Clock | None = None,
    vfs: Vfs | None = None,
    progress: Progress = silent,
    ask: Ask = nobody,
) -> Cloned:
    """Make a home at ``path`` of some agents of a remote, or of all.

    HomeExists, TargetNotEmpty or RefusedWorkspace otherwise.
    """
    from kaivc import remotelist
    from kaivc.ops.clone import clone as bring
    from kaivc.remotes import connect

    environment = dict(os.environ if environ is None else environ)
    whole = os.path.abspath(url) if remotelist.is_path(remotelist.check_url(url)) else url
    made: list[Home] = []

    _require_empty(os.path.abspath(path))

    def make(object_format: str) -> OpenHome:
        init(path, object_format, environ=environment, actor=actor, clock=clock, vfs=vfs).close()
        made.append(open(path, actor=actor, clock=clock, vfs=vfs, progress=progress, environ=environment, flags=flags))
        return made[0].opened

    merged = merged_settings(Layout(os.path.abspath(path)), environment, flags or {})
    far = connect(_context(environment, merged, progress, actor, ask), whole)
    try:
        return bring(far, whole, make, agents=agents, remote=remote)
    finally:
        far.close()
        for home in made:
            home.close()


def _require_empty(path: str) -> None:
    """Raise TargetNotEmpty for a directory that holds something, unless that is a home: ``init`` says so of it."""
    if os.path.isdir(os.path.join(path, KAI)):
        return
    if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise TargetNotEmpty(
            f"{path} holds something",
            unchanged="nothing was made",
            hint="name a directory that is absent or empty",
            path=path,
        )


def _context(
    environ: Mapping[str, str], merged: Settings, progress: Progress, actor: Actor | None, ask: Ask
) -> Context:
    from kaivc.remotes.base import Context

    def open_home(path: str) -> OpenHome:
        if not os.path.isdir(os.path.join(path, KAI)):
            raise NoSuchHome(f"there is no home at {path}", hint="look at the path", path=path)
        return open(path, environ=environ, actor=actor, progress=progress).opened

    return Context(environ, merged, time.sleep, progress, open_home, ask)


def doctor(
    path: str | os.PathLike[str] = ".",
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    terminal: str = "no terminal was looked at",
    clock: Clock | None = None,
    vfs: Vfs | None = None,
) -> Diagnosis:
    """Check the machine and, if there is one at ``path`` or above, the home; what is wrong is a line, not an error."""
    from kaivc import __version__
    from kaivc.health import Patient
    from kaivc.machine import Machine
    from kaivc.ops.doctor import doctor

    environment = dict(os.environ if environ is None else environ)
    here = Machine(
        kaivc=__version__,
        terminal=terminal,
        now_ns=(clock or SystemClock()).now_ns(),
        temp=environment.get("TMPDIR") or "/tmp",  # noqa: S108 - only looked at
        environ=environment,
    )
    try:
        root = find_home(os.fspath(path))
    except NoSuchHome as error:
        return doctor(here, None, error)
    if root is None:
        return doctor(here, None, None)
    try:
        home = open(root, environ=environment, flags=flags, clock=clock, vfs=vfs)
        layers = layers_of(home.opened.layout, environment, flags or {})
    except KaiError as error:
        return doctor(here, root, error)
    try:
        return doctor(here, root, Patient(home.opened, layers))
    finally:
        home.close()


@dataclass(frozen=True)
class Home:
    """A folder of agents."""

    opened: OpenHome

    @property
    def path(self) -> Path:
        """Where it lies."""
        from pathlib import Path

        return Path(self.opened.layout.root)

    def agent(self, name: str) -> Agent:
        """One agent; NoSuchAgent, with the nearest names, otherwise."""
        return Agent(self._now().repository(name))

    def _now(self) -> OpenHome:
        """The home with links as they are now: another command may have made or moved one."""
        local = local_of(self.opened.layout)
        return self.opened if local == self.opened.local else replace(self.opened, local=local)

    def agents(self, *, removed: bool = False) -> list[str]:
        """The names of the agents that live; with ``removed``, of those too that were removed."""
        return self.opened.catalog.agent_names(removed=removed)

    def listing(self, *, removed: bool = False) -> AgentList:
        """The agents and what each holds; with ``removed``, those too that were removed."""
        from kaivc.ops.agent_list import agent_list

        return agent_list(self._now(), removed=removed)

    def new(
        self,
        name: str,
        *,
        source: str | os.PathLike[str] | None = None,
        link: str | os.PathLike[str] | None = None,
    ) -> Agent:
        """Make an agent; its workspace is a copy of ``source``, or ``link`` itself.

        ``source`` is a path, or a text as ``--from`` takes it: AGENT@REV makes a fork.
        """
        from kaivc import intents

        self.make(name, source=source, link=link)
        with intents.landed(f"{name} is made"):
            return self.agent(name)

    def make(
        self,
        name: str,
        *,
        source: str | os.PathLike[str] | None = None,
        link: str | os.PathLike[str] | None = None,
    ) -> AgentMade:
        """As ``new``, with what there is to say of it."""
        from kaivc.ops.new import new

        require(self.opened, "create", name)
        return new(
            self._now(),
            name,
            source=source if source is None or isinstance(source, str) else os.path.abspath(source),
            link=None if link is None else os.fspath(link),
        )

    def with_snapshot(self, text: str) -> tuple[Agent, str]:
        """The one agent that has a snapshot, and its id: ``ID``, or ``AGENT@ID``; NoSuchRevision otherwise."""
        from kaivc import snapshots

        repo, name = snapshots.located(self._now(), text)
        return Agent(repo), name

    def rename(self, old: str, new: str, *, reason: str = "") -> Renamed:
        """Give an agent another name; its versions, its history and its workspace go along."""
        from kaivc.ops.agent_rename import agent_rename

        require(self.opened, "maintain", old, new)
        return agent_rename(self._now(), old, new, reason=reason)

    def link(self, name: str, directory: str | os.PathLike[str]) -> Linked:
        """Tell where the linked workspace of an agent lies now."""
        from kaivc.ops.agent_link import agent_link

        require(self.opened, "maintain", name)
        return agent_link(self._now(), name, os.fspath(directory))

    def remove(self, name: str, *, reason: str = "", dry_run: bool = False) -> Removed:
        """Remove an agent, a dirty workspace saved as a backup first; its versions and its history stay."""
        from kaivc.ops.agent_remove import agent_remove

        if not dry_run:
            require(self.opened, "maintain", name)
        return agent_remove(self._now(), name, reason=reason, dry_run=dry_run)

    def import_(
        self,
        directory: str | os.PathLike[str],
        *,
        layout: str = "folders",
        name: str | None = None,
        author: str | Actor | None = None,
        dry_run: bool = False,
    ) -> Imported:
        """Adopt a tree of version folders as a new agent."""
        from kaivc.ops.import_ import import_

        if not dry_run:
            require(self.opened, "create", name or os.path.basename(os.path.abspath(directory)))
        return import_(
            self.opened,
            os.fspath(directory),
            layout=layout,
            name=name,
            author=Actor.parse(author) if isinstance(author, str) else author,
            time=epoch(self.opened.environ),
            dry_run=dry_run,
        )

    # ------------------------------------------------------------ who may what

    def token_add(
        self,
        name: str,
        role: str,
        agents: Sequence[str] = (),
        *,
        expires: float | None = 90 * 24 * 3600,
        actor: str | Actor | None = None,
    ) -> TokenMade:
        """Make a token for `kai serve`: a role over agents, for so many seconds (None: for good); its text is in it."""
        from kaivc.ops.token_add import token_add

        require(self.opened, "grant", *(agents or [EVERY]))
        who = Actor.parse(actor) if isinstance(actor, str) else actor
        return token_add(self.opened, name, role, agents, expires=expires, actor=who)

    def tokens(self) -> tuple[TokenItem, ...]:
        """The tokens, by name; none holds its text."""
        from kaivc.ops.token_list import token_list

        return token_list(self.opened)

    def token_revoke(self, token: str) -> Token:
        """Take a token back, by its id or its name."""
        from kaivc import access
        from kaivc.ops.token_revoke import token_revoke

        found = access.find_token(access.read(self.opened.layout), token)
        require(self.opened, "grant", *found.grant.agents)
        return token_revoke(self.opened, found.id)

    def role_grant(self, user: str, role: str, agents: Sequence[str] = ()) -> Granted:
        """Give a user of this machine, by login or uid, a role over agents."""
        from kaivc.ops.role_grant import role_grant

        require(self.opened, "grant", *(agents or [EVERY]))
        return role_grant(self.opened, user, role, agents)

    def roles(self) -> tuple[User, ...]:
        """What users of this machine were granted; nothing where no rule binds anybody."""
        from kaivc.ops.role_list import role_list

        return role_list(self.opened)

    def role_revoke(self, user: str, role: str | None = None) -> tuple[User, ...]:
        """Take from a user of this machine one role, or all; what they were."""
        from kaivc.ops.role_revoke import role_revoke

        require(self.opened, "grant", EVERY)
        return role_revoke(self.opened, user, role)

    # ------------------------------------------------------------ other homes

    def remote_add(self, name: str, url: str) -> RemoteNamed:
        """Note a remote: a path, a URL, or a bundle."""
        from kaivc.ops.remote_add import remote_add

        require(self.opened, "maintain", EVERY)
        return remote_add(self.opened, name, url)

    def remotes(self) -> RemoteList:
        """The remotes, and how far the log of each agent had come there when it was last looked at."""
        from kaivc.ops.remote_list import remote_list

        return remote_list(self.opened)

    def remote_remove(self, name: str) -> RemoteRemoved:
        """Forget a remote; versions that came from it stay."""
        from kaivc.ops.remote_remove import remote_remove

        require(self.opened, "maintain", EVERY)
        return remote_remove(self.opened, name)

    def remote_rename(self, old: str, new: str) -> RemoteRenamed:
        """Give a remote another name."""
        from kaivc.ops.remote_rename import remote_rename

        require(self.opened, "maintain", EVERY)
        return remote_rename(self.opened, old, new)

    def fetch(self, remote: str = "origin", agents: Sequence[str] = (), *, ask: Ask = nobody) -> FetchedAll:
        """Bring what a remote has of some agents, or of all that both have; only ``refs/remotes/`` moves."""
        from kaivc.ops.fetch import fetch

        require(self.opened, "current", *(agents or [EVERY]))
        return fetch(self._now(), self._context(ask), remote, agents)

    def pull(
        self,
        agent: str,
        remote: str = "origin",
        *,
        reason: str = "",
        live: bool = False,
        op_id: str | None = None,
        ask: Ask = nobody,
    ) -> Pulled:
        """Fetch, adopt versions that are not here, and follow the remote's ``current``; makes an agent that is new."""
        from kaivc.ops.pull import pull

        require(self.opened, "current" if agent in self.agents(removed=True) else "create", agent)
        return pull(self._now(), self._context(ask), remote, agent, reason=reason, live=live, op_id=op_id)

    def push(
        self,
        agent: str,
        remote: str = "origin",
        *,
        refs: Sequence[str] = (),
        delete: Sequence[str] = (),
        reason: str = "",
        dry_run: bool = False,
        op_id: str | None = None,
        ask: Ask = nobody,
    ) -> Pushed:
        """Send versions and ``current``, and the snapshots and backups that ``refs`` name."""
        from kaivc.ops.push import push

        return push(
            self._now(),
            self._context(ask),
            remote,
            agent,
            refs=refs,
            delete=delete,
            reason=reason,
            dry_run=dry_run,
            op_id=op_id,
        )

    def mirror(
        self,
        remote: str,
        object_format: str,
        agents: Sequence[str] = (),
        *,
        dry_run: bool = False,
        ask: Ask = nobody,
    ) -> Mirrored:
        """Keep a copy of some agents, or of all, at a git host of the other format; nothing is taken from there."""
        from kaivc.ops.mirror import mirror

        return mirror(self._now(), self._context(ask), remote, object_format, agents, dry_run=dry_run)

    def bundle(self, path: str | os.PathLike[str], agents: Sequence[str] = (), *, since: str | None = None) -> Bundled:
        """Put some agents, or all that have a version, into one file; ``since`` is a revision the other side has."""
        from kaivc.ops.bundle_create import bundle_create

        return bundle_create(self._now(), os.fspath(path), agents, since)

    def bundle_verify(self, path: str | os.PathLike[str]) -> BundleChecked:
        """Compare every byte of a bundle, and look whether what it builds on is here."""
        from kaivc.ops.bundle_verify import bundle_verify

        return bundle_verify(os.fspath(path), self.opened)

    def unbundle(
        self, path: str | os.PathLike[str], agents: Sequence[str] = (), *, reason: str = "", live: bool = False
    ) -> Unbundled:
        """Take in what a bundle holds, as a pull from the home that it was made of would."""
        from kaivc.ops.bundle_unbundle import bundle_unbundle

        here = self.agents(removed=True)
        for name in agents or [EVERY]:
            require(self.opened, "current" if name in here else "create", name)
        return bundle_unbundle(self._now(), self._context(nobody), os.fspath(path), agents, reason=reason, live=live)

    def audit_against(self, remote: str, agents: Sequence[str] = (), *, ask: Ask = nobody) -> Compared:
        """Compare versions and refs with those of a remote, hash by hash; nothing moves."""
        from kaivc.ops.audit_against import audit_against

        return audit_against(self._now(), self._context(ask), remote, agents)

    def _context(self, ask: Ask) -> Context:
        return _context(self.opened.environ, self.opened.settings, self.opened.progress, self.opened.actor, ask)

    def audit(self, agent: str | None = None, rev: str | None = None, *, expect_head: str | None = None) -> AuditReport:
        """Recompute all versions of all agents, of one, or one version; what differs is in the report."""
        from kaivc.ops.audit import audit

        return audit(self.opened, agent, rev, expect_head=expect_head, release=__version__)

    def fsck(self, agent: str | None = None, *, repair: bool = False, dry_run: bool = False) -> Fscked:
        """Check everything that the home holds, and repair it."""
        from kaivc.ops.fsck import fsck as check

        if repair and not dry_run:
            require(self.opened, "maintain", agent or EVERY)
        return check(self.opened, agent, repair=repair, dry_run=dry_run)

    def close(self) -> None:
        """Close the catalog."""
        self.opened.catalog.close()
