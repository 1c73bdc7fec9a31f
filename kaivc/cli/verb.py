"""The parser of one verb."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class Verb(TyperCommand):
    """Usage as git writes it: what must be given stands plain, not in braces."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the verb."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]
