"""``kai fsck``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, findings, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint
from kaivc.errors import ChecksumMismatch
from kaivc.records import values

if TYPE_CHECKING:
    from kaivc.findings import Finding
    from kaivc.ops.fsck import Fscked, RepairPlan
    from kaivc.rebuilding import AgentPlan


def fsck(
    door: Invocation,
    agent: Annotated[str | None, Argument(metavar="[AGENT]", help="The agent; all agents unless said.")] = None,
    repair: Annotated[
        bool, Option("--repair", help="Make right what can be; what is in the way goes to .kai/quarantine.")
    ] = False,
    dry_run: arguments.DryRun = False,
) -> None:
    """Check everything that a home holds; repair it.

    Exit with 4 if anything is damaged, or was lost for good.
    """
    from kaivc import api

    found = api.fsck(
        door.place, agent, repair=repair or dry_run, dry_run=dry_run, flags=door.flags, progress=door.progress
    )
    door.answer(lambda: _document(found), lambda: _text(found, door.paint))
    _refuse(found, tried=repair and not dry_run)


# ---------------------------------------------------------------- JSON


def _document(it: Fscked) -> render.Document:
    return {
        "ok": it.ok,
        "findings": [findings.document(one) for one in it.all],
        "agents": [
            {name: value for name, value in render.plain(one).items() if name != "findings"} for one in it.agents
        ],
        "plan": _plan_document(it.plan) if it.plan is not None else None,
        "applied": it.applied,
        "repaired": [findings.document(one) for one in it.repaired],
        "made": [{"agent": agent, "what": what} for agent, what in it.made],
        "quarantine": it.quarantine,
    }


def _plan_document(plan: RepairPlan) -> render.Document:
    rebuild = plan.rebuild
    return {
        "finishes": plan.finishes,
        "catalog": rebuild is not None,
        "agents": [_agent_document(it) for it in rebuild.agents] if rebuild else [],
        "packs": [values(it) for it in rebuild.packs] if rebuild else [],
        "scratch": list(rebuild.scratch) if rebuild else [],
        "follow": list(plan.follow),
    }


def _agent_document(it: AgentPlan) -> render.Document:
    return {
        **render.plain(it),
        "lost_ops": [{"first": first, "last": last} for first, last in it.lost_ops],
        "healed": [values(healed) for healed in it.healed],
    }


# ---------------------------------------------------------------- text


def _text(it: Fscked, paint: Paint) -> Iterator[str]:
    if it.applied:
        for one in it.repaired:
            yield f"found: {_named(one, paint)}"
    if it.plan is not None:
        yield from _plan(it.plan, done=it.applied)
    for agent, what in it.made:
        yield f"{escape(agent)}: made {escape(what)} anew"
    if it.quarantine is not None:
        yield f"what was in the way is in {escape(it.quarantine)}"
    if it.applied and it.all:
        yield "left:"
    for one in it.all:
        yield _named(one, paint)
    for done in it.agents:
        bad = sum(one.is_damage for one in done.findings)
        verdict = paint("green", "good") if not bad else paint("red", render.counted(bad, "damage"))
        yield (
            f"{escape(done.agent)}: {render.counted(len(done.versions), 'version')}, "
            f"{render.counted(done.objects, 'object')}, {render.size(done.bytes)}, "
            f"{render.counted(done.ops, 'operation')}: {verdict}"
        )
    if not it.agents and it.ok:
        yield "there are no agents to check"


def _named(one: Finding, paint: Paint) -> str:
    line = findings.line(one, paint)
    return f"{escape(one.agent)}: {line}" if one.agent else line


def _plan(plan: RepairPlan, *, done: bool) -> Iterator[str]:
    will = "" if done else "would "
    if plan.is_empty:
        yield "nothing to repair"
    if plan.finishes:
        yield f"{will}put the catalog in place that an earlier repair made"
    if plan.rebuild is not None:
        yield f"{will}make the catalog anew from the packs"
        for agent in plan.rebuild.agents:
            yield from _agent(agent, will)
        for pack in plan.rebuild.packs:
            yield f"{escape(pack.agent)}: {will}move pack {pack.pack} to the quarantine: {escape(pack.why)}"
        for path in plan.rebuild.scratch:
            yield f"{will}move .kai/{escape(path)} to the quarantine"
    if plan.follow:
        yield f"{will}compare views, link and log of {', '.join(map(escape, plan.follow))} with it"


def _agent(it: AgentPlan, will: str) -> Iterator[str]:
    name = escape(it.agent)
    yield (
        f"{name}: {render.counted(it.ops, 'operation')}, {render.counted(it.versions, 'version')}, "
        f"{render.counted(it.objects, 'object')}"
    )
    for healed in it.healed:
        yield f"{name}: {will}bring back {healed.kind} {healed.object[: render.SHORT]} from {escape(healed.origin)}"
    for ref in it.brought_back:
        yield f"{name}: {will}bring back {escape(ref)}, which no operation names any more"
    for first, last in it.lost_ops:
        yield f"{name}: lost: the records of operations {first} to {last}"
    for ref in it.lost_versions:
        yield f"{name}: lost: {escape(ref)}"
    for oid in it.lost:
        yield f"{name}: lost: object {oid}"


def _refuse(it: Fscked, *, tried: bool) -> None:
    number = sum(one.is_damage for one in it.all)
    if number and tried:
        raise ChecksumMismatch(
            f"{render.counted(number, 'damage')} could not be repaired",
            unchanged="what is named above is lost, unless a copy of the home has it; everything else works",
            hint="keep .kai/quarantine until it is clear that nothing in it is wanted",
            damages=number,
        )
    if number:
        raise ChecksumMismatch(
            f"{render.counted(number, 'damage')} found",
            hint="`kai fsck --repair --dry-run` says what can be made right, `kai fsck --repair` does it",
            damages=number,
        )
