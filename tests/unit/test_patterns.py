"""Gitignore's grammar, with git as the judge."""

import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaivc.patterns import MAX_LENGTH, Patterns, compile_pattern, is_blank, trimmed
from tests.conftest import require_tool

NAMES = ("a", "b", "ab", "aab", "a.b", "[a]", "a-b", "-", " a", "a*", "é", "a\\b", "!a", "#a", "A1", "a ")
FILES = (
    *NAMES,
    *(f"d/{name}" for name in NAMES),
    *(f"a.d/b/{name}" for name in NAMES),
    *("b.d/a/b/a/b", "b.d/a/a", "c.d/a\nb/x.pem", "e/e/e/e/e"),
)
DIRECTORIES = sorted({name[:at] for name in FILES for at, byte in enumerate(name) if byte == "/"})


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A repository that holds FILES; asks git what a text of patterns ignores."""
    git = require_tool("git")
    place: Path = tmp_path_factory.mktemp("judge")
    subprocess.run([git, "init", "-q", place], check=True)
    for name in FILES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()

    def ask(text: str) -> set[str]:
        (place / ".git/info/exclude").write_bytes(text.encode())
        names = "\0".join([*FILES, *DIRECTORIES]).encode()
        command = [
            git,
            "-C",
            str(place),
            "-c",
            "core.excludesFile=",
            "check-ignore",
            "--no-index",
            "-z",
            "--stdin",
        ]
        found = subprocess.run(command, input=names, capture_output=True, check=False)
        assert found.returncode in (0, 1), found.stderr
        return set(os.fsdecode(found.stdout).split("\0")) - {""}

    return ask


def compiled(lines: Iterable[str]) -> Patterns:
    """The patterns of lines; git passes over those that are refused here."""
    patterns = []
    for line in lines:
        if not is_blank(line.encode()):
            try:
                patterns.append(compile_pattern(line.encode()))
            except ValueError:
                continue
    return Patterns(patterns)


def ignored(patterns: Patterns) -> set[str]:
    """What a walk from the root leaves out, as git counts it."""
    found: set[str] = set()
    for name in (*DIRECTORIES, *FILES):
        above = {name[:at] for at, byte in enumerate(name) if byte == "/"}
        if above & found or patterns.verdict(name.encode(), is_directory=name in DIRECTORIES):
            found.add(name)
    return found


TABLE = [
    ["a"],
    ["/a"],
    ["a/"],
    ["*"],
    ["*", "!*/", "!*.b"],
    ["/*", "!/d", "/d/*", "!/d/a"],
    ["d/**", "!d/a"],
    ["d/*", "!d/a"],
    ["d", "!d/a"],
    ["**/a"],
    ["**/a/**"],
    ["a.d/**/a"],
    ["b.d/**/b"],
    ["**"],
    ["**/"],
    ["*/"],
    ["/**"],
    ["/"],
    ["!"],
    ["a?b"],
    ["a[.-]b"],
    ["a[!.]b"],
    ["a[^.]b"],
    ["[]a]"],
    ["[[]a]"],
    ["[[:]a]"],
    ["[a-b]b"],
    ["[b-a]b"],
    ["[[:alpha:]][[:digit:]]"],
    ["[[:nothing:]]"],
    ["[[:alpha:]"],
    ["[a"],
    ["a\\"],
    ["a\\*"],
    ["\\a"],
    ["a\\\\b"],
    ["a[\\\\]b"],
    ["a[\\-]b"],
    ["\\!a"],
    ["\\#a"],
    ["#a"],
    ["a "],
    ["a\\ "],
    ["a\\  "],
    [" a"],
    ["?"],
    ["??"],
    ["e/**/e"],
    ["**/e/**/e/e"],
    ["e/*/e"],
    ["*.pem"],
    ["a.d/b/"],
    ["a.d//b"],
    ["***/a"],
    ["d/***"],
    ["*a*b*"],
]


@pytest.mark.parametrize("lines", TABLE, ids=repr)
def test_is_as_git_has_it(judge, lines):
    assert ignored(compiled(lines)) == judge("\n".join(lines) + "\n")


_GLOBS = [
    "a",
    "b",
    "d",
    "e",
    ".",
    "-",
    "é",
    "*",
    "?",
    "\\a",
    "\\*",
    "[ab]",
    "[!a]",
    "[a-c]",
    "[]-a]",
    "[b-a]",
]
_COMPONENT = st.lists(
    st.sampled_from([*_GLOBS, "[[:alpha:]]", "[\\]a]", "[--b]", "[a", " "]), min_size=1, max_size=4
).map("".join)
_PATH = st.lists(_COMPONENT | st.sampled_from(["**", "**", "*", "a", "b", "d"]), min_size=1, max_size=4).map("/".join)
_LINE = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    _PATH,
    st.sampled_from(["", "/"]),
)


def _is_odd(line: str) -> bool:
    """Whether the line has stars that are neither one nor a component: there git differs from its manual."""
    return any("**" in part and part.strip("*") for part in line.lstrip("!").split("/"))


@settings(max_examples=150)
@given(
    lines=st.lists(_LINE.filter(lambda line: not _is_odd(line)), min_size=1, max_size=4),
    all_first=st.booleans(),
)
def test_any_patterns_are_as_git_has_them(judge, lines, all_first):
    lines = ["*", *lines] if all_first else lines
    assert ignored(compiled(lines)) == judge("\n".join(lines) + "\n")


def test_stars_beside_text_are_one_star():
    patterns = compiled(["a**/b"])
    assert patterns.verdict(b"ax/b", is_directory=False)
    assert patterns.verdict(b"ax/y/b", is_directory=False) is None


def test_a_file_is_held_through_a_directory_above():
    patterns = Patterns.of(["data/", "!data/kept.txt"])
    assert patterns.holds(b"data/deep/x")
    assert patterns.holds(b"sub/data/x")
    assert patterns.holds(b"data/kept.txt")
    assert not patterns.holds(b"data")


def test_the_last_word_counts():
    patterns = Patterns.of(["*.txt", "!kept.txt"])
    assert patterns.holds(b"a/b.txt")
    assert not patterns.holds(b"a/kept.txt")
    assert patterns.verdict(b"a/kept.txt", is_directory=False) is False
    assert patterns.verdict(b"other", is_directory=False) is None


def test_no_patterns_hold_nothing():
    assert not Patterns().holds(b"a")
    assert Patterns().verdict(b"a", is_directory=True) is None


def test_names_are_bytes_in_any_encoding():
    patterns = Patterns.of([b"\xff*".decode("utf-8", "surrogateescape")])
    assert patterns.holds(b"dir/\xff\xfe")
    assert Patterns.of(["a*c"]).holds(b"a\nb\xffc")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "names nothing"),
        (b"/", "names nothing"),
        (b"!", "names nothing"),
        (b"!/", "names nothing"),
        (b"a\\", "ends with a backslash"),
        (b"[a", "without its"),
        (b"[", "without its"),
        (b"[[:alpha:]", "without its"),
        (b"[[:alpha", "without its"),
        (b"[[:word:]]", "unknown class"),
        (b"a\0b", "NUL"),
        (b"a" * (MAX_LENGTH + 1), "longer than"),
    ],
)
def test_refuses_what_can_never_match(text, words):
    with pytest.raises(ValueError, match=words):
        compile_pattern(text)


@pytest.mark.parametrize(
    ("line", "bare"),
    [(b"a  ", b"a"), (b"a\\ ", b"a\\ "), (b"a\\  ", b"a\\ "), (b"a\\\\ ", b"a\\\\"), (b"  ", b"")],
)
def test_trims_spaces_as_git_does(line, bare):
    assert trimmed(line) == bare


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (b"*a" * 500 + b"b", b"a" * 255),
        (b"*?" * 500 + b"b", b"a" * 255),
        (b"**/a/" * 200 + b"b", b"a/" * 2000 + b"c"),
        (b"**/*/" * 200 + b"b", b"a/" * 2000 + b"c"),
        (b"**/*a*a*a*b/" * 80 + b"b", (b"a" * 250 + b"/") * 16 + b"c"),
        (b"[!a]" * 250, b"b" * 255),
    ],
)
def test_no_pattern_takes_long(pattern, path):
    best = float("inf")
    for _ in range(7):  # a loaded machine slows some of them, an exponential pattern all
        start = time.process_time()
        patterns = Patterns([compile_pattern(pattern)])
        for _ in range(20):
            patterns.verdict(path, is_directory=False)
        best = min(best, time.process_time() - start)
    assert best < 0.1


@given(st.binary(max_size=30), st.binary(min_size=1, max_size=30))
def test_any_bytes_compile_or_are_refused(text, path):
    try:
        pattern = compile_pattern(text)
    except ValueError:
        return
    Patterns([pattern]).verdict(path, is_directory=False)
