"""What a pull and a push do to an agent: its workspace, its log, what others made meanwhile; by path."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kaivc import api
from kaivc.api import Agent, Home
from kaivc.errors import (
    AgentBusy,
    Diverged,
    ForkedLog,
    HomeExists,
    KaiError,
    NameTaken,
    NoSuchAgent,
    NoSuchRemote,
    NoSuchRevision,
    NoVersionYet,
    PermissionDenied,
    RefusedByRemote,
    TargetNotEmpty,
    VersionConflict,
)
from kaivc.storage import journal
from tests.engine.homes import ENVIRON, Ticking, commit, copy, make_home, open_home, read, write

V1 = {"logic.py": b"one\n", "state.json": b"{}"}
V2 = {"logic.py": b"two\n", "state.json": b"{}"}
V3 = {"logic.py": b"three\n", "state.json": b"{}"}


@dataclass
class Two:
    """A home, and one that was cloned from it."""

    far: Home
    near: Home

    @property
    def there(self) -> Agent:
        return self.far.agent("bot")

    @property
    def here(self) -> Agent:
        return self.near.agent("bot")

    def whole(self) -> None:
        """Nothing is wrong on either side."""
        for home in (self.far, self.near):
            assert home.fsck().all == ()
            assert home.audit().ok


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both homes, made once; the URL in the second is relative to nothing, so a copy names it anew."""
    top = tmp_path_factory.mktemp("still")
    home = make_home(top / "far")
    commit(home.new("bot"), V1)
    commit(home.agent("bot"), V2)
    home.close()
    api.clone(str(top / "far"), top / "near", environ=ENVIRON, clock=Ticking())
    return top


@pytest.fixture
def two(still: Path, tmp_path: Path) -> Iterator[Two]:
    copy(still, tmp_path / "top")
    top = tmp_path / "top"
    remotes = top / "near/.kai/remotes.yaml"
    remotes.write_text(remotes.read_text().replace(str(still), str(top)))
    found = Two(open_home(top / "far"), open_home(top / "near"))
    yield found
    found.far.close()
    found.near.close()


def refs(agent: Agent) -> dict[str, bytes]:
    return {str(name): oid for name, oid in agent.repository.refs("refs/").items()}


@contextmanager
def running(agent: Agent) -> Iterator[None]:
    """As while `kai run` has it."""
    path = Path(agent.repository.layout.lease(agent.name))
    path.parent.mkdir(exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(fd)


def last(agent: Agent) -> tuple[str, dict[str, tuple[bool, bool]]]:
    """The verb of the newest operation, and for each ref that it moved whether it was and is somewhere."""
    repo = agent.repository
    entries = journal.reflog_of(repo.catalog, repo.id, repo.row().op_seq)
    return entries[0].verb, {str(it.ref): (it.old is not None, it.new is not None) for it in entries}


# ---------------------------------------------------------------- pull


def test_a_pull_can_be_undone_and_done_again_with_the_workspace(two: Two) -> None:
    commit(two.there, V3)
    dirty = {**V2, "state.json": b"mine"}
    write(two.here.workspace, dirty)
    done = two.near.pull("bot")
    assert (done.adopted, done.from_version, done.to_version) == (("v1.0.2",), "v1.0.1", "v1.0.2")
    assert done.backup is not None
    assert read(two.here.workspace) == V3
    two.here.undo()
    assert two.here.current.version == "1.0.1"
    assert read(two.here.workspace) == dirty
    two.here.redo()
    assert read(two.here.workspace) == V3
    two.whole()


def test_what_was_undone_here_is_not_pulled_again(two: Two) -> None:
    """Going back after a pull is a move of one's own."""
    commit(two.there, V3)
    two.near.pull("bot")
    two.here.undo()
    assert two.near.pull("bot").to_version == "v1.0.1"
    commit(two.there, V1, bump="major")
    with pytest.raises(Diverged):
        two.near.pull("bot")
    assert two.here.current.version == "1.0.1"
    assert "refs/remotes/origin/tags/bot/v2.0.0" in refs(two.here)
    two.here.rollback("v1.0.2")
    two.whole()


def test_after_a_fetch_the_pull_is_the_same(two: Two) -> None:
    commit(two.there, V3)
    before = refs(two.here)
    fetched = two.near.fetch()
    assert {name for name in refs(two.here) if name not in before} == {"refs/remotes/origin/tags/bot/v1.0.2"}
    assert last(two.here)[0] == "fetch"
    assert fetched.agents[0].objects > 0
    assert read(two.here.workspace) == V2
    assert two.near.fetch().agents[0].changes == ()
    done = two.near.pull("bot")
    assert (done.to_version, done.objects) == ("v1.0.2", 0)
    two.whole()


def test_what_was_fetched_outlives_gc_and_a_lost_catalog(two: Two) -> None:
    commit(two.there, V3)
    two.near.fetch()
    before = refs(two.here)
    two.here.gc()
    root = Path(two.near.opened.layout.root)
    two.near.close()
    for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
        (root / ".kai" / name).unlink(missing_ok=True)
    api.fsck(root, repair=True, environ=ENVIRON, clock=Ticking())
    two.near = open_home(root)
    assert refs(two.here) == before
    assert two.near.pull("bot").to_version == "v1.0.2"
    two.whole()


def test_a_running_agent_is_not_pulled_from_under(two: Two) -> None:
    commit(two.there, V3)
    with running(two.here), pytest.raises(AgentBusy):
        two.near.pull("bot")
    assert two.here.current.version == "1.0.1"
    assert "refs/tags/bot/v1.0.2" not in refs(two.here)
    assert read(two.here.workspace) == V2
    assert two.near.pull("bot").to_version == "v1.0.2"
    two.whole()


def test_a_new_agent_comes_by_pull(two: Two) -> None:
    commit(two.far.new("other"), V3)
    assert two.near.fetch().absent == ("other",)
    done = two.near.pull("other")
    assert (done.made, done.from_version, done.to_version, done.adopted) == (True, None, "v1.0.0", ("v1.0.0",))
    other = two.near.agent("other")
    assert read(other.workspace) == V3
    verb, moved = last(other)
    assert verb == "pull"
    assert moved == dict.fromkeys(
        [
            "refs/heads/other/current",
            "refs/tags/other/v1.0.0",
            "refs/remotes/origin/heads/other/current",
            "refs/remotes/origin/tags/other/v1.0.0",
        ],
        (False, True),
    )
    assert two.near.pull("other").made is False
    two.whole()


def test_a_new_agent_takes_no_name_that_something_has(two: Two) -> None:
    commit(two.far.new("other"), V3)
    commit(two.far.new("old"), V3)
    (Path(two.near.opened.layout.root) / "other").mkdir()
    two.near.new("former")
    two.near.rename("former", "newer")
    with pytest.raises(NameTaken):
        two.near.pull("other")
    commit(two.far.new("former"), V3)
    with pytest.raises((NameTaken, NoSuchAgent)):
        two.near.pull("former")
    with pytest.raises(NoSuchAgent):
        two.near.pull("nobody")
    assert sorted(two.near.agents()) == ["bot", "newer"]
    two.whole()


def test_an_agent_without_a_version_has_nothing_to_exchange(two: Two) -> None:
    two.near.new("young")
    with pytest.raises(NoVersionYet):
        two.near.push("young")
    commit(two.far.new("young"), V1)
    with pytest.raises(Diverged, match="without a version"):
        two.near.pull("young")
    assert two.near.agent("young").versions().versions == ()
    two.whole()


def test_an_agent_that_was_renamed_or_removed_here_keeps_what_it_has(two: Two) -> None:
    two.near.rename("bot", "digest")
    with pytest.raises((NameTaken, NoSuchAgent)):
        two.near.pull("bot")
    assert two.near.fetch().agents == ()
    two.near.remove("digest")
    with pytest.raises(NoSuchAgent):
        two.near.push("digest")
    two.whole()


def test_what_became_of_an_agent_over_there_is_said_as_theirs(two: Two) -> None:
    """By a path too: an agent of that name lives here."""
    two.far.rename("bot", "other")
    for ask in (lambda: two.near.push("bot"), lambda: two.near.pull("bot"), lambda: two.near.fetch(agents=["bot"])):
        with pytest.raises(NoSuchAgent, match=r"^the other end says: agent 'bot' was renamed to 'other'") as told:
            ask()
        assert told.value.hint.startswith("the other end says: ")
    two.far.remove("other")
    with pytest.raises(NoSuchAgent, match=r"^the other end says: "):
        two.near.fetch(agents=["bot"])


def test_a_fetch_names_only_agents_that_can_come(two: Two) -> None:
    two.far.new("more")
    two.near.remove("bot")
    assert two.near.fetch().absent == ("more",)


def test_an_agent_that_has_no_version_over_there_does_not_come(two: Two, tmp_path: Path) -> None:
    two.far.new("young")
    url = two.far.opened.layout.root
    done = api.clone(url, tmp_path / "new", environ=ENVIRON, clock=Ticking())
    assert ([it.agent for it in done.agents], done.empty) == (["bot"], ("young",))
    with pytest.raises(NoVersionYet):
        two.near.pull("young")
    assert list(two.near.agents()) == ["bot"]
    two.whole()


def test_a_clone_that_stops_says_how_to_go_on(two: Two, tmp_path: Path) -> None:
    commit(two.far.new("late"), V1)
    repo = two.far.agent("late").repository
    (pack,) = Path(repo.layout.pack_dir("late")).glob("*.pack")
    pack.write_bytes(pack.read_bytes()[:40])
    with pytest.raises(KaiError) as told:
        api.clone(two.far.opened.layout.root, tmp_path / "new", environ=ENVIRON, clock=Ticking())
    assert "with 1 of 2 agents" in told.value.unchanged
    assert "`kai pull late origin`" in told.value.hint
    made = open_home(tmp_path / "new")
    assert list(made.agents()) == ["bot"]
    assert made.fsck().all == ()
    made.close()


# ---------------------------------------------------------------- push


def test_an_agent_that_runs_over_there_is_left_alone(two: Two) -> None:
    commit(two.here, V3)
    before = refs(two.there)
    with running(two.there), pytest.raises(AgentBusy, match=r"^the other end says: ") as told:
        two.near.push("bot")
    assert "--live" not in told.value.hint, "a push has no such option"
    assert refs(two.there) == before
    assert read(two.there.workspace) == V2
    done = two.near.push("bot")
    assert [it.ref for it in done.refs] == ["refs/tags/bot/v1.0.2", "refs/heads/bot/current"]
    assert read(two.there.workspace) == V3
    two.whole()


def test_versions_alone_may_come_while_it_runs(two: Two) -> None:
    commit(two.here, V3)
    two.here.rollback("v1.0.1")
    with running(two.there):
        assert [it.ref for it in two.near.push("bot").refs] == ["refs/tags/bot/v1.0.2"]
    two.whole()


def test_what_a_push_moves_is_in_both_logs(two: Two) -> None:
    commit(two.here, V3)
    write(two.there.workspace, {**V2, "state.json": b"theirs"})
    two.near.push("bot", reason="it is better")
    verb, moved = last(two.there)
    (backup,) = (name for name in moved if "/backups/" in name)
    assert verb == "push"
    assert moved == {
        "refs/tags/bot/v1.0.2": (False, True),
        "refs/heads/bot/current": (True, True),
        backup: (False, True),
    }
    assert two.there.reflog().entries[0].reason == "it is better"
    assert last(two.here) == (
        "push",
        {"refs/remotes/origin/tags/bot/v1.0.2": (False, True), "refs/remotes/origin/heads/bot/current": (True, True)},
    )
    two.there.undo()
    assert read(two.there.workspace) == {**V2, "state.json": b"theirs"}
    two.whole()


def test_a_dry_run_sends_nothing(two: Two) -> None:
    commit(two.here, V3)
    before, mine = refs(two.there), refs(two.here)
    done = two.near.push("bot", dry_run=True)
    assert (len(done.refs), done.applied, done.size, done.seq) == (2, False, 0, None)
    assert (refs(two.there), refs(two.here)) == (before, mine)
    assert not list(Path(two.far.opened.layout.root).glob(".kai/incoming/bot/*"))


def test_a_new_number_is_no_choice_of_what_is_in_force(two: Two) -> None:
    """Both sides moved; that a number was taken twice is put right, and which of the two counts is asked still."""
    commit(two.there, V1, version="2.0.0")
    commit(two.here, V3, version="2.0.0")
    with pytest.raises(VersionConflict):
        two.near.pull("bot")
    two.here.renumber("v2.0.0")
    with pytest.raises(Diverged):
        two.near.pull("bot")
    two.here.rollback("v2.0.0")
    assert two.near.pull("bot").to_version == "v2.0.0"
    assert [it.ref for it in two.near.push("bot").refs] == ["refs/tags/bot/v2.0.1"]
    two.whole()


def test_a_dry_run_says_which_numbers_are_taken(two: Two) -> None:
    commit(two.there, V1, version="2.0.0")
    commit(two.here, V3, version="2.0.0")
    with pytest.raises(VersionConflict) as told:
        two.near.push("bot", dry_run=True)
    assert told.value.unchanged == "nothing was sent; of all else, 0 refs would move"


def test_an_audit_compares_like_with_like(two: Two) -> None:
    """Of a version over there the tag alone is known until it is fetched."""
    commit(two.there, V1, version="2.0.0")
    commit(two.here, V3, version="2.0.0")
    (before,) = two.near.audit_against("origin").agents[0].different[:1]
    tags = [refs(agent)["refs/tags/bot/v2.0.0"].hex() for agent in (two.here, two.there)]
    assert (before.kind, before.here, before.there) == ("tag", *tags)
    two.near.fetch()
    number, current = two.near.audit_against("origin").agents[0].different
    assert number == replace(current, name="v2.0.0"), "commits, by which `kai versions` knows them"
    assert (current.kind, current.there) == ("commit", two.there.current.oid.hex())


@pytest.mark.parametrize("name", ["current", "v1.0.0", "snapshots/none", "backups/1", "../x", "refs/heads/bot/current"])
def test_only_snapshots_and_backups_are_named(two: Two, name: str) -> None:
    """`current` is no way around what was moved over there."""
    two.there.rollback("v1.0.0")
    before = refs(two.there)
    with pytest.raises(NoSuchRevision):
        two.near.push("bot", refs=[name])
    with pytest.raises((NoSuchRevision, PermissionDenied, Diverged)):
        two.near.push("bot", delete=[name])
    assert refs(two.there) == before


def test_a_backup_from_elsewhere_is_no_backup_of_an_operation_here(two: Two) -> None:
    """Else an undo over there would bring a workspace back that was never there, or a rollback find its name taken."""
    write(two.here.workspace, {**V2, "state.json": b"mine"})
    backup = two.here.rollback("v1.0.0").backup
    two.here.undo()
    assert backup is not None
    number = backup.removeprefix("backups/")
    done = two.near.push("bot", refs=[backup])
    assert [it.ref for it in done.refs] == [f"refs/heads/bot/snapshots/backups-{number}"]
    assert two.near.push("bot", refs=[backup]).refs == ()
    for _ in range(4):
        write(two.there.workspace, {**V2, "state.json": os.urandom(4).hex().encode()})
        two.there.rollback("v1.0.0")
        assert two.there.undo().to_version == "v1.0.1"
    assert two.there.show(f"snapshots/backups-{number}").version.is_backup
    two.near.push("bot", delete=[f"snapshots/backups-{number}"])
    two.whole()


def test_a_commit_that_bumps_counts_from_what_was_fetched(two: Two) -> None:
    commit(two.there, V3, version="3.0.0")
    two.near.fetch()
    assert commit(two.here, V1, bump="minor") == "3.1.0"


# ---------------------------------------------------------------- names of remotes


def test_a_remote_that_is_renamed_is_known_as_before(two: Two) -> None:
    commit(two.there, V3)
    two.near.fetch()
    done = two.near.remote_rename("origin", "office")
    assert done.refs == 4
    assert not [name for name in refs(two.here) if "/origin/" in name]
    with pytest.raises(NoSuchRemote):
        two.near.fetch()
    assert two.near.remotes().remotes[0].seen == {"bot": two.there.repository.row().op_seq}
    assert two.near.fetch("office").agents[0].changes == ()
    assert two.near.pull("bot", "office").to_version == "v1.0.2"
    two.whole()


def test_a_move_of_ones_own_is_not_forgotten_by_a_rename(two: Two) -> None:
    two.here.rollback("v1.0.0")
    two.near.remote_rename("origin", "office")
    assert two.near.pull("bot", "office").to_version == "v1.0.0"
    assert [it.ref for it in two.near.push("bot", "office").refs] == ["refs/heads/bot/current"]
    two.whole()


def test_a_remote_that_is_forgotten_leaves_versions(two: Two) -> None:
    commit(two.there, V3)
    two.near.pull("bot")
    url = two.near.remotes().remotes[0].url
    assert two.near.remote_remove("origin").refs == 4
    assert two.here.current.version == "1.0.2"
    assert not [name for name in refs(two.here) if name.startswith("refs/remotes/")]
    assert not (Path(two.near.opened.layout.root) / ".kai/seen/origin").exists()
    two.near.remote_add("origin", url)
    assert len(two.near.fetch().agents[0].changes) == 4
    two.whole()


# ---------------------------------------------------------------- bundles


def test_what_a_bundle_is_refused_for_says_what_can_be_done(two: Two, tmp_path: Path) -> None:
    two.far.bundle(tmp_path / "old")
    commit(two.there, V3, version="2.0.0")
    two.far.bundle(tmp_path / "new")
    two.near.unbundle(tmp_path / "new")
    with pytest.raises(ForkedLog) as forked:
        two.near.unbundle(tmp_path / "old")
    assert "`kai remote add NAME FILE` and `kai pull AGENT NAME`" in forked.value.hint
    two.near.remote_add("disk", str(tmp_path / "old"))  # as it says
    assert two.near.pull("bot", "disk").to_version == "v2.0.0"
    commit(two.here, V1, version="3.0.0")
    with pytest.raises(RefusedByRemote):
        two.near.push("bot", "disk", dry_run=True)
    commit(two.there, V2, version="4.0.0")
    two.far.bundle(tmp_path / "newer")
    with pytest.raises(Diverged) as diverged:
        two.near.unbundle(tmp_path / "newer")
    assert "push" not in diverged.value.hint
    assert "takes theirs, or `kai bundle create`" in diverged.value.hint
    two.whole()


# ---------------------------------------------------------------- clone


def test_a_clone_goes_where_nothing_is(two: Two, tmp_path: Path) -> None:
    url = two.far.opened.layout.root
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(TargetNotEmpty):
            api.clone(url, tmp_path / name, environ=ENVIRON)
    with pytest.raises(NoSuchAgent):
        api.clone(url, tmp_path / "new", agents=["bot", "bott"], environ=ENVIRON)
    assert not (tmp_path / "new").exists()
    with pytest.raises(HomeExists) as told:
        api.clone(url, two.near.opened.layout.root, environ=ENVIRON)
    assert "kai pull AGENT" in told.value.hint, "it may be one that was cut"
    (tmp_path / "empty").mkdir()
    done = api.clone(url, tmp_path / "empty", agents=["bot"], remote="office", environ=ENVIRON, clock=Ticking())
    assert [(it.agent, it.current, it.versions) for it in done.agents] == [("bot", "v1.0.1", 2)]
    made = open_home(tmp_path / "empty")
    assert made.remotes().remotes[0].name == "office"
    verb, moved = last(made.agent("bot"))
    assert verb == "clone"
    assert set(moved.values()) == {(False, True)}
    assert {name.split("/")[1] for name in moved} == {"heads", "tags", "remotes"}
    made.close()
