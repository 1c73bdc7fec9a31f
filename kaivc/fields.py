"""Typed reading of a YAML tree: one field knows its name, its place, and how to complain."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeVar

from kaivc import yamltext
from kaivc.errors import KaiError
from kaivc.names import nearest
from kaivc.records import dataclass
from kaivc.yamltext import Node, Value, shown

Checked = TypeVar("Checked")

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
TIB: Final = 1024 * GIB

_AMOUNT = r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([a-zA-Z]+)\Z"
_SIZES = {"b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB}
_SIZES |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_TIMES: dict[str, float] = {"ms": 0.001}
for _names, _seconds in {
    "s second seconds": 1,
    "min minute minutes": MINUTE,
    "h hour hours": HOUR,
    "d day days": DAY,
    "w week weeks": 7 * DAY,
}.items():
    _TIMES |= dict.fromkeys(_names.split(), _seconds)


@dataclass(frozen=True)
class Field:
    """A value with its dotted name; every reader raises ``error`` with file and line."""

    node: Node
    name: str
    source: str
    error: type[KaiError]

    @property
    def value(self) -> Value:
        """The value as it stands."""
        return self.node.value

    def wrong(self, problem: str, hint: str = "") -> KaiError:
        """The error that names the field, its file and its line; for the caller to raise."""
        what = f"{self.name} {problem}" if self.name else f"the document {problem}"
        return yamltext.located(self.error, self.source, self.node.line, what, hint)

    def expected(self, kind: str, hint: str = "") -> KaiError:
        """The error that says what the value must be, and what it is."""
        return self.wrong(f"must be {kind}, not {_described(self.value)}", hint)

    def named(self, key: str) -> Field:
        """The field's own key as a field, to check it as text."""
        return self._at(self.name, Node(key, self.node.line))

    def entries(self) -> dict[str, Field]:
        """The fields of a mapping of any keys; nothing for a key without a value."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.expected("a mapping")
        return {key: self._at(self._dotted(key), node) for key, node in self.value.items()}

    def mapping(self, known: Collection[str]) -> dict[str, Field]:
        """The fields of a mapping that may have the keys ``known``; an unknown one names the nearest."""
        fields = self.entries()
        for key, field in fields.items():
            if key not in known:
                raise field.unknown(key, known)
        return fields

    def unknown(self, key: str, known: Collection[str]) -> KaiError:
        """The error for a key that means nothing here."""
        near = nearest(key[: yamltext.MAX_SHOWN], sorted(known))
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        what = f"unknown key {self.name if self.name.isprintable() else shown(self.name)}"
        return yamltext.located(self.error, self.source, self.node.line, what, hint, key=self.name, nearest=near)

    def required(self, known: Collection[str]) -> dict[str, Field]:
        """The fields of a mapping that must have exactly the keys ``known``."""
        fields = self.mapping(known)
        missing = [key for key in known if key not in fields]
        if missing:
            raise self.wrong(f"lacks {missing[0]!r}", f"give {', '.join(known)}")
        return fields

    def items(self) -> list[Field]:
        """The fields of a list; none for a key without a value."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise self.expected("a list")
        return [self._at(f"{self.name}[{index}]", node) for index, node in enumerate(self.value)]

    def boolean(self) -> bool:
        """True or false, and nothing that resembles them."""
        if not isinstance(self.value, bool):
            raise self.expected("true or false")
        return self.value

    def text(self) -> str:
        """Text without NUL, not empty."""
        if not isinstance(self.value, str):
            raise self.expected("text", "put it in quotes")
        if not self.value or "\0" in self.value:
            raise self.expected("text without NUL, not empty")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(item.text() for item in self.items())

    def choice(self, choices: Collection[str]) -> str:
        """One of ``choices``."""
        if not isinstance(self.value, str) or self.value not in choices:
            raise self.expected(" or ".join(choices))
        return self.value

    def integer(self, least: int, most: int) -> int:
        """A whole number from ``least`` to ``most``."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.expected("a whole number")
        return int(self._within(self.value, least, most, f"{least:,} to {most:,}"))

    def size(self, least: int, most: int) -> int:
        """A number of bytes: 4096, '512 MiB', '1.5GB'."""
        hint = "use a number of bytes, or one with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB"
        return int(self._within(self._amount(_SIZES, "a size", hint), least, most, f"{least:,} to {most:,} bytes"))

    def duration(self, least: float, most: float) -> float:
        """A time in seconds: 5, '5s', '24h', '7 days'."""
        hint = "use a number of seconds, or one with ms, s, min, h, d or w"
        return self._within(self._amount(_TIMES, "a time", hint), least, most, f"{least:g} to {most:g} seconds")

    def command(self) -> tuple[str, ...]:
        """The words of a command: a list, or one text split as a POSIX shell splits words (no shell runs)."""
        words = tuple(self._split(self.value)) if isinstance(self.value, str) else self.texts()
        if not words or not words[0] or any("\0" in word for word in words):
            raise self.expected("a command: a list of words, or one line")
        return words

    def checked(self, check: Callable[[str], Checked]) -> Checked:
        """What ``check`` makes of the text; its KaiError becomes this field's."""
        try:
            return check(self.text())
        except KaiError as bad:
            raise self.wrong(f"is refused: {bad.what}", bad.hint) from None

    def _split(self, line: str) -> list[str]:
        import shlex  # noqa: PLC0415 - few manifests hold a line for a shell

        try:
            return shlex.split(line)
        except ValueError as bad:
            raise self.wrong(f"is not a command: {bad}", "check its quotes") from None

    def _amount(self, units: Mapping[str, float], kind: str, hint: str) -> float:
        if isinstance(self.value, int | float) and not isinstance(self.value, bool):
            return self.value
        match = re.match(_AMOUNT, self.value) if isinstance(self.value, str) else None
        unit = units.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise self.expected(kind, hint)
        return float(match[1]) * unit

    def _within(self, number: float, least: float, most: float, bounds: str) -> float:
        if not least <= number <= most:
            raise self.expected(f"from {bounds}")
        return number

    def _dotted(self, key: str) -> str:
        part = key if key.isprintable() and len(key) <= yamltext.MAX_SHOWN else shown(key)
        return f"{self.name}.{part}" if self.name else part

    def _at(self, name: str, node: Node) -> Field:
        return Field(node, name, self.source, self.error)


def root(data: bytes, source: str, error: type[KaiError]) -> Field:
    """The whole document as a field that must be a mapping."""
    return Field(yamltext.load(data, source, error), "", source, error)


def _described(value: Value) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else shown(value)
