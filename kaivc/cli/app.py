"""The verbs, and how a command line is carried out."""

from __future__ import annotations

import importlib
import sys
from keyword import iskeyword
from types import FunctionType

from kaivc.cli import plain
from kaivc.cli.failures import INTERRUPTED, Misuse, report
from kaivc.cli.invocation import Invocation
from kaivc.cli.terminal import tell

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
    "snapshot",
    "snapshot list",
    "snapshot show",
    "snapshot promote",
    "snapshot drop",
    "verify",
    "fsck",
    "audit",
    "checkout",
    "export",
    "gc",
    "bundle create",
    "bundle verify",
    "bundle unbundle",
    "renumber",
    "doctor",
    "completion",
    "remote add",
    "remote list",
    "remote remove",
    "remote rename",
    "clone",
    "fetch",
    "pull",
    "push",
    "mirror",
    "serve",
    "token add",
    "token list",
    "token revoke",
    "role grant",
    "role list",
    "role revoke",
    "agent list",
    "agent rename",
    "agent remove",
    "agent link",
)
"""Every command, in the order of `kai --help`. One of two words is a verb of a group."""

GROUPS = {
    "snapshot": "Test a version in a layer; list, show, promote, drop snapshots.",
    "remote": "Add, list, remove and rename remotes: other homes, git repositories, bundles.",
    "bundle": "Put agents into a file, look at it, take in what it holds.",
    "token": "Make, list and revoke tokens for `kai serve`.",
    "role": "Grant, list and revoke roles of users of this machine.",
    "agent": "List, rename, remove and link agents.",
}
"""The first words of such commands, and what is said of them; one may be a verb too (``arguments.BOTH``)."""


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
    except Misuse as error:
        return report(error, _expected(args))
    except KeyboardInterrupt:
        invocation.clear()
        tell("kai: interrupted")
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
    found = plain.read(args, function, invocation)
    if found is None:
        from kaivc.cli import parser

        return parser.run(args, invocation)
    verb, values = found
    code: int | None = verb(invocation, **values)
    return code or 0


def function(verb: str) -> FunctionType | None:
    """What carries out a verb, imported now; None if there is no such verb."""
    if verb not in VERBS:
        return None
    name = verb.replace(" ", "_").replace("-", "_") + "_" * iskeyword(verb)
    found: FunctionType = getattr(importlib.import_module("kaivc.cli.commands." + name), name)
    return found
