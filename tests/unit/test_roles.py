"""Roles over patterns, tokens, and the file that holds them."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc import access
from kaivc.access import Rules, Token
from kaivc.errors import InvalidName, InvalidSettings, NameTaken, NoSuchAgent, PermissionDenied
from kaivc.names import is_name
from kaivc.roles import Act, Grant, Powers, Role, check_pattern, covers, read_role, who_may
from tests.engine.homes import make_home, open_home

# By hand: the least role for each act.
LEAST = {
    "read": "viewer",
    "snapshot": "tester",
    "current": "operator",
    "version": "maintainer",
    "create": "maintainer",
    "maintain": "maintainer",
    "grant": "admin",
}

# ---------------------------------------------------------------- roles


def test_each_act_has_its_least_role_and_each_role_what_those_before_it_may() -> None:
    assert {str(act): str(who_may(act)) for act in Act} == LEAST
    order = ["viewer", "tester", "operator", "maintainer", "admin"]
    for act, least in LEAST.items():
        for rank, role in enumerate(order):
            assert Grant(Role(role), ("*",)).may(act, "bot") == (rank >= order.index(least)), (role, act)


def test_nobody_may_anything_unless_it_was_granted() -> None:
    assert not any(Powers().may(act, "bot") for act in Act)
    with pytest.raises(NoSuchAgent):
        Powers().require("x", "bot", frozenset(["version"]))
    some = Powers((Grant(Role.ADMIN, ("other",)), Grant(Role.VIEWER, ("b?t",))))
    assert [some.may(act, "bot") for act in Act] == [True] + [False] * 6
    with pytest.raises(
        PermissionDenied, match=r"may not make versions of bot: roles that may are maintainer and admin"
    ):
        some.require("x", "bot", frozenset(["snapshot", "version"]))
    with pytest.raises(PermissionDenied, match="may push nothing"):
        some.require("x", "bot", frozenset())


LETTERS = st.text("ab.-", min_size=1, max_size=8)
PATTERNS = st.text("ab.-*?", min_size=1, max_size=8)


@given(PATTERNS, LETTERS)
def test_a_pattern_fits_the_whole_name(pattern: str, name: str) -> None:
    assert covers(pattern, name) == fnmatch.fnmatchcase(name, pattern)


@given(PATTERNS, PATTERNS, LETTERS)
def test_what_a_pattern_covers_fits_it(wide: str, narrow: str, name: str) -> None:
    if covers(wide, narrow) and covers(narrow, name):
        assert covers(wide, name)


def test_hostile_patterns_cost_nothing() -> None:
    assert not covers("*a" * 31, "a" * 30 + "b" * 33)


@pytest.mark.parametrize("bad", ["", "A*", "a/b", "[ab]", "a b", "../x", "x" * 64, "-x", "a\n", "é"])
def test_what_is_no_pattern(bad: str) -> None:
    with pytest.raises(InvalidName):
        check_pattern(bad)


def test_a_role_that_is_none_has_a_nearest_one() -> None:
    with pytest.raises(InvalidName) as caught:
        read_role("maintener")
    assert caught.value.hint == "did you mean maintainer?"


# ---------------------------------------------------------------- tokens


def token(secret: str, name: str = "ci", expires_ns: int | None = None) -> Token:
    grant = Grant(Role.VIEWER, ("*",))
    return Token(
        name.encode().hex()[:12].ljust(12, "0"), name, access.digest_of(secret), "A <a@b>", grant, 1, expires_ns
    )


def test_a_token_is_256_random_bits() -> None:
    found = {access.new_secret() for _ in range(100)}
    assert len(found) == 100
    assert all(re.fullmatch(r"kai_[A-Za-z0-9_-]{43}", it) and access.is_token(it) for it in found)


def test_a_token_is_found_by_its_text_alone_until_its_time_is_over() -> None:
    secret = access.new_secret()
    rules = Rules((token("other", "b"), token(secret, expires_ns=100), token("third", "c")))
    found = rules.token(secret, 99)
    assert found is not None
    assert found.name == "ci"
    assert rules.token(secret, 100) is None
    for wrong in ("", secret[:-1], secret + "x", found.digest, found.id, "\udcff\x00"):
        assert rules.token(wrong, 0) is None


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    rules = Rules(tuple(token(str(n), f"t{n}") for n in range(5)))
    for text in ("0", "4", "none"):
        compared.clear()
        rules.token(text, 0)
        assert len(compared) == 5, "the place of the right one does not show"


def test_a_token_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    made = home.token_add("ci", "tester", ["a*", "b"], expires=60, actor="Ci <ci@example.org>")
    file = tmp_path / "home/.kai/access.json"
    document = json.loads(file.read_text())
    assert document["tokens"][0]["sha256"] == hashlib.sha256(made.secret.encode()).hexdigest()
    assert file.stat().st_mode & 0o777 == 0o600
    for path in (tmp_path / "home").rglob("*"):
        assert not path.is_file() or made.secret.encode() not in path.read_bytes(), path
    assert made.secret not in repr(home.tokens())
    with pytest.raises(NameTaken):
        home.token_add("ci", "viewer")
    with pytest.raises(InvalidName) as caught:
        home.token_revoke(made.secret)
    assert made.secret not in caught.value.what + caught.value.hint + str(caught.value.facts)
    assert home.token_revoke("ci").id == made.token.id
    assert home.tokens() == ()
    home.close()


@given(st.binary(max_size=300))
def test_a_file_that_is_not_ours_lets_nobody_do_anything(data: bytes) -> None:
    with pytest.raises(InvalidSettings):
        access.decode(data, "access.json")


GOOD = access.encode(Rules((token("x"),), (access.User(7, "ann", Grant(Role.ADMIN, ("a*",))),)))


def test_what_is_written_is_read_again() -> None:
    assert access.encode(access.decode(GOOD, "x")) == GOOD


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 2'),
        ('"viewer"', '"king"'),
        ('"*"', '"[a"'),
        ('"ci"', '"../ci"'),
        ('"expires_ns": null', '"expires_ns": "soon"'),
        ('"expires_ns": null', '"expires_ns": -1'),
        ('"uid": 7', '"uid": true'),
        ('"uid": 7', '"uid": null'),
        ('"A <a@b>"', '"nobody"'),
        ('"name": "ann"', '"name": "a\\u001b"'),
        ('"a*"', ""),
    ],
)
def test_a_damaged_file_is_refused(old: str, new: str) -> None:
    text = GOOD.decode()
    assert old in text
    with pytest.raises(InvalidSettings) as caught:
        access.decode(text.replace(old, new, 1).encode(), ".kai/access.json")
    assert "nobody may anything" in caught.value.unchanged


def test_two_that_change_it_at_once_both_count(tmp_path: Path) -> None:
    make_home(tmp_path / "home").close()
    children = []
    for number in range(6):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                home = open_home(tmp_path / "home")
                for more in range(3):
                    home.token_add(f"t{number}-{more}", "viewer")
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
    home = open_home(tmp_path / "home")
    assert len(home.tokens()) == 18
    home.close()


def test_every_name_of_an_agent_is_a_pattern_that_fits_itself_alone() -> None:
    for name in ("a", "0", "a.b_c-d", "x" * 63):
        assert is_name(name)
        assert covers(check_pattern(name), name)
        assert not covers(name, name + "x")
