"""Every question x role x agent, allowed and denied, against a table that was written by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kaivc import access
from kaivc.access import TokenAccess
from kaivc.errors import NameTaken
from kaivc.records import replace
from kaivc.roles import Role
from kaivc.serving import FarHome
from kaivc.wire import Entry, Offer, Update
from tests.engine.homes import commit, make_home
from tests.server.daemon import Answer, Daemon, ask, daemon

ROLES = ("viewer", "tester", "operator", "maintainer", "admin")

# What comes of each question about an agent that is there and within the token's pattern.
# yes: it is answered; past: the guard lets it by, and what is asked makes no sense and is refused for that alone;
# no: E105. Columns as ROLES.
TABLE = """
    hello            yes   yes   yes   yes   yes
    head             yes   yes   yes   yes   yes
    log              yes   yes   yes   yes   yes
    offer            yes   yes   yes   yes   yes
    get              yes   yes   yes   yes   yes
    held             no    yes   yes   yes   yes
    put              no    yes   yes   yes   yes
    add_snapshot     no    past  past  past  past
    drop_snapshot    no    past  past  past  past
    add_backup       no    no    no    no    no
    move_current     no    no    past  past  past
    add_version      no    no    no    past  past
    both             no    no    no    past  past
    delete_version   no    no    no    no    no
    delete_current   no    no    no    no    no
    foreign_ref      no    no    no    no    no
"""

# The same about an agent that is not there, and that the token's pattern would allow. gone: E302.
ABSENT = """
    head             gone  gone  gone  gone  gone
    log              gone  gone  gone  gone  gone
    offer            gone  gone  gone  gone  gone
    get              gone  gone  gone  gone  gone
    held             no    no    no    yes   yes
    put              no    no    no    yes   yes
    add_snapshot     no    gone  gone  gone  gone
    move_current     no    no    gone  gone  gone
    add_version      no    no    no    gone  gone
    create           no    no    no    past  past
    create_snapshot  no    no    no    past  past
"""


def rows(table: str) -> list[tuple[str, str, str]]:
    """(question, role, what comes of it)."""
    lines = [line.split() for line in table.strip().splitlines()]
    return [(line[0], role, cell) for line in lines for role, cell in zip(ROLES, line[1:], strict=True)]


NOWHERE = b"\x01" * 32


@dataclass
class Place:
    """A server with agents mine-bot and other-bot, and a token of each role over mine-*."""

    server: Daemon
    home: Path
    tokens: dict[str, str]
    heads: dict[str, bytes]

    def ask(self, token: str | None, question: str, agent: str) -> Answer:
        """Put one of the table's questions."""
        head = self.heads.get(agent, self.heads["mine-bot"])
        parcel = {"id": "ab" * 32, "records": 1, "size": 10}
        port = self.server.port
        whole: dict[str, Any] = {"wants": [head], "haves": []}
        questions: dict[str, dict[str, Any]] = {
            "hello": {},
            "head": {"agent": agent},
            "log": {"agent": agent, "after": 0},
            "offer": {"agent": agent, **whole},
            "get": {"agent": agent, **whole, "start": 0},
            "held": {"agent": agent, "parcel": {**parcel, "id": "cd" * 32}},
            "put": {"agent": agent, "start": 0, "data": b"KAIPACK?"},
        }
        if question == "get":
            mine: dict[str, Any] = {"wants": [self.heads["mine-bot"]], "haves": []}
            questions["get"]["offer"] = ask(port, self.tokens["admin"], "offer", agent="mine-bot", **mine).message
        if question == "put":
            questions["put"]["parcel"] = {**parcel, "id": time.time_ns().to_bytes(32, "big").hex()}
        if question in questions:
            return ask(port, token, question, **questions[question])
        entry: dict[str, Any] = {"op_id": f"t{time.time_ns()}", "actor": "Eve <eve@example.org>", "reason": "r"}
        moves = {
            "add_snapshot": [[f"refs/heads/{agent}/snapshots/one", None, NOWHERE]],
            "drop_snapshot": [[f"refs/heads/{agent}/snapshots/one", NOWHERE, None]],
            "add_backup": [[f"refs/heads/{agent}/backups/9", None, NOWHERE]],
            "move_current": [[f"refs/heads/{agent}/current", NOWHERE, head]],
            "add_version": [[f"refs/tags/{agent}/v9.9.9", None, NOWHERE]],
            "both": [[f"refs/heads/{agent}/current", NOWHERE, head], [f"refs/tags/{agent}/v9.9.9", None, NOWHERE]],
            "delete_version": [[f"refs/tags/{agent}/v1.0.0", head, None]],
            "delete_current": [[f"refs/heads/{agent}/current", head, None]],
            "foreign_ref": [["refs/heads/other-bot/current", None, NOWHERE]],
            "create": [[f"refs/heads/{agent}/current", None, NOWHERE], [f"refs/tags/{agent}/v1.0.0", None, NOWHERE]],
            "create_snapshot": [[f"refs/heads/{agent}/snapshots/one", None, NOWHERE]],
        }[question]
        brought = {**parcel, "id": "ef" * 32} if question.startswith("create") else None
        return ask(port, token, "append", agent=agent, updates=moves, parcel=brought, **entry)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    tmp = tmp_path_factory.mktemp("cells")
    home = make_home(tmp / "home")
    for name in ("mine-bot", "other-bot"):
        commit(home.new(name), {"logic.py": name.encode()})
    tokens = {role: home.token_add(f"t-{role}", role, ["mine-*"]).secret for role in ROLES}
    over = home.token_add("expired", "admin", expires=1)
    access.change(
        home.opened,
        lambda rules: access.with_token(access.without_token(rules, over.token), replace(over.token, expires_ns=1)),
    )
    tokens["expired"] = over.secret
    gone = home.token_add("revoked", "admin")
    home.token_revoke("revoked")
    tokens["revoked"] = gone.secret
    tokens["made up"] = access.new_secret()
    heads = {}
    for name in ("mine-bot", "other-bot"):
        found = home.agent(name).repository.current
        assert found is not None
        heads[name] = bytes(found)
    home.close()
    with daemon(tmp / "home", tmp, "--max-requests", "8") as server:
        yield Place(server, tmp / "home", tokens, heads)


def judged(answer: Answer) -> str:
    """What came of it, in the table's words."""
    if answer.status == 200:
        assert answer.code is None
        return "yes"
    if answer.code == "E105":
        assert answer.status == 403
        return "no"
    if answer.code == "E302":
        assert answer.status == 404
        return "gone"
    assert answer.status in (409, 422), (answer.status, answer.message)
    return "past"


def test_the_tables_name_every_role() -> None:
    assert list(ROLES) == list(Role)


@pytest.mark.parametrize(("question", "role", "cell"), rows(TABLE))
def test_an_agent_that_is_there(place: Place, question: str, role: str, cell: str) -> None:
    assert judged(place.ask(place.tokens[role], question, "mine-bot")) == cell


@pytest.mark.parametrize(("question", "role", "cell"), rows(ABSENT))
def test_an_agent_that_is_not_there(place: Place, question: str, role: str, cell: str) -> None:
    assert judged(place.ask(place.tokens[role], question, "mine-absent")) == cell


QUESTIONS = [question for question, role, _ in rows(TABLE) if role == "viewer" and question != "hello"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("question", [*QUESTIONS, "create"])
def test_an_agent_beyond_the_pattern_is_as_good_as_absent(place: Place, question: str, role: str) -> None:
    there = place.ask(place.tokens[role], question, "other-bot")
    absent = place.ask(place.tokens[role], question, "nobody-at")
    assert judged(there) == judged(absent) == "gone"
    assert there.raw.replace(b"other-bot", b"nobody-at") == absent.raw  # names of one length: byte for byte
    shown = {key: value for key, value in there.headers.items() if key != "date"}
    assert shown == {key: value for key, value in absent.headers.items() if key != "date"}


@pytest.mark.parametrize("question", ["hello", *QUESTIONS, "create"])
@pytest.mark.parametrize("who", [None, "expired", "revoked", "made up"])
def test_without_a_token_that_holds_there_is_one_answer(place: Place, question: str, who: str | None) -> None:
    answers = [place.ask(who and place.tokens[who], question, agent) for agent in ("mine-bot", "absent")]
    for answer in answers:
        assert answer.status == 401 or (who and answer.status == 429)
        assert answer.code == "E407"
    wrong = {place.ask(place.tokens[it], question, "mine-bot").raw for it in ("expired", "revoked", "made up")}
    assert len(wrong) == 1, "which of them it is, nobody is told"


def test_the_list_of_agents_holds_those_that_may_be_read(place: Place) -> None:
    for role in ROLES:
        assert place.ask(place.tokens[role], "hello", "").message["agents"] == ["mine-bot"]


def test_objects_of_another_agent_can_not_be_had_through_ones_own(place: Place) -> None:
    admin, port = place.tokens["admin"], place.server.port
    foreign = place.heads["other-bot"]
    asked = ask(port, admin, "offer", agent="mine-bot", wants=[foreign], haves=[])
    unknown = ask(port, admin, "offer", agent="mine-bot", wants=[NOWHERE], haves=[])
    assert asked.code == unknown.code == "E202"
    assert asked.raw.replace(foreign.hex().encode(), NOWHERE.hex().encode()) == unknown.raw
    whole = ask(port, admin, "offer", agent="mine-bot", wants=[place.heads["mine-bot"]], haves=[])
    had = ask(port, admin, "offer", agent="mine-bot", wants=[place.heads["mine-bot"]], haves=[foreign])
    assert had.message["records"] == whole.message["records"], "having another's object makes no difference"
    named = ask(
        port,
        admin,
        "append",
        agent="mine-bot",
        op_id="steal",
        actor="Eve <eve@example.org>",
        reason="r",
        updates=[["refs/heads/mine-bot/snapshots/stolen", None, foreign]],
        parcel=None,
    )
    assert named.code == "E405"


def test_what_an_agent_is_called_now_is_not_told_to_who_may_not_read_it(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    commit(home.new("mine-bot"), {"logic.py": b"1"})
    home.rename("mine-bot", "hush")
    moves = (Update("refs/heads/mine-bot/current", None, NOWHERE),)
    entry = Entry("again", "Eve <eve@example.org>", "r", moves, Offer("ab" * 32, 1, 10))
    for pattern, is_told in (("mine-*", False), ("*", True)):
        token = home.token_add(f"t{len(pattern)}", "maintainer", [pattern]).token
        with pytest.raises(NameTaken) as caught:
            FarHome(home.opened, TokenAccess(token, lambda _: True)).append("mine-bot", entry)
        assert ("hush" in f"{caught.value.what} {caught.value.hint} {caught.value.facts}") is is_told
    home.close()


def test_another_token_knows_nothing_of_what_one_has_sent(place: Place) -> None:
    parcel = {"id": "9f" * 32, "records": 1, "size": 100}
    ask(place.server.port, place.tokens["tester"], "put", agent="mine-bot", parcel=parcel, start=0, data=b"x" * 50)
    held = {
        role: ask(place.server.port, place.tokens[role], "held", agent="mine-bot", parcel=parcel) for role in ROLES[1:]
    }
    assert {role: it.message["held"] for role, it in held.items()} == {
        "tester": 50,
        "operator": 0,
        "maintainer": 0,
        "admin": 0,
    }
