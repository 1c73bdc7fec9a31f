"""The report on made-up figures: ratios, what is reached, what is left out, and pictures that can be read."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from scripts.bench import figures, plot, report, targets
from scripts.bench.meter import Lap
from scripts.bench.results import Results

SOURCE = {"commit": "0123456789abcdef", "dirty": False, "date": "2026-01-02 03:04 UTC"}
MACHINE = {
    "cores": 2,
    "processor": "Made Up",
    "memory": 8 << 30,
    "kernel": "6.1",
    "system": "Linux x86_64",
    "file_system": "ext4",
    "python": "3.11.2",
    "sqlite": "3.40",
    "load": [0.1, 0.2, 0.3],
}


def step(wall: float, **more: float) -> dict[str, Any]:
    return {"count": 3, "wall": wall, "cpu": wall / 2, "peak": 30 << 20, **more}


def run(wall: float, size: int, **more: Any) -> dict[str, Any]:
    marks = {"durable_wall": wall / 2, "durable_cpu": wall / 4}
    sizes = {name: [size, 2 * size] for name in ("store", "packs", "catalog", "views")}
    steps = {name: step(wall, **marks) for name in ("first", "next", "restore", "status", "switch")}
    return {"versions": 5, **steps, "sizes": sizes, "tidy_sizes": sizes, "next_parts": [], "invalid": "", **more}


def made_up(**runs: list[dict[str, Any]]) -> Results:
    sections = {name: {"source": SOURCE, "title": "made up", "figures": "some", "runs": runs} for name in ("W1", "W3")}
    names = {name: {"used": f"{name} so", "version": "1.2"} for name in ("kai", "git", "pygit2", "borg")}
    return Results("full", MACHINE, names, sections)


def figure(results: Results, section: str, words: str) -> targets.Figure:
    return next(it for it in targets.figures(results) if it.section == section and words in it.what)


def test_a_ratio_is_the_median_of_the_rounds_over_ours() -> None:
    results = made_up(kai=[run(0.2, 10), run(0.1, 10), run(9.0, 10)], git=[run(1.0, 100), run(3.0, 100)])
    durable = figure(results, "W1", "durable, against `git add`")
    assert durable.got == pytest.approx(2.0 / 0.1)
    assert durable.outcome == "aim reached"
    returned = figure(results, "W1", "returned, against `git add`")
    assert returned.got == pytest.approx(10.0)
    assert returned.outcome == "reached"
    assert figure(results, "W1", "git's bytes before gc over our packs").got == pytest.approx(10.0)
    assert figure(results, "W1", "our packs and catalog").got == pytest.approx(5.0)


def test_a_figure_that_is_not_reached_says_by_how_much() -> None:
    results = made_up(kai=[run(1.0, 100)], git=[run(1.0, 100)])
    assert figure(results, "W1", "returned, against `git add`").outcome == "**not reached** (17% of it)"
    assert figure(results, "W3", "status over git's").outcome == "aim reached"
    slow = made_up(kai=[run(3.0, 100)], git=[run(1.0, 100)])
    assert figure(slow, "W3", "status over git's").outcome == "**not reached** (50% of it)"
    assert report.faults(results) == []


def test_a_long_history_shows_whether_a_commit_grows_with_it() -> None:
    tenths = [0.001 * (1 + number) for number in range(10)]
    text = report.text(made_up(kai=[run(1.0, 100, next_parts=tenths)], git=[run(1.0, 100)]))
    assert "| kai | 1 ms | 2 ms | 3 ms | 4 ms | 5 ms | 6 ms | 7 ms | 8 ms | 9 ms | 10 ms |" in text


def test_what_was_not_run_is_said_and_no_figure() -> None:
    results = made_up(kai=[run(1.0, 100)], git=[{"failed": "not installed here"}])
    assert figure(results, "W1", "durable, against `git add`").outcome == "not measured"
    assert "| git | not installed here |" in report.text(results)
    assert not report.faults(results)


def test_wrong_bytes_in_one_round_make_the_row_invalid_and_ours_a_fault() -> None:
    wrong = "version 3 restored: a has other bytes"
    results = made_up(kai=[run(1.0, 100)], git=[run(9.0, 900), run(9.0, 900, invalid=wrong)])
    assert figure(results, "W1", "durable, against `git add`").got is None
    assert "| git | **invalid** |" in report.text(results)
    assert f"| git | invalid: {wrong} |" in report.text(results)
    assert "git" not in plot.ratios(results)
    ours = made_up(kai=[run(1.0, 100, invalid=wrong)], git=[run(9.0, 900)])
    assert report.faults(ours) == [f"W1: invalid: {wrong}", f"W3: invalid: {wrong}"]
    assert figure(ours, "W1", "durable, against `git add`").outcome == "not measured"


def test_what_a_peer_says_does_not_break_the_table() -> None:
    results = made_up(kai=[run(1.0, 100)], git=[{"failed": "a | b\n| c <script> \x1b[31m"}])
    text = report.text(results)
    assert "a \\| b \\| c &lt;script>  [31m" in text
    assert "\x1b" not in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(cells) == 1, block


def test_the_head_names_machine_commit_and_versions() -> None:
    text = report.text(made_up(kai=[run(1.0, 100)]))
    assert "2 cores (Made Up), 8 GiB of memory, Linux x86_64 6.1, ext4, Python 3.11.2" in text
    assert "kaivc at commit 0123456789ab (clean), 2026-01-02 03:04 UTC: W1, W3" in text
    assert "git 1.2" in text


def test_figures_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    results = made_up(kai=[run(1.0, 100)])
    results.save(str(tmp_path / "raw.json"))
    assert Results.load(str(tmp_path / "raw.json")) == results
    (tmp_path / "raw.json").write_text('{"format": 0}')
    assert Results.load(str(tmp_path / "raw.json")) is None


def test_bars_are_as_long_as_the_logarithm_of_their_ratio() -> None:
    text = plot.ratios(made_up(kai=[run(1.0, 100)], git=[run(5.0, 100)], borg=[run(50.0, 100)]))
    svg = ET.fromstring(text)  # noqa: S314 - our own
    bars = [float(it.attrib["width"]) for it in svg.iter("{http://www.w3.org/2000/svg}rect") if "x" in it.attrib]
    assert bars[1] / bars[0] == pytest.approx(2.0, rel=0.02)  # 10x and 100x in W1's first panel
    words = [it.text for it in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "W1: next commit, durable, wall" in words
    assert "10x" in words
    assert "100x" in words


def test_growth_is_drawn_and_judged() -> None:
    sizes = [
        {"versions": count, "agents": 1, "packs": 1, "catalog": 1}
        | {name: step(wall, durable_wall=wall) for name in ("open", "commit", "rollback", "status", "log", "gc")}
        for count, wall in ((100, 0.01), (1_000, 0.012), (100_000, 0.02))
    ]
    results = Results("full", MACHINE, {}, {"W5": {"source": SOURCE, "run": {"sizes": sizes, "stopped": ""}}})
    open_ = figure(results, "W5", "open: a home with 100,000 versions over one with 100")
    assert open_.got == pytest.approx(2.0)
    assert open_.outcome == "**not reached** (75% of it)"
    svg = ET.fromstring(plot.growth(results))  # noqa: S314 - our own
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}polyline"))) == 7
    assert "| 100,000 |" in report.text(results)


def test_pictures_without_figures_say_so() -> None:
    empty = Results("full", MACHINE)
    assert "no ratios were measured" in plot.ratios(empty)
    assert "no growth was measured" in plot.growth(empty)
    assert all(it.outcome == "not measured" for it in targets.figures(empty))


def test_a_summary_holds_medians_sums_and_marks() -> None:
    laps = [Lap(wall, wall / 2, peak, {"durable": (wall / 4, wall / 8)}) for wall, peak in ((1, 5), (2, 9), (9, 7))]
    found = figures.summary(laps)
    assert (found["wall"], found["cpu"], found["wall_sum"], found["peak"]) == (2, 1, 12, 9)
    assert (found["durable_wall"], found["durable_cpu"]) == (0.5, 0.25)
    assert figures.parts([Lap(cpu=number) for number in range(20)]) == [0.5 + 2 * number for number in range(10)]
