"""What real git gets when it clones or fetches: https://git-scm.com/docs/gitprotocol-pack, version 0, stateless.

::

    for piece in advertise(site, "git-upload-pack"): ...     # what there is
    upload_pack(site, read, write)                           # one request: what is wanted and had -> a pack

There is no HTTP in here. Only what a shown ref points at may be asked for, and only what such a ref reaches counts as
had: what else is stored is as good as absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kaivc import adminlog, gitpacks, parcels, pktline
from kaivc.errors import KaiError, RefusedByRemote
from kaivc.gitpacks import PackPlan
from kaivc.gitrefs import Site
from kaivc.names import ObjectId
from kaivc.pktline import DATA, FATAL, FLUSH, PROGRESS, Lines
from kaivc.records import dataclass, field
from kaivc.repository import Repository
from kaivc.storage.gitobjects import Kind
from kaivc.storage.index import ObjectRow

UPLOAD, RECEIVE = "git-upload-pack", "git-receive-pack"
MAX_WANTS = 200_000
MAX_HAVES = 200_000
ALL = 0x7FFFFFFF
"""The depth that git asks for when it wants everything."""
_UPLOADS = "multi_ack_detailed no-done side-band-64k thin-pack shallow no-progress allow-tip-sha1-in-want"
_RECEIVES = "report-status delete-refs side-band-64k quiet atomic ofs-delta"

Write = Callable[[bytes], object]


# ---------------------------------------------------------------- what there is


def advertise(site: Site, service: str) -> Iterator[bytes]:
    """The refs of a site and what the service can; NoSuchAgent, PermissionDenied before the first piece."""
    if service == UPLOAD:
        site.require()
        lines = _shown(site)
        words = f"{_UPLOADS} symref=HEAD:{site.head}" if site.head else _UPLOADS
    else:
        if site.agent is not None:
            site.access.require(site.agent, frozenset(["create"] if not site.repositories else ()))
        lines = [(ref, oid) for ref, oid in site.refs.items()]
        words = _RECEIVES
    words += f" object-format={site.home.format.name} agent=kaivc"
    return _advertised(lines or [("capabilities^{}", ObjectId(bytes(site.home.format.width)))], words)


def _advertised(lines: Iterable[tuple[str, ObjectId]], words: str) -> Iterator[bytes]:
    said = "\0" + words
    for ref, oid in lines:
        yield pktline.line(f"{oid.hex()} {ref}{said}\n".encode())
        said = ""
    yield FLUSH


def _shown(site: Site) -> list[tuple[str, ObjectId]]:
    found = [("HEAD", site.refs[site.head])] if site.head else []
    for ref, oid in site.refs.items():
        found.append((ref, oid))
        commit = site.peeled(ref, oid)
        if commit is not None:
            found.append((f"{ref}^{{}}", commit))
    return found


# ---------------------------------------------------------------- one request


@dataclass
class _Asked:
    """What one request asks for, by agent, and what its asker has."""

    words: dict[str, str] = field(default_factory=dict)
    wants: dict[str, list[ObjectId]] = field(default_factory=dict)
    had: dict[str, list[ObjectId]] = field(default_factory=dict)
    shallow: set[bytes] = field(default_factory=set)
    depth: int = 0


def upload_pack(site: Site, read: pktline.Read, write: Write) -> None:
    """Answer one request of a fetch: acknowledgements, then perhaps a pack.

    NoSuchAgent before anything is written; what else goes wrong is told as git tells it.
    """
    site.require()
    lines = Lines(read)
    try:
        asked = _asked(site, lines)
        if not asked.wants:
            return
        cut = _Cut(site, asked)
        for piece in cut.told():
            write(piece)
        whole = _Negotiation(site, asked, lines, write).run()
    except KaiError as error:
        write(pktline.line(f"ERR kaivc: {site.told(error).what}\n".encode()))
        return
    if whole:
        _send(site, asked, cut, write)


def _asked(site: Site, lines: Lines) -> _Asked:
    asked = _Asked()
    tips = _Tips(site)
    try:
        packets = lines.to_flush(MAX_WANTS)
        for number, packet in enumerate(packets):
            verb, _, rest = packet.partition(b" ")
            if verb == b"want":
                oid, *words = rest.split()
                if number == 0:
                    asked.words = pktline.capabilities(words)
                    _check_format(site, asked.words)
                agent = tips.agent(_oid(site, oid))
                wanted = asked.wants.setdefault(agent, [])
                if _oid(site, oid) not in wanted[-1:]:
                    wanted.append(_oid(site, oid))
            elif verb == b"shallow":
                asked.shallow.add(_oid(site, rest))
            elif verb == b"deepen" and rest.isdigit() and len(rest) <= 10:  # noqa: PLR2004 - a C int
                asked.depth = min(int(rest), ALL)
            else:
                raise pktline.malformed(f"{packet[:40]!r} is nothing that can be asked for")
    except ValueError as error:
        raise pktline.malformed("what is wanted is no list of ids") from error
    return asked


def _check_format(site: Site, words: dict[str, str]) -> None:
    said = words.get("object-format", site.home.format.name)  # git does not say it in this version
    if said != site.home.format.name:
        raise pktline.malformed(f"objects by {said} are asked for in a home of {site.home.format.name}")


def _oid(site: Site, text: bytes) -> ObjectId:
    found = bytes.fromhex(text.decode("ascii", "replace"))
    if len(found) != site.home.format.width:
        raise ValueError("an id of another hash")
    return ObjectId(found)


class _Tips:
    """What may be asked for, and whose it is: what shown refs point at, and the commits of versions."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._agents: dict[bytes, str] = {}
        for ref, oid in site.refs.items():
            self._agents.setdefault(oid, site.of(ref).name)
        self._peeled = False

    def agent(self, oid: ObjectId) -> str:
        """Whose it is; TransportError for anything else."""
        if oid not in self._agents and not self._peeled:
            self._peeled = True
            for ref, tip in self._site.refs.items():
                commit = self._site.peeled(ref, tip)
                if commit is not None:
                    self._agents.setdefault(commit, self._site.of(ref).name)
        found = self._agents.get(oid)
        if found is None:
            raise RefusedByRemote(
                f"{oid.hex()} is nothing that a ref points at",
                unchanged="nothing was sent",
                hint="fetch again: something moved meanwhile",
            )
        return found


class _History:
    """The commits that the shown refs of one agent reach, followed as far as they are asked for."""

    def __init__(self, repo: Repository, tips: Iterable[ObjectId]) -> None:
        self._store = repo.store
        self._todo = list(tips)
        self._known: set[bytes] = set()

    def __contains__(self, oid: bytes) -> bool:
        if oid in self._known:
            return True
        if self._store.find(oid) is None:
            return False
        while self._todo and oid not in self._known:
            at = self._todo.pop()
            if at in self._known:
                continue
            self._known.add(at)
            if self._store.kind(at) is Kind.TAG:
                self._todo.append(self._store.tag(at).target)
            elif (parent := self._store.commit(at).parent) is not None:
                self._todo.append(parent)
        return oid in self._known


def _histories(site: Site, agents: Iterable[str]) -> dict[str, _History]:
    tips: dict[str, list[ObjectId]] = {name: [] for name in agents}
    for ref, oid in site.refs.items():
        name = site.of(ref).name
        if name in tips:
            tips[name].append(oid)
    return {name: _History(site.repositories[name], found) for name, found in tips.items()}


class _Negotiation:
    """What both sides have, found as git's own server does it (upload-pack.c)."""

    def __init__(self, site: Site, asked: _Asked, lines: Lines, write: Write) -> None:
        self._site = site
        self._asked = asked
        self._lines = lines
        self._write = write
        self._detailed = "multi_ack_detailed" in asked.words
        self._histories = _histories(site, asked.wants)
        self._last: ObjectId | None = None
        self._common: set[bytes] = set()
        self._judged = 0

    def run(self) -> bool:
        """Whether it has come to its end, so that the pack is sent."""
        ready = False
        for _ in range(MAX_HAVES):
            try:
                packet = self._lines.next()
            except EOFError:
                return False
            if packet is None:
                ready = ready or (self._detailed and self._enough())
                if ready and self._last is not None:
                    self._say("ACK", self._last, "ready")
                self._write(pktline.line(b"NAK\n"))
                if ready and "no-done" in self._asked.words:
                    break
                continue
            if packet == b"done":
                break
            self._had(self._have(packet))
        else:
            raise pktline.malformed(f"more than {MAX_HAVES} commits that one has")
        if self._last is None:
            self._write(pktline.line(b"NAK\n"))
        elif self._detailed:
            self._say("ACK", self._last)
        return True

    def _have(self, packet: bytes) -> ObjectId:
        verb, _, rest = packet.partition(b" ")
        try:
            if verb == b"have":
                return _oid(self._site, rest)
        except ValueError:
            pass
        raise pktline.malformed(f"{packet[:40]!r} is nothing that one has")

    def _say(self, *words: str | ObjectId) -> None:
        texts = [word if isinstance(word, str) else word.hex() for word in words]
        self._write(pktline.line(" ".join(texts).encode() + b"\n"))

    def _had(self, oid: ObjectId) -> None:
        names = [name for name, history in self._histories.items() if oid in history]
        if not names:
            return
        first, self._last = self._last is None, oid
        self._common.add(oid)
        for name in names:
            self._asked.had.setdefault(name, []).append(oid)
        if self._detailed:
            self._say("ACK", oid, "common")
        elif first:
            self._say("ACK", oid)

    def _enough(self) -> bool:
        """Whether all that is wanted goes back to something that both have; looked at when more is known to be had."""
        if len(self._common) == self._judged:
            return False
        self._judged = len(self._common)
        good: set[bytes] = set(self._common)
        for name, wants in self._asked.wants.items():
            store = self._site.repositories[name].store
            for want in wants:
                seen = []
                at: ObjectId | None = store.tag(want).target if store.kind(want) is Kind.TAG else want
                while at is not None and at not in good:
                    seen.append(at)
                    at = store.commit(at).parent
                if at is None:
                    return False
                good.update(seen)
        return True


# ---------------------------------------------------------------- shallow clones


class _Cut:
    """Where the history of whoever asks ends, now and before: commits whose parents it does not have."""

    def __init__(self, site: Site, asked: _Asked) -> None:
        self._site = site
        self._asked = asked
        self.new: set[bytes] = set()
        self.opened: set[bytes] = set()
        if asked.depth == ALL:
            self._open()
        elif asked.depth:
            for name in asked.wants:
                self._deepen(name)

    @property
    def is_plain(self) -> bool:
        """Whether there is no end but the first version."""
        return not self._asked.shallow and not self.new

    def _open(self) -> None:
        """Let no history end early; what lies behind where one did is wanted too."""
        for name, history in _histories(self._site, self._site.repositories).items():
            for oid in sorted(self._asked.shallow):
                if oid in history:
                    self.opened.add(oid)
                    self._asked.wants.setdefault(name, []).append(ObjectId(oid))

    def _deepen(self, agent: str) -> None:
        store = self._site.repositories[agent].store
        inner: dict[bytes, int] = {}
        for want in self._asked.wants[agent]:
            at: ObjectId | None = store.tag(want).target if store.kind(want) is Kind.TAG else want
            left = self._asked.depth
            while at is not None and inner.get(at, 0) < left:
                inner[at] = left
                at, left = store.commit(at).parent, left - 1
        for oid, left in inner.items():
            if left == 1 and store.commit(ObjectId(oid)).parent is not None:
                self.new.add(oid)
            elif oid in self._asked.shallow:
                self.opened.add(oid)

    def told(self) -> Iterator[bytes]:
        """What git is told of it; nothing unless it asked for a depth."""
        if self._asked.depth:
            for oid in sorted(self.new - self._asked.shallow):
                yield pktline.line(b"shallow %s\n" % oid.hex().encode())
            for oid in sorted(self.opened):
                yield pktline.line(b"unshallow %s\n" % oid.hex().encode())
            yield FLUSH

    def rows(self, agent: str) -> list[ObjectRow]:
        """All that must travel of one agent, where histories end somewhere."""
        repo, asked = self._site.repositories[agent], self._asked
        store = repo.store
        had = _behind(repo, asked.had.get(agent, ()), asked.shallow)
        wanted = _behind(repo, asked.wants[agent], self.new | (asked.shallow - self.opened))
        commits = [oid for oid in wanted if oid not in had]
        parents = (store.commit(oid).parent for oid in commits)
        known = [oid for oid in (*parents, *asked.had.get(agent, ())) if oid is not None and oid in had]
        # Below a commit that is deepened, what it holds is there.
        known += [ObjectId(oid) for oid in self.opened if oid in had]
        tags = [oid for oid in asked.wants[agent] if store.kind(oid) is Kind.TAG]
        return parcels.rows_between(repo, tags, commits, known)


def _behind(repo: Repository, tips: Iterable[ObjectId], ends: set[bytes]) -> list[ObjectId]:
    """The commits of these, and all before them down to ``ends``; those of the tips first."""
    store = repo.store
    found = dict.fromkeys(store.tag(tip).target if store.kind(tip) is Kind.TAG else tip for tip in tips)
    for tip in list(found):
        at = None if tip in ends else store.commit(tip).parent
        while at is not None and at not in found:
            found[at] = None
            at = None if at in ends else store.commit(at).parent
    return list(found)


# ---------------------------------------------------------------- the pack


def _send(site: Site, asked: _Asked, cut: _Cut, write: Write) -> None:
    banded = "side-band-64k" in asked.words
    quiet = "no-progress" in asked.words or not banded
    try:
        parts = _parts(site, asked, cut)
        if not quiet:
            count, size = sum(len(plan.rows) for _, plan in parts), sum(plan.size for _, plan in parts)
            told = f"kaivc: sending {count} objects, {size} bytes of content\n".encode()
            for packet in pktline.banded(PROGRESS, told):
                write(packet)
        for piece in gitpacks.write_packs(site.home, parts):
            for packet in pktline.banded(DATA, piece) if banded else [piece]:
                write(packet)
    except KaiError as error:
        if not banded:
            raise
        adminlog.note(site.home, ", ".join(asked.wants), error)
        for packet in pktline.banded(FATAL, f"kaivc: {site.told(error).what}\n".encode()):
            write(packet)
        return
    if banded:
        write(FLUSH)


def _parts(site: Site, asked: _Asked, cut: _Cut) -> list[tuple[Repository, PackPlan]]:
    """What goes of each agent; what several have goes once."""
    parts: list[tuple[Repository, PackPlan]] = []
    there: set[bytes] = set()
    for name, wants in asked.wants.items():
        repo = site.repositories[name]
        if cut.is_plain:
            # What lies behind what it has it has too: `current` may have been rolled back to there.
            had = _behind(repo, asked.had.get(name, ()), set())
            rows, near = parcels.rows_missing_and_near(repo, wants, had)
        else:
            rows, near = cut.rows(name), []
        fresh = [row for row in rows if row.id not in there]
        parts.append((repo, gitpacks.plan_of(fresh, near if "thin-pack" in asked.words else ())))
        there.update(row.id for row in rows)
    return parts
