"""The command line: ``python -m scripts.bench`` runs everything and writes docs/benchmarks."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from scripts.bench import machine, plot, report, systems
from scripts.bench.results import Results
from scripts.bench.runner import ROOT, SECTIONS, Plan, Runner

LIMITS = {"full": (900.0, 8 * 3_600.0), "quick": (40.0, 165.0), "tiny": (60.0, 300.0)}
"""Seconds for one task, and for all."""
ROUNDS = {"full": 3, "quick": 1, "tiny": 1}
RAW, TABLE, RATIOS, GROWTH = "results.json", "results.md", "ratios.svg", "growth.svg"


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=(__doc__ or "").strip())
    parser.add_argument(
        "--quick", action="store_const", const="quick", default="full", dest="size", help="within 3 minutes"
    )
    parser.add_argument(
        "--tiny", action="store_const", const="tiny", dest="size", help="to see that it runs; shows nothing"
    )
    parser.add_argument(
        "--only", type=_list(SECTIONS), default=SECTIONS, metavar="W1,W3", help=f"of {','.join(SECTIONS)}"
    )
    parser.add_argument(
        "--systems",
        type=_list(systems.NAMES),
        default=systems.NAMES,
        metavar="kai,git",
        help=f"of {','.join(systems.NAMES)}",
    )
    parser.add_argument("--rounds", type=int, help="how often each workload is run (3; quick: 1)")
    parser.add_argument("--limit", type=float, help="seconds after which one system's run is given up (900; quick: 40)")
    parser.add_argument("--out", help="where the report goes (docs/benchmarks; quick: .bench/quick)")
    parser.add_argument("--scratch", help="a directory on the disk to measure (the temporary directory)")
    parser.add_argument(
        "--report", action="store_true", help="only write the report anew from the figures that are there"
    )
    options = parser.parse_args(words)
    options.rounds = max(1, options.rounds or ROUNDS[options.size])
    if options.out is None:
        below = ("docs", "benchmarks") if options.size == "full" else (".bench", options.size)
        options.out = os.path.join(ROOT, *below)
    return options


def _list(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        found = tuple(word.strip() for word in text.split(",") if word.strip())
        wrong = [word for word in found if word not in known]
        if wrong or not found:
            raise argparse.ArgumentTypeError(f"{', '.join(wrong) or 'nothing'}: choose from {', '.join(known)}")
        return tuple(word for word in known if word in found)

    return parse


def write(results: Results, directory: str) -> None:
    """The raw figures, the table and the plots."""
    os.makedirs(directory, exist_ok=True)
    results.save(os.path.join(directory, RAW))
    for name, text in ((TABLE, report.text(results)), (RATIOS, plot.ratios(results)), (GROWTH, plot.growth(results))):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 when kaivc itself failed or gave back other bytes than it was given."""
    options = arguments(words)
    found = Results.load(os.path.join(options.out, RAW))
    if options.report:
        if found is None:
            print(f"error: {options.out} holds no figures", file=sys.stderr)
            return 1
        write(found, options.out)
        return 0
    results = Results(options.size)
    here = machine.facts(os.path.realpath(options.scratch or tempfile.gettempdir()))
    if found is not None and found.size == options.size and machine.same(found.machine, here):
        # A run of some sections leaves the figures of the others, each with the commit that it was made on.
        results.systems = found.systems
        results.sections = {name: it for name, it in found.sections.items() if name not in options.only}
    results.machine = here
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    limit, total = LIMITS[options.size]
    plan = Plan(
        size=options.size,
        sections=options.only,
        systems=options.systems,
        rounds=options.rounds,
        limit=options.limit or limit,
        total=total,
        scratch=options.scratch,
        say=say,
    )
    Runner(plan, results, lambda kept: write(kept, options.out)).run()
    say(f"written to {options.out}")
    print(report.summary(results))
    return int(bool(report.faults(results)))


if __name__ == "__main__":
    sys.exit(main())
