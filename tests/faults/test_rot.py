"""Bits flip and files are cut in everything below .kai: the right bytes or a typed error, and fsck says what is hit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kaivc.storage import pack
from tests.faults import rot
from tests.faults.rot import SMALL, Case, Patient, Tally
from tests.faults.rot_home import CATALOG, HOMES, WAL

ENOUGH = 200_000
FSCKS = 0.01
"""Of the cases, those after which every read is asked and fsck as well."""


def of_small(patient: Patient, name: str) -> Iterator[Case]:
    """Every bit, and every length."""
    size = len(patient.whole[name][0])
    for at in range(max(size, 1)):
        yield from (Case(name, at, bit) for bit in range(8))
    yield from (Case(name, length) for length in range(size))


def of_large(patient: Patient, name: str, flips: float, cuts: int, chance: random.Random) -> Iterator[Case]:
    """``flips`` for each byte and ``cuts`` lengths, without the payloads' insides for a pack."""
    size = len(patient.whole[name][0])
    for at in range(size):
        whole, part = divmod(flips, 1)
        count = int(whole) + (chance.random() < part)
        yield from (Case(name, at, bit) for bit in chance.sample(range(8), count))
    yield from (Case(name, length) for length in chance.sample(range(size), cuts))


def cases(patient: Patient, part: str, chance: random.Random) -> list[Case]:
    """All cases of one part of the run."""
    found: list[Case] = []
    for name in sorted(patient.whole):
        size = len(patient.whole[name][0])
        if part == "packs" and name.endswith(".pack"):
            found += of_small(patient, name) if size <= SMALL else of_large(patient, name, 0.1, 300, chance)
        elif part == "small" and not name.endswith(".pack") and size <= SMALL:
            found += of_small(patient, name)
        elif part == "catalog" and name == CATALOG:
            found += of_large(patient, name, 1.25, 3000, chance)
        elif part == "log" and name == WAL:
            found += of_large(patient, name, 0.9, 3000, chance)
        elif part == "log" and name.startswith(CATALOG):
            found += of_large(patient, name, 0.1, 300, chance)
    return found


PARTS = {
    "catalog-0": ("rest", "catalog", 0, 2),
    "catalog-1": ("pending", "catalog", 1, 2),
    "log": ("cut", "log", 0, 1),
    "packs": ("rest", "packs", 0, 1),
    "small": ("cut", "small", 0, 1),
}
"""Home, files, and which of how many slices of their cases."""


@pytest.mark.parametrize("part", PARTS)
def test_rot_is_told_or_does_no_harm(
    part: str, share: float, seed: int, figure: Callable[..., None], memory: Path
) -> None:
    """No wrong byte, no wrong name, no signal, no hang; what is not there any more, fsck says."""
    which, files, first, step = PARTS[part]
    patient, chance = _patient(which, memory), random.Random(seed)
    wanted = cases(patient, files, random.Random(5))[first::step]
    if share < 1 and files != "small":
        wanted = chance.sample(wanted, int(len(wanted) * share))
    patient.learn(sorted({case.path for case in wanted}))
    tally = rot.run(patient, wanted, seed, FSCKS, memory)
    figure(f"seed {seed}: {tally.line()}", flips_and_truncations=tally.cases)
    assert tally.cases == len(wanted)
    assert tally.cases >= ENOUGH * share * EXPECTED[files]
    _no_failure(tally)
    if files == "catalog":
        # What hides a row of the reflog is found by fsck only; each other name that is lost is missed.
        assert not [line for line in tally.absent if not _only_the_reflog(line)], "\n".join(tally.absent)


EXPECTED = {"catalog": 0.23, "log": 0.25, "packs": 0.23, "small": 0.01}
"""The share of all cases that a part has at least."""


def _patient(which: str, memory: Path) -> Patient:
    HOMES[which](memory / "home")
    return Patient(memory / "home")


def _no_failure(tally: Tally) -> None:
    assert not tally.failures, f"{len(tally.failures)} failures\n" + "\n".join(tally.failures[:20])


def _only_the_reflog(line: str) -> bool:
    return all(name.startswith("reflog") for name in line.rpartition(": ")[2].split(", "))


def test_a_pack_whose_checksums_are_not_compared_is_caught(
    monkeypatch: pytest.MonkeyPatch, memory: Path, seed: int
) -> None:
    """The mistake that this is all about: were it made, the test above would fail."""
    patient = _patient("rest", memory)
    wanted = [it for it in cases(patient, "packs", random.Random(5)) if patient.region(it).kind and it.bit >= 0]
    wanted = random.Random(seed).sample(wanted, 400)
    patient.learn(sorted({case.path for case in wanted}))
    _no_failure(rot.run(patient, wanted, seed, 0, memory))
    monkeypatch.setattr(pack.PackReader, "stored", _unchecked)
    with pytest.raises(AssertionError, match="is wrong"):
        _no_failure(rot.run(patient, wanted, seed, 0, memory))


def _unchecked(self: pack.PackReader, header: pack.Header, record: bytes = b"") -> bytes:
    return record[-header.payload_len - 8 : -8] or pack.read_at(self.fd, header.payload_len, header.payload_at)
