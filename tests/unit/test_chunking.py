"""How large blobs are cut: the pieces are the bytes, and what did not change makes no new piece."""

import io
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaivc.storage.chunking import MAX_CHUNK, MIN_CHUNK, PAGES, WINDOW, Listing, chunk_id, cut, zeros_id

KIB = 1 << 10
BASE = random.Random(1).randbytes(3 << 20)


class Cut(NamedTuple):
    """How one blob was cut: the listing, the ids of what is new, and what each of these stands in place of."""

    listing: list[tuple[bytes, int]]
    fresh: dict[bytes, bytes | None]


def cut_up(data: bytes, old: Listing = ()) -> Cut:
    """Cut, and compare what comes out with ``data`` and with the ids."""
    listing, fresh, pieces, taken = [], {}, [], []
    known = {id_ for id_, _ in old}
    for batch in cut(io.BytesIO(data), old, lambda view: taken.append(bytes(view))):
        for piece in batch:
            pieces.append(bytes(piece.data))
            listing.append((piece.id, len(piece.data)))
            assert chunk_id(pieces[-1]) == piece.id
            assert piece.is_old == (piece.id in known) or not piece.is_old
            if not piece.is_old:
                fresh[piece.id] = piece.like
                assert piece.like is None or piece.like in known
    assert b"".join(pieces) == data == b"".join(taken)
    assert all(MIN_CHUNK <= size <= MAX_CHUNK for _, size in listing[:-1])
    return Cut(listing, fresh)


def noise(size: int, seed: int = 2) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, MIN_CHUNK, MAX_CHUNK + 1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 5])
def test_any_size_is_cut_and_cut_again_as_it_was(size: int) -> None:
    data = noise(size)
    first = cut_up(data)
    assert cut_up(data, first.listing) == (first.listing, {})


def test_a_source_that_gives_little_at_a_time_is_cut_alike() -> None:
    class Slow:
        def __init__(self) -> None:
            self.file = io.BytesIO(BASE)

        def read(self, size: int, /) -> bytes:
            return self.file.read(min(size, 10_007))

    found = [(piece.id, len(piece.data)) for batch in cut(Slow()) for piece in batch]
    assert found == cut_up(BASE).listing


# What is done to the bytes, and how many new chunks that may make.
EDITS = {
    "a byte is overwritten": (lambda data: data[:1_500_000] + b"x" + data[1_500_001:], 1),
    "a few bytes are overwritten here and there": (
        lambda data: b"".join(data[at : at + 600_000 - 5] + b"other" for at in range(0, len(data), 600_000)),
        7,
    ),
    "a little is inserted in the middle": (lambda data: data[:1_500_000] + b"inserted" + data[1_500_000:], 3),
    "much is inserted in the middle": (lambda data: data[:1_500_000] + noise(800_000) + data[1_500_000:], 40),
    "something is inserted at the start": (lambda data: b"inserted" + data, 3),
    "a stretch is cut out": (lambda data: data[:1_500_000] + data[1_700_000:], 3),
    "a stretch moves to the front": (lambda data: data[2_000_000:2_500_000] + data[:2_000_000] + data[2_500_000:], 8),
    "something is appended": (lambda data: data + b"appended", 1),
    "the end is cut off": (lambda data: data[:-300_000], 1),
    "a hole is torn": (lambda data: data[:500_000] + bytes(1 << 20) + data[(1 << 20) + 500_000 :], 9),
    "all is new": (lambda data: noise(len(data)), 100),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_makes_few_new_chunks(name: str) -> None:
    edit, most = EDITS[name]
    first = cut_up(BASE)
    second = cut_up(edit(BASE), first.listing)
    assert len(second.fresh) <= most
    if most < 40:
        assert all(like is not None for like in second.fresh.values())


def edits() -> st.SearchStrategy[list[tuple[str, float, int, int]]]:
    kinds = st.sampled_from(["insert", "delete", "overwrite", "append", "truncate", "zero"])
    sizes = st.sampled_from([1, 100, 5_000, 70_000, 400_000])
    return st.lists(st.tuples(kinds, st.floats(0, 1), sizes, st.integers(0, 1000)), min_size=1, max_size=5)


def applied(data: bytes, edit: tuple[str, float, int, int]) -> bytes:
    kind, where, size, seed = edit
    at = int(len(data) * where)
    match kind:
        case "insert":
            return data[:at] + noise(size, seed) + data[at:]
        case "delete":
            return data[:at] + data[at + size :]
        case "overwrite":
            return data[:at] + noise(size, seed) + data[at + size :]
        case "append":
            return data + noise(size, seed)
        case "truncate":
            return data[: len(data) - size]
        case _:
            return data[:at] + bytes(size) + data[at + size :]


@settings(max_examples=25, deadline=None)
@given(edits(), st.booleans())
def test_any_edits_one_after_the_other(todo: list[tuple[str, float, int, int]], is_database: bool) -> None:
    data = (b"SQLite format 3\0" if is_database else b"") + BASE[: 1 << 20]
    last = cut_up(data)
    for edit in todo:
        data = applied(data, edit)
        before = len(last.listing)
        last = cut_up(data, last.listing)
        # a chunk at each end of what was touched, and what lies between
        touched = 0 if edit[0] in ("delete", "truncate") else edit[2]
        if not is_database and edit[0] != "zero":
            assert len(last.fresh) <= 8 + touched // MIN_CHUNK, (edit, before, len(last.listing))


def test_many_appended_versions_leave_no_crumbs() -> None:
    data, listing = BASE[: 1 << 20], cut_up(BASE[: 1 << 20]).listing
    for seed in range(200):
        data += noise(700, seed)
        last = cut_up(data, listing)
        assert len(last.fresh) <= 2
        listing = last.listing
    assert len(listing) <= len(data) // MIN_CHUNK + 2
    assert len(listing) <= 1.5 * len(cut_up(data).listing)


def test_repeated_chunks_are_cut_as_they_were() -> None:
    data = BASE[:300_000] + bytes(3 << 20) + BASE[:300_000] + bytes(1 << 20)
    first = cut_up(data)
    assert zeros_id() in dict(first.listing)
    assert len(first.fresh) < len(first.listing)
    assert cut_up(data, first.listing) == (first.listing, {})
    second = cut_up(data[: 1 << 20] + b"x" + data[(1 << 20) + 1 :], first.listing)
    assert len(second.fresh) <= 2


# ------------------------------------------------------------ databases


def database(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE facts (id INTEGER PRIMARY KEY, body TEXT, used INTEGER)")
    chance = random.Random(5)
    rows = ((f"fact {chance.random()} " * 20, 0) for _ in range(6000))
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO facts (body, used) VALUES (?, ?)", rows)
    connection.execute("COMMIT")
    return connection


def changes(connection: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """Change rows; how many pages that touches at most, and whether it was done in place."""
    for number in range(1, 6000, 1000):
        connection.execute("UPDATE facts SET used = used + 1 WHERE id = ?", (number,))
    yield 7, 1
    for _ in range(50):
        connection.execute("INSERT INTO facts (body, used) VALUES ('one more', 0)")
    yield 4, 1
    connection.execute("DELETE FROM facts WHERE id BETWEEN 2000 AND 2100")
    yield 30, 1
    connection.execute("VACUUM")
    yield 0, 0


def test_a_database_changes_by_the_pages_that_changed(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    connection = database(path)
    listing = cut_up(path.read_bytes()).listing
    assert {size for _, size in listing[:-1]} == {PAGES}
    for pages, in_place in changes(connection):
        before = listing
        last = cut_up(path.read_bytes(), before)
        listing = last.listing
        assert {size for _, size in listing[:-1]} == {PAGES}
        if in_place:
            places = {number for number, (old, new) in enumerate(zip(before, listing, strict=False)) if old != new}
            assert len(last.fresh) <= pages + abs(len(listing) - len(before))
            assert {last.fresh[listing[number][0]] for number in places} <= {before[number][0] for number in places}
    connection.close()


def test_a_file_that_becomes_a_database_is_cut_as_one() -> None:
    first = cut_up(BASE)
    second = cut_up(b"SQLite format 3\0" + BASE, first.listing)
    assert {size for _, size in second.listing[:-1]} == {PAGES}
    third = cut_up(BASE, second.listing)
    assert b"" not in dict(third.listing)
