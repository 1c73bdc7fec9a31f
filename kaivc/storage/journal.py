"""The catalog's journal: refs, their reflog, the chain of op records, and intents.

An op record is the canonical msgpack map of one transaction of one agent. Each holds the SHA-256 of the one before,
so that none can be changed or left out unseen. The reflog's rows are its index.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgpack

from kaivc.errors import TooLarge
from kaivc.names import ObjectId, ReflogEntry, RefName, is_name
from kaivc.records import dataclass
from kaivc.storage.catalog import AgentRow, Catalog, Kinds, checked, checksum, damaged, put_agent

MAX_OP = 16 << 20
"""The bytes of the largest op record that is read."""
GENESIS = bytes(32)
"""What the first op record names as the one before."""
LAST = "\U0010ffff"
"""Comes after whatever a name goes on with."""


@dataclass(frozen=True)
class Op:
    """One transaction: what moved, who moved it, when and why."""

    verb: str
    op_id: str
    actor: str
    time_ns: int
    reason: str
    undoes: int | None = None
    backup: int | None = None
    workspace: bool = False


class Move(NamedTuple):
    """One ref's move within an op."""

    ref: str
    old: bytes | None
    new: bytes | None


class OpRow(NamedTuple):
    """An op record; ``payload`` is None once a pack holds it."""

    seq: int
    digest: bytes
    payload: bytes | None
    pack: int | None
    offset: int | None


def encode_op(op: Op, home: str, agent: str, seq: int, prev: bytes, moves: list[Move]) -> bytes:
    """The op record: a msgpack map with its keys in order, so that equal ops have equal bytes."""
    fields: dict[str, Any] = {
        "v": 0,
        "home": home,
        "agent": agent,
        "seq": seq,
        "prev": prev,
        "op_id": op.op_id,
        "verb": op.verb,
        "actor": op.actor,
        "time_ns": op.time_ns,
        "reason": op.reason,
        "undoes": op.undoes,
        "backup": op.backup,
        "workspace": op.workspace,
        "moves": [list(move) for move in moves],
    }
    packed: bytes = msgpack.packb({key: fields[key] for key in sorted(fields)})
    return packed


def digest_op(record: bytes) -> bytes:
    """What the next op record names as the one before."""
    return hashlib.sha256(record).digest()


# ---------------------------------------------------------------- refs


def ref(catalog: Catalog, agent: int, name: str) -> ObjectId | None:
    """What a ref points at; ChecksumMismatch if it is missing, and the reflog says that it is there."""
    row = catalog.row(_REF, (agent, name))
    if (row is not None and row[0] != name) or (row is None and _is_lost(catalog, agent, name)):
        raise damaged(f"ref {name}")  # a damaged page may also lead to a row that is whole, and another
    return ObjectId(checked(row, f"ref {name}", (str, bytes))[1]) if row else None


_REF = "SELECT name, oid, checksum FROM refs WHERE agent = ? AND name = ?"


def _is_lost(catalog: Catalog, agent: int, name: str) -> bool:
    """Whether a ref that was not found should be there: a flipped bit in a key hides a row.

    Others may write meanwhile, so each side is asked twice.
    """
    return _should_be(catalog, agent, name) and not _is_there(catalog, agent, name) and _should_be(catalog, agent, name)


def _is_there(catalog: Catalog, agent: int, name: str) -> bool:
    """Whether a ref has a row; where the order of the rows is damaged, another may be given for it."""
    row = catalog.row(_REF, (agent, name))
    return row is not None and row[0] == name


def _should_be(catalog: Catalog, agent: int, name: str) -> bool:
    """Whether the newest move of a ref left it pointing at something."""
    sql = "SELECT new FROM reflog WHERE agent = ? AND ref = ? ORDER BY seq DESC LIMIT 1"
    row = catalog.row(sql, (agent, name))
    return row is not None and row[0] is not None


def _moved(catalog: Catalog, agent: int, prefix: str) -> set[RefName]:
    """The refs below a prefix that were ever moved."""
    sql = "SELECT DISTINCT ref FROM reflog WHERE agent = ? AND ref >= ? AND ref < ?"
    return {RefName(name) for (name,) in catalog.rows(sql, (agent, prefix, prefix + LAST))}


def _missed(catalog: Catalog, agent: int, moved: set[RefName], found: Collection[RefName]) -> list[RefName]:
    """The refs that should be there beside those that were found.

    Among rows out of order some are found by their name only; others have come since.
    """
    return [name for name in sorted(moved.difference(found)) if _should_be(catalog, agent, name)]


def refs(catalog: Catalog, agent: int, prefix: str) -> dict[RefName, ObjectId]:
    """All refs whose name begins with ``prefix``, by name; ChecksumMismatch if one is damaged, or hidden."""
    rows = catalog.rows(
        "SELECT name, oid, checksum FROM refs WHERE agent = ? AND name >= ? AND name < ? ORDER BY name",
        (agent, prefix, prefix + LAST),
    )
    found = {RefName(row[0]): ObjectId(checked(row, f"ref {row[0]}", (str, bytes))[1]) for row in rows}
    for name in _missed(catalog, agent, _moved(catalog, agent, prefix), found):
        oid = ref(catalog, agent, name)
        if oid is not None:
            found[name] = oid
    return dict(sorted(found.items()))


def ref_names(catalog: Catalog, agent: int, prefix: str) -> list[RefName]:
    """The names that begin with ``prefix``: a damaged row hides no other.

    One whose name is damaged goes by the one that the reflog knows.
    """
    rows = catalog.rows(
        "SELECT name FROM refs WHERE agent = ? AND name >= ? AND name < ? ORDER BY name",
        (agent, prefix, prefix + LAST),
    )
    found = [RefName(name) for (name,) in rows]
    moved = _moved(catalog, agent, prefix)
    missed = _missed(catalog, agent, moved, found)
    missed = [name for name in missed if _is_there(catalog, agent, name) or _is_lost(catalog, agent, name)]
    return sorted([*missed, *(name for name in found if name in moved or not missed)])


def put_ref(db: sqlite3.Connection, agent: int, name: str, oid: bytes | None) -> None:
    """Point a ref at ``oid``; None removes it."""
    if oid is None:
        db.execute("DELETE FROM refs WHERE agent = ? AND name = ?", (agent, name))
    else:
        db.execute("INSERT OR REPLACE INTO refs VALUES (?, ?, ?, ?)", (agent, name, oid, checksum(name, oid)))


def made_since(catalog: Catalog, agent: int, prefix: str, seq: int) -> list[RefName]:
    """The refs below a prefix that operations after ``seq`` pointed somewhere."""
    rows = catalog.rows(
        "SELECT ref FROM reflog WHERE agent = ? AND seq > ? AND ref >= ? AND ref < ? AND new IS NOT NULL",
        (agent, seq, prefix, prefix + LAST),
    )
    return [RefName(name) for (name,) in rows]


# ---------------------------------------------------------------- ops and reflog


def append_op(db: sqlite3.Connection, home: str, agent: AgentRow, op: Op, moves: list[Move]) -> tuple[int, bytes]:
    """Add an op to the chain and its moves to the reflog; its number and its record. TooLarge if none could read it."""
    seq = agent.op_seq + 1
    record = encode_op(op, home, agent.name, seq, agent.op_head, moves)
    if len(record) > MAX_OP:
        raise TooLarge(
            f"the record of an operation that makes {len(moves)} moves has {len(record)} bytes; {MAX_OP} are allowed",
            unchanged="nothing moved",
        )
    digest = digest_op(record)
    db.execute("INSERT INTO ops VALUES (?, ?, ?, ?, ?, NULL, NULL)", (agent.id, seq, op.op_id, digest, record))
    put_reflog(db, agent.id, seq, op, moves)
    put_agent(db, agent._replace(op_seq=seq, op_head=digest))
    return seq, record


def put_reflog(db: sqlite3.Connection, agent: int, seq: int, op: Op, moves: Sequence[Move], first: int = 0) -> None:
    """Write the moves of an op into the reflog; ``first`` is the place of the first one within the op."""
    for ordinal, move in enumerate(moves, first):
        values = (
            seq, ordinal, move.ref, move.old, move.new, op.actor, op.time_ns, op.reason, op.verb, op.op_id,
            op.undoes, op.backup, int(op.workspace),
        )  # fmt: skip
        db.execute(
            "INSERT INTO reflog VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (agent, *values, checksum(*values)),
        )


def unpacked_ops(catalog: Catalog, agent: int) -> list[OpRow]:
    """The op records that no pack is known to hold, oldest first."""
    rows = catalog.rows(
        "SELECT seq, digest, payload, pack, offset FROM ops WHERE agent = ? AND payload IS NOT NULL ORDER BY seq",
        (agent,),
    )
    return [OpRow(*row) for row in rows]


def ops(catalog: Catalog, agent: int) -> list[OpRow]:
    """The whole chain, oldest first."""
    rows = catalog.rows("SELECT seq, digest, payload, pack, offset FROM ops WHERE agent = ? ORDER BY seq", (agent,))
    return [OpRow(*row) for row in rows]


def ops_behind(catalog: Catalog, agent: int, seq: int, limit: int) -> list[OpRow]:
    """The records of the chain behind a number, oldest first."""
    sql = "SELECT seq, digest, payload, pack, offset FROM ops WHERE agent = ? AND seq > ? ORDER BY seq LIMIT ?"
    return [OpRow(*row) for row in catalog.rows(sql, (agent, seq, limit))]


def op_packed(db: sqlite3.Connection, agent: int, seq: int, pack: int, offset: int) -> None:
    """Note that a pack holds an op record."""
    db.execute(
        "UPDATE ops SET payload = NULL, pack = ?, offset = ? WHERE agent = ? AND seq = ?",
        (pack, offset, agent, seq),
    )


def op_digest(catalog: Catalog, agent: int, seq: int) -> bytes | None:
    """The digest of an op."""
    row = catalog.row("SELECT digest FROM ops WHERE agent = ? AND seq = ?", (agent, seq))
    return row[0] if row else None


def digests(catalog: Catalog) -> set[bytes]:
    """The digests of all ops of all agents."""
    return {digest for (digest,) in catalog.rows("SELECT digest FROM ops")}


def is_known(catalog: Catalog, digest: bytes) -> bool:
    """Whether any agent's chain has an op of that digest; reads all of them."""
    return catalog.row("SELECT 1 FROM ops WHERE digest = ? LIMIT 1", (digest,)) is not None


def op_seq(catalog: Catalog, agent: int, op_id: str) -> int | None:
    """The number of the op of that id."""
    row = catalog.row("SELECT seq FROM ops WHERE agent = ? AND op_id = ?", (agent, op_id))
    return row[0] if row else None


_REFLOG = (
    "SELECT seq, ord, ref, old, new, actor, time_ns, reason, verb, op_id, undoes, backup, workspace, checksum, agent "
    "FROM reflog WHERE agent = ? "
)


_ID, _NUMBER = (bytes, type(None)), (int, type(None))
_REFLOG_KINDS: Kinds = (int, int, str, _ID, _ID, str, int, str, str, str, _NUMBER, _NUMBER, int)


def _entry(agent: int, row: tuple[Any, ...]) -> ReflogEntry:
    if row[-1] != agent:  # a damaged page leads to another agent's rows, which are whole
        raise damaged(f"reflog entry {row[0]}")
    seq, _, name, old, new, actor, time_ns, reason, verb, op_id, undoes, backup, workspace = checked(
        row[:-1], f"reflog entry {row[0]}", _REFLOG_KINDS
    )
    return ReflogEntry(
        seq, RefName(name), old, new, actor, time_ns, reason, verb, op_id, undoes, backup, bool(workspace)
    )


RENAME, REMOVE = "rename", "remove"
"""The verbs that concern an agent as a whole: what they note of a ref is no move of it."""


def reflog(catalog: Catalog, agent: int, limit: int = -1) -> list[ReflogEntry]:
    """The moves of all refs, newest first."""
    rows = catalog.rows(_REFLOG + "ORDER BY seq DESC, ord LIMIT ?", (agent, limit))
    return [_entry(agent, row) for row in rows]


def reflog_of_ref(
    catalog: Catalog, agent: int, names: Sequence[str], limit: int = -1, since: int = 0
) -> list[ReflogEntry]:
    """The moves of one ref after the op ``since``, newest first; ``names`` are those that it has had."""
    marks = ", ".join("?" * len(names))
    rows = catalog.rows(
        _REFLOG + f"AND ref IN ({marks}) AND seq > ? AND verb NOT IN (?, ?) ORDER BY seq DESC LIMIT ?",
        (agent, *names, since, RENAME, REMOVE, limit),
    )
    for row in rows:
        if row[2] not in names:  # a damaged index leads to another row
            raise damaged(f"reflog entry {row[0]}")
    return [_entry(agent, row) for row in rows]


def reflog_of(catalog: Catalog, agent: int, seq: int) -> list[ReflogEntry]:
    """The moves of one op."""
    rows = catalog.rows(_REFLOG + "AND seq = ? ORDER BY ord", (agent, seq))
    if any(row[0] != seq for row in rows):
        raise damaged(f"reflog entry {seq}")
    return [_entry(agent, row) for row in rows]


# ---------------------------------------------------------------- intents


LINK, LOG = "link", "rollback.log"
"""What each move of ``current`` has to follow it."""


class IntentRow(NamedTuple):
    """Something that is still to be done after a transaction."""

    id: int
    kind: str
    payload: bytes


def put_intent(db: sqlite3.Connection, agent: int, kind: str, payload: bytes) -> None:
    """Note what is to be done."""
    db.execute(
        "INSERT INTO intents (agent, kind, payload, checksum) VALUES (?, ?, ?, ?)",
        (agent, kind, payload, checksum(agent, kind, payload)),
    )


def intents(catalog: Catalog, agent: int) -> list[IntentRow]:
    """What is to be done, in order; those of all agents are looked at, for a damaged one may be anybody's."""
    found = []
    for number, owner, kind, payload, stored in catalog.rows(
        "SELECT id, agent, kind, payload, checksum FROM intents ORDER BY id"
    ):
        checked((owner, kind, payload, stored), f"intent {number}", (int, str, bytes))
        if owner == agent:
            found.append(IntentRow(number, kind, payload))
    kinds = [row.kind for row in found]
    if kinds.count(LINK) != kinds.count(LOG):  # noted together, and dropped together
        raise damaged("what is still to be done")
    return found


def decode_rename(payload: bytes) -> tuple[str, str]:
    """The former and the new name in the intent of a rename; ChecksumMismatch unless agents may have them."""
    names = payload.decode("utf-8", "replace").split(" ")
    if len(names) != 2 or not all(map(is_name, names)):  # noqa: PLR2004 - two names
        raise damaged("the intent of a rename")
    return names[0], names[1]


def drop_intents(db: sqlite3.Connection, agent: int, numbers: list[int]) -> None:
    """Forget intents of an agent that are done; a number that was dropped before may be another agent's by now."""
    db.executemany("DELETE FROM intents WHERE id = ? AND agent = ?", [(number, agent) for number in numbers])
