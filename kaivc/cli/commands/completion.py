"""``kai completion``."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Literal

from kaivc.cli.arguments import Argument
from kaivc.cli.invocation import Invocation


def completion(
    door: Invocation,
    shell: Annotated[Literal["bash", "zsh", "fish"], Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print what lets a shell complete the words of kai."""
    script = files("kaivc.cli").joinpath("shells", f"kai.{shell}").read_text("utf-8")
    door.answer(lambda: {"shell": shell, "script": script}, script.splitlines)
