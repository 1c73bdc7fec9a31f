"""kaivc, through its library."""

from __future__ import annotations

import os
from functools import wraps
from typing import Any

import kaivc
from kaivc.api import Agent, Home
from kaivc.repository import Repository
from scripts.bench import folders
from scripts.bench.folders import Room
from scripts.bench.meter import Meter
from scripts.bench.systems.base import AUTHOR, MAIL, System

AGENT = "bench"
DURABLE = "durable"


def mark_durable(meter: Meter) -> None:
    """Let ``meter`` note the moment at which the transaction of a commit has returned: its names are synced."""
    land = Repository.land

    @wraps(land)
    def landing(*args: Any, **words: Any) -> Any:  # noqa: ANN401 - whatever it takes and gives
        landed = land(*args, **words)
        meter.mark(DURABLE)
        return landed

    Repository.land = landing  # type: ignore[method-assign]


class Kai(System):
    """A home with one agent, opened once."""

    name = "kai"
    used = "library: Agent.commit, checkout, rollback, status, gc"
    in_process = True
    judged = ("W1", "W2", "W3", "W4")

    def __init__(self, place: str, meter: Meter) -> None:
        super().__init__(place, meter)
        self.home: Home
        self.agent: Agent
        self._names: dict[int, str] = {}

    @classmethod
    def version(cls, meter: Meter) -> str | None:  # noqa: ARG003 - as the others
        """That of the package."""
        return kaivc.__version__

    @property
    def workspace(self) -> str:
        """The agent's."""
        return os.path.join(self.store, AGENT, "workspace")

    def prepare(self) -> None:
        """Make a home and an agent."""
        kaivc.init(self.store, environ=self.meter.environ).close()
        self._open()
        self.home.new(AGENT)
        self._open()
        mark_durable(self.meter)

    def _open(self) -> None:
        self.close()
        self.home = kaivc.open(self.store, environ={**self.meter.environ, "KAI_AUTHOR": f"{AUTHOR} <{MAIL}>"})
        if AGENT in self.home.agents():
            self.agent = self.home.agent(AGENT)

    def commit(self, number: int) -> None:
        """Commit; what it is to return is a view in force."""
        self._names[number] = f"v{self.agent.commit().version}"

    def restore(self, number: int, to: str) -> str:
        """Check the version out."""
        self.agent.checkout(self._names[number], to)
        return to

    def tidy(self) -> bool:
        """Collect."""
        self.agent.gc()
        return True

    def status(self) -> bool:
        """Compare with ``current``."""
        if self.agent.status().dirty:
            raise AssertionError("an unchanged workspace is called changed")
        return True

    def switch(self, number: int) -> bool:
        """Roll back, or forward."""
        self.agent.rollback(self._names[number])
        return True

    def sizes(self) -> dict[str, Room]:
        """All of ``.kai`` as the store, once closed, its parts, and the views beside it."""
        self.close()
        kai = os.path.join(self.store, ".kai")
        found = {
            "store": folders.room(kai),
            "packs": folders.room(os.path.join(kai, "packs")),
            "catalog": folders.room(os.path.join(kai, "catalog.sqlite")),
            "views": folders.room(os.path.join(self.store, AGENT, "versions")),
        }
        self._open()
        return found

    def close(self) -> None:
        """Close the home."""
        if hasattr(self, "home"):
            self.home.close()
            del self.home
