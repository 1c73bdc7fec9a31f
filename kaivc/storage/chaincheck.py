"""Compare the op records of one agent with each other, with the reflog and with the refs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from kaivc.errors import ChecksumMismatch, StorageFailed
from kaivc.storage.catalog import AgentRow
from kaivc.storage.chain import OpRecord, read_op, replay, trace
from kaivc.storage.damage import AgentCheck, Damage, Severity
from kaivc.storage.gitobjects import MalformedObject
from kaivc.storage.journal import GENESIS, REMOVE, digest_op
from kaivc.storage.packcheck import Packs
from kaivc.storage.salvage import good_rows
from kaivc.storage.store import StorePlace
from kaivc.vfs import unless_short

_ENTRY = ("actor", "time_ns", "reason", "verb", "op_id", "undoes", "backup", "workspace")


class Chain:
    """Compares op records, reflog and refs with each other."""

    def __init__(
        self, check: AgentCheck, place: StorePlace, db: sqlite3.Connection, agent: AgentRow, packs: Packs
    ) -> None:
        self._check = check
        self._place = place
        self._db = db
        self._agent = agent
        self._packs = packs
        self._names = {agent.name}
        self._names |= {row["name"] for row in good_rows(db, "former") if row["agent"] == agent.id}

    def run(self) -> None:
        """Look at all of it; what is found goes to the check."""
        records = list(self._records())
        self._check.ops = len(records)
        self._check.head = records[-1].digest if records else GENESIS
        whole = len(records) == self._agent.op_seq and self._check.head == self._agent.op_head
        if self._check.head != self._agent.op_head:
            what = (
                f"the chain of op records ends at {self._agent.op_seq} with {self._agent.op_head.hex()[:12]} "
                f"by the agent's row; {len(records)} could be verified"
            )
            self._say("op", what, seq=self._agent.op_seq)
        self._check_reflog({record.seq: record for record in records}, whole=whole)
        if whole:
            self._check_refs(records)
            self._check_unknown()
            self._check_removal(records)

    def _say(self, where: str, what: str, **more: Any) -> None:  # noqa: ANN401 - fields of Damage
        self._check.damages.append(Damage(where, what, self._agent.name, **more))

    def _records(self) -> Iterator[OpRecord]:
        """The records in order, as far as each follows the one before; a broken link is said, and stepped over."""
        prev: bytes | None = GENESIS
        wanted = 1
        for values in good_rows(self._db, "ops", "WHERE agent = ?", (self._agent.id,)):
            seq = values["seq"]
            if not isinstance(seq, int) or not isinstance(values["digest"], bytes):
                self._say("op", f"a row of ops has {seq!r:.40} as its number")
                continue
            if seq != wanted:
                self._say("op", _missing(wanted, seq - 1), seq=wanted)
                prev = None
            wanted = seq + 1
            record = self._read(values)
            if record is None:
                prev = values["digest"]
                continue
            if prev is not None and record.prev != prev:
                self._say("op", f"operation {seq} does not follow the one before it", seq=seq)
            prev = record.digest
            yield record
        if wanted <= self._agent.op_seq:
            self._say("op", _missing(wanted, self._agent.op_seq), seq=wanted)

    def _read(self, values: dict[str, Any]) -> OpRecord | None:
        seq, payload, at = values["seq"], values["payload"], self._packs.ops.get(values["digest"])
        pack = self._packs.names.get(values["pack"])
        if payload is None and at is None:
            self._say("op", f"no pack holds the record of operation {seq}", seq=seq, pack=pack, offset=values["offset"])
            return None
        try:
            data = payload if payload is not None else self._packs.read(*at or (0, 0))
            record = read_op(data)
        except (MalformedObject, ChecksumMismatch) as error:
            self._say("op", f"the record of operation {seq} cannot be read: {error.what}", seq=seq, pack=pack)
            return None
        except (OSError, TypeError) as error:
            unless_short(error)
            self._say("op", f"the record of operation {seq} cannot be read: {error}", seq=seq, pack=pack)
            return None
        problems = []
        if record.digest != values["digest"]:
            problems.append("has another digest than its row says")
        if record.seq != seq or record.op.op_id != values["op_id"]:
            problems.append("has another number or operation id than its row says")
        if record.home != self._place.home_id or record.agent not in self._names:
            problems.append("is of another home or agent")
        if payload is None and (values["pack"], values["offset"]) != at and not self._also_there(values):
            problems.append("does not lie where its row says")
        for problem in problems:
            self._say("op", f"the record of operation {seq} {problem}", seq=seq, pack=pack, offset=values["offset"])
        return None if record.digest != values["digest"] or record.seq != seq else record

    def _check_unknown(self) -> None:
        """Operations of this agent in its packs that no row names: of an older catalog, or of another history."""
        unknown = {record.digest: record for record in self._unknown()}
        newer = _following(self._agent.op_head, unknown)
        if newer:
            first, last = newer[0].seq, newer[-1].seq
            what = f"the packs hold {_numbers(first, last)}, which the catalog does not know: it is older than they are"
            self._say("op", what, seq=first)
        followed = {record.digest for record in newer}
        others = sorted(record.seq for digest, record in unknown.items() if digest not in followed)
        if others:
            what = (
                f"the packs hold {_numbers(others[0], others[-1])} of another history of this agent: "
                "nothing names what only they need, and `kai gc` collects it"
            )
            self._say("op", what, seq=others[0], severity=Severity.NOTE)

    def _unknown(self) -> Iterator[OpRecord]:
        known = {values["digest"] for values in good_rows(self._db, "ops")}
        for digest in (self._packs.ops.keys() | self._packs.unnamed.keys()) - known:
            try:
                data = self._packs.unnamed.get(digest) or self._packs.read(*self._packs.ops[digest])
                record = read_op(data)
            except (MalformedObject, ChecksumMismatch, OSError):
                continue
            if record.digest == digest and record.home == self._place.home_id and record.agent in self._names:
                yield record

    def _also_there(self, values: dict[str, Any]) -> bool:
        """A record may stand in a pack twice."""
        try:
            return bool(digest_op(self._packs.read(values["pack"], values["offset"])) == values["digest"])
        except (KeyError, TypeError, OSError, OverflowError, ChecksumMismatch, StorageFailed):
            return False

    def _check_reflog(self, records: dict[int, OpRecord], *, whole: bool) -> None:
        found: dict[int, dict[int, dict[str, Any]]] = {}
        for row in good_rows(self._db, "reflog", "WHERE agent = ?", (self._agent.id,)):
            found.setdefault(row["seq"], {})[row["ord"]] = row
        for seq, record in records.items():
            rows = found.pop(seq, {})
            for number, move in enumerate(record.moves):
                entry: dict[str, Any] | None = rows.pop(number, None)
                stated = (*move, *(getattr(record.op, name) for name in _ENTRY))
                if entry is None:
                    self._say("reflog", f"the reflog has no entry {seq} of {move.ref}", seq=seq)
                else:
                    self._compare(seq, move.ref, stated, entry)
            for _ in rows:
                self._say("reflog", f"the reflog has an entry {seq} that its op record does not have", seq=seq)
        if whole:
            for seq in sorted(found):
                self._say("reflog", f"the reflog has an entry {seq} of no operation", seq=seq)

    def _compare(self, seq: int, ref: str, stated: tuple[Any, ...], entry: dict[str, Any]) -> None:
        """One entry of the reflog with what its op record says; the first field that differs is named."""
        for name, expected in zip(("ref", "old", "new", *_ENTRY), stated, strict=True):
            if entry[name] != expected:
                what = f"the reflog's entry {seq} of {ref} is not what its op record says: {name} differs"
                self._say("reflog", what, seq=seq, expected=_shown(expected), found=_shown(entry[name]))
                return

    def _check_refs(self, records: list[OpRecord]) -> None:
        stated, odd = replay(records)
        for what in odd:
            self._say("op", what)
        self._check.refs = stated
        there = {row["name"]: row["oid"] for row in good_rows(self._db, "refs", "WHERE agent = ?", (self._agent.id,))}
        for name in sorted(stated.keys() | there.keys()):
            if name not in there:
                what = f"{name} is missing: the op records point it at {stated[name].hex()}"
                self._say("ref", what, row=f"refs {name}", expected=stated[name].hex())
            elif name not in stated:
                what = f"{name} points at {there[name].hex()}, and no op record made it"
                self._say("ref", what, row=f"refs {name}", found=there[name].hex())
            elif stated[name] != there[name]:
                what = f"{name} points at {there[name].hex()}, the op records say {stated[name].hex()}"
                self._say("ref", what, row=f"refs {name}", expected=stated[name].hex(), found=there[name].hex())

    def _check_removal(self, records: list[OpRecord]) -> None:
        """Whether the agent lives, and when it was removed if not."""
        stated = max((record.op.time_ns for record in records if record.op.verb == REMOVE), default=0)
        if stated != self._agent.removed_ns:
            what = "the agent's row does not say of its removal what the op records say"
            row = f"agents {self._agent.id}"
            self._say("catalog", what, row=row, expected=str(stated), found=str(self._agent.removed_ns))


def _following(head: bytes, records: dict[bytes, OpRecord]) -> list[OpRecord]:
    """The longest line of records that goes on from a head, oldest first."""
    far = {head: 0}
    for record in sorted(records.values(), key=lambda it: (it.seq, it.digest)):
        if record.prev in far:
            far[record.digest] = far[record.prev] + 1
    last = max(far, key=lambda digest: far[digest])
    return trace(last, lambda digest: records.get(digest) if digest in far else None)


def _numbers(first: int, last: int) -> str:
    return f"operation {first}" if first == last else f"operations {first} to {last}"


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else "nothing" if value is None else str(value)


def _missing(first: int, last: int) -> str:
    if first >= last:
        return f"the record of operation {first} is missing"
    return f"the records of operations {first} to {last} are missing"
