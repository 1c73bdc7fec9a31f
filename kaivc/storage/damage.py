"""What is found wrong with records and rows, as values."""

from __future__ import annotations

from enum import StrEnum

from kaivc.records import dataclass, field
from kaivc.storage.journal import GENESIS


class Severity(StrEnum):
    """How bad it is: something is lost or wrong; something is amiss; something is worth knowing."""

    DAMAGE = "damage"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Damage:
    """Something that is not what it must be.

    ``where`` is catalog, pack, index, object, op, reflog or ref. ``pack`` is a pack's name, with the bytes from
    ``offset`` to ``end``; ``object`` an id in hex; ``row`` the table and key of a row of the
    catalog; ``seq`` the number of an op. ``expected`` and ``found`` are the two that differ, where there are two.
    """

    where: str
    what: str
    agent: str | None = None
    pack: str | None = None
    offset: int | None = None
    end: int | None = None
    object: str | None = None
    row: str | None = None
    seq: int | None = None
    severity: Severity = Severity.DAMAGE
    expected: str | None = None
    found: str | None = None


@dataclass
class AgentCheck:
    """What was looked at and found of one agent.

    ``bad`` maps the id of each object that cannot be had to what is wrong with it; ``causes`` maps one that is whole
    itself to the bad one that it is encoded with; ``holders`` maps a bad object to those that go with it, in hex: of a
    chunk the blobs that it is a piece of; ``head`` is the digest of the
    last op record of the chain that could be verified, ``ops`` their count; ``refs`` is what the op records say of the
    refs, None where the chain is broken. ``size`` is that of all objects in bytes.
    """

    agent: str
    damages: list[Damage] = field(default_factory=list)
    bad: dict[bytes, Damage] = field(default_factory=dict)
    causes: dict[bytes, bytes] = field(default_factory=dict)
    holders: dict[str, list[str]] = field(default_factory=dict)
    records: int = 0
    objects: int = 0
    size: int = 0
    ops: int = 0
    head: bytes = GENESIS
    refs: dict[str, bytes] | None = None
