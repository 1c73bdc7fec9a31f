"""`cat`, `ls-tree` and `rev-parse` print what git prints of the exported agent, byte for byte."""

from __future__ import annotations

import base64
import json
import os
import random
from itertools import chain, combinations

import pytest

from kaivc.cli.main import main
from tests.interop.conftest import Subject
from tests.interop.judge import EVERYTHING, Sparse, git

FLAGS = ("-r", "-t", "-d", "-l", "-z", "--name-only")
DIRECTORIES = sorted({path.rpartition(b"/")[0] for path in EVERYTHING if b"/" in path})
CHOICES: list[list[bytes]] = [
    [],
    [b"."],
    [b"deep"],
    [b"deep/"],
    [b"./deep//er/"],
    [b"deep/er"],
    [b"deep", b"deep/er/st"],
    [b"deep/er/st", b"logic.py", b"deep"],
    [b"logic.py", b"logic.py", b"state"],
    [b"deep/er/link up", b"link"],
    [b"dangling", b"empty/../state/"],
]


def kai(subject: Subject, capsysbinary: pytest.CaptureFixture[bytes], *args: str | bytes) -> bytes:
    capsysbinary.readouterr()
    home = subject.agent.repository.layout.root
    code = main(["--home", home, *(os.fsdecode(arg) for arg in args)])
    out, err = capsysbinary.readouterr()
    assert code == 0, err
    return out


def flags() -> list[tuple[str, ...]]:
    every = chain.from_iterable(combinations(FLAGS, number) for number in range(len(FLAGS) + 1))
    return [some for some in every if not {"-l", "--name-only"} <= set(some)]


@pytest.mark.parametrize("some", flags(), ids=" ".join)
def test_a_listing_is_gits(subject: Subject, capsysbinary: pytest.CaptureFixture[bytes], some: tuple[str, ...]) -> None:
    pick = random.Random(" ".join(some))
    whole = pick.sample(sorted(EVERYTHING), 4) + [it + pick.choice([b"", b"/"]) for it in pick.sample(DIRECTORIES, 2)]
    for paths in [*pick.sample(CHOICES, 5), [], whole]:
        ours = kai(subject, capsysbinary, "ls-tree", *some, "judged@v1.0.0", "--", *paths)
        assert ours == git(subject.bare, "ls-tree", *some, "v1.0.0", "--", *paths), paths


def test_a_listing_as_a_document(subject: Subject, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    found = json.loads(kai(subject, capsysbinary, "--json", "ls-tree", "-r", "-t", "judged@v1.0.0"))
    lines = git(subject.bare, "ls-tree", "-r", "-t", "-l", "-z", "v1.0.0").split(b"\0")[:-1]
    assert len(found["entries"]) == len(lines)
    for entry, line in zip(found["entries"], lines, strict=True):
        head, path = line.split(b"\t", 1)
        exact = base64.b64decode(entry["path_b64"]) if "path_b64" in entry else entry["path"].encode()
        size = "-" if entry["size"] is None else str(entry["size"])
        assert [entry["mode"], entry["type"], entry["oid"], size] == head.decode().split()
        assert exact == path


def test_each_file_is_gits(subject: Subject, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    for path, content in EVERYTHING.items():
        if not isinstance(content, Sparse):
            ours = kai(subject, capsysbinary, "cat", "judged@v1.0.0", b"./" + path)
            assert ours == git(subject.bare, "cat-file", "blob", b"v1.0.0:" + path), path


def test_ids_are_gits(subject: Subject, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    args = ("judged@v1.0.0", "judged", "judged@v1.0.0", "judged@^2.0.0-rc")
    names = ("v1.0.0", "current", "v1.0.0", "v2.0.0-rc.1")
    for option, kind in (((), "commit"), (("--tree",), "tree")):
        ids = git(subject.bare, "rev-parse", *(f"{name}^{{{kind}}}" for name in names))
        assert kai(subject, capsysbinary, "rev-parse", *option, *args) == ids
    assert kai(subject, capsysbinary, "rev-parse", "--tag", args[0]) == git(subject.bare, "rev-parse", "v1.0.0")
    short = kai(subject, capsysbinary, "rev-parse", "--short", args[0]).decode().strip()
    assert git(subject.bare, "rev-parse", short) == git(subject.bare, "rev-parse", "v1.0.0^{commit}")
