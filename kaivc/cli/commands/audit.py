"""``kai audit``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import agreement, findings, remotes, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation, as_json
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.api import Home
    from kaivc.findings import Finding
    from kaivc.report import AgentReport, AuditReport, MoveReport, VersionReport

STDOUT = "-"
DIFFERS = 1


def audit(
    door: Invocation,
    revision: Annotated[
        str | None,
        Argument(metavar="[AGENT[@REV]]", help="The agent, or one version of it; all agents unless said."),
    ] = None,
    html: Annotated[bool, Option("--html", help="The report as an HTML page, to the file or to stdout.")] = False,
    output: Annotated[
        str | None, Option("--output", "-o", metavar="FILE", help="Write the report to a file; `-` is stdout.")
    ] = None,
    expect_head: Annotated[
        str | None,
        Option("--expect-head", metavar="HEAD", help="A head that an earlier audit gave: the log must hold it."),
    ] = None,
    against: Annotated[
        str | None,
        Option("--against", metavar="REMOTE", help="Compare with a remote instead, hash by hash; nothing is moved."),
    ] = None,
) -> int:
    """Recompute what versions are made of, and report what differs.

    Exit with 1 if anything is not what it must be.
    """
    from kaivc.revisions import split

    agent, rev = split(revision) if revision is not None else (None, None)
    if against is not None:
        if rev is not None or html or output is not None or expect_head is not None:
            raise Misuse(
                "--against compares whole agents, on stdout", hint="name an agent, or none, and --json at most"
            )
        return _agreement(door, against, agent)
    file = None if output == STDOUT else output
    if html and file is None and door.json:
        raise Misuse("stdout takes one document", hint="name a file for the page with --output")
    if expect_head is not None and agent is None:
        raise Misuse("a head is of one agent's chain", hint="name the agent")
    home = door.open()
    if file is not None:
        _check_output(home, file)
    report = home.audit(agent, rev, expect_head=expect_head)
    if file is not None:
        folder, name = os.path.split(os.path.abspath(file))
        to = os.path.join(os.path.realpath(folder), name)
        home.opened.vfs.hand_over(to, _rendered(report, html=html, json=door.json))
    if html and file is None:
        door.write(_rendered(report, html=True, json=False), flush=True)
    else:
        door.answer(lambda: document(report), lambda: _text(report, door.paint))
    return 0 if report.ok else DIFFERS


def _agreement(door: Invocation, remote: str, agent: str | None) -> int:
    """Compare with a remote; the document is that of a report in which nothing was recomputed."""
    from kaivc import __version__
    from kaivc.report import AuditReport

    home = door.open()
    done = home.audit_against(remote, (agent,) if agent is not None else (), ask=remotes.ask(door))
    opened = home.opened
    now, actor = opened.clock.now_ns(), str(opened.actor)
    empty = AuditReport(opened.id, opened.format.name, now, actor, __version__, agent, None, (), ())
    differ = sum(not it.agrees for it in done.agents)
    door.answer(
        lambda: {
            **document(empty),
            "ok": done.agrees,
            "differences": differ,
            "against": agreement.document(done),
        },
        lambda: agreement.text(done, door.paint),
    )
    return 0 if done.agrees else DIFFERS


def _check_output(home: Home, file: str) -> None:
    """Refuse what a report must not replace, before the work is done."""
    path = os.path.realpath(file)
    layout = home.opened.layout
    root = os.path.realpath(layout.root)
    parts = os.path.relpath(path, root).split(os.sep)
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path)):
        what = "is a directory" if os.path.isdir(path) else "lies in a directory that is not there"
        raise Misuse(f"{escape(file)} {what}", hint="name a file in a directory that is there")
    inside = parts[0] != os.pardir and len(parts) > 1
    if inside and not (len(parts) > 2 and parts[1] == "workspace"):  # noqa: PLR2004 - AGENT/workspace/FILE
        raise Misuse(f"{escape(file)} lies in what the home keeps", hint="name a file elsewhere")


def _rendered(report: AuditReport, *, html: bool, json: bool) -> bytes:
    if html:
        from kaivc.cli.auditpage import page

        text = page(report)
    elif json:
        text = as_json(document(report)) + "\n"
    else:
        text = "\n".join(_text(report, Paint(on=False))) + "\n"
    return text.encode("utf-8", "backslashreplace")


# ---------------------------------------------------------------- JSON


def document(report: AuditReport) -> render.Document:
    """The whole report; the same home, clock and actor give the same document."""
    return {
        **render.plain(report),
        "ok": report.ok,
        "differences": len(report.differences),
        "time": render.rfc3339(report.time_ns),
        "agents": [_agent(it) for it in report.agents],
        "findings": _found(report.findings),
        "against": None,
    }


def _agent(it: AgentReport) -> render.Document:
    return {
        **render.plain(it),
        "ok": it.ok,
        "head": _head(it),
        "removed": render.rfc3339(it.removed_ns) if it.removed_ns else None,
        "refs": [{"name": name, "id": oid} for name, oid in it.refs],
        "moves": [{**render.plain(move), "time": render.rfc3339(move.time_ns)} for move in it.moves],
        "versions": [_version(version) for version in it.versions],
        "findings": _found(it.findings),
        "recheck": [render.plain(step) for step in it.recheck],
    }


def _version(it: VersionReport) -> render.Document:
    return {
        **render.plain(it),
        "ok": it.ok,
        "findings": _found(it.findings),
        "recheck": [render.plain(step) for step in it.recheck],
    }


def _found(them: tuple[Finding, ...]) -> list[render.Document]:
    return [{**findings.document(it), "expected": it.expected, "found": it.found} for it in them]


def _head(it: AgentReport) -> str:
    """What ``--expect-head`` takes."""
    return f"{it.ops}:{it.head}"


# ---------------------------------------------------------------- text


def _text(report: AuditReport, paint: Paint) -> Iterator[str]:
    yield f"audit of {escape(report.scope or 'all agents')}: {_verdict(len(report.differences), paint)}"
    yield f"home {escape(report.home)} ({report.object_format}), {render.rfc3339(report.time_ns)}"
    yield f"by {escape(report.actor)}, with kai {report.kaivc}"
    yield from _differences(report.findings, paint, "")
    for agent in report.agents:
        yield ""
        yield from _agent_text(agent, paint)
    if report.agents:
        yield ""
        yield "--json and --html also say with which commands of git, sqlite3 and sha256sum to check each line"


def _verdict(number: int, paint: Paint) -> str:
    return paint("red", render.counted(number, "difference")) if number else paint("green", "all as it should be")


def _agent_text(it: AgentReport, paint: Paint) -> Iterator[str]:
    removed = f", removed {render.rfc3339(it.removed_ns)}" if it.removed_ns else ""
    counts = (render.counted(it.objects, "object"), render.size(it.bytes), render.counted(it.packs, "pack"))
    yield f"{paint('bold', it.agent)}{removed}: {', '.join(counts)}: {_verdict(len(it.differences), paint)}"
    yield f"  chain of {render.counted(it.ops, 'op record')}, head {_head(it)}"
    yield from _differences(it.findings, paint, "  ")
    for version in it.versions:
        yield from _version_text(version, paint)
    if it.moves:
        yield "  moves of current:"
    for move in it.moves:
        yield f"    {_move_text(move, paint)}"


def _version_text(it: VersionReport, paint: Paint) -> Iterator[str]:
    mark = paint("green", "ok     ") if it.ok else paint("red", "DIFFERS")
    commit = (it.commit or "unreadable")[: render.SHORT]
    view = "view compared" if it.view else "no view"
    files = f"{render.counted(it.files, 'file')}, {render.size(it.bytes)}"
    where = ", in force" if it.in_force else ""
    yield f"  {mark} {escape(it.version)}  commit {commit}  {it.created or '-'}  {files}, {view}{where}"
    yield from _differences(it.findings, paint, "    ")


def _move_text(it: MoveReport, paint: Paint) -> str:
    undone = f" (undone by {it.undone_by})" if it.undone_by is not None else ""
    of = f" of {it.undoes}" if it.undoes is not None else ""
    there = f"{it.from_version or '-'} -> {it.to_version or '-'}"
    who = paint("dim", f"{render.rfc3339(it.time_ns)}, {escape(it.actor)}")
    return f"{it.seq}: {escape(it.verb)}{of}{undone} {there}: {render.subject(it.reason)}  ({who})"


def _differences(them: tuple[Finding, ...], paint: Paint, indent: str) -> Iterator[str]:
    for it in them:
        yield indent + findings.line(it, paint)
        for name, value in (("expected", it.expected), ("found", it.found)):
            if value is not None and value not in it.problem:
                yield f"{indent}  {name:<8} {escape(value)}"
