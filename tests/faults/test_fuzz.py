"""Fuzzing every parser with atheris, from the saved corpus; what once broke one stays in the corpus."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import IN_CI, ROOT
from tests.faults.fuzz.seeds import SEEDS
from tests.faults.fuzz.targets import TARGETS, judge

EXECUTIONS = 1_000_000
CORPUS = Path(__file__).parent / "fuzz/corpus"
HALVES = [list(TARGETS)[::2], list(TARGETS)[1::2]]


def test_each_parser_has_a_corpus_that_is_small() -> None:
    assert TARGETS.keys() == SEEDS.keys() == {path.name for path in CORPUS.iterdir()}
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < 200_000


@pytest.mark.parametrize("target", TARGETS)
def test_saved_corpus(target: str) -> None:
    for path in sorted((CORPUS / target).iterdir()):
        judge(target, path.read_bytes())


@pytest.mark.parametrize("targets", HALVES, ids=["first half", "second half"])
def test_fuzz(targets: list[str], share: float, seed: int, tmp_path: Path, figure: Callable[..., None]) -> None:
    if importlib.util.find_spec("atheris") is None:
        text = "atheris is not installed, so that no parser was fuzzed"
        if IN_CI:
            pytest.fail(text)
        pytest.skip(text)
    runs = int(EXECUTIONS * share) // len(TARGETS) + 1
    command = [sys.executable, "-m", "tests.faults.fuzz.run", str(runs), str(seed), str(tmp_path), *targets]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=False)
    made, new, wrong = 0, 0, []
    for target in targets:
        log = (tmp_path / target / "log").read_text(errors="replace")
        units = re.search(r"number_of_executed_units: (\d+)", log)
        made += int(units[1]) if units else 0
        new += len(list((tmp_path / target / "new").iterdir()))
        if (tmp_path / target / "code").read_text() != "0":
            crashers = [f"{path.name}: {path.read_bytes()!r}" for path in (tmp_path / target).glob("crash-*")]
            wrong.append(f"{target}:\n{log[-3000:]}\n" + "\n".join(crashers))
    assert not wrong, "\n\n".join(wrong)
    assert done.returncode == 0, done.stderr[-3000:]
    assert made >= runs * len(targets)
    saved = sum(1 for target in targets for _ in (CORPUS / target).iterdir())
    figure(
        f"{made} fuzz executions of {len(targets)} parsers with seed {seed}; corpus of {saved}, {new} new inputs",
        fuzz_executions=made,
    )
