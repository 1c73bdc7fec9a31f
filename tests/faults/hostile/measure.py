"""Run one command line in a forked child, and say what it answered, what it cost and what it touched."""

from __future__ import annotations

import gc
import io
import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import msgpack

from kaivc.cli.main import main

MAX_CPU = 0.1
"""Seconds, the best of several tries."""
MAX_EXTRA = 32 << 20
"""Bytes of memory beyond what the process had."""
TRIES = 4
TIMEOUT = 60


@dataclass(frozen=True)
class Outcome:
    """How a command ended; ``code`` is its exit code, negative for a signal. ``extra`` in bytes, ``cpu`` in seconds."""

    argv: tuple[str, ...]
    code: int
    out: bytes
    err: bytes
    cpu: float
    extra: int

    @property
    def error(self) -> str:
        """The code of the error that was told, or empty."""
        for line in self.err.decode(errors="replace").split("\n"):
            if line.startswith("kai: "):
                return line.removeprefix("kai: ").split(":", 1)[0]
        return ""

    def problems(self, limit: float = MAX_CPU) -> list[str]:
        """What no answer to hostile input may be."""
        found = []
        if self.code < 0 or self.code > 130:
            found.append(f"ended by {self.code}")
        if b"Traceback" in self.err or b"fault of kai" in self.err or self.error == "E999":
            found.append(f"an untyped error: {self.err.decode(errors='replace')[-1500:]}")
        if self.code and not self.err and not self.out:
            found.append(f"exit {self.code} without a word")
        if self.argv[0] not in RAW:
            found += [f"on the terminal: {line!r}" for line in unsafe(self.out)[:3]]
        found += [f"on the terminal: {line!r}" for line in unsafe(self.err)[:3]]
        if len(self.err) > MAX_MESSAGE:
            found.append(f"an error of {len(self.err)} bytes")
        if self.extra > MAX_EXTRA:
            found.append(f"took {self.extra >> 20} MiB")
        if self.cpu > limit:
            found.append(f"took {self.cpu * 1000:.0f} ms")
        return found


RAW = frozenset(["cat", "diff", "__complete"])
"""They hand out bytes as they are."""
MAX_MESSAGE = 16 << 10


def unsafe(text: bytes) -> list[str]:
    """The lines that a terminal could obey, or show in another order."""
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError:
        return [repr(text[:200])]
    return [line[:300] for line in lines if not line.replace("\t", "").isprintable()]


def run(argv: tuple[str, ...], cwd: Path, env: dict[str, str] | None = None) -> Outcome:
    """The command in a child of this process, which is warm."""
    scratch = cwd.parent / "told"
    scratch.mkdir(exist_ok=True)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _child(argv, cwd, env or {}, write, scratch)
    os.close(write)
    with open(read, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    cpu, extra = msgpack.unpackb(told) if told else (0.0, 0)
    code = os.waitstatus_to_exitcode(status)
    return Outcome(argv, code, (scratch / "out").read_bytes(), (scratch / "err").read_bytes(), cpu, extra)


def _child(argv: tuple[str, ...], cwd: Path, env: dict[str, str], pipe: int, scratch: Path) -> None:
    code = 125
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(TIMEOUT)
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, resource.RLIM_INFINITY))
        os.chdir(cwd)
        os.environ |= env
        streams = [open(scratch / name, "wb") for name in ("out", "err")]  # noqa: SIM115 - they stay open
        sys.stdin = io.StringIO()
        sys.stdout, sys.stderr = (io.TextIOWrapper(each, encoding="utf-8", write_through=True) for each in streams)
        gc.freeze()  # a command has a process of its own: it does not go through what all tests before it left
        Path("/proc/self/clear_refs").write_text("5")
        before, start = _status("VmRSS"), time.process_time()
        code = main(list(argv))
        cost = time.process_time() - start, max(0, _status("VmHWM") - before)
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(pipe, msgpack.packb(cost))
    except BaseException:
        traceback.print_exc()
        code = 125
    finally:
        os._exit(code)


def _status(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(key))
