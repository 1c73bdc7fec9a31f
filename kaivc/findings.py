"""Finding: something that is not what it must be, in the words of agents, versions and paths."""

from __future__ import annotations

from kaivc.records import dataclass
from kaivc.storage.damage import Damage, Severity


@dataclass(frozen=True)
class Finding:
    """One thing found.

    ``where`` is catalog, pack, index, object, op, reflog, ref (``storage.damage``), store, tag, commit, view, link,
    rollback.log, workspace, intent, scratch or home. ``versions`` are what it takes with it: ``v1.2.0``, ``backups/7``,
    and ``~1`` after one for its parent; ``path`` is one path in them, as ``os.fsdecode`` gives it. ``pack``, ``offset``
    and ``end`` say where bytes lie, ``object`` is an id in hex, ``row`` a row of the catalog, ``seq`` the number of an
    operation. ``expected`` and ``found`` are the two that differ, where there are two.
    """

    where: str
    problem: str
    agent: str | None = None
    versions: tuple[str, ...] = ()
    path: str | None = None
    pack: str | None = None
    offset: int | None = None
    end: int | None = None
    object: str | None = None
    row: str | None = None
    seq: int | None = None
    severity: Severity = Severity.DAMAGE
    expected: str | None = None
    found: str | None = None

    @property
    def is_damage(self) -> bool:
        """Whether something is lost or wrong, and not only worth knowing."""
        return self.severity is Severity.DAMAGE


def of(damage: Damage, versions: tuple[str, ...] = (), path: str | None = None) -> Finding:
    """A damage of records or rows, with what it takes with it."""
    return Finding(
        damage.where,
        damage.what,
        damage.agent,
        versions,
        path,
        damage.pack,
        damage.offset,
        damage.end,
        damage.object,
        damage.row,
        damage.seq,
        damage.severity,
        damage.expected,
        damage.found,
    )
