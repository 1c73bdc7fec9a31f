"""Trees, commits and tags: round trips, and hostile bytes refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc.errors import ChecksumMismatch
from kaivc.names import ObjectId
from kaivc.storage.gitobjects import (
    DIRECTORY,
    EXECUTABLE,
    FILE,
    SHA1,
    SHA256,
    SYMLINK,
    Commit,
    Entry,
    MalformedObject,
    Tag,
    clean_message,
    decode_commit,
    decode_tag,
    decode_tree,
    encode_commit,
    encode_tag,
    encode_tree,
    is_reserved,
)

OID = ObjectId(bytes(range(32)))
NAME = st.binary(min_size=1, max_size=20).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..") and not is_reserved(name)
)
MODE = st.sampled_from([FILE, EXECUTABLE, SYMLINK, DIRECTORY])


@given(listing=st.dictionaries(NAME, MODE, max_size=12))
def test_trees_come_back(listing: dict[bytes, int]) -> None:
    entries = [(name, Entry(mode, OID)) for name, mode in listing.items()]
    data = encode_tree(entries)
    assert sorted(decode_tree(data, 32)) == sorted(entries)
    assert encode_tree(decode_tree(data, 32)) == data


def raw(mode: bytes, name: bytes) -> bytes:
    return mode + b" " + name + b"\0" + OID


HOSTILE = {
    "dot": raw(b"100644", b"."),
    "dotdot": raw(b"40000", b".."),
    "slash": raw(b"100644", b"a/b"),
    "absolute": raw(b"100644", b"/etc"),
    "empty": raw(b"100644", b""),
    "git": raw(b"40000", b".git"),
    "git in capitals": raw(b"40000", b".GiT"),
    "git short name": raw(b"40000", b"GIT~1"),
    "git stream": raw(b"40000", b".git::$INDEX_ALLOCATION"),
    "git with blanks": raw(b"40000", b".git . ."),
    "git behind a backslash": raw(b"100644", b"a\\.git"),
    "git that HFS takes": raw(b"40000", ".g\u200cit".encode()),
    "setuid": raw(b"104755", b"a"),
    "odd mode": raw(b"100666", b"a"),
    "gitlink": raw(b"160000", b"a"),
    "zero-padded": raw(b"040000", b"a"),
    "no mode": raw(b"", b"a"),
    "words for a mode": raw(b"file", b"a"),
    "out of order": raw(b"100644", b"b") + raw(b"100644", b"a"),
    "twice": raw(b"100644", b"a") + raw(b"100644", b"a"),
    "link beside its tree": raw(b"120000", b"a") + raw(b"40000", b"a"),
    "cut": raw(b"100644", b"a")[:-1],
    "cut in the name": b"100644 abc",
    "garbage": b"\xff" * 50,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_tree_is_refused(case: str) -> None:
    with pytest.raises(MalformedObject):
        decode_tree(HOSTILE[case], 32)


WHO = "Ann Example <ann@example.org>"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


@given(message=TEXT, time=st.integers(0, 10**11), parent=st.booleans())
def test_commits_and_tags_come_back(message: str, time: int, parent: bool) -> None:
    commit = Commit(OID, OID if parent else None, WHO, time, clean_message(message))
    assert decode_commit(encode_commit(commit), 32) == commit
    tag = Tag(OID, "bot/v1.0.0", WHO, time, clean_message(message))
    assert decode_tag(encode_tag(tag), 32) == tag
    assert clean_message(clean_message(message)) == clean_message(message)


@given(data=st.binary(max_size=300), at=st.integers(0, 200), byte=st.integers(0, 255))
def test_no_bytes_escape_as_another_error(data: bytes, at: int, byte: int) -> None:
    good = bytearray(encode_commit(Commit(OID, OID, WHO, 5, "x\n")))
    good[at % len(good)] = byte
    for text in (data, bytes(good)):
        for decode in (decode_commit, decode_tag, decode_tree):
            with suppress(ChecksumMismatch):
                decode(text, 32)


def test_ids_that_everybody_knows() -> None:
    from kaivc.storage.gitobjects import Kind

    assert SHA1.hash(Kind.BLOB, b"").hex() == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert SHA1.hash(Kind.TREE, b"").hex() == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert SHA256.hash(Kind.BLOB, b"").hex() == "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813"
