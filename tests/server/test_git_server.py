"""Real git against our server: what it clones is what the home holds, and what it pushes counts, or nothing does."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kaivc.api import Agent, Home
from kaivc.pktline import FLUSH, line
from tests.conftest import ROOT
from tests.engine.homes import ENVIRON, copy, make_home, open_home, read, write
from tests.server.loopback import Site, git, served, token
from tests.server.packs import BLOB, COMMIT, entry, oid, pack
from tests.server.test_git_packs import hostile

STATE = random.Random(9).randbytes(200_000)
CHECKED = ("-c", "transfer.fsckObjects=true")


def files(number: int) -> dict[str, bytes]:
    """What version 1.0.NUMBER holds."""
    state = STATE[: 1000 * number] + b"x" * 50 + STATE[1000 * number :]
    return {"logic.py": b"print(%d)\n" % number, "lib/part.py": b"same\n", "state/large.bin": state}


def release(agent: Agent, number: int, **words: str) -> str:
    write(agent.workspace, files(number))
    return str(agent.commit(notes=f"number {number}", **words).version)  # type: ignore[arg-type]


@dataclass
class Served:
    """A home with two agents, where it is served, and room for clones."""

    path: Path
    home: Home
    bot: Agent
    site: Site
    room: Path

    def refs(self) -> dict[str, str]:
        return {ref: found.hex() for ref, found in self.bot.repository.refs("refs/").items()}

    def state(self) -> object:
        """All that a refused push must leave as it was."""
        packs = sorted((it.name, it.stat().st_size) for it in (self.path / ".kai/packs/bot").iterdir())
        arriving = self.path / ".kai/incoming/bot"
        left = sorted(os.listdir(arriving)) if arriving.is_dir() else []
        return self.refs(), packs, left, self.bot.status(), read(self.bot.workspace), sorted(os.listdir(self.path))

    def clone(self, name: str = "bot", *words: str, into: str = "clone") -> Path:
        git(*CHECKED, "clone", "-q", *words, self.site.url(name), self.room / into)
        return self.room / into


def sound(clone: Path) -> Path:
    """A repository that git finds nothing wrong with."""
    said = git("fsck", "--full", "--strict", "--no-dangling", at=clone)
    assert said == "", said
    return clone


@pytest.fixture(params=["sha256", "sha1"])
def it(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    home = make_home(tmp_path / "home", request.param, chunks__threshold="64KiB")
    bot, cat = home.new("bot"), home.new("cat")
    for number in range(4):
        release(bot, number)
    release(cat, 2)
    bot.rollback("v1.0.2", reason="three is bad")
    with served(bot.repository.home) as site:
        yield Served(tmp_path / "home", home, bot, site, tmp_path)
    home.close()


def other_home(it: Served, where: str = "other") -> Home:
    """The same home on another machine."""
    copy(it.path, it.room / where)
    return open_home(it.room / where, chunks__threshold="64KiB")


# ---------------------------------------------------------------- clone and fetch


@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_a_clone_of_an_agent(it: Served, version: str) -> None:
    """Whatever version of the protocol git asks for."""
    git("-c", f"protocol.version={version}", *CHECKED, "clone", "-q", it.site.url("bot"), it.room / "clone")
    clone = sound(it.room / "clone")
    assert read_files(clone) == files(2)
    assert git("status", "-sb", at=clone) == "## current...origin/current"
    assert git("tag", at=clone).split() == ["v1.0.0", "v1.0.1", "v1.0.2", "v1.0.3"]
    for number in range(4):
        assert git("rev-parse", f"v1.0.{number}^{{}}", at=clone) == it.bot.show(f"v1.0.{number}").version.commit


def read_files(clone: Path) -> dict[str, bytes]:
    return {name: data for name, data in read(clone).items() if not name.startswith(".git/")}


def test_a_clone_of_the_home(it: Served) -> None:
    (it.bot.workspace / "logic.py").write_bytes(b"dirty")
    it.bot.rollback("v1.0.1", reason="makes a backup")
    clone = sound(it.clone("_home"))
    said = git("for-each-ref", "--format=%(refname)", at=clone).split()
    assert [ref for ref in said if "/remotes/" in ref] == [
        "refs/remotes/origin/HEAD",
        "refs/remotes/origin/bot/current",
        "refs/remotes/origin/cat/current",
    ]
    assert git("symbolic-ref", "HEAD", at=clone) == "refs/heads/bot/current"
    assert git("tag", at=clone).split() == ["bot/v1.0.0", "bot/v1.0.1", "bot/v1.0.2", "bot/v1.0.3", "cat/v1.0.0"]
    assert git("show", "origin/cat/current:logic.py", at=clone) == "print(2)"


def test_the_head_of_a_home_is_the_one_that_it_names(it: Served, tmp_path: Path) -> None:
    again = open_home(it.path, head="cat")
    with served(again.agent("cat").repository.home) as site:
        assert "refs/heads/cat/current" in git("ls-remote", "--symref", site.url("_home"), "HEAD")
    again.close()


def test_a_fetch_brings_only_what_is_new(it: Served) -> None:
    clone = it.clone()
    write(it.bot.workspace, {**files(2), "new.py": b"new\n"})
    it.bot.commit()
    it.bot.rollback("v1.0.0", reason="back")
    before = last(it)["bytes_out"]
    said = git(*CHECKED, "fetch", "--tags", at=clone)
    assert "forced update" in said
    assert "v1.0.4" in said
    assert before > 200_000
    assert 0 < last(it)["bytes_out"] < 2000
    assert git("rev-parse", "origin/current", at=sound(clone)) == it.bot.current.commit
    assert git("fetch", at=clone) == ""


def test_a_large_file_goes_as_a_delta_of_the_one_before(it: Served) -> None:
    """In a clone of those in the same pack, in a fetch of what the clone has."""
    clone = it.clone()
    assert last(it)["bytes_out"] < 600_000 < 4 * len(STATE)
    release(it.bot, 5)
    git(*CHECKED, "fetch", at=clone)
    assert last(it)["bytes_out"] < len(STATE)
    assert git("rev-parse", "origin/current", at=sound(clone)) == it.bot.current.commit
    shallow = sound(it.clone("bot", "--depth", "3", into="shallow"))
    assert read_files(shallow) == files(5)


def last(it: Served, verb: str = "git-upload-pack") -> dict:
    """The last line of the access log that is of a request of this kind."""
    lines = [json.loads(text) for text in it.site.log.read_text().splitlines()]
    return [found for found in lines if found["verb"] == verb and found["status"] == 200][-1]


def test_a_fetch_from_a_clone_of_the_home_of_what_two_agents_did(it: Served) -> None:
    clone = it.clone("_home")
    release(it.bot, 7)
    release(it.home.agent("cat"), 8)
    git(*CHECKED, "fetch", at=clone)
    assert git("show", "origin/bot/current:logic.py", at=sound(clone)) == "print(7)"
    assert git("show", "origin/cat/current:logic.py", at=clone) == "print(8)"
    assert last(it)["bytes_out"] < 1_000_000


def test_shallow_clones_are_deepened_and_go_on(it: Served) -> None:
    clone = sound(it.clone("bot", "--depth", "2"))
    assert git("rev-list", "--count", "HEAD", at=clone) == "2"
    assert len((clone / ".git/shallow").read_text().split()) == 1
    write(it.bot.workspace, {**files(2), "new.py": b"new\n"})
    it.bot.commit()
    git(*CHECKED, "fetch", at=clone)
    assert git("rev-list", "--count", "origin/current", at=sound(clone)) == "3"
    git(*CHECKED, "fetch", "--depth", "1", at=clone)
    assert git("rev-list", "--count", "origin/current", at=sound(clone)) == "1"
    git(*CHECKED, "fetch", "--unshallow", "--tags", at=clone)
    assert git("rev-list", "--count", "origin/current", at=sound(clone)) == "4"
    assert not (clone / ".git/shallow").exists()
    assert git("show", "v1.0.0:logic.py", at=clone) == "print(0)"
    one = sound(it.clone("bot", "--depth", "1", "--branch", "v1.0.1", into="one"))
    assert read_files(one) == files(1)


def test_an_agent_without_versions_is_an_empty_repository(it: Served) -> None:
    it.home.new("idle")
    clone = it.clone("idle")
    assert git("for-each-ref", at=clone) == ""
    assert git("rev-parse", "--show-object-format", at=clone) in ("sha1", it.bot.repository.home.format.name)


def test_what_no_ref_shows_cannot_be_asked_for(it: Served) -> None:
    clone = it.clone()
    (it.bot.workspace / "logic.py").write_bytes(b"a secret")
    it.bot.rollback("v1.0.1", reason="makes a backup")
    backup = next(oid for ref, oid in it.refs().items() if "/backups/" in ref)
    hidden = git("fetch", "origin", backup, at=clone, ok=False)
    absent = git("fetch", "origin", "1" * len(backup), at=clone, ok=False)
    assert hidden.replace(backup, "ID") == absent.replace("1" * len(backup), "ID")
    assert "is nothing that a ref points at" in hidden
    # As what one has it is no news either: the answer to both is the same.
    for known in (backup, "1" * len(backup)):
        want = it.refs()["refs/heads/bot/current"]
        body = line(f"want {want} multi_ack_detailed no-done".encode()) + FLUSH
        body += line(f"have {known}".encode()) + FLUSH
        assert post(it, "git-upload-pack", body) == line(b"NAK\n")


def test_who_asks_again_and_again_whether_it_is_enough_costs_nothing(
    it: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs, store = it.refs(), type(it.bot.repository.store)
    looked, commit = [], store.commit
    monkeypatch.setattr(store, "commit", lambda self, oid: looked.append(oid) or commit(self, oid))  # type: ignore[func-returns-value]
    body = line(f"want {refs['refs/heads/bot/current']} multi_ack_detailed no-done".encode()) + FLUSH
    had = line(f"have {refs['refs/heads/bot/current']}".encode())
    assert post(it, "git-upload-pack", body + FLUSH * 3000) == line(b"NAK\n") * 3000
    assert len(looked) < 100
    assert b" ready\n" in post(it, "git-upload-pack", body + FLUSH * 2 + had + FLUSH)


def post(it: Served, service: str, body: bytes, **headers: str) -> bytes:
    address = it.site.url("bot", "")
    request = urllib.request.Request(f"{address}/{service}", body, headers)  # noqa: S310 - our own
    request.add_header("Content-Type", f"application/x-{service}-request")
    request.add_header("Authorization", f"Bearer {it.site.secret}")
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own
        return bytes(answer.read())


# ---------------------------------------------------------------- push


def test_a_version_of_another_home_comes_by_plain_git(it: Served) -> None:
    """Made by kai over there, fetched and pushed by git: here it is in force, workspace and all."""
    other = other_home(it)
    release(other.agent("bot"), 9)
    clone = it.clone()
    with served(other.agent("bot").repository.home) as there:
        git("fetch", "-q", there.url("bot"), "+refs/heads/*:refs/remotes/there/*", at=clone)
    said = git("push", "origin", "there/current:current", "v1.0.4", at=clone)
    assert "there/current -> current" in said
    assert it.bot.current.version == "1.0.4"
    assert read(it.bot.workspace) == files(9)
    assert it.bot.verify().ok
    entry = it.bot.reflog().entries[0]
    assert (entry.verb, entry.actor, entry.reason) == ("push", "Tess Token <tess@example.org>", "git push")
    assert last(it, "git-receive-pack")["bytes_in"] < 20_000, "a thin pack of deltas"
    it.bot.undo()
    assert read(it.bot.workspace) == files(2)
    other.close()


def test_a_new_agent_comes_by_plain_git(it: Served) -> None:
    clone = it.clone("bot", "--mirror")
    path = it.room / "third"
    third = make_home(path, it.bot.repository.home.format.name, chunks__threshold="64KiB")
    with served(third.new("idle").repository.home) as there:
        git("push", there.url("bot"), "--mirror", at=clone)
        bot = third.agent("bot")
        assert [found.version for found in bot.versions()] == ["1.0.0", "1.0.1", "1.0.2", "1.0.3"]
        assert (bot.current.version, read(bot.workspace)) == ("1.0.2", files(2))
        assert bot.verify().ok
        said = git(
            "push",
            there.url("new", token(third.agent("bot").repository.home, "operator")),
            "current",
            at=clone,
            ok=False,
        )
        assert "403" in said
        said = git("push", there.url("new"), "current", at=clone, ok=False)
        assert "no version tag names" in said or "tag" in said
    assert third.agents() == ["bot", "idle"]
    assert not (path / ".kai/incoming/new").exists()
    third.close()


def test_kai_itself_by_gits_protocol(it: Served) -> None:
    """Both ends of it are ours, on one connection that is kept."""
    environ = {**ENVIRON, "KAI_TOKEN": it.site.secret, "PYTHONPATH": str(ROOT)}

    def kai(*words: str, at: Path) -> str:
        command = [sys.executable, "-m", "kaivc", *words, "-c", "chunks.threshold=64KiB"]
        done = subprocess.run(command, cwd=at, env=environ, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    kai("clone", it.site.url("bot", ""), "there", at=it.room)
    there = it.room / "there"
    assert read(there / "bot/workspace") == files(2)
    write(there / "bot/workspace", files(6))
    kai("commit", "bot", "-m", "six", at=there)
    kai("push", "bot", at=there)
    assert last(it, "git-receive-pack")["bytes_in"] < len(STATE)
    assert (it.bot.current.version, read(it.bot.workspace)) == ("1.0.4", files(6))
    it.bot.rollback("v1.0.0", reason="back")
    kai("pull", "bot", at=there)
    assert read(there / "bot/workspace") == files(0)


def test_current_moves_back_with_a_lease_only(it: Served) -> None:
    clone = it.clone()
    assert "non-fast-forward" in git("push", "origin", "v1.0.0^{}:refs/heads/current", at=clone, ok=False)
    before = it.bot.current.commit
    lease = f"--force-with-lease=current:{it.bot.show('v1.0.3').version.commit}"
    assert "stale info" in git("push", lease, "origin", "v1.0.0^{}:refs/heads/current", at=clone, ok=False)
    assert it.bot.current.commit == before
    (it.bot.workspace / "logic.py").write_bytes(b"dirty\n")
    said = git("push", f"--force-with-lease=current:{before}", "origin", "v1.0.0^{}:refs/heads/current", at=clone)
    assert "is kept as backups/" in said
    assert (it.bot.current.version, read(it.bot.workspace)) == ("1.0.0", files(0))


def test_a_lost_race_moves_nothing(it: Served) -> None:
    """git has been told the refs, and before it pushes somebody else moves `current`."""
    clone = it.clone()
    ready, go = it.room / "ready", it.room / "go"
    hook = clone / ".git/hooks/pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {ready}\nwhile [ ! -e {go} ]; do sleep 0.02; done\n")
    hook.chmod(0o755)
    said: list[str] = []

    def push() -> None:
        said.append(
            git(
                "push", "--force", "origin", "v1.0.0^{}:current", "v1.0.1^{}:refs/heads/snapshots/a", at=clone, ok=False
            )
        )

    thread = threading.Thread(target=push)
    thread.start()
    while not ready.exists():
        assert thread.is_alive()
    it.bot.rollback("v1.0.3", reason="meanwhile")
    before = it.state()
    go.touch()
    thread.join(60)
    assert "is not where it was" in said[0]
    assert "all or none, and refs/heads/current does not move" in said[0]
    assert it.state() == before


def test_snapshots_come_and_go_and_versions_stay(it: Served) -> None:
    clone = it.clone()
    git("push", "origin", "v1.0.1^{}:refs/heads/snapshots/try", at=clone)
    assert it.refs()["refs/heads/bot/snapshots/try"] == it.bot.show("v1.0.1").version.commit
    git("push", "origin", ":snapshots/try", at=clone)
    assert "refs/heads/bot/snapshots/try" not in it.refs()
    before = it.state()
    for ref in ("refs/tags/v1.0.0", "refs/heads/current"):
        assert "only snapshots are" in git("push", "origin", f":{ref}", at=clone, ok=False)
    assert it.state() == before


def test_what_kai_did_not_make_is_refused_and_says_why(it: Served) -> None:
    clone = it.clone()
    git("checkout", "-q", "-b", "work", at=clone)
    (clone / "logic.py").write_bytes(b"by hand\n")
    git("commit", "-q", "-am", "by hand", at=clone)
    git("tag", "v8.0.0", at=clone)
    git("tag", "-a", "-m", "mine", "v9.0.0", at=clone)
    git("tag", "-f", "-a", "-m", "moved", "v1.0.0", "v1.0.1^{}", at=clone)
    before = it.state()
    refused = {
        "work:refs/heads/snapshots/work": "does not end with the trailers of a version",
        "work:refs/heads/current": "does not end with the trailers of a version",
        "v8.0.0": "is no tag",
        "v9.0.0": "trailers",
        "+v1.0.0": "is another version over there",
        "work:refs/heads/work": "is no ref that a home takes",
        "work:refs/heads/backups/1": "is no ref that a home takes",
        "work:refs/tags/nine": "is no ref that a home takes",
        "work:refs/notes/x": "is no ref that a home takes",
        "v1.0.0:refs/heads/snapshots/tag": "remote rejected",
        "v1.0.1^{tree}:refs/heads/snapshots/tree": "",
    }
    for spec, why in refused.items():
        said = git("push", "origin", spec, at=clone, ok=False)
        assert why in said, (spec, said)
        assert it.state() == before, spec
    assert "all or none" in git("push", "origin", "work", "v1.0.1^{}:refs/heads/snapshots/good", at=clone, ok=False)
    assert it.state() == before


def test_one_push_is_of_one_agent(it: Served) -> None:
    clone = it.clone("_home")
    specs = ["bot/v1.0.0^{}:refs/heads/bot/snapshots/a", "cat/v1.0.0^{}:refs/heads/cat/snapshots/a"]
    assert "one agent at a time" in git("push", "origin", *specs, at=clone, ok=False)
    for spec in specs:
        git("push", "origin", spec, at=clone)
    assert "refs/heads/bot/snapshots/a" in it.refs()


def test_four_clients_at_once(it: Served) -> None:
    clones = [it.clone(into=f"clone-{number}") for number in range(4)]
    errors: list[BaseException] = []

    def push(number: int) -> None:
        try:
            for turn in range(3):
                git(
                    "push",
                    "-q",
                    "origin",
                    f"v1.0.{number}^{{}}:refs/heads/snapshots/s{number}-{turn}",
                    at=clones[number],
                )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors, errors[0]
    found = {ref for ref in it.refs() if "/snapshots/" in ref}
    assert found == {f"refs/heads/bot/snapshots/s{number}-{turn}" for number in range(4) for turn in range(3)}
    assert it.bot.verify().ok


def test_a_push_of_what_does_not_come_along(it: Served) -> None:
    """Said by hand, for git would send it: refs to nothing, to other agents' objects, and commits without files."""
    hashed = it.bot.repository.home.format.name
    cat = it.home.agent("cat")
    write(cat.workspace, {"only": b"of cat\n"})
    cat.commit()
    there = bytes.fromhex(cat.current.commit)
    secret = it.bot.repository.store.tag
    assert secret is not None
    blob = oid(BLOB, b"blob", hashed)
    commit = b"tree %s\n\nno author" % (b"1" * len(there) * 2)
    before = it.state()
    for new, sent in {
        there: pack([], hashed),
        b"\x44" * len(there): pack([], hashed),
        blob: pack([entry(BLOB, b"blob")], hashed),
        oid(COMMIT, commit, hashed): pack([entry(COMMIT, commit)], hashed),
    }.items():
        answer = post(it, "git-receive-pack", asked(it, "refs/heads/snapshots/x", new) + sent)
        assert b"ng refs/heads/snapshots/x" in answer
        assert it.state() == before


def test_hostile_packs_leave_nothing(it: Served) -> None:
    before = it.state()
    command = asked(it, "refs/heads/snapshots/x", b"\x44" * it.bot.repository.home.format.width)
    for which, data in hostile(it.bot.repository.home.format.name).items():
        answer = post(it, "git-receive-pack", command + data)
        assert b"unpack " in answer, which
        assert b"unpack ok" not in answer, which
        assert b"ng refs/heads/snapshots/x" in answer, which
        assert it.state() == before, which


def asked(it: Served, ref: str, new: bytes) -> bytes:
    """One command that makes a ref."""
    words = f"report-status object-format={it.bot.repository.home.format.name}"
    return line(f"{'0' * len(new) * 2} {new.hex()} {ref}\0{words}".encode()) + FLUSH


# ---------------------------------------------------------------- who may what


def test_each_role_by_git(it: Served) -> None:
    home = it.bot.repository.home
    clone = it.clone()
    specs = {
        "viewer": "",
        "tester": "v1.0.1^{}:refs/heads/snapshots/%s",
        "operator": "+v1.0.1^{}:refs/heads/current",
    }
    may: list[str] = []
    for role in ("viewer", "tester", "operator", "maintainer"):
        secret = token(home, role, ("bo*",))
        git("ls-remote", it.site.url("bot", secret))
        assert "cat" not in git("ls-remote", it.site.url("_home", secret))
        assert "not found" in git("ls-remote", it.site.url("cat", secret), ok=False)
        assert "not found" in git("ls-remote", it.site.url("none", secret), ok=False)
        may.append(role)
        for needed, spec in specs.items():
            if not spec:
                continue
            before = it.state()
            said = git("push", it.site.url("bot", secret), spec.replace("%s", role), at=clone, ok=needed in may)
            if needed not in may:
                assert "403" in said or "roles that may are" in said
                assert it.state() == before
        git("push", "-q", it.site.url("bot"), "+v1.0.2^{}:refs/heads/current", at=clone)
    log = it.site.log.read_text()
    assert "kai_" not in log
    assert '"who": null' in log


def test_nobody_is_let_in_without_a_token_and_readers_are_asked_for_one_when_they_push(it: Served) -> None:
    assert "could not read Username" in git("ls-remote", it.site.url("bot", ""), ok=False)
    assert "Authentication failed" in git("ls-remote", it.site.url("bot", "kai_" + "x" * 43), ok=False)
    with served(it.bot.repository.home, anonymous=True) as site:
        git("clone", "-q", site.url("bot", ""), it.room / "clone")
        said = git("push", site.url("bot", ""), "v1.0.1^{}:refs/heads/snapshots/x", at=it.room / "clone", ok=False)
        assert "could not read Username" in said


def test_a_push_does_not_land_once_its_token_is_revoked(it: Served) -> None:
    """However long before that it began."""
    found = it.refs()["refs/heads/bot/current"]
    kind = it.bot.repository.home.format.name
    move = f"{'0' * len(found)} {found} refs/heads/snapshots/x\0report-status object-format={kind}"
    body = line(move.encode()) + FLUSH + pack([], kind)
    host, port = it.site.place.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.putrequest("POST", "/bot.git/git-receive-pack")
    connection.putheader("Authorization", f"Bearer {it.site.secret}")
    connection.putheader("Content-Type", "application/x-git-receive-pack-request")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:-5])
    time.sleep(0.3)
    it.home.token_revoke(it.home.tokens()[0].token.id)
    connection.send(body[-5:])
    with connection.getresponse() as answer:
        said = answer.read()
    connection.close()
    assert b"ng refs/heads/snapshots/x" in said
    assert b"revoked" in said
    assert not any("/snapshots/" in ref for ref in it.refs())


def comes_to_be_logged(it: Served, code: str) -> bool:
    """Whether the newest line says so: it is written when the answer has gone."""
    deadline = time.monotonic() + 10
    while (found := json.loads(it.site.log.read_text().splitlines()[-1])["code"]) != code:
        if time.monotonic() > deadline:
            return bool(found == code)
        time.sleep(0.01)
    return True


def test_what_is_refused_within_an_answer_is_in_the_log_and_names_no_place_of_the_machine(it: Served) -> None:
    clone = it.clone()
    (it.path / "stray").mkdir()
    for where, secret, what, code in (
        ("stray", it.site.secret, "HEAD:refs/heads/current", "E204"),
        ("bot", token(it.home.opened, "tester"), "+v1.0.0^{}:refs/heads/current", "E105"),
    ):
        said = git("push", it.site.url(where, secret), what, at=clone, ok=False)
        assert "remote rejected" in said
        assert str(it.path) not in said
        assert comes_to_be_logged(it, code)
    fetch = line(b"want " + b"1" * len(it.refs()["refs/heads/bot/current"])) + FLUSH
    assert b"ERR" in post(it, "git-upload-pack", fetch)
    assert comes_to_be_logged(it, "E404")


# ---------------------------------------------------------------- requests that git does not make


def test_requests_that_are_none(it: Served) -> None:
    before = it.state()
    want = it.refs()["refs/heads/bot/current"].encode()
    good = line(b"want %s side-band-64k" % want) + FLUSH + line(b"done")
    assert b"PACK" in post(it, "git-upload-pack", good)
    assert b"PACK" in post(it, "git-upload-pack", gzip.compress(good), **{"Content-Encoding": "gzip"})
    bad: list[tuple[str, bytes, dict[str, str]]] = [
        ("git-receive-pack", b"junk", {}),
        ("git-receive-pack", line(b"0 1 refs/heads/current\0report-status") + FLUSH, {}),
        ("git-receive-pack", b"fff0" + b"x" * 100, {}),
        ("git-upload-pack", good, {"Content-Encoding": "br"}),
        ("git-receive-pack", gzip.compress(bytes(80 << 20)), {"Content-Encoding": "gzip"}),
        ("git-nothing", good, {}),
    ]
    for service, body, headers in bad:
        with pytest.raises(urllib.error.HTTPError) as raised:
            post(it, service, body, **headers)
        assert 400 <= raised.value.code < 500, (service, body[:40])
    for body in (
        line(b"want %s" % (b"0" * len(want))) + FLUSH,
        line(b"want xyz") + FLUSH,
        line(b"steal %s" % want) + FLUSH,
        line(b"want %s" % want),
        line(b"want %s" % want) + FLUSH + line(b"has %s" % want),
        line(b"want %s object-format=md5" % want) + FLUSH,
        b"zzzz",
        b"",
    ):
        assert b"ERR kaivc: " in post(it, "git-upload-pack", body)
    for body in (gzip.compress(good)[:40], good):
        assert b"ERR kaivc: " in post(it, "git-upload-pack", body, **{"Content-Encoding": "gzip"})
    assert post(it, "git-upload-pack", FLUSH) == b""
    assert post(it, "git-receive-pack", FLUSH) == b""
    assert it.state() == before


# ---------------------------------------------------------------- random homes


def random_home(path: Path, object_format: str, chance: random.Random) -> Home:
    """Agents with histories that go back and forth, with files of all kinds."""
    home = make_home(path, object_format, chunks__threshold="64KiB", packs__seal_at="256KiB", views__keep="2")
    for name in ("one", "two")[: chance.randrange(1, 3)]:
        agent = home.new(name)
        held = {f"src/f{number}.py": chance.randbytes(40) for number in range(chance.randrange(1, 8))}
        for _ in range(chance.randrange(1, 7)):
            held[f"d{chance.randrange(3)}/f{chance.randrange(9)}"] = chance.randbytes(chance.randrange(300))
            if chance.random() < 0.3:
                held["large.bin"] = STATE[: chance.randrange(60_000, 150_000)] + chance.randbytes(100)
            if chance.random() < 0.2 and len(held) > 1:
                del held[chance.choice(sorted(held))]
            write(agent.workspace, held)
            if chance.random() < 0.3:
                (agent.workspace / "run.sh").write_bytes(b"#!/bin/sh\n")
                (agent.workspace / "run.sh").chmod(0o755)
            if chance.random() < 0.2:
                (agent.workspace / "link").symlink_to("src")
            agent.commit(
                bump=chance.choice(["patch", "minor", "major"]),
                notes=chance.choice(["", "ä ö\n\nmore", "x" * 200]),
                allow_empty=True,
            )
            if chance.random() < 0.3:
                agent.rollback(f"v{chance.choice(agent.versions()).version}", reason="random")
    return home


def check_random_home(path: Path, object_format: str, chance: random.Random) -> None:
    home = random_home(path / "home", object_format, chance)
    names = home.agents()
    with served(home.agent(names[0]).repository.home) as site:
        for name in ("_home", *names):
            git(*CHECKED, "clone", "-q", "--no-checkout", site.url(name), path / name)
            clone = sound(path / name)
            for agent in names if name == "_home" else [name]:
                prefix = f"{agent}/" if name == "_home" else ""
                told = dict(
                    text.split()
                    for text in git(
                        "for-each-ref", "--format=%(refname:short) %(*objectname)", "refs/tags", at=clone
                    ).splitlines()
                )
                assert {
                    f"{prefix}v{found.version}": found.commit for found in home.agent(agent).versions()
                }.items() <= told.items()
    home.close()


@pytest.mark.parametrize("number", range(10))
def test_git_finds_nothing_wrong_with_random_homes(number: int, tmp_path: Path) -> None:
    check_random_home(tmp_path, ["sha256", "sha1"][number % 2], random.Random(number))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10, 200))
def test_git_finds_nothing_wrong_with_more_random_homes(number: int, tmp_path: Path) -> None:
    check_random_home(tmp_path, ["sha256", "sha1"][number % 2], random.Random(number))
