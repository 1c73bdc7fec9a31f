"""Small objects that share one record: its content is theirs, one after the other, and its header lists them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAX_BLOCK = 128 << 10
"""Bytes of content that the objects of a block have together, at most."""
MAX_MEMBERS = 64
SMALL = 16 << 10
"""Bytes of the largest object that goes into a block."""
FEWEST = 3
"""So many objects are worth a block; fewer have records of their own."""
GIT_KINDS = frozenset([1, 2, 3, 4])


class Member(NamedTuple):
    """An object of a block: a git object of ``size`` bytes that begins at byte ``within`` of the block's content.

    None is empty, so that its place tells it from the others.
    """

    kind: int
    id: bytes
    size: int
    within: int


def listed(members: Iterable[tuple[int, bytes, int]]) -> list[list[object]]:
    """Members as they stand in the header."""
    return [[kind, id_, size] for kind, id_, size in members]


def parse(found: object, size: int) -> tuple[Member, ...] | None:
    """The members that a header lists, whose content has ``size`` bytes; None if they cannot be."""
    if not isinstance(found, list) or not 0 < len(found) <= MAX_MEMBERS or size > MAX_BLOCK:
        return None
    members, at = [], 0
    for it in found:
        if not isinstance(it, list) or [type(value) for value in it] != [int, bytes, int]:
            return None
        kind, id_, length = it
        if kind not in GIT_KINDS or not id_ or length <= 0:
            return None
        members.append(Member(kind, id_, length, at))
        at += length
    return tuple(members) if at == size else None


def member_at(members: Sequence[Member], within: int, oid: bytes) -> Member | None:
    """The member of that place and id."""
    return next((it for it in members if it.within == within and it.id == oid), None)
