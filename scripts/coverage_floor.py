"""Fails when a part of kaivc that must not lose anything is covered by less than the floor.

Reads the data that `make test` left (.coverage), through `coverage json`; counts lines.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

FLOOR = 90.0  # per cent of lines
GROUPS = ("kaivc/storage/", "kaivc/refs.py", "kaivc/workspace.py", "kaivc/ops/")

Counts = tuple[int, int]  # lines run, lines there are


def measured() -> dict[str, Counts]:
    """What coverage knows of each file, by its path from the top of the checkout."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "coverage.json"
        command = [sys.executable, "-m", "coverage", "json", "--quiet", "-o", str(report)]
        subprocess.run(command, check=True)
        files = json.loads(report.read_text("utf-8"))["files"]
    return {
        path.replace("\\", "/"): (entry["summary"]["covered_lines"], entry["summary"]["num_statements"])
        for path, entry in files.items()
    }


def total(files: dict[str, Counts], group: str) -> Counts:
    """The counts of a file, or of all files in a folder (its name ends in a slash)."""
    chosen = [
        counts for path, counts in files.items() if path == group or (group.endswith("/") and path.startswith(group))
    ]
    return sum(run for run, _ in chosen), sum(lines for _, lines in chosen)


def main() -> int:
    """Print the table; 1 when a group is below the floor or has no lines at all."""
    files = measured()
    failed = False
    print(f"{'coverage floor':<24}{'lines':>8}{'run':>8}{'':>9}")
    for group in GROUPS:
        run, lines = total(files, group)
        percent = 100 * run / lines if lines else 0.0
        low = percent < FLOOR
        failed = failed or low
        print(f"{group:<24}{lines:>8}{run:>8}{percent:>8.1f}%{f'  below {FLOOR:g}%' if low else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
