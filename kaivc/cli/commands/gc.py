"""``kai gc``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import arguments, render
from kaivc.cli.agents import each
from kaivc.cli.arguments import Argument
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint
from kaivc.errors import ChecksumMismatch
from kaivc.records import values

if TYPE_CHECKING:
    from kaivc.api import Agent
    from kaivc.ops.gc import Collected, Done, GcPlan

WHY = {"age": "older than `backups.max_age`", "bytes": "over `backups.max_bytes`"}


def gc(
    door: Invocation,
    agent: Annotated[str | None, Argument(metavar="[AGENT]", help="The agent; all agents unless said.")] = None,
    dry_run: arguments.DryRun = False,
) -> None:
    """Give back the space of what no name leads to any more.

    Versions always stay. Backups expire by number, age and size; what is said to go
    is said before anything is done.
    """

    def say(plan: GcPlan) -> None:
        if not door.json:
            door.answer(dict, lambda: _plan(plan, door.paint))

    def collect(it: Agent) -> Collected:
        if dry_run:
            done = it.gc(dry_run=True)
            say(done.plan)
        else:
            done = it.gc(before=say)
        return done

    found = each(door, agent, collect, removed=True)
    if door.json:
        agents = [_document(it) for it in found.results]
        door.answer(lambda: {"agents": agents, "failed": found.documents()}, lambda: ())
    else:
        door.answer(dict, lambda: _ends(found.results, dry_run=dry_run, empty=found.empty))
    found.raise_first(door)
    _refuse([finding for it in found.results for finding in it.findings])


def _document(it: Collected) -> render.Document:
    plan = {**render.plain(it.plan), **{name: _packs(it.plan, name) for name in ("delete", "rewrite", "leftover")}}
    plan["expired"] = [values(backup) for backup in it.plan.expired]
    return {"agent": it.plan.agent, "plan": plan, "done": render.plain(it.done) if it.done else None}


def _packs(plan: GcPlan, name: str) -> list[render.Document]:
    return [values(pack) for pack in getattr(plan, name)]


# ---------------------------------------------------------------- text


def _plan(plan: GcPlan, paint: Paint) -> Iterator[str]:
    name = escape(plan.agent)
    if not plan:
        yield f"{name}: nothing to collect, {render.counted(plan.live_objects, 'object')} stay"
    else:
        going = render.counted(plan.dead_objects, "object")
        yield (
            f"{name}: {going} ({render.size(plan.dead_bytes)}) go, "
            f"{plan.live_objects} ({render.size(plan.live_bytes)}) stay; {render.size(plan.back)} come back"
        )
    for backup in plan.expired:
        yield f"  expire   {paint('yellow', escape(backup.ref))}  {backup.created}, {WHY[backup.why]}"
    for pack in plan.delete:
        yield f"  delete   pack {pack.name}, {render.size(pack.bytes)}" + (", shared with a fork" * pack.shared)
    for pack in plan.rewrite:
        yield f"  rewrite  pack {pack.name}, {render.size(pack.keeps)} of {render.size(pack.bytes)} stay"
    for pack in plan.leftover:
        yield f"  remove   {pack.name}.pack, {render.size(pack.bytes)}, which a cut command left"


def _ends(results: list[Collected], *, dry_run: bool, empty: bool) -> Iterator[str]:
    for it in results:
        if it.done is not None and it.plan:
            yield _end(it.plan.agent, it.done)
            yield from (f"  spared   {escape(name)}: taken up meanwhile" for name in it.done.spared)
        yield from (f"  found    {escape(finding)}" for finding in it.findings)
    if empty:
        yield "there are no agents to look through"
    elif dry_run:
        yield "dry run: nothing was collected"


def _end(agent: str, done: Done) -> str:
    number = f" (entry {done.seq})" if done.seq is not None else ""
    return f"{escape(agent)}: {render.counted(done.objects, 'object')} collected, {render.size(done.back)} back{number}"


def _refuse(findings: list[str]) -> None:
    if findings:
        raise ChecksumMismatch(
            f"{render.counted(len(findings), 'finding')}: what is hit stays as it is",
            hint="`kai fsck` says which versions are hit",
            findings=len(findings),
        )
