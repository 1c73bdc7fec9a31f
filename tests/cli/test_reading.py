"""`cat`, `ls-tree`, `rev-parse`, and a `versions` that damage does not silence: documents, bytes and errors."""

import base64
import os
from pathlib import Path

import pytest

from kaivc.api import Agent
from kaivc.cli.app import VERBS
from kaivc.cli.parser import load
from kaivc.ops import cat as reading
from tests.cli.conftest import Kai
from tests.cli.doors import KAI, process
from tests.engine.homes import open_home
from tests.engine.test_revisions import spoil


def bot(home: Path) -> Agent:
    return open_home(home).agent("bot")


def test_cat_writes_the_bytes_of_a_version(kai: Kai, workspace: Path) -> None:
    (workspace / "logic.py").write_text("changed since")
    assert kai("cat", "bot", "logic.py").out == "print('two')\n"
    assert kai("cat", "bot@v1.0.0", "./logic.py").out == "print('one')\n"
    assert kai("cat", "bot@^1.0~1", "logic.py").out == "print('one')\n"


def test_cat_as_a_document(kai: Kai, workspace: Path) -> None:
    (workspace / os.fsdecode(b"bin\xff")).write_bytes(b"\0\xfe")
    (workspace / "link").symlink_to("logic.py")
    (workspace / "run").write_bytes(b"")
    (workspace / "run").chmod(0o755)
    assert kai("commit", "bot").code == 0
    one = kai("cat", "bot@v1.0.0", "logic.py", "--json").document("cat")
    assert (one["content"], one["mode"], one["size"], one["version"]) == ("print('one')\n", "100644", 13, "v1.0.0")
    two = kai("--json", "cat", "bot", os.fsdecode(b"bin\xff")).document("cat")
    assert base64.b64decode(two["content_b64"]) == b"\0\xfe"
    assert base64.b64decode(two["path_b64"]) == b"bin\xff"
    assert "content" not in two
    link = kai("--json", "cat", "bot", "link").document("cat")
    assert (link["mode"], link["content"]) == ("120000", "logic.py")
    assert kai("--json", "cat", "bot", "run").document("cat")["mode"] == "100755"


def test_a_file_too_large_for_a_document_is_streamed(kai: Kai, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_WHOLE", 12)
    done = kai("cat", "bot", "logic.py", "--json")
    assert (done.code, done.out) == (9, "")
    assert done.error()["code"] == "E309"
    assert kai("cat", "bot", "logic.py").out == "print('two')\n"


@pytest.mark.parametrize("path", [".", "prompts", "prompts/", "prompts/deep/.."])
def test_a_directory_is_no_file_to_print(kai: Kai, workspace: Path, path: str) -> None:
    (workspace / "prompts/deep").mkdir(parents=True)
    (workspace / "prompts/deep/x").write_text("x")
    kai("commit", "bot")
    done = kai("cat", "bot", path)
    assert (done.code, done.out) == (9, "")
    assert "is a directory in v1.1.1" in done.err
    assert "kai ls-tree bot@v1.1.1 " in done.err


def test_damage_is_said_with_the_file_that_it_hits(kai: Kai, home: Path) -> None:
    agent = bot(home)
    file = agent.cat("logic.py", "v1.0.0")
    spoil(agent, type(agent.current.oid)(bytes.fromhex(file.oid)))
    done = kai("cat", "bot@v1.0.0", "logic.py")
    assert done.code == 4
    assert done.err.startswith("kai: E102: logic.py of bot@v1.0.0: ")


def test_a_reader_of_a_large_file_may_leave_early(home: Path, workspace: Path, kai: Kai) -> None:
    import subprocess

    (workspace / "big").write_bytes(os.urandom(1 << 20) * 8)
    assert kai("commit", "bot").code == 0
    with subprocess.Popen([*KAI, "cat", "bot", "big"], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.read(10)
        ran.stdout.close()
        assert ran.stderr.read() == b""
        assert ran.wait(30) == 141


def test_ls_tree_as_a_document(kai: Kai, home: Path) -> None:
    listed = kai("ls-tree", "bot@v1.0.0", "--json").document("ls-tree")
    assert [(it["path"], it["type"], it["size"]) for it in listed["entries"]] == [
        ("config.yaml", "blob", 13),
        ("logic.py", "blob", 13),
        ("state.json", "blob", 9),
    ]
    assert kai("ls-tree", "-l", "--name-only", "bot").code == 2


def test_rev_parse_as_a_document_and_all_or_nothing(kai: Kai, workspace: Path) -> None:
    (workspace / "state.json").write_text("{}")
    saved = kai("rollback", "bot", "--to", "v1.0.0", "--json").document("rollback")["backup"]
    found = kai("rev-parse", "bot", f"bot@{saved}", "--json").document("rev-parse")["revisions"]
    assert [(it["name"], it["version"], it["tag"] is None) for it in found] == [
        ("v1.0.0", "1.0.0", False),
        (saved, None, True),
    ]
    assert kai("rev-parse", "bot").out == found[0]["commit"] + "\n"
    assert kai("rev-parse", "bot", "--short").out == found[0]["commit"][:12] + "\n"
    done = kai("rev-parse", "bot", "bot@v9.9.9")
    assert (done.code, done.out) == (9, "")
    done = kai("rev-parse", "--tag", "bot", f"bot@{saved}")
    assert (done.code, done.out) == (9, "")
    assert "it has no tag" in done.err
    assert kai("rev-parse", "--tag", "--tree", "bot").code == 2
    assert kai("rev-parse").code == 2


def test_versions_lists_what_it_can_and_exits_with_4(kai: Kai, home: Path) -> None:
    agent = bot(home)
    spoil(agent, agent.show("v1.0.0").version.oid)
    done = kai("versions", "bot")
    assert done.code == 4
    first, second = done.out.splitlines()
    assert first.startswith("* v1.1.0  ")
    assert second.startswith("  v1.0.0  ")
    assert " damaged: v1.0.0: commit " in second
    assert done.err.startswith("kai: E102: v1.0.0 of bot cannot be read\n")
    done = kai("versions", "bot", "--json")
    assert done.code == 4
    known = done.document("versions")
    assert [it["version"] for it in known["versions"]] == ["1.1.0"]
    assert [it["version"] for it in known["damaged"]] == ["1.0.0"]
    assert done.error()["facts"]["versions"] == ["1.0.0"]


def test_rollback_keeps_what_it_is_told_to(kai: Kai, workspace: Path) -> None:
    done = kai("rollback", "bot", "--to", "v1.0.0", "--keep", "logic.py", "--keep", "config.yaml", "--json")
    plan = done.document("rollback")
    assert (plan["kept"], plan["writes"], plan["source"]) == ([{"path": "logic.py"}], [], "v1.0.0")
    assert plan["reason"] == "rollback to v1.0.0; keeps logic.py, config.yaml"
    assert (workspace / "logic.py").read_text() == "print('two')\n"
    assert "; keeps logic.py, config.yaml  (" in kai("reflog", "bot").out


# ---------------------------------------------------------------- the nearest names, everywhere

WITHOUT = {"init", "new", "import", "doctor", "completion", "agent list", "clone", "fetch", "pull", "mirror"}
WITHOUT |= {verb for verb in VERBS if verb.split()[0] in ("remote", "bundle", "token", "role", "serve")}
"""Commands that are asked about no agent that is there already."""

ABOUT = [verb for verb in VERBS if verb not in WITHOUT]
OTHERWISE = {"diff": "AGENT[@REV]", "agent rename": "AGENT"}
OTHERWISE["renumber"] = "AGENT@VERSION"
OTHERWISE |= dict.fromkeys(("snapshot show", "snapshot promote", "snapshot drop"), "AGENT@ID")
"""What the first argument is, where it has another name."""


def line_of(verb: str) -> str:
    """A command line of a verb with all that it needs; `{}` stands for its agent."""
    needed = [it for it in load(verb).params if it.required]
    options = [f"{it.opts[0]} x" for it in needed if it.param_type_name == "option"]
    others = [it for it in needed if it.param_type_name == "argument"][1:]
    return " ".join([verb, *options, "{}", *("x" for _ in others)])


def first(verb: str) -> str:
    argument = next(it for it in load(verb).params if it.param_type_name == "argument")
    return OTHERWISE.get(verb, str(argument.metavar)).strip("[]")


REVISIONS = [verb for verb in ABOUT if "@REV" in first(verb)]


def miss(kai: Kai, line: str, code: int, near: str) -> None:
    done = kai(*line.split())
    assert (done.code, done.out) == (code, ""), done
    assert f"did you mean {near}" in done.err
    assert near in kai("--json", *line.split()).error()["facts"]["nearest"]


@pytest.mark.parametrize("verb", REVISIONS)
def test_a_mistyped_revision_gets_the_nearest(kai: Kai, home: Path, verb: str) -> None:
    for wrong in ("v1.1.1", "1.1", "v1.1.O"):
        miss(kai, line_of(verb).format(f"bot@{wrong}"), 9, "v1.1.0")
    miss(kai, line_of(verb).format("bot@curent"), 9, "current")


@pytest.mark.parametrize("verb", ABOUT)
def test_a_mistyped_agent_gets_the_nearest(kai: Kai, home: Path, verb: str) -> None:
    assert first(verb).startswith("AGENT")
    miss(kai, line_of(verb).format("bott@v1.0.0" if "@" in first(verb) else "bott"), 9, "bot")


@pytest.mark.parametrize(
    ("line", "code", "near"),
    [
        ("rollback bot --to v1.1.1", 3, "v1.1.0"),
        ("rollback bot --to ^7", 3, "v1.1.0"),
        ("restore bot --from v1.1.1", 9, "v1.1.0"),
        ("diff bot v1.1.1", 9, "v1.1.0"),
        ("reflog bot curent", 9, "current"),
        ("restore bot logic.pi", 9, "logic.py"),
        ("rollback bot --to v1.0.0 --keep logic.pi", 9, "logic.py"),
        ("cat bot logic.pi", 9, "logic.py"),
        ("cat bot logic.py/x", 9, "logic.py"),
        ("ls-tree bot logic.pi", 9, "logic.py"),
        ("ls-tree bot logic.py/", 9, "logic.py"),
        ("ls-tree bot ../logic.py", 9, "logic.py"),
        ("ls-tee bot", 2, "ls-tree"),
        ("remote remove orign", 10, "origin"),
        ("remote rename orign x", 10, "origin"),
        ("push bot orign", 10, "origin"),
        ("pull bot orign", 10, "origin"),
        ("fetch orign", 10, "origin"),
        ("fetch --agent bott", 9, "bot"),
    ],
)
def test_other_misses_get_the_nearest(kai: Kai, home: Path, line: str, code: int, near: str) -> None:
    assert kai("remote", "add", "origin", str(home)).code == 0
    miss(kai, line, code, near)


@pytest.mark.parametrize("text", ["-c lock.wiat=1s", "-c views.kep=3"])
def test_a_mistyped_setting_gets_the_nearest(kai: Kai, home: Path, text: str) -> None:
    done = kai("status", *text.split())
    assert done.code == 9
    assert "did you mean" in done.err


@pytest.mark.parametrize("text", ["bot@", "@v1.0.0", "", "bot@\udcff", "bot@\0", "b\udcfft@v1.0.0"])
def test_no_revision_ends_in_a_traceback(home: Path, kai: Kai, text: str) -> None:
    for line in (["log"], ["show"], ["rev-parse"], ["ls-tree"]):
        done = kai(*line, text)
        assert (done.code, done.out) == (9, "")
        assert done.err.startswith("kai: E30")
        assert done.err.isascii()


def test_a_path_of_any_bytes_is_a_miss(home: Path) -> None:
    for path in ("\udcff", "a\x1b[2J", "/etc/passwd", "..", "//", "a" * 5000):
        done = process("cat", "bot", path, cwd=home)
        assert (done.code, done.out) == (9, "")
        assert done.err.startswith("kai: E314: ")
        assert "\x1b" not in done.err
