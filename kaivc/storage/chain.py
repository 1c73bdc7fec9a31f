"""Op records as values: read strictly, put in order by their digests, replayed.

The bytes are hostile until read: a record counts only in its one canonical form. The chain of an agent is that of its
newest record and of all that it names, each by the SHA-256 of the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgpack

from kaivc.records import dataclass
from kaivc.storage.gitobjects import MalformedObject
from kaivc.storage.journal import GENESIS, MAX_OP, Move, Op, digest_op, encode_op

_SHAPE: dict[str, type | tuple[type, ...]] = {
    "v": int,
    "home": str,
    "agent": str,
    "seq": int,
    "prev": bytes,
    "op_id": str,
    "verb": str,
    "actor": str,
    "time_ns": int,
    "reason": str,
    "undoes": (int, type(None)),
    "backup": (int, type(None)),
    "workspace": bool,
    "moves": list,
}


@dataclass(frozen=True)
class OpRecord:
    """One op record, read; ``digest`` is what the next one names."""

    digest: bytes
    home: str
    agent: str
    seq: int
    prev: bytes
    op: Op
    moves: tuple[Move, ...]


def read_op(record: bytes) -> OpRecord:
    """Read an op record; MalformedObject unless it is one, in canonical form."""
    if len(record) > MAX_OP:
        raise MalformedObject(f"an op record of {len(record)} bytes")
    try:
        fields = msgpack.unpackb(record, max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise MalformedObject(f"an op record cannot be read: {error}") from error
    if not isinstance(fields, dict) or set(fields) != set(_SHAPE):
        raise MalformedObject("an op record has not the keys of one")
    for key, wanted in _SHAPE.items():
        value = fields[key]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise MalformedObject(f"an op record holds {value!r:.80} as {key!r}")
    if fields["v"] != 0 or fields["seq"] < 1 or len(fields["prev"]) != len(GENESIS):
        raise MalformedObject("an op record has a version, a number or a digest that is none")
    moves = tuple(_move(item) for item in fields["moves"])
    op = Op(*(fields[key] for key in ("verb", "op_id", "actor", "time_ns", "reason", "undoes", "backup", "workspace")))
    found = OpRecord(digest_op(record), fields["home"], fields["agent"], fields["seq"], fields["prev"], op, moves)
    if encode_op(op, found.home, found.agent, found.seq, found.prev, list(moves)) != record:
        raise MalformedObject(f"op record {found.seq} is not in canonical form")
    return found


def _move(item: Any) -> Move:  # noqa: ANN401 - whatever stands there
    if not isinstance(item, list) or len(item) != len(Move._fields) or not isinstance(item[0], str):
        raise MalformedObject("an op record holds a move that is none")
    for oid in item[1:]:
        if oid is not None and not (isinstance(oid, bytes) and len(oid) in (20, 32)):
            raise MalformedObject(f"an op record moves {item[0]!r:.80} from or to what is no object id")
    return Move(*item)


def trace(head: bytes, read: Callable[[bytes], OpRecord | None]) -> list[OpRecord]:
    """The records from ``head`` (a digest) back to the first, or to one that ``read`` has not; oldest first."""
    found: list[OpRecord] = []
    while head != GENESIS:
        record = read(head)
        if record is None:
            break
        found.append(record)
        head = record.prev
    found.reverse()
    return found


def replay(records: Iterable[OpRecord], refs: Mapping[str, bytes] | None = None) -> tuple[dict[str, bytes], list[str]]:
    """Where each ref points after these moves, and what is odd about them: a move from where a ref was not."""
    there = dict(refs or {})
    odd = []
    for record in records:
        for move in record.moves:
            if there.get(move.ref) != move.old:
                odd.append(f"operation {record.seq} moves {move.ref} from where it was not")
            if move.new is None:
                there.pop(move.ref, None)
            else:
                there[move.ref] = move.new
    return there, odd
