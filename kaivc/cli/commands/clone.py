"""``kai clone``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from kaivc.cli import remotes, render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape, escape_path
from kaivc.cli.failures import Misuse
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import Paint

if TYPE_CHECKING:
    from kaivc.ops.clone import Cloned

SUFFIXES = (".git", ".kai", ".bundle")


def clone(
    door: Invocation,
    url: Annotated[str, Argument(metavar="URL", help="A path, a URL, or a bundle.")],
    directory: Annotated[
        str | None, Argument(metavar="[DIR]", help="The new home; called as the last part of URL unless said.")
    ] = None,
    agent: remotes.Agents = None,
    remote: Annotated[str, Option("--remote", metavar="NAME", help="What to call URL there.")] = remotes.ORIGIN,
) -> None:
    """Make a home of the agents of another, with all their versions.

    It hashes as that one does. Only these agents come with --agent; `kai pull` brings others later.
    """
    from kaivc import api

    where = directory or directory_of(url)
    done = api.clone(
        url, where, agents=agent or (), remote=remote, progress=door.progress, ask=remotes.ask(door), flags=door.flags
    )
    door.answer(lambda: _document(done), lambda: _text(done, door.paint))


def directory_of(url: str) -> str:
    """The last part of a URL or path, without what says of what kind it is; Misuse if there is none."""
    last = url.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    for suffix in SUFFIXES:
        last = last.removesuffix(suffix)
    if not last or last in {".", ".."}:
        raise Misuse(
            "the last part of the URL names no directory", hint="say where the home is to be: kai clone URL DIR"
        )
    return last


def _document(done: Cloned) -> render.Document:
    return {
        **render.plain(done),
        "path": render.path(done.path),
        "agents": [render.plain(it) for it in done.agents],
    }


def _text(done: Cloned, paint: Paint) -> Iterator[str]:
    names = max((len(it.agent) for it in done.agents), default=0)
    tags = max((len(it.current or "-") for it in done.agents), default=0)
    for it in done.agents:
        held = f"{render.counted(it.versions, 'version')}, {render.counted(it.objects, 'object')}"
        yield f"{it.agent:<{names}}  {paint('yellow', (it.current or '-').ljust(tags))}  {held}"
    if done.empty:
        yield from render.notices([f"without a version, and so not here: {', '.join(done.empty)}"], paint)
    agents = render.counted(len(done.agents), "agent")
    yield f"made a home with {agents} in {escape_path(done.path)}; its remote {done.remote} is {escape(done.url)}"
