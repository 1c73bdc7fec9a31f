"""The plug is pulled on a real ext4: what a disk may then hold is mounted, and judged.

The file system, its journal and SQLite are the real ones, none is modelled; the disk is a file that FUSE serves, and
that writes down every block and every flush. All of it lives in mounts and processes of its own, which go with it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import IN_CI, ROOT, require_tool
from tests.faults.stories import STORIES

MOUNTS = 40
"""For each command, in the full run: half of them of a quiet system, half of one that writes on its own account."""
TOOLS = ("mkfs.ext4", "fusermount3", "mount", "umount", "unshare", "setpriv")
DEVICES = ("/dev/fuse", "/dev/loop-control")
SHOWN_AT_ONCE = (
    "no sync of packs",
    "no sync of packs in gc",
    "no sync of directories in init",
    "no sync of staged files",
    "no sync of an agent's first files",
)
"""Mistakes that ext4 does not hide, in what is flushed when the command returns."""
LONG = 300  # seconds


def apart(*words: str) -> list[str]:
    """The command that has mounts and processes of its own: they end when it does, and it when we do."""
    ours = ["setpriv", "--pdeathsig", "KILL"]
    own = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*ours, *own, sys.executable, "-m", *words]


@pytest.fixture(scope="module", autouse=True)
def disks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A CI without the means would prove nothing; elsewhere it is said what lacks."""
    for tool in TOOLS:
        require_tool(tool)
    lacks = [device for device in DEVICES if not os.path.exists(device)]
    if os.geteuid() != 0:
        lacks.append("root")
    if not lacks:
        try_out = apart("tests.faults.blocks", str(tmp_path_factory.mktemp("disk")))
        done = subprocess.run(try_out, capture_output=True, text=True, timeout=LONG, check=False, cwd=ROOT)
        if done.returncode:
            lacks.append(f"a disk served by FUSE, which ends in: {(done.stderr.splitlines() or ['nothing'])[-1]}")
    if lacks:
        text = f"the real disk needs {', '.join(lacks)}"
        if IN_CI:
            pytest.fail(text)
        pytest.skip(text)


def run(scratch: Path, story: str, *words: str, seed: int, mounts: int) -> dict[str, Any]:
    """The report of one command."""
    scratch.mkdir()
    options = [*words, "--seed", str(seed), "--mounts", str(mounts), "--scratch", str(scratch)]
    command = apart("tests.faults.real_disk", story, *options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("name", STORIES)
def test_every_mount_is_whole(name: str, share: float, seed: int, memory: Path, figure: Callable[..., None]) -> None:
    systems = [["--restless"], []] if share == 1.0 else [["--restless"] * (seed % 2)]
    for words in systems:
        mounts = round(MOUNTS * share / len(systems))
        report = run(memory / f"{len(words)}", name, *words, seed=seed, mounts=mounts)
        figure(
            f"{report['mounts']} mounts of {report['states']} states of a {'restless' if words else 'quiet'} ext4, "
            f"{report['writes']} writes and {report['flushes']} flushes, {report['outcomes']}",
            mounts_of_a_real_disk=report["mounts"],
        )
        assert not report["corrupt"], "\n".join(map(str, report["corrupt"]))
        assert report["outcomes"]["after"] > 0
        assert report["mounts"] == min(mounts, report["states"])


@pytest.mark.parametrize("mutant", SHOWN_AT_ONCE)
def test_a_mistake_is_caught(mutant: str, seed: int, memory: Path, figure: Callable[..., None]) -> None:
    from tests.faults.mutants import MUTANTS

    story = next(it.story for it in MUTANTS if it.name == mutant)
    report = run(memory / "scratch", story, "--mutant", mutant, seed=seed, mounts=2)
    assert report["corrupt"], report
    figure(f"caught: {report['corrupt'][0][1][:90]}", mutants_caught_on_a_real_disk=1)


def test_a_superblock_is_never_cut_in_two() -> None:
    """One sector of it new and one old: ext4 refuses to mount that, whatever was written above it."""
    from tests.faults.real_disk import Piece

    first = Piece(0, 0, bytes(4096))
    cuts = {len(first.torn(random.Random(seed)).data) for seed in range(200)}
    assert cuts == set(range(0, 4096 + 1, 512)) - {1536}
    assert 1536 in {len(replace(first, block=1).torn(random.Random(seed)).data) for seed in range(200)}


@pytest.mark.parametrize("later", [0.0, 0.15, 0.3])
def test_nothing_is_left_when_it_is_killed(later: float, memory: Path) -> None:
    command = apart("tests.faults.real_disk", "commit", "--mounts", "500", "--scratch", str(memory))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        log = memory / "log"
        try:
            _wait(lambda: log.exists() and log.stat().st_size > 100_000 and bool(_devices(memory)))
            time.sleep(later)
        finally:
            running.kill()
    _wait(lambda: not _devices(memory))
    assert str(memory) not in Path("/proc/mounts").read_text(encoding="utf-8")


def _devices(below: Path) -> list[str]:
    """The files of loop devices that are ours; in mounts that we do not see they go by their last name."""
    found = []
    for each in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(each.read_text(encoding="utf-8").strip())
        except OSError:  # it has just gone
            continue
    return [name for name in found if below.name in name]


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)
