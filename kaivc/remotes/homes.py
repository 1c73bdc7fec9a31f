"""A home of kaivc at the other end, whatever carries the transfer protocol to it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from kaivc import parcels
from kaivc.errors import KaiError, RefusedArrival, TransportError
from kaivc.incoming import Incoming
from kaivc.parcels import Parcel
from kaivc.remotes.base import Can, Context, Push, Sent
from kaivc.repository import Repository
from kaivc.wire import MAX_IDS, Entry, Far, Head, Hello, Offer, Outcome

T = TypeVar("T")
TRIES = 5
"""How often a transfer that is cut goes on by itself; each time with a longer pause."""
PAUSE = 0.5


class HomeRemote:
    """A home over ``connect``, which gives a connection, and another one after the first broke."""

    can = Can.READ | Can.LOG | Can.WRITE | Can.ATOMIC

    def __init__(self, context: Context, connect: Callable[[], Far]) -> None:
        self._context = context
        self._connect = connect
        self._far: Far | None = None
        self._hello: Hello | None = None

    # ------------------------------------------------------------ the connection

    def _at(self) -> Far:
        if self._far is None:
            self._far = self._connect()
        return self._far

    def close(self) -> None:
        """Let go."""
        far, self._far = self._far, None
        if far is not None:
            with suppress(KaiError):
                far.close()

    def _again(self, attempt: Callable[[Far], T]) -> T:
        """Do it; after a broken connection once more, over a new one."""
        pause = PAUSE
        for left in range(TRIES - 1, -1, -1):
            try:
                return attempt(self._at())
            except TransportError as error:
                self.close()
                if not left or type(error) is not TransportError or error.facts.get("repeat") is False:
                    raise
            self._context.sleep(pause * (0.5 + random.random()))  # noqa: S311 - spreads those who wait
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    # ------------------------------------------------------------ reading

    def _who(self) -> Hello:
        if self._hello is None:
            self._hello = self._again(lambda far: far.hello())
        return self._hello

    @property
    def object_format(self) -> str:
        """How it hashes."""
        return self._who().object_format

    @property
    def home(self) -> str:
        """The id of the home over there."""
        return self._who().home

    def agents(self) -> tuple[str, ...]:
        """The agents that can be read."""
        return self._who().agents

    def head(self, agent: str) -> Head:
        """Where an agent's log stands."""
        return self._again(lambda far: far.head(agent))

    def log(self, agent: str, after: int) -> Iterator[bytes]:
        """The op records behind a number; after a broken connection, those behind the last one that came."""
        records: Iterator[bytes] | None = None

        def following(far: Far) -> bytes | None:
            nonlocal records
            if records is None:
                records = far.log(agent, after)
            try:
                return next(records, None)
            except TransportError:
                records = None
                raise

        while (record := self._again(following)) is not None:
            after += 1
            yield record

    @contextmanager
    def bring(self, repo: Repository, wants: Sequence[bytes], haves: Sequence[bytes]) -> Iterator[Incoming]:
        """What is missing, wholly arrived; goes on where an earlier one was cut."""
        wanted, had = tuple(wants), tuple(haves)[:MAX_IDS]
        offer = self._again(lambda far: far.offer(repo.name, wanted, had))
        with Incoming(repo.home, repo.name, offer) as arriving:

            def attempt(far: Far) -> None:
                arriving.take(far.get(repo.name, wanted, had, offer, arriving.size))

            self._again(attempt)
            yield arriving

    # ------------------------------------------------------------ writing

    def send(self, repo: Repository, push: Push, theirs: Mapping[str, bytes]) -> Sent:
        """Send what the other side lacks, then the log entry; all its moves count, or none."""
        wants = [it.new for it in push.updates if it.new is not None]
        haves = tuple(theirs.values())
        try:
            return self._send(repo, push, parcels.plan(repo, wants, haves))
        except RefusedArrival:
            if not haves:
                raise
        # What it has may be cut in another way, so that pieces are missing: it gets all of it.
        return self._send(repo, push, parcels.plan(repo, wants, ()))

    def _send(self, repo: Repository, push: Push, parcel: Parcel) -> Sent:
        offer = parcel.offer if parcel.parts else None
        size = 0
        if offer is not None:
            size = self._put(repo, parcel, offer)
        entry = Entry(push.op_id, push.actor, push.reason, push.updates, offer)
        outcome: Outcome = self._again(lambda far: far.append(repo.name, entry))
        return Sent(tuple(it.ref for it in push.updates), size=size, outcome=outcome)

    def _put(self, repo: Repository, parcel: Parcel, offer: Offer) -> int:
        sent = 0

        def counted(pieces: Iterable[bytes]) -> Iterator[bytes]:
            nonlocal sent
            for piece in pieces:
                sent += len(piece)
                yield piece
                self._context.progress("sending", sent, max(sent, offer.size))

        def attempt(far: Far) -> None:
            nonlocal sent
            start = sent = far.held(repo.name, offer)
            far.put(repo.name, offer, start, counted(parcels.stream(repo, parcel, start)))

        self._again(attempt)
        return sent
