"""Arrays of numbers are stored by planes: smaller, the same when read, and refused when they cannot be."""

import array
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from kaivc.errors import ChecksumMismatch, UnknownFormat
from kaivc.storage import compression, planes
from kaivc.storage.pack import MARK, PREFIX, Codec, Key, PackReader, RecordKind, encode

SIZE = 64 << 10


def floats(code: str, count: int) -> bytes:
    chance = random.Random(1)
    return array.array(code, (chance.gauss(0, 1) for _ in range(count))).tobytes()


def halves(count: int) -> bytes:
    chance = random.Random(2)
    return struct.pack(f"<{count}e", *(chance.gauss(0, 1) for _ in range(count)))


NUMBERS = {
    "float32": (floats("f", SIZE // 4), 4, 0.9),
    "float32 from the middle of a number": (floats("f", SIZE // 4)[3:-2], 4, 0.9),
    "float64": (floats("d", SIZE // 8), 8, 0.96),
    "float16": (halves(SIZE // 2), 2, 0.95),
}
OTHERS = {
    "text": b" ".join(b"some words and %d" % number for number in range(5000)),
    "noise": random.Random(3).randbytes(SIZE),
    "zeros": bytes(SIZE),
    "little": floats("f", 100),
    "bytecode": open.__doc__.encode() * 10 if open.__doc__ else b"",
}


@contextmanager
def reading(path: Path, record: bytes) -> Iterator[PackReader]:
    path.write_bytes(b"KAIPACK\1" + record)
    reader = PackReader.open(str(path))
    try:
        yield reader
    finally:
        reader.close()


def decoded(path: Path, record: bytes) -> bytes:
    with reading(path, record) as reader:
        return reader.payload(reader.header(8))


def codec_of(path: Path, record: bytes) -> int:
    with reading(path, record) as reader:
        return reader.header(8).codec


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_stored_by_planes(tmp_path: Path, name: str) -> None:
    data, width, most = NUMBERS[name]
    assert planes.width_of(data) == width
    record = encode(RecordKind.CHUNK, b"x" * 32, memoryview(data), 1)
    assert codec_of(tmp_path / "p", record) == Codec.PLANES
    assert decoded(tmp_path / "p", record) == data
    assert len(record) < most * len(data)


@pytest.mark.parametrize("name", OTHERS)
def test_other_bytes_are_not(tmp_path: Path, name: str) -> None:
    record = encode(RecordKind.CHUNK, b"x" * 32, OTHERS[name], 1)
    assert codec_of(tmp_path / "p", record) != Codec.PLANES
    assert decoded(tmp_path / "p", record) == OTHERS[name]


@given(st.binary(min_size=8, max_size=3000), st.sampled_from(planes.WIDTHS))
def test_any_bytes_come_back(data: bytes, width: int) -> None:
    parts = planes.split(data, width, 1)
    payload, lengths = b"".join(parts), [len(part) for part in parts]
    assert planes.fit(lengths, len(payload), len(data))
    assert planes.join(payload, lengths, len(data)) == data


def made(lengths: object, payload: bytes, size: int) -> bytes:
    """A record with true checksums and whatever planes."""
    header = msgpack.packb({int(Key.ID): b"x" * 32, int(Key.SIZE): size, int(Key.PLANES): lengths})
    head = PREFIX.pack(MARK, RecordKind.CHUNK, Codec.PLANES, len(header), 0, len(payload)) + header

    def check(data: bytes) -> bytes:
        return struct.pack("<Q", xxhash.xxh3_64_intdigest(data))

    return head + check(head)[:4] + payload + check(payload)


def bad() -> Iterator[tuple[object, bytes, int]]:
    parts = planes.split(NUMBERS["float32"][0], 4, 1)
    payload, lengths = b"".join(parts), [len(part) for part in parts]
    yield None, payload, SIZE
    yield [], payload, SIZE
    yield "abcd", payload, SIZE
    yield [*lengths[:3], True], payload, SIZE
    yield [*lengths[:3], "x"], payload, SIZE
    yield lengths[:3], payload, SIZE
    yield [len(payload)], payload, SIZE
    yield [*lengths, 0, 0, 0, 0], payload, SIZE
    yield [lengths[0] + 1, lengths[1] - 1, *lengths[2:]], payload, SIZE
    yield [lengths[0] + lengths[1], -lengths[1] + lengths[1], *lengths[2:]], payload, SIZE
    yield lengths, payload, SIZE + 4
    yield lengths, payload, 256 << 20
    yield lengths[::-1], payload, SIZE
    yield [1] * 4, b"abcd", SIZE


@pytest.mark.parametrize("number", range(14))
def test_planes_that_cannot_be_are_refused(tmp_path: Path, number: int) -> None:
    lengths, payload, size = list(bad())[number]
    with pytest.raises(ChecksumMismatch):
        decoded(tmp_path / "p", made(lengths, payload, size))
    assert len(list(bad())) == 14


def test_no_flipped_bit_of_a_record_in_planes_reads_back_wrong(tmp_path: Path) -> None:
    data = NUMBERS["float32"][0][:8192]
    record = bytearray(encode(RecordKind.CHUNK, b"x" * 32, data, 1))
    chance = random.Random(4)
    for at in [*range(640), *(chance.randrange(len(record) * 8) for _ in range(300))]:
        record[at // 8] ^= 1 << at % 8
        with pytest.raises((ChecksumMismatch, UnknownFormat)):
            decoded(tmp_path / "p", bytes(record))
        record[at // 8] ^= 1 << at % 8
    assert decoded(tmp_path / "p", bytes(record)) == data


def test_a_plane_whose_frame_is_as_long_as_the_plane() -> None:
    """Its length says that it is not compressed; so it must not be."""
    chance = random.Random(1)
    noise = chance.randbytes(128 << 10)  # a block that does not shrink, and one that saves what the frame costs
    plane = next(
        it
        for _ in range(4000)
        if len(it := noise + chance.randbytes(chance.randrange(300, 900)) + bytes(chance.randrange(5, 60)))
        == len(compression.compress(it, 1))
    )
    data = bytes(byte for pair in zip(plane, plane, strict=True) for byte in pair)
    parts = planes.split(data, 2, 1)
    assert planes.join(b"".join(parts), [len(part) for part in parts], len(data)) == data
