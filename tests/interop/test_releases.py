"""Ten real releases, forth and back: `scripts/import_releases.py`, in its short form and on wheels made here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import IN_CI, ROOT

SCRIPT = ROOT / "scripts" / "import_releases.py"


def run(*options: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("import_releases", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def wheel(directory: Path, number: str, files: dict[str, bytes], *, mode: int = 0o100644) -> Path:
    path = directory / f"some_agent-{number}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo()
            member.filename = member.orig_filename = name
            member.external_attr = (0o100755 if name.endswith(".sh") else mode) << 16
            archive.writestr(member, data)
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """Three releases and a candidate, whose files come, go and change kind."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    wheel(directory, "0.9", {"agent/a.py": b"1", "agent/run.sh": b"#!", "x": b"a file"})
    wheel(directory, "0.10.2", {"agent/a.py": b"2", "agent/b.py": b"", "x/y": b"now a directory"})
    wheel(directory, "0.10.2.1", {"agent/a.py": b"1", "agent/run.sh": b"#!", "x": b"again"})
    wheel(directory, "0.11rc1", {"agent/a.py": b"3"})
    return directory


@pytest.mark.network
def test_real_releases_come_back_byte_for_byte():
    done = run("--short")
    if done.returncode == 2 and not IN_CI:
        pytest.skip(done.stderr)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.splitlines()[-1].startswith("ALL ")


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_wheels_that_are_here_come_back_byte_for_byte(wheels, tmp_path, object_format):
    words = ["--package", "Some.Agent", "--wheels", wheels, "--home", tmp_path / "home", "--keep"]
    done = run(*words, "--object-format", object_format)
    assert done.returncode == 0, (done.stdout, done.stderr)
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("ALL ")
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["0.9", "0.9.0"],
        ["0.10.2", "0.10.2"],
        ["0.10.2.1", "0.10.2001"],
    ]
    assert os.readlink(tmp_path / "home/some-agent/current") == "versions/v0.10.2001"
    assert run(*words).returncode == 2  # the home is there already


def test_the_home_goes_unless_it_is_to_be_kept(wheels, tmp_path):
    done = run("--package", "some-agent", "--wheels", wheels, "--home", tmp_path / "home", "--short")
    assert done.returncode == 0
    assert os.listdir(tmp_path) == ["wheels"]


@pytest.mark.parametrize("where", ["workspace", "versions/v0.9.0"])
@pytest.mark.parametrize("fault", ["bytes", "missing", "more", "x bit"])
def test_any_difference_is_told_and_fails(script, wheels, tmp_path, monkeypatch, capsys, where, fault):
    real = script.held

    def tampered(directory: Path) -> dict:
        found = dict(real(directory))
        if directory.as_posix().endswith(where) and "x" in found:
            _, data = found.pop("x")
            change = {"bytes": (False, b"?"), "x bit": (True, data), "more": (False, data)}.get(fault)
            found |= {"x": change} if change else {}
            found |= {"y": (False, b"")} if fault == "more" else {}
        return found

    monkeypatch.setattr(script, "held", tampered)
    words = ["--package", "some-agent", "--wheels", str(wheels), "--home", str(tmp_path / "home"), "--short"]
    assert script.main(words) == 1
    printed = capsys.readouterr().out
    assert "differs\n" in printed
    assert "rollbacks equal" not in printed


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../../x", "a//b", "./x", "a\\b", "C:/x", "a/..", "\0", "a\0b"], ids=ascii
)
def test_an_unsafe_name_is_refused(script, tmp_path, name):
    with pytest.raises(script.CannotBegin, match="unsafe name"):
        script.unpacked(wheel(tmp_path, "1.0", {"fine": b"", name: b""}))


def test_a_link_a_second_name_and_a_bomb_are_refused(script, tmp_path, monkeypatch):
    with pytest.raises(script.CannotBegin, match="no plain file"):
        script.unpacked(wheel(tmp_path, "1.0", {"link": b"/etc/passwd"}, mode=0o120777))
    path = wheel(tmp_path, "1.1", {"a": b""})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a", b"other")
    with pytest.raises(script.CannotBegin, match="twice"):
        script.unpacked(path)
    monkeypatch.setattr(script, "MAX_UNPACKED", 10)
    with pytest.raises(script.CannotBegin, match="more than"):
        script.unpacked(wheel(tmp_path, "1.2", {"a": b"12345678901"}))


def test_the_newest_final_releases_are_chosen(script):
    numbers = ["1.10.0", "1.9.1", "1.9.0", "2.0.0rc1", "1.11.0.dev3", "1.8.0", "1.10.0.post1", "0.9"]
    assert script.finals(numbers, 3) == ["1.9.0", "1.9.1", "1.10.0"]
    with pytest.raises(script.CannotBegin):
        script.finals(["1.0", "2.0b1"], 10)


@pytest.mark.parametrize(
    ("index", "download"),
    [("agent (2.0)\nAvailable versions: 2.0, 1.0\nmore", ""), ("ERROR: unknown command", "(from versions: 2.0, 1.0)")],
)
def test_the_list_of_releases_is_read_from_either_of_pips_texts(script, monkeypatch, index, download):
    monkeypatch.setattr(script, "_pip", lambda word, *_: index if word == "index" else download)
    assert script.published("agent") == ["2.0", "1.0"]


def test_a_package_that_is_not_there_is_said(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "_pip", lambda *_: "ERROR: No matching distribution found")
    assert script.main(["--package", "no-such-agent"]) == 2
    assert "lists no versions of no-such-agent" in capsys.readouterr().err
