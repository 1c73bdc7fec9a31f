"""Small YAML texts from people and from strangers, read strictly.

Only the event stream of PyYAML is used, so nothing is built before it is counted. Refused: aliases and
anchors (bombs), tags, keys that stand twice or are not text, several documents, more than the limits.
Plain scalars follow YAML 1.2's core schema with decimal numbers only: ``no`` is text, ``0755`` is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kaivc.errors import KaiError
from kaivc.records import dataclass

if TYPE_CHECKING:
    import yaml

MAX_BYTES: Final = 24 * 1024
"""A parser in Python takes some 3 microseconds for each byte: so a text costs well under 100 ms."""
MAX_DEPTH: Final = 16
MAX_EVENTS: Final = 5_000
MAX_SHOWN: Final = 60
"""Characters of a stranger's text that a message repeats."""

Value = str | int | float | bool | list["Node"] | dict[str, "Node"] | None
Scalar = str | int | float | bool | None

_NULL = frozenset(["", "~", "null", "Null", "NULL"])
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = r"[-+]?(?:0|[1-9][0-9]*)\Z"
_DECIMAL = r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z"
_SURROGATE = "[\ud800-\udfff]"  # what "\\ud800" in quotes makes; no file name or argument holds it
_MAX_DIGITS = 19  # what 64 bits hold, and a number of any size costs time in its square
_QUOTE = "put text that begins with '*', '&' or '!' in quotes"


@dataclass(frozen=True)
class Node:
    """A value and its line, from 1; a value of a mapping has the line of its key."""

    value: Value
    line: int


class Malformed(Exception):
    """What is wrong with a text, and where; `load` makes it the caller's error."""

    def __init__(self, problem: str, line: int, hint: str = "") -> None:
        super().__init__(problem)
        self.problem, self.line, self.hint = problem, line, hint


class _Step(NamedTuple):
    kind: str  # "value", "list", "map" or "end"
    line: int
    value: Scalar = None


def load(data: bytes, source: str, error: type[KaiError]) -> Node:
    """The tree of one YAML document; an empty mapping for blanks and comments.

    Raises ``error`` with ``file`` and ``line`` for whatever is not well-formed or past a limit.
    """
    try:
        return _tree(data)
    except Malformed as bad:
        raise located(error, source, bad.line, bad.problem, bad.hint) from None


def values(node: Node) -> Any:  # noqa: ANN401 - what a text holds
    """What a tree holds, without its lines."""
    value = node.value
    if isinstance(value, dict):
        return {key: values(it) for key, it in value.items()}
    return [values(it) for it in value] if isinstance(value, list) else value


def dump(document: dict[str, Any], source: str, error: type[KaiError], hint: str) -> bytes:
    """The text of a map, such as `load` reads back the same; ``error`` for one that is past a limit."""
    import yaml  # noqa: PLC0415 - as in `_steps`

    text = yaml.dump(document, Dumper=_dumper(), sort_keys=True, allow_unicode=True).encode()
    try:
        same = values(_tree(text)) == document
        problem = "" if same else "it would be read as something else"
    except Malformed as bad:
        problem = bad.problem
    if problem:
        raise error(
            f"{source} cannot hold that too: {problem}",
            unchanged="it is as it was",
            hint=hint,
            file=source,
        )
    return text


def located(
    error: type[KaiError],
    source: str,
    line: int,
    problem: str,
    hint: str = "",
    **facts: Any,  # noqa: ANN401
) -> KaiError:
    """An error that says where: ``source:line: problem``; line 0 is for what stands in no file."""
    where = f"{source}:{line}" if line else source
    facts |= {"file": source, "line": line} if line else {"file": source}
    return error(f"{where}: {problem}", hint=hint, **facts)


def shown(value: object) -> str:
    """A stranger's value for a message: escaped, and cut."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def plain(text: str, line: int = 0) -> Scalar:
    """What an unquoted scalar means; Malformed for a number of too many digits."""
    if text in _NULL:
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    if re.match(_INTEGER, text):
        return int(_bounded(text, line))
    if re.match(_DECIMAL, text):
        return float(_bounded(text, line))
    return text


def _bounded(number: str, line: int) -> str:
    if len(number.lstrip("+-")) > _MAX_DIGITS:
        raise Malformed(f"a number of more than {_MAX_DIGITS} digits", line)
    return number


# ---------------------------------------------------------------- from bytes to a tree


def _tree(data: bytes) -> Node:
    text = _decode(data)
    if all(not line or line.startswith("#") for line in map(str.lstrip, text.splitlines())):
        return Node({}, 1)
    root: Node | None = None
    steps = _steps(text)
    for step in steps:
        if root:
            raise Malformed("a second document", step.line)
        root = _node(step, steps)
    return Node({}, 1) if root is None or root.value is None else root


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise Malformed(f"{len(data):,} bytes, the limit is {MAX_BYTES:,}", 1)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as bad:
        raise Malformed("not UTF-8", data.count(b"\n", 0, bad.start) + 1) from None


def _node(step: _Step, steps: Iterator[_Step], line: int = 0) -> Node:
    """The node that ``step`` begins; takes what belongs to it from ``steps``, at most MAX_DEPTH deep."""
    line = line or step.line
    if step.kind == "list":
        return Node([_node(item, steps) for item in _until_end(steps)], line)
    if step.kind == "map":
        return Node(_mapping(steps), line)
    return Node(step.value, line)


def _mapping(steps: Iterator[_Step]) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for step in _until_end(steps):
        key = _key(step)
        if key in found:
            raise Malformed(f"key {shown(key)} stands twice, first on line {found[key].line}", step.line)
        found[key] = _node(next(steps), steps, step.line)
    return found


def _key(step: _Step) -> str:
    if step.kind != "value":
        raise Malformed(f"a key must be text, not a {step.kind}", step.line)
    if not isinstance(step.value, str):
        raise Malformed(f"a key must be text, not {shown(step.value)}", step.line, "put it in quotes")
    return step.value


def _until_end(steps: Iterator[_Step]) -> Iterator[_Step]:
    for step in steps:
        if step.kind == "end":
            return
        yield step


# ---------------------------------------------------------------- from PyYAML's events to steps


def _steps(text: str) -> Iterator[_Step]:
    """What the document holds, in order, checked against the limits as it is read."""
    import yaml  # noqa: PLC0415 - 16 ms, and most texts are absent or blank

    depth = 0
    try:
        for count, event in enumerate(yaml.parse(text, Loader=_loader()), 1):
            line = event.start_mark.line + 1 if event.start_mark else 1
            _check_event(event, count, line)
            step = _step(event, line)
            if step:
                depth += {"value": 0, "end": -1}.get(step.kind, 1)
                _check_depth(depth, line)
                yield step
    except yaml.YAMLError as bad:
        raise _malformed(bad, text) from None


def _step(event: yaml.Event, line: int) -> _Step | None:
    kind = _KINDS.get(type(event).__name__)
    if kind == "value":
        return _Step(kind, line, _scalar(event, line))
    return _Step(kind, line) if kind else None


_KINDS: Final = {
    "ScalarEvent": "value",
    "SequenceStartEvent": "list",
    "MappingStartEvent": "map",
    "SequenceEndEvent": "end",
    "MappingEndEvent": "end",
}


def _scalar(event: yaml.Event, line: int) -> Scalar:
    text = str(getattr(event, "value", ""))
    if re.search(_SURROGATE, text):
        raise Malformed("half of a surrogate pair", line)
    return plain(text, line) if getattr(event, "style", None) is None else text


def _check_event(event: yaml.Event, count: int, line: int) -> None:
    if count > MAX_EVENTS:
        raise Malformed(f"more than {MAX_EVENTS:,} values", line)
    if getattr(event, "anchor", None) is not None:
        raise Malformed("anchors and aliases are not taken", line, _QUOTE)
    if getattr(event, "tag", None) is not None:
        raise Malformed("tags are not taken", line, _QUOTE)


def _check_depth(depth: int, line: int) -> None:
    if depth > MAX_DEPTH:
        raise Malformed(f"more than {MAX_DEPTH} levels deep", line)


def _malformed(bad: yaml.YAMLError, text: str) -> Malformed:
    """PyYAML's complaint with its line; its words may quote the text, so they are escaped."""
    mark = getattr(bad, "problem_mark", None) or getattr(bad, "context_mark", None)
    if mark is None:  # a character that YAML does not allow
        line = text.count("\n", 0, getattr(bad, "position", 0)) + 1
        return Malformed(f"character {shown(chr(getattr(bad, 'character', 0)))} is not taken", line)
    problem = getattr(bad, "problem", None) or "not YAML"
    about = str(getattr(bad, "context", None) or "")
    hint = _QUOTE if any(word in about + problem for word in ("alias", "anchor", "tag")) else ""
    return Malformed(problem.encode("unicode_escape").decode("ascii"), mark.line + 1, hint)


@cache
def _dumper() -> type[yaml.SafeDumper]:
    """PyYAML's safe dumper, which quotes also what means something else in `plain` than in YAML 1.1, such as 1e3."""
    import yaml  # noqa: PLC0415 - as in `_steps`

    class Quoting(yaml.SafeDumper):
        def represent_text(self, text: str) -> yaml.ScalarNode:
            try:
                quoted = plain(text) != text
            except Malformed:
                quoted = True
            return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if quoted else None)

    Quoting.add_representer(str, Quoting.represent_text)
    return Quoting


@cache
def _loader() -> type[yaml.SafeLoader]:
    """PyYAML's safe loader that stops at a deep flow collection.

    The plain one reads 1,024 brackets ahead, each of them in time of their number, before the first event.
    """
    import yaml  # noqa: PLC0415 - as in `_steps`

    class Shallow(yaml.SafeLoader):
        def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
            if self.flow_level >= MAX_DEPTH:
                raise Malformed(f"more than {MAX_DEPTH} levels deep", self.line + 1)
            super().fetch_flow_collection_start(token)

    return Shallow
