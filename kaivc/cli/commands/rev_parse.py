"""``kai rev-parse``."""

from __future__ import annotations

from typing import Annotated

from kaivc.cli import render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation


def rev_parse(
    door: Invocation,
    revisions: Annotated[
        list[str],
        Argument(metavar="AGENT[@REV]...", help="Agents, each with a revision of it; `current` unless said."),
    ],
    short: Annotated[bool, Option("--short", help="The first digits only, as many as are needed.")] = False,
    tree: Annotated[bool, Option("--tree", help="The id of the tree, not of the commit.")] = False,
    tag: Annotated[bool, Option("--tag", help="The id of the version's tag, not of the commit.")] = False,
) -> None:
    """Print the commit ids of revisions, one on each line."""
    from kaivc.errors import NoSuchRevision
    from kaivc.revisions import split

    if short + tree + tag > 1:
        raise Misuse("--short, --tree and --tag exclude each other", hint="give one of them")
    home = door.open()
    found = []
    for text in revisions:
        agent, rev = split(text)
        one = home.agent(agent).rev_parse(rev or "current")
        if tag and one.tag is None:
            raise NoSuchRevision(f"{one.name} of {agent} is no version: it has no tag", revision=text)
        found.append(one)
    lines = [(one.short if short else one.tree if tree else one.tag if tag else one.commit) or "" for one in found]
    door.answer(lambda: {"revisions": [render.plain(one) for one in found]}, lambda: lines)
