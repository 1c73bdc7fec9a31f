"""Records and packs: what is written comes back, what is damaged is said, nothing is truncated."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc.errors import ChecksumMismatch, KaiError, StorageFailed, UnknownFormat
from kaivc.storage import compression
from kaivc.storage.pack import MAGIC, PackReader, PackWriter, RecordKind, encode, scan
from kaivc.vfs import Vfs

KINDS = [kind for kind in RecordKind if kind != RecordKind.BLOCK]  # whose header lists what lies in it
RECORDS = st.lists(st.tuples(st.sampled_from(KINDS), st.binary(max_size=40), st.binary(max_size=3000)))


@given(records=RECORDS)
def test_records_come_back(tmp_path_factory: pytest.TempPathFactory, records: list[tuple[int, bytes, bytes]]) -> None:
    path = str(tmp_path_factory.mktemp("pack") / "one.pack")
    writer = PackWriter.create(Vfs(), path)
    places = [writer.add(kind, id_, data, 1) for kind, id_, data in records]
    writer.sync()
    writer.close()
    reader = PackReader.open(path)
    for where, (kind, id_, data) in zip(places, records, strict=True):
        header = reader.header(where.offset)
        assert (header.kind, header.id, header.size, header.where) == (kind, id_, len(data), where)
        assert reader.payload(header) == data
    assert [header.where for header in scan(reader.fd, path, len(MAGIC), os.path.getsize(path))] == places
    reader.close()


def make(path: Path, count: int = 20) -> list[bytes]:
    writer = PackWriter.create(Vfs(), str(path))
    chance = random.Random(1)
    blobs = [chance.randbytes(50) * chance.randrange(1, 40) for _ in range(count)]
    for number, blob in enumerate(blobs):
        writer.add(RecordKind.BLOB, b"%032d" % number, blob, 1)
    writer.seal()
    writer.close()
    return blobs


def read_all(path: Path) -> list[bytes]:
    reader = PackReader.open(str(path))
    try:
        headers = list(scan(reader.fd, str(path), len(MAGIC), path.stat().st_size))
        return [reader.payload(header) for header in headers if header.kind == RecordKind.BLOB]
    finally:
        reader.close()


def test_a_sealed_pack_lists_its_records(tmp_path: Path) -> None:
    blobs = make(tmp_path / "p")
    assert read_all(tmp_path / "p") == blobs


def test_no_flipped_bit_reads_back_wrong(tmp_path: Path) -> None:
    blobs = make(tmp_path / "p", 5)
    data = (tmp_path / "p").read_bytes()
    chance = random.Random(2)
    for _ in range(1500):
        bit = chance.randrange(len(data) * 8)
        spoiled = bytearray(data)
        spoiled[bit // 8] ^= 1 << bit % 8
        (tmp_path / "s").write_bytes(spoiled)
        try:
            found = read_all(tmp_path / "s")
        except KaiError:
            continue
        assert found == blobs


def test_no_cut_reads_back_wrong(tmp_path: Path) -> None:
    blobs = make(tmp_path / "p", 5)
    data = (tmp_path / "p").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "s").write_bytes(data[:length])
        try:
            found = read_all(tmp_path / "s")
        except KaiError:
            continue
        assert found == blobs[: len(found)]


def test_a_file_that_is_no_pack(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"something else")
    with pytest.raises(UnknownFormat):
        PackReader.open(str(tmp_path / "p"))


def test_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    record = bytearray(encode(RecordKind.BLOB, b"i", b"data", 1))
    record[3] = 99
    import struct

    import xxhash

    end = 16 + struct.unpack_from("<H", record, 4)[0]
    record[end : end + 4] = xxhash.xxh3_64_intdigest(bytes(record[:end])).to_bytes(8, "little")[:4]
    (tmp_path / "p").write_bytes(MAGIC + record)
    reader = PackReader.open(str(tmp_path / "p"))
    with pytest.raises(UnknownFormat):
        reader.payload(reader.header(len(MAGIC)))


def test_a_writer_that_failed_writes_no_more(tmp_path: Path) -> None:
    class Full(Vfs):
        def write(self, fd: int, data: bytes | memoryview) -> None:
            raise StorageFailed("no")

    writer = PackWriter.create(Full(), str(tmp_path / "p"))
    writer.add(RecordKind.BLOB, b"i", b"data", 1)
    for _ in range(2):
        with pytest.raises(StorageFailed):
            writer.sync()
    assert writer.failed


@given(data=st.binary(min_size=1, max_size=5000), size=st.integers(0, 6000))
def test_a_frame_holds_what_is_said_or_is_refused(data: bytes, size: int) -> None:
    frame = compression.compress(data, 1)
    assert compression.decompress(frame, len(data)) == data
    if size != len(data):
        with pytest.raises(ChecksumMismatch):
            compression.decompress(frame, size)
    with pytest.raises(ChecksumMismatch):
        compression.decompress(frame + b"x", len(data))


def test_a_bomb_is_refused_at_once() -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28))
    with pytest.raises(ChecksumMismatch):
        compression.decompress(bomb, 1000)
    unstated = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(1 << 20))
    with pytest.raises(ChecksumMismatch):
        compression.decompress(unstated, 1000)
