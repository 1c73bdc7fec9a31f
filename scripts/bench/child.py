"""One task in a process of its own: it is told on stdin, as JSON, and its figures go to a file.

Lines of progress go to stdout. It imports kaivc only where the task needs it: it also runs beside the peers' packages.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from scripts.bench import history, systems
from scripts.bench.meter import Meter, ProgramFailed

WORDS = 300
GROWING = 0.75
"""Of its time, what W5 may take to fill its home: the rest is for measuring."""
SAYING = ("growth", "transfer")
"""What takes so long that it says how it goes."""

Task = dict[str, Any]


def _probe(task: Task) -> dict[str, Any]:
    meter = Meter(os.environ, in_process=False)
    return {"version": systems.kind(task["system"]).version(meter)}


def _history(task: Task) -> dict[str, Any]:
    words = [task[word] for word in ("system", "workload", "size", "round", "cache", "place")]
    return history.run(*words, profile=task.get("profile", False))


def _alone(task: Task) -> dict[str, Any]:
    """A measurement of kaivc that has a module of its own."""
    module = importlib.import_module(f"scripts.bench.{task['task']}")
    words: dict[str, Any] = {"say": _say} if task["task"] in SAYING else {}
    if task["task"] == "growth":
        words["seconds"] = GROWING * task["limit"]
    extra = (task["case"],) if "case" in task else ()
    found: dict[str, Any] = module.run(*extra, task["size"], task["place"], **words)
    return found


TASKS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "probe": _probe,
    "history": _history,
    "moves": _alone,
    "startup": _alone,
    "memory": _alone,
    "growth": _alone,
    "transfer": _alone,
}


def _say(line: str) -> None:
    print(line, flush=True)


def _say_alone() -> None:
    """What a peer's library prints is no progress: it goes where errors go."""
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)


def main() -> int:
    """Always 0 with a result: what failed is in it, under ``failed``."""
    task = json.load(sys.stdin)
    os.environ.pop("PYTHONPATH", None)  # it was for us, not for what we run
    _say_alone()
    try:
        result = TASKS[task["task"]](task)
    except ProgramFailed as error:
        result = {"failed": " ".join(str(error).split())[:WORDS]}
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is its row
        traceback.print_exc()
        result = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"[:WORDS]}
    with open(task["result"], "w", encoding="utf-8") as file:
        json.dump(result, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
