"""Revisions against an agent with a past: what each names, and what a miss says."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc import revisions
from kaivc.api import Agent
from kaivc.errors import ChecksumMismatch, NoSuchRevision, NoVersionYet
from kaivc.names import Absent, Actor, Exactly, ObjectId, RefName, RefUpdate, Version, version_ref
from kaivc.storage.gitobjects import Commit, Kind, encode_commit
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter
from kaivc.versions import rfc3339
from tests.engine.homes import commit, make_home, open_home, write

ANN = Actor("Ann", "ann@example.org")


def past(path: Path, object_format: str = "sha256") -> Agent:
    """v1.0.0, v1.1.0, v1.2.0-rc.1, v2.0.0; back to v1.1.0 from a dirty workspace; backups/5."""
    agent = make_home(path, object_format).new("bot")
    for version in ("1.0.0", "1.1.0", "1.2.0-rc.1", "2.0.0"):
        commit(agent, {"x": version.encode()}, version=version)
    write(agent.workspace, {"x": b"dirty"})
    agent.rollback("v1.1.0")
    return agent


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    """One that no test of this module changes."""
    return past(tmp_path_factory.mktemp("revisions") / "home")


def named(agent: Agent, text: str) -> str:
    return revisions.name_of(agent.repository, revisions.resolve(agent.repository, text))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("current", "v1.1.0"),
        ("bot@current", "v1.1.0"),
        ("v1.2.0-rc.1", "v1.2.0-rc.1"),
        ("@1.0.0", "v1.0.0"),
        ("^1", "v1.1.0"),
        ("^1.0", "v1.1.0"),
        ("^1.2.0-rc.0", "v1.2.0-rc.1"),
        ("^2", "v2.0.0"),
        ("^1~1", "v1.0.0"),
        ("current~0", "v1.1.0"),
        ("current~", "v1.0.0"),
        ("v2.0.0~2", "v1.1.0"),
        ("@{0}", "v1.1.0"),
        ("@{1}", "v2.0.0"),
        ("current@{4}", "v1.0.0"),
        ("{1}~3", "v1.0.0"),
        ("backups/5", "backups/5"),
        ("backups/5~1", "v2.0.0"),
        ("@{2999-01-01}", "v1.1.0"),
    ],
)
def test_what_a_revision_names(agent: Agent, text: str, name: str) -> None:
    assert named(agent, text) == name


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_commit_is_named_by_its_first_digits(tmp_path: Path, object_format: str) -> None:
    agent = past(tmp_path / "home", object_format)
    for version in (*agent.versions(), agent.show("backups/5").version):
        short = revisions.abbreviate(agent.repository, version.oid)
        assert len(short) == 12
        for text in (version.commit, short, short.upper(), f"bot@{short}"):
            assert revisions.resolve(agent.repository, text) == version
    with pytest.raises(NoSuchRevision):
        agent.show(agent.current.tree)
    with pytest.raises(NoSuchRevision):
        agent.show(agent.current.commit + "0")


def test_what_was_current_then(agent: Agent) -> None:
    entries = agent.reflog().entries
    for entry in entries:
        at = entry.time_ns // 1_000_000_000
        assert entry.new is not None
        for text in (rfc3339(at), rfc3339(at).replace("Z", ".0Z"), rfc3339(at + 3600).replace("Z", "+01:00")):
            assert revisions.resolve(agent.repository, f"@{{{text}}}").oid == entry.new
    second = rfc3339(entries[-2].time_ns // 1_000_000_000 - 1)
    assert named(agent, f"@{{{second[:-1]}.999999999Z}}") == "v1.0.0"


def test_a_second_counts_to_its_end_and_a_fraction_to_itself(tmp_path: Path) -> None:
    agent = past(tmp_path / "home")
    repo, oid = agent.repository, agent.show("v2.0.0").version.oid
    time_ns = 1_900_000_000_400_000_000
    update = RefUpdate(RefName("refs/heads/bot/current"), Exactly(agent.current.oid), oid, ANN, "x")
    with StoreWriter(repo.store) as writer:
        repo.land(writer, [update], Op("test", "op", str(ANN), time_ns, "x"))
    at = rfc3339(1_900_000_000)
    assert named(agent, f"@{{{at}}}") == "v2.0.0"
    assert named(agent, f"@{{{at[:-1]}.4Z}}") == "v2.0.0"
    assert named(agent, f"@{{{at[:-1]}.39Z}}") == "v1.1.0"


def test_before_the_first_version_says_when_that_was(agent: Agent) -> None:
    first = agent.reflog().entries[-1]
    with pytest.raises(NoSuchRevision) as caught:
        agent.show("@{2001-01-01}")
    assert rfc3339(first.time_ns // 1_000_000_000) in caught.value.what


@pytest.mark.parametrize(
    ("text", "said", "near"),
    [
        ("v1.0.1", "", "v1.0.0"),
        ("1.1", "", "v1.1.0"),
        ("v1.2", "", "v1.2.0-rc.1"),
        ("curent", "", "current"),
        ("bakups/5", "", "backups/5"),
        ("5", "", "backups/5"),
        ("backups/9", "", "backups/5"),
        ("snapshots/x", "", "v2.0.0"),
        ("^3.0", "no version fits", "v2.0.0"),
        ("current~7", "v1.0.0 at current~1 has no parent", "current"),
        ("@{5}", "the log of `current` ends at @{4}", "v2.0.0"),
        ("ffffffff", "", "v2.0.0"),
        ("other@v1.0.0", "", "v1.0.0"),
        ("\udcff\0", "", "v2.0.0"),
    ],
)
def test_a_miss_names_the_nearest(agent: Agent, text: str, said: str, near: str) -> None:
    with pytest.raises(NoSuchRevision) as caught:
        agent.show(text)
    assert said in caught.value.what
    assert near in caught.value.facts["nearest"]  # type: ignore[operator]
    assert near in caught.value.hint


def test_an_agent_without_versions_says_so(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    for text in ("current", "current~1", "@{0}", "@{2026-01-01}"):
        with pytest.raises(NoVersionYet):
            agent.show(text)
    with pytest.raises(NoSuchRevision) as caught:
        agent.show("v1.0.0")
    assert "kai commit bot" in caught.value.hint


@given(st.text(max_size=40) | st.text(alphabet="@{}~^/.-:0123456789TZabcefkpstuv\udcff", max_size=20))
def test_no_text_is_more_than_a_miss(agent: Agent, text: str) -> None:
    try:
        found = revisions.resolve(agent.repository, text)
    except NoSuchRevision:
        return
    assert found.agent == "bot"


# ---------------------------------------------------------------- snapshots, and what is gone


def point(agent: Agent, name: str, oid: ObjectId | None) -> None:
    repo = agent.repository
    there = repo.ref(RefName(name))
    update = RefUpdate(RefName(name), Exactly(there) if there else Absent(), oid, ANN, "x")
    with StoreWriter(repo.store) as writer:
        repo.land(writer, [update], Op("test", repo.new_op_id(), str(ANN), 1_800_000_000 * 10**9, "x"))


def test_a_snapshot_is_named_by_its_id_and_missed_by_its_name(tmp_path: Path) -> None:
    agent = past(tmp_path / "home")
    saved = agent.show("backups/5").version
    point(agent, "refs/heads/bot/snapshots/try-1", saved.oid)
    assert agent.show("snapshots/try-1").version == saved
    with pytest.raises(NoSuchRevision) as caught:
        agent.show("try-1")
    assert caught.value.facts["nearest"] == ["snapshots/try-1"]


def test_what_is_collected_says_since_when(tmp_path: Path) -> None:
    agent = past(tmp_path / "home")
    point(agent, "refs/heads/bot/backups/5", None)
    with pytest.raises(NoSuchRevision) as caught:
        agent.show("backups/5")
    assert "gone since 2027-01-15T08:00:00Z" in caught.value.what


def test_digits_that_begin_several_commits_list_them(tmp_path: Path) -> None:
    agent = past(tmp_path / "home")
    repo, tree = agent.repository, agent.current.tree_oid
    known: dict[str, bytes] = {}
    for time in count():
        data = encode_commit(Commit(tree, None, str(ANN), time, "x\n"))
        digits = repo.store.format.hash(Kind.COMMIT, data).hex()[:4]
        if digits in known:
            break
        known[digits] = data
    with StoreWriter(repo.store) as writer:
        both = sorted(writer.put(Kind.COMMIT, one).hex() for one in (known[digits], data))
        update = RefUpdate(RefName("refs/heads/bot/backups/99"), Absent(), agent.current.oid, ANN, "x")
        repo.land(writer, [update], Op("test", "op", str(ANN), 0, "x"))
    with pytest.raises(NoSuchRevision) as caught:
        agent.show(digits)
    assert caught.value.facts["nearest"] == both
    assert "begins several commits" in caught.value.what
    assert caught.value.hint == "give more digits"
    assert all(len(revisions.abbreviate(repo, ObjectId(bytes.fromhex(oid)))) == 12 for oid in both)


# ---------------------------------------------------------------- damage


def spoil(agent: Agent, oid: ObjectId) -> Agent:
    """Damage the record of one object; the agent, opened anew."""
    row = agent.repository.store.require(oid)
    (pack,) = Path(agent.repository.layout.pack_dir("bot")).glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[row.offset + row.length - 10] ^= 0xFF
    pack.write_bytes(data)
    return open_home(Path(agent.repository.layout.root)).agent("bot")


@pytest.mark.parametrize("kind", ["commit", "tag"])
def test_one_damaged_version_does_not_hide_the_others(tmp_path: Path, kind: str) -> None:
    agent = past(tmp_path / "home")
    hit = agent.show("v1.0.0").version
    tag = agent.repository.ref(version_ref("bot", Version(1, 0, 0)))
    assert tag is not None
    broken = spoil(agent, hit.oid if kind == "commit" else tag)
    known = broken.versions()
    assert [it.version for it in known] == ["1.1.0", "1.2.0-rc.1", "2.0.0"]
    assert not known.ok
    [bad] = known.damaged
    assert (bad.version, bad.commit) == ("1.0.0", hit.commit if kind == "commit" else None)
    assert "v1.0.0: " in bad.problem
    assert (known.current, len(known), known[-1].version) == ("1.1.0", 3, "2.0.0")
    with pytest.raises(ChecksumMismatch) as caught:
        broken.show("v1.0.0")
    assert caught.value.facts["version"] == "v1.0.0"
    assert broken.show("v2.0.0").files == 1


@pytest.mark.parametrize("change", ["oid = x'ff'", "name = 'refs/tags/bot/v1.0'", "name = 'refs/tags/bot/v9.9.9'"])
def test_a_damaged_row_of_one_tag_does_not_hide_the_others(tmp_path: Path, change: str) -> None:
    agent = past(tmp_path / "home")
    with agent.repository.catalog.transaction() as db:
        db.execute(f"UPDATE refs SET {change} WHERE name = 'refs/tags/bot/v1.0.0'")  # noqa: S608 - ours
    known = agent.versions()
    assert [it.version for it in known] == ["1.1.0", "1.2.0-rc.1", "2.0.0"]
    [bad] = known.damaged
    assert (bad.version, bad.commit) == ("1.0.0", None), "the reflog knows its name"
    assert "row of ref refs/tags/bot/v" in bad.problem


def test_a_damaged_version_in_force_is_still_known_by_its_number(tmp_path: Path) -> None:
    agent = past(tmp_path / "home")
    hit = agent.current
    broken = spoil(agent, hit.oid)
    assert broken.versions().current == "1.1.0"
    with pytest.raises(ChecksumMismatch) as caught:
        broken.show()
    assert caught.value.facts["commit"] == hit.commit


def test_a_damaged_tree_says_whose_and_where(tmp_path: Path) -> None:
    agent = make_home(tmp_path / "home").new("bot")
    commit(agent, {"prompts/deep/x": b"1"})
    tree = agent.current.tree_oid
    for name in (b"prompts", b"deep"):
        tree = dict(agent.repository.store.tree(tree))[name].oid
    with pytest.raises(ChecksumMismatch) as caught:
        spoil(agent, tree).show("v1.0.0")
    assert "v1.0.0 of bot: directory prompts/deep: " in caught.value.what
    assert caught.value.facts["path"] == "prompts/deep"


# ---------------------------------------------------------------- agents that were renamed or removed


def test_a_renamed_agent_has_the_same_past(tmp_path: Path) -> None:
    agent = past(tmp_path / "home")
    texts = ["@{1}", "@{4}", "backups/5", "^1", "current~1", f"@{{{rfc3339(1_900_000_000)}}}"]
    before = [named(agent, text) for text in texts]
    home = open_home(tmp_path / "home")
    home.rename("bot", "bob")
    renamed = open_home(tmp_path / "home").agent("bob")
    assert [named(renamed, text) for text in texts] == before
    for text in ("@{5}", "backups/9"):
        with pytest.raises(NoSuchRevision):
            renamed.show(text)


def test_a_removed_agent_can_still_be_read(tmp_path: Path) -> None:
    agent = past(tmp_path / "home")
    open_home(tmp_path / "home").remove("bot")
    gone = open_home(tmp_path / "home").agent("bot")
    assert [named(gone, text) for text in ("current", "@{1}", "^1")] == ["v1.1.0", "v2.0.0", "v1.1.0"]
    assert gone.cat("x", "v1.0.0").read() == b"1.0.0"
    assert [it.path for it in gone.ls_tree("v2.0.0").entries] == ["x"]
    assert gone.rev_parse("^2").commit == agent.show("v2.0.0").version.commit
