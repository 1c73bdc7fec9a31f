"""Write the sample homes of the format that this release writes: ``python -m tests.formats.make``.

A sample is made once, when its format is new, and never again: it stands for the homes that people have.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from pathlib import Path

from kaivc.storage.catalog import FORMAT
from tests.formats.sample import make

HERE = Path(__file__).parent


def main() -> int:
    """Make those that are not there; 1 if all are."""
    made = 0
    for object_format in ("sha256", "sha1"):
        target = HERE / f"format{FORMAT}-{object_format}.tar.xz"
        if target.exists():
            print(f"{target.name} is there: the homes of a format are not made twice")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            home = Path(scratch) / "home"
            said = make(home, object_format)
            with tarfile.open(target, "w:xz", preset=9) as tar:
                tar.add(home, "home")
        target.with_name(target.name.removesuffix(".tar.xz") + ".json").write_text(
            json.dumps(said, indent=1, ensure_ascii=True) + "\n", encoding="utf-8"
        )
        made += 1
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
