"""A command line as bash was given it: its words, and how to quote what replaces the last one.

bash hands a completion the raw text, and puts in raw text: nothing on the way is evaluated. What is replaced begins
behind the last break character of COMP_WORDBREAKS, such as `:` or `=`, or with it if that is an `@`.
"""

from __future__ import annotations

SPACE = " \t\n"
ENDS = ";&|("
"""A new command begins behind them."""
KEPT = "@"
"""The break character that belongs to what follows it (readline's rl_special_prefixes)."""
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")
IN_DOUBLE = '$`"\\!'


class Line:
    """The line up to the cursor; ``words`` are those behind the command, without their quotes."""

    def __init__(self, text: str, breaks: str = "") -> None:
        self._breaks = breaks
        self._quote = ""
        self._cut = 0
        """How much of the last word stays as it is."""
        self._before_quote = 0
        self._word: str | None = None
        self._all: list[str] = []
        at = 0
        while at < len(text):
            at = self._take(text, at)
        self._all.append(self._word or "")
        self.words = self._all[1:]

    def _take(self, text: str, at: int) -> int:
        char, after = text[at], at + 1
        word = self._word or ""
        if self._quote:
            return self._quoted(text, at)
        if char in SPACE:
            if self._word is not None:
                self._all.append(word)
            self._word, self._cut = None, 0
        elif char in ENDS:
            self._all, self._word, self._cut = [], None, 0
        elif char == "\\" and after < len(text):
            self._word = word + text[after]
            after += 1
        elif char in "'\"":
            self._quote, self._word = char, word
            self._before_quote, self._cut = self._cut, len(word)
        else:
            self._word = word + char
            if char in self._breaks:
                self._cut = len(word) + (char != KEPT)
        return after

    def _quoted(self, text: str, at: int) -> int:
        char, word = text[at], self._word or ""
        if char == self._quote:
            self._quote, self._cut = "", self._before_quote
        elif self._quote == '"' and char == "\\" and text[at + 1 : at + 2] in tuple('$`"\\'):
            self._word = word + text[at + 1]
            return at + 2
        else:
            self._word = word + char
        return at + 1

    def quoted(self, word: str) -> str:
        """What replaces the last word, for the quotes that are open; empty if it cannot stand in them."""
        rest = word[self._cut :]
        if all(char in PLAIN for char in rest):
            return rest
        if self._quote and not rest.isprintable():
            return ""
        if self._quote == "'":
            return rest.replace("'", "'\\''")
        if self._quote:
            return "".join("\\" + char if char in IN_DOUBLE else char for char in rest)
        if not rest.isprintable():
            return "$'" + "".join(map(_in_dollar_quotes, rest)) + "'"
        return "".join(char if _is_plain(char) else "\\" + char for char in rest)


def _is_plain(char: str) -> bool:
    return char in PLAIN or (char.isalnum() and not char.isascii())


def _in_dollar_quotes(char: str) -> str:
    if char in "'\\":
        return "\\" + char
    if char.isprintable():
        return char
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))
