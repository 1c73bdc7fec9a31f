"""What a verb takes on its command line: how it is declared, and the declarations that several verbs share.

A verb is a function: the first parameter is the door, each other one is ``Annotated`` with an ``Argument`` or an
``Option``. Both readers of command lines, ``plain`` and ``parser``, go by these declarations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

REQUIRED = ...
"""The default of what must be given."""


class Argument:
    """Given by its place."""

    __slots__ = ("help", "metavar")

    def __init__(self, *, metavar: str, help: str) -> None:  # noqa: A002 - as the parser calls it
        self.metavar, self.help = metavar, help


class Option:
    """Given by one of its names. ``alone`` is its value where none follows; ``min`` bounds a number."""

    __slots__ = ("alone", "help", "metavar", "min", "names")

    def __init__(
        self,
        *names: str,
        help: str,  # noqa: A002 - as the parser calls it
        metavar: str | None = None,
        min: int | None = None,  # noqa: A002 - as the parser calls it
        alone: str | None = None,
    ) -> None:
        self.names, self.help, self.metavar, self.min, self.alone = names, help, metavar, min, alone


class Parameter:
    """One parameter of a verb, as its declaration and its annotation say.

    ``type`` is str, int or bool; ``choices`` are the only texts that it takes, if there are any; of ``many`` there may
    be several, which make a list.
    """

    __slots__ = ("annotation", "choices", "declared", "default", "many", "name", "type")

    def __init__(self, name: str, annotation: Any, declared: Argument | Option, default: object) -> None:  # noqa: ANN401
        self.name, self.annotation, self.declared, self.default = name, annotation, declared, default
        kinds = get_args(annotation)
        bare = kinds[0] if type(None) in kinds else annotation
        self.many = get_origin(bare) is list
        self.choices: tuple[str, ...] = get_args(bare) if get_origin(bare) is Literal else ()
        self.type: type = str if self.many or self.choices else bare


def parameters(verb: FunctionType) -> Iterator[Parameter]:
    """What a verb takes behind the door, in order."""
    hints = get_type_hints(verb, include_extras=True)
    names = verb.__code__.co_varnames[1 : verb.__code__.co_argcount]
    defaults = verb.__defaults__ or ()
    given = dict(zip(reversed(names), reversed(defaults), strict=False))
    for name in names:
        annotation, declared = get_args(hints[name])
        yield Parameter(name, annotation, declared, given.get(name, REQUIRED))


# ---------------------------------------------------------------- what several verbs take

Agent = Annotated[str, Argument(metavar="AGENT", help="The agent.")]
AgentRev = Annotated[
    str, Argument(metavar="AGENT[@REV]", help="The agent, and a revision of it; `current` unless said.")
]
DryRun = Annotated[bool, Option("--dry-run", help="Say what would happen; do nothing.")]
ExitCode = Annotated[bool, Option("--exit-code", help="Exit with 1 if there are differences.")]
Limit = Annotated[int | None, Option("-n", metavar="N", min=1, help="Show at most N.")]
Live = Annotated[bool, Option("--live", help="Go on beside a running agent.")]
OpId = Annotated[
    str | None, Option("--op-id", metavar="ID", help="A name for this operation; repeated with it, it happens once.")
]
Reason = Annotated[str, Option("--reason", metavar="TEXT", help="Why; it goes into the log.")]

SNAPSHOT = Argument(metavar="SNAPSHOT", help="Its id; AGENT@ID where several agents have it.")

# ---------------------------------------------------------------- a word that is a verb, and the first of others

BOTH = {"snapshot": "--test"}
"""By word: the option that makes it the verb itself; without it the next word says which of its verbs is meant."""


def is_verb(word: str, rest: Sequence[str]) -> bool:
    """Whether a word is a verb by itself, given all that follows it; an agent may be called as a group's verb is."""
    option = BOTH.get(word)
    ours = rest[: rest.index("--")] if "--" in rest else rest
    return option is None or any(it.partition("=")[0] == option for it in ours)


# ---------------------------------------------------------------- what all of them take

EVERYWHERE = (
    Parameter(
        "home",
        str,
        Option(
            "--home",
            metavar="DIR",
            help="The home, or a directory in it. [env: KAI_HOME; else the working directory]",
        ),
        None,
    ),
    Parameter("json", bool, Option("--json", help="Print one JSON document."), default=False),
    Parameter("debug", bool, Option("--debug", help="Show tracebacks."), default=False),
    Parameter(
        "config",
        list[str],
        Option("-c", metavar="KEY=VALUE", help="A setting, as `lock.wait=10s`; may be repeated."),
        None,
    ),
)
"""They may stand before or behind the words of the verb; ``Invocation.take`` takes them."""
