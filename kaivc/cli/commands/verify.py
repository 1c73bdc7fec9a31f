"""``kai verify``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from kaivc.cli import render
from kaivc.cli.agents import Answers, each
from kaivc.cli.escape import escape, escape_path
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint
from kaivc.errors import ChecksumMismatch

if TYPE_CHECKING:
    from kaivc.drift import Finding
    from kaivc.ops.verify import Verified


def verify(
    ctx: typer.Context,
    revision: Annotated[
        str | None,
        typer.Argument(metavar="[AGENT[@REV]]", help="The agent, or one version of it; all agents unless said."),
    ] = None,
    workspace: Annotated[
        bool, typer.Option("--workspace", help="Also compare the workspace's logic, config and lock files.")
    ] = False,
) -> None:
    """Re-hash what versions are made of.

    Exit with 4 if anything is not what its commit says.
    """
    from kaivc.versions import split

    door: Invocation = ctx.obj
    agent, rev = split(revision) if revision is not None else (None, "")
    found = each(door, agent, lambda it: it.verify(rev or None, workspace=workspace))
    door.answer(
        lambda: {
            "ok": all(it.ok for it in found.results) and not found.failures,
            "agents": [_document(it) for it in found.results],
            "failed": found.documents(),
        },
        lambda: _text(found, door.paint),
    )
    found.raise_first(door)
    _refuse([finding for it in found.results for finding in it.findings])


def _document(it: Verified) -> render.Document:
    return {**render.plain(it), "ok": it.ok, "findings": [_finding(finding) for finding in it.findings]}


def _finding(it: Finding) -> render.Document:
    return {**asdict(it), **({"path": None} if it.path is None else render.path(it.path))}


def _text(found: Answers[Verified], paint: Paint) -> Iterator[str]:
    for it in found.results:
        verdict = paint("green", "good") if it.ok else paint("red", render.counted(len(it.findings), "finding"))
        number = render.counted(len(it.versions), "version")
        yield (f"{it.agent}: {number}, {render.counted(it.objects, 'object')}, {render.size(it.bytes)}: {verdict}")
        for finding in it.findings:
            at = f" {escape_path(finding.path)}" if finding.path is not None else ""
            yield f"  {finding.where} {escape(finding.version)}{at}: {escape(finding.problem)}"
    if found.empty:
        yield "there are no agents to verify"


def _refuse(findings: list[Finding]) -> None:
    if findings:
        number = render.counted(len(findings), "finding")
        raise ChecksumMismatch(
            f"{number}: what is there is not what the commits say",
            hint="`kai rollback AGENT --to VERSION --force` makes a damaged view anew; "
            "`kai restore` brings workspace files back",
            findings=len(findings),
        )
