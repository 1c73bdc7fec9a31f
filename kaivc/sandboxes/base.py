"""What every sandbox takes and gives, and the ladder of how much it holds.

A sandbox runs one command over a directory that it never changes: what the command writes lands in a layer beside it.
It proves its guards from outside before the command starts; what cannot be proven is IsolationFailed, and the command
never runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, Protocol

from kaivc.records import dataclass

INSIDE: Final = "/agent"
"""Where the version's files lie for the command, and where it starts."""
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Level(StrEnum):
    """How much a sandbox holds: all that docs/design/isolation.md promises, or less."""

    FULL = "full"
    PARTIAL = "partial"


class Form(StrEnum):
    """How a layer says what was written."""

    OVERLAY = "overlay"
    """The upper directory of an overlay: files that are new or changed; a device 0/0 is a name that went; a directory
    with the attribute ``user.overlay.opaque`` or ``trusted.overlay.opaque`` hides all below it."""
    COPY = "copy"
    """The whole tree, as the command left it."""


class End(StrEnum):
    """What ended the command."""

    ITSELF = "itself"
    TIME = "time"
    MEMORY = "memory"
    OUTPUT = "output"
    WRITTEN = "written"
    INODES = "inodes"
    INTERRUPT = "interrupt"


@dataclass(frozen=True)
class Limits:
    """What a command may use: bytes, counts, seconds of wall-clock time."""

    memory: int
    processes: int
    open_files: int
    written: int
    inodes: int
    output: int
    seconds: float


@dataclass(frozen=True)
class Job:
    """What to run: ``lower`` is never written, ``layer`` is an empty 0700 directory of ours; both absolute."""

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    lower: str
    layer: str
    limits: Limits


@dataclass(frozen=True)
class Ended:
    """How it ended.

    ``exit_code`` is what a shell would say (128 + the signal); ``left_running`` counts the processes that were still
    there when the command had ended, and were killed; ``top`` is where ``form`` lies, absolute.
    """

    by: End
    exit_code: int
    seconds: float
    cpu_seconds: float
    peak_memory: int
    left_running: int
    form: Form
    top: str


@dataclass(frozen=True)
class Ability:
    """What a sandbox gives on this machine.

    ``level`` is None where it cannot be had, ``why`` says what lacks; ``notes`` say what holds by which means: memory
    by a control group or by a watch, Landlock or not.
    """

    name: str
    level: Level | None
    why: str = ""
    notes: tuple[str, ...] = ()


class Sandbox(Protocol):
    """One way of running a command apart."""

    name: str

    def ability(self) -> Ability:
        """What it gives here: tried, not guessed from version numbers; quick, and without a trace."""

    def run(self, job: Job, say: Callable[[bytes], None]) -> Ended:
        """Run ``job``; hand each piece of its output, as it is, to ``say``.

        Returns when nothing of the command is left running, and nothing of it is mounted. Raises IsolationFailed, with
        the guard that could not be proven in ``guard``; the command has not run then.
        """
