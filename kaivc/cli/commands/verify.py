"""``kai verify``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import findings, render
from kaivc.cli.agents import Answers, each
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint
from kaivc.errors import ChecksumMismatch

if TYPE_CHECKING:
    from kaivc.ops.verify import Verified


def verify(
    door: Invocation,
    revision: Annotated[
        str | None,
        Argument(metavar="[AGENT[@REV]]", help="The agent, or one version of it; all agents unless said."),
    ] = None,
    workspace: Annotated[
        bool, Option("--workspace", help="Also compare the workspace's logic, config and lock files.")
    ] = False,
) -> None:
    """Re-hash what versions are made of.

    Exit with 4 if anything is not what its commit says.
    """
    from kaivc.revisions import split

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
    _refuse(sum(len(it.findings) for it in found.results))


def _document(it: Verified) -> render.Document:
    return {**render.plain(it), "ok": it.ok, "findings": [findings.document(finding) for finding in it.findings]}


def _text(found: Answers[Verified], paint: Paint) -> Iterator[str]:
    for it in found.results:
        verdict = paint("green", "good") if it.ok else paint("red", render.counted(len(it.findings), "finding"))
        number = render.counted(len(it.versions), "version")
        yield (f"{it.agent}: {number}, {render.counted(it.objects, 'object')}, {render.size(it.bytes)}: {verdict}")
        for finding in it.findings:
            yield f"  {findings.line(finding, paint)}"
    if found.empty:
        yield "there are no agents to verify"


def _refuse(number: int) -> None:
    if number:
        raise ChecksumMismatch(
            f"{render.counted(number, 'finding')}: what is there is not what the commits say",
            hint="`kai fsck --repair` heals what can be healed; `kai restore` brings workspace files back",
            findings=number,
        )
