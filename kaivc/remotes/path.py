"""A home in a directory of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kaivc.access import UserAccess
from kaivc.errors import KaiError
from kaivc.remotes.base import Context
from kaivc.remotes.homes import HomeRemote
from kaivc.serving import FarHome
from kaivc.wire import Entry, Far, Head, Offer, Outcome, told


@contextmanager
def _answering() -> Iterator[None]:
    """What goes wrong over there is said to be over there, as by every other carrier."""
    try:
        yield
    except KaiError as error:
        told(error)
        raise


class _Opened(FarHome):
    """A home that was opened for this."""

    def head(self, agent: str) -> Head:
        """Where an agent's log stands."""
        with _answering():
            return super().head(agent)

    def offer(self, agent: str, wants: tuple[bytes, ...], haves: tuple[bytes, ...]) -> Offer:
        """What is missing."""
        with _answering():
            return super().offer(agent, wants, haves)

    def held(self, agent: str, parcel: Offer) -> int:
        """How much of it has arrived."""
        with _answering():
            return super().held(agent, parcel)

    def append(self, agent: str, entry: Entry) -> Outcome:
        """Make the next log entry, or none."""
        with _answering():
            return super().append(agent, entry)

    def close(self) -> None:
        """Close its catalog."""
        self._home.catalog.close()


def connect(context: Context, path: str) -> HomeRemote:
    """The home at ``path``; NoSuchHome if there is none."""

    def far() -> Far:
        home = context.open_home(path)
        return _Opened(home, UserAccess(home))

    return HomeRemote(context, far)
