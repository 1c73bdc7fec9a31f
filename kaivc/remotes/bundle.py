"""A bundle as a remote: it can be read, and that is all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from kaivc import bundles, wire
from kaivc.bundles import Bundle
from kaivc.errors import KaiError, LostRace, RefusedByRemote, UnreadablePath
from kaivc.remotes.base import Can, Context
from kaivc.remotes.homes import HomeRemote
from kaivc.wire import Entry, Head, Hello, Offer, Outcome


class BundleRemote(HomeRemote):
    """A home as it was when the bundle was made."""

    can = Can.READ | Can.LOG


def connect(context: Context, path: str) -> HomeRemote:
    """The bundle at ``path``, every byte of it compared first; RefusedArrival if it is damaged."""
    return BundleRemote(context, lambda: _opened(path))


def _opened(path: str) -> BundleFar:
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed with the connection
    except OSError as error:
        raise UnreadablePath(f"{path} cannot be read: {error.strerror}", path=path) from error
    try:
        found = bundles.read(path, file)
        bundles.check(found, file)
    except BaseException:
        file.close()
        raise
    return BundleFar(found, file)


class BundleFar:
    """What a bundle answers."""

    def __init__(self, found: Bundle, file: BinaryIO) -> None:
        self._found = found
        self._file = file

    def hello(self) -> Hello:
        """Whose it is."""
        names = tuple(it.head.agent for it in self._found.sections)
        return Hello(self._found.home, self._found.object_format, names)

    def head(self, agent: str) -> Head:
        """Where the log stood."""
        return self._found.section(agent).head

    def log(self, agent: str, after: int) -> Iterator[bytes]:
        """The op records behind a number."""
        section = self._found.section(agent)
        skip = max(0, after - section.after)
        records = wire.unframed(bundles.pieces(self._file, section.log_at, section.log_length, self._found.path))
        for number, record in enumerate(records):
            if number >= skip:
                yield record

    def offer(self, agent: str, wants: tuple[bytes, ...], haves: tuple[bytes, ...]) -> Offer:  # noqa: ARG002 - all of it
        """All that is in it; LostRace if what it builds upon is not here."""
        section = self._found.section(agent)
        missing = [oid for oid in section.needs if oid not in haves]
        if missing:
            raise LostRace(
                f"the bundle builds on {missing[0].hex()[:12]} of {agent}, which is not here",
                unchanged="nothing moved",
                hint="take in the bundle that came before it first, or make one of all",
                agent=agent,
            )
        return section.offer

    def get(
        self,
        agent: str,
        wants: tuple[bytes, ...],  # noqa: ARG002 - all of it
        haves: tuple[bytes, ...],  # noqa: ARG002 - as above
        offer: Offer,  # noqa: ARG002 - as above
        start: int,
    ) -> Iterator[bytes]:
        """The bytes of the parcel."""
        section = self._found.section(agent)
        start = min(start, section.parcel_length)
        return bundles.pieces(self._file, section.parcel_at + start, section.parcel_length - start, self._found.path)

    def held(self, agent: str, parcel: Offer) -> int:  # noqa: ARG002 - never
        """Nothing can be sent."""
        raise _read_only(self._found.path)

    def put(self, agent: str, parcel: Offer, start: int, data: Iterable[bytes]) -> int:  # noqa: ARG002 - never
        """Nothing can be sent."""
        raise _read_only(self._found.path)

    def append(self, agent: str, entry: Entry) -> Outcome:  # noqa: ARG002 - never
        """Nothing can be sent."""
        raise _read_only(self._found.path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read_only(path: str) -> KaiError:
    return RefusedByRemote(
        f"{path} is a bundle, which is not written to",
        unchanged="nothing was sent",
        hint="`kai bundle create` makes a new one",
    )
