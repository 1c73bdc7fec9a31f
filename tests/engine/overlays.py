"""A sandbox for tests: a real overlay, or a copy, and no isolation worth the name.

It lets what is done with a layer be tested on any machine, for what the sandboxes hold has tests of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from kaivc.sandboxes.base import Ability, End, Ended, Form, Job, Level

_MOUNT = 'mount -t overlay overlay -o "$OPTIONS" "$MERGED" && cd "$MERGED" && exec "$@"'
NOT_MOUNTED = 32


class Overlay:
    """Runs a command over an overlay: in a user namespace with ``userxattr``, or mounted by root."""

    name = "test-overlay"

    def __init__(self, *, user: bool = True) -> None:
        self.user = user
        self.before: Callable[[], None] = lambda: None
        self.ends: dict[str, object] = {}

    def ability(self) -> Ability:
        return Ability(self.name, Level.FULL)

    def run(self, job: Job, say: Callable[[bytes], None]) -> Ended:
        upper, work, merged = (os.path.join(job.layer, name) for name in ("upper", "work", "merged"))
        for path in (upper, work, merged):
            os.mkdir(path)
        options = f"lowerdir={job.lower},upperdir={upper},workdir={work}" + (",userxattr" if self.user else "")
        apart = ["unshare", "-Urm"] if self.user else ["unshare", "-m"]
        return self._run([*apart, "sh", "-c", _MOUNT, "sh", *job.argv], job, say, upper, merged, options)

    def _run(
        self, argv: list[str], job: Job, say: Callable[[bytes], None], top: str, merged: str, options: str = ""
    ) -> Ended:
        self.before()
        environ = {"PATH": os.environ["PATH"], **job.environ, "OPTIONS": options, "MERGED": merged}
        started = time.monotonic()
        done = subprocess.run(
            argv, cwd=merged, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60
        )
        assert done.returncode != NOT_MOUNTED, done.stdout
        if done.stdout:
            say(done.stdout)
        return self.ended(top, done.returncode, time.monotonic() - started)

    def ended(self, top: str, code: int = 0, seconds: float = 0.5) -> Ended:
        """How it ended, but for what a test wants otherwise."""
        ended = {
            "by": End.ITSELF,
            "exit_code": code,
            "seconds": seconds,
            "cpu_seconds": 0.01,
            "peak_memory": 1 << 20,
            "left_running": 0,
            "form": Form.OVERLAY,
            "top": top,
        }
        return Ended(**{**ended, **self.ends})  # type: ignore[arg-type]


class Copying(Overlay):
    """Runs a command in a copy of the tree."""

    name = "test-copy"

    def run(self, job: Job, say: Callable[[bytes], None]) -> Ended:
        whole = os.path.join(job.layer, "whole")
        shutil.copytree(job.lower, whole, symlinks=True)
        for path, _, names in os.walk(whole):
            for name in ["", *names]:
                each = os.path.join(path, name)
                if not os.path.islink(each):
                    os.chmod(each, os.stat(each).st_mode | 0o600)
        self.ends = {"form": Form.COPY, **self.ends}
        return self._run(list(job.argv), job, say, whole, whole)


class Planted(Overlay):
    """Writes a layer by itself: to start a process would take longer than all the rest of a test."""

    def run(self, job: Job, say: Callable[[bytes], None]) -> Ended:
        upper = Path(job.layer) / "upper"
        upper.mkdir()
        (upper / "logic.py").write_text("2")
        (upper / "new.txt").write_text("new")
        self.before()
        return self.ended(str(upper))
