"""Files with holes: every byte comes back, and the holes are holes again."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaivc.materialise import HOLE, _sparse
from kaivc.vfs import Vfs

BLOCK = len(HOLE)


def written(path: Path, pieces: list[bytes]) -> os.stat_result:
    """Write pieces to a new file, compare, and take its status."""
    vfs = Vfs()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    put = _sparse(vfs, fd)
    for piece in pieces:
        put(piece)
    vfs.set_size(fd, sum(map(len, pieces)))
    os.close(fd)
    assert path.read_bytes() == b"".join(pieces)
    return path.stat()


def runs() -> st.SearchStrategy[list[tuple[bool, int]]]:
    sizes = st.one_of(st.integers(1, 3 * BLOCK), st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 16 * BLOCK]))
    return st.lists(st.tuples(st.booleans(), sizes), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(runs(), min_size=1, max_size=4))
def test_any_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, shape: list[list[tuple[bool, int]]]) -> None:
    chance = random.Random(1)
    pieces = [b"".join(bytes(size) if zeros else chance.randbytes(size) for zeros, size in piece) for piece in shape]
    written(tmp_path_factory.mktemp("sparse") / "file", pieces)


def test_blocks_of_zeros_take_no_room(tmp_path: Path) -> None:
    noise = random.Random(2).randbytes(BLOCK)
    pieces = [noise + bytes(62 * BLOCK) + noise, bytes(64 * BLOCK), bytes(10 * BLOCK) + noise]
    status = written(tmp_path / "file", pieces)
    assert status.st_size == (64 + 64 + 11) * BLOCK
    assert status.st_blocks * 512 <= 8 * BLOCK
