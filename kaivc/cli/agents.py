"""One question to one agent, or to all: an agent that cannot answer does not silence the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kaivc.cli.failures import report
from kaivc.cli.invocation import Invocation
from kaivc.errors import KaiError
from kaivc.records import dataclass, field

if TYPE_CHECKING:
    from kaivc.api import Agent

T = TypeVar("T")


@dataclass
class Answers(Generic[T]):
    """What the agents answered, and which could not."""

    results: list[T] = field(default_factory=list)
    failures: list[tuple[str, KaiError]] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there was nobody to ask."""
        return not self.results and not self.failures

    def documents(self) -> list[dict[str, Any]]:
        """The failures, for a JSON document."""
        return [{"agent": name, **error.as_dict()} for name, error in self.failures]

    def raise_first(self, door: Invocation) -> None:
        """Report all failures but the first; the first one's code is the command's."""
        for _, error in self.failures[1:]:
            report(error, door)
        if self.failures:
            raise self.failures[0][1]


def each(door: Invocation, name: str | None, ask: Callable[[Agent], T], *, removed: bool = False) -> Answers[T]:
    """Ask one agent, or all of the home's, with ``removed`` those too that were removed.

    One that was named raises its own error.
    """
    home, found = door.open(), Answers[T]()
    if name is not None:
        found.results.append(ask(home.agent(name)))
        return found
    for each_name in home.agents(removed=removed):
        try:
            found.results.append(ask(home.agent(each_name)))
        except KaiError as error:
            found.failures.append((each_name, error))
    return found
