"""Roles of users of this machine: each verb asks for one, as a second uid finds out; and they cannot lock all out."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kaivc import wire
from kaivc.access import UserAccess
from kaivc.api import Home
from kaivc.errors import InvalidName, KaiError, NoSuchAgent, PermissionDenied
from kaivc.roles import Role
from tests.conftest import Ids, run_as
from tests.engine.homes import commit, make_home, open_home

# By hand: the least role of each verb; none is asked for by what only reads.
LEAST = {
    "status": None,
    "log": None,
    "verify": None,
    "fsck": None,
    "audit": None,
    "cat": None,
    "diff": None,
    "rollback --dry-run": None,
    "gc --dry-run": None,
    "snapshot --test": "tester",
    "snapshot drop": "tester",
    "rollback": "operator",
    "undo": "operator",
    "redo": "operator",
    "restore": "operator",
    "run": "operator",
    "fetch": "operator",
    "pull": "operator",
    "unbundle": "operator",
    "commit": "maintainer",
    "snapshot promote": "maintainer",
    "renumber": "maintainer",
    "new": "maintainer",
    "import": "maintainer",
    "agent rename": "maintainer",
    "agent remove": "maintainer",
    "agent link": "maintainer",
    "gc": "maintainer",
    "fsck --repair": "maintainer",
    "remote add": "maintainer",
    "remote remove": "maintainer",
    "remote rename": "maintainer",
    "token add": "admin",
    "token revoke": "admin",
    "role grant": "admin",
    "role revoke": "admin",
}

SCRIPT = """if True:
    import json, sys
    import kaivc
    from kaivc.errors import KaiError
    path, name = sys.argv[1:]
    home = kaivc.open(path)
    agent = home.agent(name)
    calls = {
        "status": agent.status,
        "log": agent.log,
        "verify": agent.verify,
        "fsck": lambda: home.fsck(name),
        "audit": agent.audit,
        "cat": lambda: agent.cat("logic.py"),
        "diff": agent.diff,
        "rollback --dry-run": lambda: agent.rollback("v1.0.0", dry_run=True),
        "gc --dry-run": lambda: agent.gc(dry_run=True),
        "snapshot --test": lambda: agent.snapshot_test("v9.9.9", "true"),
        "snapshot drop": lambda: agent.snapshot_drop("none"),
        "rollback": lambda: agent.rollback("v1.0.0"),
        "undo": agent.undo,
        "redo": agent.redo,
        "restore": agent.restore,
        "run": lambda: agent.run("true"),
        "fetch": lambda: home.fetch("none", [name]),
        "pull": lambda: home.pull(name, "none"),
        "unbundle": lambda: home.unbundle("/nonexistent", [name]),
        "commit": lambda: agent.commit(allow_empty=True),
        "snapshot promote": lambda: agent.snapshot_promote("none"),
        "renumber": lambda: agent.renumber("v9.9.9"),
        "new": lambda: home.new(name + "-new"),
        "import": lambda: home.import_("/nonexistent", name=name + "-imported"),
        "agent rename": lambda: home.rename(name + "-absent", name + "-too"),
        "agent remove": lambda: home.remove(name + "-absent"),
        "agent link": lambda: home.link(name, "/nonexistent"),
        "gc": agent.gc,
        "fsck --repair": lambda: home.fsck(name, repair=True),
        "remote add": lambda: home.remote_add("far", "/nonexistent"),
        "remote remove": lambda: home.remote_remove("none"),
        "remote rename": lambda: home.remote_rename("none", "other"),
        "token add": lambda: home.token_add("mine", "viewer", [name]),
        "token revoke": lambda: home.token_revoke("given"),
        "role grant": lambda: home.role_grant("4321", "viewer", [name]),
        "role revoke": lambda: home.role_revoke("9999"),
    }
    found = {}
    for verb, call in calls.items():
        try:
            call()
            found[verb] = "ok"
        except KaiError as error:
            found[verb] = error.code
    print(json.dumps(found))
"""


@pytest.fixture
def shared(public_tmp: Path, other_uid: Ids) -> Path:
    """A home that the other uid owns, so that the disk lets it do all; its roles are not granted yet."""
    home = make_home(public_tmp / "home")
    for name in ("bot", "other"):
        commit(home.new(name), {"logic.py": b"1"}, version="1.0.0")
        commit(home.agent(name), {"logic.py": b"2"}, version="2.0.0")
    home.token_add("given", "viewer", ["bot"])
    home.close()
    subprocess.run(["chown", "-R", f"{other_uid.uid}:{other_uid.gid}", public_tmp / "home"], check=True)
    return public_tmp / "home"


def tried(home: Path, agent: str, other: Ids, python: list[str]) -> dict[str, str]:
    """What comes of each verb, as the other uid."""
    done = run_as(
        other, [*python, "-c", SCRIPT, str(home), agent], cwd="/", env={"PATH": os.environ["PATH"], "HOME": "/"}
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    assert found.keys() == LEAST.keys()
    return found


def granted(home: Path, other: Ids, role: str | None, pattern: str) -> None:
    """Let root be admin, and the other uid have a role."""
    opened = open_home(home)
    opened.role_grant("0", "admin")
    if role is not None:
        opened.role_grant(str(other.uid), role, [pattern])
    opened.close()
    os.chown(home / ".kai/access.json", other.uid, other.gid)


WHOLE_HOME = {"remote add", "remote remove", "remote rename", "role revoke"}
"""What asks for the role over all agents."""


@pytest.mark.parametrize("role", [None, *Role])
def test_each_verb_asks_for_its_role(shared: Path, other_uid: Ids, public_python: list[str], role: Role | None) -> None:
    granted(shared, other_uid, role, "*")
    order = [None, *map(str, Role)]
    found = tried(shared, "bot", other_uid, public_python)
    denied = {verb for verb, code in found.items() if code == "E105"}
    assert denied == {verb for verb, least in LEAST.items() if order.index(least) > order.index(role and str(role))}
    lines = [json.loads(line) for line in (shared / ".kai/log").read_text().splitlines()] if denied else []
    noted = [it for it in lines if it["code"] == "E105"]
    assert len(noted) == len(denied)
    assert all(it["uid"] == other_uid.uid for it in noted)


def test_a_role_ends_where_its_pattern_does(shared: Path, other_uid: Ids, public_python: list[str]) -> None:
    granted(shared, other_uid, "admin", "bot*")
    found = tried(shared, "other", other_uid, public_python)
    assert {verb for verb, code in found.items() if code == "E105"} == {
        verb for verb, least in LEAST.items() if least is not None
    } - {"token revoke"}, "the token is one over bot"
    found = tried(shared, "bot", other_uid, public_python)
    assert {verb for verb, code in found.items() if code == "E105"} == WHOLE_HOME


def test_without_rules_the_owner_may_all(shared: Path, other_uid: Ids, public_python: list[str]) -> None:
    found = tried(shared, "bot", other_uid, public_python)
    assert "E105" not in found.values()


def test_the_far_end_of_ssh_asks_too(shared: Path, other_uid: Ids, public_python: list[str]) -> None:
    granted(shared, other_uid, "viewer", "bot")
    parcel = {"id": "aa" * 32, "records": 1, "size": 1}
    asked: list[dict[str, Any]] = [
        {"verb": "hello"},
        {"verb": "head", "agent": "bot"},
        {"verb": "head", "agent": "other"},
        {"verb": "held", "agent": "bot", "parcel": parcel},
        {"verb": "held", "agent": "other", "parcel": parcel},
    ]
    words = [*public_python, "-m", "kaivc", "--home", str(shared), "serve", "--stdio"]
    sent = "".join(wire.pack_message({"v": 1, **it}).decode("latin-1") for it in asked)
    environ = {"PATH": os.environ["PATH"], "HOME": "/"}
    done = run_as(other_uid, words, cwd="/", env=environ, input=sent, encoding="latin-1")
    source = io.BytesIO(done.stdout.encode("latin-1"))
    told: list[Any] = []
    while source.tell() < len(source.getvalue()):
        kind, data = wire.read_frame(source.read)
        if kind == wire.MESSAGE:
            told.append(msgpack.unpackb(data, strict_map_key=False))
    assert told[0]["agents"] == ["bot"]
    assert [it.get("error", {}).get("code") for it in told] == [None, None, "E302", "E105", "E302"]


# ---------------------------------------------------------------- in this process


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = make_home(tmp_path / "home")
    commit(made.new("bot"), {"logic.py": b"1"})
    yield made
    made.close()


def be(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def test_the_first_grant_binds_all_and_leaves_an_admin(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    done = home.role_grant("4321", "tester")
    assert done.kept is not None
    assert (done.kept.uid, done.kept.grant.role) == (os.geteuid(), Role.ADMIN)
    assert home.role_grant("4321", "operator", ["b*"]).kept is None
    assert [(it.uid, str(it.grant.role)) for it in home.roles()] == [
        (os.geteuid(), "admin"),
        (4321, "tester"),
        (4321, "operator"),
    ]
    be(monkeypatch, 4321)
    home.agent("bot").rollback("v1.0.0", dry_run=True)
    with pytest.raises(PermissionDenied) as caught:
        home.agent("bot").commit(allow_empty=True)
    assert "maintainer and admin" in caught.value.what
    assert caught.value.facts["roles"] == "maintainer, admin"
    be(monkeypatch, 5555)
    with pytest.raises(PermissionDenied, match="user 5555 may not"):
        home.agent("bot").rollback("v1.0.0")


def test_the_last_admin_stays_while_others_are_bound(home: Home) -> None:
    home.role_grant("4321", "tester")
    with pytest.raises(PermissionDenied, match="nobody would be left"):
        home.role_revoke(str(os.geteuid()))
    with pytest.raises(InvalidName, match="is no operator here"):
        home.role_revoke("4321", "operator")
    home.role_revoke("4321")
    home.role_revoke(str(os.geteuid()))
    assert home.roles() == ()
    home.agent("bot").commit(allow_empty=True)


def test_nobody_grants_more_than_they_have(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.role_grant("4321", "admin", ["b*"])
    home.token_add("all", "viewer")
    be(monkeypatch, 4321)
    home.token_add("own", "admin", ["bot", "b?x*"])
    home.role_grant("7777", "operator", ["bot"])
    for ask in (
        lambda: home.token_add("more", "viewer"),
        lambda: home.token_add("more", "viewer", ["bot", "c"]),
        lambda: home.token_revoke("all"),
        lambda: home.role_grant("4321", "admin", ["*"]),
        lambda: home.role_revoke("0"),
    ):
        with pytest.raises(PermissionDenied):
            ask()
    assert sorted(it.token.name for it in home.tokens()) == ["all", "own"]


def test_a_grant_takes_nothing_that_who_makes_it_could_not_grant(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grant replaces one of the same role: an admin over some agents must not narrow another's so."""
    home.role_grant("4321", "admin", ["b*"])
    home.role_grant("5000", "admin")
    home.role_grant("6000", "viewer", ["bot"])
    before = home.roles()
    be(monkeypatch, 4321)
    with pytest.raises(PermissionDenied, match="all agents"):
        home.role_grant("5000", "admin", ["bot"])
    assert home.roles() == before
    home.role_grant("6000", "viewer", ["bot", "b-two"])


def test_what_could_not_be_read_again_is_not_written(home: Home) -> None:
    asked: list[Callable[[], object]] = [
        partial(home.role_grant, "000000000001" + "9" * 30, "viewer"),
        partial(home.role_grant, str(2**32 - 1), "viewer"),
        *(partial(home.token_add, "x", "viewer", expires=it) for it in (1e12, float("inf"), float("nan"), -1e12)),
    ]
    for ask in asked:
        with pytest.raises(InvalidName):
            ask()
        assert (home.roles(), home.tokens()) == ((), ())


def test_over_pipes_and_by_path_reading_takes_a_role_too(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    user = UserAccess(home.opened)
    assert user.may_read("bot")
    home.role_grant("4321", "viewer", ["other"])
    be(monkeypatch, 4321)
    user = UserAccess(home.opened)
    assert not user.may_read("bot")
    for acts in (frozenset[str](), frozenset(["version"])):
        with pytest.raises(NoSuchAgent):
            user.require("bot", acts)
        with pytest.raises(PermissionDenied):
            user.require("other", acts)


def test_a_damaged_file_stops_all_that_writes_and_nothing_that_reads(home: Home) -> None:
    Path(home.opened.layout.access).write_text('{"format": 1, "tokens": [], "users": "everybody"}')
    home.agent("bot").status()
    for ask in (
        lambda: home.agent("bot").commit(allow_empty=True),
        lambda: home.role_grant("0", "admin"),
        lambda: home.token_add("x", "admin"),
    ):
        with pytest.raises(KaiError) as caught:
            ask()
        assert caught.value.code == "E306"
