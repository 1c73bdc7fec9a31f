"""Every carrier does the same: hello, head, clone, fetch, pull, push, and the refusals."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from kaivc import landing, making
from kaivc.api import Agent, Home
from kaivc.errors import (
    Diverged,
    ForkedLog,
    LostRace,
    NoSuchAgent,
    NoSuchRevision,
    RefusedByRemote,
    TransportError,
    VersionConflict,
    WrongFormat,
)
from kaivc.remotes.base import Push
from kaivc.wire import Update
from tests.engine.homes import Files, commit, copy, make_home, open_home, read, remove, write
from tests.remotes import githosts
from tests.remotes.carriers import CARRIERS, Counter, Link, Sshd, Way, by_pipes

NOISE = random.Random(7).randbytes(200_000)
V1: Files = {"logic.py": b"one\n", "config.yaml": b"a: 1\n", "state/noise.bin": NOISE, "state.json": b"{}\n"}
V2: Files = {**V1, "logic.py": b"two\n", "state.json": b'{"n": 2}\n', "more/text.md": b"# More\n" * 50}
V3: Files = {**V2, "logic.py": b"three\n"}
FORMATS = ("sha256", "sha1")
MIB = 1 << 20


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with githosts.by_ssh(tmp_path_factory.mktemp("sshd")) as host:
        yield Sshd(host)


@dataclass
class Far:
    """The home that is gone to."""

    path: Path
    home: Home
    link: Link

    @property
    def bot(self) -> Agent:
        return self.home.agent("bot")

    def commit(self, files: Files, **words: str) -> str:
        number = commit(self.bot, files, **words)
        self.link.publish()
        return number

    def __truediv__(self, name: str) -> Path:
        return self.path.parent / name


def shown(home: Home, agent: str = "bot") -> dict[str, str]:
    """What others may see of an agent."""
    return {ref: oid.hex() for ref, oid in landing.shown_refs(home.opened.repository(agent)).items()}


def whole(home: Home) -> None:
    found = home.fsck()
    assert found.ok, found.all


@pytest.fixture(params=CARRIERS)
def way(request: pytest.FixtureRequest) -> Way:
    return CARRIERS[request.param] or request.getfixturevalue("sshd")


@pytest.fixture
def object_format() -> str:
    return "sha256"


@pytest.fixture
def far(way: Way, object_format: str, tmp_path: Path) -> Iterator[Far]:
    """A home with an agent of two versions."""
    home = make_home(tmp_path / "far", object_format)
    home.new("bot")
    commit(home.agent("bot"), V1, version="1.0.0", notes="The first")
    commit(home.agent("bot"), V2, bump="minor")
    with closing(home), way(tmp_path / "far") as link:
        yield Far(tmp_path / "far", home, link)


@pytest.fixture
def writable(far: Far) -> Far:
    if not far.link.writable:
        pytest.skip("nothing can be sent there: see test_what_cannot_be_written_to_says_so")
    return far


both_formats = pytest.mark.parametrize("object_format", FORMATS, indirect=True)

# ---------------------------------------------------------------- looking


def test_it_says_who_it_is(far: Far) -> None:
    with closing(far.link.fresh(far / "near", "sha256")) as near, far.link.remote(near) as remote:
        assert remote.agents() == ("bot",)
        assert remote.home == far.home.opened.id
        assert remote.object_format == "sha256"


def test_head_is_the_log_and_the_refs_that_may_be_seen(far: Far) -> None:
    write(far.bot.workspace, {**V2, "state.json": b"dirty"})
    far.bot.rollback("v1.0.0")
    with closing(far.link.fresh(far / "near", "sha256")) as near, far.link.remote(near) as remote:
        head = remote.head("bot")
        row = far.bot.repository.row()
        assert (head.seq, head.digest) == (row.op_seq, row.op_head)
        assert {ref: oid.hex() for ref, oid in head.refs.items()} == shown(far.home)
        assert not any("/backups/" in ref for ref in head.refs)
        assert len(list(remote.log("bot", 0))) == head.seq
        assert len(list(remote.log("bot", head.seq - 1))) == 1


def test_an_agent_that_is_not_there(far: Far) -> None:
    with closing(far.link.fresh(far / "near", "sha256")) as near, far.link.remote(near) as remote:
        with pytest.raises(NoSuchAgent):
            remote.head("bat")
        assert remote.agents() == ("bot",), "the connection goes on"
        with pytest.raises(NoSuchAgent):
            near.pull("bat")
        with pytest.raises(NoSuchAgent):
            near.fetch("origin", ["bat"])
        assert near.agents() == []


def test_a_home_that_hashes_otherwise(far: Far) -> None:
    with closing(far.link.fresh(far / "near", "sha1")) as near:
        far.link.publish()
        with pytest.raises(WrongFormat):
            near.pull("bot")
        assert near.agents() == []
        near.new("bot")
        commit(near.agent("bot"), V1)
        before = shown(near)
        with pytest.raises(WrongFormat):
            near.fetch("origin")
        with pytest.raises(WrongFormat):
            near.push("bot")
        assert shown(near) == before


# ---------------------------------------------------------------- bringing


@both_formats
def test_a_clone_holds_the_same(far: Far) -> None:
    with closing(far.link.clone(far / "near")) as near:
        assert shown(near) == shown(far.home)
        assert near.opened.format.name == far.home.opened.format.name
        bot = near.agent("bot")
        assert read(bot.workspace) == V2
        for tag, files in (("v1.0.0", V1), ("v1.1.0", V2)):
            assert {path: data for path, data in read(bot.load(tag)).items() if path != "snapshot_meta.json"} == files
        whole(near)


def test_only_what_is_missing_comes(far: Far) -> None:
    far.link.clone(far / "near").close()
    counter = Counter()
    with closing(far.link.open(far / "near", counter)) as near:
        far.commit(V3, bump="minor")
        fetched = near.fetch("origin").agents[0]
        assert {it.ref for it in fetched.changes} == {"refs/heads/bot/current", "refs/tags/bot/v1.2.0"}
        assert 0 < counter.received < 4_000 or not far.link.writable, "a bundle holds all"
        assert read(near.agent("bot").workspace) == V2, "a fetch moves nothing here"
        counter.received = 0
        assert near.fetch("origin").agents[0].changes == ()
        assert counter.received == 0
        pulled = near.pull("bot")
        assert (pulled.from_version, pulled.to_version, pulled.adopted) == ("v1.1.0", "v1.2.0", ("v1.2.0",))
        assert read(near.agent("bot").workspace) == V3
        assert shown(near) == shown(far.home)
        whole(near)


def test_current_moves_on_between_the_look_and_the_fetch(far: Far) -> None:
    with closing(far.link.fresh(far / "near", "sha256")) as near, far.link.remote(near) as remote:
        head = remote.head("bot")
        far.bot.rollback("v1.0.0")
        newborn = making.newborn(near.opened, "bot")
        with remote.bring(newborn, list(head.refs.values()), ()) as arrived:
            assert arrived.size > len(NOISE), "what it pointed at is a version still"


def test_a_pull_follows_a_rollback_and_keeps_what_was_not_saved(far: Far) -> None:
    with closing(far.link.clone(far / "near")) as near:
        far.bot.rollback("v1.0.0")
        far.link.publish()
        dirty = {**V2, "state.json": b"of nobody else"}
        write(near.agent("bot").workspace, dirty)
        pulled = near.pull("bot")
        assert (pulled.from_version, pulled.to_version) == ("v1.1.0", "v1.0.0")
        assert read(near.agent("bot").workspace) == V1
        assert pulled.backup is not None
        near.agent("bot").checkout(pulled.backup, far / "backup")
        assert read(far / "backup") == dirty
        assert near.agent("bot").reflog().entries[0].verb == "pull"
        whole(near)


def test_both_moved(far: Far) -> None:
    with closing(far.link.clone(far / "near")) as near:
        far.commit(V3, version="1.2.0")
        commit(near.agent("bot"), {**V2, "logic.py": b"mine\n"}, version="1.3.0")
        before = shown(near)
        with pytest.raises(Diverged) as told:
            near.pull("bot")
        after = shown(near)
        assert after.pop("refs/tags/bot/v1.2.0") == shown(far.home)["refs/tags/bot/v1.2.0"], "theirs can be chosen"
        assert after == before
        near.agent("bot").rollback(str(told.value.facts["there"])[:12])  # as it says
        assert read(near.agent("bot").workspace) == V3
        assert near.pull("bot").to_version == "v1.2.0"
        if far.link.writable:
            near.push("bot")
            assert shown(far.home) == shown(near)
        whole(near)


def test_one_number_for_two_versions(far: Far) -> None:
    with closing(far.link.clone(far / "near")) as near:
        far.commit(V3, version="1.2.0")
        far.commit({**V3, "x": b"x"}, version="1.3.0")
        commit(near.agent("bot"), {**V2, "logic.py": b"mine\n"}, version="1.2.0")
        mine = shown(near)["refs/tags/bot/v1.2.0"]
        with pytest.raises((VersionConflict, Diverged)):
            near.pull("bot")
        assert shown(near)["refs/tags/bot/v1.2.0"] == mine
        near.agent("bot").renumber("v1.2.0", to="2.0.0")
        near.agent("bot").rollback("v1.1.0")
        if far.link.writable:
            near.pull("bot")
            assert shown(near)["refs/tags/bot/v1.2.0"] == shown(far.home)["refs/tags/bot/v1.2.0"]
        whole(near)


def test_a_log_that_does_not_go_on_from_where_it_was(way: Way, tmp_path: Path) -> None:
    path, older = tmp_path / "far", tmp_path / "older"
    with closing(make_home(path)) as home:
        commit(home.new("bot"), V1)
    copy(path, older)
    with closing(open_home(path)) as home:
        commit(home.agent("bot"), V2, bump="minor")
    with way(path) as link:
        link.clone(tmp_path / "near").close()
    remove(path)
    older.rename(path)  # somebody puts an old copy back
    with way(path) as link, closing(link.open(tmp_path / "near")) as near:
        before = near.agent("bot").repository.refs("refs/")
        with pytest.raises(ForkedLog):
            near.fetch("origin")
        with closing(open_home(path)) as home:
            for number in range(3):  # and its log goes beyond where it was seen
                commit(home.agent("bot"), {**V2, "n": b"%d" % number}, version=f"3.{number}.0")
        link.publish()
        with pytest.raises(ForkedLog):
            near.pull("bot")
        if link.writable:
            commit(near.agent("bot"), V3, version="9.0.0")
            before = near.agent("bot").repository.refs("refs/")
            with pytest.raises(ForkedLog):
                near.push("bot")
        assert near.agent("bot").repository.refs("refs/") == before


def test_a_home_with_nothing_in_it(way: Way, tmp_path: Path) -> None:
    make_home(tmp_path / "far").close()
    with way(tmp_path / "far") as link:
        if not link.writable:
            pytest.skip("a bundle of nothing is not made")
        with closing(link.clone(tmp_path / "near")) as near:
            assert near.agents() == []
            assert near.fetch("origin").agents == ()
            near.new("bot")
            commit(near.agent("bot"), V1)
            assert near.push("bot").applied
            with closing(open_home(tmp_path / "far")) as far:
                assert shown(far) == shown(near)
                assert read(far.agent("bot").workspace) == V1
                whole(far)


def test_many_agents(way: Way, tmp_path: Path) -> None:
    names = [f"agent-{number:02}" for number in range(12)]
    with closing(make_home(tmp_path / "far")) as far:
        for name in names:
            commit(far.new(name), {**V1, "name": name.encode()})
        with way(tmp_path / "far") as link, closing(link.clone(tmp_path / "near")) as near:
            assert near.agents() == names
            for name in names:
                assert shown(near, name) == shown(far, name)
            commit(far.agent(names[5]), {**V2, "name": b"five"}, bump="minor")
            link.publish()
            changed = [it.agent for it in near.fetch("origin").agents if it.changes]
            assert changed == [names[5]]
            whole(near)


# ---------------------------------------------------------------- sending


def test_what_cannot_be_written_to_says_so(far: Far) -> None:
    if far.link.writable:
        pytest.skip("it can")
    with closing(far.link.clone(far / "near")) as near:
        commit(near.agent("bot"), V3, bump="minor")
        with pytest.raises(RefusedByRemote):
            near.push("bot")


@both_formats
def test_a_push_moves_all_that_is_new(writable: Far) -> None:
    far = writable
    with closing(far.link.clone(far / "near")) as near:
        commit(near.agent("bot"), V3, bump="minor")
        pushed = near.push("bot", reason="it is better")
        assert {it.ref for it in pushed.refs} == {"refs/heads/bot/current", "refs/tags/bot/v1.2.0"}
        assert 0 < pushed.size < 4_000
        assert shown(near) == shown(far.home)
        assert read(far.bot.workspace) == V3
        entry = far.bot.reflog().entries[0]
        assert (entry.verb, entry.reason, entry.seq) == ("push", "it is better", pushed.seq)
        again = near.push("bot")
        assert (again.size, again.refs, again.applied) == (0, (), False)
        assert near.fetch("origin").agents[0].changes == (), "what was pushed is known to be there"
        whole(far.home)
        whole(near)


def test_a_new_agent_comes_to_be(writable: Far) -> None:
    far = writable
    with closing(far.link.clone(far / "near")) as near:
        cat = near.new("cat")
        for files in (V1, V2, V3):
            commit(cat, files, bump="minor")
        near.push("cat")
        assert shown(far.home, "cat") == shown(near, "cat")
        assert read(far.home.agent("cat").workspace) == V3
        whole(far.home)


def test_a_rollback_travels_and_saves_what_it_overwrites(writable: Far) -> None:
    far = writable
    with closing(far.link.clone(far / "near")) as near:
        dirty = {**V2, "state.json": b"live over there"}
        write(far.bot.workspace, dirty)
        near.agent("bot").rollback("v1.0.0")
        near.push("bot")
        assert read(far.bot.workspace) == V1
        entry = far.bot.reflog().entries[0]
        assert entry.backup
        far.bot.checkout(f"backups/{entry.backup}", far / "backup")
        assert read(far / "backup") == dirty
        whole(far.home)


def test_backups_stay_at_home_unless_named(writable: Far) -> None:
    far = writable
    with closing(far.link.clone(far / "near")) as near:
        bot = near.agent("bot")
        write(bot.workspace, {**V2, "state.json": b"mine"})
        bot.rollback("v1.0.0")
        near.push("bot")
        assert "refs/heads/bot/backups/1" not in far.bot.repository.refs("refs/heads/")
        name = next(ref for ref in bot.repository.refs("refs/heads/") if "/backups/" in ref).split("bot/")[1]
        near.push("bot", refs=[name])
        number = name.removeprefix("backups/")  # of an operation here, not there
        there = far.bot.repository.refs("refs/heads/")
        assert f"refs/heads/bot/snapshots/backups-{number}" in there
        assert f"refs/heads/bot/{name}" not in there
        whole(far.home)


def snapshot(home: Home, name: str) -> bytes:
    """A snapshot, as a test that was committed leaves one; what it holds is a version's."""
    repo = home.opened.repository("bot")
    oid = repo.current
    assert oid is not None
    ref = f"refs/heads/bot/snapshots/{name}"
    updates = landing.updates_of([(ref, None, oid)], home.opened.actor, "a test")
    landing.land(repo, None, landing.Arrival("push", repo.new_op_id(), home.opened.actor, "a test", updates), {}, None)
    return oid


def test_a_snapshot_is_sent_and_deleted(writable: Far) -> None:
    far = writable
    with closing(far.link.clone(far / "near")) as near:
        snapshot(near, "one")
        near.push("bot", refs=["snapshots/one"])
        assert "refs/heads/bot/snapshots/one" in shown(far.home)
        near.push("bot", delete=["snapshots/one"])
        assert "refs/heads/bot/snapshots/one" not in shown(far.home)
        assert not any("snapshots" in ref for ref in near.agent("bot").repository.refs("refs/remotes/"))
        with pytest.raises(NoSuchRevision):
            near.push("bot", delete=["snapshots/one"])
        whole(far.home)


def test_current_moved_over_there_since_it_was_seen(writable: Far) -> None:
    far = writable
    with closing(far.link.clone(far / "near")) as near:
        far.bot.rollback("v1.0.0")
        commit(near.agent("bot"), V3, bump="minor")
        before, packs = shown(far.home), sum(it.stat().st_size for it in far.path.glob(".kai/packs/bot/*"))
        with pytest.raises(Diverged):
            near.push("bot")
        assert shown(far.home) == before
        assert sum(it.stat().st_size for it in far.path.glob(".kai/packs/bot/*")) == packs
        assert not list(far.path.glob(".kai/incoming/*/*"))


def test_a_race_that_is_lost(writable: Far) -> None:
    far = writable
    with closing(far.link.clone(far / "near")) as near, far.link.remote(near) as remote:
        bot = near.agent("bot")
        number = commit(bot, V3, bump="minor")
        theirs = remote.head("bot").refs
        far.bot.rollback("v1.0.0")  # between the look and the push
        before = shown(far.home)
        new = bot.repository.refs("refs/tags/bot/")
        tag = Update(f"refs/tags/bot/v{number}", None, new[f"refs/tags/bot/v{number}"])  # type: ignore[index]
        moved = Update("refs/heads/bot/current", theirs["refs/heads/bot/current"], bot.repository.current)
        push = Push(bot.repository.new_op_id(), str(near.opened.actor), "late", (tag, moved))
        with pytest.raises(LostRace):
            remote.send(bot.repository, push, theirs)
        assert shown(far.home) == before, "all or none"
        # And once more, of what arrived already, from where it is now.
        now = remote.head("bot").refs
        again = Push(push.op_id, push.actor, push.reason, (tag, Update(moved.ref, now[moved.ref], moved.new)))
        assert set(remote.send(bot.repository, again, now).moved) == {tag.ref, moved.ref}
        assert shown(far.home) == shown(near)
        whole(far.home)


def test_an_operation_that_is_repeated_is_done_once(writable: Far) -> None:
    far = writable
    with closing(far.link.clone(far / "near")) as near, far.link.remote(near) as remote:
        bot = near.agent("bot")
        theirs = remote.head("bot").refs
        commit(bot, V3, version="1.2.0")
        tag = Update("refs/tags/bot/v1.2.0", None, bot.repository.refs("refs/tags/bot/")["refs/tags/bot/v1.2.0"])  # type: ignore[index]
        push = Push(bot.repository.new_op_id(), str(near.opened.actor), "twice", (tag,))
        first = remote.send(bot.repository, push, theirs).outcome
        second = remote.send(bot.repository, push, theirs).outcome
        assert first is not None
        assert first == second
        assert far.bot.repository.row().op_seq == first.seq
        whole(far.home)


def test_a_number_that_was_taken_over_there(writable: Far) -> None:
    far = writable
    with closing(far.link.clone(far / "near")) as near:
        commit(far.bot, V3, version="1.2.0")
        far.bot.rollback("v1.1.0")
        commit(near.agent("bot"), {**V2, "logic.py": b"mine\n"}, version="1.2.0")
        commit(near.agent("bot"), {**V2, "logic.py": b"mine too\n"}, version="1.3.0")
        with pytest.raises(VersionConflict) as told:
            near.push("bot")
        said = cast("list[dict[str, str]]", told.value.facts["conflicts"])
        assert [it["version"] for it in said] == ["v1.2.0"]
        assert said[0]["ours"] != said[0]["theirs"]
        assert said[0]["kind"] == "tag", "the commit over there is not known here: like is compared with like"
        assert said[0]["ours"] == shown(near)["refs/tags/bot/v1.2.0"]
        with pytest.raises(VersionConflict, match="tag "):
            near.push("bot", dry_run=True)
        near.fetch()
        with pytest.raises(VersionConflict) as told:
            near.push("bot")
        said = cast("list[dict[str, str]]", told.value.facts["conflicts"])
        mine, theirs = near.agent("bot").show("v1.2.0"), far.bot.show("v1.2.0")
        assert (said[0]["ours"], said[0]["theirs"]) == (mine.version.oid.hex(), theirs.version.oid.hex())
        assert shown(far.home)["refs/tags/bot/v1.3.0"] == shown(near)["refs/tags/bot/v1.3.0"], "that version alone"
        whole(far.home)


def test_what_the_far_end_of_ssh_says_before_it_ends_is_told(tmp_path: Path) -> None:
    """What is wrong, and not the last line of what it says to do about it."""
    with by_pipes(tmp_path / "none") as link, pytest.raises(TransportError, match="E301: there is no home at") as told:
        link.clone(tmp_path / "near")
    assert str(tmp_path / "none") in told.value.hint
    assert not (tmp_path / "near").exists()


# ---------------------------------------------------------------- large files


def edited(data: bytes, seed: int, share: float = 0.01, runs: int = 16) -> bytes:
    """The same, but for so many runs that are a share of it."""
    chance, buffer = random.Random(seed), bytearray(data)
    length = int(len(data) * share / runs)
    for _ in range(runs):
        at = chance.randrange(len(data) - length)
        buffer[at : at + length] = chance.randbytes(length)
    return bytes(buffer)


def test_of_a_large_file_what_was_edited_travels(far: Far) -> None:
    data = random.Random(5).randbytes(20 * MIB)
    far.commit({**V1, "state/large.bin": data}, bump="minor")
    far.link.clone(far / "near").close()
    counter = Counter()
    with closing(far.link.open(far / "near", counter)) as near:
        assert (near.agent("bot").workspace / "state/large.bin").read_bytes() == data
        data = edited(data, 1)
        far.commit({**V1, "state/large.bin": data}, bump="minor")
        near.pull("bot")
        assert (near.agent("bot").workspace / "state/large.bin").read_bytes() == data
        if far.link.writable:
            assert counter.received < 0.03 * len(data)
            data = edited(data, 2)
            commit(near.agent("bot"), {**V1, "state/large.bin": data}, bump="minor")
            pushed = near.push("bot")
            assert pushed.size < 0.03 * len(data), f"{pushed.size / len(data):.2%}"
            assert (far.bot.workspace / "state/large.bin").read_bytes() == data
            whole(far.home)
    remove(far / "near")
