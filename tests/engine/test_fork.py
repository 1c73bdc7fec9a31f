"""Forks: the history of another agent up to a revision, its sealed packs shared and never touched."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import kaivc
from kaivc.api import Agent, Home
from kaivc.errors import (
    ChecksumMismatch,
    InvalidName,
    LockTimeout,
    NameTaken,
    NoSuchAgent,
    NoSuchRevision,
    NothingToUndo,
    StorageFailed,
)
from kaivc.layout import UNFINISHED
from kaivc.names import RefName
from kaivc.storage import index, journal
from kaivc.storage.catalog import put_agent
from kaivc.storage.index import PackState
from kaivc.vfs import Vfs
from tests.engine.homes import ENVIRON, Files, Ticking, commit, copy, make_home, open_home, read, remove, write
from tests.engine.test_kill import Cut, in_child
from tests.interop.judge import check

NOISE = random.Random(3).randbytes(40_000)
V1: Files = {"logic.py": b"one\n", "state.json": b'{"n": 1}', "noise": NOISE}
V2: Files = {"logic.py": b"two\n", "state.json": b'{"n": 2}', "noise": NOISE[::-1], "d/e": b"2"}
V3: Files = {"logic.py": b"three\n", "state.json": b'{"n": 3}', "noise": NOISE, "d/e": b"3"}
SEAL = "65536"


def prepare(path: Path, object_format: str = "sha256") -> Home:
    """An agent with versions 1.0.0 to 1.2.0, the first ones in a sealed pack, the last in an open one; a backup."""
    home = make_home(path, object_format, packs__seal_at=SEAL)
    agent = home.new("bot")
    for files in (V1, V2, V3):
        commit(agent, files, bump="minor", notes=f"of {len(files)}")
    write(agent.workspace, {"logic.py": b"dirty\n"})
    agent.rollback("v1.0.0")
    states = {row.state for row in index.packs(home.opened.catalog, agent.repository.id)}
    assert states == {PackState.SEALED, PackState.OPEN}, "the test needs packs of both kinds"
    return home


def packs(home: Home, agent: str) -> dict[str, os.stat_result]:
    return {it.name: it.stat() for it in (home.path / ".kai" / "packs" / agent).iterdir()}


def commits(agent: Agent) -> dict[str | None, str]:
    return {it.version: it.commit for it in agent.versions()}


def fork(home: Home, name: str, source: str) -> Agent:
    return home.new(name, source=source)


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_fork_has_the_versions_up_to_the_revision(tmp_path: Path, object_format: str) -> None:
    home = prepare(tmp_path / "home", object_format)
    bot = home.agent("bot")
    two = fork(home, "two", "bot@v1.1.0")
    assert commits(two) == {it: oid for it, oid in commits(bot).items() if it != "1.2.0"}
    assert two.current.version == "1.1.0"
    assert read(two.workspace) == V2
    assert [(it.version, it.notes) for it in two.log().versions] == [("1.1.0", "of 4"), ("1.0.0", "of 3")]
    status = two.status()
    assert not status.dirty
    assert not status.pending
    assert two.verify(workspace=True).ok
    assert two.audit().ok
    (entry,) = two.reflog().entries
    assert (entry.seq, entry.verb, entry.old) == (1, "fork", None)
    assert entry.reason == f"from bot@v1.1.0 ({commits(bot)['1.1.0']})"
    assert len(Path(two.repository.layout.rollback_log("two")).read_text().splitlines()) == 1
    two.export(tmp_path / "two.git")
    check(tmp_path / "two.git")
    tags = subprocess.run(["git", "-C", tmp_path / "two.git", "tag"], capture_output=True, check=True).stdout
    assert tags.split() == [b"v1.0.0", b"v1.1.0"]
    with pytest.raises(NothingToUndo):
        two.undo()
    two.rollback("v1.0.0")
    assert read(two.workspace) == V1
    two.undo()
    assert commit(two, V3) == "1.1.1"
    assert two.verify().ok
    assert bot.verify().ok


def test_a_fork_outlives_its_source_and_its_source_the_fork(tmp_path: Path) -> None:
    home = prepare(tmp_path / "home")
    two = fork(home, "two", "bot@v1.2.0")
    three = fork(home, "three", "two")
    shared = packs(home, "bot").keys() & packs(home, "two").keys()
    assert shared
    for name in shared:
        assert packs(home, "bot")[name].st_ino == packs(home, "two")[name].st_ino == packs(home, "three")[name].st_ino
    remove(home.path / ".kai" / "packs" / "bot")
    for agent in (open_home(home.path).agent("two"), open_home(home.path).agent("three")):
        assert agent.verify().ok
        agent.rollback("v1.0.0")
        assert read(agent.workspace) == V1
        agent.undo()
    remove(home.path / ".kai" / "packs" / "two")
    assert not two.verify("v1.0.0").ok
    assert three.verify().ok


def test_a_shared_pack_is_never_written_to(tmp_path: Path) -> None:
    home = prepare(tmp_path / "home")
    before = {name: (home.path / ".kai/packs/bot" / name).read_bytes() for name in packs(home, "bot")}
    two = fork(home, "two", "bot@v1.2.0")
    shared = before.keys() & packs(home, "two").keys()
    rows = {row.name: row for row in index.packs(home.opened.catalog, two.repository.id)}
    assert {name.removesuffix(".pack") for name in shared} == {n for n, it in rows.items() if it.state == "sealed"}
    for number in range(4):
        for agent in (two, home.agent("bot")):
            commit(agent, {"noise": random.Random(number).randbytes(30_000)})
    for name in shared:
        assert (home.path / ".kai/packs/bot" / name).read_bytes() == before[name]
    opened = {row.name for row in index.packs(home.opened.catalog, two.repository.id) if row.state == "open"}
    assert not {f"{name}.pack" for name in opened} & before.keys(), "what may grow is a file of its own"
    assert two.verify().ok
    assert home.agent("bot").verify().ok


def test_only_what_the_revision_reaches_comes_along(tmp_path: Path) -> None:
    home = prepare(tmp_path / "home")
    two = fork(home, "two", "bot@v1.0.0")
    known = {row.id for row in index.every(home.opened.catalog, two.repository.id)}
    later = home.agent("bot").repository
    assert bytes.fromhex(commits(home.agent("bot"))["1.1.0"]) not in known
    assert len(known) == 1 + 1 + 3 + 1, "commit, tree, blobs, tag"
    assert later.store.contains(bytes.fromhex(commits(home.agent("bot"))["1.1.0"]))  # type: ignore[arg-type]


def test_a_fork_of_a_backup_keeps_it(tmp_path: Path) -> None:
    home = prepare(tmp_path / "home")
    made = home.make("two", source="bot@backups/4")
    two = home.agent("two")
    assert made.forked is not None
    assert (made.forked.current, made.forked.kept_as) == ("v1.2.0", "backups/1")
    assert two.current.version == "1.2.0"
    assert read(two.workspace) == {"logic.py": b"dirty\n"}
    assert two.status().dirty
    two.restore()
    assert read(two.workspace) == V3
    two.restore(source="backups/1")
    assert read(two.workspace) == {"logic.py": b"dirty\n"}
    assert commit(two, {"logic.py": b"more\n"}) == "1.2.1"


def test_a_fork_of_a_snapshot_keeps_its_name(tmp_path: Path) -> None:
    home = prepare(tmp_path / "home")
    bot = home.agent("bot").repository
    backup = bot.ref(RefName("refs/heads/bot/backups/4"))
    with bot.catalog.transaction() as db:
        journal.put_ref(db, bot.id, "refs/heads/bot/snapshots/try", backup)
    made = home.make("two", source="bot@snapshots/try")
    assert made.forked is not None
    assert made.forked.kept_as == "snapshots/try"
    assert home.agent("two").repository.ref(RefName("refs/heads/two/snapshots/try")) == backup


def test_a_removed_agent_comes_back_as_a_fork(tmp_path: Path) -> None:
    home = prepare(tmp_path / "home")
    catalog = home.opened.catalog
    row = catalog.agent("bot")
    assert row is not None
    with catalog.transaction() as db:
        put_agent(db, row._replace(removed_ns=5))
    remove(home.path / "bot")
    held = home.opened.vfs.lock(home.opened.layout.lock("bot"))
    assert held is not None
    with pytest.raises(LockTimeout):
        open_home(home.path, lock__wait="50ms").new("two", source="bot")
    os.close(held)
    two = fork(home, "two", "bot")
    assert (two.current.version, read(two.workspace)) == ("1.0.0", V1)
    assert not (home.path / "bot").exists()
    with pytest.raises(NameTaken) as caught:
        home.new("bot")
    assert "--from bot" in caught.value.hint


def test_large_files_and_links_come_along(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", packs__seal_at="1MiB")
    bot = home.new("bot")
    large = random.Random(5).randbytes(3 << 20)
    (bot.workspace / "run").write_bytes(b"#!/bin/sh\n")
    (bot.workspace / "run").chmod(0o755)
    os.symlink("run", bot.workspace / "link")
    (bot.workspace / "large").write_bytes(large)
    (bot.workspace / "hole").write_bytes(bytes(4 << 20))
    bot.commit()
    two = fork(home, "two", "bot")
    assert (two.workspace / "large").read_bytes() == large
    assert (two.workspace / "hole").read_bytes() == bytes(4 << 20)
    assert os.readlink(two.workspace / "link") == "run"
    assert os.access(two.workspace / "run", os.X_OK)
    remove(home.path / ".kai" / "packs" / "bot")
    assert two.verify(workspace=True).ok


def test_secrets_stay_out_and_private_files_are_private(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    bot = home.new("bot")
    manifest = b"state:\n  secret:\n    - {path: token, name: API}\nprivate: [diary]\n"
    commit(bot, {"kai.yaml": manifest, "token": b"hunter2", "diary": b"x", "a": b"1"})
    two = fork(home, "two", "bot")
    assert read(two.workspace).keys() == {"kai.yaml", "diary", "a"}
    assert (two.workspace / "diary").stat().st_mode & 0o777 == 0o600
    assert not two.status().dirty
    assert b"hunter2" not in b"".join(it.read_bytes() for it in (home.path / ".kai/packs").rglob("*.pack"))


class NoLinks(Vfs):
    """A disk without hard links."""

    def link(self, old: object, new: object, *_: object) -> None:
        raise StorageFailed(f"linking {old!r} to {new!r}: not here")


def test_where_links_cannot_be_had_records_are_copied(tmp_path: Path) -> None:
    prepare(tmp_path / "home").close()
    home = open_home(tmp_path / "home", NoLinks())
    made = home.make("two", source="bot@v1.2.0")
    assert made.forked is not None
    assert made.forked.shared_bytes == 0
    assert not packs(home, "bot").keys() & packs(home, "two").keys()
    remove(home.path / ".kai" / "packs" / "bot")
    two = home.agent("two")
    assert two.verify(workspace=True).ok
    assert len(two.versions()) == 3


def test_gc_of_one_does_not_hurt_the_other(tmp_path: Path) -> None:
    """Everything that only one of them reaches is dead weight to the other."""
    home = prepare(tmp_path / "home")
    two = fork(home, "two", "bot@v1.1.0")
    bot = home.agent("bot")
    for agent in (bot, two):
        write(agent.workspace, {"noise": random.Random(agent.name).randbytes(200_000)})
        agent.rollback("v1.0.0", reason="leaves a backup")
        commit(agent, V3, bump="major")
    home.close()
    later, flags = Ticking(1_990_000_000), {"packs.seal_at": SEAL, "backups.keep": "0"}
    home = kaivc.open(tmp_path / "home", environ=ENVIRON, clock=later, flags=flags)
    for name in ("bot", "two", "bot"):
        home.agent(name).gc()
        assert not home.agent(name).repository.refs(f"refs/heads/{name}/backups/"), "the test needs a gc that collects"
        for agent in (home.agent("bot"), home.agent("two")):
            assert agent.verify(workspace=True).ok
    assert commits(home.agent("two")).keys() == {"1.0.0", "1.1.0", "2.0.0"}


def test_removal_and_renaming_of_one_does_not_hurt_the_other(tmp_path: Path) -> None:
    home = prepare(tmp_path / "home")
    two = fork(home, "two", "bot@v1.2.0")
    home.rename("bot", "old")
    home.remove("old")
    assert two.verify(workspace=True).ok
    three = fork(home, "three", "old@v1.2.0")
    assert commits(three) == commits(two)
    home.remove("two")
    four = fork(home, "four", "two@v1.0.0")
    assert four.verify(workspace=True).ok
    assert home.agent("old").verify().ok


def test_forks_at_once(tmp_path: Path) -> None:
    """Processes that fork, beside one that commits to the source."""
    prepare(tmp_path / "home").close()

    def run(name: str) -> None:
        home = open_home(tmp_path / "home", lock__wait="60s")
        if name == "bot":
            for number in range(10):
                commit(home.agent("bot"), {"n": b"%d" % number})
        else:
            for number in range(3):
                fork(home, f"{name}{number}", "bot@v1.2.0")

    children = []
    for name in ("bot", "a", "b", "c"):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                run(name)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    home = open_home(tmp_path / "home")
    assert home.agents() == ["a0", "a1", "a2", "b0", "b1", "b2", "bot", "c0", "c1", "c2"]
    for name in home.agents():
        assert home.agent(name).verify().ok
        assert name == "bot" or len(home.agent(name).versions()) == 3


# ---------------------------------------------------------------- what goes wrong


def untouched(home: Home, before: list[str]) -> None:
    """Nothing of the fork is there."""
    assert home.agents() == ["bot"]
    assert sorted(os.listdir(home.path)) == before
    assert os.listdir(home.path / ".kai" / "packs") == ["bot"]


@pytest.mark.parametrize("what", ["commit", "tree", "blob", "tag"])
def test_a_damaged_record_is_named_and_nothing_is_made(tmp_path: Path, what: str) -> None:
    home = prepare(tmp_path / "home")
    repo = home.agent("bot").repository
    version = next(it for it in home.agent("bot").versions() if it.version == "1.1.0")
    tree = repo.store.tree(version.tree_oid)
    oid = {
        "commit": version.oid,
        "tree": dict(tree)[b"d"].oid,
        "blob": dict(tree)[b"noise"].oid,
        "tag": repo.ref(RefName("refs/tags/bot/v1.1.0")),
    }[what]
    row = repo.store.require(oid or b"")
    pack = next(it for it in index.packs(repo.catalog, repo.id) if it.id == row.pack)
    with open(repo.layout.pack("bot", pack.name), "r+b") as file:
        file.seek(row.offset + row.length - 9)
        byte = file.read(1)
        file.seek(row.offset + row.length - 9)
        file.write(bytes([byte[0] ^ 1]))
    home = open_home(home.path)
    before = sorted(os.listdir(home.path))
    with pytest.raises(ChecksumMismatch) as caught:
        home.new("two", source="bot@v1.2.0")
    error = caught.value
    if what != "commit":  # its number is what its child says
        assert error.facts["path"] == {"tree": "d/", "blob": "noise", "tag": ""}[what]
    assert error.facts["version"].removeprefix("v") == "1.1.0"  # type: ignore[attr-defined]
    assert error.unchanged == "nothing was made"
    untouched(home, before)
    assert fork(home, "two", "bot@v1.0.0").verify().ok


def test_misses_and_what_could_be_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = prepare(tmp_path / "home")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(os.listdir(home.path))
    with pytest.raises(NoSuchAgent) as caught:
        home.new("two", source="bto@v1.0.0")
    assert caught.value.facts["nearest"] == ["bot"]
    with pytest.raises(NoSuchRevision) as missed:
        home.new("two", source="bot@v1.0.9")
    assert "v1.0.0" in missed.value.facts["nearest"]  # type: ignore[operator]
    with pytest.raises(NameTaken):
        home.new("bot", source="bot")
    os.mkdir("bot")
    Path("bot/x").write_bytes(b"from a directory")
    with pytest.raises(InvalidName) as both:
        home.new("two", source="bot")
    assert "./bot" in both.value.hint
    assert "bot@current" in both.value.hint
    untouched(home, before)
    assert read(fork(home, "two", "./bot").workspace) == {"x": b"from a directory"}
    assert read(fork(home, "three", "bot@current").workspace) == V1
    assert read(home.new("four", source=Path("bot")).workspace) == {"x": b"from a directory"}
    os.rename("bot", "plain")
    assert read(fork(home, "five", "plain").workspace) == {"x": b"from a directory"}
    os.rename("plain", "plain@v1.0.0")
    with pytest.raises(NoSuchAgent, match="no agent 'plain'") as named:
        home.new("six", source="plain@v1.0.0")
    assert "./plain@v1.0.0" in named.value.hint
    monkeypatch.chdir(home.path)
    assert fork(home, "seven", "bot").current.version == "1.0.0", "its own directory is the agent"


def test_a_fork_waits_for_the_source(tmp_path: Path) -> None:
    home = prepare(tmp_path / "home")
    before = sorted(os.listdir(home.path))
    slow = open_home(home.path, lock__wait="50ms")
    with home.agent("bot").repository.lock(), pytest.raises(LockTimeout):
        slow.new("two", source="bot")
    untouched(home, before)


def test_what_is_collected_while_a_fork_waits_is_a_miss_and_no_damage(tmp_path: Path) -> None:
    home = prepare(tmp_path / "home")
    commit(home.agent("bot"), V3, bump="major", notes="so that nothing needs the backup to be undone")
    (backup,) = (ref.rpartition("bot/")[2] for ref in home.agent("bot").repository.refs("refs/heads/bot/backups/"))
    before = sorted(os.listdir(home.path))
    held = [home.opened.vfs.lock(home.opened.layout.lock("bot"))]

    def collect(_: float) -> None:
        if (fd := held.pop()) is not None:
            os.close(fd)
        flags = {"packs.seal_at": SEAL, "backups.keep": "0"}
        kaivc.open(home.path, environ=ENVIRON, clock=Ticking(1_990_000_000), flags=flags).agent("bot").gc()

    slow = Home(replace(open_home(home.path).opened, sleep=collect))
    with pytest.raises(NoSuchRevision, match="collected"):
        slow.new("two", source=f"bot@{backup}")
    assert not held
    untouched(home, before)


def test_fsck_takes_what_a_cut_fork_left_for_what_it_is(tmp_path: Path) -> None:
    home = prepare(tmp_path / "home")
    left = home.path / ".kai" / "packs" / "two"
    shutil.copytree(home.path / ".kai" / "packs" / "bot", left)
    (left / UNFINISHED).touch()
    assert home.fsck().ok
    assert fork(home, "two", "bot").verify().ok
    assert not (left / UNFINISHED).exists()
    assert home.fsck().ok


def test_packs_that_belong_to_nobody_are_in_the_way(tmp_path: Path) -> None:
    """What a lost catalog leaves is not taken for the leftovers of a cut command."""
    home = prepare(tmp_path / "home")
    directory = home.path / ".kai" / "packs" / "two"
    directory.mkdir()
    (directory / "0123456789abcdef.pack").write_bytes(b"precious")
    with pytest.raises(NameTaken, match="is no agent's"):
        home.new("two", source="bot")
    assert (directory / "0123456789abcdef.pack").read_bytes() == b"precious"


# ---------------------------------------------------------------- cut at every call


def make_fork(path: Path, at: int) -> None:
    open_home(path, Cut(at), packs__seal_at=SEAL).new("two", source="bot@v1.2.0")


def cut_in(path: Path, action: Callable[[], object]) -> bool:
    """Whether the child was killed."""
    ended = in_child(action)
    assert ended in (0, signal.SIGKILL)
    return ended != 0


def test_a_fork_killed_at_every_call_is_there_wholly_or_not_at_all(tmp_path: Path) -> None:
    template = tmp_path / "template"
    prepare(template).close()
    at, outcomes = 0, []
    while True:
        at += 1
        path = tmp_path / "home"
        copy(template, path)
        cut = cut_in(path, partial(make_fork, path, at))
        if cut and at % 3 == 0:
            cut_in(path, partial(make_fork_anew, path, at // 2))
        home = open_home(path)
        outcomes.append("two" in home.agents())
        if "two" not in home.agents():
            fork(home, "two", "bot@v1.2.0")
        two = home.agent("two")
        judge(home, two)
        home.close()
        remove(path)
        if not cut:
            break
    print(f"fork: {at - 1} kill points")
    assert outcomes.count(False) > 20
    assert outcomes.count(True) > 5
    assert outcomes == sorted(outcomes), "once there, always there"


def make_fork_anew(path: Path, at: int) -> None:
    """A second command, cut as well."""
    home = open_home(path, Cut(at), packs__seal_at=SEAL)
    if "two" not in home.agents():
        home.new("two", source="bot@v1.2.0")


def judge(home: Home, two: Agent) -> None:
    assert home.agent("bot").verify().ok
    assert len(two.versions()) == 3
    assert two.verify().ok
    assert read(two.workspace) == V3
    assert [entry.verb for entry in two.reflog().entries][-1:] == ["fork"]
    commit(two, V1, bump="major")
    assert not two.status().pending
    assert len(Path(two.repository.layout.rollback_log("two")).read_text().splitlines()) == len(two.reflog().entries)
    assert os.readlink(two.repository.layout.current("two")) == f"versions/v{two.current.version}"
    assert sorted(it for it in os.listdir(home.path) if it != ".kai") == ["bot", "two"]


def test_the_disk_fills_up(tmp_path: Path) -> None:
    """An error before the transaction leaves nothing; afterwards the same command works."""
    prepare(tmp_path / "home").close()
    for at in range(1, 60, 3):
        home = open_home(tmp_path / "home", Failing(at))
        before = sorted(os.listdir(home.path))
        try:
            home.new("two", source="bot@v1.2.0")
        except StorageFailed:
            untouched(open_home(tmp_path / "home"), before)
        else:
            break
        home.close()
    else:
        raise AssertionError("it never came through")
    assert at > 10
    assert open_home(tmp_path / "home").agent("two").verify().ok


class Failing(Vfs):
    """The n-th sync or write fails; what cleans up does not."""

    def __init__(self, at: int) -> None:
        self.left = at

    def _step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise StorageFailed("the disk says no")

    def write(self, fd: int, data: bytes | memoryview) -> None:
        self._step()
        super().write(fd, data)

    def sync(self, fd: int) -> None:
        self._step()
        super().sync(fd)

    def create(self, path: str | bytes, mode: int = 0o600, at: int | None = None) -> int:
        self._step()
        return super().create(path, mode, at)
