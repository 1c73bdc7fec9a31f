from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc.diff.text import count, split_lines, unified

LINES = 50_000
SECONDS = 10  # about ten times what a small machine takes; a quadratic search takes minutes


def patch(old: bytes, new: bytes, context: int = 3) -> bytes:
    return b"".join(unified(old, new, context))


@given(st.binary() | st.text("ab\n\r\f\v").map(str.encode))
def test_lines_end_on_newlines_only(data):
    lines = split_lines(data)
    assert b"".join(lines) == data
    assert len(lines) == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    assert all(line.endswith(b"\n") for line in lines[:-1])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"", b"", b""),
        (b"a\n", b"a\n", b""),
        (b"", b"a\n", b"@@ -0,0 +1 @@\n+a\n"),
        (b"a\n", b"", b"@@ -1 +0,0 @@\n-a\n"),
        (b"a\nb\n", b"a\nc\n", b"@@ -1,2 +1,2 @@\n a\n-b\n+c\n"),
        (b"a\n", b"a", b"@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file\n"),
        (b"a", b"b", b"@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n"),
        (b"b\na", b"c\na", b"@@ -1,2 +1,2 @@\n-b\n+c\n a\n\\ No newline at end of file\n"),
        (b"a\r\n", b"a\n", b"@@ -1 +1 @@\n-a\r\n+a\n"),
        (b"a\fb\vc\x85d\n", b"e\n", b"@@ -1 +1 @@\n-a\fb\vc\x85d\n+e\n"),
    ],
)
def test_hunks_are_written_as_git_writes_them(old, new, expected):
    assert patch(old, new) == expected


def numbered(count: int, *edited: int) -> bytes:
    return b"".join(b"%d%s\n" % (n, b"!" * (n in edited)) for n in range(1, count + 1))


def test_changes_with_touching_contexts_share_a_hunk():
    assert patch(numbered(30), numbered(30, 10, 17)).count(b"@@ -") == 1
    assert patch(numbered(30), numbered(30, 10, 18)).count(b"@@ -") == 2


def test_a_hunk_has_as_much_context_as_is_asked_for():
    old, new = numbered(9), numbered(9, 5)
    assert patch(old, new, 0) == b"@@ -5 +5 @@\n-5\n+5!\n"
    assert patch(old, new, 1) == b"@@ -4,3 +4,3 @@\n 4\n-5\n+5!\n 6\n"
    assert patch(old, new).startswith(b"@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n")


def test_without_context_an_empty_span_names_the_line_before_it():
    assert patch(b"a\nb\n", b"a\nx\nb\n", 0) == b"@@ -1,0 +2 @@\n+x\n"


def test_count_is_of_lines():
    assert count(b"a\nb\nc", b"a\nc\nd\ne") == (3, 2)


# ---------------------------------------------------------------- time


def records(seed: int) -> list[bytes]:
    numbers = random.Random(seed)
    return [json.dumps({"step": n, "score": numbers.random()}).encode() + b"\n" for n in range(LINES)]


def words(seed: int, choices: int) -> list[bytes]:
    numbers = random.Random(seed)
    return [b"word %d\n" % numbers.randrange(choices) for _ in range(LINES)]


def timed(old: list[bytes], new: list[bytes]) -> bytes:
    start = time.perf_counter()
    result = patch(b"".join(old), b"".join(new))
    assert time.perf_counter() - start < SECONDS
    return result


def test_scattered_edits_of_a_long_file_are_found_one_by_one():
    old = records(1)
    new = list(old)
    for n in range(0, LINES, 50):
        new[n] = b"edited %d\n" % n
    result = timed(old, new)
    assert result.count(b"\n-") == result.count(b"\n+") == LINES // 50


def test_scattered_edits_among_repeated_lines_are_found_nearly_one_by_one():
    old = words(1, 5)
    new = list(old)
    for n in range(0, LINES, 100):
        new[n] = b"edited\n"
    assert timed(old, new).count(b"\n+") < 2 * LINES // 100


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(records(1), records(2), id="nothing shared"),
        pytest.param(records(1), records(1)[::-1], id="reversed"),
        pytest.param(words(1, 2), words(2, 2), id="two words"),
        pytest.param(words(1, 300), words(2, 300), id="300 words"),
        pytest.param(words(1, LINES // 2), words(2, LINES // 2), id="many words"),
        pytest.param(records(1) * 2, records(1)[::-1] * 2, id="each line twice"),
        pytest.param(
            words(1, 5)[:300] + [b"\n"] * LINES + words(2, 5)[:300],
            words(3, 5)[:300] + [b"\n"] * (LINES - 10_000) + words(4, 5)[:300],
            id="long runs",
        ),
    ],
)
def test_files_that_differ_throughout_take_no_longer(old, new):
    assert timed(old, new).startswith(b"@@ -1,")


def test_the_same_files_give_the_same_patch():
    old, new = words(1, 300), words(2, 300)
    assert timed(old, new) == timed(old, new)
