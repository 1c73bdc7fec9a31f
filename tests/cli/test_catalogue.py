"""The catalogue of errors: what each code's text says, that the code is raised, and what a user meets then."""

import ast
import contextlib
import errno
import fcntl
import functools
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaivc import api
from kaivc.errors import KaiError
from tests.cli import prepared
from tests.cli.conftest import Kai
from tests.cli.doors import process
from tests.cli.error_page import every, more
from tests.conftest import ROOT, require_tool
from tests.engine.homes import copy
from tests.faults.hostile.forge import Forge
from tests.server.daemon import daemon

ERRORS = {it.code: it for it in every(KaiError)}
RESERVED = "Reserved: nothing raises it yet."


def is_reserved(cls: type[KaiError]) -> bool:
    return any(RESERVED in it for it in more(cls))


@pytest.mark.parametrize("code", ERRORS)
def test_the_text_says_what_happens_and_what_to_do(code: str) -> None:
    happens, then = more(ERRORS[code])
    assert happens.endswith(".")
    assert then.startswith("Next: ")


def called(root: Path) -> Iterator[str]:
    """The names of all that is called below a directory."""
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call):
                yield getattr(node.func, "attr", getattr(node.func, "id", ""))


def test_each_error_is_raised_or_says_that_it_is_reserved() -> None:
    made = set(called(ROOT / "kaivc"))
    assert {code for code, cls in ERRORS.items() if (cls.__name__ in made) == is_reserved(cls)} == set()


# ---------------------------------------------------------------- each of them, met

Provoke = Callable[[Path], None]
AGENT = prepared.AGENT


def nothing(home: Path) -> None:
    """As it is."""


def manifest(text: str) -> Provoke:
    def write(home: Path) -> None:
        (home / AGENT / "workspace/kai.yaml").write_text(text)

    return write


def in_workspace(change: Callable[[Path], object]) -> Provoke:
    def do(home: Path) -> None:
        change(home / AGENT / "workspace")

    return do


def clean(home: Path) -> None:
    prepared.nothing_changed(home.parent)


def damaged(home: Path) -> None:
    prepared.damaged_view(home.parent)


def unreadable_counter(home: Path) -> None:
    manifest("state:\n  monotonic:\n    - {path: state.json, pointer: /read}\n")(home)
    (home / AGENT / "workspace/state.json").write_text("no number")


def new_format(home: Path) -> None:
    with sqlite3.connect(home / ".kai/catalog.sqlite") as db:
        db.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
    db.close()


def locked_database(home: Path) -> None:
    db = sqlite3.connect(home / AGENT / "workspace/memory.db", isolation_level=None)
    db.execute("CREATE TABLE t (x)")
    db.execute("BEGIN EXCLUSIVE")
    HELD.append(db.close)


def lost_secret(home: Path) -> None:
    manifest("entry: ['true']\nstate: {secret: [{path: token, name: TOKEN}]}\n")(home)
    token = home / AGENT / "workspace/token"
    token.write_text("mine")
    prepared.run("commit", AGENT, "--home", str(home))
    token.unlink()


def lost_link(home: Path) -> None:
    prepared.moved_link(home.parent)


def hold(path: Path, how: int) -> None:
    path.parent.mkdir(exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, how)
    HELD.append(functools.partial(os.close, fd))


def locked(home: Path) -> None:
    hold(home / f".kai/locks/{AGENT}.lock", fcntl.LOCK_EX)


def running(home: Path) -> None:
    hold(home / f".kai/locks/{AGENT}.lease", fcntl.LOCK_SH)


def running_and_stubborn(home: Path) -> None:
    manifest("quiesce: ['false']\n")(home)
    running(home)


def with_remote(home: Path) -> None:
    prepared.a_remote(home.parent)


def one_number_twice(home: Path) -> None:
    """Both make 3.0.0; over there it is in force no more."""
    with_remote(home)
    office = ["--home", str(home.parent / "office")]
    prepared.run("commit", AGENT, "--version", "3.0.0", "--allow-empty", "-m", "theirs", *office)
    prepared.run("rollback", AGENT, "--to", "v2.0.0", *office)
    prepared.run("commit", AGENT, "--version", "3.0.0", "-m", "mine", "--home", str(home))


def both_moved(home: Path) -> None:
    prepared.news_at_a_remote(home.parent)
    prepared.run("commit", AGENT, "--version", "3.0.0", "--home", str(home))


def remote_of_sha1(home: Path) -> None:
    prepared.run("init", str(home.parent / "empty"), "--object-format", "sha1")
    prepared.run("remote", "add", "old", str(home.parent / "empty"), "--home", str(home))


def host_with_a_hook(home: Path) -> None:
    bare = home.parent / "host.git"
    subprocess.run([require_tool("git"), "init", "-q", "--bare", "--object-format=sha256", bare], check=True)
    hook = bare / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho not on a Friday >&2\nexit 1\n")
    hook.chmod(0o755)
    prepared.run("remote", "add", "host", str(bare), "--home", str(home))


def forging_remote(home: Path) -> None:
    """There is a version now that states another checksum than its files have."""
    with_remote(home)
    forge = Forge(home.parent / "office")
    forge.version(forge.files(config__yaml=b"words: 1\n"))
    forge.land()


def older_copy_put_back(home: Path) -> None:
    with_remote(home)
    office, kept = home.parent / "office", home.parent / "kept"
    copy(office, kept)
    prepared.run("commit", AGENT, "--home", str(home))
    prepared.run("push", AGENT, "--home", str(home))
    copy(kept, office)


def served(home: Path) -> None:
    """By HTTP, to those who show a token."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(daemon(home, home.parent))
        prepared.run("remote", "add", "web", f"http://127.0.0.1:{server.port}/", "--home", str(home))
        HELD.append(stack.pop_all().close)


HELD: list[Callable[[], None]] = []
"""What lets go of that which a test holds."""

MET: dict[str, tuple[Provoke, str]] = {
    "E101": (nothing, "rollback summarizer --to v9.9.9"),
    "E102": (damaged, "rollback summarizer --to v1.0.0"),
    "E103": (nothing, "snapshot summarizer --test current -c isolation.enable=false -- true"),
    "E104": (unreadable_counter, "rollback summarizer --to v1.0.0"),
    "E201": (nothing, "commit summarizer --version 1.0.0"),
    "E203": (locked, "commit summarizer -c lock.wait=0s"),
    "E204": (nothing, "new summarizer"),
    "E205": (one_number_twice, "push summarizer"),
    "E206": (both_moved, "push summarizer"),
    "E301": (nothing, "status --home ../empty"),
    "E302": (nothing, "log summariser"),
    "E303": (nothing, "show summarizer@v9.9.9"),
    "E304": (nothing, "new No:Name"),
    "E305": (manifest("entri: [x]\n"), "commit summarizer"),
    "E306": (nothing, "status -c lock.wait=soon"),
    "E307": (locked_database, "commit summarizer -c lock.wait=0s"),
    "E308": (in_workspace(lambda it: os.mkfifo(it / "pipe")), "commit summarizer"),
    "E309": (nothing, "commit summarizer -c limits.max_files=2"),
    "E310": (nothing, "new inner --link ."),
    "E311": (in_workspace(lambda it: it.rename(it.with_name("elsewhere"))), "status summarizer"),
    "E312": (running, "rollback summarizer --to v1.0.0"),
    "E313": (nothing, "redo summarizer"),
    "E314": (nothing, "restore summarizer logik.py"),
    "E315": (nothing, "checkout summarizer ../my-agent"),
    "E316": (lambda home: prepared.run("new", "young", "--home", str(home)), "show young"),
    "E317": (nothing, "init ."),
    "E318": (clean, "commit summarizer"),
    "E319": (manifest("{}\n"), "run summarizer --dirty"),
    "E320": (running_and_stubborn, "rollback summarizer --to v1.0.0"),
    "E321": (lost_secret, "run summarizer"),
    "E324": (lambda home: (home.parent / "releases/versions/old").mkdir(), "import --layout folders ../releases"),
    "E323": (lost_link, "commit live"),
    "E402": (with_remote, "fetch orign"),
    "E403": (remote_of_sha1, "push summarizer old"),
    "E404": (host_with_a_hook, "push summarizer host"),
    "E405": (forging_remote, "fetch"),
    "E406": (older_copy_put_back, "fetch"),
    "E407": (served, "fetch web"),
    "E408": (nothing, "remote add x ext::sh"),
    "E904": (new_format, "status"),
}
"""By code: what is done to a prepared home, and the command line that meets the error."""


@pytest.fixture
def home(examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the prepared home, and the working directory."""
    copy(examples, tmp_path / "top")
    path = tmp_path / "top" / "agents"
    monkeypatch.chdir(path)
    yield path
    while HELD:
        HELD.pop()()


def names(home: Path) -> list[tuple[str, bytes]]:
    """Every ref, and what it points at."""
    db = sqlite3.connect(home / ".kai/catalog.sqlite")
    try:
        return sorted(db.execute("SELECT name, oid FROM refs").fetchall())
    finally:
        db.close()


@pytest.mark.parametrize("code", MET)
def test_each_code_is_met_at_the_command_line_and_moves_nothing(code: str, kai: Kai, home: Path) -> None:
    provoke, line = MET[code]
    provoke(home)
    before = names(home)
    done = kai("--json", *line.split())
    said = done.error()
    assert (said["code"], done.code) == (code, ERRORS[code].exit_code), said
    assert said.get("unchanged") or said.get("hint"), "neither what did not happen nor what to do"
    assert names(home) == before


def test_a_disk_that_says_no(home: Path) -> None:
    with open("/dev/full", "wb") as out:
        done = process("log", AGENT, "--json", cwd=home, stdout=out)
    assert done.error()["code"] == "E901"


def test_a_full_disk(kai: Kai, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdatasync", full)
    monkeypatch.setattr(os, "fsync", full)
    before = names(home)
    done = kai("commit", AGENT, "--json")
    assert (done.error()["code"], done.code) == ("E902", 11)
    assert names(home) == before


class Forgetful(sqlite3.Connection):
    """Its last sync fails."""

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if sql == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, parameters)


def test_a_commit_of_unknown_outcome_may_be_repeated(kai: Kai, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as now:
        now.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Forgetful))
        said = kai("commit", AGENT, "--json").error()
    assert said["code"] == "E903"
    again = kai("commit", AGENT, "--json", "--op-id", said["facts"]["op_id"])
    assert again.document("commit")["version"]["version"] == "2.0.1"


def test_a_fault_of_ours(kai: Kai, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **words: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(api, "open", broken)
    assert kai("status", "--json").error()["code"] == "E999"


def test_every_code_that_is_raised_is_provoked_by_some_test() -> None:
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    for code, cls in ERRORS.items():
        if not is_reserved(cls) and code not in MET:
            assert any(cls.__name__ in text or f'"{code}"' in text for text in texts), code
