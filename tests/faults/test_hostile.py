"""Hostile objects and input: whatever was put there, each command gives a typed answer, soon, and touches nothing else.

Each input is judged in forked children of a warm process: CPU, memory, what reaches the terminal, and a canary beside
the home. A tenth of the run takes every input through some of its doors, the whole run through all of them.
"""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest

from kaivc.cli.main import main
from kaivc.errors import KaiError
from tests.cli.doors import on_a_terminal
from tests.engine.homes import open_home
from tests.faults.hostile import inputs, objects
from tests.faults.hostile.doors import EVIL, OBJECT_DOORS, Door, Sandbox
from tests.faults.hostile.forge import AGENT, Forge, dispose, make
from tests.faults.hostile.inputs import Input
from tests.faults.hostile.measure import run, unsafe
from tests.faults.hostile.objects import HARMLESS, REFUSED, Case

FEW = 3
"""Doors that an input goes through in CI, beside those that must refuse it."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as it was made; every door was gone through once, so that all that is imported is."""
    path = tmp_path_factory.mktemp("hostile") / "template"
    make(path)
    warm = Sandbox(path.parent / "warm")
    warm.prepare(path)
    with contextlib.chdir(warm.top), redirect_stdout(TextIOWrapper(BytesIO())), redirect_stderr(StringIO()):
        for door in (*OBJECT_DOORS, *inputs.EVERYWHERE):
            main([*(part.replace("6.6.6", "1.0.0") for part in door.argv), "--home", str(warm.home)])
    dispose(warm.top)
    return path


@pytest.fixture
def box(template: Path, memory: Path) -> Sandbox:
    found = Sandbox(memory / "box")
    found.prepare(template)
    return found


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[int], None]:
    """Add an input and its doors to the figures at the end."""

    def say(doors: int) -> None:
        record_property("count", ("hostile_inputs", 1))
        record_property("count", ("doors_of_hostile_inputs", doors))

    return say


def some(doors: Sequence[Door], share: float, seed: int) -> list[Door]:
    """All doors of a whole run; of a tenth those that must refuse, one that must find, and a few others."""
    if share == 1:
        return list(doors)
    chance = random.Random(seed)
    must = [door for door in doors if door.touches]
    finding = [door for door in doors if door.checks]
    rest = [door for door in doors if not door.touches and not door.checks]
    return [*must, *chance.sample(finding, min(1, len(finding))), *chance.sample(rest, min(FEW, len(rest)))]


@pytest.mark.parametrize("case", objects.TABLE, ids=str)
def test_object(case: Case, box: Sandbox, share: float, seed: int, count: Callable[[int], None]) -> None:
    forge = Forge(box.home)
    case.build(forge)
    forge.land()
    wrong, chosen = [], some(OBJECT_DOORS, share, seed)
    for door in chosen:
        outcome, problems = box.through(door, records=len(forge.records))
        if case.expect == REFUSED and door.touches and outcome.error not in case.codes:
            problems.append(f"not refused: exit {outcome.code}, {outcome.error or outcome.out[:300]!r}")
        if case.expect == REFUSED and door.checks and not outcome.code:
            problems.append("not found")
        if case.expect == HARMLESS and door.touches and outcome.code:
            problems.append(f"refused: {outcome.err[:500]!r}")
        wrong += [f"{door.name}: {problem}" for problem in problems]
    assert not wrong, "\n".join(wrong)
    count(len(chosen))


@pytest.mark.parametrize("table", [*inputs.TABLES])
def test_inputs(
    table: str, template: Path, memory: Path, share: float, seed: int, count: Callable[[int], None]
) -> None:
    """Of a tenth, a quarter of each table, with all doors that it has room for."""
    cases: list[Input] = inputs.TABLES[table]
    chosen = cases if share == 1 else random.Random(seed).sample(cases, len(cases) // 4)
    wrong = [
        f"{case.name}: {problem}" for case in chosen for problem in _input(case, template, memory, share, seed, count)
    ]
    assert not wrong, "\n".join(wrong)


def _input(
    case: Input, template: Path, memory: Path, share: float, seed: int, count: Callable[[int], None]
) -> Iterator[str]:
    box = Sandbox(memory / "box")
    box.prepare(template)
    case.place(box)
    doors = some(case.doors, share, seed)
    for door in doors:
        outcome, problems = box.through(door, case.env)
        if case.codes and outcome.error not in case.codes:
            problems.append(f"not refused: exit {outcome.code}, {outcome.error or outcome.out[:300]!r}")
        yield from (f"{door.name[:200]}: {problem}" for problem in problems)
    dispose(box.top)
    count(len(doors))


def test_a_chain_of_20_000_parents(box: Sandbox) -> None:
    """What asks for a few commits reads a few; what asks for all takes all, and holds out."""
    forge = Forge(box.home)
    objects.PARENTS[0].build(forge)
    forge.land()
    for line in (f"log {EVIL} -n 20", f"show {EVIL}", f"checkout {EVIL} out/checkout", f"rev-parse {EVIL}~5"):
        _, problems = box.through(Door(tuple(line.split())))
        assert not problems, (line, problems)
    whole = run(("log", EVIL, "--oneline", "--home", str(box.home)), box.top)
    assert whole.code == 0
    assert whole.out.count(b"\n") == 20_001


@pytest.mark.parametrize("command", ["show {}", "log {}", "diff {} v1.0.0", "ls-tree {}", "versions summarizer"])
def test_a_terminal_is_told_nothing_that_it_obeys(command: str, box: Sandbox) -> None:
    """On a real terminal, where colours are: besides those, nothing but text."""
    forge = Forge(box.home)
    bad = "\x1b]0;owned\x07\x1b[2J\u202e\u009b31m"
    tree = forge.tree((b"100644", bad.encode(), forge.blob(f"{bad}\r{bad}\n".encode())))
    forge.version(tree, notes=f"notes {bad}", who=f"{bad} <eve@example.org>")
    forge.land()
    told = on_a_terminal(command.format(EVIL).split(), box.home, env={"NO_COLOR": "1"})
    assert told.out
    assert not unsafe(told.out.encode()), told.out


def test_parents_that_are_swapped_meanwhile(box: Sandbox, figure: Callable[..., None]) -> None:
    """Directories of the workspace and of the target become links out of it, and back, as fast as a thread can."""
    home = open_home(box.home)
    agent, stop = home.agent(AGENT), threading.Event()
    (box.canary / "a.py").write_text("canary\n")
    before = box.state()
    source, aside = agent.workspace / "src", agent.workspace / "src-aside"

    def swap() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                source.rename(aside)
                source.symlink_to(box.canary)
                source.unlink()
            with contextlib.suppress(OSError):
                aside.rename(source)

    thread = threading.Thread(target=swap)
    thread.start()
    refused = 0
    try:
        for number in range(60):
            try:
                if number % 2:
                    agent.rollback("v1.0.0" if number % 4 == 1 else "v2.0.0", reason="swap", force=True)
                else:
                    agent.restore("src", source="v1.0.0")
            except KaiError:
                refused += 1
    finally:
        stop.set()
        thread.join()
        home.close()
    assert box.state() == before
    assert (box.canary / "a.py").read_text() == "canary\n"
    figure(f"60 moves while directories became links: {refused} were refused, nothing outside was touched")
