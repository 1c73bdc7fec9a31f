"""Where and on what a run was made."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from datetime import UTC, datetime
from typing import Any

GIB = 1 << 30


def facts(scratch: str) -> dict[str, Any]:
    """The machine as it is now."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _line("/proc/cpuinfo", "model name") or platform.machine(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "system": f"{platform.system()} {platform.machine()}",
        "file_system": file_system(scratch),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether figures of both may stand in one report."""
    return all(one.get(key) == other.get(key) for key in ("cores", "processor", "memory", "system", "file_system"))


def source(root: str) -> dict[str, Any]:
    """The commit that is measured, whether its files are as it has them, and now."""
    return {
        "commit": _git(root, "rev-parse", "HEAD") or "unknown",
        "dirty": bool(_git(root, "status", "--porcelain", "--", "kaivc", "scripts", "pyproject.toml")),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def file_system(path: str) -> str:
    """The type of the file system that a path lies on."""
    best, found = "", "unknown"
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        for line in file:
            _, at, kind, *_ = line.split()
            if len(at) >= len(best) and (path + "/").startswith(at.rstrip("/") + "/"):
                best, found = at, kind
    return found


def _line(path: str, key: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(key)), "")
    except OSError:
        return ""


def _git(root: str, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
