"""The workloads: the same files for the same seed, and the files that they say."""

import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from scripts.bench import folders, workloads
from scripts.bench.workloads.large import COLUMNS, DATABASE, LOG, MATRIX

SEEDED = ("W1", "W2", "W3")


def states(name: str, where: Path, seed: int = 7) -> list[str]:
    """One hash for each state of a workload."""
    workspace = where / "workspace"
    workspace.mkdir(parents=True)
    workload = workloads.make(name, "tiny", str(where / "cache"), seed)
    found = []
    for number in range(workload.versions):
        workload.advance(str(workspace), number)
        found.append(folders.digest(folders.contents(str(workspace))))
    return found


@pytest.mark.parametrize("name", SEEDED)
def test_a_seed_gives_the_same_states_twice_and_another_seed_others(name: str, tmp_path: Path) -> None:
    found = states(name, tmp_path / "one")
    assert found == states(name, tmp_path / "two")
    assert len(set(found)) == len(found)
    assert not set(found) & set(states(name, tmp_path / "three", seed=8))


def test_the_small_workload_is_twelve_files_of_sixty_kilobytes(tmp_path: Path) -> None:
    states("W1", tmp_path)
    held = list(folders.files(str(tmp_path / "workspace")))
    assert len(held) == 12
    assert 55_000 < folders.room(*held).apparent < 65_000
    assert 38_000 < (tmp_path / "workspace/state/memory.json").stat().st_size < 42_000


def test_the_large_workload_is_a_database_that_answers_numbers_and_lines(tmp_path: Path) -> None:
    workload = workloads.make("W2", "tiny", str(tmp_path / "cache"))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    counts, rows, lines = [], [], []
    for number in range(2):
        workload.advance(str(workspace), number)
        with closing(sqlite3.connect(workspace / DATABASE)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            counts.append(db.execute("SELECT count(*) FROM memories").fetchone()[0])
        matrix = (workspace / MATRIX).read_bytes()
        numbers = struct.unpack(f"<{len(matrix) // 4}f", matrix)
        assert all(-0.5 <= value <= 0.5 for value in numbers)
        rows.append(len(numbers) / COLUMNS)
        lines.append((workspace / LOG).read_text().splitlines())
    assert counts[1] > counts[0]
    assert rows[1] > rows[0] == int(rows[0])
    assert lines[1][-1] == lines[0][-1]  # what came, came in the middle
    assert set(lines[0]) < set(lines[1])


def test_a_release_replaces_the_files_of_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    for release, files in {"000 1.0": ("a/old.py", "same.py"), "001 1.1": ("b/new.py", "same.py")}.items():
        for name in files:
            path = tmp_path / "cache/W4-tiny" / release / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(release)
    workspace = tmp_path / "workspace"
    (workspace / ".git").mkdir(parents=True)
    (workspace / ".git/HEAD").write_text("of a peer")
    workload = workloads.make("W4", "tiny", str(tmp_path / "cache"))
    for number in range(workload.versions):
        workload.advance(str(workspace), number)
    assert set(folders.contents(str(workspace))) == {".git/HEAD", "b/new.py", "same.py"}
    assert not (workspace / "a").exists()
    assert (workspace / "same.py").read_text() == "001 1.1"
    assert "1.0 to 1.1" in workload.figures


def test_what_is_checked_differs_from_round_to_round_and_holds_the_last(tmp_path: Path) -> None:
    workload = workloads.make("W1", "full", str(tmp_path))
    first, second = (workload.checked(number, workload.versions) for number in range(2))
    assert first != second
    assert first[-1] == second[-1] == workload.versions - 1
    assert list(workload.checked(0, workload.versions)) == list(first)


def test_a_difference_of_one_byte_one_file_or_one_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 3_000_000)
    (tmp_path / "b").symlink_to("a")
    wanted = folders.contents(str(tmp_path))
    assert folders.difference(folders.contents(str(tmp_path)), wanted) == ""
    with (tmp_path / "a").open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"b")
    assert folders.difference(folders.contents(str(tmp_path)), wanted) == "a has other bytes"
    (tmp_path / "c").touch()
    os.unlink(tmp_path / "a")
    assert folders.difference(folders.contents(str(tmp_path)), wanted) == "a is missing"
    assert folders.difference(folders.contents(str(tmp_path)), {}) == "b was never committed"
