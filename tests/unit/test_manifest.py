"""The agent's manifest."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc.errors import InvalidManifest
from kaivc.manifest import (
    DEFAULT,
    MAX_COUNTER_BYTES,
    FileClass,
    Manifest,
    Monotonic,
    Secret,
    StateClass,
    parse,
    read_counter,
    resolve_pointer,
    strictest,
)
from kaivc.settings import Isolation

FULL = b"""\
files:
  logic: ["*.py"]
  config: [settings/*.yaml]
  state: [memory/, "*.db"]
  lock: [poetry.lock]
state:
  keep: [cache/, "!cache/index"]
  monotonic:
    - {path: ledger.json, pointer: /totals/calls}
  secret:
    - path: token.txt
      name: API_TOKEN
    - path: keys/
      name: KEYS
private: [memory/diary.txt]
entry: python logic.py --fast
check: [python, -m, pytest]
quiesce: touch stop
resume: rm stop
isolation:
  enable: false
  temp_dir: /var/tmp/kai
  commit_changes: true
  rollback_on_error: false
  require: partial
  env: [LANG, API_TOKEN]
"""


def refusal(text):
    with pytest.raises(InvalidManifest) as caught:
        parse(text.encode())
    assert caught.value.what.startswith(f"kai.yaml:{caught.value.facts['line']}: ")
    assert caught.value.what.isprintable()
    return caught.value


def read_or_refuse(data):
    """The manifest; the default where it is refused, as it must be, with a line and no control characters."""
    try:
        return parse(data)
    except InvalidManifest as caught:
        error = caught
    assert error.what.isprintable()
    assert int(str(error.facts["line"])) >= 1
    return DEFAULT


def test_reads_every_key():
    manifest = parse(FULL)
    assert manifest == Manifest(
        logic=("*.py",),
        config=("settings/*.yaml",),
        state=("memory/", "*.db"),
        lock=("poetry.lock",),
        keep=("cache/", "!cache/index"),
        monotonic=(Monotonic("ledger.json", "/totals/calls"),),
        secret=(Secret("token.txt", "API_TOKEN"), Secret("keys/", "KEYS")),
        private=("memory/diary.txt",),
        entry=("python", "logic.py", "--fast"),
        check=("python", "-m", "pytest"),
        quiesce=("touch", "stop"),
        resume=("rm", "stop"),
        isolation=Isolation(
            enable=False,
            temp_dir="/var/tmp/kai",
            commit_changes=True,
            rollback_on_error=False,
            require="partial",
            env=("LANG", "API_TOKEN"),
        ),
    )
    assert manifest.isolation.given == {
        "enable",
        "temp_dir",
        "commit_changes",
        "rollback_on_error",
        "require",
        "env",
    }


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"---\n", b"files:\nstate:\n", b"isolation: {}\n"])
def test_nothing_said_is_the_default(data):
    assert parse(data) == DEFAULT
    assert parse(data).isolation.given == frozenset()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"config.yaml", FileClass.CONFIG),
        (b"sub/config.yaml", FileClass.LOGIC),
        (b"state.json", FileClass.STATE),
        (b"state/a/b", FileClass.STATE),
        (b"state", FileClass.LOGIC),
        (b"a/state/b", FileClass.LOGIC),
        (b"requirements.txt", FileClass.LOCK),
        (b"pylock.toml", FileClass.LOCK),
        (b"uv.lock", FileClass.LOCK),
        (b"a/uv.lock", FileClass.LOGIC),
        (b"logic.py", FileClass.LOGIC),
        (b"kai.yaml", FileClass.LOGIC),
        (b"\xff\xfe", FileClass.LOGIC),
    ],
)
def test_default_classes_of_files(path, expected):
    assert DEFAULT.file_class(path) is expected


def test_a_class_that_is_said_replaces_its_default_alone():
    manifest = parse(b"files: {state: ['*.db']}")
    assert manifest.file_class(b"a/b.db") is FileClass.STATE
    assert manifest.file_class(b"state.json") is FileClass.LOGIC
    assert manifest.file_class(b"state/x") is FileClass.LOGIC
    assert manifest.file_class(b"config.yaml") is FileClass.CONFIG


def test_an_empty_list_means_no_file():
    assert parse(b"files: {lock: []}").file_class(b"uv.lock") is FileClass.LOGIC


def test_config_comes_before_lock_before_state_before_logic():
    manifest = parse(b"files: {logic: [x*], state: [xy*], lock: [xyz*], config: [xyzw]}")
    classes = [manifest.file_class(path) for path in (b"x", b"xy", b"xyz", b"xyzw")]
    assert classes == [FileClass.LOGIC, FileClass.STATE, FileClass.LOCK, FileClass.CONFIG]


def test_what_is_said_comes_before_the_defaults():
    manifest = parse(b"files: {logic: ['state/*.py']}")
    assert manifest.file_class(b"state/tool.py") is FileClass.LOGIC
    assert manifest.file_class(b"state/tool.json") is FileClass.STATE


def test_state_classes_by_strictness():
    manifest = parse(
        b"state:\n  keep: ['*']\n  monotonic: [{path: 'm*', pointer: ''}]\n  secret: [{path: ms, name: S}]\n"
    )
    assert manifest.state_class(b"other") is StateClass.KEEP
    assert manifest.state_class(b"m") is StateClass.MONOTONIC
    assert manifest.state_class(b"ms") is StateClass.SECRET
    assert DEFAULT.state_class(b"state.json") is StateClass.RESTORE


def test_entries_give_their_name_and_pointer():
    manifest = parse(FULL)
    assert manifest.secret_name(b"token.txt") == "API_TOKEN"
    assert manifest.secret_name(b"deep/keys/a") == "KEYS"
    assert manifest.secret_name(b"other") is None
    assert manifest.pointer(b"ledger.json") == "/totals/calls"
    assert manifest.pointer(b"other") is None
    assert manifest.is_private(b"memory/diary.txt")
    assert not manifest.is_private(b"memory/other.txt")


def test_the_first_entry_that_fits_names_the_secret():
    manifest = parse(b"state: {secret: [{path: a, name: FIRST}, {path: 'a*', name: SECOND}]}")
    assert manifest.secret_name(b"a") == "FIRST"
    assert manifest.secret_name(b"ab") == "SECOND"


def test_the_manifest_itself_is_always_restored():
    manifest = parse(b"state: {keep: ['*'], secret: [{path: '*', name: S}]}")
    assert manifest.state_class(b"kai.yaml") is StateClass.RESTORE
    assert manifest.state_class(b"sub/kai.yaml") is StateClass.SECRET


def test_secrets_are_found_below_odd_directories():
    assert parse(b"state: {secret: [{path: '*.token', name: S}]}").state_class(b"a\nb/\xff.token") is StateClass.SECRET


def test_the_strictest_of_two_manifests_counts():
    keep, secret = parse(b"state: {keep: [a]}"), parse(b"state: {secret: [{path: a, name: S}]}")
    assert strictest(b"a", [keep, secret]) is strictest(b"a", [secret, keep]) is StateClass.SECRET
    assert strictest(b"a", [keep, DEFAULT]) is StateClass.KEEP
    assert strictest(b"b", [keep, secret]) is StateClass.RESTORE


@pytest.mark.parametrize(
    ("text", "line", "words", "hint"),
    [
        ("entri: x", 1, "unknown key entri", "'entry'"),
        ("a: 1\nfiles:\n", 1, "unknown key a", ""),
        ("files:\n  logik: [a]", 2, "unknown key files.logik", "'logic'"),
        ("state:\n  secrets: []", 2, "unknown key state.secrets", "'secret'"),
        ("isolation:\n  enabel: true", 2, "unknown key isolation.enabel", "'enable'"),
        (
            "state: {monotonic: [{path: a, pointr: /a}]}",
            1,
            "unknown key state.monotonic[0].pointr",
            "'pointer'",
        ),
        ("state: {monotonic: [{path: a}]}", 1, "lacks 'pointer'", ""),
        ("state: {secret: [{path: a, name: lower}]}", 1, "'lower'", "A-Z"),
        ("state: {secret: [{path: a, name: 9A}]}", 1, "the name of a secret", ""),
        ("state: {secret: [{path: a, name: " + "A" * 65 + "}]}", 1, "the name of a secret", ""),
        ("state: {secret: [{path: '!a', name: A}]}", 1, "takes back", ""),
        ("state: {monotonic: [{path: a, pointer: a}]}", 1, "JSON pointer", "~0"),
        ("state: {monotonic: [{path: a, pointer: /a~2}]}", 1, "JSON pointer", ""),
        ("private:\n  - a\n  - ../b", 3, "leads out of the tree", ""),
        ("private: ['/a/../b']", 1, "leads out of the tree", ""),
        ("private: ['!../b']", 1, "leads out of the tree", ""),
        ("private: ['']", 1, "not empty", ""),
        ("private: ['  ']", 1, "names nothing", ""),
        ("private: ['/']", 1, "names nothing", ""),
        ("private: ['#a']", 1, "is a comment", ""),
        ('private: ["a\\0b"]', 1, "NUL", ""),
        ('private: ["a\\nb"]', 1, "more than one line", ""),
        ("private: ['[a']", 1, "without its", "gitignore"),
        ("private: [2024]", 1, "must be text, not 2024", "quotes"),
        ("private: a", 1, "must be a list", ""),
        ("private: [" + "a," * 1_001 + "]", 1, "has 1,001 entries", ""),
        ("entry: []", 1, "must be a command", ""),
        ("entry: 'a \"b'", 1, "is not a command", ""),
        ("isolation: {enable: yes}", 1, "true or false", ""),
        ("isolation: {temp_dir: tmp}", 1, "absolute", ""),
        ("isolation: {temp_dir: /tmp/../etc}", 1, "absolute", ""),
        ("isolation: {require: most}", 1, "full or partial", ""),
        ("isolation: {env: [A-B]}", 1, "environment variable", ""),
        ("isolation: {env: A}", 1, "must be a list", ""),
        ("isolation: {memory: 1 MiB}", 1, "must be from 16,777,216 to", ""),
        ("isolation: {processes: 0}", 1, "must be from 1 to", ""),
        ("isolation: {time: soon}", 1, "must be a time", "seconds"),
        ("isolation: {written: -1}", 1, "must be from 0 to", ""),
        ("- a", 1, "must be a mapping", ""),
        ("text", 1, "must be a mapping", ""),
    ],
)
def test_refuses_with_file_and_line(text, line, words, hint):
    error = refusal(text)
    assert error.facts["line"] == line
    assert error.facts["file"] == "kai.yaml"
    assert words in error.what
    assert hint in error.hint


def test_the_source_is_named():
    with pytest.raises(InvalidManifest, match=r"^agent/kai\.yaml:1: "):
        parse(b"x: 1", "agent/kai.yaml")


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_whatever_comes_is_read_or_refused(data):
    manifest = read_or_refuse(data)
    manifest.file_class(b"a/b")
    manifest.state_class(b"a/b")


KEYS = st.sampled_from(["files", "state", "private", "entry", "isolation", "logic", "keep", "secret", "path", "x"])
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["a", "*.py", "!a", "../x", "[", "", "A"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_any_tree_of_keys_is_read_or_refused(tree):
    read_or_refuse(json.dumps(tree).encode())


def test_a_hostile_pattern_costs_little():
    manifest = parse(b"private: ['" + b"*a" * 400 + b"b']")
    best = float("inf")
    for _ in range(5):  # a loaded machine slows some of them, an exponential pattern all
        start = time.process_time()
        for number in range(100):
            manifest.is_private(b"a" * 200 + b"/%d" % number)
        best = min(best, time.process_time() - start)
    assert best < 0.2


# ---------------------------------------------------------------- counters


@pytest.mark.parametrize(
    ("document", "pointer", "value"),
    [
        (7, "", 7),
        ({"a": {"b": 3}}, "/a/b", 3),
        ({"": 1}, "/", 1),
        ({"a/b": 1, "m~n": 2, "~1": 4}, "/a~1b", 1),
        ({"m~n": 2}, "/m~0n", 2),
        ({"~1": 4}, "/~01", 4),
        ([1, [2, 3]], "/1/0", 2),
        ({"0": 9}, "/0", 9),
        ({"n": -(10**30)}, "/n", -(10**30)),
    ],
)
def test_finds_the_integer(document, pointer, value):
    assert resolve_pointer(document, pointer) == value
    assert read_counter(json.dumps(document).encode(), pointer) == value


@pytest.mark.parametrize(
    ("document", "pointer", "words"),
    [
        ({"a": True}, "/a", "no integer at '/a'"),
        ({"a": 1.0}, "/a", "no integer"),
        ({"a": "1"}, "/a", "no integer"),
        ({"a": None}, "/a", "no integer"),
        ({}, "/a", "nothing at '/a'"),
        ([1], "/1", "nothing"),
        ([1], "/01", "nothing"),
        ([1], "/-", "nothing"),
        ([1], "/-1", "nothing"),
        ([1], "/" + "9" * 5_000, "nothing"),
        (1, "/a", "nothing"),
        ({}, "a", "not a JSON pointer"),
        ({}, "/~", "not a JSON pointer"),
    ],
)
def test_says_why_there_is_no_integer(document, pointer, words):
    with pytest.raises(ValueError, match=words):
        resolve_pointer(document, pointer)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbf1", "not JSON"),
        (b"NaN", "not JSON: NaN"),
        (b"[Infinity]", "not JSON: Infinity"),
        (b"[" * 200_000, "too many levels"),
        (b'{"a":' * 200_000, "too many levels"),
        (b"9" * 1_001, "more than 1,000 digits"),
        (b"-" + b"9" * 100_000, "more than 1,000 digits"),
        (b" " * (MAX_COUNTER_BYTES + 1), "may have 16,777,216"),
    ],
)
def test_an_unreadable_counter_says_why(data, words):
    with pytest.raises(ValueError, match=words):
        read_counter(data, "")


@given(st.binary(max_size=100), st.text(max_size=20))
def test_a_counter_is_an_integer_or_a_value_error(data, pointer):
    try:
        found: int | str = read_counter(data, pointer)
    except ValueError as caught:
        found = str(caught)
    assert isinstance(found, int) or found.isprintable()
