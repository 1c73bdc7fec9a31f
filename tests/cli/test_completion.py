"""What TAB does: in a real bash, zsh and fish on a terminal, and what kai tells them."""

import os
import pty
import resource
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kaivc.cli import completing
from kaivc.cli.bashwords import Line
from kaivc.cli.main import main
from tests.cli import words
from tests.cli.conftest import Kai
from tests.cli.doors import KAI, process
from tests.conftest import Ids, require_tool, run_as
from tests.engine.homes import commit, make_home
from tests.engine.test_readonly import everything, let_read

BREAKS = " \t\n\"'@><=;|&(:"
TIMEOUT = 20

HOSTILE = {
    "$(touch pwned)": b"1",
    "`touch pwned`": b"1",
    "new\nline": b"1",
    "it's; touch pwned": b"1",
    "src dir/deep & file.py": b"1",
    "logic.py": b"1",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, the working directory, with `summarizer`: v1.0.0, v1.1.0, a backup; and `tester`, empty."""
    home = make_home(tmp_path / "agents")
    agent = home.new("summarizer")
    commit(agent, HOSTILE)
    (agent.workspace / os.fsdecode(b"caf\xe9")).write_bytes(b"1")
    agent.commit(bump="minor", notes="second")
    (agent.workspace / "logic.py").write_bytes(b"2")
    agent.rollback("v1.0.0")
    agent.undo()
    home.new("tester")
    home.close()
    monkeypatch.chdir(tmp_path / "agents")
    return tmp_path / "agents"


# ------------------------------------------------------------ shells on a terminal

REPORT = 'printf "%s\\0" {} > "$OUT.new"; mv "$OUT.new" "$OUT"'
NOTE = "kai() { " + REPORT.format('"$@"') + "; }\n"
RC = {
    "bash": NOTE + 'source <(command kai completion bash)\nPS1="ready> "\n',
    "zsh": NOTE + 'autoload -U compinit; compinit -u -D\nsource <(command kai completion zsh)\nPS1="ready> "\n',
    "fish": (
        f"function kai; {REPORT.format('$argv')}; end\ncommand kai completion fish | source\n"
        "function fish_prompt; echo 'ready> '; end\nset -g fish_greeting\n"
    ),
}
START = {
    "bash": ["bash", "--noprofile", "--rcfile", "{rc}", "-i"],
    "zsh": ["zsh", "-d", "-i"],
    "fish": ["fish", "--no-config", "-i", "-C", "source {rc}"],
}


class Shell:
    """A shell on a pseudo-terminal, in which `kai` only notes its arguments."""

    def __init__(self, name: str, scratch: Path) -> None:
        scratch.mkdir()
        self._out = scratch / "out"
        (scratch / "bin").mkdir()
        kai = scratch / "bin" / "kai"
        kai.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m kaivc "$@"\n')
        kai.chmod(0o755)
        rc = scratch / ".zshrc"
        rc.write_text(RC[name])
        path = require_tool(name)
        argv = [path, *(it.format(rc=rc) for it in START[name][1:])]
        ours = {"OUT": str(self._out), "ZDOTDIR": str(scratch), "XDG_DATA_HOME": str(scratch), "TERM": "xterm"}
        environ = {**os.environ, **ours, "PATH": f"{scratch / 'bin'}:{os.environ['PATH']}", "COLUMNS": "400"}
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.execve(path, argv, environ)  # noqa: S606 - the shell itself is what is tested
        self.seen = b""
        self._until(lambda: b"ready> " in self.seen)

    def _until(self, there: Callable[[], bool]) -> None:
        until = time.monotonic() + TIMEOUT
        while not there():
            assert time.monotonic() < until, self.seen.decode("utf-8", "replace")
            if select.select([self._fd], [], [], 0.02)[0]:
                self.seen += os.read(self._fd, 65536)

    def arguments(self, line: str) -> list[str]:
        """Type a line with its tabs, press Enter; what kai was given."""
        self._out.unlink(missing_ok=True)
        self.seen = b""
        os.write(self._fd, line.encode() + b"\r")
        self._until(self._out.exists)
        return [os.fsdecode(it) for it in self._out.read_bytes().split(b"\0")[:-1]]

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.close(self._fd)
        os.waitpid(self._pid, 0)


@pytest.fixture(params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest, place: Path, tmp_path: Path) -> Iterator[tuple[str, Shell]]:
    one = Shell(request.param, tmp_path / "scratch")
    yield request.param, one
    one.close()


def test_tab_in_a_real_shell(shell: tuple[str, Shell], place: Path) -> None:
    name, one = shell
    (place / "plainfile").write_text("")
    before = everything(place)
    for typed, got in {
        "kai rollb\t": ["rollback"],
        "kai rollback sum\t": ["rollback", "summarizer"],
        "kai rollback summarizer --dry\t --to v1.1\t": ["rollback", "summarizer", "--dry-run", "--to", "v1.1.0"],
        "kai rollback summarizer --to=v1.0\t": ["rollback", "summarizer", "--to=v1.0.0"],
        "kai show sum\t@v1.1\t": ["show", "summarizer@v1.1.0"],
        "kai diff summarizer@v1.0.0 bac\t": ["diff", "summarizer@v1.0.0", "backups/3"],
        "kai restore summarizer --from v1.0\t log\t": ["restore", "summarizer", "--from", "v1.0.0", "logic.py"],
        "kai restore summarizer src\tde\t": ["restore", "summarizer", "src dir/deep & file.py"],
        "kai restore summarizer 'src\tde\t": ["restore", "summarizer", "src dir/deep & file.py"],
        'kai restore summarizer "src\tde\t': ["restore", "summarizer", "src dir/deep & file.py"],
        "kai restore summarizer \\$\t": ["restore", "summarizer", "$(touch pwned)"],
        "kai restore summarizer '$\t": ["restore", "summarizer", "$(touch pwned)"],
        'kai restore summarizer "\\$\t': ["restore", "summarizer", "$(touch pwned)"],
        "kai restore summarizer it\t": ["restore", "summarizer", "it's; touch pwned"],
        "kai --home . agent lis\t": ["--home", ".", "agent", "list"],
        "kai -c lock\t10s": ["-c", "lock.wait=10s"],
        "kai commit tes\t --bump mi\t": ["commit", "tester", "--bump", "minor"],
        "kai commit tester --notes-file plain\t": ["commit", "tester", "--notes-file", "plainfile"],
        "kai checkout summarizer@v1.1\t summ\t": ["checkout", "summarizer@v1.1.0", "summarizer"],
    }.items():
        found = [it.removesuffix("/") for it in one.arguments(typed)]  # zsh takes it away again
        assert found == got, (name, typed, one.seen)
    if name != "fish":
        # In fish a backquote means nothing; a word with a line break or a stray byte is not offered there.
        assert one.arguments("kai restore summarizer \\`\t")[-1] == "`touch pwned`"
        assert one.arguments("kai restore summarizer new\t")[-1] == "new\nline"
        assert one.arguments("kai restore summarizer caf\t")[-1] == os.fsdecode(b"caf\xe9")
    assert everything(place) == before, "a completion writes nothing, and runs nothing that it offers"


# ------------------------------------------------------------ what kai says


@pytest.fixture
def offers(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., list[str]]:
    """What is offered for the last word; first what else the shell is to do."""

    def ask(*line: str) -> list[str]:
        capfdbinary.readouterr()
        assert main(["__complete", "bash", f"kai {' '.join(line)}", BREAKS]) == 0
        out, err = capfdbinary.readouterr()
        assert err == b""
        return [os.fsdecode(it) for it in out.split(b"\0")[:-1]]

    return ask


def test_versions_come_the_newest_first_then_the_branches(place: Path, offers: Callable[..., list[str]]) -> None:
    assert offers("rollback summarizer --to ") == ["", "v1.1.0", "v1.0.0", "current", "backups/3"]
    assert offers("show summarizer@") == ["", "@v1.1.0", "@v1.0.0", "@current", "@backups/3"]
    assert offers("reflog summarizer ") == ["", "current", "backups/3"]
    assert offers("versions ") == ["", "summarizer", "tester"]
    assert offers("log ") == ["nospace", "summarizer", "tester"]
    assert offers(f"--home {place} versions sum") == ["", "summarizer"]
    assert offers(f"versions --home={place}/tester sum") == ["", "summarizer"]


def test_a_home_that_is_named_is_the_one_that_is_meant(
    place: Path, offers: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offers("--home /nonexistent versions ") == [""]
    assert offers('--home "$HOME" versions ') == [""], "what the shell would expand is not taken for a name"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert offers("--home ~/agents versions sum") == ["", "summarizer"]
    assert offers("--home ~/nowhere versions sum") == [""]


def test_what_the_shell_completes_itself(place: Path, offers: Callable[..., list[str]]) -> None:
    assert offers("checkout summarizer ") == ["dirs"]
    assert offers("commit tester --notes-file ") == ["files"]
    assert offers("run tester -- ") == ["files"]
    assert offers("--home ") == ["dirs"]
    assert offers("new x --from ") == ["nospace", "summarizer", "tester"]
    assert offers("new x --from ./d") == ["dirs"]
    assert offers("commit tester -m ") == [""]


def test_remotes_by_name(place: Path, offers: Callable[..., list[str]]) -> None:
    for name in ("origin", "office"):
        assert process("remote", "add", name, str(place)).code == 0
    assert offers("fetch ") == ["", "office", "origin"]
    assert offers("pull summarizer or") == ["", "origin"]
    assert offers("push sum") == ["", "summarizer"]
    assert offers("fetch --agent sum") == ["", "summarizer"]
    assert offers("remote remove of") == ["", "office"]
    assert offers("push summarizer --ref back") == ["", "backups/3"]
    (place / ".kai/remotes.yaml").write_text("[")
    assert offers("fetch ") == []


def test_commands_groups_and_options(place: Path, offers: Callable[..., list[str]]) -> None:
    assert offers("re") == ["", "redo", "restore", "reflog"] or set(offers("re")) > {"redo", "restore", "reflog"}
    assert "list" in offers("agent ")
    assert {"--dry-run", "--json", "--home", "-c"} <= set(offers("rollback summarizer -"))
    assert offers("init --object-format ") == ["", "sha256", "sha1"]
    assert offers("init --object-format=sha2") == ["", "sha256"]
    assert offers("true; kai versio") == ["", "versions"]
    assert offers("nonsense ") == [""]
    assert offers("versions summarizer too many ") == [""]


def test_nothing_is_said_where_something_is_wrong(
    place: Path, offers: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offers("restore nobody ") == []
    assert offers("restore tester ") == []
    assert offers("show nobody@") == [""]
    (place / ".kai/catalog.sqlite").write_bytes(b"not a catalog")
    assert offers("versions ") == []
    (place / ".kai/config.yaml").write_bytes(b"{")
    assert offers("restore summarizer ") == []
    monkeypatch.chdir(tmp_path)
    assert offers("versions ") == [""]
    for args in ([], ["bash"], ["nosuchshell", "x"], ["zsh"], ["bash", "a", "b", "c"]):
        assert process("__complete", *args).err == ""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*KAI, "__complete", "zsh", ""], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""


def test_a_reader_of_somebody_elses_home_completes_too(
    public_tmp: Path, other_uid: Ids, public_python: list[str]
) -> None:
    home = make_home(public_tmp / "agents")
    commit(home.new("summarizer"), {"logic.py": b"1"})
    home.close()
    let_read(public_tmp / "agents")
    before = everything(public_tmp)
    for line, last in (("kai show summarizer@", "@v1.0.0"), ("kai restore summarizer ", "logic.py")):
        argv = [*public_python, "-m", "kaivc", "__complete", "bash", line, BREAKS]
        done = run_as(other_uid, argv, cwd=public_tmp / "agents", env={**os.environ, "HOME": "/nonexistent"})
        assert last in done.stdout.split("\0"), done
    assert everything(public_tmp) == before


@pytest.mark.parametrize(
    ("typed", "words", "word", "quoted"),
    [
        ("kai a b", ["a", "b"], "b c", r"b\ c"),
        ("kai 'a b' c", ["a b", "c"], "c'd", r"c\'d"),
        ("kai 'a", ["a"], "a'b c", r"a'\''b c"),
        ('kai "a\\$', ["a$"], 'a$`"\\', '\\`\\"\\\\'),
        ("kai x@v", ["x@v"], "x@v1", "@v1"),
        ("kai --to=v", ["--to=v"], "--to=v1", "v1"),
        ("kai a\\@v", ["a@v"], "a@v1", "a@v1"),
        ("kai 'x@'v", ["x@v"], "x@v1", "x@v1"),
        ("kai --to='x y'v", ["--to=x yv"], "--to=x yv1", r"x\ yv1"),
        ("X=1; kai a", ["a"], "a\x1b", "$'a\\033'"),
        ("kai 'a", ["a"], "a\nb", ""),
        ("kai ", [""], "é ~#", "é\\ \\~\\#"),
    ],
)
def test_a_line_of_bash(typed: str, words: list[str], word: str, quoted: str) -> None:
    line = Line(typed, BREAKS)
    assert line.words == words
    if typed == 'kai "a\\$':
        assert line.quoted(word) == "a\\$" + quoted
    else:
        assert line.quoted(word) == quoted


def test_whatever_bash_reads_is_what_was_offered() -> None:
    """Each word, quoted and read again by a real bash, is itself."""
    names = [
        "$(touch x)",
        "`id`",
        "a b",
        "it's",
        'q"q',
        "back\\slash",
        "new\nline",
        "tab\t",
        "~root",
        "#no",
        "!ex",
        "*?[",
        "é日",
        "\x7f",
    ]
    line = Line("kai ", BREAKS)
    script = "".join(f"printf '%s\\0' {line.quoted(name)}\n" for name in names)
    done = subprocess.run([require_tool("bash"), "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == names


# ------------------------------------------------------------ kept in step, and fast


def test_the_table_is_what_the_commands_say() -> None:
    assert words.PATH.read_text() == words.text(), "python -m tests.cli.words"


def cpu(*args: str) -> float:
    """The processor seconds of a whole process: the best of several."""
    best = 9.0
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "kaivc", *args], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def test_a_completion_is_quick(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("COVERAGE_"):
            monkeypatch.delenv(name)
    version = cpu("--version")
    assert cpu("__complete", "zsh", "roll") < 2 * version
    assert cpu("__complete", "zsh", "show", "summarizer@") < 4 * version


def test_a_completion_imports_little(place: Path) -> None:
    script = "import sys; from kaivc.cli.main import main; main(); print(*sys.modules, file=sys.stderr)"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    argv = [sys.executable, "-c", script, "__complete", "zsh", "show", "summarizer@"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environ)
    assert "summarizer@v1.1.0" in done.stdout
    assert not set(done.stderr.split()) & {"typer", "click", "kaivc.api", "yaml", "zstandard", "kaivc.cli.app"}


def test_the_script_is_printed(kai: Kai) -> None:
    for name in ("bash", "zsh", "fish"):
        told = kai("completion", name)
        assert told.out.startswith("#")
        assert kai("completion", name, "--json").document("completion")["script"] == told.out
        assert "eval" not in told.out.replace("source <(kai", "")
    assert kai("completion", "tcsh").code == 2
    assert kai("--install-completion").code == 2


def test_scripts_are_without_fault(tmp_path: Path) -> None:
    folder = Path(completing.__file__).with_name("shells")
    for name in ("bash", "zsh", "fish"):
        subprocess.run([require_tool(name), "-n", folder / f"kai.{name}"], check=True)
