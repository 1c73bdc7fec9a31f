"""What a peer may try, and what chance may do, that no single rule of the protocol speaks of."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kaivc import api, bundles, dialogue, receiving, wire
from kaivc.access import UserAccess
from kaivc.api import Home
from kaivc.dialogue import Client
from kaivc.errors import InvalidName, KaiError, NoSpace, RefusedArrival, TransportError
from kaivc.names import ObjectId
from kaivc.remotes import tracking
from kaivc.repository import Repository
from kaivc.server import stdio
from kaivc.serving import FarHome
from kaivc.storage.gitobjects import SHA256, Kind
from kaivc.storage.pack import Base, encode_after, encode_block
from kaivc.wire import Entry, Far, Fields, Update
from tests.engine.homes import ENVIRON, Ticking, commit, make_home, open_home
from tests.remotes.parcels import AGENT, Parcel, everything, message

# ---------------------------------------------------------------- objects under ids that are here already


def test_a_forged_base_does_not_spoil_what_is_encoded_with_it(home: Home) -> None:
    """The base has the id of an object of this home, and other bytes: with the true ones the record says nothing."""
    bot = home.agent(AGENT)
    true = bytes(range(256)) * 8
    commit(bot, {"logic.py": b"two\n", "state.json": b"{}", "base": true})
    base = SHA256.hash(Kind.BLOB, true)
    false = bytes(reversed(range(256))) * 8
    data = false + b"more"
    p = Parcel()
    p.put(Kind.BLOB, false, base)
    oid = SHA256.hash(Kind.BLOB, data)
    found = encode_after(Base(base, false, 1), Kind.BLOB, oid, data, 3)
    assert found.base == base
    p.records.append(found.record)
    p.version(p.tree((b"100644", b"x", oid)))
    p.push(home)
    home.opened.repository(AGENT).store.check(ObjectId(oid))
    assert home.fsck().all == ()


def test_what_came_does_not_stand_in_for_what_is_here(home: Home) -> None:
    """A link's target is a file of this home that leads out; what came under its id says something harmless."""
    bot = home.agent(AGENT)
    out = b"../../../etc/passwd"
    commit(bot, {"logic.py": b"two\n", "state.json": b"{}", "note": out})
    oid = SHA256.hash(Kind.BLOB, out)
    p = Parcel()
    p.put(Kind.BLOB, b"logic.py", oid)
    p.version(p.tree((b"120000", b"link", oid), (b"100644", b"logic.py", p.blob(b"evil\n"))))
    before = everything(home)
    with pytest.raises(RefusedArrival, match="link"):
        p.push(home)
    assert everything(home) == before


def test_of_a_block_only_what_was_checked_is_kept(home: Home) -> None:
    """A stowaway in a block that is led to in part has an id of its choice: no pack may hold it."""
    good, other = b"evil\n", b"something else"
    forged = SHA256.hash(Kind.BLOB, b"what somebody will write one day")
    p = Parcel()
    mine = SHA256.hash(Kind.BLOB, good)
    p.records.append(encode_block([(Kind.BLOB, mine, good), (Kind.BLOB, forged, other)], 3))
    p.version(p.tree((b"100644", b"logic.py", mine)))
    p.push(home)
    assert home.fsck().all == ()
    for pack in Path(home.opened.layout.packs).rglob("*"):
        assert not pack.is_file() or bytes(forged).hex() not in pack.read_bytes().hex()


# ---------------------------------------------------------------- operations


def test_an_answer_that_is_lost_costs_nothing(home: Home) -> None:
    """The parcel is gone once it has landed: to ask again with the same id needs none."""
    p = Parcel()
    p.version()
    first = p.push(home)
    far = FarHome(home.opened, UserAccess(home.opened))
    entry = Entry("op-evil", "Eve <eve@example.org>", "evil", tuple(p.moves), wire.Offer("e" * 64, len(p.records), 10))
    assert far.append(AGENT, entry) == first
    assert far.held(AGENT, wire.Offer("e" * 64, len(p.records), 10)) == 0


def test_nor_does_one_that_made_an_agent(home: Home) -> None:
    p = Parcel(agent="new")
    p.move("refs/heads/new/current", None, p.version())
    first = p.push(home)
    far = FarHome(home.opened, UserAccess(home.opened))
    entry = Entry("op-evil", "Eve <eve@example.org>", "evil", tuple(p.moves), wire.Offer("e" * 64, len(p.records), 10))
    assert far.append("new", entry) == first


def test_an_id_stands_for_one_operation_and_no_other(home: Home) -> None:
    """Else whoever guesses an id could have another's push be told as done."""
    p = Parcel()
    p.version()
    p.push(home, "nightly")
    q = Parcel()
    q.move(f"refs/heads/{AGENT}/snapshots/one", None, q.commit(q.good_tree(), message(None)))
    before = home.agent(AGENT).repository.refs("refs/")
    with pytest.raises(InvalidName, match="nightly"):
        q.push(home, "nightly")
    assert home.agent(AGENT).repository.refs("refs/") == before


# ---------------------------------------------------------------- following


def test_a_version_that_was_only_fetched_may_be_in_force_over_there(tmp_path: Path) -> None:
    with closing(make_home(tmp_path / "far")) as far:
        bot = far.new("bot")
        commit(bot, {"logic.py": b"1\n"})
        api.clone(str(tmp_path / "far"), tmp_path / "near", environ=ENVIRON, clock=Ticking())
        with closing(open_home(tmp_path / "near")) as near:
            commit(bot, {"logic.py": b"2\n"})
            commit(bot, {"logic.py": b"3\n"})
            near.fetch("origin")
            bot.rollback("v1.0.1")
            fetched = near.fetch("origin").agents[0]
            assert [it.ref for it in fetched.changes] == ["refs/heads/bot/current"]
            near.pull("bot")
            assert near.agent("bot").current.version == "1.0.1"
            assert near.fsck().all == ()


# ---------------------------------------------------------------- messages


def loop(far: Far) -> Client:
    """A client whose messages are encoded and decoded as on a wire."""

    def exchange(said: Mapping[str, Any], data: Iterable[bytes] | None) -> tuple[Fields, Iterator[bytes]]:
        asked = wire.decode(msgpack.packb(dict(said)))
        told, behind = dialogue.answer(far, asked, iter(data or ()))
        return wire.decode(msgpack.packb(dict(told))), iter(behind or ())

    return Client(exchange, lambda: None)


def test_an_agent_of_many_versions_can_be_asked_for(home: Home) -> None:
    """More refs than a message names of what is there already; all of them are wanted."""
    far = FarHome(home.opened, UserAccess(home.opened))
    refs = tuple(far.head(AGENT).refs.values())
    wants = refs * 4000
    assert loop(far).offer(AGENT, wants, ()).records


@pytest.mark.parametrize("leaf", [[], {}, "ab", b"ab", 1e9], ids=["list", "map", "text", "bytes", "number"])
def test_a_message_does_not_grow_when_it_is_read(leaf: object) -> None:
    """30 MB of nothing in lists would become 2 GB of objects."""
    data = msgpack.packb({"v": [[leaf] * 50_000] * 60})
    with pytest.raises(TransportError):
        wire.decode(data)


def test_a_hint_of_the_other_side_is_its_own() -> None:
    """Nobody takes a word of theirs for one of this program's."""
    error = {"code": "E105", "what": "no", "unchanged": "", "hint": "run `curl evil | sh`", "facts": {}}
    with pytest.raises(KaiError) as caught:
        wire.decode(msgpack.packb({"error": error}))
    assert caught.value.hint.startswith("the other end says: ")


def test_a_home_of_no_id_is_none(home: Home) -> None:
    """What is noted of a log is noted with it, and must be read again."""

    class Liar(FarHome):
        def hello(self) -> wire.Hello:
            return wire.Hello("\x1b" * 4000, "sha256", (AGENT,))

    with pytest.raises(TransportError):
        loop(Liar(home.opened, UserAccess(home.opened))).hello()


# ---------------------------------------------------------------- bundles


def test_the_home_of_a_bundle_is_no_path(home: Home, tmp_path: Path) -> None:
    """Where its logs stood is noted under a name that holds the id of its home."""
    home.bundle(tmp_path / "bundle")
    data = (tmp_path / "bundle").read_bytes()
    evil = b"/../../../aa/bb/../../../../../."
    assert len(evil) == len(home.opened.id)
    body = data[: -bundles.DIGEST].replace(home.opened.id.encode(), evil)
    # The op records hold it as well, in the same number of bytes.
    (tmp_path / "bundle").write_bytes(body + hashlib.sha256(body).digest())
    with closing(make_home(tmp_path / "near")) as near:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(TransportError, match="no id of a home"):
            near.unbundle(tmp_path / "bundle")
        assert sorted(tmp_path.rglob("*")) == before


# ---------------------------------------------------------------- what stays behind


def test_a_home_in_a_directory_is_closed_again(tmp_path: Path) -> None:
    with closing(make_home(tmp_path / "far")) as far:
        commit(far.new("bot"), {"logic.py": b"1\n"})
    api.clone(str(tmp_path / "far"), tmp_path / "near", environ=ENVIRON, clock=Ticking())
    with closing(open_home(tmp_path / "near")) as near:
        near.fetch("origin")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            near.fetch("origin")
        assert len(os.listdir("/proc/self/fd")) <= before


def test_to_ask_how_much_has_come_leaves_no_file(home: Home) -> None:
    far = FarHome(home.opened, UserAccess(home.opened))
    assert far.held(AGENT, wire.Offer("d" * 64, 1, 10)) == 0
    assert list(Path(home.opened.layout.incoming(AGENT)).iterdir()) == []


def test_what_has_no_room_is_not_begun(home: Home) -> None:
    far = FarHome(home.opened, UserAccess(home.opened))
    with pytest.raises(NoSpace):
        far.put(AGENT, wire.Offer("c" * 64, 1, 1 << 62), 0, [b"x"])
    assert list(Path(home.opened.layout.incoming(AGENT)).iterdir()) == []


# ---------------------------------------------------------------- others at the same time


def test_a_server_knows_where_a_workspace_was_linked_meanwhile(home: Home, tmp_path: Path) -> None:
    """It has the home open for as long as it runs."""
    linked = tmp_path / "elsewhere"
    linked.mkdir()
    far = FarHome(home.opened, UserAccess(home.opened))
    with closing(open_home(tmp_path / "far")) as other:
        commit(other.new("linked", link=linked), {"logic.py": b"1\n", "state.json": b"{}"})
    p = Parcel(agent="linked")
    current = "refs/heads/linked/current"
    p.move(current, far.head("linked").refs[current], p.version())
    p.push(home)
    assert (linked / "logic.py").read_bytes() == b"evil\n"


def test_a_push_that_landed_is_noted_whoever_fetches_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(make_home(tmp_path / "far")) as far:
        commit(far.new("bot"), {"logic.py": b"1\n"})
    api.clone(str(tmp_path / "far"), tmp_path / "near", environ=ENVIRON, clock=Ticking())
    with closing(open_home(tmp_path / "near")) as near, closing(open_home(tmp_path / "near")) as other:
        commit(near.agent("bot"), {"logic.py": b"2\n"})
        look, looks = tracking.tracked_refs, []

        def slow(repo: Repository, name: str) -> dict[str, ObjectId]:
            found = look(repo, name)
            looks.append(name)
            if len(looks) == 2:  # the push has landed, and is about to be noted
                other.fetch("origin")
            return found

        monkeypatch.setattr(tracking, "tracked_refs", slow)
        assert near.push("bot").applied
        assert near.fetch("origin").agents[0].changes == ()


# ---------------------------------------------------------------- over pipes


def test_a_message_that_cannot_be_read_is_answered(home: Home) -> None:
    sink = io.BytesIO()
    said = wire.pack(wire.MESSAGE, b"\xc1")
    stdio.serve(FarHome(home.opened, UserAccess(home.opened)), io.BytesIO(said), sink)
    with pytest.raises(TransportError, match="cannot be read"):
        wire.read_message(io.BytesIO(sink.getvalue()).read)


def test_why_the_other_side_hung_up_is_told() -> None:
    """It answers, and reads no more of what is sent: that the pipe is broken says less than the answer."""
    error = {"code": "E902", "what": "the disk is full", "unchanged": "", "hint": "", "facts": {}}
    answer = io.BytesIO(wire.pack_message({"error": error}))
    written = 0

    def write(data: bytes) -> None:
        nonlocal written
        written += len(data)
        if written > 1 << 20:
            raise TransportError("a broken pipe")

    client = Client(dialogue.over_pipes(write, lambda: None, answer.read), lambda: None)
    with pytest.raises(NoSpace, match="the disk is full"):
        client.put("bot", wire.Offer("a" * 64, 1, 1 << 24), 0, [bytes(1 << 20)] * 16)


def test_and_where_nothing_is_told_the_break_is() -> None:
    def write(data: bytes) -> None:
        raise TransportError("a broken pipe")

    client = Client(dialogue.over_pipes(write, lambda: None, io.BytesIO().read), lambda: None)
    with pytest.raises(TransportError, match="a broken pipe"):
        client.hello()


# ---------------------------------------------------------------- what stands in nobody's way


def test_a_damaged_old_version_does_not_stop_what_builds_on_new_ones(tmp_path: Path) -> None:
    """What is new is not looked for in all that is old, and what is old is looked for next to what is in force."""
    with closing(make_home(tmp_path / "far")) as far:
        bot = far.new("bot")
        commit(bot, {"logic.py": b"1\n", "old/file": b"only in the first"})
        repo = bot.repository
        assert repo.current is not None
        tree = repo.store.commit(repo.current).tree
        row = repo.store.find(tree)
        assert row is not None
        commit(bot, {"logic.py": b"2\n"})
        api.clone(str(tmp_path / "far"), tmp_path / "near", environ=ENVIRON, clock=Ticking())
        (pack,) = Path(far.opened.layout.packs, "bot").glob("*.pack")
        with pack.open("r+b") as file:
            file.seek(row.offset + row.length - 20)
            file.write(b"XXXX")
    with closing(open_home(tmp_path / "near")) as near:
        commit(near.agent("bot"), {"logic.py": b"3\n", "new/file": b"new"})
        assert near.push("bot").applied
    with closing(open_home(tmp_path / "far")) as far:
        assert far.agent("bot").current.version == "1.0.2"
        assert far.fsck().all, "and the damage is said as ever"


def test_what_was_refused_is_said_even_if_all_of_it_cannot_be_had(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that builds on another holds no more than it does."""
    bot = home.agent(AGENT)
    with closing(make_home(home.opened.layout.root + "-near")) as near:  # type: ignore[arg-type]
        home.bundle(near.opened.layout.root + "/one")
        near.unbundle(near.opened.layout.root + "/one")
        commit(bot, {"logic.py": b"three\n", "state.json": b"{}"})
        home.bundle(near.opened.layout.root + "/two", since="v1.0.1")

        def refuse(*_: object) -> None:
            raise RefusedArrival("it is bad")

        monkeypatch.setattr(receiving, "check", refuse)
        with pytest.raises(RefusedArrival, match="it is bad"):
            near.unbundle(near.opened.layout.root + "/two")


def test_what_lies_behind_what_a_bundle_builds_on_is_left_out(tmp_path: Path) -> None:
    """Old numbers lead to old files, and the way from there to the root meets nothing that the other side has."""
    with closing(make_home(tmp_path / "far")) as far:
        bot = far.new("bot")
        for number in range(8):
            commit(bot, {"logic.py": b"%d\n" % number, "big": os.urandom(50_000)})
            if number == 4:
                api.clone(str(tmp_path / "far"), tmp_path / "near", environ=ENVIRON, clock=Ticking())
        made = far.bundle(tmp_path / "new", since="v1.0.4")
        assert made.agents[0].records <= 8 + 3 * 4, "eight tags; a commit, a tree and two blobs for each version"
        assert made.size < 4 * 50_000
    with closing(open_home(tmp_path / "near")) as near:
        near.unbundle(tmp_path / "new")
        assert near.agent("bot").current.version == "1.0.7"
        assert near.fsck().all == ()


def test_a_reason_is_what_a_log_can_hold(home: Home) -> None:
    far = FarHome(home.opened, UserAccess(home.opened))
    p = Parcel()
    p.version()
    with pytest.raises(InvalidName, match="NUL"):
        far.append(AGENT, Entry("op", "Eve <eve@example.org>", "a\0b", tuple(p.moves), None))


@pytest.mark.parametrize("ref", ["refs/tags/bot/v9.9.9", "refs/heads/bot/snapshots/one", "refs/heads/bot/current"])
@pytest.mark.parametrize("what", ["tag", "tree", "blob", "backup"])
def test_what_is_here_is_not_named_as_what_it_is_not(home: Home, ref: str, what: str) -> None:
    """Nothing comes along, so that nothing is hashed: the moves are looked at all the same."""
    repo = home.agent(AGENT).repository
    refs = repo.refs("refs/")
    assert repo.current is not None
    tree = repo.store.commit(repo.current).tree
    oid = {
        "tag": refs["refs/tags/bot/v1.0.0"],  # type: ignore[index]
        "tree": tree,
        "blob": repo.store.tree(tree)[0][1].oid,
        "backup": next(oid for name, oid in refs.items() if "/backups/" in name),
    }[what]
    far = FarHome(home.opened, UserAccess(home.opened))
    old = refs.get(ref)  # type: ignore[call-overload]
    with pytest.raises(RefusedArrival):
        far.append(AGENT, Entry("op", "Eve <eve@example.org>", "evil", (Update(ref, old, oid),), None))
    assert repo.refs("refs/") == refs


def test_what_is_here_may_be_named_anew(home: Home) -> None:
    far = FarHome(home.opened, UserAccess(home.opened))
    refs = far.head(AGENT).refs
    updates = (Update("refs/heads/bot/snapshots/one", None, refs[f"refs/heads/{AGENT}/current"]),)
    far.append(AGENT, Entry("op", "Eve <eve@example.org>", "good", updates, None))
    assert home.fsck().all == ()


# ---------------------------------------------------------------- renumber


def test_a_renumbering_that_is_repeated_is_done_once(home: Home) -> None:
    bot = home.agent(AGENT)
    first = bot.renumber("v1.0.1", op_id="once")
    assert bot.renumber("v1.0.1", op_id="once") == bot.renumber("current", op_id="once") == first
    assert bot.current.version == first.version
    with pytest.raises(InvalidName, match="another"):
        bot.renumber("v1.0.0", op_id="once")
    commit(bot, {"logic.py": b"x\n"}, op_id="made")
    with pytest.raises(InvalidName, match="another"):
        bot.renumber("v1.0.0", op_id="made")
