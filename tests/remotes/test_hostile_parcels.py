"""A peer that pushes what a home may not hold: each parcel is refused, and nothing of it is left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest

from kaivc.access import UserAccess
from kaivc.api import Home
from kaivc.errors import (
    InvalidName,
    KaiError,
    LostRace,
    NameTaken,
    PermissionDenied,
    RefusedArrival,
    TooLarge,
    TransportError,
    VersionConflict,
)
from kaivc.names import ObjectId
from kaivc.serving import FarHome
from kaivc.storage.chunking import chunk_id
from kaivc.storage.compression import compress, compress_after
from kaivc.storage.gitobjects import SHA1, SHA256, Kind
from kaivc.storage.pack import TRAILER, TRAILER_MAGIC, Codec, Key, RecordKind, encode, encode_block
from kaivc.wire import Offer, Update
from tests.faults.hostile.forge import EVE, TIME, whole
from tests.remotes.parcels import AGENT, CURRENT, TAG, Parcel, everything, message

NOWHERE = bytes(range(32))
Bad = Callable[[Parcel, Home], object]


def test_a_parcel_that_is_right_lands(home: Home) -> None:
    """What the others are made of by one change each: so it is that change that they are refused for."""
    parcel = Parcel()
    oid = parcel.version()
    bot = home.agent(AGENT)
    parcel.move(CURRENT, bot.repository.current, oid)
    parcel.push(home)
    assert bot.current.version == "6.6.6"
    assert (bot.workspace / "logic.py").read_bytes() == b"evil\n"
    assert home.fsck().all == ()


def test_and_so_does_one_that_makes_an_agent(home: Home) -> None:
    parcel = Parcel(agent="new")
    parcel.move("refs/heads/new/current", None, parcel.version())
    parcel.push(home)
    assert (home.agent("new").workspace / "logic.py").read_bytes() == b"evil\n"
    assert home.fsck().all == ()


# ---------------------------------------------------------------- objects


def wrong_id(p: Parcel, home: Home) -> None:
    p.version(p.tree((b"100644", b"x", p.put(Kind.BLOB, b"mine", SHA256.hash(Kind.BLOB, b"yours")))))


def wrong_tree_id(p: Parcel, home: Home) -> None:
    p.version(p.put(Kind.TREE, b"", NOWHERE))


def wrong_commit_id(p: Parcel, home: Home) -> None:
    p.records.append(encode(Kind.COMMIT, NOWHERE, b"tree", 3))
    p.move(TAG, None, p.tag(NOWHERE))


def chunked(p: Parcel, pieces: list[tuple[bytes, bytes]], data: bytes, *, send: bool = True) -> ObjectId:
    for oid, piece in dict(pieces).items() if send else ():
        p.records.append(encode(RecordKind.CHUNK, oid, piece, 3))
    listing = msgpack.packb([[oid, len(piece)] for oid, piece in pieces])
    blob = SHA256.hash(Kind.BLOB, data)
    p.records.append(encode(RecordKind.CHUNK_LIST, blob, listing, 3))
    return p.tree((b"100644", b"big", blob))


def forged_chunk(p: Parcel, home: Home) -> None:
    piece = b"x" * 20_000
    p.version(chunked(p, [(NOWHERE, piece), (chunk_id(b"y"), b"y")], piece + b"y"))


def chunks_of_another_blob(p: Parcel, home: Home) -> None:
    p.version(chunked(p, [(chunk_id(b"y"), b"y")], b"z"))


def chunks_that_are_not_there(p: Parcel, home: Home) -> None:
    p.version(chunked(p, [(chunk_id(b"y"), b"y")], b"y", send=False))


def chunks_of_another_size(p: Parcel, home: Home) -> None:
    oid = chunk_id(b"yy")
    p.records.append(encode(RecordKind.CHUNK, oid, b"yy", 3))
    blob = SHA256.hash(Kind.BLOB, b"y")
    p.records.append(encode(RecordKind.CHUNK_LIST, blob, msgpack.packb([[oid, 1]]), 3))
    p.version(p.tree((b"100644", b"big", blob)))


def no_list_of_chunks(p: Parcel, home: Home) -> None:
    blob = SHA256.hash(Kind.BLOB, b"y")
    p.records.append(encode(RecordKind.CHUNK_LIST, blob, b"\xc1", 3))
    p.version(p.tree((b"100644", b"big", blob)))


def a_file_without_end(p: Parcel, home: Home) -> None:
    piece = bytes(256 << 10)
    blob = SHA256.hash(Kind.BLOB, b"never made")
    p.records.append(encode(RecordKind.CHUNK, chunk_id(piece), piece, 3))
    p.records.append(encode(RecordKind.CHUNK_LIST, blob, msgpack.packb([[chunk_id(piece), len(piece)]] * 400_000), 3))
    p.version(p.tree((b"100644", b"big", blob)))


def no_parent(p: Parcel, home: Home) -> None:
    p.version(text=message(parent="1.0.0"), parent=NOWHERE)


def no_tree(p: Parcel, home: Home) -> None:
    p.version(NOWHERE)


def no_blob(p: Parcel, home: Home) -> None:
    p.version(p.tree((b"100644", b"x", NOWHERE)))


def no_commit(p: Parcel, home: Home) -> None:
    p.move(TAG, None, p.tag(NOWHERE))


def nothing_came(p: Parcel, home: Home) -> None:
    p.move(TAG, None, NOWHERE)


def a_tree_for_a_file(p: Parcel, home: Home) -> None:
    p.version(p.tree((b"100644", b"x", p.good_tree())))


def a_file_for_a_tree(p: Parcel, home: Home) -> None:
    p.version(p.tree((b"40000", b"x", p.blob(b"x"))))


def a_blob_for_a_commit(p: Parcel, home: Home) -> None:
    p.move(TAG, None, p.tag(p.blob(b"x")))


def another_hash(p: Parcel, home: Home) -> None:
    p.version()
    p.records.append(encode(Kind.BLOB, SHA1.hash(Kind.BLOB, b"x"), b"x", 3))


def what_only_a_backup_holds(p: Parcel, home: Home) -> None:
    """To name it is not to have it: else one could be told what it holds by asking whether a guess is right."""
    p.version(p.tree((b"100644", b"x", SHA256.hash(Kind.BLOB, b"only here, and secret"))))


def encoded_with_what_only_a_backup_holds(p: Parcel, home: Home) -> None:
    secret = b"only here, and secret"
    after(p, SHA256.hash(Kind.BLOB, secret), secret, b"only here, and secret!" * 3)


# ---------------------------------------------------------------- names and links


def named(name: bytes, mode: bytes = b"100644") -> Bad:
    def put(p: Parcel, home: Home) -> None:
        inner = p.blob(b"x") if mode == b"100644" else p.good_tree()
        p.version(p.tree((mode, name, inner)))

    return put


def link(target: bytes, *above: bytes) -> Bad:
    def put(p: Parcel, home: Home) -> None:
        tree = p.tree((b"120000", b"link", p.blob(target)))
        for name in above:
            tree = p.tree((b"40000", name, tree))
        p.version(tree)

    return put


def of_mode(mode: bytes) -> Bad:
    return lambda p, home: p.version(p.tree((mode, b"x", p.blob(b"x"))))


def out_of_order(p: Parcel, home: Home) -> None:
    oid = p.blob(b"x")
    p.version(p.tree((b"100644", b"b", oid), (b"100644", b"a", oid)))


def twice_in_a_tree(p: Parcel, home: Home) -> None:
    p.version(p.tree((b"100644", b"a", p.blob(b"x")), (b"100644", b"a", p.blob(b"y"))))


def garbled_tree(p: Parcel, home: Home) -> None:
    p.version(p.put(Kind.TREE, b"100644 x\0short"))


def too_deep(p: Parcel, home: Home) -> None:
    tree = p.good_tree()
    for _ in range(3000):
        tree = p.tree((b"40000", b"d", tree))
    p.version(tree)


def two_to_the_thirtieth_files(p: Parcel, home: Home) -> None:
    tree = p.good_tree()
    for _ in range(30):
        tree = p.tree((b"40000", b"a", tree), (b"40000", b"b", tree))
    p.version(tree)


# ---------------------------------------------------------------- commits and tags


def said(text: str) -> Bad:
    return lambda p, home: p.version(text=text)


def raw_commit(data: Callable[[str], str]) -> Bad:
    def put(p: Parcel, home: Home) -> None:
        usual = f"tree {p.good_tree().hex()}\nauthor {EVE} {TIME} +0000\ncommitter {EVE} {TIME} +0000\n\n{message()}"
        p.move(TAG, None, p.tag(p.put(Kind.COMMIT, data(usual).encode())))

    return put


def a_tag(name: str | None = None, notes: str = "evil") -> Bad:
    return lambda p, home: p.move(TAG, None, p.tag(p.commit(p.good_tree()), name, notes))


def a_tag_of_a_tag(p: Parcel, home: Home) -> None:
    p.move(TAG, None, p.tag(p.tag(p.commit(p.good_tree()))))


def a_tag_that_is_a_commit(p: Parcel, home: Home) -> None:
    p.move(TAG, None, p.commit(p.good_tree()))


def a_tag_of_another_number(p: Parcel, home: Home) -> None:
    p.move(f"refs/tags/{AGENT}/v7.0.0", None, p.tag(p.commit(p.good_tree()), f"{AGENT}/v7.0.0"))


def another_parent_than_said(p: Parcel, home: Home) -> None:
    p.version(text=message(parent="0.0.9"), parent=home.agent(AGENT).repository.current)


def a_manifest_of_nonsense(p: Parcel, home: Home) -> None:
    p.version(p.tree((b"100644", b"kai.yaml", p.blob(b"entri: [x]\n"))))


def a_reserved_file(p: Parcel, home: Home) -> None:
    p.version(p.tree((b"100644", b"snapshot_meta.json", p.blob(b"{}"))))


# ---------------------------------------------------------------- records


def after(p: Parcel, base: bytes, prefix: bytes, data: bytes, oid: bytes | None = None, ordinal: int = 1) -> None:
    found = oid or SHA256.hash(Kind.BLOB, data)
    fields = {int(Key.ID): found, int(Key.SIZE): len(data), int(Key.BASE): base, int(Key.ORDINAL): ordinal}
    p.records.append(whole(Kind.BLOB, msgpack.packb(fields), compress_after(prefix, data), Codec.ZSTD_PREFIX))
    if oid is None:
        p.version(p.tree((b"100644", b"x", found)))


TEXT = b"some text that is long enough to be worth encoding with another one\n" * 4


def a_base_that_is_nowhere(p: Parcel, home: Home) -> None:
    after(p, NOWHERE, TEXT, TEXT + b"!")


def a_base_that_is_itself(p: Parcel, home: Home) -> None:
    after(p, SHA256.hash(Kind.BLOB, TEXT), TEXT, TEXT)


def bases_in_a_circle(p: Parcel, home: Home) -> None:
    one, two = SHA256.hash(Kind.BLOB, TEXT + b"1"), SHA256.hash(Kind.BLOB, TEXT + b"2")
    after(p, two, TEXT + b"2", TEXT + b"1", one, 1)
    after(p, one, TEXT + b"1", TEXT + b"2", two, 1)
    p.version(p.tree((b"100644", b"x", one), (b"100644", b"y", two)))


def a_chain_without_end(p: Parcel, home: Home) -> None:
    data, last = TEXT, p.blob(TEXT)
    for number in range(500):
        more = TEXT + b"%d" % number
        oid = SHA256.hash(Kind.BLOB, more)
        after(p, last, data, more, oid, number + 1)
        data, last = more, ObjectId(oid)
    p.version(p.tree((b"100644", b"x", last)))


def a_base_of_another_content(p: Parcel, home: Home) -> None:
    after(p, p.blob(TEXT), TEXT + b"other", TEXT + b"other!")


def twice(p: Parcel, home: Home) -> None:
    p.version()
    p.blob(b"evil\n")


def twice_in_a_block(p: Parcel, home: Home) -> None:
    p.version()
    oid = SHA256.hash(Kind.BLOB, b"evil\n")
    p.records.append(encode_block([(Kind.BLOB, oid, b"evil\n"), (Kind.BLOB, oid, b"evil\n")], 3))


def a_block_of_another_content(p: Parcel, home: Home) -> None:
    one, two = SHA256.hash(Kind.BLOB, b"1"), SHA256.hash(Kind.BLOB, b"2")
    p.records.append(encode_block([(Kind.BLOB, one, b"2"), (Kind.BLOB, two, b"1")], 3))
    p.version(p.tree((b"100644", b"x", one), (b"100644", b"y", two)))


def more_records_than_told(p: Parcel, home: Home) -> None:
    p.version()
    p.count = len(p.records) - 1


def fewer_records_than_told(p: Parcel, home: Home) -> None:
    p.version()
    p.count = len(p.records) + 1


def with_behind(tail: bytes) -> Bad:
    def put(p: Parcel, home: Home) -> None:
        p.version()
        p.tail = tail

    return put


def cut_short(p: Parcel, home: Home) -> None:
    p.version()
    p.count, p.records[-1] = len(p.records), p.records[-1][:-3]


def flipped(p: Parcel, home: Home) -> None:
    p.version()
    record = bytearray(p.records[0])
    record[-12] ^= 1
    p.records[0] = bytes(record)


def of_kind(kind: int) -> Bad:
    def put(p: Parcel, home: Home) -> None:
        p.version()
        p.records.append(encode(kind, NOWHERE, b"x" * 100, 3))

    return put


def of_size(size: int, kind: int = Kind.BLOB) -> Bad:
    """A header that says more than the frame holds."""

    def put(p: Parcel, home: Home) -> None:
        fields = {int(Key.ID): NOWHERE, int(Key.SIZE): size}
        p.records.append(whole(kind, msgpack.packb(fields), compress(bytes(1 << 20), 3), Codec.ZSTD))
        p.version(p.tree((b"100644", b"x", NOWHERE)))

    return put


BAD: dict[str, Bad] = {
    it.__name__.replace("_", " "): it
    for it in (
        wrong_id,
        wrong_tree_id,
        wrong_commit_id,
        forged_chunk,
        chunks_of_another_blob,
        chunks_that_are_not_there,
        chunks_of_another_size,
        no_list_of_chunks,
        a_file_without_end,
        no_parent,
        no_tree,
        no_blob,
        no_commit,
        nothing_came,
        a_tree_for_a_file,
        a_file_for_a_tree,
        a_blob_for_a_commit,
        another_hash,
        what_only_a_backup_holds,
        encoded_with_what_only_a_backup_holds,
        out_of_order,
        twice_in_a_tree,
        garbled_tree,
        too_deep,
        two_to_the_thirtieth_files,
        a_tag_of_a_tag,
        a_tag_that_is_a_commit,
        a_tag_of_another_number,
        another_parent_than_said,
        a_manifest_of_nonsense,
        a_reserved_file,
        a_base_that_is_nowhere,
        a_base_that_is_itself,
        bases_in_a_circle,
        a_chain_without_end,
        a_base_of_another_content,
        twice,
        twice_in_a_block,
        a_block_of_another_content,
        more_records_than_told,
        fewer_records_than_told,
        cut_short,
        flipped,
    )
}
BAD |= {f"the name {name!r}": named(name) for name in (b"..", b".", b"", b".git", b".GIT", b"git~1", b".kai", b"a/b")}
BAD |= {f"the directory {name!r}": named(name, b"40000") for name in (b"..", b".git", b".Git ", b".kai")}
BAD |= {f"the name of {name[:8]!r}": named(name) for name in (b"x" * 256, b".g\xe2\x80\x8cit")}
BAD |= {
    "a link to a file of the machine": link(b"/etc/passwd"),
    "a link to above": link(b"../other"),
    "a link to above from within": link(b"../../../x", b"a", b"b"),
    "an empty link": link(b""),
    "a link with a NUL": link(b"a\0b"),
    "a link too long": link(b"x" * 5000),
    "a submodule": of_mode(b"160000"),
    "a file of set uid": of_mode(b"104755"),
    "a mode with a zero before": of_mode(b"0100644"),
    "a commit without trailers": said("evil\n"),
    "a commit of another format": said(message().replace("Kai-Format: 1", "Kai-Format: 2")),
    "a commit of no version": said(message(None)),
    "a commit of a version that is none": said(message("6.6")),
    "a trailer twice": said(message() + "Kai-Version: 6.6.6\n"),
    "another checksum": said(message(state="sha256:" + "0" * 64)),
    "notes that hide the trailers from git": said(message(notes="evil\n\n--- \nmore")),
    "a commit with a signature": raw_commit(lambda it: it.replace("\n\n", "\ngpgsig x\n\n", 1)),
    "two parents": raw_commit(lambda it: it.replace("\nauthor", f"\nparent {'0' * 64}\nparent {'1' * 64}\nauthor", 1)),
    "another zone": raw_commit(lambda it: it.replace("+0000", "+0100")),
    "a time past all": raw_commit(lambda it: it.replace(str(TIME), "999999999999")),
    "another author": raw_commit(lambda it: it.replace(EVE, "Ann <a@example.org>", 1)),
    "a commit with escapes": raw_commit(lambda it: it.replace(EVE, "Eve\x1b[2J <e@x>")),
    "a tag of another agent": a_tag("other/v6.6.6"),
    "a tag without an agent": a_tag("v6.6.6"),
    "a tag that says another number": a_tag(f"{AGENT}/v6.6.7"),
    "a tag that says something else": a_tag(notes="good"),
    "bytes behind it": with_behind(b"more"),
    "another magic behind it": with_behind(b"KR" + bytes(40)),
    "the end of a pack behind it": with_behind(TRAILER.pack(8, TRAILER_MAGIC)),
    "an op record": of_kind(RecordKind.OP),
    "a footer": of_kind(RecordKind.FOOTER),
    "a record of no kind": of_kind(77),
    "a size of 4 GiB": of_size(1 << 32),
    "a size of 2^63": of_size((1 << 63) - 1),
    "a commit of 1 GiB": of_size(1 << 30, Kind.COMMIT),
    "a size that is not there": of_size(1 << 21),
}


@pytest.mark.parametrize("which", BAD)
def test_what_a_home_may_not_hold_is_refused_and_leaves_nothing(home: Home, which: str) -> None:
    parcel = Parcel()
    BAD[which](parcel, home)
    before = everything(home)
    with pytest.raises((RefusedArrival, TooLarge)) as told:
        parcel.push(home)
    assert told.value.unchanged
    assert everything(home) == before


@pytest.mark.parametrize("which", BAD)
def test_nor_does_it_make_an_agent(home: Home, which: str) -> None:
    parcel = Parcel(agent="new")
    BAD[which](parcel, home)
    parcel.moves = [Update(it.ref.replace(f"/{AGENT}/", "/new/"), it.old, it.new) for it in parcel.moves]
    parcel.move("refs/heads/new/current", None, parcel.tagged)
    before = everything(home)
    with pytest.raises((RefusedArrival, TooLarge)):
        parcel.push(home)
    assert everything(home) == before


# ---------------------------------------------------------------- moves


def refs(home: Home) -> dict[str, bytes]:
    repo = home.agent(AGENT).repository
    return {str(name): oid for name, oid in repo.refs("refs/").items()}


def another_version(p: Parcel, home: Home) -> None:
    """A number that stands for a version already is given to another one."""
    old = refs(home)[f"refs/tags/{AGENT}/v1.0.0"]
    oid = p.commit(p.good_tree(), message("1.0.0"))
    p.move(f"refs/tags/{AGENT}/v1.0.0", old, p.tag(oid, f"{AGENT}/v1.0.0"))


def the_same_number(p: Parcel, home: Home) -> None:
    oid = p.commit(p.good_tree(), message("1.0.0"))
    p.move(f"refs/tags/{AGENT}/v1.0.0", None, p.tag(oid, f"{AGENT}/v1.0.0"))


def a_version_away(p: Parcel, home: Home) -> None:
    p.move(f"refs/tags/{AGENT}/v1.0.0", refs(home)[f"refs/tags/{AGENT}/v1.0.0"], None)


def current_away(p: Parcel, home: Home) -> None:
    p.move(CURRENT, refs(home)[CURRENT], None)


def current_at_no_version(p: Parcel, home: Home) -> None:
    p.move(CURRENT, refs(home)[CURRENT], p.commit(p.good_tree(), message(None)))


def current_at_a_version_without_a_tag(p: Parcel, home: Home) -> None:
    p.move(CURRENT, refs(home)[CURRENT], p.commit(p.good_tree()))


def current_at_a_tag(p: Parcel, home: Home) -> None:
    p.version()
    p.move(CURRENT, refs(home)[CURRENT], p.moves[0].new)


def current_at_a_tree(p: Parcel, home: Home) -> None:
    p.version()
    p.move(CURRENT, refs(home)[CURRENT], p.good_tree())


def current_from_elsewhere(p: Parcel, home: Home) -> None:
    p.move(CURRENT, NOWHERE, p.version())


def a_backup_overwritten(p: Parcel, home: Home) -> None:
    name = next(it for it in refs(home) if "/backups/" in it)
    p.move(name, refs(home)[name], p.commit(p.good_tree(), message(None)))


def twice_at_once(p: Parcel, home: Home) -> None:
    oid = p.version()
    p.move(CURRENT, refs(home)[CURRENT], oid)
    p.move(CURRENT, oid, refs(home)[CURRENT])


def to_a_backup_behind_a_move_that_is_none(p: Parcel, home: Home) -> None:
    """The one is checked, the other would count."""
    now = refs(home)
    p.move(CURRENT, now[CURRENT], next(oid for name, oid in now.items() if "/backups/" in name))
    p.move(CURRENT, now[CURRENT], now[CURRENT])


def one_of_two(p: Parcel, home: Home) -> None:
    """The first could be; the second is not where it is said to be."""
    p.version()
    p.move(f"refs/heads/{AGENT}/snapshots/one", NOWHERE, p.commit(p.good_tree(), message(None)))


def to(ref: str) -> Bad:
    return lambda p, home: p.move(ref, None, p.version())


def a_snapshot_that_is(kind: str) -> Bad:
    def put(p: Parcel, home: Home) -> None:
        oid = {"blob": p.blob, "tag": lambda _: p.tag(p.commit(p.good_tree())), "tree": lambda _: p.good_tree()}[kind](
            b"x"
        )
        p.move(f"refs/heads/{AGENT}/snapshots/one", None, oid)

    return put


MOVES: dict[str, Bad] = {
    it.__name__.replace("_", " "): it
    for it in (
        another_version,
        the_same_number,
        a_version_away,
        current_away,
        current_at_no_version,
        current_at_a_version_without_a_tag,
        current_at_a_tag,
        current_at_a_tree,
        current_from_elsewhere,
        a_backup_overwritten,
        twice_at_once,
        to_a_backup_behind_a_move_that_is_none,
        one_of_two,
    )
}
MOVES |= {
    f"to {ref}": to(ref)
    for ref in (
        "refs/heads/other/current",
        "refs/heads/main",
        f"refs/heads/{AGENT}/other",
        f"refs/heads/{AGENT}/snapshots/../current",
        f"refs/heads/{AGENT}/snapshots/",
        f"refs/heads/{AGENT}/snapshots/UPPER",
        f"refs/heads/{AGENT}/backups/01",
        f"refs/heads/{AGENT}/backups/x",
        f"refs/tags/{AGENT}/v06.6.6",
        f"refs/tags/{AGENT}/6.6.6",
        f"refs/tags/{AGENT}/v6.6.6+build",
        f"refs/tags/{AGENT}/latest",
        f"refs/tags/{AGENT}/v6.6.6/x",
        "refs/tags/v6.6.6",
        f"refs/remotes/origin/heads/{AGENT}/current",
        f"refs/kai/withdrawn/{AGENT}/v1.0.0",
        "HEAD",
        "refs/heads/../x",
    )
}
MOVES |= {f"a snapshot that is a {kind}": a_snapshot_that_is(kind) for kind in ("blob", "tag", "tree")}


@pytest.mark.parametrize("which", MOVES)
def test_a_move_that_may_not_be_moves_nothing(home: Home, which: str) -> None:
    parcel = Parcel()
    MOVES[which](parcel, home)
    before = refs(home)
    head = home.agent(AGENT).repository.row().op_head
    with pytest.raises((TransportError, PermissionDenied, LostRace, VersionConflict)):
        parcel.push(home)
    assert refs(home) == before
    assert home.agent(AGENT).repository.row().op_head == head
    assert home.fsck().all == ()


@pytest.mark.parametrize("name", ["..", "a/b", "", ".kai", "UPPER", "nul", "x" * 80, "a\n"])
def test_an_agent_of_no_name(home: Home, name: str) -> None:
    parcel = Parcel(agent=name)
    parcel.version()
    before = everything(home)
    with pytest.raises(KaiError):
        parcel.push(home)
    assert everything(home) == before


def test_a_new_agent_has_no_room_where_something_is(home: Home, tmp_path: Path) -> None:
    (Path(home.opened.layout.root) / "new").mkdir()
    (Path(home.opened.layout.root) / "new/mine").write_text("mine")
    parcel = Parcel(agent="new")
    parcel.move("refs/heads/new/current", None, parcel.version())
    with pytest.raises(NameTaken):
        parcel.push(home)
    assert [it.name for it in (Path(home.opened.layout.root) / "new").iterdir()] == ["mine"]
    assert list(home.agents()) == [AGENT]


# ---------------------------------------------------------------- more than was announced, and what is not asked for


def test_more_than_was_announced_is_not_taken(home: Home) -> None:
    far = FarHome(home.opened, UserAccess(home.opened))
    offer = Offer("a" * 64, 1, 100)
    sent = 0

    def without_end() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield os.urandom(1 << 16)

    with pytest.raises(RefusedArrival):
        far.put(AGENT, offer, 0, without_end())
    assert sent < 4 << 20
    assert far.held(AGENT, offer) == 0


@pytest.mark.parametrize("id_", ["", "../../../../etc/passwd", "A" * 64, "a" * 63 + "\n"])
def test_a_parcel_of_no_id_is_no_path(home: Home, id_: str) -> None:
    far = FarHome(home.opened, UserAccess(home.opened))
    before = everything(home)
    offer = Offer(id_, 1, 10)
    far.put(AGENT, offer, 0, [b"x"])
    new = everything(home).keys() - before.keys()
    assert all(name.startswith(f".kai/incoming/{AGENT}") for name in new)


def test_what_nothing_leads_to_is_not_kept(home: Home) -> None:
    parcel = Parcel()
    parcel.version()
    extra = parcel.blob(b"a stowaway")
    parcel.push(home)
    assert home.agent(AGENT).repository.store.find(extra) is None
    assert home.fsck().all == ()


def test_the_same_entry_again_is_not_made_again(home: Home) -> None:
    parcel = Parcel()
    parcel.version()
    first = parcel.push(home)
    assert parcel.push(home) == first
    again = Parcel()
    again.move(f"refs/heads/{AGENT}/snapshots/one", None, again.commit(again.good_tree(), message(None)))
    with pytest.raises(InvalidName, match="another"):
        again.push(home)


def test_what_is_offered_is_what_refs_lead_to(home: Home) -> None:
    """Neither the tip of a backup, nor what lies in between, can be asked for."""
    far = FarHome(home.opened, UserAccess(home.opened))
    repo = home.agent(AGENT).repository
    hidden = next(oid for name, oid in repo.refs("refs/").items() if "/backups/" in name)
    current = repo.current
    assert current is not None
    for wanted in (hidden, repo.store.commit(current).tree, NOWHERE):
        with pytest.raises(LostRace):
            far.offer(AGENT, (wanted,), ())
        with pytest.raises((LostRace, TransportError)):
            list(far.get(AGENT, (wanted,), (), Offer("a" * 64, 1, 1), 0))
    assert not any("/backups/" in name for name in far.head(AGENT).refs)


def test_what_one_says_to_have_and_has_not_is_its_own_loss(home: Home) -> None:
    """Naming a hidden commit as had tells nothing: the answer is the same as for one that is nowhere."""
    far = FarHome(home.opened, UserAccess(home.opened))
    repo = home.agent(AGENT).repository
    hidden = next(oid for name, oid in repo.refs("refs/").items() if "/backups/" in name)
    wants = (far.head(AGENT).refs[CURRENT],)
    assert far.offer(AGENT, wants, (hidden,)) == far.offer(AGENT, wants, (NOWHERE,)) == far.offer(AGENT, wants, ())
