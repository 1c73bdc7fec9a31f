"""Each verb, as text for people and as one JSON document held to its schema."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Kai
from tests.cli.doors import process
from tests.conftest import require_tool

HASH = 64


def test_init_and_new_say_what_they_made(kai: Kai, tmp_path: Path) -> None:
    made = kai("init", str(tmp_path / "a"))
    assert (made.code, made.out) == (0, f"made a home in {tmp_path / 'a'} (sha256)\n")
    made = kai("new", "bot", "--home", str(tmp_path / "a"))
    assert made.code == 0
    assert made.out.startswith(f"made agent bot; its workspace is {tmp_path / 'a/bot/workspace'}\n")


def test_init_and_new_as_documents(kai: Kai, tmp_path: Path) -> None:
    made = kai("--json", "init", str(tmp_path / "a"), "--object-format", "sha1", "--shared", "group")
    assert made.document("init")["object_format"] == "sha1"
    assert made.document("init")["shared"] is True
    linked = tmp_path / "linked"
    linked.mkdir()
    made = kai("new", "bot", "--link", str(linked), "--json", "--home", str(tmp_path / "a"))
    assert made.document("new") == {"agent": "bot", "workspace": str(linked), "files": 0, "notices": [], "forked": None}


def test_init_takes_the_home_of_the_environment(kai: Kai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAI_HOME", str(tmp_path / "b"))
    assert kai("init").code == 0
    assert (tmp_path / "b/.kai").is_dir()
    assert kai("new", "bot").code == 0
    assert kai("status").out.startswith("bot: no version yet\n")


def test_commit_says_what_changed(kai: Kai, workspace: Path) -> None:
    (workspace / "state.json").write_text("{}")
    (workspace / "more.txt").write_text("x")
    done = kai("commit", "bot", "--bump", "-m", "third", "-m", "and why")
    assert done.code == 0
    first, *rest = done.out.splitlines()
    assert first.startswith("[bot v1.1.1 ")
    assert first.endswith("] third")
    assert rest == ["  4 files, 2 changed", "  A  more.txt", "  M  state.json"]
    assert "    third\n\n    and why\n" in kai("log", "bot").out


def test_commit_as_a_document(kai: Kai, workspace: Path) -> None:
    (workspace / "state.json").write_text("{}")
    done = kai("commit", "bot", "--bump=major", "--author", "Bo <bo@x.y>", "--type", "auto", "--json")
    made = done.document("commit")
    assert made["version"]["version"] == "2.0.0"
    assert made["version"]["author"] == "Bo <bo@x.y>"
    assert made["version"]["snapshot_type"] == "auto"
    assert made["changes"] == [{"status": "M", "path": "state.json"}]


def test_a_bump_alone_before_the_agent_is_a_patch(kai: Kai, home: Path) -> None:
    assert "[bot v1.1.1 " in kai("commit", "--bump", "bot", "--allow-empty").out
    assert "[bot v1.2.0 " in kai("commit", "--bump", "minor", "bot", "--allow-empty").out


def test_an_operation_repeated_with_its_id_happens_once(kai: Kai, home: Path) -> None:
    first = kai("commit", "bot", "--allow-empty", "--op-id", "job-7", "--json").document("commit")
    again = kai("commit", "bot", "--allow-empty", "--op-id", "job-7", "--json").document("commit")
    assert again["version"] == first["version"]
    assert len(kai("versions", "bot").out.splitlines()) == 3


def test_notes_come_from_a_file_or_from_stdin(kai: Kai, home: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("from a file\n")
    assert kai("commit", "bot", "--allow-empty", "--notes-file", str(tmp_path / "notes")).code == 0
    done = process("commit", "bot", "--allow-empty", "--notes-file", "-", cwd=home, data="from a pipe\n")
    assert done.code == 0
    assert [line.split()[-1] for line in kai("log", "bot", "--oneline", "-n", "2").out.splitlines()] == [
        "pipe",
        "file",
    ]


def test_nothing_to_commit_is_a_check_that_said_no(kai: Kai, home: Path) -> None:
    done = kai("commit", "bot")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("kai: E318: ")
    assert "  nothing was committed\n" in done.err


def test_status_shows_changes_by_class(kai: Kai, workspace: Path) -> None:
    (workspace / "state.json").write_text("{}")
    (workspace / "logic.py").unlink()
    (workspace / "new.txt").write_text("x")
    found = kai("status", "bot", "--exit-code")
    assert found.code == 1
    first, *rest = found.out.splitlines()
    assert first.startswith("bot: v1.1.0 (")
    assert rest == [
        "the workspace differs from current:",
        "  logic",
        "    deleted:    logic.py",
        "    added:      new.txt",
        "  state",
        "    modified:   state.json",
    ]


def test_status_of_a_clean_workspace(kai: Kai, home: Path) -> None:
    found = kai("status", "--exit-code")
    assert found.code == 0
    assert "the workspace is as current has it\n" in found.out
    assert kai("status", "--json").document("status")["agents"][0]["dirty"] is False


def test_status_of_all_agents_goes_on_past_one_that_cannot_answer(kai: Kai, home: Path) -> None:
    kai("new", "apt")
    (home / "apt/workspace/kai.yaml").write_text("nonsense: 1\n")
    found = kai("status")
    assert found.code == 9
    assert "bot: v1.1.0" in found.out
    assert found.err.startswith("kai: E305: ")
    document = kai("status", "--json").document("status")
    assert [it["agent"] for it in document["agents"]] == ["bot"]
    assert [(it["agent"], it["error"]["code"]) for it in document["failed"]] == [("apt", "E305")]


def test_status_as_a_document(kai: Kai, workspace: Path) -> None:
    (workspace / "state.json").write_text("{}")
    one = kai("status", "bot", "--json").document("status")["agents"][0]
    assert one["changes"] == [{"status": "M", "class": "state", "path": "state.json"}]


def test_log_marks_what_is_in_force(kai: Kai, home: Path) -> None:
    kai("rollback", "bot", "--to", "v1.0.0")
    lines = kai("log", "bot@v1.1.0", "--oneline").out.splitlines()
    assert [line[:2] for line in lines] == ["  ", "* "]
    assert lines[1].endswith("v1.0.0 (current) the first")
    assert "version v1.0.0 (current)\n" in kai("log", "bot").out


def test_log_and_versions_as_documents(kai: Kai, home: Path) -> None:
    history = kai("log", "bot", "-n", "1", "--json").document("log")
    assert (history["versions"][0]["version"], history["more"]) == ("1.1.0", True)
    known = kai("versions", "bot", "--json").document("versions")
    assert [it["version"] for it in known["versions"]] == ["1.0.0", "1.1.0"]
    assert known["current"] == "1.1.0"


def test_show(kai: Kai, home: Path) -> None:
    shown = kai("show", "bot@1.0.0").out
    assert shown.startswith("version v1.0.0\n")
    assert "\nFiles:  3 files (1 logic, 1 config, 1 state), 35 bytes\n" in shown
    assert shown.endswith("A  config.yaml\nA  logic.py\nA  state.json\n")
    document = kai("show", "bot", "--json").document("show")
    assert document["in_force"] is True
    assert document["classes"] == {"logic": 1, "config": 1, "state": 1, "lock": 0}


def test_diff_of_two_versions_is_a_patch_that_git_applies(kai: Kai, home: Path, tmp_path: Path) -> None:
    git = require_tool("git")
    assert kai("checkout", "bot@v1.0.0", str(tmp_path / "out")).code == 0
    patch = kai("diff", "bot@v1.0.0", "v1.1.0", "--binary")
    assert patch.code == 0
    subprocess.run([git, "apply"], cwd=tmp_path / "out", input=patch.out.encode(), check=True)
    assert (tmp_path / "out/logic.py").read_text() == "print('two')\n"


@pytest.mark.parametrize("second", ["v1.0.0", "bot@v1.0.0", "current~1", "current@{1}", "bot@{1}"])
def test_the_second_revision_may_be_bare(kai: Kai, home: Path, second: str) -> None:
    assert kai("diff", "bot", second, "--name-status").out == "M\tlogic.py\n"


def test_a_diff_is_within_one_agent(kai: Kai, home: Path) -> None:
    found = kai("diff", "bot", "other@v1.0.0")
    assert found.code == 2
    assert found.err.startswith("kai: bot and other are two agents\n")


def test_diff_against_the_workspace(kai: Kai, workspace: Path) -> None:
    (workspace / "logic.py").write_text("print('two')\nprint('three')\n")
    (workspace / "blob").write_bytes(b"\0\1")
    assert kai("diff", "bot", "--stat").out == (
        " blob     | Bin\n logic.py |   1 +\n 2 files changed, 1 insertions(+), 0 deletions(-)\n"
    )
    assert "+print('three')\n" in kai("diff", "bot@v1.1.0", "-U", "0").out
    assert kai("diff", "bot", "--exit-code", "--name-status").code == 1
    assert kai("diff", "bot", "current", "--exit-code").code == 0


def test_diff_as_a_document(kai: Kai, workspace: Path) -> None:
    (workspace / "logic.py").write_text("")
    document = kai("diff", "bot", "--json", "--stat", "--exit-code")
    assert document.code == 1
    [change] = document.document("diff")["changes"]
    assert (change["status"], change["path"], change["added"], change["removed"]) == ("M", "logic.py", 0, 1)
    assert len(change["old"]["id"]) == HASH


def test_a_path_that_is_not_utf8_is_exact_in_base64(kai: Kai, workspace: Path) -> None:
    (workspace / os.fsdecode(b"caf\xe9")).write_text("x")
    [change] = kai("diff", "bot", "--json").document("diff")["changes"]
    assert (change["path"], change["path_b64"]) == ("caf\\xe9", "Y2Fm6Q==")
    assert kai("diff", "bot", "--name-status").out == 'A\t"caf\\351"\n'
    assert "added:      caf\\xe9\n" in kai("status").out


def test_rollback_undo_and_redo(kai: Kai, workspace: Path) -> None:
    (workspace / "state.json").write_text('{"n": 2}\n')
    planned = kai("rollback", "bot", "--to", "1.0.0", "--dry-run")
    assert planned.out.startswith("bot: rollback v1.1.0 -> v1.0.0 (dry run: nothing moved)\n")
    assert (workspace / "logic.py").read_text() == "print('two')\n"
    moved = kai("rollback", "bot", "--to", "1.0.0", "--reason", "it rambles")
    assert moved.out.startswith("bot: rollback v1.1.0 -> v1.0.0\n  write   logic.py\n")
    assert "the workspace as it was is in backups/" in moved.out
    assert (workspace / "logic.py").read_text() == "print('one')\n"
    assert kai("rollback", "bot", "--to", "1.0.0").out == "bot is at v1.0.0 already: nothing moved\n"
    assert kai("undo", "bot").out.startswith("bot: undo v1.0.0 -> v1.1.0\n")
    assert (workspace / "state.json").read_text() == '{"n": 2}\n'
    assert kai("redo", "bot").out.startswith("bot: redo v1.1.0 -> v1.0.0\n")
    assert "rollback: it rambles" in kai("reflog", "bot").out


def test_moves_as_documents(kai: Kai, workspace: Path) -> None:
    (workspace / "state.json").write_text('{"n": 2}\n')
    plan = kai("rollback", "bot", "--to", "1.0.0", "--dry-run", "--json").document("rollback")
    assert (plan["applied"], plan["seq"], plan["saved"]) == (False, None, [{"path": "state.json"}])
    done = kai("rollback", "bot", "--to", "1.0.0", "--json", "--op-id", "job-8").document("rollback")
    assert (done["applied"], done["op_id"], done["to_version"]) == (True, "job-8", "v1.0.0")
    assert done["writes"] == [{"path": "logic.py"}, {"path": "state.json"}]
    assert kai("undo", "bot", "--json").document("undo")["verb"] == "undo"
    assert kai("redo", "bot", "--json").document("redo")["verb"] == "redo"
    kai("undo", "bot")
    assert kai("redo", "bot", "--dry-run", "--json").document("redo")["applied"] is False


def test_restore_brings_files_back(kai: Kai, workspace: Path) -> None:
    (workspace / "logic.py").write_text("broken")
    (workspace / "state.json").write_text("kept")
    back = kai("restore", "bot", "logic.py", "--json").document("restore")
    assert back["writes"] == [{"path": "logic.py"}]
    assert back["backup"] is not None
    assert (workspace / "logic.py").read_text() == "print('two')\n"
    assert (workspace / "state.json").read_text() == "kept"
    assert kai("restore", "bot", "--from", "v1.0.0").out.startswith("bot: restore from v1.0.0\n")
    assert (workspace / "logic.py").read_text() == "print('one')\n"


def test_reflog(kai: Kai, home: Path) -> None:
    kai("rollback", "bot", "--to", "1.0.0", "--reason", "it rambles")
    newest, *_, oldest = kai("reflog", "bot").out.splitlines()
    assert " v1.0.0 current@{0}: rollback: it rambles  (" in newest
    assert newest.endswith(", Ann Example <ann@example.invalid>)")
    assert " v1.0.0 current@{2}: commit: the first  (" in oldest
    log = kai("reflog", "bot", "-n", "1", "--json").document("reflog")
    [entry] = log["entries"]
    assert (entry["index"], entry["old_version"], entry["new_version"]) == (0, "v1.1.0", "v1.0.0")
    (home / "bot/workspace/state.json").write_text("{}")
    kai("undo", "bot")
    saved = next(line for line in kai("reflog", "bot", "--all").out.splitlines() if " backups/" in line)
    assert saved.split()[1].startswith("backups/")
    everything = kai("reflog", "bot", "--all", "--json").document("reflog")
    assert {"refs/heads/bot/current", "refs/tags/bot/v1.0.0"} <= {it["ref"] for it in everything["entries"]}
    assert everything["ref"] is None


def test_run_ends_with_the_code_of_what_it_ran(home: Path) -> None:
    assert process("run", "bot", "--", "sh", "-c", "echo hi; exit 7", cwd=home).code == 7
    assert process("run", "bot", "--", "sh", "-c", "kill -9 $$", cwd=home).code == 137
    ran = process("run", "bot", "--", "sh", "-c", "pwd", cwd=home)
    assert ran.out == f"{home / 'bot/workspace'}\n"


def test_run_takes_what_follows_the_dashes_as_it_is(home: Path) -> None:
    ran = process("run", "bot", "--", "echo", "--json", "--home", cwd=home)
    assert (ran.code, ran.out) == (0, "--json --home\n")


def test_run_as_a_document_leaves_stdout_to_it(home: Path) -> None:
    ran = process("run", "bot", "--json", "--", "sh", "-c", "echo hi; exit 3", cwd=home)
    assert ran.code == 3
    assert ran.err == "hi\n"
    assert ran.document("run")["exit_code"] == 3


def test_run_refuses_released_files_that_differ(home: Path, workspace: Path) -> None:
    (workspace / "config.yaml").write_text("model: large\n")
    refused = process("run", "bot", "--", "true", cwd=home)
    assert refused.code == 4
    assert refused.err.startswith("kai: E102: ")
    assert process("run", "bot", "--dirty", "--", "true", cwd=home).code == 0


def test_verify_finds_nothing_where_nothing_is_wrong(kai: Kai, home: Path) -> None:
    found = kai("verify", "--workspace")
    assert found.code == 0
    assert found.out.endswith(": good\n")
    assert kai("verify", "bot@v1.0.0", "--json").document("verify")["ok"] is True


def test_verify_names_what_is_wrong_and_exits_with_4(kai: Kai, home: Path) -> None:
    view = home / "bot/versions/v1.0.0/logic.py"
    view.chmod(0o600)
    view.write_text("evil")
    found = kai("verify")
    assert found.code == 4
    assert "  damage: view v1.0.0 logic.py: " in found.out
    assert found.err.startswith("kai: E102: 1 finding: ")
    found = kai("verify", "bot", "--json")
    assert found.code == 4
    assert found.error()["code"] == "E102"
    [one] = found.document("verify")["agents"]
    assert [(it["where"], it["path"]) for it in one["findings"]] == [("view", "logic.py")]


def test_checkout_and_export(kai: Kai, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = kai("checkout", "bot@v1.0.0", str(out), "--json").document("checkout")
    assert (done["version"], done["files"], done["path"]) == ("v1.0.0", 3, str(out))
    assert kai("checkout", "bot", str(tmp_path / "two")).out == f"bot v1.1.0 is in {tmp_path / 'two'} (3 files)\n"
    made = kai("export", "bot", "--git", str(tmp_path / "bot.git"), "--json").document("export")
    assert {it["name"] for it in made["refs"]} >= {"refs/heads/current", "refs/tags/v1.0.0"}
    assert kai("export", "bot", "--git", str(tmp_path / "b.git")).out.startswith(f"bot is in {tmp_path / 'b.git'} (")
    git = require_tool("git")
    shown = subprocess.run(
        [git, "show", "v1.0.0:logic.py"], cwd=tmp_path / "bot.git", capture_output=True, text=True, check=True
    )
    assert shown.stdout == "print('one')\n"


def test_a_setting_of_the_command_line_counts(kai: Kai, workspace: Path) -> None:
    (workspace / "big").write_bytes(bytes(2000))
    assert kai("commit", "bot", "-c", "limits.max_file=1KiB").err.startswith("kai: E309: ")
    assert kai("-c", "limits.max_file=1KiB", "commit", "bot").code == 9
    assert kai("commit", "bot", "-c", "limits.max_file=4KiB").code == 0


def test_documents_are_pure_printable_ascii(kai: Kai, home: Path) -> None:
    kai("commit", "bot", "--allow-empty", "-m", "\x1b[31m é \x7f \u202e")
    out = kai("log", "bot", "--json").out
    assert out.replace("\n", "").isprintable()
    assert out.isascii()
    assert json.loads(out)["versions"][0]["notes"] == "\x1b[31m é \x7f \u202e"


def test_a_home_without_agents_says_so(kai: Kai, tmp_path: Path) -> None:
    kai("init", str(tmp_path / "a"))
    assert kai("status", "--home", str(tmp_path / "a")).out == "there are no agents; `kai new NAME` makes one\n"
    assert kai("verify", "--home", str(tmp_path / "a")).out == "there are no agents to verify\n"
    kai("new", "apt", "--home", str(tmp_path / "a"))
    (tmp_path / "a/apt/workspace/kai.yaml").write_text("nonsense: 1\n")
    assert kai("status", "--home", str(tmp_path / "a")).out == ""
