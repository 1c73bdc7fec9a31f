"""Git itself judges the patches: it must take them, and say the same of the same trees."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kaivc.diff.model import FileDiff, Side
from kaivc.diff.patch import name_status, render, stat

Tree = dict[bytes, tuple[int, bytes]]

FILE, EXECUTABLE, LINK = 0o100644, 0o100755, 0o120000


@dataclass
class Judge:
    """A bare repository of one object format that answers about pairs of trees."""

    path: Path
    object_format: str

    def git(self, *words: str, stdin: bytes = b"") -> bytes:
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_DIR": str(self.path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "LC_ALL": "C",
        }
        done = subprocess.run(["git", *words], input=stdin, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def write(self, **trees: Tree) -> None:
        """Make a branch of each tree."""
        self.git("fast-import", "--quiet", "--force", stdin=b"".join(map(_commit, trees, trees.values())))

    def tree(self, branch: str) -> bytes:
        return self.git("rev-parse", f"{branch}^{{tree}}")

    def applied(self, branch: str, patch: bytes, *options: str) -> bytes:
        """The id of the tree that the patch makes of the branch's."""
        self.git("read-tree", branch)
        self.git("apply", "--cached", "--allow-empty", *options, stdin=patch)
        return self.git("write-tree")

    def diff(self, *options: str) -> bytes:
        return self.git("diff", "--no-renames", "--full-index", *options, "old", "new")

    def side(self, entry: tuple[int, bytes] | None) -> Side | None:
        if entry is None:
            return None
        mode, data = entry
        oid = hashlib.new(self.object_format, b"blob %d\0%s" % (len(data), data)).hexdigest()
        return Side(mode, oid, len(data), data)

    def diffs(self, old: Tree, new: Tree) -> list[FileDiff]:
        paths = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
        return [FileDiff(path, self.side(old.get(path)), self.side(new.get(path))) for path in paths]


def _commit(branch: str, tree: Tree) -> bytes:
    lines = [b"commit refs/heads/%s\ncommitter T <t@t> 0 +0000\ndata 0\n" % branch.encode()]
    for path, (mode, data) in tree.items():
        quoted = b"".join(b"\\%03o" % byte for byte in path)
        lines.append(b'M %o inline "%s"\ndata %d\n%s\n' % (mode, quoted, len(data), data))
    return b"".join(lines)


@pytest.fixture(scope="module", params=["sha1", "sha256"])
def judge(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    subprocess.run(["git", "init", "-q", "--bare", f"--object-format={request.param}", path], check=True)
    return Judge(path, request.param)


# ---------------------------------------------------------------- what the trees hold

names = (
    st.sampled_from([b"a", b"a b", b"b ", b" c", b"a.b", b'q"', b"back\\slash", b"t\tab", b"n\nl", b"\xff\xfe"])
    | st.sampled_from([b"x b", b"-", b"\x7f", b"\x01 ", "né".encode(), "日本".encode(), b"c\r", b"dev", b"null"])
    | st.binary(min_size=1, max_size=6)
).filter(lambda name: not {0, ord("/")} & set(name) and not name.lower().startswith((b".", b"git~")))
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)

lines = st.sampled_from([b"", b"}", b"  {", b"a", b"b", b"c", b"d\r", b"e\ff", b"- x", b"@@ -1 +1 @@", b"\xff\\"])
texts = st.builds(
    lambda rows, end: b"\n".join(rows) + end,
    st.lists(lines | st.integers(0, 99).map(b"%d".__mod__), max_size=30),
    st.sampled_from([b"", b"\n"]),
)
binaries = st.binary(max_size=200).map(b"\0".__add__)
files = st.tuples(st.sampled_from([FILE, FILE, EXECUTABLE]), texts | binaries | st.binary(max_size=20))
targets = st.binary(min_size=1, max_size=20).filter(lambda target: 0 not in target)
links = st.tuples(st.just(LINK), targets)
entries = files | files | links


@st.composite
def edited(draw, entry):
    """The entry with a few lines replaced, removed or added."""
    mode, data = entry
    rows = data.split(b"\n")
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(rows)))
        rows[start : start + draw(st.integers(0, 2))] = draw(st.lists(lines, max_size=2))
    return mode, b"\n".join(rows)


def without_clashes(tree: Tree) -> Tree:
    """A file cannot be a directory too."""
    folders = {path[:n] for path in tree for n, byte in enumerate(path) if byte == ord("/")}
    return {path: entry for path, entry in tree.items() if path not in folders}


@st.composite
def pairs(draw) -> tuple[Tree, Tree]:
    old = without_clashes(draw(st.dictionaries(paths, entries, max_size=6)))
    new: Tree = {}
    for path, (mode, data) in old.items():
        match draw(st.sampled_from(["same", "edit", "edit", "other", "mode", "type", "gone", "below"])):
            case "same":
                new[path] = mode, data
            case "edit" if mode != LINK:
                new[path] = draw(edited((mode, data)))
            case "other":
                new[path] = draw(entries)
            case "mode" if mode != LINK:
                new[path] = FILE + EXECUTABLE - mode, data
            case "type":
                new[path] = draw(links if mode != LINK else files)
            case "below":
                new[path + b"/" + draw(names)] = draw(entries)
    return old, without_clashes(new | draw(st.dictionaries(paths, entries, max_size=3)))


examples = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


# ---------------------------------------------------------------- the judgement


@examples
@given(pair=pairs())
def test_git_makes_the_new_tree_of_the_old_and_the_old_of_the_new(judge, pair):
    old, new = pair
    judge.write(old=old, new=new)
    patch = b"".join(render(judge.diffs(old, new), binary=True))
    assert judge.applied("old", patch) == judge.tree("new")
    assert judge.applied("new", patch, "--reverse") == judge.tree("old")


@examples
@given(pair=pairs(), context=st.integers(0, 5))
def test_git_takes_any_context(judge, pair, context):
    old, new = pair
    judge.write(old=old, new=new)
    patch = b"".join(render(judge.diffs(old, new), binary=True, context=context))
    options = [] if context else ["--unidiff-zero"]
    assert judge.applied("old", patch, *options) == judge.tree("new")


@examples
@given(pair=pairs())
def test_git_says_the_same_letters_and_counts(judge, pair):
    old, new = pair
    judge.write(old=old, new=new)
    diffs = judge.diffs(old, new)
    words = judge.diff("--name-status", "-z").split(b"\0")[:-1]
    letters = [(letter.encode(), path) for letter, path in name_status(diffs)]
    assert letters == list(zip(words[::2], words[1::2], strict=True))
    assert [_settled(*row) for row in stat(diffs)] == _numstat(judge)


@examples
@given(pair=pairs())
def test_git_writes_the_same_headers_and_the_same_whole_files(judge, pair):
    """All but the hunks of changed text, where more than one answer is right."""
    old, new = pair
    # Such a name git writes in a way that it cannot read back; ours differs.
    assume(not any(b" /" in path for path in old | new))
    judge.write(old=old, new=new)
    diffs = judge.diffs(old, new)
    assert _sections(b"".join(render(diffs, binary=False))) == _sections(judge.diff())


def _numstat(judge: Judge) -> list[tuple]:
    rows = [row.split(b"\t", 2) for row in judge.diff("--numstat", "-z").split(b"\0")[:-1]]
    return [_settled(path, *(None if n == b"-" else int(n) for n in counts)) for *counts, path in rows]


def _settled(path: bytes, added: int | None, removed: int | None) -> tuple:
    """What every right answer agrees on: the balance, and whether anything is counted."""
    return (path, None, None) if added is None else (path, added - (removed or 0), bool(added or removed))


def _sections(patch: bytes) -> list[bytes]:
    whole_file = (b"\nnew file mode", b"\ndeleted file mode")
    sections = patch.split(b"\ndiff --git ")
    return [text if any(map(text.__contains__, whole_file)) else text.split(b"\n@@ ")[0] for text in sections]


# ---------------------------------------------------------------- known corners


def check(judge: Judge, old: Tree, new: Tree) -> None:
    judge.write(old=old, new=new)
    patch = b"".join(render(judge.diffs(old, new), binary=True))
    assert judge.applied("old", patch) == judge.tree("new")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            (FILE, b"\0" * 100_000), (EXECUTABLE, random.Random(1).randbytes(100_000)), id="long binary, mode"
        ),
        pytest.param((FILE, b"text\n"), (FILE, b"\0"), id="text to binary"),
        pytest.param((FILE, b"\0"), (FILE, b""), id="binary to empty"),
        pytest.param((FILE, b"\0bin"), (LINK, b"target"), id="binary to link"),
        pytest.param((LINK, b"one"), (LINK, b"two\nlines\n"), id="link to link"),
        pytest.param((FILE, b"same"), (LINK, b"same"), id="file to link of the same bytes"),
        pytest.param((FILE, b""), (LINK, b"x"), id="empty to link"),
        pytest.param((FILE, b"a" * 8000 + b"\0"), (FILE, b"b" * 8000 + b"\0\n"), id="a late nul is text"),
        pytest.param((FILE, b"a\r\nb\r\n"), (FILE, b"a\nb\r\n"), id="line ends"),
        pytest.param((FILE, b"\n"), (FILE, b""), id="one empty line to none"),
        pytest.param((FILE, b"-- x\n++ y\n"), (FILE, b"++ y\n-- x\n"), id="lines like headers"),
    ],
)
@pytest.mark.parametrize("path", [b"p", b"x b/x", b"dir/two  words ", b"dir /file", b'"'])
def test_git_takes_the_corners_both_ways(judge, old, new, path):
    check(judge, {path: old}, {path: new})
    check(judge, {path: new}, {path: old})


def test_git_takes_a_file_that_becomes_a_directory_and_back(judge):
    file, folder = {b"p": (FILE, b"a\n")}, {b"p/q": (FILE, b"a\n"), b"p.x": (FILE, b"")}
    check(judge, file, folder)
    check(judge, folder, file)


def test_git_takes_a_patch_of_a_long_file(judge):
    rows = [b"%d\n" % (n * n % 9973) for n in range(20_000)]
    edited = [b"new\n" if n % 97 == 0 else row for n, row in enumerate(rows) if n % 89]
    check(judge, {b"p": (FILE, b"".join(rows))}, {b"p": (FILE, b"".join(edited))})
