"""The parser of command lines, by typer: help, completion of words, and what is wrong with what was typed.

It is made of the same declarations that ``plain`` reads by, and imported only where that one gives up.
"""

from __future__ import annotations

import inspect
from functools import cache, partial
from itertools import pairwise
from types import FunctionType
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from kaivc import __version__
from kaivc.cli.app import GROUPS, VERBS, function
from kaivc.cli.arguments import BOTH, EVERYWHERE, REQUIRED, Option, Parameter, is_verb, parameters
from kaivc.cli.failures import USAGE, Misuse
from kaivc.cli.invocation import Invocation

CONTEXT = {"help_option_names": ["-h", "--help"]}

# The base of all that the parser raises. typer carries its own copy of click in some releases and takes the
# package in others; only the subclass is exported by name.
UsageError: type[Any] = typer.BadParameter.__bases__[0]


def run(args: list[str], invocation: Invocation) -> int:
    """Parse a command line and carry it out; the exit code. Misuse where it says nothing sensible."""
    group = build()
    try:
        with group.make_context("kai", list(args) or ["--help"], obj=invocation) as context:
            code = group.invoke(context)
    except typer.Exit as done:
        return done.exit_code if args else USAGE
    except typer.Abort:
        raise KeyboardInterrupt from None
    except UsageError as error:
        raise _misuse(error) from error
    return int(code or 0)


def _misuse(error: Any) -> Misuse:  # noqa: ANN401 - a UsageError
    possible = getattr(error, "possibilities", None)
    what = error.message if possible else error.format_message()
    command = error.ctx.command_path if error.ctx else "kai"
    hint = f"did you mean {', '.join(possible)}?" if possible else f"see `{command} --help`"
    return Misuse(what[:1].lower() + what[1:].rstrip("."), hint=hint)


# ---------------------------------------------------------------- verbs


class Verbs(TyperGroup):
    """The verbs of `kai`, or those of a group; none of them imported yet."""

    before = ""
    """What stands before them in VERBS: nothing, or the group's word and a space."""

    def list_commands(self, _: typer.Context) -> list[str]:  # type: ignore[override]
        """Their names."""
        inner = (verb.removeprefix(self.before) for verb in VERBS if verb.startswith(self.before))
        return list(dict.fromkeys(verb.split(" ", 1)[0] for verb in inner))

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | TyperGroup | None:  # type: ignore[override]
        """One of them, imported now."""
        if cmd_name not in self.list_commands(ctx):
            return None
        word = self.before + cmd_name
        return _group(word) if word in GROUPS else load(word)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]  # noqa: ANN401 - as typer has it
        """The verb and what follows it; the nearest names for one that is not there."""
        known = self.list_commands(ctx)
        if args[0] in BOTH and not self.before and is_verb(args[0], args[1:]):
            return args[0], load(args[0]), args[1:]
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            from kaivc.names import nearest

            close = [self.before + verb for verb in nearest(args[0], known)]
            hint = f"did you mean {', '.join(close)}?" if close else f"see `{ctx.command_path} --help`"
            if (word := self.before.strip()) in BOTH:
                hint += f"; `kai {word} {args[0]} {BOTH[word]} ...` takes it for an agent"
            raise Misuse(f"there is no command {self.before + args[0]!r}", hint=hint, nearest=close)
        return super().resolve_command(ctx, args)


class Command(TyperCommand):
    """Usage as git writes it: what must be given stands plain, not in braces."""

    alone: tuple[Parameter, ...] = ()
    """The options that may stand without a value."""

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """The words after the verb."""
        options, *rest = (piece.strip("{}") for piece in super().collect_usage_pieces(ctx))
        needed = [it for it in self.params if it.required and it.param_type_name == "option"]
        return [options, *(f"{it.opts[0]} {it.metavar}" for it in needed), *rest]

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """With the value of such an option, where none follows it."""
        end = args.index("--") if "--" in args else len(args)
        ours = args[:end]
        for it in self.alone:
            names, value = cast("Option", it.declared).names, cast("Option", it.declared).alone
            ours = [
                f"{word}={value}" if word in names and then not in it.choices else word
                for word, then in pairwise([*ours, ""])
            ]
        return super().parse_args(ctx, ours + args[end:])


@cache
def load(verb: str) -> TyperCommand | TyperGroup:
    """The parser of a verb's arguments, which imports it; of a group's verbs, which imports none.

    Of a word that is both, the verb's.
    """
    return _command(verb) if verb in VERBS else _group(verb)


def _command(verb: str) -> TyperCommand:
    called = function(verb)
    if called is None:
        raise KeyError(verb)
    takes = list(parameters(called))
    one = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    one.command(name=verb.rpartition(" ")[2], cls=Command, context_settings=CONTEXT, help=inspect.getdoc(called))(
        _called(called, takes)
    )
    command = cast("Command", get_command(one))
    command.alone = tuple(it for it in takes if isinstance(it.declared, Option) and it.declared.alone is not None)
    command.params.extend(_everywhere())
    return command


def _called(verb: FunctionType, takes: list[Parameter]) -> Any:  # noqa: ANN401 - a function that has the signature given to it
    """The verb as typer takes it: by its signature, with a context before the values."""

    def call(door: typer.Context, **values: Any) -> int | None:  # noqa: ANN401 - of any parameter
        code: int | None = verb(door.obj, **values)
        return code

    first = inspect.Parameter("door", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    vars(call)["__signature__"] = inspect.Signature([first, *map(_parameter, takes)])
    return call


def _parameter(it: Parameter) -> inspect.Parameter:
    declared = it.declared
    if isinstance(declared, Option):
        told = typer.Option(*declared.names, metavar=declared.metavar, help=declared.help, min=declared.min)
    else:
        told = typer.Argument(metavar=declared.metavar, help=declared.help)
    default = inspect.Parameter.empty if it.default is REQUIRED else it.default
    return inspect.Parameter(
        it.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[it.annotation, told]
    )


def _group(word: str) -> TyperGroup:
    app = typer.Typer(cls=Verbs, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    option = BOTH.get(word)
    also = option and f"`kai {word} AGENT {option} ...` is a command by itself: `kai {word} AGENT {option} X --help`."
    app.callback(context_settings=CONTEXT, help=GROUPS[word], epilog=also)(lambda: None)
    group = cast("Verbs", get_command(app))
    group.name, group.before = word, word + " "
    group.params.extend(_everywhere())
    return group


def build() -> TyperGroup:
    """The parser of a whole command line."""
    app = typer.Typer(
        cls=Verbs, context_settings=CONTEXT, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    app.callback()(_kai)
    group = cast("TyperGroup", get_command(app))
    group.params[1:1] = _everywhere()
    return group


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"kai {__version__}")
        raise typer.Exit


def _kai(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_tell_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    """Versions of AI agents: code, configuration, state and dependencies together.

    Options of this page stand before or after the command.
    """


# ---------------------------------------------------------------- options of every verb


def _everywhere() -> list[TyperOption]:
    option = partial(TyperOption, expose_value=False, callback=_remember)
    return [
        option(
            param_decls=[*cast("Option", it.declared).names, it.name],
            type=it.type,
            is_flag=it.type is bool,
            multiple=it.many,
            metavar=cast("Option", it.declared).metavar,
            help=it.declared.help,
        )
        for it in EVERYWHERE
    ]


def _remember(context: typer.Context, option: TyperOption, value: Any) -> None:  # noqa: ANN401 - of any option
    invocation: Invocation = context.obj
    for one in (value or ()) if option.multiple else filter(None, [value]):
        if not invocation.take(str(option.name), one):
            raise typer.BadParameter(f"{one!r} is not KEY=VALUE", param_hint="-c")
