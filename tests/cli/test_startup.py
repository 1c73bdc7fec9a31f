"""What a command's process costs: what it imports, and its CPU time beside that of an interpreter that does nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaivc import __version__
from kaivc.cli.app import VERBS
from kaivc.cli.parser import build, load
from tests.cli.doors import process

# ---------------------------------------------------------------- the modules

PARTIES = {"msgpack", "xxhash", "zstandard"}
"""The packages of others that reading a home takes. PyYAML only where a file has more in it than comments."""

DOOR = """
    kaivc kaivc.cli kaivc.cli.main
"""

COMMON = """
    kaivc.agent kaivc.api kaivc.capture kaivc.cli.app kaivc.cli.arguments kaivc.cli.commands kaivc.cli.escape
    kaivc.cli.failures
    kaivc.cli.invocation kaivc.cli.plain kaivc.cli.progress kaivc.cli.render kaivc.cli.terminal kaivc.dirtree
    kaivc.errors kaivc.fields kaivc.ignore kaivc.layout kaivc.leases kaivc.links kaivc.manifest kaivc.names
    kaivc.opening
    kaivc.ops kaivc.patterns kaivc.plans kaivc.ports kaivc.reading kaivc.records kaivc.refs kaivc.repository
    kaivc.roots kaivc.settings kaivc.sinks kaivc.sqlitefiles kaivc.standing kaivc.storage kaivc.storage.bases
    kaivc.storage.blocks kaivc.storage.caches kaivc.storage.catalog kaivc.storage.chunking kaivc.storage.compression
    kaivc.storage.gitobjects kaivc.storage.index kaivc.storage.journal kaivc.storage.pack kaivc.storage.planes
    kaivc.storage.readonly kaivc.storage.store kaivc.trees kaivc.versions kaivc.vfs kaivc.yamltext
"""

MODULES = {
    "--version": DOOR,
    "status": DOOR + COMMON + "kaivc.cli.agents kaivc.cli.commands.status kaivc.ops.status",
    "rollback bot --to v1.0.0": DOOR
    + COMMON
    + """
    kaivc.cli.commands.rollback kaivc.donor kaivc.inforce kaivc.intents kaivc.keeping kaivc.materialise kaivc.movement
    kaivc.ops.authorize kaivc.ops.rollback kaivc.paths kaivc.relocation kaivc.retention kaivc.revisions
    kaivc.storage.writer kaivc.views kaivc.workspace
    """,
}
"""By command line: each module of ours, no more and no less."""

HEAVY = """
    argparse ast asyncio base64 bz2 concurrent ctypes dataclasses decimal difflib dis email fractions getpass html http
    importlib.metadata importlib.resources inspect locale logging lzma multiprocessing pathlib pickle random secrets
    selectors shlex shutil signal socket ssl subprocess tempfile tokenize traceback unicodedata unittest urllib uuid
    weakref xml zipfile zlib
"""
"""Of the standard library, what costs, and what reading a home does not need."""

MORE = (
    "{line!r} imports {more}, which it did not before. A module costs each such process 0.2 to 10 ms: import it in the "
    "function that needs it; or, if every such command needs it, add it to the list in this file, and measure "
    "(docs/design/engine.md, Start-up)."
)
FEWER = "{line!r} does not import {fewer} any more: take that off the list in this file."


def imported(*args: str, cwd: Path) -> set[str]:
    """The modules that a command line adds to those of an interpreter that has just begun."""
    script = """if True:
        import sys
        before = set(sys.modules)
        from kaivc.cli.main import main
        main()
        print(*set(sys.modules) - before, file=sys.stderr)
    """
    # Measuring coverage imports modules of its own.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", script, *args]
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("line", MODULES)
def test_a_command_imports_what_it_needs(line: str, home: Path) -> None:
    names = imported(*line.split(), cwd=home)
    listed, allowed = set(MODULES[line].split()), set() if line == "--version" else PARTIES
    ours = {name for name in names if name.split(".")[0] == "kaivc"}
    others = {name.split(".")[0] for name in names - ours if "cython" not in name} - set(sys.stdlib_module_names)
    heavy = names & {*HEAVY.split(), *({"json"} if line == "status" else ())}
    more = sorted((ours - listed) | (others - allowed) | heavy)
    fewer = sorted((listed - ours) | (allowed - others))
    assert not more, MORE.format(line=line, more=", ".join(more))
    assert not fewer, FEWER.format(line=line, fewer=", ".join(fewer))


def test_the_version_is_told_without_a_parser() -> None:
    assert process("--version").out == f"kai {__version__}\n"
    assert process("-V", "--json").out == f"kai {__version__}\n"


@pytest.mark.parametrize("line", ["rollback bot --to v1.0.0 --dry-run --json", "log bot", "agent list", "reflog bot"])
def test_other_commands_import_no_parser_and_no_yaml(line: str, home: Path) -> None:
    names = imported(*line.split(), cwd=home)
    assert not names & {*HEAVY.split(), "typer", "click", "rich", "dulwich", "yaml"}


def test_help_opens_no_store(tmp_path: Path) -> None:
    names = imported("--help", cwd=tmp_path)
    assert not names & {"rich", "sqlite3", "kaivc.api", "kaivc.storage.store", "zstandard"}


# ---------------------------------------------------------------- the time

ROUNDS = 7
TIMES = {
    "--version": 2,
    "status": 8,
    "rollback bot --to v1.0.0 --dry-run": 8,
    "log bot": 10,
    "commit bot --allow-empty": 10,
}
"""By command line: how often the CPU time of `python -c pass` it may take. Half of that is usual."""


def cpu_seconds(argv: list[str], cwd: Path, environ: dict[str, str]) -> float:
    """User and system time of one process; the best of several is the least disturbed."""
    with subprocess.Popen(argv, cwd=cwd, env=environ, stdout=subprocess.DEVNULL) as child:
        used = os.wait4(child.pid, 0)[2]
        child.returncode = 0
    return used.ru_utime + used.ru_stime


def test_a_command_is_not_much_slower_than_an_interpreter(home: Path, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTHON"))}
    environ["PYTHONPYCACHEPREFIX"] = str(tmp_path)  # compiled once, as an installed package is
    script = ["-c", "from kaivc.cli.main import script; script()"]
    commands = {line: [sys.executable, *script, *line.split()] for line in TIMES}
    commands["nothing"] = [sys.executable, "-c", "pass"]
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(ROUNDS):
        for line, argv in commands.items():
            best[line] = min(best[line], cpu_seconds(argv, home, environ))
    ratios = {line: best[line] / best["nothing"] for line in TIMES}
    assert {line: it for line, it in ratios.items() if it > TIMES[line]} == {}, ratios


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_by_both_names(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from kaivc.cli.main import main

    for option in ("-h", "--help"):
        assert main([*verb.split(" "), option]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"Usage: kai {verb} ")
        assert "--home DIR" in out


def test_the_summaries_fit_their_column() -> None:
    words = [verb.partition(" ")[0] for verb in VERBS]
    assert list(build().list_commands(None)) == list(dict.fromkeys(words))  # type: ignore[arg-type]
    for verb in VERBS:
        summary = (load(verb).help or "").split("\n", 1)[0]
        assert summary.endswith("."), verb
        assert len(summary) <= 66, verb
