"""The agent's manifest, `kai.yaml` at the root of its tree: what its files are, how to treat and run them.

A manifest may come from a stranger; what it may not decide alone is for its readers to check
(`Isolation.loosens`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import IntEnum, StrEnum
from functools import cached_property, lru_cache
from typing import Any, Final

from kaivc.errors import InvalidManifest
from kaivc.fields import MIB, Field, root
from kaivc.patterns import MAX_PATTERNS, Patterns
from kaivc.records import dataclass, field
from kaivc.settings import Isolation, read_isolation, secret_name
from kaivc.yamltext import shown

MANIFEST: Final = b"kai.yaml"
SECRET_PREFIX: Final = b"secret://"
MAX_COUNTER_BYTES: Final = 16 * MIB
_MAX_COUNTER_DIGITS = 1_000
_POINTER = r"(?:/(?:[^~/]|~[01])*)*\Z"
_INDEX = r"(?:0|[1-9][0-9]{0,9})\Z"

Command = tuple[str, ...]


class FileClass(StrEnum):
    """What a file is to its agent."""

    LOGIC = "logic"
    CONFIG = "config"
    STATE = "state"
    LOCK = "lock"


class StateClass(IntEnum):
    """What a rollback does with a path; the larger is the stricter."""

    RESTORE = 0
    KEEP = 1
    MONOTONIC = 2
    SECRET = 3


# Where patterns of several classes fit, the first; the defaults come after all that a manifest says.
_BY_PRECEDENCE = (FileClass.CONFIG, FileClass.LOCK, FileClass.STATE, FileClass.LOGIC)
_DEFAULTS = {
    b"config.yaml": FileClass.CONFIG,
    b"state.json": FileClass.STATE,
    b"requirements.txt": FileClass.LOCK,
    b"pylock.toml": FileClass.LOCK,
    b"uv.lock": FileClass.LOCK,
}


@dataclass(frozen=True)
class Monotonic:
    """Files whose integer at a JSON pointer never goes back."""

    pattern: str
    pointer: str


@dataclass(frozen=True)
class Secret:
    """Files whose bytes are never read or stored; the tree holds ``secret://NAME``."""

    pattern: str
    name: str


@dataclass(frozen=True)
class Manifest:
    """One `kai.yaml`; ``None`` for a class of files stands for its default, for a command for none."""

    logic: tuple[str, ...] | None = None
    config: tuple[str, ...] | None = None
    state: tuple[str, ...] | None = None
    lock: tuple[str, ...] | None = None
    keep: tuple[str, ...] = ()
    monotonic: tuple[Monotonic, ...] = ()
    secret: tuple[Secret, ...] = ()
    private: tuple[str, ...] = ()
    entry: Command | None = None
    check: Command | None = None
    quiesce: Command | None = None
    resume: Command | None = None
    isolation: Isolation = field(default_factory=Isolation)

    def file_class(self, path: bytes) -> FileClass:
        """What the file at ``path`` is."""
        for file_class, patterns in self._said.items():
            if patterns.holds(path):
                return file_class
        default = FileClass.STATE if path.startswith(b"state/") else _DEFAULTS.get(path, FileClass.LOGIC)
        return FileClass.LOGIC if default in self._said else default

    def state_class(self, path: bytes) -> StateClass:
        """What a rollback does with ``path``; the manifest itself is always restored."""
        if path == MANIFEST:
            return StateClass.RESTORE
        if self.secret_name(path) is not None:
            return StateClass.SECRET
        if self.pointer(path) is not None:
            return StateClass.MONOTONIC
        return StateClass.KEEP if self._keep.holds(path) else StateClass.RESTORE

    def secret_name(self, path: bytes) -> str | None:
        """The name of the secret that ``path`` holds; the first entry that fits."""
        return next((one.name for one, patterns in self._secrets if patterns.holds(path)), None)

    def pointer(self, path: bytes) -> str | None:
        """The JSON pointer of the counter in ``path``; the first entry that fits."""
        return next((one.pointer for one, patterns in self._counters if patterns.holds(path)), None)

    def is_private(self, path: bytes) -> bool:
        """Whether ``path`` is written with mode 0600."""
        return self._private.holds(path)

    @cached_property
    def _said(self) -> dict[FileClass, Patterns]:
        said = {each: getattr(self, each.value) for each in _BY_PRECEDENCE}
        return {each: Patterns.of(texts) for each, texts in said.items() if texts is not None}

    @cached_property
    def _keep(self) -> Patterns:
        return Patterns.of(self.keep)

    @cached_property
    def _private(self) -> Patterns:
        return Patterns.of(self.private)

    @cached_property
    def _secrets(self) -> list[tuple[Secret, Patterns]]:
        return [(one, Patterns.of([one.pattern])) for one in self.secret]

    @cached_property
    def _counters(self) -> list[tuple[Monotonic, Patterns]]:
        return [(one, Patterns.of([one.pattern])) for one in self.monotonic]


DEFAULT: Final = Manifest()


def strictest(path: bytes, several: Iterable[Manifest]) -> StateClass:
    """What a move between versions with these manifests does with ``path``."""
    return max(manifest.state_class(path) for manifest in several)


# ---------------------------------------------------------------- reading


@lru_cache(maxsize=16)
def parse(data: bytes, source: str = "kai.yaml") -> Manifest:
    """Read a manifest; InvalidManifest with file, line and, for an unknown key, the nearest known one.

    One command reads the same one of several versions, and in the workspace: that it is the same takes no parser.
    """
    values: dict[str, Any] = {}
    for key, section in root(data, source, InvalidManifest).mapping(_SECTIONS).items():
        values |= _SECTIONS[key](section)
    return Manifest(**values)


def _files(section: Field) -> dict[str, Any]:
    known = [file_class.value for file_class in FileClass]
    return {key: _patterns(each) for key, each in section.mapping(known).items()}


def _state(section: Field) -> dict[str, Any]:
    return {key: _STATE[key](each) for key, each in section.mapping(_STATE).items()}


def _command(section: Field) -> dict[str, Any]:
    return {section.name: section.command()}


def _patterns(section: Field) -> tuple[str, ...]:
    return tuple(_pattern(item) for item in _entries(section))


def _pattern(item: Field) -> str:
    text = item.text()
    problem = _problem(text)
    if problem:
        raise item.wrong(f"{shown(text)} {problem}", "patterns follow gitignore's grammar")
    return text


def _problem(pattern: str) -> str:
    if pattern.startswith("#"):
        return "is a comment"
    if "\n" in pattern or "\r" in pattern:
        return "has more than one line"
    if ".." in pattern.removeprefix("!").split("/"):
        return "leads out of the tree"
    try:
        Patterns.of([pattern])
    except ValueError as bad:
        return str(bad)
    return ""


def _one_pattern(item: Field) -> str:
    """A pattern that stands alone, where nothing is before it to take back."""
    text = _pattern(item)
    if text.startswith("!"):
        raise item.wrong(f"{shown(text)} takes back what nothing gave", "name the files that are meant")
    return text


def _entries(section: Field) -> list[Field]:
    items = section.items()
    if len(items) > MAX_PATTERNS:
        raise section.wrong(f"has {len(items):,} entries, the limit is {MAX_PATTERNS:,}")
    return items


def _counters(section: Field) -> tuple[Monotonic, ...]:
    entries = (item.required(("path", "pointer")) for item in _entries(section))
    return tuple(Monotonic(_one_pattern(each["path"]), _pointer(each["pointer"])) for each in entries)


def _secrets(section: Field) -> tuple[Secret, ...]:
    entries = (item.required(("path", "name")) for item in _entries(section))
    return tuple(Secret(_one_pattern(each["path"]), secret_name(each["name"])) for each in entries)


def _pointer(item: Field) -> str:
    if item.value != "" and not re.match(_POINTER, item.text()):
        raise item.expected("a JSON pointer", "such as /counts/calls; '~' is written ~0 and '/' ~1")
    return str(item.value)


_STATE: Final[dict[str, Callable[[Field], Any]]] = {
    "keep": _patterns,
    "monotonic": _counters,
    "secret": _secrets,
}
_SECTIONS: Final[dict[str, Callable[[Field], dict[str, Any]]]] = {
    "files": _files,
    "state": _state,
    "private": lambda section: {"private": _patterns(section)},
    "entry": _command,
    "check": _command,
    "quiesce": _command,
    "resume": _command,
    "isolation": lambda section: {"isolation": read_isolation(section)},
}


# ---------------------------------------------------------------- counters


def read_counter(data: bytes, pointer: str) -> int:
    """The integer at ``pointer`` in a JSON document of at most MAX_COUNTER_BYTES; ValueError says why not."""
    import json  # noqa: PLC0415 - few manifests name a counter

    if len(data) > MAX_COUNTER_BYTES:
        raise ValueError(f"is {len(data):,} bytes, a counter's file may have {MAX_COUNTER_BYTES:,}")
    try:
        document = json.loads(data.decode("utf-8"), parse_int=_integer, parse_constant=_constant)
    except RecursionError:
        raise ValueError("is JSON of too many levels") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except json.JSONDecodeError as bad:
        raise ValueError(f"is not JSON: {bad}") from None
    return resolve_pointer(document, pointer)


def resolve_pointer(document: object, pointer: str) -> int:
    """The integer at a JSON pointer (RFC 6901) of a decoded document; ValueError for anything else there."""
    if not re.match(_POINTER, pointer):
        raise ValueError(f"{shown(pointer)} is not a JSON pointer")
    value = document
    for token in pointer.split("/")[1:]:
        value = _step(value, token.replace("~1", "/").replace("~0", "~"), pointer)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"has no integer at {shown(pointer)}")  # noqa: TRY004 - one error for all that is wrong
    return value


def _step(value: object, token: str, pointer: str) -> object:
    if isinstance(value, dict) and token in value:
        return value[token]
    if isinstance(value, list) and re.match(_INDEX, token) and int(token) < len(value):
        return value[int(token)]
    raise ValueError(f"has nothing at {shown(pointer)}")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_COUNTER_DIGITS:
        raise ValueError(f"holds an integer of more than {_MAX_COUNTER_DIGITS:,} digits")
    return int(digits)


def _constant(word: str) -> float:
    raise ValueError(f"is not JSON: {word}")
