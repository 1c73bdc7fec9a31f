"""Arguments and options that several verbs take."""

from __future__ import annotations

from typing import Annotated

import typer

Agent = Annotated[str, typer.Argument(metavar="AGENT", help="The agent.")]
AgentRev = Annotated[
    str, typer.Argument(metavar="AGENT[@REV]", help="The agent, and a revision of it; `current` unless said.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; do nothing.")]
ExitCode = Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if there are differences.")]
Limit = Annotated[int | None, typer.Option("-n", metavar="N", min=1, help="Show at most N.")]
Live = Annotated[bool, typer.Option("--live", help="Go on beside a running agent.")]
OpId = Annotated[
    str | None,
    typer.Option("--op-id", metavar="ID", help="A name for this operation; repeated with it, it happens once."),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it goes into the log.")]
