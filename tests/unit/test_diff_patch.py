from __future__ import annotations

import hashlib

import pytest

from kaivc.diff.binary import is_binary
from kaivc.diff.model import FileDiff, Side
from kaivc.diff.patch import name_status, render, stat
from kaivc.diff.quoting import quote
from kaivc.errors import TooLarge

FILE, EXECUTABLE, LINK = 0o100644, 0o100755, 0o120000


def side(data: bytes, mode: int = FILE) -> Side:
    oid = hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()
    return Side(mode, oid, len(data), data)


def large(oid: str = "f" * 40, mode: int = FILE) -> Side:
    return Side(mode, oid, 2**40, None)


def patch(*diffs: FileDiff, binary: bool = True) -> bytes:
    return b"".join(render(diffs, binary=binary))


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        (b"plain", b"plain"),
        (b"two words", b"two words"),
        (b"tab\there", rb'"tab\there"'),
        (b'\a\b\t\n\v\f\r"\\', rb'"\a\b\t\n\v\f\r\"\\"'),
        (b"\x01\x1f\x7f\x80\xff", rb'"\001\037\177\200\377"'),
        ("é".encode(), rb'"\303\251"'),
        (b"it's $HOME ~ *", b"it's $HOME ~ *"),
    ],
)
def test_paths_are_quoted_as_git_quotes_them(path, quoted):
    assert quote(path) == quoted


def test_binary_is_a_nul_near_the_start():
    assert is_binary(b"\0")
    assert is_binary(b"a" * 7999 + b"\0")
    assert not is_binary(b"a" * 8000 + b"\0")
    assert not is_binary(b"\xff\x01\x7f")


@pytest.mark.parametrize(
    ("old", "new", "letter"),
    [
        (None, side(b""), "A"),
        (side(b""), None, "D"),
        (side(b"a"), side(b"b"), "M"),
        (side(b"a"), side(b"a", EXECUTABLE), "M"),
        (side(b"a"), side(b"a", LINK), "T"),
        (side(b"a", LINK), side(b"b", EXECUTABLE), "T"),
        (side(b"a", LINK), side(b"b", LINK), "M"),
    ],
)
def test_status_is_gits_letter(old, new, letter):
    assert name_status([FileDiff(b"p", old, new)]) == [(letter, b"p")]


def test_a_diff_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one side"):
        FileDiff(b"p", None, None)


def test_large_content_is_said_to_differ():
    for old, new in [(large(), side(b"a")), (side(b"a"), large()), (large("0" * 39 + "1"), large())]:
        assert patch(FileDiff(b"p", old, new), binary=False).endswith(b"\nBinary files a/p and b/p differ\n")
    assert patch(FileDiff(b"p", None, large()), binary=False).endswith(b"files /dev/null and b/p differ\n")


@pytest.mark.parametrize(
    "diff",
    [
        FileDiff(b"n\n", side(b"a"), large()),
        FileDiff(b"n\n", large(), side(b"a")),
        FileDiff(b"n\n", None, large()),
        FileDiff(b"n\n", side(b"a", LINK), large()),
    ],
)
def test_a_binary_patch_of_large_content_is_refused_before_it_begins(diff):
    with pytest.raises(TooLarge) as caught:
        next(render([diff], binary=True))
    assert caught.value.facts["path"] == r'"n\n"'


def test_a_change_of_mode_needs_no_content():
    diff = FileDiff(b"p", large(), large(mode=EXECUTABLE))
    assert patch(diff) == b"diff --git a/p b/p\nold mode 100644\nnew mode 100755\n"


def test_stat_counts_lines_of_text_only():
    diffs = [
        FileDiff(b"text", side(b"a\nb\n"), side(b"a\nc\nd")),
        FileDiff(b"new", None, side(b"a\n")),
        FileDiff(b"old", side(b"a\nb"), None),
        FileDiff(b"mode", side(b"a"), side(b"a", EXECUTABLE)),
        FileDiff(b"binary", side(b"a"), side(b"\0")),
        FileDiff(b"large", side(b"a"), large()),
    ]
    assert stat(diffs) == [
        (b"text", 2, 1),
        (b"new", 1, 0),
        (b"old", 0, 2),
        (b"mode", 0, 0),
        (b"binary", None, None),
        (b"large", None, None),
    ]


def test_ids_of_sha256_get_zeros_of_their_width():
    new = Side(FILE, "a" * 64, 0, b"")
    assert b"index " + b"0" * 64 + b".." + b"a" * 64 + b"\n" in patch(FileDiff(b"p", None, new))
