"""Home and Agent: every verb of the command line, with typed results.

::

    home = kaivc.open("agents")
    agent = home.agent("summarizer")
    agent.commit(bump="minor", notes="shorter answers")
    agent.rollback("v1.0.0", reason="it rambles")
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from kaivc import __version__
from kaivc import settings as configuration
from kaivc import versions as known_versions
from kaivc.errors import InvalidName, KaiError, NoSuchHome, TargetNotEmpty, UnreadablePath
from kaivc.layout import KAI, Layout, find_home
from kaivc.names import Actor
from kaivc.ports import Clock, Progress, silent
from kaivc.records import dataclass, replace
from kaivc.repository import OpenHome, Repository
from kaivc.settings import Layer, Local, Settings
from kaivc.storage.catalog import Catalog
from kaivc.versions import AgentVersion
from kaivc.vfs import Vfs

if TYPE_CHECKING:
    from pathlib import Path

    from kaivc.access import Token, User
    from kaivc.movement import MovePlan
    from kaivc.ops.agent_link import Linked
    from kaivc.ops.agent_list import AgentList
    from kaivc.ops.agent_remove import Removed
    from kaivc.ops.agent_rename import Renamed
    from kaivc.ops.audit_against import Compared
    from kaivc.ops.bundle_create import Bundled
    from kaivc.ops.bundle_unbundle import Unbundled
    from kaivc.ops.bundle_verify import BundleChecked
    from kaivc.ops.cat import StoredFile
    from kaivc.ops.checkout import CheckedOut
    from kaivc.ops.clone import Cloned
    from kaivc.ops.commit import Committed
    from kaivc.ops.diff import Diff
    from kaivc.ops.doctor import Diagnosis
    from kaivc.ops.export import Exported
    from kaivc.ops.fetch import FetchedAll
    from kaivc.ops.fsck import Fscked
    from kaivc.ops.gc import Collected, GcPlan
    from kaivc.ops.import_ import Imported
    from kaivc.ops.log import History
    from kaivc.ops.ls_tree import TreeListing
    from kaivc.ops.mirror import Mirrored
    from kaivc.ops.new import AgentMade
    from kaivc.ops.pull import Pulled
    from kaivc.ops.push import Pushed
    from kaivc.ops.reflog import Reflog
    from kaivc.ops.remote_add import RemoteNamed
    from kaivc.ops.remote_list import RemoteList
    from kaivc.ops.remote_remove import RemoteRemoved
    from kaivc.ops.remote_rename import RemoteRenamed
    from kaivc.ops.renumber import Renumbered
    from kaivc.ops.rev_parse import Parsed
    from kaivc.ops.role_grant import Granted
    from kaivc.ops.run import Ran
    from kaivc.ops.show import Shown
    from kaivc.ops.snapshot_drop import SnapshotDropped
    from kaivc.ops.snapshot_list import SnapshotList
    from kaivc.ops.snapshot_promote import SnapshotPromoted
    from kaivc.ops.snapshot_show import SnapshotShown
    from kaivc.ops.snapshot_test import SnapshotTested
    from kaivc.ops.status import Status
    from kaivc.ops.token_add import TokenMade
    from kaivc.ops.token_list import TokenItem
    from kaivc.ops.verify import Verified
    from kaivc.ops.versions import VersionList
    from kaivc.remotes.base import Ask, Context
    from kaivc.report import AuditReport

USER_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Where the name of a user stands, as `getpass` looks for it."""
EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"
EVERY = "*"
"""The pattern that every agent fits."""
MAX_EPOCH_DIGITS = 11
MAX_CONFIGURATION = 16 << 20
"""Bytes of a configuration that are read before it is refused."""


class SystemClock:
    """The machine's wall clock."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""
        return time.time_ns()


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
    layout = _layout(path)
    environment = dict(os.environ if environ is None else environ)
    merged = _settings(layout, environment, flags or {})
    catalog = Catalog.open(layout.catalog, merged.lock_wait, scratch=_temp(environment), read_only=read_only)
    try:
        disk = vfs or Vfs()
        disk.group = bool(catalog.meta()["shared"])
        return Home(_opened(layout, catalog, merged, disk, environment, actor, clock, progress))
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

    layout = _layout(path)
    environment = dict(os.environ if environ is None else environ)
    merged = _settings(layout, environment, flags or {})
    catalog = Catalog.unread(layout.catalog, merged.lock_wait, scratch=_temp(environment))
    opened = _opened(layout, catalog, merged, vfs or Vfs(), environment, actor, clock, progress)
    try:
        if repair and not dry_run:
            _require(opened, "maintain", agent or EVERY)
        return check(opened, agent, repair=repair, dry_run=dry_run)
    finally:
        catalog.close()


def _layout(path: str | os.PathLike[str]) -> Layout:
    root = find_home(os.fspath(path))
    if root is None:
        raise NoSuchHome(
            f"there is no home at {os.path.abspath(path)} or above",
            hint="make one with `kai init DIR`, or name it with --home or KAI_HOME",
            path=os.path.abspath(path),
        )
    return Layout(root)


def _temp(environ: Mapping[str, str]) -> str:
    return environ.get("TMPDIR") or "/tmp"  # noqa: S108 - only private directories are made in it


def _opened(
    layout: Layout,
    catalog: Catalog,
    merged: Settings,
    vfs: Vfs,
    environ: Mapping[str, str],
    actor: Actor | None,
    clock: Clock | None,
    progress: Progress,
) -> OpenHome:
    return OpenHome(
        layout=layout,
        catalog=catalog,
        settings=merged,
        local=_local(layout),
        vfs=vfs,
        clock=clock or SystemClock(),
        sleep=time.sleep,
        actor=actor or _actor(environ, merged),
        environ=environ,
        progress=progress,
        temp=_temp(environ),
    )


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

    merged = _settings(Layout(os.path.abspath(path)), environment, flags or {})
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


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would keep us waiting
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnreadablePath(f"{path} is no plain file", hint="put a file there, or nothing", path=path)
            return file.read(MAX_CONFIGURATION)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadablePath(
            f"{path} cannot be read: {error.strerror}", hint="check its permissions", path=path
        ) from error


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
        layers = _layers(home.opened.layout, environment, flags or {})
    except KaiError as error:
        return doctor(here, root, error)
    try:
        return doctor(here, root, Patient(home.opened, layers))
    finally:
        home.close()


def _settings(layout: Layout, environ: Mapping[str, str], flags: Mapping[str, str]) -> Settings:
    return Settings.layered(*_layers(layout, environ, flags))


def _layers(layout: Layout, environ: Mapping[str, str], flags: Mapping[str, str]) -> list[Layer]:
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    layers: list[Layer] = []
    for path in (os.path.join(base, "kai", "config.yaml"), layout.config):
        data = _read(path)
        if data is not None:
            layers.append(configuration.parse(data, path))
    if flags:
        layers.append(configuration.parse_flags(flags))
    return layers


def _local(layout: Layout) -> Local:
    data = _read(layout.local)
    return Local() if data is None else configuration.parse_local(data, layout.local)


def _actor(environ: Mapping[str, str], merged: Settings) -> Actor:
    if environ.get("KAI_AUTHOR"):
        return Actor.parse(environ["KAI_AUTHOR"])
    if merged.author is not None:
        return merged.author
    user = next(filter(None, map(environ.get, USER_VARIABLES)), None) or _user()
    try:
        return Actor.parse(f"{user} <{user}@{os.uname().nodename or 'localhost'}>")
    except InvalidName:
        return Actor("unknown", "unknown@localhost")


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"


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
        local = _local(self.opened.layout)
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

        _require(self.opened, "create", name)
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

        _require(self.opened, "maintain", old, new)
        return agent_rename(self._now(), old, new, reason=reason)

    def link(self, name: str, directory: str | os.PathLike[str]) -> Linked:
        """Tell where the linked workspace of an agent lies now."""
        from kaivc.ops.agent_link import agent_link

        _require(self.opened, "maintain", name)
        return agent_link(self._now(), name, os.fspath(directory))

    def remove(self, name: str, *, reason: str = "", dry_run: bool = False) -> Removed:
        """Remove an agent, a dirty workspace saved as a backup first; its versions and its history stay."""
        from kaivc.ops.agent_remove import agent_remove

        if not dry_run:
            _require(self.opened, "maintain", name)
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
            _require(self.opened, "create", name or os.path.basename(os.path.abspath(directory)))
        return import_(
            self.opened,
            os.fspath(directory),
            layout=layout,
            name=name,
            author=Actor.parse(author) if isinstance(author, str) else author,
            time=_epoch(self.opened.environ),
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

        _require(self.opened, "grant", *(agents or [EVERY]))
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
        _require(self.opened, "grant", *found.grant.agents)
        return token_revoke(self.opened, found.id)

    def role_grant(self, user: str, role: str, agents: Sequence[str] = ()) -> Granted:
        """Give a user of this machine, by login or uid, a role over agents."""
        from kaivc.ops.role_grant import role_grant

        _require(self.opened, "grant", *(agents or [EVERY]))
        return role_grant(self.opened, user, role, agents)

    def roles(self) -> tuple[User, ...]:
        """What users of this machine were granted; nothing where no rule binds anybody."""
        from kaivc.ops.role_list import role_list

        return role_list(self.opened)

    def role_revoke(self, user: str, role: str | None = None) -> tuple[User, ...]:
        """Take from a user of this machine one role, or all; what they were."""
        from kaivc.ops.role_revoke import role_revoke

        _require(self.opened, "grant", EVERY)
        return role_revoke(self.opened, user, role)

    # ------------------------------------------------------------ other homes

    def remote_add(self, name: str, url: str) -> RemoteNamed:
        """Note a remote: a path, a URL, or a bundle."""
        from kaivc.ops.remote_add import remote_add

        _require(self.opened, "maintain", EVERY)
        return remote_add(self.opened, name, url)

    def remotes(self) -> RemoteList:
        """The remotes, and how far the log of each agent had come there when it was last looked at."""
        from kaivc.ops.remote_list import remote_list

        return remote_list(self.opened)

    def remote_remove(self, name: str) -> RemoteRemoved:
        """Forget a remote; versions that came from it stay."""
        from kaivc.ops.remote_remove import remote_remove

        _require(self.opened, "maintain", EVERY)
        return remote_remove(self.opened, name)

    def remote_rename(self, old: str, new: str) -> RemoteRenamed:
        """Give a remote another name."""
        from kaivc.ops.remote_rename import remote_rename

        _require(self.opened, "maintain", EVERY)
        return remote_rename(self.opened, old, new)

    def fetch(self, remote: str = "origin", agents: Sequence[str] = (), *, ask: Ask = nobody) -> FetchedAll:
        """Bring what a remote has of some agents, or of all that both have; only ``refs/remotes/`` moves."""
        from kaivc.ops.fetch import fetch

        _require(self.opened, "current", *(agents or [EVERY]))
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

        _require(self.opened, "current" if agent in self.agents(removed=True) else "create", agent)
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
        """Keep a copy of some agents, or of all, at a git host of the other hash format; nothing is taken from there."""
        from kaivc.ops.mirror import mirror

        return mirror(self._now(), self._context(ask), remote, object_format, agents, dry_run=dry_run)

    def bundle(
        self, path: str | os.PathLike[str], agents: Sequence[str] = (), *, since: str | None = None
    ) -> Bundled:
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
            _require(self.opened, "current" if name in here else "create", name)
        return bundle_unbundle(
            self._now(), self._context(nobody), os.fspath(path), agents, reason=reason, live=live
        )

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
            _require(self.opened, "maintain", agent or EVERY)
        return check(self.opened, agent, repair=repair, dry_run=dry_run)

    def close(self) -> None:
        """Close the catalog."""
        self.opened.catalog.close()


@dataclass(frozen=True)
class Agent:
    """One agent: its versions, its workspace, its log."""

    repository: Repository

    @property
    def name(self) -> str:
        """Its name."""
        return self.repository.name

    @property
    def workspace(self) -> Path:
        """The live directory."""
        from pathlib import Path

        return Path(self.repository.workspace)

    @property
    def current(self) -> AgentVersion:
        """The version in force; NoVersionYet if there is none."""
        return known_versions.current(self.repository)

    def commit(
        self,
        *,
        bump: str | None = None,
        version: str | None = None,
        notes: str = "",
        author: str | Actor | None = None,
        snapshot_type: str = "manual",
        allow_empty: bool = False,
        op_id: str | None = None,
    ) -> AgentVersion:
        """Record the workspace as a version; the version."""
        return self.record(
            bump=bump,
            version=version,
            notes=notes,
            author=author,
            snapshot_type=snapshot_type,
            allow_empty=allow_empty,
            op_id=op_id,
        ).version

    def record(
        self,
        *,
        bump: str | None = None,
        version: str | None = None,
        notes: str = "",
        author: str | Actor | None = None,
        snapshot_type: str = "manual",
        allow_empty: bool = False,
        op_id: str | None = None,
    ) -> Committed:
        """As ``commit``, with what there is to say of it."""
        from kaivc.ops.commit import commit

        _require(self.repository.home, "version", self.name)
        return commit(
            self.repository,
            bump=bump,
            version=version,
            notes=notes,
            author=Actor.parse(author) if isinstance(author, str) else author,
            snapshot_type=snapshot_type,
            time=_epoch(self.repository.home.environ),
            allow_empty=allow_empty,
            op_id=op_id,
        )

    def status(self) -> Status:
        """How the workspace stands to ``current``."""
        from kaivc.ops.status import status

        return status(self.repository)

    def log(self, rev: str = "current", *, limit: int | None = None) -> History:
        """A version and its parents."""
        from kaivc.ops.log import log

        return log(self.repository, rev, limit=limit)

    def versions(self) -> VersionList:
        """All versions as a sequence, lowest number first; its ``damaged`` names those that cannot be read."""
        from kaivc.ops.versions import versions

        return versions(self.repository)

    def show(self, rev: str = "current") -> Shown:
        """What a version says and holds."""
        from kaivc.ops.show import show

        return show(self.repository, rev)

    def cat(self, path: str | bytes, rev: str = "current") -> StoredFile:
        """One file of a version."""
        from kaivc.ops.cat import cat

        return cat(self.repository, path, rev)

    def ls_tree(
        self,
        rev: str = "current",
        *paths: str | bytes,
        recursive: bool = False,
        show_trees: bool = False,
        only_trees: bool = False,
        sizes: bool = False,
    ) -> TreeListing:
        """What a version's directories hold."""
        from kaivc.ops.ls_tree import ls_tree

        return ls_tree(
            self.repository,
            rev,
            paths,
            recursive=recursive,
            show_trees=show_trees,
            only_trees=only_trees,
            sizes=sizes,
        )

    def rev_parse(self, rev: str = "current") -> Parsed:
        """The ids behind a revision."""
        from kaivc.ops.rev_parse import rev_parse

        return rev_parse(self.repository, rev)

    def diff(self, old: str = "current", new: str | None = None) -> Diff:
        """What differs between two revisions, or between one and the workspace."""
        from kaivc.ops.diff import diff

        return diff(self.repository, old, new)

    def rollback(
        self,
        to: str,
        *,
        reason: str = "",
        dry_run: bool = False,
        force: bool = False,
        live: bool = False,
        keep: Sequence[str | bytes] = (),
        op_id: str | None = None,
    ) -> MovePlan:
        """Let ``current`` point at another version, and bring the workspace there, but for what is to ``keep``."""
        from kaivc.ops.rollback import rollback

        if not dry_run:
            _require(self.repository.home, "current", self.name)
        return rollback(
            self.repository, to, reason=reason, dry_run=dry_run, force=force, live=live, keep=keep, op_id=op_id
        )

    def renumber(
        self,
        rev: str,
        *,
        to: str | None = None,
        bump: str | None = None,
        reason: str = "",
        op_id: str | None = None,
    ) -> Renumbered:
        """Give a version that was never pushed another number; its files, parent and notes stay."""
        from kaivc.ops.renumber import renumber

        _require(self.repository.home, "version", self.name)
        return renumber(self.repository, rev, to=to, bump=bump, reason=reason, op_id=op_id)

    def undo(
        self, *, reason: str = "", dry_run: bool = False, live: bool = False, op_id: str | None = None
    ) -> MovePlan:
        """Reverse the newest move of ``current``."""
        from kaivc.ops.undo import undo

        if not dry_run:
            _require(self.repository.home, "current", self.name)
        return undo(self.repository, reason=reason, dry_run=dry_run, live=live, op_id=op_id)

    def redo(
        self, *, reason: str = "", dry_run: bool = False, live: bool = False, op_id: str | None = None
    ) -> MovePlan:
        """Reverse the newest undo."""
        from kaivc.ops.redo import redo

        if not dry_run:
            _require(self.repository.home, "current", self.name)
        return redo(self.repository, reason=reason, dry_run=dry_run, live=live, op_id=op_id)

    def restore(
        self,
        *paths: str | bytes,
        source: str = "current",
        reason: str = "",
        dry_run: bool = False,
        live: bool = False,
        op_id: str | None = None,
    ) -> MovePlan:
        """Bring files of a version back into the workspace."""
        from kaivc.ops.restore import restore

        if not dry_run:
            _require(self.repository.home, "current", self.name)
        return restore(self.repository, paths, source=source, reason=reason, dry_run=dry_run, live=live, op_id=op_id)

    def gc(self, *, dry_run: bool = False, before: Callable[[GcPlan], None] | None = None) -> Collected:
        """Let backups expire, and give back the bytes of what no name leads to; ``before`` is told the plan first."""
        from kaivc.ops.gc import gc

        if not dry_run:
            _require(self.repository.home, "maintain", self.name)
        return gc(self.repository, dry_run=dry_run, before=before)

    def reflog(self, ref: str | None = "current", *, limit: int | None = None) -> Reflog:
        """The moves of a ref, newest first."""
        from kaivc.ops.reflog import reflog

        return reflog(self.repository, ref, limit=limit)

    def audit(self, rev: str | None = None, *, expect_head: str | None = None) -> AuditReport:
        """Recompute one version, or all, with the chain of op records; what differs is in the report."""
        from kaivc.ops.audit import audit

        return audit(self.repository.home, self.name, rev, expect_head=expect_head, release=__version__)

    def verify(self, rev: str | None = None, *, workspace: bool = False) -> Verified:
        """Re-hash one version, or all."""
        from kaivc.ops.verify import verify

        return verify(self.repository, rev, workspace=workspace)

    def checkout(self, rev: str, directory: str | os.PathLike[str]) -> CheckedOut:
        """Write the files of a version to a directory of their own."""
        from kaivc.ops.checkout import checkout

        return checkout(self.repository, rev, os.fspath(directory))

    def run(self, *command: str, dirty: bool = False) -> Ran:
        """Run the agent in its workspace."""
        from kaivc.ops.run import run

        _require(self.repository.home, "current", self.name)
        return run(self.repository, command, dirty=dirty)

    def snapshot_test(
        self,
        rev: str = "current",
        *command: str,
        state: str = "committed",
        commit: bool = False,
        author: str | Actor | None = None,
        say: Callable[[bytes], None] | None = None,
    ) -> SnapshotTested:
        """Run a version's check, or ``command``, in a throw-away layer apart from all else; what that changed.

        What the command prints goes to ``say`` as it is.
        """
        from kaivc.ops.snapshot_test import snapshot_test

        _require(self.repository.home, "snapshot", self.name)
        return snapshot_test(
            self.repository,
            rev,
            command,
            state=state,
            commit=commit,
            author=Actor.parse(author) if isinstance(author, str) else author,
            time=_epoch(self.repository.home.environ),
            say=say,
        )

    def snapshot_list(self) -> SnapshotList:
        """The snapshots that are committed, that wait, or that are under test."""
        from kaivc.ops.snapshot_list import snapshot_list

        return snapshot_list(self.repository)

    def snapshot_show(self, snapshot: str) -> SnapshotShown:
        """What a snapshot was made of, how its test ended, and what it changed."""
        from kaivc.ops.snapshot_show import snapshot_show

        return snapshot_show(self.repository, snapshot)

    def snapshot_promote(  # noqa: PLR0913 - a keyword for each flag
        self,
        snapshot: str,
        *,
        bump: str | None = None,
        version: str | None = None,
        notes: str = "",
        author: str | Actor | None = None,
        with_state: bool = False,
        force: bool = False,
        dry_run: bool = False,
        live: bool = False,
        op_id: str | None = None,
    ) -> SnapshotPromoted:
        """Make a committed snapshot a version, and let ``current`` point at it."""
        from kaivc.ops.snapshot_promote import snapshot_promote

        if not dry_run:
            _require(self.repository.home, "version", self.name)
        return snapshot_promote(
            self.repository,
            snapshot,
            bump=bump,
            version=version,
            notes=notes,
            author=Actor.parse(author) if isinstance(author, str) else author,
            time=_epoch(self.repository.home.environ),
            with_state=with_state,
            force=force,
            dry_run=dry_run,
            live=live,
            op_id=op_id,
        )

    def snapshot_drop(self, snapshot: str, *, reason: str = "", dry_run: bool = False) -> SnapshotDropped:
        """Take a snapshot away."""
        from kaivc.ops.snapshot_drop import snapshot_drop

        if not dry_run:
            _require(self.repository.home, "snapshot", self.name)
        return snapshot_drop(self.repository, snapshot, reason=reason, dry_run=dry_run)

    def export(self, directory: str | os.PathLike[str]) -> Exported:
        """Write everything as a bare git repository."""
        from kaivc.ops.export import export

        return export(self.repository, os.fspath(directory))

    def load(self, rev: str = "current") -> Path:
        """The path of a version's verified view; ChecksumMismatch if it is damaged."""
        from pathlib import Path

        from kaivc import intents, revisions, views

        with nullcontext() if self.repository.home.read_only else self.repository.lock():
            if not self.repository.home.read_only:
                intents.finish(self.repository)
            return Path(views.load(self.repository, revisions.resolve(self.repository, rev)))


def _require(home: OpenHome, act: str, *agents: str) -> None:
    """Raise PermissionDenied unless this process may do it to these agents: docs/how-to/run-a-server.md."""
    from kaivc.ops.authorize import authorize
    from kaivc.roles import Act

    authorize(home, Act(act), *agents)


def _epoch(environ: Mapping[str, str]) -> int | None:
    text = environ.get(EPOCH_VARIABLE)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > MAX_EPOCH_DIGITS:
        raise InvalidName(f"{EPOCH_VARIABLE}={text!r} is no time in whole seconds", unchanged="nothing was committed")
    return int(text)
