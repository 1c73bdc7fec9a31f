"""Threads of one process that encode and decode at once: a server answers in many."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from kaivc.storage import chunking, compression
from tests.conftest import ROOT

THREADS = 4
SECONDS = 2.0


def test_frames_are_made_and_read_in_many_threads() -> None:
    """In a process of its own: what two threads share unawares ends in a signal as often as in an error."""
    done = subprocess.run([sys.executable, "-m", "tests.unit.test_threads"], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"nothing wrong\n", b"")


def frames(seed: int) -> None:
    chance = random.Random(seed)
    contents = [(chance.randbytes(2_000) * 60)[: chance.randrange(1_000, 120_000)] for _ in range(20)]
    for data in contents:
        assert compression.decompress(compression.compress(data, 1), len(data)) == data
        text = b"object \ntype commit\n" + data[:300]
        assert compression.decompress(compression.compress_text(text, 1), len(text), compression.TEXT) == text
        assert compression.decompress(compression.compress_after(text, data), len(data), text) == data


def chunks(seed: int) -> None:
    data = random.Random(seed % 2).randbytes(3 << 20)
    cut = [[(piece.id, len(piece.data)) for piece in batch] for batch in chunking.cut(io.BytesIO(data))]
    assert cut == CUT.setdefault(seed % 2, cut)
    assert (
        b"".join(bytes(it.data) for batch in chunking.cut(io.BytesIO(data[:100_000])) for it in batch) == data[:100_000]
    )


CUT: dict[int, list[list[tuple[bytes, int]]]] = {}


def in_threads(act: Callable[[int], None]) -> list[BaseException]:
    """What went wrong in threads that do the same for a while."""
    wrong: list[BaseException] = []
    until = time.monotonic() + SECONDS / 2

    def work(number: int) -> None:
        try:
            while time.monotonic() < until:
                act(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


if __name__ == "__main__":
    found = [*in_threads(frames), *in_threads(chunks)]
    print(found or "nothing wrong")
