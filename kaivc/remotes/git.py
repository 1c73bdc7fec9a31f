"""Any git host: versions are pushed to it and fetched from it by git's own protocol, over ssh, HTTP, git:// or a path.

It keeps refs and no log, and takes moves one by one unless it says that it can make all or none. A move says what the
ref must still point at, so that two that push at once do not undo each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import unquote, urlsplit

from kaivc import gitarrival, gitpacks, incoming
from kaivc.errors import (
    KaiError,
    LostRace,
    NoSuchAgent,
    RefusedArrival,
    RefusedByRemote,
    RefusedUrl,
    VersionConflict,
)
from kaivc.incoming import Incoming
from kaivc.names import tags_prefix
from kaivc.records import replace
from kaivc.remotes import credentials, gitlines, gitnames, gitpipes
from kaivc.remotes.base import Can, Context, Push, Sent
from kaivc.remotes.gitlines import RECEIVE, UPLOAD, Advertised, Command, Read, Side
from kaivc.remotes.gitpipes import Address, Piped
from kaivc.repository import Repository
from kaivc.storage.pack import MAGIC
from kaivc.wire import Head, Update

AGENT = "kaivc"
"""How this side names itself."""
FOREIGN = (
    "git takes what is no version: over there, put `current` back to one, and delete tags that kai did not make; "
    "what `kai mirror` wrote is for git alone"
)


class Session(Protocol):
    """One service of a repository, which takes one request."""

    advertised: Advertised

    def ask(self, request: Callable[[], Iterable[bytes]]) -> Read:
        """Send a request, made anew if it must be sent again; what reads the answer."""

    def close(self) -> None:
        """Let go."""


class Way(Protocol):
    """How a repository is reached."""

    @property
    def secrets(self) -> Collection[str]:
        """What must not be told, whoever says it."""

    @property
    def begin(self) -> Callable[[str], Session]:
        """Begins a session of a service."""

    def close(self) -> None:
        """Let go of all that sessions share."""


MakePack = Callable[[], Iterator[bytes]]
Packing = Callable[[Sequence[bytes], Advertised], MakePack]
"""Given what is wanted over there and what is there, what makes the pack; anew if it has to be sent again."""


def connect(context: Context, url: str) -> GitRemote:
    """The repository that a URL, a path or ``user@host:path`` names; RefusedUrl for one that names none."""
    return GitRemote(context, way(context, url))


def way(context: Context, url: str) -> Way:
    """How it is reached."""
    environ = context.environ
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower().removeprefix("git+") if separator else ""
    if not scheme and ":" in url.split("/", 1)[0]:
        where, _, path = url.partition(":")
        user, _, host = where.rpartition("@")
        return _over_ssh(context, Address(host, user, None, path))
    if not scheme:
        return Piped(lambda service: gitpipes.local(service, url, environ))
    parts = urlsplit(f"{scheme}://{rest}")
    name, path = parts.hostname or "", unquote(parts.path)
    if not path.isprintable():
        raise RefusedUrl("a URL holds control characters", unchanged="nothing was sent")
    if scheme == "file":
        return Piped(lambda service: gitpipes.local(service, path, environ))
    if scheme == "git":
        return Piped(lambda service: gitpipes.daemon(service, name, parts.port, path))
    if scheme == "ssh":
        path = path[1:] if path.startswith("/~") else path
        return _over_ssh(context, Address(name, unquote(parts.username or ""), parts.port, path))
    if scheme in ("http", "https"):
        from kaivc.remotes.githttp import HttpRepository

        return HttpRepository(context, f"{scheme}://{rest}", AGENT)
    raise RefusedUrl(f"there is no way to {scheme}://", unchanged="nothing was sent", hint="use ssh:// or https://")


def _over_ssh(context: Context, to: Address) -> Piped:
    return Piped(lambda service: gitpipes.over_ssh(service, to, context.environ, context.settings.ssh_command))


class GitRemote:
    """A repository that git's own protocol is spoken with."""

    home = ""

    def __init__(self, context: Context, reached: Way) -> None:
        self._context = context
        self._way = reached
        self._session: Session | None = None
        self._there: Advertised | None = None
        self._owners: dict[bytes, str | None] = {}
        self.can = Can.READ | Can.WRITE

    # ------------------------------------------------------------ what is there

    def close(self) -> None:
        """Let go."""
        self._drop()
        self._way.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What goes wrong within is told without secrets."""
        try:
            yield
        except KaiError as error:
            if not self._way.secrets:
                raise
            raise credentials.without(error, self._way.secrets) from None

    def _drop(self) -> None:
        session, self._session, self._there = self._session, None, None
        if session is not None:
            session.close()

    def _look(self) -> Advertised:
        """The refs over there, as they were told to this connection."""
        if self._there is None:
            with self._telling():
                self._session = self._way.begin(UPLOAD)
            self._there = self._session.advertised
            if not (self._there.can or self._there.refs):  # an empty one does not say to readers how it hashes
                self._there = self._as_writers_see_it()
        return self._there

    def _as_writers_see_it(self) -> Advertised:
        with self._telling():
            session = self._way.begin(RECEIVE)
        session.close()
        return session.advertised

    @contextmanager
    def _asking(self, request: Callable[[Advertised], list[bytes]], side: Side, *, shallow: bool) -> Iterator[Read]:
        """The pack that answers a request, over the session that is open, or another one."""
        with self._telling():
            session, self._session = self._session, None
            if session is None:
                session = self._way.begin(UPLOAD)
            try:
                there = session.advertised
                read = session.ask(lambda: request(there))
                yield gitlines.read_pack(read, there, side, shallow=shallow and "shallow" in there.can)
            finally:
                session.close()

    @property
    def object_format(self) -> str:
        """How it hashes."""
        return self._look().object_format

    def agents(self) -> tuple[str, ...]:
        """The agents that have a version there."""
        refs = self._look().refs
        owner = self._owner(refs) if gitnames.SHORT_CURRENT in refs else None
        return tuple(sorted({*gitnames.full_agents(refs), *([owner] if owner else [])}))

    def _owner(self, refs: Mapping[str, bytes]) -> str | None:
        """The agent that the short names are of; None if there are none, or they are of something else."""
        tag = gitnames.short_tag(refs)
        if tag is None:
            return None
        if tag not in self._owners:
            side = Side(self._context.progress)
            with self._asking(
                lambda there: gitlines.fetch_request(there, [tag], [], AGENT, depth=1), side, shallow=True
            ) as read:
                self._owners[tag] = gitnames.owner_in(read, self._look().object_format)
        return self._owners[tag]

    def _is_short(self, agent: str, refs: Mapping[str, bytes]) -> bool:
        """Whether an agent has the short names there, or would get them."""
        if agent in gitnames.full_agents(refs):
            return False
        if gitnames.short_tag(refs) is not None:
            return self._owner(refs) == agent
        # Without a tag nothing says whose it is: what was pushed in part goes on, and `current` has its lease.
        return gitnames.SHORT_CURRENT in refs or not gitnames.full_agents(refs)

    def head(self, agent: str) -> Head:
        """The refs of an agent; there is no log."""
        refs = self._look().refs
        found = gitnames.ours(agent, refs, short=self._is_short(agent, refs))
        if not found:
            raise NoSuchAgent(
                f"there is no agent {agent!r} in that repository",
                hint=f"`kai push {agent}` makes it there",
                name=agent,
            )
        return Head(agent, 0, b"", found)

    def log(self, agent: str, after: int) -> Iterator[bytes]:  # noqa: ARG002 - as ``Remote`` has it
        """A git host keeps no log."""
        return iter(())

    # ------------------------------------------------------------ reading

    @contextmanager
    def bring(self, repo: Repository, wants: Sequence[bytes], haves: Sequence[bytes]) -> Iterator[Incoming]:
        """What is missing, wholly arrived; a git host cannot go on where it was cut."""
        known = [oid for oid in haves if repo.store.find(oid) is not None]
        side = Side(repo.home.progress)
        with Incoming(repo.home, repo.name, incoming.unmeasured()) as arriving:
            with self._asking(
                lambda there: gitlines.fetch_request(there, wants, known, AGENT), side, shallow=False
            ) as read:
                offer = gitarrival.take_pack(read, repo, arriving, known)
            if offer is not None:
                try:
                    yield arriving
                except RefusedArrival as error:
                    error.hint = FOREIGN
                    raise
                return
        with Incoming(repo.home, repo.name, incoming.unmeasured()) as empty:
            empty.append(MAGIC)
            empty.measured(0)
            try:
                yield empty
            finally:
                empty.discard()

    # ------------------------------------------------------------ writing

    def send(self, repo: Repository, push: Push, theirs: Mapping[str, bytes]) -> Sent:
        """Send what is missing there, and ask for the moves; each is made only if its ref is where it is said to be."""

        def packing(wants: Sequence[bytes], there: Advertised) -> MakePack:
            haves = dict.fromkeys([*theirs.values(), *there.refs.values()])
            plan = gitpacks.missing(repo, wants, haves, thin="no-thin" not in there.can)
            return lambda: gitpacks.write_pack(repo, plan)

        return self.send_packed(repo, push, packing)

    def send_packed(self, repo: Repository, push: Push, packing: Packing) -> Sent:
        """The same, of packs that ``packing`` makes."""
        self._drop()
        with self._telling():
            session = self._way.begin(RECEIVE)
            try:
                short = self._is_short(repo.name, session.advertised.refs)
                sent = _Sending(repo, push, session, packing).run(short=short)
            finally:
                session.close()
        self._there = _after(session.advertised, repo.name, push, sent, short=short)
        told = {ref: credentials.blotted(why, self._way.secrets) for ref, why in sent.refused.items()}
        return replace(sent, refused=told)


def _after(there: Advertised, agent: str, push: Push, sent: Sent, *, short: bool) -> Advertised:
    """What was told before a push, and what the push made of it: nothing need be asked again."""
    moved = {gitnames.theirs(agent, it.ref, short=short): it.new for it in push.updates if it.ref in sent.moved}
    refs = {name: oid for name, oid in there.refs.items() if name not in moved}
    return Advertised({**refs, **{name: oid for name, oid in moved.items() if oid is not None}}, there.can)


class _Sending:
    """One push."""

    def __init__(self, repo: Repository, push: Push, session: Session, packing: Packing) -> None:
        self._repo = repo
        self._push = push
        self._session = session
        self._there = session.advertised
        self._packing = packing
        self._side = Side(repo.home.progress)
        self._size = 0

    def run(self, *, short: bool) -> Sent:
        """Do it; which moves were made. RefusedByRemote if none was."""
        moves = {gitnames.theirs(self._repo.name, it.ref, short=short): it for it in self._push.updates}
        done = [it.ref for name, it in moves.items() if self._there.refs.get(name) == it.new]
        left = {name: it for name, it in moves.items() if it.ref not in done}
        for name, it in left.items():
            self._expect(it, self._there.refs.get(name))
        if not left:
            return Sent(tuple(done))
        commands = [Command(name, it.old, it.new) for name, it in left.items()]
        wants = [it.new for it in left.values() if it.new is not None]
        make = self._packing(wants, self._there) if wants else lambda: iter(())
        read = self._session.ask(lambda: self._request(commands, make))
        refused = gitlines.read_report(read, self._there, self._side)
        said = {left[name].ref: why for name, why in refused.items() if name in left}
        moved = (*done, *(it.ref for it in left.values() if it.ref not in said))
        if said and not moved:
            raise self._refusal(said)
        told = {ref: f"{why} ({gitlines.hint_for(why)})" for ref, why in said.items()}
        return Sent(moved, told, self._size)

    def _expect(self, update: Update, found: bytes | None) -> None:
        """Say a lost race before anything is sent; the other side asks again."""
        if found == update.old:
            return
        prefix = tags_prefix(self._repo.name)
        if update.ref.startswith(prefix) and found is not None:
            number = update.ref.removeprefix(prefix)
            raise VersionConflict(
                f"{self._repo.name}@{number} is another version over there: {found.hex()[:12]}",
                unchanged="nothing moved",
                hint=f"if yours was never pushed, `kai renumber {self._repo.name}@{number}` gives it another number",
                ref=update.ref,
                found=found.hex(),
                sent=update.new.hex() if update.new else None,
            )
        raise LostRace(
            f"{update.ref} is not where it was over there: somebody moved it",
            unchanged="nothing moved",
            hint="fetch, look at what is there now, then run the command again",
            ref=update.ref,
            expected=update.old.hex() if update.old else None,
            found=found.hex() if found else None,
        )

    def _request(self, commands: Sequence[Command], make: MakePack) -> Iterator[bytes]:
        yield gitlines.push_request(self._there, commands, AGENT)
        self._size = 0
        for piece in make():
            self._size += len(piece)
            yield piece
            self._repo.home.progress("sending", self._size, None)

    def _refusal(self, said: Mapping[str, str]) -> RefusedByRemote:
        """One refusal for all; where a push is atomic, that of the ref that stopped it."""
        ref, why = min(said.items(), key=lambda it: "atomic" in it[1] or "transaction" in it[1])
        error = gitlines.refusal(f"{ref}: {why}", self._side.said)
        error.facts["refused"] = dict(said)
        return error
