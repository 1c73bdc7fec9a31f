"""Put the op records of an agent in order again, from packs and from what an old catalog still says."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kaivc.records import dataclass, replace
from kaivc.storage.chain import OpRecord, read_op
from kaivc.storage.gather import AgentFacts, Place
from kaivc.storage.gitobjects import MalformedObject
from kaivc.storage.journal import GENESIS, RENAME, Move, Op, digest_op, encode_op
from kaivc.storage.oldcatalog import OldAgent

_META = ("verb", "op_id", "actor", "time_ns", "reason", "undoes", "backup", "workspace")


@dataclass(frozen=True)
class Link:
    """One op record of the chain, and where it lies: in a pack, or (``place`` is None) only here."""

    record: OpRecord
    payload: bytes | None
    place: Place | None


@dataclass(frozen=True)
class Chain:
    """The records of an agent in order; ``seq`` and ``head`` are those of its newest one, which may itself be lost.

    ``lost`` are the numbers of the records that are gone, as (first, last).
    """

    links: tuple[Link, ...]
    seq: int
    head: bytes
    lost: tuple[tuple[int, int], ...]

    @property
    def names(self) -> list[str]:
        """The names that the agent had, oldest first."""
        return list(dict.fromkeys(link.record.agent for link in self.links))

    def replay(self) -> dict[str, bytes]:
        """Where each ref points; what a lost record moved is as the records after it say."""
        refs: dict[str, bytes] = {}
        for link in self.links:
            for move in link.record.moves:
                if move.new is None:
                    refs.pop(move.ref, None)
                else:
                    refs[move.ref] = move.new
        return refs


class Pool:
    """The op records of a home, wherever they were found: in packs of any agent, and in an old catalog."""

    def __init__(
        self, home_id: str, found: Iterable[AgentFacts], payloads: Mapping[bytes, tuple[OpRecord, bytes]]
    ) -> None:
        self.home_id = home_id
        self._payloads = payloads
        self._records = {
            digest: record for facts in found for digest, (record, _) in facts.ops.items() if record.home == home_id
        }
        self._records |= {digest: record for digest, (record, _) in payloads.items() if record.home == home_id}
        self.renamed = frozenset(record.prev for record in self._records.values() if record.op.verb == RENAME)
        """The records that an agent's other name goes on from."""

    def names(self) -> set[str]:
        """Whose records they are."""
        return {record.agent for record in self._records.values()}

    def links(self, facts: AgentFacts, *, everywhere: bool) -> dict[bytes, Link]:
        """What an agent's own packs and the old catalog hold; with ``everywhere``, what other packs hold too."""
        known = {
            digest: Link(record, None, place)
            for digest, (record, place) in facts.ops.items()
            if record.home == self.home_id
        }
        for digest in self._records if everywhere else self._payloads:
            if digest not in known and digest in self._records:
                known[digest] = Link(self._records[digest], None, None)
        return known


def rechain(name: str, facts: AgentFacts, old: OldAgent | None, pool: Pool) -> Chain | None:
    """The chain of the agent ``name``; None if nothing says that there is one of that name.

    What its own packs lack is looked for in those of others: a fork has some, and directories may have been mixed up.
    """
    chain = _rechain(name, facts, old, pool, everywhere=False)
    if chain is None or chain.lost:
        chain = _rechain(name, facts, old, pool, everywhere=True)
    return chain


def _rechain(name: str, facts: AgentFacts, old: OldAgent | None, pool: Pool, *, everywhere: bool) -> Chain | None:
    home_id, known = pool.home_id, pool.links(facts, everywhere=everywhere)
    if old is not None and old.row is not None:
        seq, head = old.row.op_seq, old.row.op_head
        newer = _newest(name, known.values(), pool.renamed)
        if newer is not None and newer.seq > seq and _leads_to(newer, head, known):
            seq, head = newer.seq, newer.digest  # the catalog is an older one than the packs
    else:
        newest = _newest(name, known.values(), pool.renamed)
        if newest is None:
            return None
        seq, head = newest.seq, newest.digest
    return _trace(name, home_id, seq, head, known, old)


NOTHING = Chain((), 0, GENESIS, ())
"""That of an agent with no operation yet."""


def _newest(name: str, links: Iterable[Link], renamed: Collection[bytes]) -> OpRecord | None:
    """The newest record of that name, unless another name took it from there."""
    records = [link.record for link in links]
    followed = {record.prev for record in records if record.agent != name}.union(renamed)
    own = [record for record in records if record.agent == name]
    newest = max(own, key=lambda record: (record.seq, record.op.time_ns, record.digest), default=None)
    return None if newest is None or newest.digest in followed else newest


def _leads_to(record: OpRecord, digest: bytes, known: Mapping[bytes, Link]) -> bool:
    while record.prev != digest:
        link = known.get(record.prev)
        if link is None:
            return False
        record = link.record
    return True


def _trace(name: str, home_id: str, seq: int, head: bytes, known: dict[bytes, Link], old: OldAgent | None) -> Chain:
    links: list[Link] = []
    lost: list[tuple[int, int]] = []
    names = {name}
    at, digest = seq, head
    while at > 0:
        link = known.get(digest) or _from_reflog(at, digest, home_id, names, known, old)
        if link is not None and link.record.seq == at:
            links.append(link if link.payload or link.place else replace(link, payload=_encoded(link.record)))
            names.add(link.record.agent)
            at, digest = at - 1, link.record.prev
            continue
        below = [it.record for it in known.values() if it.record.seq < at and it.record.agent in names]
        best = max(below, key=lambda record: (record.seq, record.op.time_ns), default=None)
        last, at, digest = at, *((best.seq, best.digest) if best else (0, GENESIS))
        lost.append((at + 1, last))
    return Chain(tuple(reversed(links)), seq, head, tuple(reversed(lost)))


def _encoded(record: OpRecord) -> bytes:
    """The bytes of a record, which has one form only."""
    return encode_op(record.op, record.home, record.agent, record.seq, record.prev, list(record.moves))


def _from_reflog(
    seq: int, digest: bytes, home_id: str, names: set[str], known: Mapping[bytes, Link], old: OldAgent | None
) -> Link | None:
    """A record whose bytes are gone, made again from the rows of the reflog; its digest says whether it is the one."""
    rows = old.reflog.get(seq) if old else None
    if old is None or not rows or set(rows) != set(range(len(rows))):
        return None
    first = rows[0]
    values: dict[str, Any] = {key: first[key] for key in _META}
    op = Op(**(values | {"workspace": bool(first["workspace"])}))
    moves = [Move(rows[number]["ref"], rows[number]["old"], rows[number]["new"]) for number in range(len(rows))]
    before = {link.record.digest for link in known.values() if link.record.seq == seq - 1}
    before |= {old.digests[seq - 1]} if seq - 1 in old.digests else set()
    for prev in before if seq > 1 else {GENESIS}:
        for agent in names:
            try:
                payload = encode_op(op, home_id, agent, seq, prev, moves)
                if digest_op(payload) == digest:
                    return Link(read_op(payload), payload, None)
            except (MalformedObject, ValueError, TypeError, OverflowError):
                return None
    return None
