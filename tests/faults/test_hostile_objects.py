"""Hostile objects: whatever a peer or an editor put into the store, each command gives a typed answer, soon."""

import contextlib
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest

from kaivc.cli.main import main
from tests.faults.hostile import objects
from tests.faults.hostile.doors import OBJECT_DOORS, Sandbox
from tests.faults.hostile.forge import Forge, dispose, make
from tests.faults.hostile.objects import HARMLESS, REFUSED, Case


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as it was made; every door was gone through once, so that all that is imported is."""
    path = tmp_path_factory.mktemp("hostile") / "template"
    make(path)
    warm = Sandbox(path.parent / "warm")
    warm.prepare(path)
    Forge(warm.home).land()
    with contextlib.chdir(warm.top), redirect_stdout(TextIOWrapper(BytesIO())), redirect_stderr(StringIO()):
        for door in OBJECT_DOORS:
            main([*(part.replace("6.6.6", "1.0.0") for part in door.argv), "--home", str(warm.home)])
    dispose(warm.top)
    return path


@pytest.mark.parametrize("case", objects.TABLE, ids=str)
def test_object(case: Case, template: Path, tmp_path: Path) -> None:
    box = Sandbox(tmp_path / "box")
    box.prepare(template)
    forge = Forge(box.home)
    case.build(forge)
    forge.land()
    wrong = []
    for door in OBJECT_DOORS:
        outcome, problems = box.through(door)
        if (
            case.expect == REFUSED
            and door.touches
            and door.argv[0] not in case.skip
            and outcome.error not in case.codes
        ):
            problems.append(f"not refused: exit {outcome.code}, {outcome.error or outcome.out[:300]!r}")
        if case.expect == REFUSED and door.checks and not outcome.code:
            problems.append("not found")
        if case.expect == HARMLESS and door.touches and outcome.code:
            problems.append(f"refused: {outcome.err[:500]!r}")
        wrong += [f"{door.name}: {problem}" for problem in problems]
    dispose(box.top)
    dispose(tmp_path / "box-again")
    assert not wrong, "\n".join(wrong)
