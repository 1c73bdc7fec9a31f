"""As much of JSON Schema (draft 2020-12) as docs/reference/schemas uses; an unknown keyword is an error."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.conftest import ROOT

SCHEMAS = ROOT / "docs" / "reference" / "schemas"

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
ANNOTATIONS = {"$schema", "$id", "$defs", "title", "description"}
KEYWORDS = {
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "pattern",
    "minimum",
    "$ref",
}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None, at: str = "$") -> list[str]:
    """What in a value is not as the schema says."""
    root = schema if root is None else root
    unknown = schema.keys() - ANNOTATIONS - KEYWORDS
    assert not unknown, f"the checker does not know {unknown}"
    if "$ref" in schema:
        return problems(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, at)
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(_is(value, kind) for kind in kinds):
        return [f"{at}: {value!r} is no {' or '.join(kinds)}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is none of {schema['enum']}")
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{at}: {value!r} does not match {schema['pattern']}")
    if _is(value, "integer") and value < schema.get("minimum", value):
        found.append(f"{at}: {value} is too small")
    if isinstance(value, list):
        for number, item in enumerate(value):
            found += problems(item, schema["items"], root, f"{at}[{number}]")
    if isinstance(value, dict) and "properties" in schema:
        found += _members(value, schema, root, at)
    return found


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and not (kind == "integer" and isinstance(value, bool))


def _members(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], at: str) -> list[str]:
    found = [f"{at}: {key} is missing" for key in schema.get("required", ()) if key not in value]
    for key, member in value.items():
        if key in schema["properties"]:
            found += problems(member, schema["properties"][key], root, f"{at}.{key}")
        elif not schema.get("additionalProperties", False):
            found.append(f"{at}: {key} is not documented")
    return found


# ---------------------------------------------------------------- for people


def load_schema(name: str) -> dict[str, Any]:
    """One schema."""
    loaded: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text())
    return loaded


def told(schema: dict[str, Any]) -> str:
    """A line for each key, those within it below, further in."""
    return "".join(line + "\n" for line in _keys(schema, schema, 0))


def _keys(part: dict[str, Any], root: dict[str, Any], depth: int) -> Iterator[str]:
    seen = _followed(part, root)
    seen = _followed(seen.get("items", seen), root)
    for key, inner in seen.get("properties", {}).items():
        sometimes = "" if key in seen.get("required", ()) else " (not always there)"
        yield f"{'  ' * depth}- `{key}` ({_kind(_followed(inner, root))}): {inner['description']}{sometimes}"
        yield from _keys(inner, root, depth + 1)


def _followed(part: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    found: dict[str, Any] = root["$defs"][part["$ref"].removeprefix("#/$defs/")]
    return found


def _kind(part: dict[str, Any]) -> str:
    kinds = [part["type"]] if isinstance(part["type"], str) else part["type"]
    return " or ".join(kinds)
