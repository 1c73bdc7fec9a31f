"""kai doctor: what is wrong is said, with what to do; what is right is not called wrong."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kaivc
from kaivc import health, machine, mounts, sandboxes
from kaivc.api import Home
from kaivc.errors import StorageFailed
from kaivc.machine import Machine
from kaivc.ops.doctor import SANDBOXES, Diagnosis
from kaivc.sandboxes import KINDS
from kaivc.sandboxes.base import Ability, Level
from kaivc.vfs import Vfs
from tests.cli.conftest import Kai
from tests.cli.doors import KAI, Result, process
from tests.conftest import IN_CI, ROOT, Ids, run_as
from tests.engine.homes import ENVIRON, commit, make_home
from tests.engine.test_readonly import everything, let_read


@pytest.fixture
def made(tmp_path: Path) -> Home:
    """A home with `bot`, which has a version."""
    home = make_home(tmp_path / "agents")
    commit(home.new("bot"), {"logic.py": b"1"})
    home.close()
    return home


@pytest.fixture
def lines(made: Home) -> Callable[..., list[tuple[str, str]]]:
    """The (level, text) of the lines of one check."""

    def look(name: str, **words: Any) -> list[tuple[str, str]]:
        found = diagnose(made, **words)
        return [(line.level, f"{line.what}; {line.hint}") for line in found.lines if line.check == name]

    return look


def diagnose(made: Home, **words: Any) -> Diagnosis:
    return kaivc.doctor(made.path, **{"environ": ENVIRON, **words})


def test_a_sound_home_has_no_problem_and_nothing_is_changed(made: Home) -> None:
    before = everything(made.path / "bot")
    found = diagnose(made)
    assert [line for line in found.lines if line.level != "ok" and line.check != "file system"] == []
    assert [*dict.fromkeys(line.check for line in found.lines)] == [*machine.CHECKS, SANDBOXES, *health.CHECKS]
    assert found.home == str(made.path)
    assert not [name for name in os.listdir(made.path / ".kai/tmp") if name.startswith("doctor")]
    assert everything(made.path / "bot") == before


def test_outside_a_home_the_machine_is_checked(kai: Kai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = kai("doctor", "--json")
    document = done.document("doctor")
    assert document["home"] is None
    assert {it["check"] for it in document["checks"]} == {*machine.CHECKS, SANDBOXES}
    assert done.code == (document["problems"] > 0) == 0
    assert "only the machine was checked" in kai("doctor").out


def test_a_document_and_a_page_of_text(kai: Kai, home: Path) -> None:
    document = kai("doctor", "--json").document("doctor")
    assert (document["home"], document["problems"]) == (str(home), 0)
    out = kai("doctor").out
    assert "ok       settings           as the defaults are\n" in out
    assert out.splitlines()[-1].startswith("0 problems, ")


def test_a_home_that_cannot_be_opened_is_a_problem_with_its_reason(kai: Kai, home: Path) -> None:
    def problem(done: Result) -> dict[str, Any]:
        document = done.document("doctor")
        assert (done.code, document["problems"]) == (1, 1)
        return next(it for it in document["checks"] if it["level"] == "problem")

    (home / ".kai/config.yaml").write_text("lock:\n  weight: 5s\n")
    found = problem(kai("doctor", "--json"))
    assert "config.yaml:2" in found["what"]
    assert "wait" in found["hint"] + found["what"]
    (home / ".kai/config.yaml").unlink()
    (home / ".kai/local.yaml").write_text("secrets: 5\n")
    assert "local.yaml" in problem(kai("doctor", "--json"))["what"]
    (home / ".kai/local.yaml").unlink()
    for name in os.listdir(home / ".kai"):
        if name.startswith("catalog"):
            (home / ".kai" / name).unlink()
    (home / ".kai/catalog.sqlite").write_bytes(b"no catalog " * 1000)
    assert "catalog is damaged" in problem(kai("doctor", "--json"))["what"]


def test_settings_are_told_with_where_they_come_from(made: Home, lines: Any, tmp_path: Path) -> None:
    (made.path / ".kai/config.yaml").write_text("lock:\n  wait: 10s\nviews:\n  keep: 10\nisolation:\n  env: [LANG]\n")
    own = tmp_path / "config" / "kai"
    own.mkdir(parents=True)
    (own / "config.yaml").write_text("lock:\n  wait: 20s\nread:\n  tries: 7\n")
    environ = {**ENVIRON, "XDG_CONFIG_HOME": str(own.parent)}
    found = lines("settings", environ=environ, flags={"read.tries": "8"})
    assert [text for _, text in found] == [
        f"lock.wait is 10, from {made.path}/.kai/config.yaml; ",
        "read.tries is 8, from command line; ",
        f"isolation.env is ('LANG',), from {made.path}/.kai/config.yaml; ",
    ]


def test_what_each_kind_of_sandbox_gives(lines: Any) -> None:
    layers = sorted(os.listdir("/tmp"))
    found = lines(SANDBOXES)
    assert [level for level, _ in found] == ["ok"] * len(KINDS)
    assert [text.split(":")[0] for _, text in found] == list(KINDS)
    if IN_CI:
        assert found[0][1].startswith("native: full")
    assert "memory" in found[0][1]
    assert not [name for name in set(os.listdir("/tmp")) - set(layers) if name.startswith("kai-trial")]


@pytest.mark.parametrize(("level", "hint"), [(Level.PARTIAL, "isolation.require: partial"), (None, "lacks")])
def test_no_full_sandbox_is_a_warning(lines: Any, monkeypatch: pytest.MonkeyPatch, level: Any, hint: str) -> None:
    class Some:
        name = "some"

        def ability(self) -> Ability:
            return Ability("some", level, "no namespaces", ("a note",) if level else ())

    monkeypatch.setattr(sandboxes, "every", lambda: iter([Some()]))
    first, last = lines(SANDBOXES)
    assert first == ("ok", "some: partial, no namespaces; a note; " if level else "some: not here: no namespaces; ")
    assert last[0] == "warning"
    assert "E103" in last[1]
    assert hint in last[1]


def test_permissions(made: Home, lines: Any) -> None:
    state = made.path / ".kai"
    state.chmod(0o755)
    assert [level for level, _ in lines("permissions")] == ["warning"]
    state.chmod(0o777)
    assert [level for level, _ in lines("permissions")] == ["problem"]
    state.chmod(0o700)
    (state / "catalog.sqlite").chmod(0o666)
    ((level, text),) = lines("permissions")
    assert level == "problem"
    assert "catalog.sqlite" in text


def test_secrets_are_never_shown_and_their_sources_looked_at(made: Home, lines: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hidden")
    (tmp_path / "token").chmod(0o644)
    (made.path / ".kai/local.yaml").write_text(
        f"secrets:\n  TOKEN: {{file: {tmp_path}/token}}\n  GONE: {{file: /nowhere/x}}\n  UNSET: {{env: NOT_SET}}\n"
        "  SET: {env: IS_SET}\n"
    )
    found = lines("secrets", environ={**ENVIRON, "IS_SET": "hidden"})
    assert [level for level, _ in found] == ["warning", "problem", "warning", "ok"]
    texts = "\n".join(text for _, text in found)
    for said in ("/nowhere/x: No such file", "mode 0644", "NOT_SET, which is not set"):
        assert said in texts
    assert "hidden" not in texts


def test_workspaces_and_manifests(made: Home, lines: Any, tmp_path: Path) -> None:
    home = kaivc.open(made.path, environ=ENVIRON)
    (tmp_path / "elsewhere").mkdir()
    home.new("linked", link=tmp_path / "elsewhere")
    home.close()
    assert [level for level, _ in lines("workspaces")] == ["ok"]
    shutil.move(tmp_path / "elsewhere", tmp_path / "away")
    (made.path / "bot/workspace/kai.yaml").write_text("nonsense: 1\n")
    problems = [text for level, text in lines("workspaces") if level == "problem"]
    assert len(problems) == 2
    assert any("kai.yaml" in text and "nonsense" in text for text in problems)
    assert any("elsewhere" in text for text in problems)


def test_what_cut_commands_left(made: Home, lines: Any) -> None:
    (made.path / ".kai/tmp/backup-1").write_text("")
    (made.path / "bot/current").unlink()
    (made.path / ".new-half").mkdir()
    ((level, text),) = lines("scratch")
    assert level == "warning"
    assert "backup-1" in text
    assert ".new-half" in text
    ((level, text),) = lines("left to do")
    assert (level, "the link `current`" in text) == ("warning", True)


class Clock:
    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def now_ns(self) -> int:
        return self.seconds * 1_000_000_000


def test_a_clock_that_stands_before_what_happened(lines: Any) -> None:
    ((level, text),) = lines("times", clock=Clock(1_789_000_000))
    assert level == "warning"
    assert "ahead of the clock" in text
    assert lines("clock", clock=Clock(0))[0][0] == "problem"


class Poor(Vfs):
    """A disk without hard links, whose locks lock nothing."""

    def link(self, *_: Any) -> None:
        raise StorageFailed("linking: Operation not permitted")

    def flock(self, *_: Any, **__: Any) -> None:
        pass


def test_what_the_disk_cannot_do_is_found_by_trying(made: Home, lines: Any) -> None:
    found = lines("abilities", vfs=Poor())
    assert [level for level, _ in found] == ["problem", "problem"]
    assert "hard links does not work: linking" in found[0][1]
    assert "two held one lock" in found[1][1]
    assert not [name for name in os.listdir(made.path / ".kai/tmp") if name.startswith("doctor")]


def test_space_against_need(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        f_bavail, f_frsize, f_favail, f_files = 1000, 1, 10, 100

    monkeypatch.setattr(os, "statvfs", lambda _: Found)
    assert lines("space")[0][0] == "problem"
    Found.f_bavail = 65 << 20
    assert lines("space")[0] == ("warning", "10 files more fit on the disk; remove files there")
    monkeypatch.setattr(health, "_size", lambda _: 1 << 40)
    assert lines("space")[0][0] == "warning"


def test_a_workspace_on_another_mount_is_a_problem(made: Home, lines: Any) -> None:
    place = made.path / "bot/workspace"
    if subprocess.run(["mount", "--bind", place, place], check=False, capture_output=True).returncode:
        text = "this system lets this user mount nothing"
        if IN_CI:
            pytest.fail(text)
        pytest.skip(text)
    try:
        ((level, text),) = lines("one disk")
    finally:
        subprocess.run(["umount", place], check=True)
    assert (level, str(place) in text) == ("problem", True)
    assert [level for level, _ in lines("one disk")] == ["ok"]


MOUNTINFO = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/a\040b rw - nfs4 server:/x rw
31 22 0:41 / /mnt/a rw master:3 - tmpfs tmpfs rw
32 31 0:42 / /mnt/a/ssh rw - fuse.sshfs me@there: rw
a line that is none
"""


def test_the_file_system_of_a_path() -> None:
    known = mounts.parse(MOUNTINFO)
    kinds = {path: mounts.of(path, known) for path in ("/x", "/mnt/a b/c", "/mnt/a", "/mnt/a/ssh/x", "/mnt/ab")}
    assert {path: it.kind for path, it in kinds.items() if it} == {
        "/x": "ext4",
        "/mnt/a b/c": "nfs4",
        "/mnt/a": "tmpfs",
        "/mnt/a/ssh/x": "fuse.sshfs",
        "/mnt/ab": "ext4",
    }
    assert [it.is_network for it in known] == [False, True, False, True]
    assert mounts.of("/x", []) is None


@pytest.mark.parametrize(
    ("kind", "level"), [("nfs4", "warning"), ("tmpfs", "warning"), ("xfs", "ok"), ("fuse.sshfs", "warning")]
)
def test_a_home_on_a_network_or_in_memory(lines: Any, monkeypatch: pytest.MonkeyPatch, kind: str, level: str) -> None:
    monkeypatch.setattr(mounts, "every", lambda: [mounts.Mount(1, b"/", kind)])
    assert lines("file system")[0][0] == level


def test_a_reader_of_somebody_elses_home_is_told_so(public_tmp: Path, other_uid: Ids, public_python: list[str]) -> None:
    home = make_home(public_tmp / "agents")
    commit(home.new("bot"), {"logic.py": b"1"})
    home.close()
    let_read(public_tmp / "agents")
    before = everything(public_tmp)
    argv = [*public_python, "-m", "kaivc", "--home", str(public_tmp / "agents"), "doctor", "--json"]
    done = run_as(other_uid, argv, cwd="/", env={**os.environ, **ENVIRON})
    document = Result(done.returncode, done.stdout, done.stderr).document("doctor")
    found = {it["check"]: it for it in document["checks"] if it["level"] != "ok"}
    assert "not tried" in found["abilities"]["what"]
    assert "can only be read" in " ".join(it["what"] for it in document["checks"] if it["check"] == "permissions")
    assert everything(public_tmp) == before


# ------------------------------------------------------------ the machine


def test_git_and_scratch_that_are_not_there(lines: Any, tmp_path: Path) -> None:
    environ = {**ENVIRON, "PATH": str(tmp_path), "TMPDIR": str(tmp_path / "nowhere")}
    assert lines("git", environ=environ)[0][0] == "warning"
    assert lines("scratch directory", environ=environ)[0][0] == "warning"
    (tmp_path / "git").write_text("#!/nowhere\n")
    (tmp_path / "git").chmod(0o755)
    assert "cannot be run" in lines("git", environ=environ)[0][1]


@pytest.mark.parametrize(("mask", "level"), [(0o022, "ok"), (0o077, "ok"), (0o000, "warning"), (0o300, "problem")])
def test_a_umask_is_told_and_not_touched(mask: int, level: str) -> None:
    old = os.umask(mask)
    try:
        ((found, _, _),) = machine._umask(Machine("", "", 0, "/tmp", {}))
        assert os.umask(mask) == mask
    finally:
        os.umask(old)
    assert found == level


@pytest.mark.parametrize(
    ("version", "wanted", "holds"),
    [
        ("1.2.21", "==1.2.21", True),
        ("1.2.22", "==1.2.21", False),
        ("1.2.4", "~=1.2", True),
        ("2.0", "~=1.2", False),
        ("0.3.2", "~=0.3.1", True),
        ("0.4.0", "~=0.3.1", False),
        ("0.28.0", "<0.29,>=0.19", True),
        ("0.29.0", "<0.29,>=0.19", False),
        ("0.18", ">=0.19", False),
        ("1", ">=1.0", True),
        ("3.1", "", True),
    ],
)
def test_versions_of_what_kai_needs(version: str, wanted: str, holds: bool) -> None:
    assert machine.fits(version, wanted) is holds


def test_what_is_missing_is_said(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_needed", lambda: iter([("no-such-package-here", "~=1"), ("typer", "==0.0")]))
    assert [level for level, _ in lines("dependencies")] == ["problem", "warning", "ok"]


def test_a_check_that_fails_does_not_stop_the_others(made: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> Any:
        raise PermissionError(13, "Permission denied", "/somewhere")
        yield

    monkeypatch.setitem(health.CHECKS, "space", fails)
    found = diagnose(made)
    assert [(line.what) for line in found.lines if line.level == "problem"] == ["/somewhere: Permission denied"]
    assert found.lines[-1].check == "times"


def test_doctor_from_a_process(made: Home) -> None:
    assert process("--home", str(made.path), "doctor").code == 0


@pytest.mark.parametrize("name", ["config.yaml", "local.yaml", "home.json", "pack"])
def test_a_pipe_where_a_file_should_be_keeps_nobody_waiting(made: Home, name: str) -> None:
    path = made.path / ".kai" / name
    if name == "pack":
        (path,) = (made.path / ".kai/packs/bot").iterdir()
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    for verb in ("doctor", "audit", "fsck"):
        done = subprocess.run(
            [*KAI, "--home", str(made.path), verb], capture_output=True, text=True, timeout=30, check=False
        )
        assert "E999" not in done.stderr
        assert done.returncode in ((0, 1) if name == "home.json" else (1, 4, 9, 11)), (verb, done)


def test_a_working_directory_that_was_removed(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for args in (["doctor"], ["audit"], ["init"]):
        gone.mkdir()
        code = f"import os; os.rmdir({str(gone)!r}); os.execv({KAI[0]!r}, {[*KAI, *args]!r})"
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [KAI[0], "-c", code], cwd=gone, env=environ, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode in (1, 9), done
        assert "the working directory was removed" in done.stdout + done.stderr
