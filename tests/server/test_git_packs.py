"""Packs of git's that arrive: what an honest one holds is what the parcel holds; any other leaves nothing."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc import gitarrival, gitpacks, incoming, landing
from kaivc.api import Agent
from kaivc.errors import RefusedArrival, TooLarge
from kaivc.gitarrival import Limits
from kaivc.incoming import Incoming, Lent
from kaivc.names import ObjectId
from kaivc.storage.gitobjects import FORMATS, Kind
from kaivc.storage.gitpack import BadPack, Delta, PackStream, WholeBase
from kaivc.storage.pack import RecordKind
from tests.conftest import ROOT
from tests.engine.homes import ENVIRON, commit, make_home
from tests.server import packs
from tests.server.packs import BLOB, COMMIT, TREE, copy, delta, entry, insert, ofs_delta, oid, pack, ref_delta

NOISE = random.Random(5).randbytes(300_000)


@pytest.fixture(params=["sha256", "sha1"])
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Agent]:
    home = make_home(tmp_path / "home", request.param, chunks__threshold="64KiB")
    bot = home.new("bot")
    commit(bot, {"a.txt": b"first\n" * 30, "state.bin": NOISE})
    commit(bot, {"a.txt": b"second\n" * 30, "state.bin": NOISE})
    yield bot
    home.close()


def take(agent: Agent, data: bytes, limits: Limits | None = None, piece: int = 1 << 16) -> dict[bytes, bytes]:
    """The git objects of a pack as the parcel of it holds them, by id; all of it is gone after."""
    repo, source = agent.repository, io.BytesIO(data)
    read = lambda count: source.read(min(count, piece))  # noqa: E731
    arriving = Incoming(repo.home, "bot", incoming.unmeasured())
    with arriving:
        try:
            offer = gitarrival.take_pack(
                read, repo, arriving, landing.shown_refs(repo).values(), *([limits] if limits else [])
            )
            if offer is None:
                return {}
            assert offer == arriving.parcel
            assert offer.size == arriving.size
            lent = Lent(repo.store, arriving.path, incoming.rows_of(arriving.path, repo.store, offer.records))
            found = {}
            for key, row in lent.rows.items():
                if row.kind in (RecordKind.BLOB, RecordKind.CHUNK_LIST):
                    lent.check(ObjectId(key))
                    found[key] = b"".join(lent.stream(ObjectId(key)))
                elif row.kind != RecordKind.CHUNK:
                    lent.check(ObjectId(key))
                    found[key] = lent.record(row)
            lent.close()
            arriving.discard()
        finally:
            assert os.listdir(repo.layout.incoming("bot")) == []
    return found


def name(agent: Agent) -> str:
    return agent.repository.home.format.name


# ---------------------------------------------------------------- honest ones


def test_what_our_own_packs_hold_arrives(agent: Agent) -> None:
    repo = agent.repository
    tips = list(landing.shown_refs(repo).values())
    plan = gitpacks.missing(repo, tips, ())
    data = b"".join(gitpacks.write_pack(repo, plan))
    for piece in (1 << 16, 7):
        found = take(agent, data, piece=piece)
        assert found.keys() == {row.id for row in plan.rows}
        assert NOISE in found.values()


def test_an_empty_pack_is_nothing(agent: Agent) -> None:
    assert take(agent, pack([], name(agent))) == {}


def test_deltas_of_what_came_before_after_and_of_what_is_there(agent: Agent) -> None:
    hashed = name(agent)
    base, there = b"0123456789" * 20, b"second\n" * 30
    first = entry(BLOB, base)
    by_offset = ofs_delta(len(first), delta(200, 60, copy(50, 55), insert(b"tail!")))
    made = base[50:105] + b"tail!"
    chained = ref_delta(oid(BLOB, made, hashed), delta(60, 10, copy(0, 10)))
    thin = ref_delta(oid(BLOB, there, hashed), delta(210, 7, copy(7, 7)))
    early = ref_delta(oid(BLOB, b"late" * 30, hashed), delta(120, 8, copy(0, 8)))
    twice = ofs_delta(len(early), delta(8, 9, copy(0, 8), insert(b"!")))
    late = entry(BLOB, b"late" * 30)
    found = take(agent, pack([first, by_offset, chained, thin, early, twice, late], hashed))
    assert sorted(found.values()) == sorted(
        [base, made, made[:10], b"second\n", b"late" * 30, b"latelate", b"latelate!"]
    )


def test_a_large_file_by_deltas_of_large_files(agent: Agent) -> None:
    """One that came whole, one that is there, and one that a delta made; each is cut, and shares its chunks."""
    hashed = name(agent)
    large = random.Random(6).randbytes(400_000)
    whole = entry(BLOB, large)
    edited = large[:200_000] + b"edit" + large[200_000:]
    second = ofs_delta(len(whole), delta(400_000, 400_004, copy(0, 200_000), insert(b"edit"), copy(200_000, 200_000)))
    thin = ref_delta(oid(BLOB, NOISE, hashed), delta(300_000, 300_003, insert(b"new"), copy(0, 300_000)))
    third = ref_delta(oid(BLOB, edited, hashed), delta(400_004, 100_000, copy(150_000, 100_000)))
    found = take(agent, pack([whole, second, thin, third], hashed))
    assert set(found.values()) == {large, edited, b"new" + NOISE, edited[150_000:250_000]}


def test_a_long_chain_stays_small_and_can_be_read(agent: Agent) -> None:
    entries, data = [entry(BLOB, NOISE[:20_000])], NOISE[:20_000]
    contents = {data}
    for number in range(200):
        more = b"%04d" % number
        entries.append(ofs_delta(len(entries[-1]), delta(len(data), len(data) + 4, insert(more), copy(0, len(data)))))
        data = more + data
        contents.add(data)
    repo = agent.repository
    arriving = Incoming(repo.home, "bot", incoming.unmeasured())
    with arriving:
        offer = gitarrival.take_pack(io.BytesIO(pack(entries, name(agent))).read, repo, arriving, ())
        arriving.discard()
    assert offer is not None
    assert offer.size < 120_000
    assert set(take(agent, pack(entries, name(agent))).values()) == contents


def test_what_git_packs_arrives_whole(agent: Agent, tmp_path: Path) -> None:
    """git's own deltas, by offset and by id, of a hundred versions of a file."""
    hashed = name(agent)
    source, chance = tmp_path / "source.git", random.Random(7)
    git = ["git", "-C", str(source)]
    subprocess.run(["git", "init", "-q", "--bare", f"--object-format={hashed}", str(source)], check=True)
    lines, names = [b"line %d\n" % number for number in range(500)], []
    for _ in range(100):
        lines[chance.randrange(500)] = chance.randbytes(9).hex().encode() + b"\n"
        found = subprocess.run(
            [*git, "hash-object", "-w", "--stdin"], input=b"".join(lines), check=True, capture_output=True
        )
        names.append(found.stdout)
    for words in (["--delta-base-offset"], [], ["--depth=4000", "--window=250"]):
        made = subprocess.run(
            [*git, "pack-objects", "-q", "--stdout", *words], input=b"".join(names), check=True, capture_output=True
        )
        assert take(agent, made.stdout).keys() == {bytes.fromhex(it.decode()) for it in names}


# ---------------------------------------------------------------- deltas by themselves

INSTRUCTIONS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=300),
        st.tuples(st.integers(0, 199), st.integers(1, 200)).map(lambda it: (it[0], min(it[1], 200 - it[0]))),
    ),
    max_size=12,
)


@given(base=st.binary(min_size=200, max_size=200), said=INSTRUCTIONS, piece=st.integers(1, 50))
def test_a_delta_makes_what_it_says_whatever_pieces_it_comes_in(base: bytes, said: list, piece: int) -> None:
    made = b"".join(it if isinstance(it, bytes) else base[it[0] : it[0] + it[1]] for it in said)
    text = delta(200, len(made), *(insert(it) if isinstance(it, bytes) else copy(*it) for it in said))
    found = Delta(text[at : at + piece] for at in range(0, len(text), piece))
    assert found.size == len(made)
    assert b"".join(found.apply(WholeBase(base))) == made


@given(data=st.binary(max_size=400))
def test_any_bytes_are_a_pack_or_refused(data: bytes) -> None:
    try:
        stream = PackStream(io.BytesIO(data).read, FORMATS["sha1"], 1 << 20)
        for _ in range(min(stream.count, 100)):
            for _ in stream.contents(stream.entry()):
                pass
        stream.finish()
    except BadPack:
        pass


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_delta_or_refused(data: bytes) -> None:
    try:
        found = Delta(iter([data]))
        assert sum(map(len, found.apply(WholeBase(b"x" * 100)))) == found.size
    except BadPack:
        pass


# ---------------------------------------------------------------- hostile ones


@cache
def hostile(hashed: str) -> dict[str, bytes]:
    """Packs that no git makes."""
    width = FORMATS[hashed].width
    base = b"base" * 2500
    first = entry(BLOB, base)
    zeros = head_of_bomb = entry(BLOB, bytes(1 << 20), said=10)
    whole = pack([first, entry(BLOB, b"other")], hashed)
    chain = [entry(BLOB, b"x" * 100)]
    for number in range(20_000):
        chain.append(ofs_delta(len(chain[-1]), delta(100 + number, 101 + number, copy(0, 100 + number), insert(b"y"))))
    many = b"".join(copy(0, 10_000) for _ in range(110_000))
    return {
        "nothing": b"",
        "no pack": b"HTTP/1.1 200 OK\r\n\r\n" * 4,
        "another version": pack([first], hashed, version=4),
        "cut": whole[:-30],
        "cut in the head": whole[:5],
        "cut in an entry": whole[:40],
        "a bad checksum": whole[:-1] + bytes([whole[-1] ^ 1]),
        "a flipped bit": whole[:14] + bytes([whole[14] ^ 4]) + whole[15:],
        "something behind it": whole + b"x",
        "another hash's checksum": pack([first], "sha1" if hashed == "sha256" else "sha256"),
        "more promised than comes": pack([first], hashed, count=2),
        "far more promised": pack([first], hashed, count=0xFFFFFFFF),
        "less promised": pack([first, entry(BLOB, b"other")], hashed, count=1),
        "a size that is too small": pack([zeros], hashed),
        "a size that is too large": pack([entry(BLOB, b"few", said=1 << 40)], hashed),
        "a size without an end": pack([b"\xbf" + b"\xff" * 20], hashed),
        "an unknown type": pack([entry(5, b"five")], hashed),
        "no type": pack([entry(0, b"zero")], hashed),
        "no zlib stream": pack([packs.head(BLOB, 5) + b"hello"], hashed),
        "an object twice": pack([first, entry(BLOB, base)], hashed),
        "a delta that makes what is there": pack(
            [first, ofs_delta(len(first), delta(10_000, 10_000, copy(0, 10_000)))], hashed
        ),
        "a delta of nothing": pack([ref_delta(b"\x11" * width, delta(3, 3, copy(0, 3)))], hashed),
        "a delta of itself": pack([ofs_delta(0, delta(3, 3, copy(0, 3)))], hashed),
        "a delta of what lies before the pack": pack([ofs_delta(500, delta(3, 3, copy(0, 3)))], hashed),
        "a delta of the middle of an entry": pack([first, ofs_delta(3, delta(3, 3, copy(0, 3)))], hashed),
        "deltas of each other": pack(
            [ref_delta(b"\x11" * width, delta(3, 3, copy(0, 3))), ref_delta(b"\x22" * width, delta(3, 3, copy(0, 3)))],
            hashed,
        ),
        "many deltas of nothing": pack(
            [
                ref_delta(bytes([number]) * width, delta(3, 1 << 20, insert(NOISE[number:] + NOISE)))
                for number in range(60)
            ],
            hashed,
        ),
        "a delta for another size": pack([first, ofs_delta(len(first), delta(9_999, 3, copy(0, 3)))], hashed),
        "a delta that makes less": pack([first, ofs_delta(len(first), delta(10_000, 9, copy(0, 3)))], hashed),
        "a delta that makes more": pack([first, ofs_delta(len(first), delta(10_000, 2, copy(0, 3)))], hashed),
        "a delta that reads beyond": pack([first, ofs_delta(len(first), delta(10_000, 10, copy(9_995, 10)))], hashed),
        "a delta with no such instruction": pack([first, ofs_delta(len(first), delta(10_000, 3, b"\0"))], hashed),
        "a delta cut in an insert": pack([first, ofs_delta(len(first), delta(10_000, 3, b"\x05abc"))], hashed),
        "a delta cut in a copy": pack([first, ofs_delta(len(first), delta(10_000, 3, b"\xff\x01"))], hashed),
        "a delta with no sizes": pack([first, ofs_delta(len(first), b"")], hashed),
        "a delta bomb": pack([first, ofs_delta(len(first), delta(10_000, 1_100_000_000, many))], hashed),
        "20,000 deltas in a row": pack(chain, hashed),
        "a tree of 17 MiB": pack([entry(TREE, bytes(17 << 20))], hashed),
        "a commit of 2 MiB": pack([entry(COMMIT, bytes(2 << 20))], hashed),
        "a bomb": pack([head_of_bomb], hashed),
    }


@pytest.mark.parametrize("which", sorted(hostile("sha1")))
def test_a_hostile_pack_leaves_nothing(agent: Agent, which: str) -> None:
    data = hostile(name(agent))[which]
    began = time.monotonic()
    with pytest.raises((RefusedArrival, TooLarge)):
        take(agent, data)
    assert time.monotonic() - began < 20


def test_any_change_of_a_pack_is_refused(agent: Agent) -> None:
    repo, chance = agent.repository, random.Random(8)
    whole = b"".join(gitpacks.write_pack(repo, gitpacks.missing(repo, landing.shown_refs(repo).values(), ())))
    for _ in range(200):
        data = bytearray(whole)
        at = chance.randrange(len(data))
        if chance.random() < 0.3:
            del data[at : at + chance.randrange(1, 50)]
        else:
            data[at] ^= 1 << chance.randrange(8)
        with pytest.raises((RefusedArrival, TooLarge)):
            take(agent, bytes(data))


def test_content_without_end_is_refused(agent: Agent) -> None:
    """Honest zlib, a thousand times its size: by the whole pack, and by one file."""
    zeros = pack([entry(BLOB, bytes(1 << 20) + b"%d" % number) for number in range(30)], name(agent))
    assert len(take(agent, zeros)) == 30
    with pytest.raises(TooLarge):
        take(agent, zeros, Limits(content=8 << 20, ratio=64))
    with pytest.raises(TooLarge):
        take(agent, zeros, Limits(objects=29))
    with pytest.raises(RefusedArrival):
        take(agent, zeros, Limits(size=1000))


def test_a_delta_of_what_the_sender_may_not_read_is_one_of_nothing(agent: Agent) -> None:
    """A backup lies in the store, and no ref that is shown leads to it."""
    secret = b"a secret of the workspace\n" * 20
    (agent.workspace / "a.txt").write_bytes(secret)
    agent.rollback("v1.0.0", reason="elsewhere")
    repo, hashed = agent.repository, name(agent)
    hidden = oid(BLOB, secret, hashed)
    assert repo.store.kind(ObjectId(hidden)) is Kind.BLOB
    answers = []
    for base in (hidden, b"\x33" * len(hidden)):
        with pytest.raises(RefusedArrival) as raised:
            take(agent, pack([ref_delta(base, delta(len(secret), 5, copy(0, 5)))], hashed))
        answers.append(str(raised.value))
    assert answers[0] == answers[1]


PROGRAM = """
import re, sys
from pathlib import Path
from tests.engine.homes import open_home
from kaivc.errors import KaiError
from tests.server.test_git_packs import take_only
home = open_home(Path(sys.argv[1]), chunks__threshold="64KiB")
agent = home.agent("bot")
def most():  # of this process alone: ru_maxrss goes on from that of the one which forked it
    return int(re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
for path in sys.argv[2:]:
    before = most()
    try:
        with open(path, "rb") as file:
            take_only(agent, file.read)
        said = "taken"
    except KaiError as error:
        said = error.code
    print(path, said, most() - before)
"""


def take_only(agent: Agent, read: Callable[[int], bytes]) -> None:
    """Take a pack, and look at nothing."""
    repo = agent.repository
    arriving = Incoming(repo.home, "bot", incoming.unmeasured())
    with arriving:
        gitarrival.take_pack(read, repo, arriving, ())
        arriving.discard()


def bombs(hashed: str) -> dict[str, bytes]:
    """Small packs that hold much."""
    base = b"base" * 2500
    first = entry(BLOB, base)
    noise = entry(BLOB, NOISE)
    far = b"".join(copy((number * 70_001) % 230_000, 1 << 16) for number in range(60))
    return {
        "100 MB of zeros": pack([entry(BLOB, bytes(100_000_000))], hashed),
        "1 GB by one delta": pack(
            [first, ofs_delta(len(first), delta(10_000, 10**9, copy(0, 10_000) * 100_000))], hashed
        ),
        "a file of 4 MB by deltas": pack([noise, ofs_delta(len(noise), delta(300_000, 60 << 16, far))], hashed),
        "a tree of 100 MB": pack([entry(TREE, bytes(100_000_000))], hashed),
        "deltas of nothing": hostile(hashed)["many deltas of nothing"],
    }


def test_memory_does_not_follow_what_a_pack_says(agent: Agent, tmp_path: Path) -> None:
    paths = []
    for which, data in bombs(name(agent)).items():
        paths.append(tmp_path / which)
        paths[-1].write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, agent.repository.layout.root, *map(str, paths)],
        env={**ENVIRON, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = {Path(path).name: (code, int(size)) for path, code, size in map(split, done.stdout.splitlines())}
    assert {which: code for which, (code, _) in told.items()} == {
        "100 MB of zeros": "taken",
        "1 GB by one delta": "E405",
        "a file of 4 MB by deltas": "taken",
        "a tree of 100 MB": "E405",
        "deltas of nothing": "E405",
    }
    assert max(size for _, size in told.values()) < 32 << 10, told
    assert os.listdir(agent.repository.layout.incoming("bot")) == []


def split(text: str) -> list[str]:
    return text.rsplit(" ", 2)
