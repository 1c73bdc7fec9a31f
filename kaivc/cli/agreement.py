"""How two homes compare, as text and as a document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kaivc.cli import render
from kaivc.cli.escape import escape
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.audit_against import AgentCompared, Compared


def document(done: Compared) -> render.Document:
    """The comparison as one document."""
    return {**render.plain(done), "agrees": done.agrees, "agents": [_agent(it) for it in done.agents]}


def _agent(it: AgentCompared) -> render.Document:
    return {**render.plain(it), "agrees": it.agrees, "different": [render.plain(ref) for ref in it.different]}


def text(done: Compared, paint: Paint) -> Iterator[str]:
    """A line for each agent, and one for each name that differs."""
    for it in done.agents:
        if it.agrees:
            yield f"{it.agent}: {render.counted(len(it.same), 'ref')} {paint('green', 'agree')}{_log(it)}"
            continue
        where = "is not here" if not it.here else "is not there" if not it.there else "differs"
        yield f"{it.agent} {paint('red', where)}{_log(it)}"
        for ref in it.different if it.here and it.there else ():
            yield f"  {escape(ref.name)}: {_id(ref.here, ref.kind)} here, {_id(ref.there, ref.kind)} there"
        if it.log is not None:
            yield paint("red", f"  {escape(it.log)}")
    agree = sum(it.agrees for it in done.agents)
    yield f"{agree} of {render.counted(len(done.agents), 'agent')} agree with {done.remote} ({escape(done.url)})"


def _log(it: AgentCompared) -> str:
    if not it.seq:
        return ""
    since = f", {it.seq - it.seen} since it was last seen" if it.seen and it.log is None else ""
    return f"; its log has {it.seq} {'entry' if it.seq == 1 else 'entries'} there{since}"


def _id(oid: str | None, kind: str) -> str:
    return f"{'tag ' if kind == 'tag' else ''}{oid[: render.SHORT]}" if oid else "nothing"
