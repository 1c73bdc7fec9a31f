"""Check everything that a home holds; repair it."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import suppress

from kaivc import inspection, intents, repairing, settled
from kaivc.errors import KaiError, NoSuchAgent
from kaivc.findings import Finding
from kaivc.inspection import Inspected
from kaivc.names import nearest
from kaivc.rebuilding import Rebuild, RebuildPlan
from kaivc.records import dataclass, replace
from kaivc.repository import OpenHome, Repository
from kaivc.storage import fsck as core
from kaivc.storage import gather, homefile, newcatalog, oldcatalog, salvage
from kaivc.storage.catalog import AgentRow
from kaivc.vfs import mapped, unless_short

FOLLOWING = ("view", "link", "rollback.log")
"""What is made from the store, without touching the catalog."""


@dataclass(frozen=True)
class RepairPlan:
    """What a repair does. ``rebuild`` is the new catalog, None if the one that is there is right.

    ``finishes`` says that an earlier repair was cut while it swapped catalogs; ``follow`` are agents whose views, link
    or log are made anew.
    """

    finishes: bool
    rebuild: RebuildPlan | None
    follow: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.finishes and self.rebuild is None and not self.follow


@dataclass(frozen=True)
class Fscked:
    """What was looked at and found. After a repair these are what is left, and ``repaired`` what there was before.

    ``findings`` are of the home as a whole, those of an agent stand with it. ``quarantine`` is the directory below the
    home that holds what was moved away, None if nothing was; ``made`` is what was made anew, by agent.
    """

    agents: tuple[Inspected, ...]
    findings: tuple[Finding, ...]
    plan: RepairPlan | None = None
    applied: bool = False
    repaired: tuple[Finding, ...] = ()
    quarantine: str | None = None
    made: tuple[tuple[str, str], ...] = ()

    @property
    def all(self) -> tuple[Finding, ...]:
        """Every finding, the home's first."""
        return (*self.findings, *(finding for it in self.agents for finding in it.findings))

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not any(finding.is_damage for finding in self.all)


def fsck(home: OpenHome, agent: str | None = None, *, repair: bool = False, dry_run: bool = False) -> Fscked:
    """Re-hash every object, follow every ref, compare op chain, packs, catalog, views, links and logs.

    With ``repair``, make right what can be, from what is left; with ``dry_run`` only say what that would be. What is
    found is no error: NoSuchAgent, LockTimeout, AgentBusy, ReadOnlyHome and what a disk says are.
    """
    with mapped("checking", home.layout.root):
        if not repair:
            return _look(home, agent)
        if dry_run:
            found = _look(home, agent)
            return replace(found, plan=_plan(home, found)[0])
        home.require_writable()
        with repairing.all_locked(home, _names(home)):
            return _repair(home, agent)


# ---------------------------------------------------------------- looking


def _look(home: OpenHome, agent: str | None, *, alone: bool = False) -> Fscked:
    """What there is and what is wrong with it; ``alone`` says that nobody else can write meanwhile."""
    try:
        db = salvage.connect(home.layout.catalog, home.temp)
    except sqlite3.Error as error:
        unless_short(error)
        cut = newcatalog.is_cut(home.layout)
        what = "a repair was cut: the new catalog waits to be put in place" if cut else f"the catalog is lost: {error}"
        return Fscked((), (Finding("catalog", what),))
    try:
        rows = core.agents(db)
        _require(home, agent, [row.name for row in rows])
        said = inspection.home(home, db)
        meta = {values["key"]: values["value"] for values in salvage.good_rows(db, "meta")}
        if homefile.check(meta.get("home_id"), meta.get("object_format"), meta.get("shared")) is None:
            return Fscked((), tuple(said))  # nothing can be read by it; what is hit, the rows say
        agents = tuple(_inspect(home, db, row, alone=alone) for row in rows if agent in (None, row.name))
        return Fscked(agents, tuple(said))
    finally:
        db.close()


def _inspect(home: OpenHome, db: sqlite3.Connection, row: AgentRow, *, alone: bool) -> Inspected:
    repo = Repository(home, row.name, row.id)
    try:
        if alone:
            return inspection.agent(repo, db, row)
        with settled.agent(repo) as look:
            return look.found
    except KaiError as error:
        unless_short(error)
        return Inspected(row.name, (), 0, 0, 0, "", (Finding("catalog", error.what, row.name),))


def _require(home: OpenHome, agent: str | None, names: Sequence[str]) -> None:
    if agent is not None and agent not in names and not os.path.isdir(home.layout.pack_dir(agent)):
        close = nearest(agent, list(names))
        hint = f"did you mean {', '.join(close)}?" if close else "`kai fsck` checks all agents"
        raise NoSuchAgent(f"there is no agent {agent!r} in {home.layout.root}", hint=hint, name=agent, nearest=close)


# ---------------------------------------------------------------- repairing


def _names(home: OpenHome) -> list[str]:
    """Every agent that there is, or may be."""
    old = oldcatalog.read(home.layout.catalog, home.temp)
    names = {*gather.directories(home.layout.packs), *old.agents}
    with os.scandir(home.layout.root) as entries:
        names |= {entry.name for entry in entries if os.path.isdir(home.layout.versions(entry.name))}
    return sorted(names)


def _plan(home: OpenHome, found: Fscked) -> tuple[RepairPlan, Rebuild | None]:
    finishes = newcatalog.is_cut(home.layout)
    if finishes:
        return RepairPlan(True, None, ()), None
    left = repairing.left_over(found.all)
    rebuild = None
    if any(it.where not in (*FOLLOWING, "workspace") for it in left):
        rebuild = Rebuild(home)
        if not _helps(rebuild.plan, left):
            rebuild = None
    names = [it.agent for it in found.agents] if rebuild is None else [it.agent for it in rebuild.plan.agents]
    wrong = {it.agent for it in left if it.where in FOLLOWING}
    follow = tuple(name for name in names if rebuild is not None or name in wrong)
    return RepairPlan(False, rebuild.plan if rebuild else None, follow), rebuild


def _helps(plan: RebuildPlan, found: Sequence[Finding]) -> bool:
    """Whether a new catalog would make anything better: what is lost for good is not."""
    if plan.packs or any(it.healed or it.brought_back for it in plan.agents):
        return True
    lost = {oid for it in plan.agents for oid in it.lost}
    holes = {it.agent: it.lost_ops for it in plan.agents if it.lost_ops}
    return any(_is_mendable(it, lost, holes) for it in found)


def _is_mendable(it: Finding, lost: set[str], holes: dict[str, tuple[tuple[int, int], ...]]) -> bool:
    if it.where in (*FOLLOWING, "workspace", "tag", "commit") or it.object in lost:
        return False
    if it.where == "op" and it.agent in holes:
        return it.seq is not None and not any(first <= it.seq <= last for first, last in holes[it.agent])
    return True


def _relocate(home: OpenHome) -> None:
    """Finish what a cut rename or removal left: packs and directories under two names would be taken for two agents."""
    with suppress(KaiError):
        for row in home.catalog.agents():
            with suppress(KaiError):
                intents.relocate(Repository(home, row.name, row.id))


def _repair(home: OpenHome, agent: str | None) -> Fscked:
    layout = home.layout
    quarantine = os.path.join(layout.quarantine, secrets.token_hex(8))
    finishes = newcatalog.is_cut(layout)
    if finishes:
        newcatalog.swap(home.vfs, layout, quarantine)
    _relocate(home)
    before = _look(home, agent, alone=True)
    plan, rebuild = _plan(home, before)
    for it in before.agents:
        repairing.needs_stillness(Repository(home, it.agent, 0), it.findings)
    if rebuild is not None:
        with newcatalog.writers_kept_out(layout.catalog, home.settings.lock_wait):
            rebuild.apply(quarantine)
        home.catalog.close()
        home = replace(home)  # what it had read of the old one is forgotten
        _relocate(home)
    made = []
    for name in plan.follow:
        row = home.catalog.agent(name)
        if row is not None and not row.removed_ns:
            made += [(name, what) for what in repairing.follow(home.repository(name), quarantine)]
    plan = replace(plan, finishes=finishes)
    after = before if plan.is_empty else _look(home, agent, alone=True)
    return replace(
        after,
        plan=plan,
        applied=True,
        repaired=tuple(repairing.left_over(before.all)),
        quarantine=os.path.relpath(quarantine, layout.root) if os.path.isdir(quarantine) else None,
        made=tuple(made),
    )
