"""The quick reader of command lines makes of words what the parser makes of them, or leaves them to it."""

from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kaivc.cli import parser, plain
from kaivc.cli.app import VERBS, function
from kaivc.cli.arguments import EVERYWHERE, Option, parameters
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation

Read = tuple[FunctionType, dict[str, Any], Invocation]

TEXTS = [
    "bot",
    "bot@v1.0.0",
    "patch",
    "minor",
    "auto",
    "folders",
    "bash",
    "7",
    "0",
    "-1",
    "+1",
    "\u0663",
    "",
    "-",
    "--",
]
ODD = [
    "lock.wait=1s",
    "=",
    "-h",
    "--help",
    "-U5",
    "-rl",
    "--js",
    "--json=1",
    "--bump=minor",
    "--to=",
    "-V",
    "-n=3",
    "-c",
]


def names(verb: str) -> list[str]:
    found = function(verb)
    assert found is not None
    every = (*parameters(found), *EVERYWHERE)
    return [name for it in every if isinstance(it.declared, Option) for name in it.declared.names]


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    verb = draw(st.sampled_from(VERBS))
    options = st.sampled_from(names(verb))
    texts = st.sampled_from(TEXTS + ODD)
    word = st.one_of(options, texts, st.tuples(options, texts).map("=".join))
    before = draw(st.lists(st.sampled_from(["--json", "--home", "/nowhere", "-c", "a=b"]), max_size=2))
    return [*before, *verb.split(), *draw(st.lists(word, max_size=6))]


def plainly(words: list[str]) -> Read | None:
    door = Invocation()
    found = plain.read(words, function, door)
    return None if found is None else (*found, door)


@pytest.fixture(autouse=True)
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Read]]:
    """The parser carries nothing out: this list takes what it would."""
    found: list[Read] = []
    real: Any = parser._called

    def recording(verb: FunctionType, takes: list[Any]) -> Any:
        def note(door: Invocation, **values: Any) -> None:
            found.append((verb, values, door))

        return real(note, takes)

    monkeypatch.setattr(parser, "_called", recording)
    parser.load.cache_clear()
    yield found
    parser.load.cache_clear()


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines())
@example(["commit", "bot", "--bump", "-m", "one", "-m", "two"])
@example(["--home", "a", "agent", "--json", "remove", "--home", "", "bot", "--dry-run"])
@example(["run", "bot", "--", "ls", "--dirty", "--"])
@example(["rev-parse", "bot", "--short", "bot@v1.0.0", "-c", "a=", "-c", "b=c=d"])
@example(["diff", "bot", "-U", "0"])
def test_it_reads_as_the_parser_does(called: list[Read], words: list[str]) -> None:
    mine = plainly(words)
    if mine is None:
        return
    del called[:]
    assert parser.run(list(words), Invocation()) == 0
    assert called == [mine]


@pytest.mark.parametrize(
    "line",
    [
        "status",
        "status bot --exit-code --json",
        "rollback bot --to v1.0.0 --reason=why --keep a --keep b --dry-run",
        "--home x -c lock.wait=1s commit bot --bump minor -m text",
        "commit bot --bump",
        "log bot -n 3",
        "diff bot -U 0",
        "agent list --all",
        "run bot -- ls -l",
        "restore bot a b --from v1.0.0",
    ],
)
def test_what_people_type_is_plain(line: str) -> None:
    assert plainly(line.split()) is not None


@pytest.mark.parametrize(
    "line",
    ["", "status -h", "nothing", "agent", "agent lost x", "log bot -n 0", "log bot -n x", "diff", "commit bot --type x",
     "status a b", "rollback bot --to", "rollback bot --to --live", "status --exit-code=1", "-c x status", "-V",
     "ls-tree bot -rl"],
)  # fmt: skip
def test_what_is_not_plain_is_left_alone(line: str) -> None:
    assert plainly(line.split()) is None


def test_both_refuse_the_same_setting() -> None:
    with pytest.raises(Misuse, match="'x' is not KEY=VALUE"):
        parser.run(["-c", "x", "status"], Invocation())
