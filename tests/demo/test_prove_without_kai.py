"""docs/how-to/prove-without-kai.md, run as it stands: it says yes to good homes, and no to each that is not."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

from kaivc.storage.gitobjects import FORMATS
from kaivc.vfs import Vfs
from tests.conftest import ROOT, require_tool
from tests.engine import tampering
from tests.engine.homes import copy, open_home

PAGE = ROOT / "docs" / "how-to" / "prove-without-kai.md"
ALLOWED = (
    "git", "sha256sum", "sqlite3", "cat", "comm", "du", "head", "mkdir", "mktemp", "od", "sort", "tail", "tr", "wc",
)  # fmt: skip


def script() -> str:
    """All commands of the page, in its order."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The home of an object format, for reading only."""

    @cache
    def made(object_format: str) -> Path:
        return tampering.make(tmp_path_factory.mktemp("prove") / "home", object_format)

    return made


def link_tools(folder: Path, names: Sequence[str], log: Path | None = None) -> Path:
    """A directory for PATH with some tools, and the kai that is under test; it can note how it was called."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(require_tool(name))
    note = "" if log is None else f'printf "%s\\n" "$*" >> {log}\n'
    (folder / "kai").write_text(f'#!/bin/sh\n{note}PYTHONPATH={ROOT} exec {sys.executable} -m kaivc "$@"\n')
    (folder / "kai").chmod(0o755)
    return folder


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """What the page allows itself."""
    return link_tools(tmp_path / "bin", ALLOWED, tmp_path / "kai.log")


@pytest.fixture
def prove(tools: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the whole page in a home."""

    def run(home: Path, code: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        environ = {"PATH": str(tools), "TMPDIR": str(scratch), "HOME": str(scratch), **variables}
        done = subprocess.run(
            ["/bin/sh", "-c", code or script()],
            cwd=home, env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        shutil.rmtree(scratch)
        return done

    return run


def differing(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the page found to differ."""
    return [line.removeprefix("DIFFERS").strip() for line in done.stdout.splitlines() if line.startswith("DIFFERS")]


@pytest.mark.parametrize("object_format", ["sha256", "sha1"])
@pytest.mark.parametrize("version", ["v1.0.0", "v1.1.0", "v2.0.0"])
def test_the_page_proves_a_good_version(good, prove, tmp_path, version, object_format):
    home = good(object_format)
    first = tampering.one(home, "SELECT lower(hex(digest)) FROM ops WHERE agent = 1 AND seq = 2")
    done = prove(home, VERSION=version, KEPT_HEAD=first)
    assert not differing(done), done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"summarizer {version} is what it says it is\n")
    assert done.stdout.count("\nsame ") > 25
    # kai is called once, for the export; everything else is done by other tools.
    assert (tmp_path / "kai.log").read_text().split()[:2] == ["export", "summarizer"]
    assert (tmp_path / "kai.log").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (tampering.view_file, {"tree of the files in summarizer/versions/v1.1.0", "files of the view that differ"}),
        (
            tampering.view_line_ending,
            {"tree of the files in summarizer/versions/v1.1.0", "files of the view that differ"},
        ),
        (
            tampering.view_missing,
            {
                "tree of the files in summarizer/versions/v1.1.0",
                "files of the view that differ",
                "number of files and directories in the view",
            },
        ),
        (tampering.view_mode, {"tree of the files in summarizer/versions/v1.1.0", "files of the view that differ"}),
        (tampering.view_extra, {"number of files and directories in the view"}),
        (tampering.view_meta, {"meta: notes"}),
        (tampering.ref_row, {"names that are not where the last move took them", "parent"}),
        (tampering.current_row, {"names that are not where the last move took them"}),
        (tampering.forged_tag, {"names that are not where the last move took them", "what the tag says"}),
        (tampering.reflog_row, {"what op 3 says"}),
        (
            tampering.op_gone,
            {"number of op 3", "what op 4 says", "moves of which no op record tells"},
        ),
        (tampering.op_record, {"SHA-256 of op 1", "what op 1 says"}),
    ],
)
def test_the_page_says_what_was_tampered_with(good, prove, tmp_path, tamper, named):
    copy(good("sha1" if tamper in (tampering.view_file, tampering.ref_row) else "sha256"), tmp_path / "home")
    tamper(tmp_path / "home")
    done = prove(tmp_path / "home")
    assert set(differing(done)) == named, done.stdout + done.stderr
    assert done.returncode == 1


def test_agents_that_were_forked_renamed_and_removed_are_proved_too(good, prove, tmp_path):
    copy(good("sha256"), tmp_path / "home")
    home = open_home(tmp_path / "home")
    home.new("fork", source="summarizer@v1.1.0")
    home.rename("summarizer", "writer")
    home.agent("writer").rollback("v1.1.0")
    home.remove("other")
    home.close()
    for agent, version in (("fork", "v1.1.0"), ("writer", "v1.1.0"), ("other", "v1.0.0")):
        done = prove(tmp_path / "home", AGENT=agent, VERSION=version)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_view_that_was_dropped_is_said_to_be_absent(good, prove, tmp_path):
    copy(good("sha256"), tmp_path / "home")
    Vfs().remove_tree(str(tmp_path / "home/summarizer/versions/v1.1.0"))
    done = prove(tmp_path / "home")
    assert "no view  summarizer/versions/v1.1.0 is not there\n" in done.stdout
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_a_log_that_was_rewritten_as_a_whole_does_not_hold_the_head_that_was_kept(good, prove, tmp_path):
    """Who may write everything can forge a whole chain: the head that was kept elsewhere is what tells."""
    home = tmp_path / "home"
    copy(good("sha256"), home)
    kept = tampering.one(home, "SELECT lower(hex(op_head)) FROM agents WHERE id = 1")
    tampering.rewrite(home)
    assert not differing(prove(home))
    done = prove(home, KEPT_HEAD=kept)
    assert differing(done) == ["the head that you kept is in the chain"]
    assert done.returncode == 1


def test_git_itself_tells_a_forged_object(good, tmp_path, prove):
    """The export is only bytes: one that is changed has another id, whoever wrote it."""
    change = 'git -C "$repo" tag -f "$version" HEAD >/dev/null 2>&1; git -C "$repo" branch -f other "$version"\n'
    exported = "id=$(sqlite3"
    assert script().count(exported) == 1
    done = prove(good("sha256"), script().replace(exported, change + exported))
    assert "refs" in differing(done), done.stdout + done.stderr
    assert done.returncode == 1


def test_no_other_tool_is_used():
    """The tools that a stranger has are those that the page names."""
    assert "coreutils" in PAGE.read_text()
    assert FORMATS.keys() == {"sha1", "sha256"}
    for foreign in ("python", "jq", "xxd", "zstd", "awk", "sed", "grep", "perl"):
        assert not re.search(rf"\b{foreign}\b", script()), foreign
