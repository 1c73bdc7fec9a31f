"""The smallest run, from the command line to the report; and what happens when a system lies, fails or is late."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.bench import history, machine, systems, workloads
from scripts.bench.__main__ import main
from scripts.bench.meter import Meter, ProgramFailed
from scripts.bench.results import Results
from scripts.bench.systems.git import Git
from tests.conftest import require_tool


def bench(where: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run with everything below ``where``; the status and the raw figures."""
    scratch = where / "scratch"
    scratch.mkdir(exist_ok=True)
    status = main(["--tiny", "--out", str(where / "out"), "--scratch", str(scratch), *words])
    assert os.listdir(scratch) == []
    return status, json.loads((where / "out/results.json").read_text())


def test_the_smallest_run_measures_kaivc_and_git(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_tool("git")
    status, raw = bench(tmp_path, "--systems", "kai,git", "--only", "W1,W3")
    assert status == 0
    for section in ("W1", "W3"):
        for system, runs in raw["sections"][section]["runs"].items():
            assert [(run.get("failed"), run["invalid"]) for run in runs] == [(None, "")], (section, system)
            assert runs[0]["first"]["cpu"] > 0
            assert runs[0]["sizes"]["store"][0] > 0
        ours = raw["sections"][section]["runs"]["kai"][0]
        assert 0 < ours["next"]["durable_wall"] < ours["next"]["wall"]
        assert ours["sizes"]["packs"][0] > 0
        assert {"first commit", "next commit", "restore"} <= raw["sections"][section]["profile"].keys()
    assert raw["sections"]["W3"]["runs"]["kai"][0]["switch"]["count"] == 6
    assert "against `git add` + `git commit`" in capsys.readouterr().out
    text = (tmp_path / "out/results.md").read_text()
    assert "| kai, durable | 4 |" in text
    assert "### W3, switch" in text
    assert "<svg" in (tmp_path / "out/ratios.svg").read_text()


def test_what_is_measured_of_kaivc_alone(tmp_path: Path) -> None:
    status, raw = bench(tmp_path, "--systems", "kai", "--only", "startup,rollback,memory,W5")
    assert status == 0
    found = {name: section["run"] for name, section in raw["sections"].items()}
    assert found["startup"]["kai status"]["cpu"] > found["startup"]["python -c pass"]["cpu"] > 0
    assert all(0 < case["clean"]["moved_wall"] < case["clean"]["wall"] for case in found["rollback"].values())
    for case in ("blob", "tree"):
        commands = found["memory"][case]["commands"]
        assert not [(name, it["failed"]) for name, it in commands.items() if "failed" in it]
        assert all(it["peak"] > 1 << 20 for it in commands.values())
    assert [it["versions"] for it in found["W5"]["sizes"]] == [4, 8]
    assert all(0 < it["commit"]["durable_wall"] < it["commit"]["wall"] for it in found["W5"]["sizes"])


def test_one_section_again_leaves_the_figures_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    source = {"commit": "0123456789abcdef", "dirty": False, "date": "2026-01-02 03:04 UTC"}
    here = machine.facts(os.path.realpath(tmp_path))
    Results("tiny", here, sections={"W5": {"source": source, "run": {}}}).save(str(tmp_path / "out/results.json"))
    _, raw = bench(tmp_path, "--systems", "kai", "--only", "rollback")
    assert set(raw["sections"]) == {"W5", "rollback"}
    assert "0123456789ab (clean), 2026-01-02 03:04 UTC: W5" in (tmp_path / "out/results.md").read_text()
    Results("tiny", {**here, "cores": 99}, sections={"W5": {"source": source, "run": {}}}).save(
        str(tmp_path / "out/results.json")
    )
    _, raw = bench(tmp_path, "--systems", "kai", "--only", "rollback")
    assert set(raw["sections"]) == {"rollback"}  # figures of another machine do not stay beside ours


def test_a_system_that_is_late_or_missing_has_a_row_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, raw = bench(tmp_path, "--systems", "kai", "--only", "W1", "--limit", "0.05")
    assert status == 1
    assert raw["sections"]["W1"]["runs"]["kai"][0]["failed"].startswith("not done after")
    empty = tmp_path / "no programs"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    status, raw = bench(tmp_path, "--systems", "git", "--only", "W1")
    assert status == 0
    assert raw["sections"]["W1"]["runs"]["git"][0] == {"failed": "not installed here"}


class Liar(Git):
    """Gives back one byte more than it was given."""

    def restore(self, number: int, to: str) -> str:
        found = super().restore(number, to)
        with open(os.path.join(found, "state", "memory.json"), "ab") as file:
            file.write(b"!")
        return found


def test_a_system_that_gives_back_other_bytes_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_tool("git")
    monkeypatch.setattr(systems, "kind", lambda name: Liar)
    found = history.run("git", "W1", "tiny", 0, str(tmp_path / "cache"), str(tmp_path))
    assert found["invalid"].endswith("restored: state/memory.json has other bytes")


def test_a_program_that_fails_says_why_and_others_are_measured() -> None:
    meter = Meter({"PATH": os.environ["PATH"]}, in_process=False)
    with pytest.raises(ProgramFailed, match="ended with 3: no luck"):
        meter.run(sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)")
    with meter.lap() as lap:
        meter.run(sys.executable, "-c", "x = bytearray(b'x') * (200 << 20)")
    assert lap.peak > 200 << 20
    assert 0 < lap.cpu < lap.wall * 2


def test_only_known_names_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "W9"])
    assert "W9: choose from" in capsys.readouterr().err


def test_each_system_can_be_made_where_kaivc_cannot_be_imported() -> None:
    """The peers have an environment of their own: only our own system may need kaivc."""
    names = [name for name in systems.NAMES if name != "kai"]
    script = (
        "import sys\nsys.modules['kaivc'] = None\n"
        "from scripts.bench import child, systems, workloads\n"
        f"for name in {names!r}: assert systems.kind(name).name == name\n"
    )
    root = Path(workloads.__file__).parents[3]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
