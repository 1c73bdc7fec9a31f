"""kaivc/cli/words.py, what a shell completes, as the commands say it: python -m tests.cli.words (make reference)."""

import json
from typing import Any

from kaivc.cli import app, parser
from kaivc.settings import READERS, Isolation
from tests.conftest import ROOT

PATH = ROOT / "kaivc" / "cli" / "words.py"
HEAD = '''"""The commands, their arguments and options, for a shell's completion, which cannot wait for a parser.

`make reference` writes this file from the commands; a test compares them.
"""

from __future__ import annotations

Options = dict[str, tuple[str, str]]
"""By name: the kind of its value, empty for a flag, and its help."""

# fmt: off
# ruff: noqa: E501, Q003
'''
KINDS = {
    "AGENT": "agent",
    "OLD": "agent",
    "AGENT[@REV]": "agentrev",
    "AGENT@REV": "agentrev",
    "AGENT@VERSION": "agentrev",
    "REV": "rev",
    "REF": "ref",
    "PATH": "path",
    "DIR": "dirs",
    "FILE": "files",
    "-- CMD": "files",
    "KEY=VALUE": "setting",
    "AGENT@REV|DIR": "source",
    "SNAPSHOT": "snapshot",
    "PATTERN": "agent",
    "ROLE": "=viewer|tester|operator|maintainer|admin",
    "REMOTE": "remote",
    "URL": "dirs",
}
"""By metavar. Whatever else there is, a shell cannot know."""


def kind(param: Any) -> str:
    """What a parameter takes: empty for a flag, else a kind, `=a|b` for a choice, `text` for anything."""
    if getattr(param, "is_flag", False):
        return ""
    choices = getattr(param.type, "choices", None)
    if choices:
        return "=" + "|".join(map(str, choices))
    metavar = param.metavar or ""
    bare = metavar[1:-1] if metavar.startswith("[") and metavar.endswith("]") else metavar
    return KINDS.get(bare.removesuffix("..."), "text") + ("..." if param.nargs == -1 else "")


def options(command: Any) -> dict[str, tuple[str, str]]:
    """The options of a command, each by all its names."""
    shown = (it for it in command.params if it.param_type_name == "option" and not it.hidden)
    return {name: (kind(it), it.help or "") for it in shown for name in (*it.opts, *it.secondary_opts)}


def positionals(command: Any) -> tuple[str, ...]:
    """The kinds of a command's arguments, in order."""
    return tuple(kind(it) for it in command.params if it.param_type_name == "argument")


def summary(text: str | None) -> str:
    """The first line of a help."""
    return (text or "").split("\n", 1)[0]


def text() -> str:
    """The file."""
    everywhere = {name: (kind(it), it.help or "") for it in parser._everywhere() for name in it.opts if name[0] == "-"}
    everywhere |= dict.fromkeys(("-h", "--help"), ("", "Tell what it does and takes."))
    commands = {}
    for verb in app.VERBS:
        command = parser.load(verb)
        own = {name: it for name, it in options(command).items() if name not in everywhere}
        commands[verb] = (summary(command.help), positionals(command), own)
    settings = sorted([*READERS, *(f"isolation.{name}" for name in Isolation.__dataclass_fields__ if name != "given")])
    parts = {
        "EVERYWHERE: Options": everywhere,
        "SETTINGS: tuple[str, ...]": tuple(settings),
        "GROUPS: dict[str, str]": app.GROUPS,
        "COMMANDS: dict[str, tuple[str, tuple[str, ...], Options]]": commands,
    }
    return HEAD + "\n".join(f"{name} = {_literal(value)}\n" for name, value in parts.items())


def _literal(value: Any, depth: int = 0) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    margin, inner = "    " * depth, "    " * (depth + 1)
    if isinstance(value, dict):
        lines = (f"{inner}{_literal(key)}: {_literal(it, depth + 1)},\n" for key, it in value.items())
        return "{\n" + "".join(lines) + margin + "}" if value else "{}"
    if all(isinstance(it, str) for it in value):
        return "(" + ", ".join(map(_literal, value)) + ("," if len(value) == 1 else "") + ")"
    return "(\n" + "".join(f"{inner}{_literal(it, depth + 1)},\n" for it in value) + margin + ")"


if __name__ == "__main__":
    PATH.write_text(text())
