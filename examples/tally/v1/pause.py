"""Have the running loop close its database and hold still (no argument), or go on (--resume)."""

import os
import sys
import time
from pathlib import Path

RUN = Path(__file__).resolve().parent / "run"
PAUSE, PAUSED = RUN / "pause", RUN / "paused"
PATIENCE = 20.0
"""Seconds to wait for the loop."""


def pause() -> bool:
    """Ask, and wait until the loop has answered this very question."""
    RUN.mkdir(exist_ok=True)
    question = f"{os.getpid()} {time.time_ns()}"
    new = RUN / "pause.new"
    new.write_text(question)
    new.replace(PAUSE)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if PAUSED.exists() and PAUSED.read_text() == question:
            return True
        time.sleep(0.02)
    PAUSE.unlink(missing_ok=True)
    return False


def main() -> int:
    """0 when the loop has done as asked."""
    if sys.argv[1:] == ["--resume"]:
        PAUSE.unlink(missing_ok=True)
        return 0
    if pause():
        return 0
    print(f"the loop did not pause within {PATIENCE:g} seconds: does it run?")
    return 1


if __name__ == "__main__":
    sys.exit(main())
