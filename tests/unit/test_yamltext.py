"""Strict reading of small YAML texts."""

import json
import subprocess
import sys
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc import fields, yamltext
from kaivc.errors import InvalidManifest
from kaivc.fields import DAY, GIB, MIB, Field
from kaivc.yamltext import MAX_BYTES, Node, load

ANYTHING = st.one_of(st.binary(max_size=200), st.text(alphabet="ab01 :-?[]{},&*!|>'\"#%@\n\t~.", max_size=80))


def read(text: str | bytes) -> Node:
    data = text.encode() if isinstance(text, str) else text
    return load(data, "kai.yaml", InvalidManifest)


def refusal(text: str | bytes) -> InvalidManifest:
    with pytest.raises(InvalidManifest) as caught:
        read(text)
    assert caught.value.what.isprintable()
    assert caught.value.facts["file"] == "kai.yaml"
    assert caught.value.what.startswith(f"kai.yaml:{caught.value.facts['line']}: ")
    return caught.value


def bare(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: bare(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [bare(child) for child in node.value]
    return node.value


def field(text: str) -> Field:
    """The value of the key `it` of a text."""
    return fields.root(text.encode(), "kai.yaml", InvalidManifest).entries()["it"]


def test_reads_nested_values_with_their_lines():
    node = read("# a comment\nfiles:\n  logic:\n    - '*.py'\n    - src/\nentry: python logic.py\n")
    assert bare(node) == {"files": {"logic": ["*.py", "src/"]}, "entry": "python logic.py"}
    assert isinstance(node.value, dict)
    files = node.value["files"]
    assert files.line == 2
    assert isinstance(files.value, dict)
    logic = files.value["logic"]
    assert logic.line == 3
    assert isinstance(logic.value, list)
    assert [item.line for item in logic.value] == [4, 5]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("no", "no"),
        ("on", "on"),
        ("'true'", "true"),
        ("12", 12),
        ("-7", -7),
        ("0755", "0755"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1.2.3", "1.2.3"),
        ("~", None),
        ("", None),
        ("null", None),
        ('"12"', "12"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("<<", "<<"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text, value):
    found = bare(read(f"it: {text}"))
    assert found == {"it": value}
    assert type(found["it"]) is type(value)


@pytest.mark.parametrize("text", ["", "\n\n", "# only\n  # comments\n", "\ufeff# mark\r\n", "---\n", "---\n...\n"])
def test_a_text_without_a_value_is_an_empty_mapping(text):
    assert bare(read(text)) == {}


def test_a_blank_text_does_not_import_yaml():
    code = (
        "import sys\nfrom kaivc import errors, yamltext\n"
        "yamltext.load(b'# nothing\\n', 'x', errors.KaiError)\nassert 'yaml' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: &x 2\n", 2, "anchors and aliases"),
        ("a: 1\nb: *x\n", 2, "anchors and aliases"),
        ("a:\n  - *.py\n", 2, "alphabetic or numeric"),
        ("a: !!python/object:os.system x", 1, "tags"),
        ("a: !!str x", 1, "tags"),
        ("a: !x [1]", 1, "tags"),
        ("a: 1\nb: 2\na: 3\n", 3, "'a' stands twice, first on line 1"),
        ("a: {b: 1,\n b: 2}", 2, "'b' stands twice"),
        ("a: 1\n2: x\n", 2, "must be text, not 2"),
        ("true: x", 1, "must be text, not True"),
        ("~: x", 1, "must be text, not None"),
        ("? [a]\n: 1", 1, "must be text, not a list"),
        ("a: 1\n---\nb: 2\n", 3, "second document"),
        ("a: [1\n", 2, "expected"),
        ("a: 'x\n", 2, "end of stream"),
        ("a: 1\n\tb: 2\n", 2, ""),
        ("a: b: c\n", 1, "not allowed here"),
        ("a: 1\nb: \x07\n", 2, r"'\x07' is not taken"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        (b"\xff\xfea\x00:\x00", 1, "not UTF-8"),
        ('a: "\\ud800"', 1, "surrogate"),
        ("a: " + "9" * 20, 1, "19 digits"),
        ("a: 0." + "9" * 400, 1, "19 digits"),
        ("%YAML 9.9\n---\na: 1", 1, ""),
        ("a: 1\n" * 20_000, 1, "the limit is 24,576"),
        ("a: " + "[" * 17 + "]" * 17, 1, "16 levels"),
        ("- " * 17, 1, "16 levels"),
    ],
)
def test_refuses_with_file_and_line(text, line, words):
    error = refusal(text)
    assert error.facts["line"] == line
    assert words in error.what


@pytest.mark.parametrize("text", ["a: *.py", "a: !secret.txt", "a: &b"])
def test_a_pattern_that_needs_quotes_gets_the_hint(text):
    assert "quotes" in refusal(text).hint


def test_control_characters_of_a_stranger_are_escaped():
    error = refusal('"\\e[31mred": 1\n"\\e[31mred": 2\n')
    assert "\x1b" not in error.what
    assert r"\x1b[31mred" in error.what
    assert len(refusal(f"{'k' * 120}: 1\n{'k' * 120}: 2\n").what) < 200


LAUGHS = "a0: &a0 [ha]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
BOMBS = {
    "billion laughs": LAUGHS,
    "brackets": "[" * MAX_BYTES,
    "braces": "{" * MAX_BYTES,
    "nested mappings": "{a: " * 16_000,
    "nested dashes": "- " * 32_000,
    "nested questions": "? " * 32_000,
    "nested blocks": "".join(" " * depth + "a:\n" for depth in range(350)),
    "huge integer": "a: " + "9" * 65_000,
    "huge float": "a: 1." + "9" * 65_000,
    "huge exponent": "a: 1e" + "9" * 65_000,
    "nothing but commas": "[" + "," * 65_000,
    "too large": "a" * (MAX_BYTES + 1),
    "much too large": "a: 1\n" * 5_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_quickly(name):
    refusal("[")  # what is imported on the first text is not the bomb's
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        refusal(BOMBS[name])
        best = min(best, time.process_time() - start)
    assert best < 0.1


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_memory(name):
    data = BOMBS[name].encode()
    tracemalloc.start()
    try:
        refusal(data)
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["[" + "a," * 10_000 + "]", "- \n" * 8_000])
def test_too_many_values_are_refused(text):
    assert "5,000 values" in refusal(text).what


@pytest.mark.parametrize("text", ["a: " + "b " * 12_000, 'a: "' + r"\n" * 12_000 + '"', "a: " + "x" * 24_000])
def test_a_long_scalar_is_only_text(text):
    tracemalloc.start()
    try:
        assert isinstance(bare(read(text))["a"], str)
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()


@given(ANYTHING)
def test_whatever_comes_is_read_or_refused(text):
    data = text.encode() if isinstance(text, str) else text
    try:
        load(data, "kai.yaml", InvalidManifest)
    except InvalidManifest as caught:
        error = caught
    else:
        return
    assert error.what.isprintable()
    assert int(str(error.facts["line"])) >= 1


WORD = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=10)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_json_is_yaml(value):
    assert bare(read(json.dumps({"it": value}, ensure_ascii=False))) == {"it": value}


# ---------------------------------------------------------------- fields


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("'16 GiB'", 16 * GIB),
        ("512MiB", 512 * MIB),
        ("512 mib", 512 * MIB),
        ("1.5GiB", 3 * GIB // 2),
        ("2 GB", 2 * 10**9),
        ("0 B", 0),
    ],
)
def test_reads_sizes(text, size):
    found = field(f"it: {text}").size(0, 1024 * GIB)
    assert found == size
    assert type(found) is int


@pytest.mark.parametrize("text", ["16 G", "-1", "GiB", "'1 2 GiB'", "true", "[1]", "1e400", "2000 GiB", "1..5 GiB"])
def test_refuses_what_is_no_size(text):
    with pytest.raises(InvalidManifest, match=r"kai\.yaml:1: it must be"):
        field(f"it: {text}").size(0, 1024 * GIB)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("5s", 5),
        ("250 ms", 0.25),
        ("24h", DAY),
        ("7 days", 7 * DAY),
        ("1 week", 7 * DAY),
    ],
)
def test_reads_durations(text, seconds):
    assert field(f"it: {text}").duration(0, 30 * DAY) == seconds


@pytest.mark.parametrize("text", ["-5", "5 m", "5 years", "31 days", "true", ".nan", "soon", "1e999"])
def test_refuses_what_is_no_duration(text):
    with pytest.raises(InvalidManifest, match="it must be"):
        field(f"it: {text}").duration(0, 30 * DAY)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[python, logic.py, a b]", ("python", "logic.py", "a b")),
        ("python logic.py 'a b'", ("python", "logic.py", "a b")),
        ("'echo $HOME; rm x'", ("echo", "$HOME;", "rm", "x")),
    ],
)
def test_reads_commands(text, words):
    assert field(f"it: {text}").command() == words


@pytest.mark.parametrize("text", ["", "[]", "''", "'  '", "5", '"a \'b"', '"a\\0b"', "[a, '']", "[a, 5]", "{a: b}"])
def test_refuses_what_is_no_command(text):
    with pytest.raises(InvalidManifest, match=r"kai\.yaml:1: it"):
        field(f"it: {text}").command()


def test_unknown_keys_name_the_nearest():
    with pytest.raises(InvalidManifest) as caught:
        field("it:\n  enable: true\n  rollback_on_eror: true").mapping(("enable", "rollback_on_error"))
    assert caught.value.what == "kai.yaml:3: unknown key it.rollback_on_eror"
    assert caught.value.hint == "did you mean 'rollback_on_error'?"
    assert caught.value.facts["key"] == "it.rollback_on_eror"


def test_an_unknown_key_like_no_other_lists_the_known():
    with pytest.raises(InvalidManifest) as caught:
        field('it: {"\\e]0;x": 1}').mapping(("alpha", "beta"))
    assert caught.value.hint == "known keys: alpha, beta"
    assert caught.value.what.isprintable()


def test_a_missing_key_is_named():
    with pytest.raises(InvalidManifest, match="it lacks 'name'"):
        field("it: {path: x}").required(("path", "name"))


@pytest.mark.parametrize(
    ("text", "read_it", "words"),
    [
        ("'true'", Field.boolean, "must be true or false, not 'true'"),
        ("yes", Field.boolean, "must be true or false, not 'yes'"),
        ("1", Field.boolean, "must be true or false, not 1"),
        ("true", lambda it: it.integer(0, 9), "must be a whole number, not True"),
        ("10", lambda it: it.integer(0, 9), "must be from 0 to 9, not 10"),
        ("1.0", lambda it: it.integer(0, 9), "must be a whole number, not 1.0"),
        ("5", Field.text, "must be text, not 5"),
        ("''", Field.text, "not empty"),
        ("[a, 1]", Field.texts, r"it\[1\] must be text"),
        ("a", Field.texts, "must be a list, not 'a'"),
        ("[a]", Field.entries, "must be a mapping, not a list"),
        ("some", lambda it: it.choice(("full", "partial")), "must be full or partial, not 'some'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_shown(text, read_it, words):
    with pytest.raises(InvalidManifest, match=words):
        read_it(field(f"it: {text}"))


def test_a_document_that_is_no_mapping_is_refused():
    with pytest.raises(InvalidManifest, match="the document must be a mapping, not a list"):
        fields.root(b"- a\n", "kai.yaml", InvalidManifest).mapping(("a",))


def test_line_zero_is_left_out():
    error = yamltext.located(InvalidManifest, "command line", 0, "no")
    assert error.what == "command line: no"
    assert error.facts == {"file": "command line"}


@pytest.mark.parametrize(
    "text", ["1e3", "2e5", "no", "0o7", "0x1f", "12:30", "9" * 30, "~", "1_000", ".5", "a: b", "\u00fc #"]
)
def test_what_is_written_is_read_back(text: str) -> None:
    """PyYAML takes 1e3 for text, and this reader for a number: such a name was written, and never read again."""
    document = {"names": {text: {"path": text, "inode": 12, "on": True}}}
    assert (
        yamltext.values(yamltext.load(yamltext.dump(document, "x", InvalidManifest, ""), "x", InvalidManifest))
        == document
    )


def test_what_would_not_be_read_is_not_written() -> None:
    with pytest.raises(InvalidManifest, match="more than 5,000 values"):
        yamltext.dump({str(number): [1] for number in range(2000)}, "x", InvalidManifest, "fewer")
