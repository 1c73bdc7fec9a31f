"""One window of Myers' greedy search ("An O(ND) Difference Algorithm and Its Variations", 1986)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

MAX_EDITS = 256


class Window:
    """The search from ``start`` to the end of both sequences, `MAX_EDITS` edits or ``limit`` steps.

    ``(x, y)`` is the furthest point found: ``matches`` is a best match of what lies before it.
    ``frontier[k]`` is the furthest x on diagonal k, counted from the start's own (a negative k counts
    from the end of the list); ``trace[n]`` is the frontier as edit n found it.
    """

    def __init__(self, old: Sequence[int], new: Sequence[int], start: tuple[int, int], limit: int) -> None:
        self.old = old
        self.new = new
        self.start = self.x, self.y = start
        self.limit = limit
        self.steps = 0
        self.edits = 0
        self._frontier = [self.x] * (2 * MAX_EDITS + 3)
        self._trace: list[list[int]] = []
        self._search()

    def matches(self) -> Iterator[tuple[int, int]]:
        """The equal members on the way to (x, y), last first."""
        x, y = self.x, self.y
        for edits in range(self.edits, -1, -1):
            k = self._diagonal(x, y)
            entered = self._enter(self._trace[edits], k, edits)
            while x > entered:
                x, y = x - 1, y - 1
                yield x, y
            if _goes_down(self._trace[edits], k, edits):
                y -= 1
            else:
                x -= 1

    def _search(self) -> None:
        end = len(self.old) + len(self.new)
        for edits in range(MAX_EDITS + 1):
            self._trace.append(self._frontier.copy())
            self._advance(edits)
            if self.x + self.y == end or self.steps > self.limit:
                return

    def _advance(self, edits: int) -> None:
        """Move each diagonal's frontier by one edit and by the equal members that follow."""
        old, new, frontier = self.old, self.new, self._frontier
        rows, columns = len(old), len(new)
        shift = self._diagonal(0, 0)
        for k in range(-edits, edits + 1, 2):
            x = entered = self._enter(frontier, k, edits)
            y = x - k + shift
            while x < rows and y < columns and old[x] == new[y]:
                x += 1
                y += 1
            frontier[k] = x
            self.steps += 1 + x - entered
            # A frontier may step one past an end; such a point is on no path.
            if x + y > self.x + self.y and x <= rows and y <= columns:
                self.x, self.y, self.edits = x, y, edits
            if self.steps > self.limit:
                return

    def _diagonal(self, x: int, y: int) -> int:
        return (x - self.start[0]) - (y - self.start[1])

    def _enter(self, frontier: list[int], k: int, edits: int) -> int:
        """The x at which edit number ``edits`` enters diagonal k."""
        if not edits:
            return self.start[0]
        return frontier[k + 1] if _goes_down(frontier, k, edits) else frontier[k - 1] + 1


def _goes_down(frontier: list[int], k: int, edits: int) -> bool:
    """Whether diagonal k is best entered by an insertion, from k + 1, and not by a removal, from k - 1."""
    return k == -edits or (k != edits and frontier[k - 1] < frontier[k + 1])
