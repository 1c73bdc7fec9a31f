from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc.diff import matching, myers
from kaivc.diff.matching import Change, changes
from kaivc.diff.myers import Window

NO_LIMIT = 10**9
few = st.lists(st.integers(0, 3), max_size=25)
many = st.lists(st.integers(0, 30), max_size=40)


def common_length(old: Sequence[int], new: Sequence[int]) -> int:
    """The length of the longest common subsequence, the slow and certain way."""
    row = [0] * (len(new) + 1)
    for a in old:
        above = row
        row = [0]
        for j, b in enumerate(new):
            row.append(above[j] + 1 if a == b else max(above[j + 1], row[j]))
    return row[-1]


def rebuilt(old: Sequence[int], new: Sequence[int], found: Sequence[Change]) -> list[int]:
    result: list[int] = []
    end = 0
    for change in found:
        result += old[end : change.old_start]
        result += new[change.new_start : change.new_end]
        end = change.old_end
    return result + list(old[end:])


def assert_changes(old: Sequence[int], new: Sequence[int]) -> None:
    found = list(changes(old, new))
    assert rebuilt(old, new, found) == list(new)
    assert rebuilt(new, old, [Change(c, d, a, b) for a, b, c, d in found]) == list(old)
    for change in found:
        assert change.old_start < change.old_end or change.new_start < change.new_end
    for before, after in pairwise(found):
        assert before.old_end < after.old_start
        assert before.new_end < after.new_start


@given(few, few)
def test_changes_lead_from_old_to_new_with_few_symbols(old, new):
    assert_changes(old, new)


@given(many, many)
def test_changes_lead_from_old_to_new_with_many_symbols(old, new):
    assert_changes(old, new)


@given(few, few, st.integers(1, 40), st.integers(1, 3))
def test_changes_hold_when_windows_are_small_and_the_budget_ends(old, new, steps, edits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(myers, "MAX_EDITS", edits)
        patch.setattr(matching, "_STEPS", steps)
        patch.setattr(matching, "_STEPS_PER_LINE", 1)
        assert_changes(old, new)


@given(few, few)
def test_equal_lines_are_no_change(old, new):
    assert bool(list(changes(old, new))) == (old != new)


@given(few.filter(bool), few.filter(bool))
def test_a_window_that_reaches_the_end_finds_a_best_match(old, new):
    window = Window(old, new, (0, 0), NO_LIMIT)
    assert (window.x, window.y) == (len(old), len(new))
    matches = list(window.matches())
    assert all(old[x] == new[y] for x, y in matches)
    assert len(matches) == common_length(old, new)
    assert matches == sorted(matches, reverse=True)


@given(few.filter(bool), few.filter(bool), st.integers(1, 4))
def test_a_window_cut_short_makes_progress_and_is_best_so_far(old, new, edits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(myers, "MAX_EDITS", edits)
        window = Window(old, new, (0, 0), NO_LIMIT)
    assert window.x + window.y > 0
    assert len(list(window.matches())) == common_length(old[: window.x], new[: window.y])


@given(few.filter(bool), few.filter(bool), st.data())
def test_a_window_may_start_anywhere(old, new, data):
    x, y = data.draw(st.integers(0, len(old) - 1)), data.draw(st.integers(0, len(new) - 1))
    matches = list(Window(old, new, (x, y), NO_LIMIT).matches())
    assert len(matches) == common_length(old[x:], new[y:])
    assert all(i >= x and j >= y for i, j in matches)


def test_a_line_unique_on_both_sides_is_an_anchor():
    old, new = list("aabbXccdd"), list("ccddXaabb")
    assert list(changes(old, new)) == [Change(0, 4, 0, 4), Change(5, 9, 5, 9)]


def test_an_insertion_stands_after_the_lines_it_repeats():
    assert list(changes("a{}b", "a{}{}b")) == [Change(3, 3, 3, 5)]
