"""A git host as a remote, with real git at the other end: over each of git's ways, in both hash formats."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import kaivc
from kaivc import api, gitarrival, gitpacks
from kaivc.api import Agent, Home
from kaivc.errors import Diverged, LostRace, RefusedArrival, RefusedByRemote, VersionConflict, WrongFormat
from kaivc.remotes.base import Push
from kaivc.remotes.git import GitRemote
from kaivc.remotes.git import connect as to_git
from kaivc.wire import Update
from tests.engine.homes import ENVIRON, commit, read, write
from tests.remotes import githosts
from tests.remotes.githosts import FORMATS, KINDS, Host, bare, git, refs, require_clean

FILES = {"logic.py": b"print(1)\n", "config.yaml": b"a: 1\n", "docs/page.md": b"# Page\n" * 200}


@pytest.fixture(scope="module", params=list(KINDS))
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host of each kind; its repositories are made by the tests."""
    with KINDS[request.param](tmp_path_factory.mktemp(request.param)) as found:
        yield found


def new_home(path: Path, object_format: str, environ: dict[str, str]) -> Home:
    """A home that knows how to reach a host."""
    api.init(path, object_format).close()
    return kaivc.open(path, environ={**ENVIRON, **environ})


def cloned(url: str, path: Path, environ: dict[str, str], **words: object) -> Home:
    """A home made of what a host has."""
    every = {**ENVIRON, **environ}
    api.clone(url, path, environ=every, **words)  # type: ignore[arg-type]
    return kaivc.open(path, environ=every)


def ours(home: Home, agent: str, *, short: bool = True) -> dict[str, str]:
    """An agent's versions, `current` and snapshots, as a host has them."""
    found = {}
    for name, oid in home.opened.repository(agent).refs("refs/").items():
        if name.startswith(("refs/tags/", "refs/heads/")) and "/backups/" not in name:
            found[name.replace(f"/{agent}/", "/", 1) if short else name] = oid.hex()
    return found


@pytest.mark.parametrize("object_format", FORMATS)
def test_versions_go_there_and_come_back(host: Host, object_format: str, tmp_path: Path) -> None:
    far = bare(host.root / f"round-{object_format}.git", object_format)
    url = host.url(far)
    home = new_home(tmp_path / "one", object_format, host.environ)
    bot = home.new("bot")
    state = random.Random(1).randbytes(300_000)
    commit(bot, {**FILES, "state.json": state}, version="1.0.0", notes="The first")
    home.remote_add("origin", url)

    pushed = home.push("bot")  # into an empty repository
    assert {it.ref for it in pushed.refs} == {"refs/heads/bot/current", "refs/tags/bot/v1.0.0"}
    assert refs(far) == ours(home, "bot")
    require_clean(far)

    commit(bot, {**FILES, "state.json": state, "new.txt": b"new\n"}, bump="minor", notes="More")
    assert home.push("bot").size < 3000  # nothing that is there travels again
    assert refs(far) == ours(home, "bot")
    assert not home.push("bot").refs

    other = cloned(url, tmp_path / "two", host.environ)  # and back
    assert ours(other, "bot") == ours(home, "bot")
    assert read(other.agent("bot").workspace) == read(bot.workspace)
    assert other.audit("bot").ok

    commit(other.agent("bot"), {**FILES, "state.json": state[:-1]}, bump="minor", notes="Elsewhere")
    other.push("bot")
    assert home.fetch().agents[0].changes
    assert home.pull("bot").agent == "bot"
    assert ours(home, "bot") == refs(far)
    assert read(bot.workspace)["state.json"] == state[:-1]

    bot.rollback("v1.0.0", reason="back")  # `current` moves back
    home.push("bot")
    assert refs(far)["refs/heads/current"] == ours(home, "bot")["refs/heads/current"]
    require_clean(far)
    work = tmp_path / "work"
    git(tmp_path, "-c", "transfer.fsckObjects=true", "clone", "-q", far, work)
    assert {name: data for name, data in read(work).items() if not name.startswith(".git/")} == read(bot.workspace)
    home.close()
    other.close()


# ---------------------------------------------------------------- one machine, two homes


@dataclass
class Pair:
    """A bare repository and two homes that know it; both have v1.0.0 of `bot`."""

    far: Path
    one: Home
    two: Home

    def agents(self) -> tuple[Agent, Agent]:
        """The agent in both."""
        return self.one.agent("bot"), self.two.agent("bot")


@pytest.fixture(params=FORMATS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    far = bare(tmp_path / "far.git", request.param)
    one = new_home(tmp_path / "one", request.param, {})
    commit(one.new("bot"), FILES, version="1.0.0")
    one.remote_add("origin", str(far))
    one.push("bot")
    two = cloned(str(far), tmp_path / "two", {})
    yield Pair(far, one, two)
    one.close()
    two.close()


def remote_of(home: Home, url: str) -> GitRemote:
    """The carrier itself."""
    return to_git(home._context(lambda question, secret: None), url)


def push_of(home: Home, ref: str, old: str | None, new: str | None) -> Push:
    """One move."""
    there, here = (None if oid is None else bytes.fromhex(oid) for oid in (old, new))
    return Push("op", str(home.opened.actor), "why", (Update(ref, there, here),))


def test_what_somebody_moved_is_not_overwritten(pair: Pair) -> None:
    first, second = pair.agents()
    commit(first, {**FILES, "a": b"1"}, bump="minor")
    commit(second, {**FILES, "b": b"2"}, version="2.0.0")
    pair.one.push("bot")
    there = refs(pair.far)
    with pytest.raises(Diverged) as caught:
        pair.two.push("bot")
    assert refs(pair.far) == there
    assert caught.value.facts["there"] == there["refs/heads/current"]


def test_a_ref_that_moves_between_the_look_and_the_push_is_left(pair: Pair) -> None:
    first, _ = pair.agents()
    before = refs(pair.far)["refs/heads/current"]
    commit(first, {**FILES, "a": b"1"}, bump="minor")
    new = ours(pair.one, "bot")["refs/heads/current"]
    repo = pair.one.opened.repository("bot")
    remote = remote_of(pair.one, str(pair.far))
    head = remote.head("bot")
    stranger = git(pair.far, "commit-tree", f"{before}^{{tree}}", "-m", "a stranger's")
    git(pair.far, "update-ref", "refs/heads/current", stranger)
    with pytest.raises(LostRace):
        remote.send(repo, push_of(pair.one, "refs/heads/bot/current", before, new), head.refs)
    assert refs(pair.far)["refs/heads/current"] == stranger
    remote.close()


def test_a_ref_that_moves_while_the_pack_travels_is_left(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = pair.agents()
    before = refs(pair.far)["refs/heads/current"]
    commit(first, {**FILES, "a": b"1"}, bump="minor")
    stranger = git(pair.far, "commit-tree", f"{before}^{{tree}}", "-m", "a stranger's")
    whole = gitpacks.write_pack

    def raced(*words: Any) -> Iterator[bytes]:
        git(pair.far, "update-ref", "refs/heads/current", stranger)  # the other side has told its refs already
        return whole(*words)

    monkeypatch.setattr(gitpacks, "write_pack", raced)
    with pytest.raises(RefusedByRemote) as caught:
        pair.one.push("bot")
    assert "kai fetch" in caught.value.hint
    assert refs(pair.far)["refs/heads/current"] == stranger
    assert "refs/tags/v1.1.0" not in refs(pair.far)  # all moves or none


def test_a_commit_of_gits_is_refused_with_the_way_out(pair: Pair) -> None:
    """A home of kai's would not have taken it: `kai fsck` is nothing that can be run over there."""
    pair.agents()
    there = refs(pair.far)["refs/heads/current"]
    stranger = git(pair.far, "commit-tree", "-p", there, "-m", "by git", f"{there}^{{tree}}").strip()
    git(pair.far, "update-ref", "refs/heads/current", stranger)
    for ask in (pair.two.fetch, lambda: pair.two.pull("bot")):
        with pytest.raises(RefusedArrival) as told:
            ask()
        assert "put `current` back" in told.value.hint
    git(pair.far, "update-ref", "refs/heads/current", there)
    assert pair.two.fetch().agents[0].changes == ()


def test_a_number_that_is_taken_there_conflicts_alone(pair: Pair) -> None:
    first, second = pair.agents()
    commit(first, {**FILES, "a": b"1"}, version="1.1.0")
    commit(second, {**FILES, "b": b"2"}, version="1.1.0")
    pair.one.push("bot")
    there = refs(pair.far)
    pair.two.fetch()
    second.rollback("v1.0.0", reason="where both agree")
    with pytest.raises((VersionConflict, Diverged)):
        pair.two.push("bot")
    assert refs(pair.far)["refs/tags/v1.1.0"] == there["refs/tags/v1.1.0"]


def test_snapshots_and_backups_go_when_they_are_named_and_snapshots_go_away(pair: Pair) -> None:
    first, _ = pair.agents()
    write(first.workspace, {**FILES, "state.json": b"[1]"})
    first.rollback("v1.0.0", reason="saves what is there", force=True)
    [backup] = pair.one.opened.repository("bot").refs("refs/heads/bot/backups/")
    pair.one.push("bot", refs=[backup.removeprefix("refs/heads/bot/")])
    short = backup.replace("/bot/backups/", "/snapshots/backups-")
    oid = refs(pair.far)[short]
    repo = pair.one.opened.repository("bot")
    remote = remote_of(pair.one, str(pair.far))
    ref = "refs/heads/bot/snapshots/trial"
    head = remote.head("bot")
    assert remote.send(repo, push_of(pair.one, ref, None, oid), head.refs).moved == (ref,)
    assert refs(pair.far)["refs/heads/snapshots/trial"] == oid
    remote.close()
    assert "refs/heads/bot/snapshots/trial" in {it.ref for it in pair.one.fetch().agents[0].changes}
    assert pair.one.push("bot", delete=["snapshots/trial"]).refs[0].new is None
    assert "refs/heads/snapshots/trial" not in refs(pair.far)
    require_clean(pair.far)


# ---------------------------------------------------------------- a host that says no


def refused(pair: Pair) -> RefusedByRemote:
    """What comes of a push of one more version; nothing moves."""
    first, _ = pair.agents()
    commit(first, {**FILES, "a": b"1"}, bump="minor")
    there = refs(pair.far)
    with pytest.raises(RefusedByRemote) as caught:
        pair.one.push("bot")
    assert refs(pair.far) == there
    assert "\n" not in caught.value.what
    return caught.value


def test_the_words_of_a_hook_are_told_on_one_line(pair: Pair) -> None:
    githosts.hook(pair.far, "pre-receive", "printf '\\033[31mno pushes on\\n  Fridays\\007' >&2\nexit 1\n")
    error = refused(pair)
    assert "no pushes on; Fridays" in error.what
    assert not set(error.what) & {"\033", "\007"}
    assert "hook" in error.hint


def test_one_ref_that_a_hook_refuses_stops_all_where_a_push_is_atomic(pair: Pair) -> None:
    githosts.hook(pair.far, "update", 'case "$1" in refs/tags/*) echo "tags are for releases" >&2; exit 1;; esac\n')
    assert "refs/tags/bot/v1.1.0" in refused(pair).what


def test_where_it_is_not_what_was_refused_is_told_and_the_rest_is_there(pair: Pair) -> None:
    git(pair.far, "config", "receive.advertiseAtomic", "false")
    githosts.hook(pair.far, "update", 'case "$1" in refs/tags/*) echo "tags are for releases" >&2; exit 1;; esac\n')
    first, _ = pair.agents()
    commit(first, {**FILES, "a": b"1"}, bump="minor")
    with pytest.raises(RefusedByRemote) as caught:
        pair.one.push("bot")
    assert caught.value.facts["moved"] == ["refs/heads/bot/current"]
    assert refs(pair.far)["refs/heads/current"] == ours(pair.one, "bot")["refs/heads/current"]


@pytest.mark.parametrize("refused_there", ["refs/tags/*", "refs/heads/*"])
def test_a_push_of_which_a_part_was_refused_goes_on_under_the_same_names(refused_there: str, tmp_path: Path) -> None:
    far = bare(tmp_path / "far.git")
    git(far, "config", "receive.advertiseAtomic", "false")
    githosts.hook(far, "update", f'case "$1" in {refused_there}) exit 1;; esac\n')
    home = new_home(tmp_path / "one", "sha256", {})
    commit(home.new("bot"), FILES)
    home.remote_add("origin", str(far))
    with pytest.raises(RefusedByRemote):
        home.push("bot")
    assert len(refs(far)) == 1
    (far / "hooks" / "update").unlink()
    home.push("bot")
    assert refs(far) == ours(home, "bot")


def test_a_limit_of_size_is_told_with_what_to_do(pair: Pair) -> None:
    git(pair.far, "config", "receive.maxInputSize", "100")
    error = refused(pair)
    assert "exceeds maximum allowed size" in error.what
    assert "kai.yaml" in error.hint


def test_a_host_that_takes_no_move_back_says_how_to_allow_it(pair: Pair) -> None:
    first, _ = pair.agents()
    commit(first, {**FILES, "a": b"1"}, bump="minor")
    pair.one.push("bot")
    first.rollback("v1.0.0", reason="back")
    git(pair.far, "config", "receive.denyNonFastForwards", "true")
    with pytest.raises(RefusedByRemote) as caught:
        pair.one.push("bot")
    assert "denyNonFastForwards" in caught.value.hint


def test_a_repository_of_the_other_format_is_refused_with_the_way_out(tmp_path: Path) -> None:
    far = bare(tmp_path / "far.git", "sha1")
    home = new_home(tmp_path / "one", "sha256", {})
    commit(home.new("bot"), FILES)
    home.remote_add("origin", str(far))
    with pytest.raises(WrongFormat) as caught:
        home.push("bot")
    assert "kai mirror" in caught.value.hint
    assert refs(far) == {}


# ---------------------------------------------------------------- names


def test_the_first_agent_has_short_names_and_others_their_own(pair: Pair, tmp_path: Path) -> None:
    commit(pair.one.new("other"), {"x": b"1"})
    pair.one.push("other")
    there = refs(pair.far)
    assert {"refs/heads/current", "refs/heads/other/current", "refs/tags/v1.0.0", "refs/tags/other/v1.0.0"} == {*there}
    both = cloned(str(pair.far), tmp_path / "both", {})
    assert both.agents() == ["bot", "other"]
    assert ours(both, "bot") | ours(both, "other", short=False) == there
    require_clean(pair.far)


def test_what_is_not_ours_in_a_repository_is_left_alone(tmp_path: Path) -> None:
    far = bare(tmp_path / "far.git", "sha1")
    tree = git(far, "hash-object", "-w", "-t", "tree", "/dev/null")
    theirs = git(far, "commit-tree", tree, "-m", "theirs")
    git(far, "update-ref", "refs/heads/main", theirs)
    git(far, "tag", "v1.0.0", theirs)
    home = new_home(tmp_path / "one", "sha1", {})
    commit(home.new("bot"), FILES)
    home.remote_add("origin", str(far))
    home.push("bot")
    there = refs(far)
    assert (there["refs/heads/main"], there["refs/tags/v1.0.0"]) == (theirs, theirs)
    assert {name for name in there if "bot" in name} == {"refs/heads/bot/current", "refs/tags/bot/v1.0.0"}


# ---------------------------------------------------------------- packs


@pytest.mark.parametrize("object_format", FORMATS)
def test_a_pack_is_what_git_would_take(object_format: str, tmp_path: Path) -> None:
    home = new_home(tmp_path / "one", object_format, {})
    bot = home.new("bot")
    large = random.Random(2).randbytes(3 << 20)
    files = {f"d{n}/f{n}": b"%d\n" % n * n for n in range(200)}
    commit(bot, {**files, "large": large, "empty": b"", "zeros": bytes(5 << 20)})
    commit(bot, {**files, "large": large[:1000] + b"!" + large[1000:]}, bump="minor")
    repo = home.opened.repository("bot")
    wants = list(repo.refs("refs/").values())
    plan = gitpacks.missing(repo, wants, ())
    (tmp_path / "p.pack").write_bytes(b"".join(gitpacks.write_pack(repo, plan)))
    far = bare(tmp_path / "far.git", object_format)
    git(far, "index-pack", "--strict", f"--object-format={object_format}", tmp_path / "p.pack")
    listed = git(far, "verify-pack", "-v", tmp_path / "p.pack").split()
    assert {row.id.hex() for row in plan.rows} <= {*listed}


def test_what_is_like_what_is_there_comes_as_a_delta(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = pair.agents()
    text = random.Random(3).randbytes(200_000).hex().encode()
    commit(first, {**FILES, "big.txt": text}, bump="minor")
    pair.one.push("bot")
    pair.two.pull("bot")
    commit(first, {**FILES, "big.txt": text[:5000] + b"changed" + text[5000:]}, bump="minor")
    pair.one.push("bot")
    came = 0
    whole = gitarrival.take_pack

    def counted(read: Callable[[int], bytes], *words: Any) -> Any:
        def through(size: int) -> bytes:
            nonlocal came
            data = read(size)
            came += len(data)
            return data

        return whole(through, *words)

    monkeypatch.setattr(gitarrival, "take_pack", counted)
    pair.two.pull("bot")
    assert read(second.workspace) == read(first.workspace)
    assert 0 < came < 5000  # a delta of what was there, of 400,000 bytes
    git(pair.far, "repack", "-adfq", "--depth=50")
    came = 0
    three = cloned(str(pair.far), tmp_path / "three", {})
    assert came < 300_000  # two of them
    assert three.audit("bot").ok


def test_of_a_large_file_travels_what_changed(pair: Pair) -> None:
    first, second = pair.agents()
    state = random.Random(5).randbytes(12 << 20)
    commit(first, {**FILES, "state.bin": state}, bump="minor")
    assert pair.one.push("bot").size > len(state)
    at = 7 << 20
    commit(first, {**FILES, "state.bin": state[:at] + b"changed" + state[at + 4 :]}, bump="minor")
    assert pair.one.push("bot").size < len(state) // 20
    require_clean(pair.far)
    pair.two.pull("bot")
    assert read(second.workspace) == read(first.workspace)


PUSH_300_MIB = """
import re, sys
import kaivc
home = kaivc.open(sys.argv[1])
home.push("bot")
# Of this process alone: ru_maxrss goes on from that of the one which forked it.
print(int(re.search(r"VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())[1]) // 1024)
"""


def test_a_large_state_is_sent_as_it_is_read(tmp_path: Path) -> None:
    far = bare(tmp_path / "far.git", "sha256")
    git(far, "config", "receive.unpackLimit", "1")  # git, too, keeps the pack as it comes
    home = new_home(tmp_path / "one", "sha256", {})
    bot = home.new("bot")
    with open(bot.workspace / "state.bin", "wb") as file:
        numbers = random.Random(4)
        file.writelines(numbers.randbytes(1 << 14) * 64 for _ in range(300))
    bot.commit()
    home.remote_add("origin", str(far))
    home.close()
    argv = [sys.executable, "-c", PUSH_300_MIB, str(tmp_path / "one")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 120
    assert git(far, "cat-file", "-s", "current:state.bin") == str(300 << 20)
