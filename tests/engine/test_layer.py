"""What a layer changed: real overlays, and copies, against the trees that a command left."""

from __future__ import annotations

import io
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaivc import layer, scratch, trees, versions
from kaivc.api import Agent
from kaivc.capture import Capturer
from kaivc.layer import Layer, Lower
from kaivc.records import replace
from kaivc.sandboxes.base import Form, Job, Limits
from kaivc.sinks import HashSink
from tests.conftest import Ids, run_as
from tests.engine import homes
from tests.engine.homes import make_home, open_home
from tests.engine.overlays import Copying, Overlay

LIMITS = Limits(1 << 30, 100, 100, 1 << 30, 10_000, 1 << 20, 60)
FILES = {
    "logic.py": b"print(1)\n",
    "config.yaml": b"a: 1\n",
    "state/a": b"a" * 100,
    "state/deep/b": b"b",
    "kai.yaml": b"state: {secret: [{path: token, name: TOKEN}]}\n",
    "token": b"mine",
}
SANDBOXES = {"root": Overlay(user=False), "user": Overlay(), "copy": Copying()}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    home = make_home(tmp_path / "home")
    bot = home.new("bot")
    homes.commit(bot, FILES)
    yield bot
    home.close()
    homes.remove(tmp_path / "home")


def lower_of(agent: Agent) -> Lower:
    repo, version = agent.repository, agent.current
    files = trees.flatten(repo.store, version.tree_oid)
    return Lower(str(agent.load()), files, versions.manifest_of(repo, version.tree_oid))


def run(agent: Agent, where: Path, script: str, kind: str = "user") -> tuple[str, bool]:
    """Run a script over the version in force; where its layer lies, and whether that is a copy."""
    if kind == "root" and os.geteuid() != 0:
        pytest.skip("only root mounts without a user namespace")
    where.mkdir()
    job = Job(("bash", "-c", script), {}, str(agent.load()), str(where), LIMITS)
    said = bytearray()
    ended = SANDBOXES[kind].run(job, said.extend)
    assert ended.exit_code == 0, said
    return ended.top, ended.form is Form.COPY


def look(agent: Agent, top: str, *, whole: bool = False, most: int = 1 << 30) -> Layer:
    sink = HashSink(agent.repository.home.format)
    return layer.read(agent.repository, lower_of(agent), top, whole=whole, sink=sink, most=most)


def changes(found: Layer) -> dict[str, str]:
    return {os.fsdecode(it.path): it.status for it in found.changes}


EDITS = """
echo 2 >> logic.py
rm config.yaml
chmod +x logic.py
rm -r state; mkdir state; echo y > state/y
echo new > new.txt; ln -s new.txt link
mkdir empty
exec 3<>token; exec 3>&-
"""


@pytest.mark.parametrize("kind", SANDBOXES)
def test_every_kind_of_change_is_told(agent: Agent, tmp_path: Path, kind: str) -> None:
    top, whole = run(agent, tmp_path / "layer", EDITS, kind)
    found = look(agent, top, whole=whole)
    assert changes(found) == {
        "logic.py": "M", "config.yaml": "D", "state/a": "D", "state/deep/b": "D", "state/y": "A", "new.txt": "A",
        "link": "A",
    }  # fmt: skip
    sizes = {os.fsdecode(it.path): (it.before, it.after) for it in found.changes}
    assert (sizes["logic.py"], sizes["config.yaml"], sizes["state/y"]) == ((9, 11), (5, None), (None, 2))
    assert found.refusals == ()
    assert found.files[b"token"] == lower_of(agent).files[b"token"]


@pytest.mark.parametrize("kind", SANDBOXES)
def test_what_is_copied_up_and_equal_is_no_change(agent: Agent, tmp_path: Path, kind: str) -> None:
    script = "touch logic.py; echo x >> state/a; truncate -s 100 state/a; mv state state2; mv state2 state"
    top, whole = run(agent, tmp_path / "layer", script + "; chmod 600 config.yaml; chmod 000 kai.yaml", kind)
    assert changes(look(agent, top, whole=whole)) == {}


@pytest.mark.parametrize("kind", SANDBOXES)
def test_a_file_in_the_place_of_a_directory_and_the_other_way_round(agent: Agent, tmp_path: Path, kind: str) -> None:
    script = "rm -r state logic.py; echo f > state; mkdir logic.py; echo g > logic.py/g; ln -sfn state config.yaml"
    top, whole = run(agent, tmp_path / "layer", script, kind)
    assert changes(look(agent, top, whole=whole)) == {
        "logic.py": "D", "logic.py/g": "A", "state": "A", "state/a": "D", "state/deep/b": "D", "config.yaml": "T",
    }  # fmt: skip


# ---------------------------------------------------------------- against the tree itself

NAMES = ["logic.py", "state/a", "state/deep/b", "new", "state/new", "config.yaml", "d/e/f", "state/deep"]
EDIT = st.one_of(
    st.tuples(st.just('mkdir -p "$(dirname {0})"; echo {1} > {0}'), st.sampled_from(NAMES), st.integers(0, 3)),
    st.tuples(st.just("rm -rf {0}"), st.sampled_from([*NAMES, "state", "d"]), st.just(0)),
    st.tuples(st.just("chmod {1}00 {0}"), st.sampled_from(NAMES[:3]), st.sampled_from([4, 5, 6, 7])),
    st.tuples(st.just("mkdir -p {0}"), st.sampled_from([*NAMES, "state"]), st.just(0)),
    st.tuples(st.just("ln -sfn {1} {0}"), st.sampled_from(NAMES), st.sampled_from(["new", "state", "x/y"])),
    st.tuples(st.just("mv {0} {1}"), st.sampled_from(NAMES), st.sampled_from([*NAMES, "state", "moved"])),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(edits=st.lists(EDIT, max_size=12))
def test_a_layer_reads_as_the_tree_that_it_makes(
    agent: Agent, tmp_path: Path, edits: list[tuple[str, str, str]]
) -> None:
    """The judge is a capture of the merged tree, copied out from within."""
    where = tmp_path / "layer"
    homes.remove(where)
    homes.remove(tmp_path / "out")
    lines = [f"{{ {edit.format(name, value)}; }} 2>/dev/null" for edit, name, value in edits]
    script = "\n".join([*lines, f"cp -a . {tmp_path}/out; rm {tmp_path}/out/snapshot_meta.json; true"])
    top, _ = run(agent, where, script)
    found = look(agent, top)
    linked = replace(agent.repository.home.local, workspaces={"bot": str(tmp_path / "out")})
    judge = type(agent.repository)(replace(agent.repository.home, local=linked), "bot", agent.repository.id)
    base = lower_of(agent)
    sink = HashSink(judge.home.format)
    subprocess.run(["chmod", "-R", "u+rX", tmp_path / "out"], check=False)
    captured = Capturer(judge, sink, {}, spare=base.manifest, base_manifest=base.manifest).run().files
    assert dict(found.files) == captured


# ---------------------------------------------------------------- what no version can hold

PLANTED = {
    "a pipe": ("mkfifo p", "p is a named pipe"),
    "a link to /": ("ln -s /etc/passwd p", "p is a symbolic link that leads out"),
    "a link up": ("ln -s ../../x p", "leads out of the agent"),
    "a link through a link": ("ln -s state/deep d; ln -s d/../../../x p", "leads out of the agent"),
    "a setuid file": ("cp logic.py p; chmod 4755 p", "setuid"),
    "a setgid file": ("cp logic.py p; chmod 2755 p", "setuid or setgid"),
    "git in disguise": ("mkdir .GIT; echo x > .GIT/config", "no version can hold"),
    "kai in disguise": ("mkdir 'KAI~1'; echo x > 'KAI~1/x'", "no version can hold"),
    "one name twice": ("echo x > LOGIC.py", "folds case"),
    "a bad manifest": ("echo 'entri: x' > kai.yaml", "kai.yaml cannot be read"),
    "a bad ignore file": ("printf '[\\n' > .kaiignore", ".kaiignore cannot be read"),
    "a manifest that is a link": ("rm kai.yaml; ln -s logic.py kai.yaml", "kai.yaml is no plain file"),
    "a manifest that is a directory": ("rm kai.yaml; mkdir kai.yaml; echo x > kai.yaml/a", "kai.yaml is no plain file"),
    "an ignore file that is a link": ("ln -s logic.py .kaiignore", ".kaiignore is no plain file"),
    "a link for modules": ("ln -s logic.py .gitmodules", "symbolic link"),
    "200 directories deep": ("for i in $(seq 200); do mkdir d; cd d; done; echo x > f", "nested more than"),
    "3,000 directories deep": (
        '/usr/bin/python3 -c \'import os; [(os.mkdir("d"), os.chdir("d")) for _ in range(3000)]\'',
        "nested more than",
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_no_version_can_hold_is_refused_and_followed_nowhere(agent: Agent, tmp_path: Path, what: str) -> None:
    script, said = PLANTED[what]
    top, _ = run(agent, tmp_path / "layer", script)
    found = look(agent, top)
    assert any(said in str(it) for it in found.refusals), found.refusals
    scratch.remove(agent.repository.vfs, str(tmp_path / "layer"))
    assert not (tmp_path / "layer").exists()


def test_a_socket_and_a_device_are_refused(agent: Agent, tmp_path: Path) -> None:
    top, _ = run(agent, tmp_path / "layer", "true")
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(top)
    listening.bind("s")
    os.chdir(here)
    listening.close()
    kinds = {"s": "a socket"}
    if os.geteuid() == 0:
        os.mknod(os.path.join(top, "null"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(os.path.join(top, "disk"), 0o666 | stat.S_IFBLK, os.makedev(7, 0))
        kinds |= {"null": "a device", "disk": "a device"}
    said = {os.fsdecode(it.path): it.why for it in look(agent, top).refusals}
    assert {name: why.split(":")[0].removeprefix("is ") for name, why in said.items()} == kinds


def test_a_hard_link_to_a_file_outside_is_refused_and_one_inside_is_two_files(agent: Agent, tmp_path: Path) -> None:
    top, _ = run(
        agent, tmp_path / "layer", "echo x > one; ln one two; mkdir .venv; echo y > three; ln three .venv/four"
    )
    assert look(agent, top).refusals == ()
    (tmp_path / "outside").write_text("not the agent's")
    os.link(tmp_path / "outside", os.path.join(top, "in"))
    found = look(agent, top)
    assert [str(it) for it in found.refusals] == ["in is a hard link to a file outside the agent"]


def test_what_an_overlay_moved_elsewhere_is_refused(agent: Agent, tmp_path: Path) -> None:
    top, _ = run(agent, tmp_path / "layer", "mkdir moved; echo x > copied")
    os.setxattr(os.path.join(top, "moved"), "user.overlay.redirect", b"/state")
    os.setxattr(os.path.join(top, "copied"), "user.overlay.metacopy", b"")
    assert {str(it).split(" in a way")[0] for it in look(agent, top).refusals} == {
        "moved was moved",
        "copied was copied",
    }


def test_more_bytes_than_may_be_written_are_not_read(agent: Agent, tmp_path: Path) -> None:
    top, _ = run(agent, tmp_path / "layer", "truncate -s 100G huge; head -c 5000 /dev/zero > small")
    found = look(agent, top, most=10_000)
    assert [str(it) for it in found.refusals] == [f"huge has {100 << 30} bytes: too many to be read"]
    assert changes(found) == {"small": "A"}


def test_more_files_than_a_version_may_have_are_refused(agent: Agent, tmp_path: Path) -> None:
    top, _ = run(agent, tmp_path / "layer", "for i in $(seq 9); do echo $i > f$i; done")
    few = open_home(tmp_path / "home", limits__max_files="7").agent("bot")
    assert "limits.max_files" in str(look(few, top).refusals[0])


# ---------------------------------------------------------------- what is not kept


def test_ignored_files_are_left_out_and_said(agent: Agent, tmp_path: Path) -> None:
    script = "echo '*.tmp' > .kaiignore; echo x > a.tmp; echo x > .env; mkdir __pycache__ .git; echo x > .git/hooks"
    top, _ = run(agent, tmp_path / "layer", script)
    found = look(agent, top)
    assert changes(found) == {".kaiignore": "A"}
    assert found.ignored == (b".env", b".git", b"a.tmp")


@pytest.mark.parametrize("kind", SANDBOXES)
def test_what_a_new_ignore_file_names_is_left_out_touched_or_not(agent: Agent, tmp_path: Path, kind: str) -> None:
    """As a commit of a workspace with it would."""
    script = "printf 'config.yaml\\nstate/\\ntoken\\n' > .kaiignore; echo x > state/a"
    top, whole = run(agent, tmp_path / "layer", script, kind)
    found = look(agent, top, whole=whole)
    assert changes(found) == {".kaiignore": "A", "config.yaml": "D", "state/a": "D", "state/deep/b": "D"}


@pytest.mark.parametrize("kind", SANDBOXES)
def test_a_secret_that_was_removed_stays_unless_its_place_is_taken(agent: Agent, tmp_path: Path, kind: str) -> None:
    top, whole = run(agent, tmp_path / "layer", "rm token logic.py", kind)
    found = look(agent, top, whole=whole)
    assert changes(found) == {"logic.py": "D"}
    assert found.files[b"token"] == lower_of(agent).files[b"token"]
    assert any("token is a secret" in it for it in found.notices)
    top, whole = run(agent, tmp_path / "other", "rm token; mkdir token; echo x > token/x", kind)
    assert changes(look(agent, top, whole=whole)) == {"token": "D", "token/x": "A"}


def test_a_secret_stays_a_name_whatever_is_written_to_it(agent: Agent, tmp_path: Path) -> None:
    script = "echo real > token; printf 'state: {secret: [{path: other, name: OTHER}]}' > kai.yaml; echo real > other"
    top, _ = run(agent, tmp_path / "layer", script)
    found = look(agent, top)
    assert changes(found) == {"kai.yaml": "M", "other": "A"}
    assert found.files[b"other"].oid == HashSink(agent.repository.home.format).put_blob(
        io.BytesIO(b"secret://OTHER"), 14
    )
    assert any("token is a secret" in it for it in found.notices)


def test_a_database_is_read_with_its_log_as_one_state(agent: Agent, tmp_path: Path) -> None:
    def edit(path: Path) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("CREATE TABLE t (x)")
        db.executemany("INSERT INTO t VALUES (?)", [(it,) for it in range(100)])
        for suffix in ("", "-wal"):  # as a process that was ended leaves them
            shutil.copy(f"{path}{suffix}", f"{path}.kept{suffix}")
        db.close()
        for suffix in ("", "-wal"):
            os.replace(f"{path}.kept{suffix}", f"{path}{suffix}")

    top, _ = run(agent, tmp_path / "layer", "true")
    edit(Path(top) / "memory.db")
    assert (Path(top) / "memory.db-wal").stat().st_size
    home = agent.repository.home
    kept: dict[bytes, bytes] = {}

    class Sink(HashSink):
        def put_blob(self, source: Any, size: int, like: Any = None) -> Any:
            data = source.read(size)
            oid = super().put_blob(io.BytesIO(data), size, like)
            kept[oid] = data
            return oid

    found = layer.read(
        agent.repository, lower_of(agent), top, whole=False, sink=Sink(home.format), most=1 << 30
    )  # fmt: skip
    assert changes(found) == {"memory.db": "A"}
    (tmp_path / "back.db").write_bytes(kept[found.files[b"memory.db"].oid])
    db = sqlite3.connect(tmp_path / "back.db")
    assert db.execute("SELECT count(*) FROM t").fetchone() == (100,)
    db.close()
    assert os.listdir(Path(agent.repository.layout.tmp)) in ([], ["clock"])


# ---------------------------------------------------------------- closed directories


def test_what_was_closed_is_read_all_the_same(
    public_tmp: Path, public_python: list[str], other_uid: Ids, tmp_path: Path
) -> None:
    """As an ordinary user, whom a mode of 0000 holds back."""
    os.chown(public_tmp, other_uid.uid, other_uid.gid)
    script = public_tmp / "try.py"
    script.write_text(CLOSED)
    copy = public_tmp / "code"
    ours = shutil.ignore_patterns("__pycache__", "test_*")
    shutil.copytree(Path(__file__).parent, copy / "tests" / "engine", ignore=ours)
    (copy / "tests/__init__.py").write_text("")
    argv = [*public_python, str(script), str(public_tmp), str(copy)]
    done = run_as(other_uid, argv, cwd=public_tmp, env={"PATH": os.environ["PATH"]})
    assert done.stdout == "ok\n", done.stderr


CLOSED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from kaivc import layer, scratch, trees, versions
from kaivc.layer import Lower
from kaivc.sinks import HashSink
from kaivc.sandboxes.base import Job, Limits
from kaivc.vfs import Vfs
from tests.engine.homes import commit, make_home
from tests.engine.overlays import Overlay

tmp = Path(sys.argv[1])
home = make_home(tmp / "home")
bot = home.new("bot")
commit(bot, {"logic.py": b"x", "state/a": b"a"})
(tmp / "layer").mkdir()
said = bytearray()
script = "mkdir -p d/e; echo x > d/e/f; chmod 000 d/e/f d/e d; echo b > state/a; chmod 000 state/a state; cat state/a"
job = Job(("sh", "-c", script), {}, str(bot.load()), str(tmp / "layer"), Limits(1, 1, 1, 1, 1, 1, 1))
ended = Overlay().run(job, said.extend)
repo, version = bot.repository, bot.current
tree = version.tree_oid
lower = Lower(str(bot.load()), trees.flatten(repo.store, tree), versions.manifest_of(repo, tree))
found = layer.read(repo, lower, ended.top, whole=False, sink=HashSink(repo.home.format), most=1 << 30)
assert {it.path: it.status for it in found.changes} == {b"d/e/f": "A", b"state/a": "M"}, (found, said)
scratch.remove(Vfs(), str(tmp / "layer"))
assert not (tmp / "layer").exists()
print("ok")
"""
