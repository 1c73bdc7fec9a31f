"""Fetches releases of a package, unpacked: ``python -m scripts.bench.workloads.fetch NAME COUNT TO``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from scripts.import_releases import CannotBegin, download, finals, published, replace, unpacked, wheels


def fetch(package: str, count: int, to: Path) -> None:
    """The newest final releases, numbered so that their names sort in their order; CannotBegin without an index."""
    numbers = finals(published(package), count)
    with tempfile.TemporaryDirectory(prefix="kai-bench-") as scratch:
        download(package, numbers, Path(scratch))
        found = wheels(package, Path(scratch))
        for place, number in enumerate(numbers):
            target = to / f"{place:03d} {number}"
            target.mkdir()
            replace(target, unpacked(found[number]))


def main() -> int:
    """0, or 1 with a line that says why not."""
    package, count, to = sys.argv[1:]
    try:
        fetch(package, int(count), Path(to))
    except (CannotBegin, KeyError, OSError) as error:
        print(" ".join(str(error).split())[:200], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
