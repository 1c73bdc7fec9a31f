"""Patterns over paths in gitignore's grammar, byte for byte as git's ``wildmatch`` reads them.

Not a library: a walk that prunes asks about one directory alone, which `pathspec` does not answer as git
does, and a stranger's pattern must not take exponential time. Here each star is an atomic group that goes the
shortest way to what follows it. The first fit leaves most to the rest, so no other way need be tried, and a
match costs at most the length of the path times that of the pattern.

One difference to git is meant: stars as in ``a**/b`` are one star, as gitignore's manual says; git takes them
for directories when only plain text stands before them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple

MAX_PATTERNS: Final = 1_000
MAX_LENGTH: Final = 1_024
"""Bytes of one pattern."""

_STAR, _DIRECTORIES, _SLASH = b"*", b"**/", b"/"
_SLASH_BYTE = ord("/")
_CLASSES: dict[bytes, str] = {
    b"alnum": "[0-9A-Za-z]",
    b"alpha": "[A-Za-z]",
    b"blank": "[ \t]",
    b"cntrl": "[\x00-\x1f\x7f]",
    b"digit": "[0-9]",
    b"graph": "[!-~]",
    b"lower": "[a-z]",
    b"print": "[ -~]",
    b"punct": "[!-/:-@\\[-`{-~]",
    b"space": "[\t\n\r ]",
    b"upper": "[A-Z]",
    b"xdigit": "[0-9A-Fa-f]",
}


class Kind(NamedTuple):
    """Whether a pattern takes paths back (``!``), and what it is asked about."""

    negated: bool
    directories_only: bool
    name_only: bool


class Pattern(NamedTuple):
    """One pattern as the source of a regular expression."""

    kind: Kind
    regex: bytes


class Patterns:
    """Patterns in the order of their text, of which the last that fits decides."""

    def __init__(self, patterns: Iterable[Pattern] = ()) -> None:
        self._last_first = tuple(_joined(list(patterns)[::-1]))

    @classmethod
    def of(cls, texts: Iterable[str]) -> Patterns:
        """Compile texts, each one pattern; ValueError as `compile_pattern`."""
        return cls(compile_pattern(text.encode("utf-8", "surrogateescape")) for text in texts)

    def verdict(self, path: bytes, *, is_directory: bool) -> bool | None:
        """What is said of the path alone: True, False (taken back with ``!``), or None for nothing."""
        name = path[path.rfind(b"/") + 1 :]
        for (negated, directories_only, name_only), matches in self._last_first:
            if (is_directory or not directories_only) and matches(name if name_only else path):
                return not negated
        return None

    def holds(self, path: bytes) -> bool:
        """Whether a file is meant, itself or through a directory above it."""
        if not self._last_first:
            return False
        above = (path[:end] for end in _slashes(path))
        return any(self.verdict(directory, is_directory=True) for directory in above) or bool(
            self.verdict(path, is_directory=False)
        )


def compile_pattern(text: bytes) -> Pattern:
    """Read one pattern; ValueError for one that could never match, or is longer than MAX_LENGTH."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"is longer than {MAX_LENGTH:,} bytes")
    text = trimmed(text)
    negated = text.startswith(b"!")
    body = text[1:] if negated else text
    directories_only = body.endswith(b"/")
    body = body.removesuffix(b"/")
    name_only = b"/" not in body
    glob = body.removeprefix(b"/")
    if not glob:
        raise ValueError("names nothing")
    if b"\0" in glob:
        raise ValueError("holds NUL")
    return Pattern(Kind(negated, directories_only, name_only), _regex(glob))


def is_blank(line: bytes) -> bool:
    """Whether a line of an ignore file says nothing: empty, or a comment."""
    return line.startswith(b"#") or not trimmed(line)


def trimmed(line: bytes) -> bytes:
    """The line without spaces at its end, but for one that a backslash keeps."""
    bare = line.rstrip(b" ")
    slashes = len(bare) - len(bare.rstrip(b"\\"))
    return bare + b" " if slashes % 2 and bare != line else bare


def _joined(patterns: list[Pattern]) -> Iterator[tuple[Kind, Callable[[bytes], object]]]:
    """One matcher for each kind of a run that has no ``!`` between; the order within a run does not count."""
    for _, run in groupby(patterns, lambda pattern: pattern.kind.negated):
        for kind, alike in groupby(sorted(run), lambda pattern: pattern.kind):
            yield kind, re.compile(b"|".join(pattern.regex for pattern in alike), re.DOTALL).match


def _slashes(path: bytes) -> Iterator[int]:
    at = path.find(b"/")
    while at >= 0:
        yield at
        at = path.find(b"/", at + 1)


# ---------------------------------------------------------------- from a glob to a regular expression


def _regex(glob: bytes) -> bytes:
    first, *rest = _split(list(_tokens(glob)), _DIRECTORIES)
    parts = [_components(first)]
    # `**/` is any number of directories. Each part but the last ends with a slash, so that, as with a star,
    # its first fit is as good as any.
    parts += [b"(?>(?:[^/]++/)*?" + _components(part) + b")" for part in rest[:-1]]
    parts += [b"(?:[^/]++/)*" + _components(part) for part in rest[-1:]]
    return b"".join(parts) + rb"\Z"


def _components(tokens: list[bytes]) -> bytes:
    return b"/".join(_component(part) for part in _split(tokens, _SLASH))


def _component(tokens: list[bytes]) -> bytes:
    first, *rest = (b"".join(part) for part in _split(tokens, _STAR))
    stars = [b"(?>[^/]*?" + part + b")" for part in rest[:-1]]
    return first + b"".join(stars) + b"".join(b"[^/]*" + part for part in rest[-1:])


def _split(tokens: list[bytes], separator: bytes) -> list[list[bytes]]:
    parts: list[list[bytes]] = [[]]
    for token in tokens:
        if token == separator:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _tokens(glob: bytes) -> Iterator[bytes]:
    """The parts of a glob: the separators above, or regular expressions of exactly one byte."""
    at = 0
    while at < len(glob):
        byte = glob[at : at + 1]
        if byte == b"*":
            token, at = _stars(glob, at)
        elif byte == b"[":
            token, at = _bracket(glob, at + 1)
        elif byte == b"\\":
            token, at = _literal(glob[at + 1 : at + 2]), at + 2
        else:
            token, at = b"[^/]" if byte == b"?" else _literal(byte), at + 1
        yield token


def _literal(byte: bytes) -> bytes:
    if not byte:
        raise ValueError("ends with a backslash")
    return _SLASH if byte == b"/" else re.escape(byte)


def _stars(glob: bytes, start: int) -> tuple[bytes, int]:
    """A run of stars; two or more that are a whole component stand for directories."""
    end = start
    while glob[end : end + 1] == b"*":
        end += 1
    whole = end - start > 1 and (start == 0 or glob[start - 1 : start] == b"/")
    if whole and glob[end : end + 1] == b"/":
        return _DIRECTORIES, end + 1
    if whole and end == len(glob):
        return b".+", end
    return _STAR, end


def _bracket(glob: bytes, at: int) -> tuple[bytes, int]:
    """A bracket expression from behind its ``[``, as one byte's regular expression."""
    negated = glob[at : at + 1] in (b"!", b"^")
    at += negated
    wanted: set[int] = set()
    start, before = at, -1
    while at == start or glob[at : at + 1] != b"]":
        members, last, at = _member(glob, at, before)
        wanted |= members
        before = last
    if negated:
        return b"[^" + _ranges(wanted | {_SLASH_BYTE}) + b"]", at + 1
    wanted.discard(_SLASH_BYTE)
    return (b"[" + _ranges(wanted) + b"]" if wanted else b"(?!)"), at + 1


def _ranges(members: set[int]) -> bytes:
    """The inside of a bracket; runs are written as ranges, which compile ten times faster."""
    starts = sorted(byte for byte in members if byte - 1 not in members)
    ends = sorted(byte for byte in members if byte + 1 not in members)
    return b"".join(b"\\x%02x-\\x%02x" % run for run in zip(starts, ends, strict=True))


def _member(glob: bytes, at: int, before: int) -> tuple[set[int], int, int]:
    """One member of a bracket: its bytes, the byte that a range may begin with (or -1), where it ends."""
    if glob[at : at + 2] == b"[:" and (named := _class(glob, at + 2)):
        return named[0], -1, named[1]
    following = glob[at + 1 : at + 2]
    if glob[at : at + 1] == b"-" and before >= 0 and following not in (b"", b"]"):
        last, end = _byte(glob, at + 1)
        return set(range(before, last + 1)), -1, end
    byte, end = _byte(glob, at)
    return {byte}, byte, end


def _byte(glob: bytes, at: int) -> tuple[int, int]:
    at += glob[at : at + 1] == b"\\"
    if at >= len(glob):
        raise ValueError("has a '[' without its ']'")
    return glob[at], at + 1


def _class(glob: bytes, at: int) -> tuple[set[int], int] | None:
    """A named class such as ``[:alpha:]`` from behind its ``[:``; None when the bracket is not one."""
    end = glob.find(b"]", at)
    if end < 0:
        raise ValueError("has a '[' without its ']'")
    if end == at or glob[end - 1 : end] != b":":
        return None
    members = _CLASSES.get(glob[at : end - 1])
    if members is None:
        raise ValueError(f"has an unknown class {glob[at - 2 : end + 1].decode('utf-8', 'replace')!r}")
    return {byte for byte in range(128) if re.match(members, chr(byte))}, end + 1
