"""docs/reference is what the code says: a page and a schema for each verb, and all errors."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaivc.cli.app import VERBS
from kaivc.errors import KaiError
from kaivc.settings import READERS, Isolation, Settings, parse_flags
from tests.cli import error_page
from tests.cli.reference import FIRST, PAGES, REFERENCE, examples, index, page, page_of, schema_of
from tests.cli.schema import SCHEMAS, load_schema, problems
from tests.conftest import ROOT


def text(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_what_the_commands_and_their_schemas_say(name: str) -> None:
    assert text(name) == page(name, text(name)), "make reference"


@pytest.mark.parametrize("name", PAGES)
def test_each_page_says_by_hand_what_only_a_person_can(name: str) -> None:
    assert FIRST not in text(name)
    shown = examples(text(name))
    assert all("  # " in line for line in shown), "an example says what it is for"
    for verb in VERBS:
        assert page_of(verb) != name or any(f"kai {verb}" in line for line in shown), verb


@pytest.mark.parametrize("name", sorted(path.stem for path in SCHEMAS.glob("*.json")))
def test_each_key_of_each_schema_is_described(name: str) -> None:
    whole = load_schema(name)
    for part in (whole, *whole.get("$defs", {}).values()):
        for key, inner in members(part):
            assert inner.get("description"), f"{name}: {key}"


@pytest.mark.parametrize("name", sorted(path.stem for path in SCHEMAS.glob("*.json")))
def test_each_schema_says_what_it_is_of_and_holds_nothing_unused(name: str) -> None:
    whole = load_schema(name)
    assert whole["$id"] == f"kai:{name}"
    assert whole["title"] in {f"kai {verb} --json" for verb in VERBS if schema_of(verb) == name} or name == "error"
    assert set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(whole))) == set(whole.get("$defs", ()))


def members(part: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, inner in part.get("properties", {}).items():
        yield key, inner
        yield from members(inner)
    yield from members(part["items"]) if "items" in part else ()


def test_what_is_by_hand_stays_and_the_rest_is_made_anew() -> None:
    mine = "Mine to say.\n\nIn two paragraphs.\n"
    old = (
        f"# kai wrong\n\n*Not so.*\n\n{mine}\n## JSON\n\n- `gone`: x\n\n## Examples\n\n```\nkai log bot  # all\n```\n\n"
        "## Why\n\nBecause.\n\n## Exit codes and errors\n\n0. E303 no such.\n\n| code | gone |\n"
    )
    new = page("log", old)
    assert "wrong" not in new
    assert "gone" not in new
    for kept in (
        mine,
        "kai log bot  # all",
        "## Why\n\nBecause.\n",
        "0. E303 no such.\n",
        "| E303 | 9 |",
        "`--oneline`",
    ):
        assert kept in new
    assert page("log", new) == new


def test_there_is_no_page_or_schema_without_a_verb() -> None:
    assert {path.stem for path in REFERENCE.glob("*.md")} == {*PAGES, "errors", "index", "settings"}
    assert {path.stem for path in (REFERENCE / "schemas").glob("*.json")} == {*map(schema_of, VERBS), "error"}


def test_the_index_is_what_the_commands_say() -> None:
    assert text("index") == index(text("index")), "make reference"


def test_the_page_of_errors_is_what_the_code_says() -> None:
    assert text("errors") == error_page.page(), "python -m tests.cli.error_page > docs/reference/errors.md"


def test_codes_are_unique() -> None:
    codes = [it.code for it in error_page.every(KaiError)]
    assert len(codes) == len(set(codes))


def test_the_page_of_settings_tells_each_and_its_default() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", text("settings"), re.MULTILINE))
    isolation = {f"isolation.{name}" for name in Isolation.__dataclass_fields__ if name != "given"}
    assert rows.keys() == READERS.keys() | isolation
    for key, default in rows.items():
        if key not in {"author", "head", "isolation.env"}:
            assert Settings.layered(parse_flags({key: default.strip("`")})) == Settings(), key


def anchors(path: Path) -> set[str]:
    """What can follow `#` in a link to a page, as hosts of git make it of headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda it: it.name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", path.read_text()):
        there = path.parent / target if target else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


def test_the_checker_of_schemas_can_say_no() -> None:
    one = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
    assert not problems({"a": 1}, one)
    wrongs: list[object] = [{}, {"a": True}, {"a": "1"}, {"a": 1, "b": 2}, [], None]
    for wrong in wrongs:
        assert problems(wrong, one), wrong
    assert problems("x", {"type": "string", "enum": ["y"]})
    assert problems("x", {"type": "string", "pattern": "^y"})
    assert problems([1, "x"], {"type": "array", "items": {"type": "integer"}})
