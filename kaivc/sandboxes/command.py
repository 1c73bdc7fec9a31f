"""One command in kai's hands: its output, the line to the child that sets it up, its control group, and its end."""

from __future__ import annotations

import resource
import signal
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Final, Self

from kaivc.sandboxes import cgroups, kernel
from kaivc.sandboxes.base import Job, Limits
from kaivc.sandboxes.child import PATIENCE, Line, Message
from kaivc.sandboxes.looking import failed
from kaivc.sandboxes.relay import Relay

_TRIAL: Final = Limits(
    memory=256 << 20, processes=16, open_files=64, written=1 << 20, inodes=64, output=1 << 16, seconds=30
)


@contextmanager
def set_up() -> Iterator[None]:
    """IsolationFailed for what the system refuses before the command could start."""
    try:
        yield
    except OSError as error:
        raise failed("set-up", f"{error.filename or ''} {error.strerror or error}".strip()) from error


def at_most(wanted: Mapping[int, int]) -> dict[int, int]:
    """Resource limits by their number, none above what this process may have."""
    hard = {number: resource.getrlimit(number)[1] for number in wanted}
    return {it: value if hard[it] < 0 else min(value, hard[it]) for it, value in wanted.items()}


class Command(ABC):
    """From the first process to the last; `start` says how it is kept apart, `kill` how it ends, whatever it left."""

    def __init__(self, job: Job, say: Callable[[bytes], None]) -> None:
        self._job = job
        with set_up(), ExitStack() as stack:
            self._relay = stack.enter_context(Relay(job.limits.output, say))
            self._line = Line()
            stack.callback(self._line.close)
            self._stack = stack.pop_all()
        self._group = cgroups.Group()

    @classmethod
    @contextmanager
    def tried(cls) -> Iterator[Self]:
        """One over an empty version that is started and never begins. Raises IsolationFailed, OSError."""
        with tempfile.TemporaryDirectory(prefix="kai-trial-") as there:
            lower, layer = f"{there}/lower", f"{there}/layer"
            for path in (lower, layer):
                kernel.make_dir(path, 0o700)
            with cls(Job(("true",), {}, lower, layer, _TRIAL), lambda _: None) as it:
                it.start()
                yield it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it, and give back all that kai holds; an interrupt waits until that is done."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self.kill()
            self._group.remove()
            self._stack.close()
            self._clear()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def memory_held(self) -> bool:
        """Whether a control group holds the memory."""
        return "memory" in self._group.controllers

    @abstractmethod
    def start(self) -> None:
        """Everything up to the command's first instruction. IsolationFailed for any doubt."""

    @abstractmethod
    def kill(self) -> None:
        """Kill all of it; return when nothing is left."""

    @abstractmethod
    def _clear(self) -> None:
        """Take away what lay there for the run alone."""

    def _hear(self) -> Message:
        """What the child says next; IsolationFailed if that is nothing."""
        try:
            said = self._line.hear()
        except TimeoutError as error:
            raise failed("child", f"it said nothing for {PATIENCE:g} seconds") from error
        if said is None:
            raise failed("child", "it ended before the command could start")
        return said
