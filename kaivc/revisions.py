"""Revisions: the texts that name a version, a snapshot or a backup of an agent.

A text is read as a value first, which needs no home, and found then. No text has two readings: a version has two
dots and the digits of a commit have none; every other form begins with a word or a sign of its own.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import assert_never

from kaivc import retention, versions
from kaivc.errors import ChecksumMismatch, InvalidName, NoSuchRevision
from kaivc.names import (
    ObjectId,
    RefName,
    Version,
    check_name,
    current_ref,
    heads_prefix,
    nearest,
    version_ref,
)
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.storage import index
from kaivc.storage.pack import RecordKind
from kaivc.versions import SHORT, AgentVersion

GRAMMAR = (
    "a revision is current, v1.2.0, ^1.2, current~2, @{1}, @{2026-11-01T12:00Z}, snapshots/ID, backups/SEQ "
    "or the first digits of a commit, at least 4"
)
MAX_TEXT = 256
MANY = 5
SECOND = 1_000_000_000

_STEP = r"[0-9]{0,9}\Z"
_ENTRY = r"[0-9]{1,9}\Z"
_SEQ = r"(?:0|[1-9][0-9]{0,11})\Z"
_DIGITS = r"[0-9a-f]{4,64}\Z"
_PARTIAL = r"v?(0|[1-9][0-9]{0,8})(?:\.(0|[1-9][0-9]{0,8}))?\Z"
_HOUR, _SIXTY = r"([01][0-9]|2[0-3])", r"([0-5][0-9])"
_MOMENT = (
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    rf"(?:[Tt ]{_HOUR}:{_SIXTY}(?::([0-5][0-9]|60)(?:\.([0-9]{{1,18}}))?)?(?:[Zz]|([+-]){_HOUR}:{_SIXTY}))?\Z"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# ---------------------------------------------------------------- values


@dataclass(frozen=True)
class Current:
    """``current``: the version in force."""

    def __str__(self) -> str:
        return "current"


@dataclass(frozen=True)
class Numbered:
    """``v1.2.0``: a version."""

    version: Version

    def __str__(self) -> str:
        return self.version.tag


@dataclass(frozen=True)
class Fits:
    """``^1.2``: the newest version that a caret range takes, as npm and cargo read it.

    ``parts`` are one to three numbers. The range ends where the first of them that is not 0 would change.
    """

    parts: tuple[int, ...]
    pre: str = ""

    def __str__(self) -> str:
        return "^" + ".".join(map(str, self.parts)) + (f"-{self.pre}" if self.pre else "")

    @property
    def lowest(self) -> Version:
        """The first number of the range."""
        major, minor, patch = (*self.parts, 0, 0)[:3]
        return Version(major, minor, patch, self.pre)

    @property
    def end(self) -> tuple[int, ...]:
        """The first number past the range."""
        at = next((place for place, part in enumerate(self.parts) if part), len(self.parts) - 1)
        return (*self.parts[:at], self.parts[at] + 1, 0, 0)[:3]

    def takes(self, version: Version) -> bool:
        """Whether a version lies in the range; a pre-release only if the range names one of the same number."""
        number = (version.major, version.minor, version.patch)
        if version.pre and not (self.pre and number == self.parts):
            return False
        return not version < self.lowest and number < self.end


@dataclass(frozen=True)
class Entry:
    """``@{1}``: where ``current`` was so many moves ago."""

    back: int

    def __str__(self) -> str:
        return f"@{{{self.back}}}"


@dataclass(frozen=True)
class Moment:
    """``@{2026-11-01T12:00Z}``: where ``current`` was at a time, in UTC.

    Without ``nanoseconds`` the whole second counts, as the log shows times.
    """

    seconds: int
    nanoseconds: int | None = None

    def __str__(self) -> str:
        whole = (EPOCH + timedelta(seconds=self.seconds)).replace(tzinfo=None).isoformat()
        return f"@{{{whole}{'' if self.nanoseconds is None else f'.{self.nanoseconds:09}'}Z}}"

    @property
    def last_ns(self) -> int:
        """The last nanosecond that is not after it."""
        return self.seconds * SECOND + (SECOND - 1 if self.nanoseconds is None else self.nanoseconds)


@dataclass(frozen=True)
class Digits:
    """``0f3c9a``: the commit whose id begins so."""

    digits: str

    def __str__(self) -> str:
        return self.digits


@dataclass(frozen=True)
class Snapshot:
    """``snapshots/ID``: a committed snapshot."""

    name: str

    def __str__(self) -> str:
        return f"snapshots/{self.name}"


@dataclass(frozen=True)
class Backup:
    """``backups/SEQ``: a workspace that was saved."""

    number: int

    def __str__(self) -> str:
        return f"backups/{self.number}"


@dataclass(frozen=True)
class Ancestor:
    """``REV~2``: so many parents before another revision."""

    of: Named
    back: int

    def __str__(self) -> str:
        return f"{self.of}~{self.back}"


Named = Current | Numbered | Fits | Entry | Moment | Digits | Snapshot | Backup
Revision = Named | Ancestor


# ---------------------------------------------------------------- text to value


def split(text: str) -> tuple[str, str | None]:
    """``AGENT@REV`` as its parts; REV is None for the agent alone. InvalidName if a part is empty."""
    agent, sign, rev = text.partition("@")
    if not agent or (sign and not rev):
        what = "no agent" if not agent else "no revision"
        raise InvalidName(f"{what} is named in {_quoted(text)}", hint=f"write AGENT or AGENT@REV; {GRAMMAR}")
    return agent, rev if sign else None


def parse(text: str) -> Revision:
    """Read a revision; a leading ``@`` may stand before any. InvalidName, with the grammar, otherwise."""
    name, tilde, rest = text.partition("~")
    steps = rest.split("~") if tilde else []
    named = Current() if tilde and not name else _named(name.removeprefix("@"))
    if named is None or len(text) > MAX_TEXT or not all(re.match(_STEP, step) for step in steps):
        raise InvalidName(f"{_quoted(text)} is not a revision", hint=GRAMMAR, revision=text[:MAX_TEXT])
    return Ancestor(named, sum(int(step or 1) for step in steps)) if steps else named


def _named(text: str) -> Named | None:
    if text == "current":
        return Current()
    if text.startswith("^"):
        return _fits(text[1:])
    if text.startswith(("{", "current@{")) and text.endswith("}"):
        return _logged(text.removeprefix("current@")[1:-1])
    if "/" in text:
        return _branched(*text.split("/", 1))
    try:
        return Numbered(Version.parse(text))
    except InvalidName:
        return Digits(text.lower()) if re.match(_DIGITS, text.lower()) else None


def _branched(kind: str, name: str) -> Backup | Snapshot | None:
    if kind == "backups":
        return Backup(int(name)) if re.match(_SEQ, name) else None
    try:
        return Snapshot(check_name("snapshot", name)) if kind == "snapshots" else None
    except InvalidName:
        return None


def _fits(text: str) -> Fits | None:
    try:
        it = Version.parse(text)
    except InvalidName:
        match = re.match(_PARTIAL, text)
        return Fits(tuple(int(part) for part in match.groups() if part is not None)) if match else None
    return Fits((it.major, it.minor, it.patch), it.pre)


def _logged(text: str) -> Entry | Moment | None:
    if re.match(_ENTRY, text):
        return Entry(int(text))
    match = re.match(_MOMENT, text)
    if match is None:
        return None
    day, hours, minutes, seconds, fraction, sign, east_hours, east_minutes = match.groups()
    east = timedelta(hours=int(east_hours or 0), minutes=int(east_minutes or 0))
    try:
        time = datetime.fromisoformat(f"{day}T{hours or '00'}:{minutes or '00'}").replace(tzinfo=UTC)
        time += timedelta(seconds=int(seconds or 0)) - (-east if sign == "-" else east)
    except (ValueError, OverflowError):
        return None
    return Moment((time - EPOCH) // timedelta(seconds=1), int(fraction[:9].ljust(9, "0")) if fraction else None)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "...")


# ---------------------------------------------------------------- value to version


def resolve(repo: Repository, text: str) -> AgentVersion:
    """The version, snapshot or backup that a text names: ``REV``, or ``AGENT@REV`` of this agent.

    NoSuchRevision, with the nearest names, whether or not it is well-formed; NoVersionYet; ChecksumMismatch if what
    it names is damaged.
    """
    try:
        revision = parse(text.removeprefix(f"{repo.name}@"))
    except InvalidName as error:
        raise _miss(repo, text[:MAX_TEXT], f"{repo.name} has no revision {_quoted(text)}", error.hint) from None
    return find(repo, revision)


def find(repo: Repository, revision: Revision) -> AgentVersion:
    """The version, snapshot or backup that a revision names; raises what ``resolve`` raises."""
    match revision:
        case Current():
            return versions.current(repo)
        case Numbered() | Fits():
            return _numbered(repo, revision)
        case Entry() | Moment():
            return _was_current(repo, revision)
        case Digits():
            return _begins(repo, revision)
        case Snapshot() | Backup():
            return _branch(repo, revision)
        case Ancestor():
            return _ancestor(repo, revision)
    assert_never(revision)


def _numbered(repo: Repository, revision: Numbered | Fits) -> AgentVersion:
    if isinstance(revision, Numbered):
        name = version_ref(repo.name, revision.version)
        if repo.ref(name) is None:
            raise missing(repo, revision)
        return versions.of_tag(repo, name)
    fitting = [number for number in versions.numbers(repo) if revision.takes(number)]
    if not fitting:
        raise missing(repo, revision, "no version fits")
    return versions.of_tag(repo, version_ref(repo.name, fitting[-1]))


def _was_current(repo: Repository, revision: Entry | Moment) -> AgentVersion:
    moves = repo.reflog(current_ref(repo.name), revision.back + 1 if isinstance(revision, Entry) else -1)
    if not moves:
        return versions.current(repo)  # which says that there is no version yet
    if isinstance(revision, Entry):
        found = next(iter(moves[revision.back :]), None)
        why = f"the log of `current` ends at @{{{len(moves) - 1}}}"
    else:
        found = next((move for move in moves if move.time_ns <= revision.last_ns), None)
        why = f"the first version came in force at {versions.rfc3339(moves[-1].time_ns // SECOND)}"
    if found is None or found.new is None:
        raise missing(repo, revision, why)
    return versions.describe(repo, found.new)


def _begins(repo: Repository, revision: Digits) -> AgentVersion:
    digits, width = revision.digits, repo.home.format.width
    found = index.beginning(repo.catalog, repo.id, digits, width, RecordKind.COMMIT, MANY + 1)
    if not found:
        raise missing(repo, revision)
    if len(found) > 1:
        ids = [oid.hex() for oid in found]
        shown = [f"{oid[: max(SHORT, len(digits) + 1)]} ({_called(repo, oid)})" for oid in ids[:MANY]]
        more = ", ..." if len(ids) > MANY else ""
        raise NoSuchRevision(
            f"{digits!r} begins several commits of {repo.name}: {', '.join(shown)}{more}",
            hint="give more digits",
            revision=digits,
            nearest=ids[:MANY],
        )
    return versions.describe(repo, ObjectId(found[0]))


def _called(repo: Repository, commit: str) -> str:
    try:
        return name_of(repo, versions.describe(repo, ObjectId(bytes.fromhex(commit))))
    except ChecksumMismatch:
        return "damaged"


def _branch(repo: Repository, revision: Snapshot | Backup) -> AgentVersion:
    name = RefName(f"{heads_prefix(repo.name)}{revision}")
    oid = repo.ref(name)
    if oid is not None:
        return versions.describe(repo, oid)
    dropped = retention.collected(repo, name)
    if dropped is not None:
        raise missing(repo, revision, f"it was collected at {versions.rfc3339(dropped.time_ns // SECOND)}")
    last = next(iter(repo.reflog(name, 1)), None)
    raise missing(repo, revision, f"gone since {versions.rfc3339(last.time_ns // SECOND)}" if last else "")


def _ancestor(repo: Repository, revision: Ancestor) -> AgentVersion:
    found = find(repo, revision.of)
    before = versions.ancestors(repo, found)
    for steps in range(revision.back):
        older = next(before, None)
        if older is None:
            raise missing(repo, revision, f"{name_of(repo, found)} at {revision.of}~{steps} has no parent")
        found = older
    return found


# ---------------------------------------------------------------- version to text


def name_of(repo: Repository, version: AgentVersion) -> str:
    """What people call it: ``v1.2.0``, ``backups/7``, ``snapshots/ID``; the first digits of what no ref names."""
    if version.version is not None:
        return version.tag
    prefix = heads_prefix(repo.name)
    refs = (name.removeprefix(prefix) for name, oid in repo.refs(prefix).items() if oid == version.oid)
    return next(refs, version.tag)


def abbreviate(repo: Repository, oid: ObjectId) -> str:
    """The first digits of a commit, 12 or as many as only it has."""
    digits, width = oid.hex(), repo.home.format.width
    for length in range(SHORT, len(digits)):
        if len(index.beginning(repo.catalog, repo.id, digits[:length], width, RecordKind.COMMIT, 2)) == 1:
            return digits[:length]
    return digits


# ---------------------------------------------------------------- misses


def missing(repo: Repository, revision: Revision, why: str = "") -> NoSuchRevision:
    """The error for a revision that names nothing, with the nearest names."""
    text = str(revision)
    return _miss(repo, text, f"{repo.name} has no revision {text!r}" + (f": {why}" if why else ""))


def _miss(repo: Repository, text: str, what: str, grammar: str = "") -> NoSuchRevision:
    close = _nearest(repo, text)
    meant = f"did you mean {', '.join(close)}?" if close else f"make a version with `kai commit {repo.name}`"
    return NoSuchRevision(what, hint="; ".join(filter(None, (meant, grammar))), revision=text, nearest=close)


def _nearest(repo: Repository, text: str) -> list[str]:
    """The names most like a text; the newest versions if none is like it."""
    tags = [number.tag for number in versions.numbers(repo)]
    prefix = heads_prefix(repo.name)
    branches = [name.removeprefix(prefix) for name in repo.refs(prefix)]
    word = text[:MAX_TEXT].partition("@")[2] or text[:MAX_TEXT]
    word = word.partition("~")[0].lstrip("^")
    short = [name for name in branches if word and name.partition("/")[2] == word]
    if word[:1].isdigit():
        word = f"v{word}"
    return list(dict.fromkeys([*short, *nearest(word, [*tags, *branches])]))[:3] or tags[:-4:-1]
