"""docs/reference is what the code says: a page and a schema for each verb, and all errors."""

import json
import re
from typing import Any

import pytest

from kaivc.cli.app import VERBS, load
from kaivc.errors import KaiError
from tests.cli.error_page import every, page
from tests.cli.schema import problems
from tests.conftest import ROOT

REFERENCE = ROOT / "docs" / "reference"
EVERYWHERE = {"--home", "--json", "--debug", "-c", "-h", "--help"}


def page_of(verb: str) -> str:
    """The verbs of a group share a page."""
    return verb.partition(" ")[0]


PAGES = sorted({page_of(verb) for verb in VERBS})


def text(verb: str) -> str:
    return (REFERENCE / f"{page_of(verb)}.md").read_text()


def schema_of(verb: str) -> str:
    return verb.replace(" ", "-")


def schema(verb: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((REFERENCE / "schemas" / f"{schema_of(verb)}.json").read_text())
    return loaded


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_a_page_with_all_its_options(verb: str) -> None:
    command = load(verb)
    options = {name for param in command.params for name in param.opts if name.startswith("-")}
    told = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text(verb)))
    assert options - EVERYWHERE <= told
    for heading in ("## Synopsis", "## Examples", "## JSON", "## Exit codes and errors"):
        assert heading in text(verb)


@pytest.mark.parametrize("name", PAGES)
def test_each_page_tells_all_keys_of_the_document(name: str) -> None:
    told = set(re.findall(r"^ *- `(\w+)`", text(name), re.MULTILINE))
    schemas = [schema(verb) for verb in VERBS if page_of(verb) == name]
    assert told == set().union(*(keys(each, each) for each in schemas))


def keys(part: dict[str, Any], root: dict[str, Any]) -> set[str]:
    if "$ref" in part:
        return keys(root["$defs"][part["$ref"].removeprefix("#/$defs/")], root)
    if "items" in part:
        return keys(part["items"], root)
    found = set(part.get("properties", ()))
    return found.union(*(keys(inner, root) for inner in part.get("properties", {}).values()))


def test_there_is_no_page_or_schema_without_a_verb() -> None:
    assert {path.stem for path in REFERENCE.glob("*.md")} == {*PAGES, "errors", "index"}
    assert {path.stem for path in (REFERENCE / "schemas").glob("*.json")} == {*map(schema_of, VERBS), "error"}


def summary(verb: str) -> str:
    return (load(verb).help or "").split("\n", 1)[0]


def test_the_index_names_each_verb() -> None:
    for verb in VERBS:
        assert f"[kai {verb}]({page_of(verb)}.md) | {summary(verb)}" in text("index")


def test_the_page_of_errors_is_what_the_code_says() -> None:
    assert text("errors") == page(), "python -m tests.cli.error_page > docs/reference/errors.md"


def test_codes_are_unique() -> None:
    codes = [it.code for it in every(KaiError)]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("verb", VERBS)
def test_each_page_names_only_codes_that_there_are(verb: str) -> None:
    assert set(re.findall(r"E\d{3}", text(verb))) <= {it.code for it in every(KaiError)}


def test_links_between_pages_lead_somewhere() -> None:
    for path in REFERENCE.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
            assert (REFERENCE / target).exists(), f"{path.name}: {target}"


def test_the_checker_of_schemas_can_say_no() -> None:
    one = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
    assert not problems({"a": 1}, one)
    wrongs: list[object] = [{}, {"a": True}, {"a": "1"}, {"a": 1, "b": 2}, [], None]
    for wrong in wrongs:
        assert problems(wrong, one), wrong
    assert problems("x", {"type": "string", "enum": ["y"]})
    assert problems("x", {"type": "string", "pattern": "^y"})
    assert problems([1, "x"], {"type": "array", "items": {"type": "integer"}})
