"""A re-encoded copy at a git host of the other format: the same files and words, found again by `Kai-Origin`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kaivc.errors import Diverged, RefusedUrl, VersionConflict, WrongFormat
from kaivc.reencoding import Reencoder
from kaivc.storage.gitobjects import FORMATS
from tests.engine.homes import commit, open_home, read
from tests.remotes.githosts import bare, git, refs, require_clean
from tests.remotes.test_git import FILES, cloned, new_home

OTHER = {"sha1": "sha256", "sha256": "sha1"}
LARGE = random.Random(7).randbytes(3 << 20)


@pytest.fixture(params=OTHER)
def formats(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The home's, and the host's."""
    return request.param, OTHER[request.param]


def test_a_copy_has_the_same_files_and_says_what_it_was(formats: tuple[str, str], tmp_path: Path) -> None:
    here, there = formats
    far = bare(tmp_path / "far.git", there)
    home = new_home(tmp_path / "one", here, {})
    bot = home.new("bot")
    commit(bot, {**FILES, "state.bin": LARGE, "a/b/c": b"deep"}, version="1.0.0", notes="One\n\nwith more")
    commit(bot, {**FILES, "state.bin": LARGE[:-5] + b"other"}, bump="minor", notes="")
    home.remote_add("hub", str(far))

    done = home.mirror("hub", there)
    assert {it.ref for it in done.agents[0].refs} == {
        *("refs/heads/bot/current", "refs/tags/bot/v1.0.0", "refs/tags/bot/v1.1.0")
    }
    require_clean(far)
    mine = {ref.removeprefix("refs/").replace("/bot/", "/"): oid for ref, oid in ours_hex(home).items()}
    for name, oid in mine.items():
        said = git(far, "cat-file", "-p", f"refs/{name}")
        assert said.endswith(f"Kai-Origin: {here}:{oid}")
    assert git(far, "log", "-1", "--format=%(trailers:key=Kai-Origin,valueonly)", "current") == (
        f"{here}:{mine['heads/current']}"
    )
    work = tmp_path / "work"
    git(tmp_path, "clone", "-q", far, work)
    assert {name: data for name, data in read(work).items() if not name.startswith(".git/")} == read(bot.workspace)

    assert not home.mirror("hub", there).agents[0].refs  # nothing is left to do
    commit(bot, {**FILES, "state.bin": LARGE[:-5] + b"other", "new": b"x"}, bump="minor")
    more = home.mirror("hub", there).agents[0]
    assert more.objects == 4  # a blob, a tree, a commit, a tag
    assert more.size < 3000
    commit(bot, {**FILES, "state.bin": LARGE[:900_000] + b"!" + LARGE[900_000:-5] + b"other"}, bump="minor")
    assert home.mirror("hub", there).agents[0].size < len(LARGE) // 4  # of a large file what changed
    require_clean(far)
    bot.rollback("v1.0.0", reason="back")
    assert [it.ref for it in home.mirror("hub", there).agents[0].refs] == ["refs/heads/bot/current"]
    require_clean(far)
    home.close()


def ours_hex(home) -> dict[str, str]:
    """The refs of `bot` that are mirrored."""
    found = home.opened.repository("bot").refs("refs/").items()
    return {name: oid.hex() for name, oid in found if name.startswith(("refs/tags/", "refs/heads/bot/current"))}


def test_two_homes_make_the_same_copy_and_a_lost_map_changes_nothing(tmp_path: Path) -> None:
    far, hub, hub2 = bare(tmp_path / "far.git"), bare(tmp_path / "a.git", "sha1"), bare(tmp_path / "b.git", "sha1")
    one = new_home(tmp_path / "one", "sha256", {})
    commit(one.new("bot"), FILES, version="1.0.0")
    one.remote_add("origin", str(far))
    one.push("bot")
    two = cloned(str(far), tmp_path / "two", {})
    for home, url in ((one, hub), (two, hub2)):
        home.remote_add("hub", str(url))
        home.mirror("hub", "sha1")
    assert refs(hub) == refs(hub2)
    with one.opened.catalog.transaction() as db:
        db.execute("UPDATE mirrors SET other = randomblob(20)")  # damaged: checksums do not fit
    assert not one.mirror("hub", "sha1").agents[0].refs
    with one.opened.catalog.transaction() as db:
        db.execute("DROP TABLE mirrors")
    assert not one.mirror("hub", "sha1").agents[0].refs
    assert not open_home(tmp_path / "one").fsck().all


def test_ids_are_those_that_git_gives_the_same_files(tmp_path: Path) -> None:
    home = new_home(tmp_path / "one", "sha256", {})
    bot = home.new("bot")
    commit(bot, {**FILES, "d/e": b"x", "empty": b""})
    repo = home.opened.repository("bot")
    assert repo.current
    other = Reencoder(repo, FORMATS["sha1"])
    other.ids([repo.current])
    work = bare(tmp_path / "x.git", "sha1")
    git(work, "--work-tree", bot.workspace, "add", "-A", "--force")
    tree = repo.store.commit(repo.current).tree
    assert git(work, "write-tree") == other._known[tree].hex()


def test_what_this_home_did_not_put_there_is_left(tmp_path: Path) -> None:
    far = bare(tmp_path / "far.git", "sha1")
    home = new_home(tmp_path / "one", "sha256", {})
    bot = home.new("bot")
    commit(bot, FILES, version="1.0.0")
    home.remote_add("hub", str(far))
    home.mirror("hub", "sha1")
    stranger = git(far, "commit-tree", "current^{tree}", "-m", "a stranger's")
    git(far, "update-ref", "refs/heads/current", stranger)
    commit(bot, {**FILES, "a": b"1"}, bump="minor")
    there = refs(far)
    with pytest.raises(Diverged):
        home.mirror("hub", "sha1")
    assert refs(far) == there
    git(far, "update-ref", "refs/heads/current", "v1.0.0^{commit}")
    git(far, "tag", "v1.1.0", stranger)
    with pytest.raises(VersionConflict):
        home.mirror("hub", "sha1")


def test_a_mirror_is_for_git_hosts_of_the_other_format(tmp_path: Path) -> None:
    home = new_home(tmp_path / "one", "sha256", {})
    commit(home.new("bot"), FILES)
    home.remote_add("same", str(bare(tmp_path / "same.git", "sha256")))
    home.remote_add("home", str(tmp_path / "elsewhere"))
    with pytest.raises(WrongFormat):
        home.mirror("same", "sha256")
    with pytest.raises(WrongFormat):
        home.mirror("same", "sha1")
    with pytest.raises(RefusedUrl):
        home.mirror("home", "sha1")
    assert refs(tmp_path / "same.git") == {}
