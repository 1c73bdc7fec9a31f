"""What real git gets when it pushes: https://git-scm.com/docs/gitprotocol-pack, version 0.

All commands of one push are one operation of one agent: they count together, or none does. What comes is checked as
whatever arrives in a home is; a home holds versions, so that a commit or a tag of another make is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from kaivc import landing, making, pktline
from kaivc.errors import KaiError, PermissionDenied, RefusedArrival, RefusedByRemote, StorageError
from kaivc.gitarrival import Limits, take_pack
from kaivc.gitrefs import Site
from kaivc.incoming import Incoming, unmeasured
from kaivc.names import snapshots_prefix
from kaivc.pktline import DATA, FLUSH, PROGRESS, Lines
from kaivc.records import dataclass
from kaivc.serving import FarHome, acts_of
from kaivc.wire import Entry, Offer, Update

Write = Callable[[bytes], object]

MAX_COMMANDS = 100_000
MAX_REF = 1000
MAX_REASON = 1000
"""Characters of what is said of one ref."""
DRAINED = 1 << 30
"""So many bytes of a pack that nobody wants are read, since git reads no answer before it has sent all."""
_ONLY = "a home takes `current`, snapshots and version tags: heads/current, heads/snapshots/NAME, tags/vX.Y.Z"

_FOREIGN = (
    "a home takes versions just as kai made them, each with its annotated tag; `kai commit` in a workspace makes one"
)


@dataclass(frozen=True)
class _Command:
    """One ref's move, by git's name."""

    ref: str
    old: bytes | None
    new: bytes | None


def receive_pack(site: Site, read: pktline.Read, write: Write, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
    """Take one push and report on each ref. TransportError for what is no push, before anything was written."""
    lines = Lines(read)
    words, commands = _commands(site, lines)
    if not commands:
        return
    report = _Report(words, write, site.told)
    try:
        agent, updates = _updates(site, commands)
    except KaiError as error:
        _drain(lines)
        report.refused(commands, error, {})
        return
    names = {update.ref: command.ref for update, command in zip(updates, commands, strict=True)}
    try:
        new = site.repository(agent) is None
        site.access.require(agent, acts_of(agent, updates) | (frozenset(["create"]) if new else frozenset()))
    except KaiError as error:
        _drain(lines)
        report.refused(commands, error, names)
        return
    report.send(_Push(site, agent, updates, limits).run, lines, commands, names)


# ---------------------------------------------------------------- what is asked


def _commands(site: Site, lines: Lines) -> tuple[dict[str, str], list[_Command]]:
    words: dict[str, str] = {}
    found: list[_Command] = []
    try:
        for packet in lines.to_flush(MAX_COMMANDS):
            if packet.startswith(b"shallow "):
                continue  # where its own history ends; what is missing here is said when it is looked for
            text, _, said = packet.partition(b"\0")
            if not found:
                words = pktline.capabilities(said.split())
            old, new, ref = text.decode().split(" ", 2)
            if len(ref) > MAX_REF or not ref.isprintable():
                raise ValueError("no name of a ref")  # noqa: TRY301 - one answer for all
            found.append(_Command(ref, _oid(site, old), _oid(site, new)))
    except EOFError:
        return words, []
    except ValueError as error:
        raise pktline.malformed("what is pushed is no list of refs and ids of this home's hash") from error
    if found and words.get("object-format", "sha1") != site.home.format.name:
        raise pktline.malformed(f"a push of another hash into a home of {site.home.format.name}")
    return words, found


def _oid(site: Site, text: str) -> bytes | None:
    found = bytes.fromhex(text)
    if len(found) != site.home.format.width:
        raise ValueError("an id of another hash")
    return found if any(found) else None


def _updates(site: Site, commands: Sequence[_Command]) -> tuple[str, list[Update]]:
    """The agent, and its own names of what is to move; RefusedByRemote for what no push may ask for."""
    agents: dict[str, None] = {}
    updates = []
    for it in commands:
        own = site.own_name(it.ref)
        if own is None or not landing.may_travel(*own) or "/backups/" in own[1]:
            raise _refused(it.ref, f"{it.ref} is no ref that a home takes", _ONLY)
        if it.new is None and not own[1].startswith(snapshots_prefix(own[0])):
            raise _refused(
                it.ref, f"{it.ref} cannot be deleted: only snapshots are", "roll back, or release another version"
            )
        if it.new is None and it.old is None:
            raise _refused(it.ref, f"{it.ref} is not there", "fetch with --prune")
        agents[own[0]] = None
        updates.append(Update(own[1], it.old, it.new))
    if len({it.ref for it in updates}) != len(updates):
        raise _refused(commands[0].ref, "a ref is to be moved twice", "push each once")
    if len(agents) > 1:
        raise _refused(
            commands[0].ref,
            f"a push is all or nothing, and so of one agent: this one is of {', '.join(list(agents)[:5])}",
            "push the refs of one agent at a time",
        )
    return next(iter(agents)), updates


def _refused(ref: str, what: str, hint: str) -> RefusedByRemote:
    return RefusedByRemote(what, unchanged="nothing moved", hint=hint, git_ref=ref)


def _drain(lines: Lines) -> None:
    left = DRAINED
    while left > 0 and (data := lines.read(1 << 16)):
        left -= len(data)


# ---------------------------------------------------------------- what is done


class _Push:
    """One push into one agent."""

    def __init__(self, site: Site, agent: str, updates: Sequence[Update], limits: Limits) -> None:
        self._site = site
        self._agent = agent
        self._updates = tuple(updates)
        self._limits = limits

    def run(self, lines: Lines) -> Callable[[], str]:
        """Take the pack; what then lets it count, and says what else is to be known."""
        if all(it.new is None for it in self._updates):
            return lambda: self._land(None)
        home, access = self._site.home, self._site.access
        repo = self._site.repository(self._agent)
        readable = landing.shown_refs(repo).values() if repo is not None else ()
        arriving = Incoming(home, self._agent, unmeasured(), access.name)
        try:
            with arriving:
                agent = repo or making.newborn(home, self._agent)
                offer = take_pack(lines.read, agent, arriving, readable, self._limits)
        except BaseException:
            self._forget(arriving)
            raise

        def land() -> str:
            try:
                return self._land(offer)
            finally:
                self._forget(arriving)

        return land

    def _forget(self, arriving: Incoming) -> None:
        """Leave nothing of a pack, nor a directory for an agent that is not there."""
        arriving.discard()
        home = self._site.home
        if home.catalog.agent(self._agent) is None:
            with suppress(StorageError):  # another push may use it
                home.vfs.remove_dir(home.layout.incoming(self._agent))

    def _land(self, offer: Offer | None) -> str:
        site, access = self._site, self._site.access
        said = f"{access.name} <git@localhost>"
        entry = Entry(os.urandom(8).hex(), said, "git push", self._updates, offer)
        done = FarHome(site.home, access).append(self._agent, entry)
        if done.backup is None:
            return ""
        return f"what the workspace held over here is kept as backups/{done.backup}"


# ---------------------------------------------------------------- what is said


class _Report:
    """What git is told of each ref, and its user in words."""

    def __init__(self, words: Mapping[str, str], write: Write, told: Callable[[KaiError], KaiError]) -> None:
        self._asked = "report-status" in words
        self._banded = "side-band-64k" in words
        self._write = write
        self._told = told

    def send(
        self,
        take: Callable[[Lines], Callable[[], str]],
        lines: Lines,
        commands: Sequence[_Command],
        names: Mapping[str, str],
    ) -> None:
        """Do it and report."""
        try:
            land = take(lines)
        except KaiError as error:
            _drain(lines)
            shown = self._told(error)
            self._tell(shown)
            self._report(_one_line(shown.what), [(it.ref, "the pack was not taken") for it in commands])
            return
        try:
            note = land()
        except KaiError as error:
            self.refused(commands, error, names)
            return
        if note:
            self._say(note)
        self._report("", [(it.ref, "") for it in commands])

    def refused(self, commands: Sequence[_Command], error: KaiError, names: Mapping[str, str]) -> None:
        """Nothing moved: the ref that is to blame says why, the others that they go with it."""
        error = self._told(error)
        self._tell(error)
        blamed = error.facts.get("git_ref") or names.get(str(error.facts.get("ref")))
        why = _one_line(error.what)
        if isinstance(error, PermissionDenied):
            blamed = None
        told = (
            (it.ref, why if blamed is None or it.ref == blamed else f"all or none, and {blamed} does not move")
            for it in commands
        )
        self._report("", told)

    def _tell(self, error: KaiError) -> None:
        self._say(_one_line(error.what))
        hint = _FOREIGN if isinstance(error, RefusedArrival) else error.hint
        if hint:
            self._say(_one_line(hint))

    def _say(self, text: str) -> None:
        if self._banded:
            for packet in pktline.banded(PROGRESS, f"kaivc: {text}\n".encode()):
                self._write(packet)

    def _report(self, broken: str, told: Iterable[tuple[str, str]]) -> None:
        if self._asked:
            parts = [pktline.line(f"unpack {broken or 'ok'}\n".encode())]
            for ref, why in told:
                parts.append(pktline.line((f"ng {ref} {why}\n" if why else f"ok {ref}\n").encode()))
            parts.append(FLUSH)
            report = b"".join(parts)
            for packet in pktline.banded(DATA, report) if self._banded else [report]:
                self._write(packet)
        if self._banded:
            self._write(FLUSH)


def _one_line(text: str) -> str:
    """Text that stands in one line, and is only text."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.split())[:MAX_REASON]
