"""Which lines two files share: patience first, then Myers, within a budget of steps.

1. What both begin and end with is shared.
2. Lines that occur once on each side are anchors; the longest run of them in the same order splits the
   rest into gaps, each treated alike (Bram Cohen's patience diff).
3. A gap without anchors goes to Myers' greedy algorithm ("An O(ND) Difference Algorithm", 1986), in
   windows: past `myers.MAX_EDITS` edits the furthest point is settled and the search starts again from there.
4. When the budget is spent, what is left counts as replaced.

The budget counts steps, not seconds, so that the same files give the same patch on any machine.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from kaivc.diff.myers import Window

_STEPS = 1_500_000
_STEPS_PER_LINE = 8


class Change(NamedTuple):
    """Lines ``old[old_start:old_end]`` became ``new[new_start:new_end]``; either may be empty."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int


def changes(old: Sequence[Hashable], new: Sequence[Hashable]) -> Iterator[Change]:
    """The changes from ``old`` to ``new``, in order, with at least one shared line between any two."""
    matcher = _Matcher(*_interned(old, new))
    matcher.run()
    return _between(matcher.kept_old, matcher.kept_new)


def _interned(old: Sequence[Hashable], new: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    ids: dict[Hashable, int] = {}
    return [ids.setdefault(line, len(ids)) for line in old], [ids.setdefault(line, len(ids)) for line in new]


def _between(kept_old: bytearray, kept_new: bytearray) -> Iterator[Change]:
    """The runs of lines that are not kept; the n-th kept line of one side is the n-th of the other."""
    i = j = 0
    while i < len(kept_old) or j < len(kept_new):
        # A sentinel beyond the end ends the last run.
        next_i, next_j = _find_kept(kept_old, i), _find_kept(kept_new, j)
        if (i, j) != (next_i, next_j):
            yield Change(i, next_i, j, next_j)
        i, j = next_i + 1, next_j + 1


def _find_kept(kept: bytearray, start: int) -> int:
    found = kept.find(1, start)
    return len(kept) if found < 0 else found


class _Gap(NamedTuple):
    """A stretch of both sides that is not matched yet; ends are exclusive."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int

    @property
    def one_sided(self) -> bool:
        return self.old_start == self.old_end or self.new_start == self.new_end


class _Matcher:
    """Marks in ``kept_old`` and ``kept_new`` the lines that both sides share, in order."""

    def __init__(self, old: list[int], new: list[int]) -> None:
        self.old = old
        self.new = new
        self.kept_old = bytearray(len(old))
        self.kept_new = bytearray(len(new))
        self.steps_left = _STEPS + _STEPS_PER_LINE * (len(old) + len(new))

    def run(self) -> None:
        """Work through the gaps from the first to the last."""
        stack = [_Gap(0, len(self.old), 0, len(self.new))]
        while stack:
            gap = self._trim(stack.pop())
            if gap.one_sided or self.steps_left <= 0:
                continue
            anchors = self._anchors(gap)
            if anchors:
                stack.extend(reversed(self._split(gap, anchors)))
            else:
                self._search(gap)

    def _keep(self, i: int, j: int) -> None:
        self.kept_old[i] = self.kept_new[j] = 1

    def _trim(self, gap: _Gap) -> _Gap:
        """Keep what both sides of the gap begin and end with; return the rest."""
        old, new = self.old, self.new
        a, b, c, d = gap
        while a < b and c < d and old[a] == new[c]:
            self._keep(a, c)
            a, c = a + 1, c + 1
        while a < b and c < d and old[b - 1] == new[d - 1]:
            b, d = b - 1, d - 1
            self._keep(b, d)
        return _Gap(a, b, c, d)

    # ------------------------------------------------------------ patience

    def _anchors(self, gap: _Gap) -> list[tuple[int, int]]:
        """Pairs of positions of lines that are unique on both sides, rising on both."""
        a, b, c, d = gap
        old, new = self.old[a:b], self.new[c:d]
        self.steps_left -= len(old) + len(new)
        in_old, in_new = Counter(old), Counter(new)
        where = {line: j for j, line in enumerate(new, c) if in_new[line] == 1}
        pairs = [(i, where[line]) for i, line in enumerate(old, a) if line in where and in_old[line] == 1]
        return _longest_rising(pairs)

    def _split(self, gap: _Gap, anchors: list[tuple[int, int]]) -> list[_Gap]:
        """Keep the anchors; return the gaps between them."""
        gaps = []
        a, c = gap.old_start, gap.new_start
        for i, j in anchors:
            self._keep(i, j)
            gaps.append(_Gap(a, i, c, j))
            a, c = i + 1, j + 1
        gaps.append(_Gap(a, gap.old_end, c, gap.new_end))
        return [gap for gap in gaps if not gap.one_sided]

    # ------------------------------------------------------------ Myers

    def _search(self, gap: _Gap) -> None:
        """Match a gap without anchors, window by window."""
        a, b, c, d = gap
        # A line that the other side lacks is in no match: leaving it out costs nothing and saves most.
        common = set(self.old[a:b]).intersection(self.new[c:d])
        rows = [i for i in range(a, b) if self.old[i] in common]
        columns = [j for j in range(c, d) if self.new[j] in common]
        self.steps_left -= len(rows) + len(columns)
        self._walk(rows, columns)

    def _walk(self, rows: list[int], columns: list[int]) -> None:
        """Match the lines at these positions, window by window, while the budget lasts."""
        old, new = [self.old[i] for i in rows], [self.new[j] for j in columns]
        x = y = 0
        while x < len(old) and y < len(new) and self.steps_left > 0:
            window = Window(old, new, (x, y), self.steps_left)
            self.steps_left -= window.steps
            for i, j in window.matches():
                self._keep(rows[i], columns[j])
            x, y = window.x, window.y


def _longest_rising(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest subsequence whose second members rise; the first members rise already.

    Patience sorting: ``tops[n]`` is the smallest last member of a rising run of n + 1 pairs.
    """
    tops: list[int] = []
    holders: list[int] = []
    before: list[int] = []
    for index, (_, j) in enumerate(pairs):
        pile = bisect_left(tops, j)
        before.append(holders[pile - 1] if pile else -1)
        if pile == len(tops):
            tops.append(j)
            holders.append(index)
        else:
            tops[pile], holders[pile] = j, index
    return _chain(pairs, before, holders[-1] if holders else -1)


def _chain(pairs: list[tuple[int, int]], before: list[int], last: int) -> list[tuple[int, int]]:
    chain = []
    while last >= 0:
        chain.append(pairs[last])
        last = before[last]
    return chain[::-1]
