"""Command lines that are plainly right, read at once: importing the parser takes longer than most verbs.

What is not plain is left to the parser: a question for help, a mistake, short options that are written together. A
test compares what both make of the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from kaivc.cli.arguments import EVERYWHERE, REQUIRED, Option, Parameter, is_verb, parameters
from kaivc.cli.invocation import Invocation

Load = Callable[[str], FunctionType | None]
Values = dict[str, Any]


class NotPlainError(Exception):
    """The parser must read this one."""


def read(args: Sequence[str], load: Load, door: Invocation) -> tuple[FunctionType, Values] | None:
    """A verb and the values of its parameters; None if the parser must read the words.

    ``load`` gives the function of a verb, if there is one of these words. The door takes the options of every verb.
    """
    try:
        return _Reader(list(args)).read(load, door)
    except NotPlainError:
        return None


class _Reader:
    """The words that are left, and what was read."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.options = {name: it for it in EVERYWHERE for name in _names(it)}
        self.values: Values = {}

    def read(self, load: Load, door: Invocation) -> tuple[FunctionType, Values]:
        first = self.word()
        verb = (load(first) if is_verb(first, self.words) else None) or load(f"{first} {self.word()}")
        if verb is None:
            raise NotPlainError
        takes = list(parameters(verb))
        self.options.update((name, it) for it in takes for name in _names(it))
        self.place(self.rest(), [it for it in takes if not _names(it)])
        for it in EVERYWHERE:
            value = self.values.pop(it.name, None)
            if value is not None and not all(
                one and door.take(it.name, one) for one in (value if it.many else [value])
            ):
                raise NotPlainError
        for it in takes:
            if self.values.setdefault(it.name, it.default) is REQUIRED:
                raise NotPlainError
        return verb, self.values

    def word(self) -> str:
        """The next word that is no option."""
        while self.words:
            word = self.words.pop(0)
            if not _is_option(word):
                return word
            self.option(word)
        raise NotPlainError

    def rest(self) -> list[str]:
        """All further words that are no options."""
        found: list[str] = []
        while self.words:
            word = self.words.pop(0)
            if word == "--":
                return found + self.words
            if _is_option(word):
                self.option(word)
            else:
                found.append(word)
        return found

    def option(self, word: str) -> None:
        """An option, and its value."""
        name, sign, text = word.partition("=") if word.startswith("--") else (word, "", "")
        it = self.options.get(name)
        if it is None or (it.type is bool and sign):
            raise NotPlainError
        if it.type is bool:
            self.values[it.name] = True
            return
        if not sign:
            text = self.value_of(it)
        self.take(it, text)

    def value_of(self, it: Parameter) -> str:
        alone = it.declared.alone if isinstance(it.declared, Option) else None
        if alone is not None and self.words[:1] not in [[text] for text in it.choices]:
            return alone
        if not self.words or _is_option(self.words[0]):
            raise NotPlainError
        return self.words.pop(0)

    def place(self, texts: list[str], takes: list[Parameter]) -> None:
        """Give each argument its text; the last may take all that are left."""
        for it in takes:
            mine, texts = (texts, []) if it.many else (texts[:1], texts[1:])
            for text in mine:
                self.take(it, text)
        if texts:
            raise NotPlainError

    def take(self, it: Parameter, text: str) -> None:
        if it.choices and text not in it.choices:
            raise NotPlainError
        if it.many:
            self.values.setdefault(it.name, []).append(text)
        else:
            self.values[it.name] = _number(it, text) if it.type is int else text


def _names(it: Parameter) -> tuple[str, ...]:
    return it.declared.names if isinstance(it.declared, Option) else ()


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


def _number(it: Parameter, text: str) -> int:
    least = it.declared.min if isinstance(it.declared, Option) else None
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < (least or 0):  # noqa: PLR2004
        raise NotPlainError
    return int(text)
