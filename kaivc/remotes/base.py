"""What every remote is, and the ladder of what it can.

::

    READ    its refs can be listed, and what they reach be brought
    LOG     it has a log, which is checked each time
    WRITE   versions can be sent
    ATOMIC  all moves of a push, or none

A carrier is one file of this folder. Refs are always named as this home names them: refs/heads/AGENT/current,
refs/tags/AGENT/vX.Y.Z, refs/heads/AGENT/snapshots/ID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Flag, auto
from typing import Protocol

from kaivc.incoming import Incoming
from kaivc.ports import Progress, Sleep
from kaivc.records import dataclass, field
from kaivc.repository import OpenHome, Repository
from kaivc.settings import Settings
from kaivc.wire import Head, Outcome, Update


class Can(Flag):
    """What a remote can."""

    READ = auto()
    LOG = auto()
    WRITE = auto()
    ATOMIC = auto()


@dataclass(frozen=True)
class Push:
    """What is to be sent: moves, each with what the other side must still have, and why."""

    op_id: str
    actor: str
    reason: str
    updates: tuple[Update, ...]


@dataclass(frozen=True)
class Sent:
    """What came of a push. ``refused`` says why, by ref; ``size`` is the bytes that travelled."""

    moved: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    outcome: Outcome | None = None


class Remote(Protocol):
    """A connection to the other side. Every method raises KaiError."""

    @property
    def can(self) -> Can:
        """What it can."""

    @property
    def object_format(self) -> str:
        """How it hashes: sha1 or sha256."""

    @property
    def home(self) -> str:
        """The id of the home over there; empty if it is none of ours."""

    def agents(self) -> tuple[str, ...]:
        """The agents that can be read."""

    def head(self, agent: str) -> Head:
        """The refs of an agent, and where its log stands; NoSuchAgent if there is none."""

    def log(self, agent: str, after: int) -> Iterator[bytes]:
        """The op records behind a number, oldest first; for who has LOG."""

    def bring(
        self, repo: Repository, wants: Sequence[bytes], haves: Sequence[bytes]
    ) -> AbstractContextManager[Incoming]:
        """What is missing to have ``wants``, wholly arrived, and not checked. ``repo`` may not be there yet."""

    def send(self, repo: Repository, push: Push, theirs: Mapping[str, bytes]) -> Sent:
        """Send what the other side lacks and let the moves count there. ``theirs`` are its refs as it told them."""

    def close(self) -> None:
        """Let go."""


Ask = Callable[[str, bool], str | None]
"""Asks the user for something; secret or not. None where there is nobody to ask."""


@dataclass(frozen=True)
class Context:
    """What carriers get from the door.

    ``environ`` is what programs that they start get; ``open_home`` opens another home; ``ask`` asks the user.
    """

    environ: Mapping[str, str]
    settings: Settings
    sleep: Sleep
    progress: Progress
    open_home: Callable[[str], OpenHome]
    ask: Ask
