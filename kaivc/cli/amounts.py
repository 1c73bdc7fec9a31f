"""Sizes and times as they are typed: 500MiB, 30d."""

from __future__ import annotations

from kaivc.errors import InvalidSettings
from kaivc.fields import Field
from kaivc.yamltext import Node


def size(option: str, text: str, least: int, most: int) -> int:
    """Bytes; InvalidSettings."""
    return _field(option, text).size(least, most)


def duration(option: str, text: str, least: float, most: float) -> float:
    """Seconds; InvalidSettings."""
    return _field(option, text).duration(least, most)


def _field(option: str, text: str) -> Field:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else text  # noqa: PLR2004 - 64 bits
    return Field(Node(value, 0), option, "command line", InvalidSettings)
