"""The tree of verbs, each imported when it is called, with the options that all of them take."""

from __future__ import annotations

import importlib
import sys
from functools import cache, partial
from keyword import iskeyword
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from kaivc import __version__
from kaivc.cli.failures import INTERRUPTED, USAGE, Misuse, UsageError, report
from kaivc.cli.invocation import Invocation
from kaivc.cli.verb import Verb

VERBS = (
    "init",
    "new",
    "import",
    "commit",
    "status",
    "log",
    "versions",
    "show",
    "diff",
    "cat",
    "ls-tree",
    "rev-parse",
    "rollback",
    "undo",
    "redo",
    "restore",
    "reflog",
    "run",
    "verify",
    "fsck",
    "audit",
    "checkout",
    "export",
    "gc",
    "doctor",
    "completion",
    "agent list",
    "agent rename",
    "agent remove",
    "agent link",
)
"""Every command, in the order of `kai --help`. One of two words is a verb of a group."""

GROUPS = {"agent": "List, rename, remove and link agents."}
"""The first words of such commands, and what is said of them."""

CONTEXT = {"help_option_names": ["-h", "--help"]}


LEFT_OPEN: list[Invocation] = []
"""What a process that is about to leave has open."""


def run(args: list[str], *, leaving: bool = False) -> int:
    """Carry out a command line; the exit code. Every error but a broken pipe ends here.

    A process that is ``leaving`` does not close what is open.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    invocation = Invocation()
    try:
        return _run(args, invocation)
    except BrokenPipeError:
        raise
    except (UsageError, Misuse) as error:
        return report(error, _expected(args))
    except (KeyboardInterrupt, typer.Abort):
        invocation.clear()
        print("kai: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the door: whatever happened, it is said in one line
        return report(error, invocation)
    finally:
        if leaving:
            LEFT_OPEN.append(invocation)
        else:
            invocation.close()


def _expected(args: list[str]) -> Invocation:
    """How to answer when the arguments could not be understood."""
    ours = args[: args.index("--")] if "--" in args else args
    return Invocation(json="--json" in ours, debug="--debug" in ours)


def _run(args: list[str], invocation: Invocation) -> int:
    group = build()
    try:
        with group.make_context("kai", list(args) or ["--help"], obj=invocation) as context:
            code = group.invoke(context)
    except typer.Exit as done:
        return done.exit_code if args else USAGE
    return int(code or 0)


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
        return load(self.before + cmd_name) if cmd_name in self.list_commands(ctx) else None

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]  # noqa: ANN401 - as typer has it
        """The verb and what follows it; the nearest names for one that is not there."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            from kaivc.names import nearest

            close = [self.before + verb for verb in nearest(args[0], known)]
            hint = f"did you mean {', '.join(close)}?" if close else f"see `{ctx.command_path} --help`"
            raise Misuse(f"there is no command {self.before + args[0]!r}", hint=hint, nearest=close)
        return super().resolve_command(ctx, args)


@cache
def load(verb: str) -> TyperCommand | TyperGroup:
    """The parser of a verb's arguments, which imports it; of a group's verbs, which imports none."""
    return _group(verb) if verb in GROUPS else _command(verb)


def _command(verb: str) -> TyperCommand:
    name = verb.replace(" ", "_").replace("-", "_") + "_" * iskeyword(verb)
    module = importlib.import_module("kaivc.cli.commands." + name)
    one = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    cls = getattr(module, "Parser", Verb)
    one.command(name=verb.rpartition(" ")[2], cls=cls, context_settings=CONTEXT)(getattr(module, name))
    command = cast("TyperCommand", get_command(one))
    command.params.extend(_everywhere())
    return command


def _group(word: str) -> TyperGroup:
    app = typer.Typer(cls=Verbs, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(context_settings=CONTEXT, help=GROUPS[word])(lambda: None)
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
            param_decls=["--home"],
            type=str,
            metavar="DIR",
            help="The home, or a directory in it. [env: KAI_HOME; else the working directory]",
        ),
        option(param_decls=["--json"], type=bool, is_flag=True, help="Print one JSON document."),
        option(param_decls=["--debug"], type=bool, is_flag=True, help="Show tracebacks."),
        option(
            param_decls=["-c", "config"],
            type=str,
            multiple=True,
            metavar="KEY=VALUE",
            help="A setting, as `lock.wait=10s`; may be repeated.",
        ),
    ]


def _remember(context: typer.Context, option: TyperOption, value: Any) -> None:  # noqa: ANN401 - of any option
    invocation: Invocation = context.obj
    if option.name == "config":
        invocation.flags.update(_setting(text) for text in value or ())
    elif value and option.name:
        setattr(invocation, option.name, value)


def _setting(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="-c")
    return key, value
