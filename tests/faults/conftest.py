"""What every torture has: a share of its full size, a seed that is printed, figures at the end, a fast disk."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

CI_SHARE = 0.1
SEED = int(os.environ.get("KAI_FAULTS_SEED", "20261122"))
MEMORY = Path("/dev/shm")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``share`` runs with a tenth of its size, and with all of it under ``make torture``."""
    if "share" in metafunc.fixturenames:
        metafunc.parametrize("share", [CI_SHARE, pytest.param(1.0, marks=pytest.mark.slow)], ids=["tenth", "whole"])


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's seed (KAI_FAULTS_SEED), another for each test."""
    return random.Random(f"{SEED} {request.node.name.replace('whole', '').replace('tenth', '')}").randrange(1 << 32)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Say a line that stands at the end of the run; counts are summed over all tests."""

    def say(line: str, **counts: int) -> None:
        print(line)
        record_property("figure", line)
        for what, count in counts.items():
            record_property("count", (what, count))

    return say


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on a disk that syncs in no time: what is tested is order and errors, not the disk."""
    with_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 1 << 28
    path = Path(tempfile.mkdtemp(prefix="kai-faults-", dir=MEMORY if with_room else None))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """The figures of all tests, those of other workers too, and their sums."""
    lines, sums = [], Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") != "call":
                continue
            for key, value in report.user_properties:
                if key == "figure":
                    lines.append(f"{report.nodeid.rpartition('::')[2]}: {value}")
                elif key == "count":
                    sums[value[0]] += value[1]
    if lines or sums:
        terminalreporter.section(f"figures (KAI_FAULTS_SEED={SEED})")
        for line in sorted(lines):
            terminalreporter.line(line)
        for what, count in sorted(sums.items()):
            terminalreporter.line(f"in all: {count} {what.replace('_', ' ')}")
