"""Records behave as the standard library's: each example is declared with both."""

import ast
import copy
import dataclasses
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from kaivc import records
from tests.conftest import ROOT

MANY: int = vars(records)["MANY"]


def made(kind: Any) -> SimpleNamespace:
    """The same classes, by one of the two."""

    @kind.dataclass(frozen=True)
    class Point:
        x: "int"
        y: "int" = 0
        tags: "list[str]" = kind.field(default_factory=list, compare=False)
        note: "str" = kind.field(default="-", compare=False)

    @kind.dataclass
    class Counter:
        n: "int" = 0
        seen: "dict[str, int]" = kind.field(default_factory=dict)
        kinds: "ClassVar[int]" = 7

        def __post_init__(self) -> None:
            self.n += 1

    @kind.dataclass(frozen=True)
    class Nothing:
        pass

    return SimpleNamespace(Point=Point, Counter=Counter, Nothing=Nothing)


def shown(what: Callable[[], Any]) -> str:
    """What comes of it: a value, or an error."""
    try:
        return repr(what()).replace(f"{made.__qualname__}.<locals>.", "")
    except (TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}".replace(f"{made.__qualname__}.<locals>.", "")


EXAMPLES: dict[str, Callable[[Any], Any]] = {
    "by place": lambda it: it.Point(1, 2),
    "by name": lambda it: it.Point(y=1, x=2, note="n", tags=["a"]),
    "defaults": lambda it: (it.Point(1).tags is it.Point(1).tags, it.Point(1).note, it.Counter().n, it.Nothing()),
    "too few": lambda it: it.Point(),
    "too many": lambda it: it.Point(1, 2, [], "", 5),
    "twice": lambda it: it.Point(1, x=2),
    "unknown": lambda it: it.Point(1, z=2),
    "equal": lambda it: (it.Point(1) == it.Point(1), it.Point(1) == it.Point(2), it.Point(1) == it.Counter(1)),
    "compare": lambda it: (it.Point(1, note="a") == it.Point(1, note="b"), it.Point(1, 0, ["a"]) == it.Point(1)),
    "hash": lambda it: hash(it.Point(1)) == hash(it.Point(1, tags=["a"])),
    "set of them": lambda it: len({it.Point(1), it.Point(1, 0), it.Nothing()}),
    "unhashable": lambda it: hash(it.Counter()),
    "set": lambda it: setattr(it.Point(1), "x", 2),
    "delete": lambda it: delattr(it.Point(1), "x"),
    "changed": lambda it: vars(it.Counter(1, {})) | {"kinds": it.Counter.kinds},
    "fields": lambda it: [each.name for each in dataclasses.fields(it.Point)],
    "as dict": lambda it: (dataclasses.asdict(it.Point(1)), dataclasses.asdict(it.Nothing())),
    "replace": lambda it: dataclasses.replace(it.Point(1), y=3),
    "copy": lambda it: (copy.copy(it.Point(1)), copy.deepcopy(it.Point(1, tags=["a"]))),
    "match": lambda it: it.Point.__match_args__,
}  # fmt: skip


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("after", [0, MANY + 1])
def test_a_record_is_as_a_dataclass(example: str, after: int) -> None:
    ours, theirs = made(records), made(dataclasses)
    for _ in range(after):
        ours.Point(1)
        ours.Counter()
        ours.Nothing()
    for _ in range(2):
        assert shown(lambda: EXAMPLES[example](ours)) == shown(lambda: EXAMPLES[example](theirs))


def test_a_class_of_many_instances_is_compiled() -> None:
    ours = made(records)
    first = ours.Point.__init__
    for number in range(MANY):
        assert ours.Point(number).x == number
    assert ours.Point.__init__ is first
    assert ours.Point(1, note="n") == ours.Point(1)
    assert ours.Point.__init__ is not first


def test_the_fields_of_a_record_and_a_changed_copy() -> None:
    point = made(records).Point(1, tags=["a"])
    assert records.values(point) == {"x": 1, "y": 0, "tags": ["a"], "note": "-"}
    assert records.values(records.replace(point, y=3)) == {"x": 1, "y": 3, "tags": ["a"], "note": "-"}
    with pytest.raises(TypeError):
        records.replace(point, z=3)


def test_a_record_can_be_sent_to_another_process() -> None:
    from kaivc.names import Actor

    ann = Actor("Ann", "ann@example.invalid")
    assert pickle.loads(pickle.dumps(ann)) == ann  # noqa: S301 - our own


def test_no_module_pays_for_dataclasses() -> None:
    paying = set()
    for path in (ROOT / "kaivc").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "dataclasses" and path.name != "records.py":
                paying.add(str(path.relative_to(ROOT)))
    assert not paying, "import `dataclass`, `field` and `replace` from kaivc.records: it costs a tenth at start-up"


def test_a_field_may_be_called_record() -> None:
    @records.dataclass(frozen=True)
    class Link:
        record: "int"  # as text, as in modules that import annotations

    with pytest.raises(TypeError, match="other"):
        Link(record=3, other=4)  # type: ignore[call-arg]
    assert Link(record=3).record == 3
