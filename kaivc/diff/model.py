"""The values a diff is made of."""

from __future__ import annotations

import stat
from typing import Literal

from kaivc.records import dataclass

Status = Literal["A", "D", "M", "T"]


@dataclass(frozen=True)
class Side:
    """One file on one side: git mode, hex id, size in bytes; ``data`` is None when too large to load."""

    mode: int
    oid: str
    size: int
    data: bytes | None


@dataclass(frozen=True)
class FileDiff:
    """One path that differs; a side of None means absent there. ValueError when absent on both."""

    path: bytes
    old: Side | None
    new: Side | None

    def __post_init__(self) -> None:
        if self.old is None and self.new is None:
            raise ValueError("a diff needs at least one side")

    @property
    def status(self) -> Status:
        """The letter of ``git diff --name-status --no-renames``."""
        if self.old is None:
            return "A"
        if self.new is None:
            return "D"
        return "M" if stat.S_IFMT(self.old.mode) == stat.S_IFMT(self.new.mode) else "T"

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that are there, old first."""
        return tuple(side for side in (self.old, self.new) if side is not None)

    @property
    def same_content(self) -> bool:
        """Whether both sides are there and hold the same bytes (only the mode differs)."""
        return self.old is not None and self.new is not None and self.old.oid == self.new.oid

    @property
    def loaded(self) -> bool:
        """Whether the bytes of every side are at hand."""
        return all(side.data is not None for side in self.sides)

    @property
    def contents(self) -> tuple[bytes, bytes]:
        """The old and new bytes; absent (or not loaded) counts as empty."""
        return _data(self.old), _data(self.new)


def _data(side: Side | None) -> bytes:
    return (side.data if side else None) or b""
