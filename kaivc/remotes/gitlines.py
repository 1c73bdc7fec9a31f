"""Git's protocol, versions 0 and 1, as the one who asks: packet lines, what is advertised, requests and reports.

https://git-scm.com/docs/gitprotocol-pack. Version 2 saves listing refs that nobody asked for; nothing else of it is
needed, and a push has no version 2. Ids are of either hash format. All that comes is hostile until it was read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from kaivc.errors import RefusedByRemote, TransportError
from kaivc.ports import Progress
from kaivc.records import dataclass, field
from kaivc.storage.gitobjects import FORMATS

if TYPE_CHECKING:
    from dulwich.protocol import Protocol

UPLOAD, RECEIVE = "git-upload-pack", "git-receive-pack"
MAX_REFS = 1_000_000
MAX_HAVES = 1024
KEPT_LINES = 20
MAX_TOLD = 300
_DATA, _PROGRESS, _FATAL = 1, 2, 3
_ACKNOWLEDGED = (b"NAK", b"ACK ")
_PIECE = 32 << 10
_COUNT = re.compile(r"([A-Za-z ]{3,40}): +\d{1,3}% \((\d{1,12})/(\d{1,12})\)")

Read = Callable[[int], bytes]
"""Gives exactly so many bytes, fewer only where the other end stopped."""


def clean(text: bytes | str) -> str:
    """What somebody else says, on one line, with nothing in it that a terminal would obey."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    line = " ".join("".join(it if it.isprintable() else " " for it in text).split())
    return line[:MAX_TOLD]


def malformed(why: str) -> TransportError:
    """The error for what is not git's protocol."""
    return TransportError(
        f"the other end sent what is not git's protocol: {why}",
        unchanged="nothing moved",
        hint="is there a git repository behind the URL?",
    )


def lines_over(read: Read) -> Protocol:
    """Packet lines over what gives bytes."""
    from dulwich.protocol import Protocol

    return Protocol(read, len)


def next_line(lines: Protocol) -> bytes | None:
    """One packet; None for a flush. TransportError where there is none."""
    from dulwich.errors import GitProtocolError, HangupException

    try:
        return lines.read_pkt_line()
    except HangupException as error:
        raise TransportError(
            "the other end closed the connection",
            unchanged="nothing moved here",
            hint="look at the URL and at your rights over there, then run the command again",
        ) from error
    except GitProtocolError as error:
        raise malformed(clean(str(error))) from error


def packet(data: bytes) -> bytes:
    """One packet."""
    return b"%04x%s" % (len(data) + 4, data)


FLUSH = b"0000"


# ---------------------------------------------------------------- what is there


@dataclass(frozen=True)
class Advertised:
    """What a repository says of itself: refs by name, and what it can, by name, with a value or an empty text."""

    refs: Mapping[str, bytes]
    can: Mapping[str, str]

    @property
    def object_format(self) -> str:
        """How it hashes; those that say nothing know one format only."""
        return self.can.get("object-format", "sha1")


def read_advertised(lines: Protocol) -> Advertised:
    """The refs of a repository, and what it can."""
    refs: dict[str, bytes] = {}
    can: dict[str, str] = {}
    first, count = True, 0
    while line := next_line(lines):
        count += 1
        if line.startswith(b"ERR "):
            raise refusal(clean(line[4:]))
        if line.startswith((b"version ", b"shallow ")):
            continue
        if first:
            line, _, words = line.partition(b"\0")
            can = _capabilities(words)
            first = False
        if count > MAX_REFS:
            raise malformed(f"more than {MAX_REFS} refs")
        _add_ref(refs, line, can)
    return Advertised(refs, can)


def _capabilities(words: bytes) -> dict[str, str]:
    pairs = (word.decode("utf-8", "replace").partition("=") for word in words.split())
    found = {name: value for name, _, value in pairs}
    if found.get("object-format", "sha1") not in FORMATS:
        raise malformed("it hashes in a way that is not known")
    return found


def _add_ref(refs: dict[str, bytes], line: bytes, can: Mapping[str, str]) -> None:
    digits, _, name = line.rstrip(b"\n").partition(b" ")
    width = FORMATS[can.get("object-format", "sha1")].width
    if not re.fullmatch(rb"[0-9a-f]{%d}" % (2 * width), digits):
        raise malformed("a ref without an id")
    ref = name.decode("utf-8", "replace")
    if ref.startswith("refs/") and not ref.endswith("^{}") and ref.isprintable():
        refs[ref] = bytes.fromhex(digits.decode())


# ---------------------------------------------------------------- asking


def _words(can: Mapping[str, str], wanted: Sequence[str], agent: str) -> bytes:
    """The capabilities that both sides know."""
    words = [name for name in wanted if name in can]
    if "object-format" in can:
        words.append(f"object-format={can['object-format']}")
    if "agent" in can:
        words.append(f"agent={agent}")
    return " ".join(words).encode()


def fetch_request(
    there: Advertised, wants: Sequence[bytes], haves: Sequence[bytes], agent: str, depth: int = 0
) -> list[bytes]:
    """Ask for what ``wants`` lead to and ``haves`` do not; at once, since what both have is known beforehand."""
    depth = depth if "shallow" in there.can else 0
    words = _words(there.can, ["side-band-64k", "ofs-delta", "thin-pack", *(["shallow"] if depth else [])], agent)
    parts = []
    for number, oid in enumerate(wants):
        more = b" " + words if not number else b""
        parts.append(packet(b"want " + oid.hex().encode() + more + b"\n"))
    if depth:
        parts.append(packet(b"deepen %d\n" % depth))
    parts.append(FLUSH)
    parts += [packet(b"have " + oid.hex().encode() + b"\n") for oid in haves[:MAX_HAVES]]
    parts.append(packet(b"done\n"))
    return [b"".join(parts)]


@dataclass(frozen=True)
class Command:
    """One move that is asked for, by the name over there; the other side makes it only if ``old`` still is there."""

    ref: str
    old: bytes | None
    new: bytes | None


PUSH_WORDS = ("report-status", "side-band-64k", "atomic", "delete-refs")


def push_request(there: Advertised, commands: Sequence[Command], agent: str) -> bytes:
    """Ask for moves; the pack goes behind it."""
    zero = b"0" * 2 * FORMATS[there.object_format].width
    words = _words(there.can, PUSH_WORDS, agent)
    parts = []
    for number, it in enumerate(commands):
        old, new = (zero if oid is None else oid.hex().encode() for oid in (it.old, it.new))
        more = b"\0 " + words if not number else b""
        parts.append(packet(b"%s %s %s%s" % (old, new, it.ref.encode(), more)))
    return b"".join(parts) + FLUSH


# ---------------------------------------------------------------- answers


@dataclass
class Side:
    """What comes beside the data: progress goes on, the last lines are kept to be told with an error."""

    progress: Progress
    said: list[str] = field(default_factory=list)

    def take(self, data: bytes) -> None:
        """Some of the text."""
        for piece in re.split(r"[\r\n]", data.decode("utf-8", "replace")):
            count = _COUNT.search(piece)
            if count:
                self.progress(f"there: {count[1].strip().lower()}", int(count[2]), int(count[3]))
            elif line := clean(piece):
                self.said = [*self.said, line][-KEPT_LINES:]


def demultiplexed(lines: Protocol, side: Side) -> Iterator[bytes]:
    """The data among what comes on several bands, up to its end.

    Git acknowledges once more for a parent of what it has acknowledged.
    """
    while (line := next_line(lines)) is not None:
        band = line[0] if line else 0
        if band == _DATA:
            yield line[1:]
        elif band == _PROGRESS:
            side.take(line[1:])
        elif band == _FATAL:
            raise refusal(clean(line[1:]), side.said)
        elif line and not line.startswith(_ACKNOWLEDGED):
            raise malformed("a band that there is none of")


def reader(pieces: Iterator[bytes]) -> Read:
    """What comes in pieces, read by counts."""
    held = bytearray()

    def read(size: int) -> bytes:
        while len(held) < size:
            piece = next(pieces, None)
            if piece is None:
                break
            held.extend(piece)
        data = bytes(held[:size])
        del held[:size]
        return data

    return read


def read_pack(read: Read, there: Advertised, side: Side, *, shallow: bool = False) -> Read:
    """What gives the pack behind the head of an answer to ``fetch_request``."""
    lines = lines_over(read)
    if shallow:
        while next_line(lines) is not None:
            pass
    line = next_line(lines) or b""
    if line.startswith(b"ERR "):
        raise refusal(clean(line[4:]))
    if not line.startswith(_ACKNOWLEDGED):
        raise malformed("no acknowledgement")
    return reader(demultiplexed(lines, side)) if "side-band-64k" in there.can else _past_more(read)


def _past_more(read: Read) -> Read:
    """The pack behind further acknowledgements."""
    head = read(4)
    while head != b"PACK" and re.fullmatch(rb"00[0-9a-f]{2}", head):
        length = int(head, 16) - len(head)
        if length < 0 or not read(length).startswith(_ACKNOWLEDGED):
            raise malformed("neither a pack nor an acknowledgement")
        head = read(4)
    return reader(chain([head], iter(lambda: read(_PIECE), b"")))


def read_report(read: Read, there: Advertised, side: Side) -> dict[str, str]:
    """Why moves were refused, by ref; RefusedByRemote if all that was sent was."""
    if "report-status" not in there.can:
        return {}
    lines = lines_over(read)
    banded = "side-band-64k" in there.can
    inner = lines_over(reader(demultiplexed(lines, side))) if banded else lines
    first = next_line(inner) or b""
    if not first.startswith(b"unpack "):
        raise malformed("no report of what was sent")
    if first.strip() != b"unpack ok":
        raise refusal("what was sent was not taken: " + clean(first[7:]), side.said)
    refused = {}
    while line := next_line(inner):
        verdict, _, rest = line.strip().partition(b" ")
        ref, _, why = rest.partition(b" ")
        if verdict == b"ng":
            refused[ref.decode("utf-8", "replace")] = clean(why)
        elif verdict != b"ok":
            raise malformed("a report that says neither yes nor no")
    if banded:
        for _ in demultiplexed(lines, side):
            pass
    return refused


# ---------------------------------------------------------------- refusals

_HINTS = {
    r"exceeds|too large|file size|maximum|larger than|size limit|too big|LFS": "the host limits the size of what is "
    "pushed: keep large state out of the version (`kai.yaml`), or use a remote of kaivc",
    r"hook": "a hook over there said no: ask who keeps the repository",
    r"protected|not allowed|permission|denied|forbidden|unauthorized": "you lack a right, or the branch is protected; "
    "let whoever pushes move `current` (it moves back on a rollback)",
    r"non-fast-forward": "`current` moved back here, and the repository takes no such move: allow it there "
    "(`receive.denyNonFastForwards=false`, or unprotect the branch)",
    r"checked out|current branch": "push to a bare repository: `git init --bare`",
    r"delet": "the repository lets nobody remove branches: allow it there, or leave them",
    r"stale|fetch first|failed to update|incorrect old value|reference already exists|lock": "somebody moved it "
    "meanwhile: `kai fetch`, look, then run the command again",
    r"not found|does not appear to be|repository|exist": "look at the URL; it may also be that you may not see it",
    r"quota|space|disk": "the disk over there is full, or the quota is used up",
}
"""What to do, by words that git and its hosts say; the first that fit."""


def hint_for(why: str) -> str:
    """What to do about what another side said."""
    for words, hint in _HINTS.items():
        if re.search(words, why, re.IGNORECASE):
            return hint
    return "do what those words ask for, then run the command again"


def refusal(why: str, said: Iterable[str] = ()) -> RefusedByRemote:
    """The error for what the other side said, with the last that it said before."""
    words = [*said][-3:]
    whole = why + (f" ({'; '.join(words)})" if words else "")
    return RefusedByRemote(
        f"the other end says: {whole}",
        unchanged="nothing moved",
        hint=hint_for(" ".join([*words, why])),
        said=whole,
    )
