"""An export as a whole: git clones it, it is there wholly or not at all, and memory stays bounded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import kaivc
from kaivc.errors import ChecksumMismatch, NoSpace, NoVersionYet, RefusedWorkspace, TargetNotEmpty
from kaivc.vfs import Vfs
from tests.interop.judge import (
    AUTHOR,
    CHANGED,
    EVERYTHING,
    FORMATS,
    check,
    expected_of,
    exported,
    found_in,
    git,
    make_home,
    write,
)

MIB = 1 << 20


@pytest.mark.parametrize("rev", ["v1.0.0", "v1.1.0", "v2.0.0-rc.1"])
def test_a_clone_holds_what_a_checkout_holds(subject, tmp_path, rev):
    git(tmp_path, "clone", "-q", "--no-local", str(subject.bare), "clone")
    git(tmp_path / "clone", "checkout", "-q", rev)
    subject.agent.checkout(rev, tmp_path / "ours")
    theirs = found_in(tmp_path / "clone", without=".git")
    assert theirs == found_in(tmp_path / "ours")
    assert theirs == expected_of(CHANGED if rev == "v1.1.0" else EVERYTHING)
    check(tmp_path / "clone")


def test_a_fresh_clone_stands_on_the_version_in_force(subject, tmp_path):
    git(tmp_path, "clone", "-q", str(subject.bare), "clone")
    assert git(tmp_path / "clone", "rev-parse", "--abbrev-ref", "HEAD") == b"current\n"
    assert git(tmp_path / "clone", "rev-parse", "HEAD").decode().strip() == subject.agent.current.commit
    assert git(tmp_path / "clone", "status", "--porcelain") == b""


def test_git_repacks_it_and_finds_everything_again(agent, tmp_path):
    write(agent.workspace, EVERYTHING)
    agent.commit()
    bare = exported(agent, tmp_path / "bare")
    before = git(bare, "cat-file", "--batch-check", "--batch-all-objects")
    git(bare, "gc", "-q", "--prune=now")
    assert git(bare, "cat-file", "--batch-check", "--batch-all-objects") == before
    check(bare)


def test_it_says_what_it_wrote(agent, object_format, tmp_path):
    write(agent.workspace, EVERYTHING)
    agent.commit()
    done = agent.export(tmp_path / "a" / "b" / "bare")
    assert (done.agent, done.path, done.object_format) == ("judged", str(tmp_path / "a/b/bare"), object_format)
    listed = git(done.path, "for-each-ref", "--format=%(refname) %(objectname)").decode().splitlines()
    assert [f"{name} {oid}" for name, oid in done.refs] == listed
    sizes = git(done.path, "cat-file", "--batch-check=%(objectsize)", "--batch-all-objects").decode().split()
    assert (done.objects, done.bytes) == (len(sizes), sum(map(int, sizes)))


def test_only_what_versions_reach_is_written(agent, tmp_path):
    write(agent.workspace, {b"a": b"1"})
    agent.commit()
    write(agent.workspace, {b"a": b"2"})
    agent.commit(bump="patch")
    write(agent.workspace, {b"a": b"saved by the rollback"})
    plan = agent.rollback("v1.0.0")
    assert plan.backup
    done = agent.export(tmp_path / "bare")
    assert done.objects == 8  # a blob, a tree, a commit and a tag of each version
    assert [name for name, _ in done.refs] == ["refs/heads/current", "refs/tags/v1.0.0", "refs/tags/v1.0.1"]
    check(tmp_path / "bare")


def test_another_agent_of_the_home_stays_out(agent, tmp_path):
    write(agent.workspace, {b"a": b"mine"})
    agent.commit()
    other = kaivc.open(agent.repository.layout.root, environ=agent.repository.home.environ).new("judged.too")
    write(other.workspace, {b"b": b"theirs"})
    other.commit(version="3.0.0")
    assert agent.export(tmp_path / "bare").objects == 4
    assert exported(other, tmp_path / "other")
    assert git(tmp_path / "other", "tag") == b"v3.0.0\n"


# ---------------------------------------------------------------- whole or not at all


def test_a_target_that_holds_something_is_refused(agent, tmp_path):
    agent.commit()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    for name in ("full", "file", "link"):
        with pytest.raises(TargetNotEmpty) as caught:
            agent.export(tmp_path / name)
        assert caught.value.code == "E315"
    with pytest.raises(RefusedWorkspace):
        agent.export(tmp_path / "agents/.kai/x")
    agent.export(tmp_path / "empty")
    check(tmp_path / "empty")
    with pytest.raises(TargetNotEmpty):
        agent.export(tmp_path / "empty")
    assert sorted(os.listdir(tmp_path)) == ["agents", "empty", "file", "full", "link"]


def test_an_agent_without_a_version_has_nothing_to_export(agent, tmp_path):
    with pytest.raises(NoVersionYet):
        agent.export(tmp_path / "bare")
    assert not (tmp_path / "bare").exists()


class Full(Vfs):
    """A disk that is full after some writes."""

    left = 10**9

    def write(self, fd, data):
        self.left -= 1
        if self.left < 0:
            raise NoSpace("full")
        super().write(fd, data)


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_a_full_disk_leaves_nothing_behind(tmp_path, count):
    disk = Full()
    kaivc.init(tmp_path / "agents").close()
    environ = {"HOME": os.environ["HOME"], "KAI_AUTHOR": AUTHOR}
    agent = kaivc.open(tmp_path / "agents", environ=environ, vfs=disk).new("judged")
    write(agent.workspace, EVERYTHING)
    agent.commit()
    disk.left = count
    with pytest.raises(NoSpace):
        agent.export(tmp_path / "bare")
    assert os.listdir(tmp_path) == ["agents"]


def test_a_damaged_byte_is_found_and_nothing_is_left(agent, tmp_path):
    write(agent.workspace, {b"data": os.urandom(5000)})
    agent.commit()
    (pack,) = (tmp_path / "agents/.kai/packs/judged").iterdir()
    with pack.open("r+b") as file:
        file.seek(2500)
        byte = file.read(1)
        file.seek(2500)
        file.write(bytes([byte[0] ^ 1]))
    again = kaivc.open(tmp_path / "agents", environ=agent.repository.home.environ).agent("judged")
    with pytest.raises(ChecksumMismatch):
        again.export(tmp_path / "bare")
    assert os.listdir(tmp_path) == ["agents"]


# ---------------------------------------------------------------- the same anywhere


@pytest.mark.parametrize("object_format", FORMATS)
def test_the_same_inputs_make_the_same_commits_in_any_home(tmp_path, object_format):
    agents = []
    for name, order in (("one", 1), ("two", -1)):
        agent = make_home(tmp_path / name, object_format, SOURCE_DATE_EPOCH="1750000000").new("judged")
        for number, files in (("1.0.0", EVERYTHING), ("1.1.0", CHANGED)):
            write(agent.workspace, dict(list(files.items())[::order]))
            agent.commit(version=number, notes="The same")
        agents.append(agent)
    one, two = ([version.commit for version in agent.versions()] for agent in agents)
    assert one == two
    bares = [exported(agent, tmp_path / f"bare{n}") for n, agent in enumerate(agents)]
    assert git(bares[0], "show-ref", "--dereference") == git(bares[1], "show-ref", "--dereference")
    assert git(bares[0], "log", "-1", "--format=%cI", "current") == b"2025-06-15T15:06:40+00:00\n"


# ---------------------------------------------------------------- memory

MEASURE = """
import sys
import kaivc
agent = kaivc.open(sys.argv[1], environ={"HOME": "/nowhere", "KAI_AUTHOR": "A <a@b>"}).agent("judged")
agent.export(sys.argv[2])
# Not ru_maxrss: that counts the process that this one was forked from.
print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""


def test_a_large_blob_streams(agent, tmp_path):
    size = 256 * MIB
    with (agent.workspace / "huge").open("wb") as file:
        for _ in range(8):
            file.write(os.urandom(2 * MIB))
            file.seek(size // 8 - 2 * MIB, os.SEEK_CUR)
        file.truncate(size)
    agent.commit()
    bare = tmp_path / "bare"
    command = [sys.executable, "-c", MEASURE, tmp_path / "agents", bare]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) * 1024 < 160 * MIB
    assert git(bare, "cat-file", "-s", "current:huge") == b"%d\n" % size
    check(bare)
