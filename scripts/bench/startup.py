"""What a whole process costs on a small home, beside an interpreter that does nothing."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import kaivc
from scripts.bench import figures
from scripts.bench.meter import Lap, Meter

TURNS = {"full": 40, "quick": 9, "tiny": 2}
NOTHING = "python -c pass"


def program() -> tuple[str, ...]:
    """How `kai` is called."""
    installed = os.path.join(os.path.dirname(sys.executable), "kai")
    return (installed,) if os.path.exists(installed) else (sys.executable, "-m", "kaivc")


def run(size: str, place: str) -> dict[str, Any]:
    """The summary of each command, run in turn."""
    meter = Meter(os.environ, in_process=False)
    root = os.path.join(place, "home")
    names = _home(root)
    kai = program()
    laps: dict[str, list[Lap]] = {}
    for turn in range(TURNS[size] + 1):
        commands = {
            NOTHING: (sys.executable, "-c", "pass"),
            "kai --version": (*kai, "--version"),
            "kai status": (*kai, "status", "bench"),
            "kai rollback": (*kai, "rollback", "bench", "--to", names[turn % 2]),
            "kai log": (*kai, "log", "bench"),
            "kai commit": (*kai, "commit", "bench", "--allow-empty"),
        }
        if shutil.which("git"):
            commands["git --version"] = ("git", "--version")
        for title, command in commands.items():
            with meter.lap() as lap:
                meter.run(*command, cwd=root)
            laps.setdefault(title, []).append(lap)
    return {title: figures.summary(found[1:]) for title, found in laps.items()}


def _home(root: str) -> list[str]:
    kaivc.init(root, environ=os.environ).close()
    home = kaivc.open(root, environ=os.environ)
    agent = home.new("bench")
    names = []
    for number in range(2):
        for file in range(12):
            (agent.workspace / f"f{file}").write_bytes(b"%d %d\n" % (number, file) * 500)
        names.append(f"v{agent.commit().version}")
    home.close()
    return names
