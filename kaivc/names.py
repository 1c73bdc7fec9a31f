"""Names and their values: agents, refs, versions, actors, ref updates.

Every name that reaches a path or a ref passes through here, so that what is built from one is safe.
"""

from __future__ import annotations

import re
from typing import NewType

from kaivc.errors import InvalidName
from kaivc.records import dataclass

ObjectId = NewType("ObjectId", bytes)
"""The raw id of a git object: 20 bytes in a SHA-1 home, 32 in a SHA-256 home."""

RefName = NewType("RefName", str)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_PRE = rf"(?:{_NUMBER}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(rf"v?({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_PRE}(?:\.{_PRE})*))?\Z")
_DEVICES = frozenset(["con", "prn", "aux", "nul", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10))])
MAX_PRERELEASE = 64


def is_name(name: object) -> bool:
    """Whether an agent, remote or snapshot may have it; what is built from it stays where it belongs."""
    if not isinstance(name, str) or not _NAME.match(name):
        return False
    return ".." not in name and not name.endswith((".", ".lock")) and name.split(".", 1)[0] not in _DEVICES


def check_name(kind: str, name: str) -> str:
    """Return ``name`` if an agent, remote or snapshot may have it; InvalidName otherwise."""
    if not is_name(name):
        raise InvalidName(
            f"{name!r:.100} is not a valid {kind} name",
            hint="use a-z, 0-9, '.', '_' and '-', starting with a letter or digit, at most 63 characters; "
            "no '..', no '.lock' at the end, no device name",
            name=name,
        )
    return name


@dataclass(frozen=True)
class Version:
    """A semantic version without build metadata (https://semver.org, section 11 for the order)."""

    major: int
    minor: int
    patch: int
    pre: str = ""

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read ``1.2.3``, ``v1.2.3`` or ``1.2.3-rc.1``; InvalidName otherwise."""
        match = _VERSION.match(text)
        if not match or len(match[4] or "") > MAX_PRERELEASE:
            hint = "use MAJOR.MINOR.PATCH, optionally with -PRERELEASE"
            if "+" in text:
                hint += "; build metadata is not kept in a version number"
            raise InvalidName(f"{text!r:.100} is not a version number", hint=hint, version=text)
        return cls(int(match[1]), int(match[2]), int(match[3]), match[4] or "")

    @property
    def key(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        """What versions are ordered by."""
        parts = tuple(
            (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in self.pre.split(".") if part
        )
        return self.major, self.minor, self.patch, not self.pre, parts

    def bump(self, level: str) -> Version:
        """The next version at ``level``: major, minor or patch.

        A pre-release's next patch is its own release.
        """
        if level == "major":
            return _fitting(self.major + 1, 0, 0)
        if level == "minor":
            return _fitting(self.major, self.minor + 1, 0)
        if level == "patch":
            return _fitting(self.major, self.minor, self.patch + (not self.pre))
        raise InvalidName(f"{level!r} is not a level to bump", hint="use major, minor or patch", level=level)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + (f"-{self.pre}" if self.pre else "")

    def __lt__(self, other: Version) -> bool:
        return self.key < other.key

    @property
    def tag(self) -> str:
        """The last part of the tag's name: ``v1.2.3``."""
        return f"v{self}"


def _fitting(major: int, minor: int, patch: int) -> Version:
    """The version of these numbers, if it can be read again once it is written; InvalidName otherwise."""
    found = Version(major, minor, patch)
    try:
        return Version.parse(str(found))
    except InvalidName as error:
        raise InvalidName(f"there is no version {found}: the number is too large", hint="name another") from error


FIRST_VERSION = Version(1, 0, 0)

_OP_ID = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z"


def check_op_id(op_id: str | None) -> str | None:
    """Return an operation id that a user may choose, or None; InvalidName otherwise."""
    if op_id is not None and not re.match(_OP_ID, op_id):
        raise InvalidName(
            f"{op_id!r:.100} is not an operation id",
            unchanged="nothing moved",
            hint="use at most 64 letters, digits, '-' and '_'",
        )
    return op_id


# ---------------------------------------------------------------- actors

_ACTOR = re.compile(r"([^<>\x00-\x1f\x7f]*[^<>\x00-\x20\x7f]) <([^<>\x00-\x20\x7f]*)>\Z")
MAX_ACTOR = 256


@dataclass(frozen=True)
class Actor:
    """Who did it, as git writes it: ``Name <mail>``."""

    name: str
    mail: str

    @classmethod
    def parse(cls, text: str) -> Actor:
        """Read ``Name <mail>``; InvalidName otherwise."""
        match = _ACTOR.match(text.strip())
        if not match or len(text) > MAX_ACTOR or not text.isprintable():
            raise InvalidName(f"{text!r:.100} is not an author", hint='use "Name <mail@example.org>"', author=text)
        return cls(match[1].strip(), match[2])

    def __str__(self) -> str:
        return f"{self.name} <{self.mail}>"


# ---------------------------------------------------------------- refs


def current_ref(agent: str) -> RefName:
    """The branch of the version in force."""
    return RefName(f"refs/heads/{agent}/current")


def version_ref(agent: str, version: Version) -> RefName:
    """The tag of a version."""
    return RefName(f"refs/tags/{agent}/{version.tag}")


def backup_ref(agent: str, number: int) -> RefName:
    """The branch of a saved workspace."""
    return RefName(f"refs/heads/{agent}/backups/{number}")


def snapshots_prefix(agent: str) -> str:
    """What the branch of every committed snapshot begins with."""
    return f"refs/heads/{agent}/snapshots/"


def snapshot_ref(agent: str, name: str) -> RefName:
    """The branch of a committed snapshot."""
    return RefName(snapshots_prefix(agent) + name)


def tags_prefix(agent: str) -> str:
    """What every version tag of an agent begins with."""
    return f"refs/tags/{agent}/"


def heads_prefix(agent: str) -> str:
    """What every branch of an agent begins with."""
    return f"refs/heads/{agent}/"


def remote_prefix(remote: str) -> str:
    """What every ref of a remote begins with, as it was last fetched."""
    return f"refs/remotes/{remote}/"


WITHDRAWN = "refs/kai/withdrawn/"
"""What the tags of versions begin with that were given another number."""


def withdrawn_ref(agent: str, version: Version) -> RefName:
    """The tag of a version that was given another number, kept under its old one."""
    return RefName(f"{WITHDRAWN}{agent}/{version.tag}")


_TAG_REF = re.compile(r"refs/(?:tags|remotes/[^/]+/tags|kai/withdrawn)/(.+)\Z", re.DOTALL)


def tag_name(ref: str) -> str | None:
    """What the tag object says that a ref points at, ``AGENT/vX.Y.Z``; None for a ref that is no tag's."""
    match = _TAG_REF.match(ref)
    return match[1] if match else None


# ---------------------------------------------------------------- ref updates


@dataclass(frozen=True)
class Absent:
    """The ref must not be there."""


@dataclass(frozen=True)
class Exactly:
    """The ref must point at ``oid``."""

    oid: ObjectId


@dataclass(frozen=True)
class Anything:
    """Whatever the ref points at, or nothing."""


Expect = Absent | Exactly | Anything


@dataclass(frozen=True)
class RefUpdate:
    """One ref's move; ``new`` of None removes it."""

    name: RefName
    expect: Expect
    new: ObjectId | None
    actor: Actor
    reason: str


@dataclass(frozen=True)
class ReflogEntry:
    """One ref's move, as it happened.

    ``seq`` numbers the agent's transactions; ``undoes`` names the seq that an undo or redo reverses;
    ``backup`` is the number of the backup that holds the workspace as it was; ``workspace`` says whether
    the move wrote the workspace.
    """

    seq: int
    ref: RefName
    old: ObjectId | None
    new: ObjectId | None
    actor: str
    time_ns: int
    reason: str
    verb: str
    op_id: str
    undoes: int | None = None
    backup: int | None = None
    workspace: bool = False


def nearest(word: str, choices: list[str], limit: int = 3) -> list[str]:
    """The choices most like ``word``, best first."""
    import difflib  # noqa: PLC0415 - only on a miss

    exact = [choice for choice in choices if choice.startswith(word)] if word else []
    close = difflib.get_close_matches(word, choices, n=limit, cutoff=0.5)
    return list(dict.fromkeys([*close, *exact]))[:limit]
