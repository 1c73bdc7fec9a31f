"""``kai init``."""

from __future__ import annotations

from typing import Annotated, Literal

from kaivc.cli import render
from kaivc.cli.arguments import Argument, Option
from kaivc.cli.escape import escape
from kaivc.cli.invocation import Invocation


def init(
    door: Invocation,
    directory: Annotated[
        str | None, Argument(metavar="[DIR]", help="Where; the working directory unless said.")
    ] = None,
    object_format: Annotated[
        Literal["sha256", "sha1"],
        Option("--object-format", help="What ids are made with, for good; every git host takes sha1."),
    ] = "sha256",
    shared: Annotated[
        Literal["group"] | None, Option("--shared", help="Let the group read and write the home.")
    ] = None,
) -> None:
    """Make a home: a folder of agents."""
    from kaivc.ops.init import init as make
    from kaivc.vfs import Vfs

    place = door.place if directory is None else directory
    made = make(Vfs(), place, object_format=object_format, shared=shared == "group")
    door.answer(lambda: render.plain(made), lambda: [f"made a home in {escape(made.path)} ({made.object_format})"])
