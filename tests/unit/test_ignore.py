"""What a version leaves out."""

import subprocess

import pytest

from kaivc.errors import InvalidManifest
from kaivc.ignore import DEFAULT_IGNORES, MAX_BYTES, IgnoreRules
from tests.conftest import require_tool

DEFAULTS = IgnoreRules.parse(None)
IGNORED = [
    *(b".git", b".kai", b".venv", b"__pycache__", b".env", b".env.local", b".envrc", b"id_rsa", b"id_dsa"),
    *(
        b"id_ecdsa",
        b"id_ed25519",
        b"server.pem",
        b"a.key",
        b"a.p12",
        b"a.pfx",
        b"a.keystore",
        b"a.jks",
        b".pem",
    ),
]
KEPT = [
    b"env",
    b"venv",
    b"id_rsa.pub",
    b"pem",
    b"a.pem.txt",
    b"key",
    b".gitignore",
    b".kaiignore",
    b"logic.py",
]


@pytest.mark.parametrize("name", IGNORED)
@pytest.mark.parametrize("above", [b"", b"a/", b"a/b/"])
@pytest.mark.parametrize("is_dir", [True, False])
def test_the_defaults_hold_at_any_depth(name, above, is_dir):
    assert DEFAULTS.ignored(above + name, is_dir)


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("above", [b"", b"a/"])
def test_the_defaults_take_nothing_else(name, above):
    assert not DEFAULTS.ignored(above + name, is_dir=False)


def test_the_reserved_name_is_left_out_at_the_root_alone():
    assert DEFAULTS.ignored(b"snapshot_meta.json", is_dir=False)
    assert not DEFAULTS.ignored(b"a/snapshot_meta.json", is_dir=False)


def test_the_listed_patterns_are_what_the_code_does(tmp_path):
    git = require_tool("git")
    subprocess.run([git, "init", "-q", tmp_path], check=True)
    (tmp_path / ".git/info/exclude").write_text("\n".join(DEFAULT_IGNORES) + "\n")
    names = [*IGNORED, *KEPT, b"snapshot_meta.json"]
    paths = [above + name for name in names for above in (b"", b"a/") if name != b".git"]
    command = [git, "-C", tmp_path, "check-ignore", "--no-index", "-z", "--stdin"]
    found = subprocess.run(command, input=b"\0".join(paths), capture_output=True, check=False).stdout.split(b"\0")
    assert {path for path in paths if DEFAULTS.ignored(path, is_dir=False)} == set(found) - {b""}


def test_what_is_taken_back_is_kept():
    rules = IgnoreRules.parse(b"!.env.example\n!certs/ca.pem\n")
    assert not rules.ignored(b".env.example", is_dir=False)
    assert not rules.ignored(b"certs/ca.pem", is_dir=False)
    assert rules.ignored(b"other.pem", is_dir=False)
    assert rules.ignored(b".env", is_dir=False)


@pytest.mark.parametrize("line", [b"!*", b"!.git", b"!.kai/", b"!/snapshot_meta.json", b"!**"])
def test_git_kai_and_the_reserved_name_cannot_be_taken_back(line):
    rules = IgnoreRules.parse(line)
    assert all(rules.ignored(path, is_dir=True) for path in (b".git", b"a/.git", b".kai", b"a/.kai"))
    assert rules.ignored(b"snapshot_meta.json", is_dir=False)


def test_a_whitelist_lets_the_walk_into_directories():
    rules = IgnoreRules.parse(b"*\n!*/\n!*.py\n")
    assert not rules.ignored(b"src", is_dir=True)
    assert not rules.ignored(b"src/logic.py", is_dir=False)
    assert rules.ignored(b"src/notes.txt", is_dir=False)


def test_reads_the_grammar_of_lines():
    rules = IgnoreRules.parse(b"\xef\xbb\xbf# comment\r\n\r\nbuild/\r\n\\#x\n*.tmp   \n   \n\xff.bin")
    assert rules.ignored(b"build", is_dir=True)
    assert not rules.ignored(b"build", is_dir=False)
    assert rules.ignored(b"#x", is_dir=False)
    assert rules.ignored(b"a/b.tmp", is_dir=False)
    assert rules.ignored(b"\xff.bin", is_dir=False)
    assert not rules.ignored(b"# comment", is_dir=False)


@pytest.mark.parametrize("data", [None, b"", b"\n", b"# only\n\n"])
def test_without_patterns_only_the_defaults_hold(data):
    rules = IgnoreRules.parse(data)
    assert rules.ignored(b".env", is_dir=False)
    assert not rules.ignored(b"logic.py", is_dir=False)


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"ok\n[a\n", 2, "without its"),
        (b"a\nb\n!\n", 3, "names nothing"),
        (b"\x1b[31m\\", 1, "'\\x1b[31m"),
        (b"a\n" * 2_000, 1_001, "more than 1,000 patterns"),
        (b"#" * (MAX_BYTES + 1), 1, "the limit is 65,536"),
    ],
)
def test_refuses_with_file_and_line(data, line, words):
    with pytest.raises(InvalidManifest) as caught:
        IgnoreRules.parse(data)
    assert caught.value.facts == {"file": ".kaiignore", "line": line}
    assert caught.value.what.startswith(f".kaiignore:{line}: ")
    assert words in caught.value.what
    assert caught.value.what.isprintable()
