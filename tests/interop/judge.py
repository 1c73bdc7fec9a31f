"""Git as judge: what it says of an exported agent; and a workspace with every kind of file."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import kaivc
from kaivc.api import Agent, Home

AUTHOR = "Ada Løvelace <ada@example.invalid>"
FORMATS = ("sha1", "sha256")


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: bytes


@dataclass(frozen=True)
class Program:
    """An executable file."""

    data: bytes


@dataclass(frozen=True)
class Sparse:
    """A file that is a hole, with its last bytes behind it."""

    hole: int
    end: bytes

    @property
    def data(self) -> bytes:
        return bytes(self.hole) + self.end


Content = bytes | Link | Program | Sparse
Files = Mapping[bytes, Content]
LARGE = random.Random(7).randbytes(3 << 20)

EVERYTHING: Files = {
    b"logic.py": b"print('hello')\n",
    b"config.yaml": b"model: small\n",
    b"state.json": b'{"turn": 1}\n',
    b"state/memory.txt": b"a\nb\n",
    b"requirements.txt": b"",
    b"bin/run": Program(b"#!/bin/sh\nexec true\n"),
    b"empty": b"",
    b"link": Link(b"logic.py"),
    b"deep/er/link up": Link(b"../../state/memory.txt"),
    b"dangling": Link(b"not there"),
    b"deep/er/st/of/all/file": b"x",
    # Git orders a directory as if its name ended in a slash.
    b"order": b"",
    b"order.d/a": b"",
    b"order-d": b"",
    b"order0": b"",
    b"orde/r": b"",
    b"spa ce/tab\tnew\nline": b"odd\n",
    b'quo"te\\back': b"odd\n",
    b"-rf": b"odd\n",
    b"--": b"odd\n",
    b" lead and trail ": b"odd\n",
    b"na\xefve \xff\xfe/\x80": b"not UTF-8\n",
    "日本/né.txt".encode(): b"UTF-8\n",
    b"crlf.txt": b"a\r\nb\r\nno end",
    b"binary": bytes(range(256)) * 40,
    b"large": LARGE,
    b"sparse": Sparse(5 << 20, b"end"),
    b"a copy of large": LARGE,
}

_GONE = {b"empty", b"deep/er/st/of/all/file", b"order-d", b"orde/r"}

CHANGED: Files = {
    **{path: content for path, content in EVERYTHING.items() if path not in _GONE},
    b"logic.py": b"print('hello')\nprint('again')\n",
    b"bin/run": b"#!/bin/sh\nexec true\n",
    b"crlf.txt": Program(b"a\r\nb\nno end"),
    b"link": Link(b"config.yaml"),
    b"dangling": b"a file now\n",
    b"order": Link(b"order0"),
    b"order-d/is/a directory now": b"x\n",
    b"orde": b"a file now\n",
    b"binary": bytes(range(255)) * 40,
    b"large": LARGE[: 1 << 20] + b"inserted" + LARGE[1 << 20 :],
    b"na\xefve \xff\xfe/\x80": b"not UTF-8, changed\n",
    b"spa ce/tab\tnew\nline": b"",
    b"new \xff": b"new\n",
}


def write(workspace: Path, files: Files) -> None:
    """Let the workspace hold these files and no others."""
    empty(workspace)
    for name, content in files.items():
        path = Path(os.fsdecode(os.path.join(os.fsencode(workspace), name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            os.symlink(content.target, os.fsencode(path))
        elif isinstance(content, Sparse):
            with path.open("wb") as file:
                file.seek(content.hole)
                file.write(content.end)
        else:
            path.write_bytes(data_of(content))
            path.chmod(0o755 if isinstance(content, Program) else 0o644)


def empty(directory: Path) -> None:
    for child in directory.iterdir():
        if child.is_dir() and not child.is_symlink():
            empty(child)
            child.rmdir()
        else:
            child.unlink()


def data_of(content: Content) -> bytes:
    """The bytes of its blob."""
    match content:
        case Link(target):
            return target
        case Program() | Sparse():
            return content.data
    return content


def mode_of(content: Content) -> bytes:
    return {Link: b"120000", Program: b"100755"}.get(type(content), b"100644")


def found_in(directory: str | os.PathLike[str], *, without: str = "") -> dict[bytes, tuple[bytes, bytes]]:
    """Mode and bytes of every file below a directory, by path."""
    root = os.fsencode(directory)
    found = {}
    for at, directories, names in os.walk(root):
        links = [name for name in directories if os.path.islink(os.path.join(at, name))]
        directories[:] = [name for name in directories if name != os.fsencode(without) and name not in links]
        for name in names + links:
            path = os.path.join(at, name)
            if os.path.islink(path):
                found[os.path.relpath(path, root)] = b"120000", os.readlink(path)
            else:
                mode = b"100755" if os.stat(path).st_mode & 0o100 else b"100644"
                found[os.path.relpath(path, root)] = mode, Path(os.fsdecode(path)).read_bytes()
    return found


def expected_of(files: Files) -> dict[bytes, tuple[bytes, bytes]]:
    """What ``found_in`` should find of files."""
    return {path: (mode_of(content), data_of(content)) for path, content in files.items()}


# ---------------------------------------------------------------- git and kai


def git(directory: str | os.PathLike[str], *words: str | bytes, stdin: bytes = b"") -> bytes:
    """What git prints; it must end well."""
    done = subprocess.run(["git", "-C", directory, *words], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def records(output: bytes) -> list[bytes]:
    """The fields of ``-z`` output."""
    assert not output or output.endswith(b"\0")
    return output.split(b"\0")[:-1]


def make_home(path: Path, object_format: str, **variables: str) -> Home:
    """A home whose author and environment are ours alone."""
    kaivc.init(path, object_format).close()
    environ = {"HOME": os.environ["HOME"], "PATH": os.environ["PATH"], "KAI_AUTHOR": AUTHOR, **variables}
    return kaivc.open(path, environ=environ)


def exported(agent: Agent, directory: Path) -> Path:
    """A bare repository that git finds no fault with."""
    agent.export(directory)
    check(directory)
    return directory


def check(directory: Path) -> None:
    """Let git look for faults; not even a notice will do."""
    done = subprocess.run(
        ["git", "-C", directory, "fsck", "--full", "--strict", "--no-dangling", "--no-progress"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def lines_of(tree: bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """(mode, type, id, path) of the records of ``git ls-tree -z``."""
    for record in records(tree):
        head, _, path = record.partition(b"\t")
        mode, kind, oid = head.split(b" ")
        yield mode, kind, oid, path
