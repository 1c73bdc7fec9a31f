"""Where layers lie: what temp_dir may be, and what is collected there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kaivc import scratch, trials
from kaivc.api import Home
from kaivc.errors import IsolationFailed
from kaivc.records import replace
from kaivc.trials import Trial
from kaivc.vfs import Vfs
from tests.conftest import Ids, run_as
from tests.engine import homes
from tests.engine.homes import make_home

TRIAL = Trial("one", "testing", "00" * 32, "1.0.0", "committed", ("true",), os.geteuid(), "Ann <a@b>", 10**9)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    opened = make_home(tmp_path / "home", isolation__temp_dir=str(tmp_path / "temp"))
    homes.commit(opened.new("bot"), {"logic.py": b"1"})
    yield opened
    opened.close()
    homes.remove(tmp_path / "home")


def place(home: Home) -> str:
    return scratch.place_for(home.opened, home.opened.settings.isolation.temp_dir)


# ---------------------------------------------------------------- temp_dir


def test_it_is_made_for_this_user_alone(home: Home, tmp_path: Path) -> None:
    found = Path(place(home))
    assert found == tmp_path / "temp" / str(os.geteuid())
    assert found.stat().st_mode & 0o7777 == 0o700
    assert found.parent.stat().st_mode & 0o7777 == (0o1777 if os.geteuid() == 0 else 0o700)
    assert place(home) == str(found)


def unsafe(tmp_path: Path, what: str) -> None:
    top, mine = tmp_path / "temp", tmp_path / "temp" / str(os.geteuid())
    (tmp_path / "elsewhere").mkdir()
    if what == "a link":
        top.symlink_to(tmp_path / "elsewhere")
    elif what == "a file":
        top.write_text("")
    else:
        top.mkdir()
    if what == "open to others":
        top.chmod(0o777)
    elif what == "somebody's":
        os.chown(top, 1234, 1234)
    elif what == "a link below":
        mine.symlink_to(tmp_path / "elsewhere")
    elif what == "open below":
        mine.mkdir(mode=0o755)
    elif what == "somebody's below":
        mine.mkdir(mode=0o700)
        os.chown(mine, 1234, 1234)


@pytest.mark.parametrize(
    "what",
    ["a link", "a file", "open to others", "somebody's", "a link below", "open below", "somebody's below"],
)
def test_a_directory_that_is_not_safe_is_refused(home: Home, tmp_path: Path, what: str) -> None:
    if "somebody" in what and os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    unsafe(tmp_path, what)
    with pytest.raises(IsolationFailed) as caught:
        place(home)
    assert caught.value.facts["guard"] == "temp_dir"
    assert os.listdir(tmp_path / "elsewhere") == []


def test_one_in_a_home_is_refused(home: Home) -> None:
    with pytest.raises(IsolationFailed, match="lies in the home"):
        scratch.place_for(home.opened, str(home.path / "bot" / "scratch"))
    assert not (home.path / "bot" / "scratch").exists()


def test_one_that_cannot_be_made_is_no_isolation(tmp_path: Path) -> None:
    flags = {"isolation__temp_dir": str(tmp_path / "not" / "there")}
    with (
        closing(make_home(tmp_path / "other", **flags)) as opened,
        pytest.raises(IsolationFailed, match="there is no directory"),
    ):
        place(opened)


def test_a_manifest_names_only_a_place_where_anybody_may_write(home: Home, tmp_path: Path) -> None:
    """It may be a stranger's, and kai may be root."""
    common, own = tmp_path / "common", tmp_path / "own"
    for path, mode in ((common, 0o1777), (own, 0o755)):
        path.mkdir()
        path.chmod(mode)
    (common / "link").symlink_to(own)
    for named in (own, own / "new", own / "new" / "deep", common / "link", common / "link" / "new"):
        with pytest.raises(IsolationFailed, match="may only name a directory that is sticky"):
            scratch.place_for(home.opened, str(named))
    assert os.listdir(own) == []
    assert scratch.place_for(home.opened, str(common / "new")) == str(common / "new" / str(os.geteuid()))


def test_two_users_have_a_place_each_in_a_sticky_directory(
    tmp_path: Path, public_tmp: Path, public_python: list[str], other_uid: Ids
) -> None:
    top = public_tmp / "temp"
    with closing(make_home(tmp_path / "home", isolation__temp_dir=str(top))) as home:
        place(home)
    done = run_as(other_uid, [*public_python, "-c", OTHER, str(top), str(public_tmp)], cwd="/")
    assert done.stdout == f"{top}/{other_uid.uid}\n", done.stderr
    assert sorted(os.listdir(top)) == ["0", str(other_uid.uid)]
    top.chmod(0o755)  # root's, and not sticky
    done = run_as(other_uid, [*public_python, "-c", OTHER, str(top), str(public_tmp)], cwd="/")
    assert "it is root's, and not sticky" in done.stderr


OTHER = """
import sys
from types import SimpleNamespace
from kaivc import scratch
from kaivc.vfs import Vfs
settings = SimpleNamespace(isolation=SimpleNamespace(temp_dir=sys.argv[1]))
print(scratch.place_for(SimpleNamespace(vfs=Vfs(), settings=settings), sys.argv[1]))
"""


# ---------------------------------------------------------------- one snapshot's


def test_what_is_not_kept_goes_and_what_is_kept_stays(home: Home) -> None:
    with scratch.made(home.opened, place(home), "one") as here:
        assert os.listdir(here.path) == ["layer"]
        assert scratch.is_at_work(here.path, Vfs())
    assert not os.path.lexists(here.path)
    with pytest.raises(KeyError), scratch.made(home.opened, place(home), "two") as here:
        raise KeyError
    assert not os.path.lexists(here.path)
    with scratch.made(home.opened, place(home), "three") as here:
        scratch.keep(home.opened, here)
    assert os.path.isdir(here.layer)
    assert not scratch.is_at_work(here.path, Vfs())


def test_a_deep_closed_tree_full_of_links_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "stays").write_text("x")
    root = tmp_path / "layer"
    root.mkdir()
    script = """
        import os
        for at in range(3000):
            os.symlink("../outside", "link"); os.mkdir("d"); os.chdir("d")
        os.mkdir("0"); os.mkdir("1"); open("2", "w").close(); os.chmod("1", 0)
        os.mkdir("x" * 255)
    """
    code = "\n".join(
        line.strip() if "for" not in line and "symlink" not in line else line[8:] for line in script.splitlines()
    )
    subprocess.run(["/usr/bin/python3", "-c", code], cwd=root, check=True)
    scratch.remove(Vfs(), str(root))
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert (tmp_path / "outside" / "stays").read_text() == "x"
    scratch.remove(Vfs(), str(root))  # what is absent is well


# ---------------------------------------------------------------- what a killed kai left


def left(home: Home, name: str, *, kept: bool = False, record: str | None = None) -> Path:
    """A snapshot's directory that nobody is at work on."""
    path = Path(place(home)) / name
    (path / "layer").mkdir(parents=True, mode=0o700)
    (Path(place(home)) / scratch.LOCK).touch()
    if kept:
        (path / "kept").write_text(home.opened.id)
    if record is not None:
        repo = home.opened.repository("bot")
        trials.write(repo.vfs, repo.layout, "bot", replace(TRIAL, id=name, status=record, scratch=str(path)))
    return path


def records(home: Home) -> list[str]:
    return trials.ids(home.opened.layout, "bot")


@pytest.mark.parametrize(
    ("kept", "record", "stays"),
    [
        (False, None, False),
        (False, "ready", False),
        (False, "testing", False),
        (False, "passed", False),
        (False, "failed", False),
        (True, "testing", False),
        (True, None, False),
        (True, "failed", True),
        (True, "error", True),
    ],
)
def test_left_overs_go_with_their_records(home: Home, kept: bool, record: str | None, stays: bool) -> None:
    path = left(home, "one", kept=kept, record=record)
    scratch.collect(home.opened)
    assert path.exists() == stays
    assert records(home) == (["one"] if stays else [])


def test_what_is_at_work_stays(home: Home) -> None:
    with scratch.made(home.opened, place(home), "one") as here:
        repo = home.opened.repository("bot")
        trials.write(repo.vfs, repo.layout, "bot", replace(TRIAL, scratch=here.path))
        assert scratch.collect(home.opened) == []
        assert (os.path.isdir(here.layer), records(home)) == (True, ["one"])


def test_what_was_being_removed_goes(home: Home) -> None:
    gone = Path(place(home)) / "one.gone"
    (gone / "7" / "d").mkdir(parents=True)
    (Path(place(home)) / scratch.LOCK).touch()
    assert scratch.collect(home.opened) == [str(gone)]
    assert os.listdir(place(home)) == [scratch.LOCK]


def test_the_kept_layer_of_another_home_stays(home: Home, tmp_path: Path) -> None:
    other = make_home(tmp_path / "other", isolation__temp_dir=str(tmp_path / "temp"))
    path = left(home, "one", kept=True, record="failed")
    loose = left(home, "two")
    assert scratch.collect(other.opened) == [str(loose)]
    assert path.exists()
    other.close()


def test_a_record_leads_to_nothing_but_scratch(home: Home, tmp_path: Path) -> None:
    """Another member of a group may write any record: what it names is not for removal."""
    precious = tmp_path / str(os.geteuid()) / "one"
    (precious / "file").mkdir(parents=True)
    precious.parent.chmod(0o700)
    repo = home.opened.repository("bot")
    for path in (precious, tmp_path):
        trials.write(repo.vfs, repo.layout, "bot", replace(TRIAL, scratch=str(path)))
        scratch.collect(home.opened)
        assert precious.exists()


def test_a_record_whose_layer_is_gone_goes(home: Home) -> None:
    path = left(home, "one", kept=True, record="failed")
    shutil.rmtree(path)
    scratch.collect(home.opened)
    assert records(home) == []


# ---------------------------------------------------------------- records


def test_a_record_comes_back_and_half_of_one_does_not(home: Home) -> None:
    trial = replace(TRIAL, command=("sh", "-c", "x\udcff\n"), seconds=1.5, exit_code=3, whole=True, top="layer/u")
    data = trials.encode(trial)
    assert trials.decode(data, "one") == trial
    assert trials.decode(data, "two") is None
    for bad in (data[:-20], b"", b"[" * 100_000, data.replace(b'"uid": ', b'"uid": "'), data.replace(b"true", b"1")):
        assert trials.decode(bad, "one") is None
    for old, new in ((b'"format": 1', b'"format": 2'), (b'"exit_code": 3', b'"exit_code": "3"'), (b'"top"', b'"tip"')):
        assert trials.decode(data.replace(old, new), "one") is None


def test_a_name_grows_with_time_and_is_a_name(home: Home) -> None:
    from kaivc.names import is_name

    names = [scratch.new_id(at * 10**9) for at in (1_790_000_000, 1_790_000_001, 1_800_000_000)]
    assert names == sorted(names)
    assert all(map(is_name, names))
