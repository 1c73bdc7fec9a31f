"""Which base a record takes, how it is encoded with it, and what is kept decoded."""

import os
import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc.errors import ChecksumMismatch
from kaivc.storage import compression
from kaivc.storage.bases import DEEPEST, Contents, Link, choose, weight
from kaivc.storage.pack import CHAIN, MAX_BASE, Base, Codec, PackReader, RecordKind, encode_after, read_header

OID = bytes(range(32))


def test_the_nth_takes_the_one_with_its_lowest_octal_digit_made_one_less_and_the_64th_begins_anew() -> None:
    links: dict[bytes, Link] = {b"0": Link(b"0", 1, 100, None, 0)}
    depth = {b"0": 0}
    for number in range(1, 200):
        found = choose(b"%d" % (number - 1), links.get)
        ordinal = number % CHAIN
        assert (found is None) == (ordinal == 0)
        if found is None:
            links[b"%d" % number], depth[b"%d" % number] = Link(b"%d" % number, 1, 100, None, 0), 0
            continue
        base, given_ordinal = found
        assert given_ordinal == ordinal
        assert int(base.id) == number - (1 if ordinal % 8 else 8)
        links[b"%d" % number] = Link(b"%d" % number, 1, 100, base.id, ordinal)
        depth[b"%d" % number] = depth[base.id] + 1
    assert max(depth.values()) == DEEPEST - 1 == 14
    assert all(depth[oid] == weight(link.ordinal) for oid, link in links.items())


@given(st.dictionaries(st.integers(0, 20), st.tuples(st.integers(0, 20), st.integers(0, 70)), min_size=1))
def test_whatever_links_there_are_the_choice_ends_and_fits(table: dict[int, tuple[int, int]]) -> None:
    links = {b"%d" % key: Link(b"%d" % key, 1, 9, b"%d" % base, ordinal) for key, (base, ordinal) in table.items()}
    for like in links:
        if (found := choose(like, links.get)) is not None:
            base, ordinal = found
            assert 0 < ordinal < CHAIN
            assert weight(base.ordinal) < weight(ordinal)


@given(st.binary(min_size=1, max_size=3000), st.binary(max_size=3000), st.integers(0, 3000), st.integers(1, 60))
def test_a_frame_comes_back_after_its_prefix_and_after_no_other(base: bytes, piece: bytes, at: int, times: int) -> None:
    data = (base[:at] + piece + base[at:]) * times
    frame = compression.compress_after(base, data)
    assert compression.decompress(frame, len(data), base) == data
    with pytest.raises(ChecksumMismatch):
        compression.decompress(frame, len(data) + 1, base)
    other = bytes(255 - byte for byte in base)
    with suppress(ChecksumMismatch):
        assert compression.decompress(frame, len(data), other) == data, "nothing of the prefix was used"


@pytest.mark.parametrize("size", [100, 5000, 60_000, 255_000, 270_000, 1 << 20, MAX_BASE])
def test_near_equal_bytes_of_any_size_cost_little(size: int) -> None:
    chance = random.Random(size)
    base = chance.randbytes(size)
    data = base[: size // 3] + b"inserted" + base[size // 3 : -10]
    encoded = encode_after(Base(OID, base, 1), RecordKind.BLOB, OID[::-1], data, 1)
    assert encoded.base == OID
    assert len(encoded.record) < 700


def test_what_is_smaller_without_a_base_has_none(tmp_path) -> None:
    chance = random.Random(4)
    for data in (chance.randbytes(5000), b"ab" * 20, b"short"):
        encoded = encode_after(Base(OID, chance.randbytes(5000), 3), RecordKind.BLOB, OID[::-1], data, 1)
        assert encoded.base is None
        (tmp_path / "pack").write_bytes(b"KAIPACK\1" + encoded.record)
        fd = os.open(tmp_path / "pack", os.O_RDONLY)
        header = read_header(fd, 8, "pack")
        assert header.codec in (Codec.RAW, Codec.ZSTD)
        assert PackReader(fd, "pack").payload(header) == data
        os.close(fd)


def test_contents_are_bounded_in_bytes_and_those_used_last_stay() -> None:
    kept = Contents(1000)
    for number in range(5):
        kept.put(b"%d" % number, bytes(300), proven=number == 4)
        kept.get(b"0")
    assert kept.get(b"0") is not None
    assert kept.get(b"1") is None
    assert kept.get(b"0", proven=True) is None
    assert kept.get(b"4", proven=True) is not None
    kept.put(b"0", bytes(300), proven=True)
    kept.put(b"0", bytes(300))
    assert kept.get(b"0", proven=True) is not None, "what was hashed once stays so"
    kept.put(b"large", bytes(MAX_BASE + 1))
    assert kept.get(b"large") is None
    kept.put(b"all", bytes(1001))
    assert [kept.get(it) for it in (b"0", b"4", b"all")] == [None] * 3
    kept.put(b"again", bytes(1000))
    kept.clear()
    kept.put(b"last", bytes(1000))
    assert kept.get(b"last") is not None
