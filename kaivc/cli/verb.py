"""The parser of one verb."""

from __future__ import annotations

import typer
from typer.core import TyperCommand


class Verb(TyperCommand):
    """Usage as git writes it: what must be given stands plain, not in braces."""

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """The words after the verb."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]
