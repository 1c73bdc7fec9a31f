"""Git's objects, byte for byte: encode, decode and hash blob, tree, commit and tag.

Format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects and git's
Documentation/technical/hash-function-transition.txt. Decoders take hostile bytes and raise ``MalformedObject``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kaivc.errors import ChecksumMismatch, RefusedPath
from kaivc.names import ObjectId
from kaivc.records import dataclass

if TYPE_CHECKING:
    from hashlib import _Hash

FILE = 0o100644
EXECUTABLE = 0o100755
SYMLINK = 0o120000
DIRECTORY = 0o040000
MODES = {b"%o" % mode: mode for mode in (FILE, EXECUTABLE, SYMLINK, DIRECTORY)}
"""By their text, the one that git writes."""
MAX_TREE_BYTES = 16 << 20
"""One directory: about 200,000 entries. It is held whole, so that a small frame must not grow without bound."""
MAX_TEXT_BYTES = 1 << 20
LAST_SECOND = 253_402_300_799
"""The end of the year 9999."""


class MalformedObject(ChecksumMismatch):
    """Bytes that are no well-formed git object."""


class Kind(IntEnum):
    """Kinds of git objects; the values also stand in pack records."""

    BLOB = 1
    TREE = 2
    COMMIT = 3
    TAG = 4


class ObjectSink(Protocol):
    """Takes whole objects: a store's writer, or only a hash."""

    def put(self, kind: Kind, data: bytes, like: ObjectId | None = None) -> ObjectId:
        """Take an object, most of which object ``like`` perhaps holds; its id."""


class Entry(NamedTuple):
    """What a tree says of one name."""

    mode: int
    oid: ObjectId


@dataclass(frozen=True)
class ObjectFormat:
    """One of git's two hash formats."""

    name: str
    width: int

    def new(self) -> _Hash:
        """A hash object."""
        return hashlib.sha256() if self.name == "sha256" else hashlib.sha1()  # noqa: S324 - git's own format

    def hash(self, kind: Kind, data: bytes) -> ObjectId:
        """The id of a whole object."""
        digest = self.header(kind, len(data))
        digest.update(data)
        return ObjectId(digest.digest())

    def header(self, kind: Kind, size: int) -> _Hash:
        """A hash that has taken the header of an object of ``size`` bytes."""
        digest = self.new()
        digest.update(b"%s %d\0" % (kind.name.lower().encode(), size))
        return digest


SHA1 = ObjectFormat("sha1", 20)
SHA256 = ObjectFormat("sha256", 32)
FORMATS = {"sha1": SHA1, "sha256": SHA256}

# ---------------------------------------------------------------- names in trees

_HFS_IGNORED = "[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]"
_NTFS_RESERVED = re.compile(rb"(?i)(\.git|git~1|\.kai|kai~1)[. ]*(:.*)?\Z", re.DOTALL)
_RESERVED = (".git", ".kai")
MAX_NAME = 255
"""Bytes of the longest name that a disk takes."""
_SHOWN = 80


def is_reserved(name: bytes) -> bool:
    """Whether some file system would take ``name`` for ``.git``, or for ``.kai``: a home that comes with a version.

    As git's fsck does: in any case, as NTFS short name or stream, with characters that HFS+ ignores.
    """
    if _NTFS_RESERVED.match(name) or any(_NTFS_RESERVED.match(part) for part in name.split(b"\\")):
        return True
    if name.isascii():
        return False
    return re.sub(_HFS_IGNORED, "", name.decode("utf-8", "replace")).lower() in _RESERVED


def check_tree_name(name: bytes) -> None:
    """Raise RefusedPath for a name that no tree may hold."""
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name or len(name) > MAX_NAME or is_reserved(name):
        shown = repr(name[:_SHOWN])
        raise RefusedPath(f"{shown} is not a name that a version can hold", name=shown)


def folded(name: bytes) -> str:
    """What a case-folding, normalising disk would compare."""
    if name.isascii():
        return name.lower().decode()
    import unicodedata  # noqa: PLC0415 - nearly all names are ASCII

    return unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape")).casefold()


# ---------------------------------------------------------------- trees


def _order(item: tuple[bytes, Entry]) -> bytes:
    return item[0] + b"/" if item[1].mode == DIRECTORY else item[0]


def encode_tree(entries: Iterable[tuple[bytes, Entry]]) -> bytes:
    """The bytes of one directory; entries in any order."""
    return b"".join(b"%o %s\0%s" % (entry.mode, name, entry.oid) for name, entry in sorted(entries, key=_order))


def decode_tree(data: bytes, width: int) -> list[tuple[bytes, Entry]]:
    """The entries of one directory, in git's order; MalformedObject unless it is strictly well-formed."""
    entries: list[tuple[bytes, Entry]] = []
    position, last = 0, b""
    if len(data) > MAX_TREE_BYTES:
        raise MalformedObject(f"a tree of more than {MAX_TREE_BYTES >> 20} MiB")
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        end = data.find(b"\0", space, space + 4200) if space > 0 else -1
        if end < 0 or end + 1 + width > len(data):
            raise MalformedObject(f"a tree is cut or garbled at byte {position}")
        digits, name = data[position:space], data[space + 1 : end]
        mode = MODES.get(digits)
        if mode is None:
            raise MalformedObject(f"a tree holds mode {digits!r} for {name[:_SHOWN]!r}")
        try:
            check_tree_name(name)
        except RefusedPath as error:
            raise MalformedObject(f"a tree holds the name {name[:_SHOWN]!r}") from error
        entry = Entry(mode, ObjectId(data[end + 1 : end + 1 + width]))
        order = _order((name, entry))
        if order <= last:
            raise MalformedObject(f"a tree is out of order at {name[:_SHOWN]!r}")
        entries.append((name, entry))
        position, last = end + 1 + width, order
    if len({name for name, _ in entries}) != len(entries):
        raise MalformedObject("a tree holds a name twice")
    return entries


# ---------------------------------------------------------------- commits and tags


@dataclass(frozen=True)
class Commit:
    """A commit with at most one parent; ``who`` is author and committer, ``time`` in whole seconds UTC."""

    tree: ObjectId
    parent: ObjectId | None
    who: str
    time: int
    message: str


@dataclass(frozen=True)
class Tag:
    """An annotated tag of a commit."""

    target: ObjectId
    name: str
    who: str
    time: int
    message: str


_SCISSORS = "------------------------ >8 ------------------------"


def clean_message(text: str) -> str:
    """UTF-8 with LF and one final newline, no trailing blanks; no line that git takes for the end.

    A line that starts with ``---``, and git's scissors behind a comment sign, hide the trailers from git's
    parser, so such a line gets one blank before it.
    """
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    lines = [" " + line if _ends_message(line) else line for line in lines]
    return "\n".join(lines).strip("\n") + "\n"


def _ends_message(line: str) -> bool:
    return line.startswith("---") or (line.endswith(_SCISSORS) and not line.startswith(" "))


def encode_commit(commit: Commit) -> bytes:
    """The bytes of a commit."""
    lines = [f"tree {commit.tree.hex()}"]
    if commit.parent:
        lines.append(f"parent {commit.parent.hex()}")
    lines += [f"author {commit.who} {commit.time} +0000", f"committer {commit.who} {commit.time} +0000"]
    return ("\n".join(lines) + "\n\n" + commit.message).encode()


def encode_tag(tag: Tag) -> bytes:
    """The bytes of an annotated tag."""
    head = f"object {tag.target.hex()}\ntype commit\ntag {tag.name}\ntagger {tag.who} {tag.time} +0000"
    return f"{head}\n\n{tag.message}".encode()


_PERSON = re.compile(r"([^<>\n\0]* <[^<>\n\0]*>) (0|[1-9][0-9]{0,11}) \+0000\Z")
_HEX = re.compile(r"[0-9a-f]+\Z")
_MOST_HEADERS = 8


def decode_commit(data: bytes, width: int) -> Commit:
    """Read a commit; MalformedObject unless it is one that kaivc writes."""
    headers, message = _headers(data)
    names = [name for name, _ in headers]
    parents = names.count("parent")
    if names != ["tree", *["parent"] * parents, "author", "committer"] or parents > 1:
        raise MalformedObject(f"a commit has the headers {names!r:.200}")
    values = dict(headers)
    who, time = _person(values["committer"])
    if values["author"] != values["committer"]:
        raise MalformedObject("a commit's author and committer differ")
    parent = _oid(values["parent"], width) if parents else None
    return Commit(_oid(values["tree"], width), parent, who, time, message)


def decode_tag(data: bytes, width: int) -> Tag:
    """Read an annotated tag; MalformedObject unless it is one that kaivc writes."""
    headers, message = _headers(data)
    names = [name for name, _ in headers]
    if names != ["object", "type", "tag", "tagger"]:
        raise MalformedObject(f"a tag has the headers {names!r:.200}")
    values = dict(headers)
    if values["type"] != "commit":
        raise MalformedObject("a tag of something that is no commit")
    who, time = _person(values["tagger"])
    return Tag(_oid(values["object"], width), values["tag"], who, time, message)


def _headers(data: bytes) -> tuple[list[tuple[str, str]], str]:
    if len(data) > MAX_TEXT_BYTES:
        raise MalformedObject("a commit or tag of more than 1 MiB")
    try:
        head, _, message = data.decode().partition("\n\n")
    except UnicodeDecodeError as error:
        raise MalformedObject("a commit or tag that is not UTF-8") from error
    pairs = [line.partition(" ") for line in head.split("\n", _MOST_HEADERS)]
    return [(name, value) for name, _, value in pairs], message


def _person(text: str) -> tuple[str, int]:
    match = _PERSON.match(text)
    if not match:
        raise MalformedObject(f"{text[:80]!r} is no author line that kaivc writes")
    if int(match[2]) > LAST_SECOND:
        raise MalformedObject(f"a time past the year 9999: {match[2]}")
    return match[1], int(match[2])


def _oid(text: str, width: int) -> ObjectId:
    if len(text) != 2 * width or not _HEX.match(text):
        raise MalformedObject(f"{text[:80]!r} is no object id of this format")
    return ObjectId(bytes.fromhex(text))
