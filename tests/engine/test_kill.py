"""Cut the process at a call that changes the disk. All commands at all calls: tests/faults/test_kills.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from kaivc.api import Agent
from kaivc.names import current_ref
from kaivc.vfs import Vfs

CALLS = [name for name, value in vars(Vfs).items() if callable(value) and not name.startswith("_")]
CHANGING = [name for name in CALLS if name not in ("open_dir", "close", "lock", "flock")]


class Cut(Vfs):
    """Kills the process at the n-th changing call; a write is torn in half first."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def _step(self) -> bool:
        self.count += 1
        return self.count == self.at


def _cutting(name: str) -> Callable[..., object]:
    real = getattr(Vfs, name)

    def call(self: Cut, *args: object, **words: object) -> object:
        if self._step():
            if name == "write":
                fd, data = args
                os.write(fd, memoryview(data)[: len(data) // 2])  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *args, **words)

    return call


for _name in CHANGING:
    setattr(Cut, _name, _cutting(_name))


def in_child(action: Callable[[], object]) -> int:
    """Run in a forked child; 0 when it came to its end, the signal otherwise."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return 0


def check_whole(agent: Agent) -> None:
    """Everything that has a name is there, byte for byte."""
    report = agent.verify()
    assert report.ok, report.findings
    entries = agent.reflog(None).entries
    assert [entry.seq for entry in entries] == sorted((entry.seq for entry in entries), reverse=True)
    current = agent.repository.refs("refs/heads/")[current_ref("bot")]
    assert current.hex() in {version.commit for version in agent.versions()}
    link = Path(agent.repository.layout.current("bot"))
    assert (link / "snapshot_meta.json").is_file(), "current must be valid at every moment"
