"""docs/reference, as far as the code says what stands there: python -m tests.cli.reference writes it (make reference).

A page of a command is made of sections. From the command's parameters and its schema come the summary, Synopsis,
Arguments and options, JSON, and the table of codes. By hand are the introduction, Examples, what stands above the table
of codes (it names them), and sections of other names.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from kaivc.cli.app import VERBS
from kaivc.cli.parser import CONTEXT, _everywhere, build, load
from kaivc.errors import KaiError
from tests.cli import error_page
from tests.cli.schema import load_schema, told
from tests.conftest import ROOT

REFERENCE = ROOT / "docs" / "reference"
ORDER = ("Synopsis", "Arguments and options", "Examples", "JSON", "Exit codes and errors")
NOTE = (
    "<!-- `make reference` writes this page; the introduction, the examples and the remarks on codes are by hand. -->"
)
INDEX_NOTE = "<!-- `make reference` writes the first two tables of this page. -->"
TABLE = "| | |\n|---|---|\n"
CODES = "| code | exit | meaning |\n|---|---|---|\n"
FOR_ALL = "Options of every command: [index](index.md#options-of-every-command).\n"
ALL_CODES = "All codes: [errors](errors.md)."
FIRST = "Say here what it does.\n"
EVERYWHERE = {it.name for it in _everywhere()}

Sections = dict[str, str]


# ---------------------------------------------------------------- the commands


def page_of(verb: str) -> str:
    """The name of a verb's page; the verbs of a group share one."""
    return verb.partition(" ")[0]


def schema_of(verb: str) -> str:
    """The name of a verb's schema."""
    return verb.replace(" ", "-")


PAGES = tuple(dict.fromkeys(map(page_of, VERBS)))


def summary(word: str) -> str:
    """The first line of the help of a verb or a group."""
    return str(load(word).help or "").split("\n", 1)[0]


# ---------------------------------------------------------------- a page


def page(name: str, old: str) -> str:
    """The page of a verb or of a group as it should be: what is by hand is taken from the old one."""
    introduction, sections = taken_apart(old)
    verbs = [verb for verb in VERBS if page_of(verb) == name]
    own = {
        **sections,
        "Synopsis": _fenced("\n".join(map(_usage, verbs))),
        "Arguments and options": _each(verbs, _options) + FOR_ALL,
        "Examples": sections.get("Examples", _fenced(f"kai {verbs[0]}")),
        "JSON": _each(verbs, _json),
        "Exit codes and errors": _errors(sections.get("Exit codes and errors", "0 when done.\n")),
    }
    names = [*ORDER, *(heading for heading in own if heading not in ORDER)]
    head = (f"{NOTE}\n", f"# kai {name}\n", f"*{summary(name)}*\n", _by_hand(introduction) or FIRST)
    return "\n".join([*head, *(f"## {heading}\n\n{own[heading]}" for heading in names)])


def taken_apart(text: str) -> tuple[str, Sections]:
    """What stands above the first section, and the sections by heading."""
    introduction, *rest = re.split(r"^## (.+)\n+", text, flags=re.MULTILINE)
    contents = (body.rstrip() + "\n" for body in rest[1::2])
    return introduction, dict(zip(rest[0::2], contents, strict=True))


def examples(text: str) -> list[str]:
    """The lines of a page's Examples."""
    block = re.search(r"```\n(.*?)```", taken_apart(text)[1]["Examples"], re.DOTALL)
    return block[1].splitlines() if block else []


def _by_hand(introduction: str) -> str:
    """The introduction without its title, the note and the summary."""
    lines = (line for line in introduction.splitlines() if not re.match(r"# |<!-- `make|\*[^*].*\*$", line))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n" * bool(introduction.strip())


def _fenced(text: str) -> str:
    return f"```\n{text}\n```\n"


def _each(verbs: list[str], part: Callable[[str], str]) -> str:
    """What is told of each verb, below its name if there are several."""
    if len(verbs) == 1:
        return part(verbs[0])
    return "\n".join(f"### kai {verb}\n\n{part(verb) or 'None of its own.'}" for verb in verbs)


def _context(command: Any) -> typer.Context:
    """One as `kai` makes it: a command keeps the option of help that it is first asked for."""
    return typer.Context(command, help_option_names=CONTEXT["help_option_names"])


def _usage(verb: str) -> str:
    command = load(verb)
    return " ".join(("kai", verb, *command.collect_usage_pieces(_context(command))))


def _options(verb: str) -> str:
    command = load(verb)
    context = _context(command)
    shown = (it for it in command.params if it.name not in EVERYWHERE and not getattr(it, "hidden", False))
    rows = "".join(_row(it, context) for it in shown)
    return f"{TABLE}{rows}\n" if rows else ""


def _row(param: Any, context: typer.Context) -> str:
    names, help_ = param.get_help_record(context)
    return f"| `{_cell(names)}` | {_cell(help_)} |\n"


def _cell(text: str) -> str:
    return re.sub(" +", " ", text.removesuffix("  [required]")).replace("|", "\\|")


def _errors(remarks: str) -> str:
    """What is said by hand, and below it each code that it names."""
    said = re.split(r"^\| code |^All codes:", remarks, flags=re.MULTILINE)[0].rstrip()
    known = {it.code: it for it in error_page.every(KaiError)}
    named = sorted(set(re.findall(r"\bE\d{3}\b", said)))
    rows = "".join(f"| {it} | {known[it].exit_code} | {error_page.summary(known[it])} |\n" for it in named)
    return "\n\n".join(filter(None, (said, (CODES + rows).rstrip() if rows else "", ALL_CODES))) + "\n"


def _json(verb: str) -> str:
    name = schema_of(verb)
    head = f"With `--json`, one document on stdout ([schema](schemas/{name}.json)):\n\n"
    return head + told(load_schema(name))


# ---------------------------------------------------------------- the index


def index(old: str) -> str:
    """The page of all commands; what follows its first two tables is by hand."""
    _, sections = taken_apart(old)
    title = "# Commands\n\n| command | |\n|---|---|\n"
    rows = (f"| [kai {verb}]({page_of(verb)}.md) | {summary(verb)} |\n" for verb in VERBS)
    sections["Options of every command"] = _options_of_every_command()
    by_hand = "".join(f"\n## {name}\n\n{body}" for name, body in sections.items())
    return f"{INDEX_NOTE}\n\n{title}{''.join(rows)}\n{ERRORS}{by_hand}"


ERRORS = "[Errors and exit codes](errors.md), [settings](settings.md)\n"
OF_KAI = "`-h` or `--help` tells what a command takes; `kai --version` prints the version.\n"


def _options_of_every_command() -> str:
    context = _context(build())
    rows = "".join(_row(it, context) for it in _everywhere())
    return f"They stand before or after the command.\n\n{TABLE}{rows}\n{OF_KAI}"


# ---------------------------------------------------------------- all of them


def pages() -> dict[Path, str]:
    """The text that each page should have."""
    made = {REFERENCE / "errors.md": error_page.page()}
    for name in PAGES:
        path = REFERENCE / f"{name}.md"
        made[path] = page(name, path.read_text() if path.exists() else "")
    path = REFERENCE / "index.md"
    return made | {path: index(path.read_text())}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
