"""The command line, in this process or in one of its own."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.cli.schema import load_schema, problems

KAI = [sys.executable, "-m", "kaivc"]
TIMEOUT = 30


@dataclass(frozen=True)
class Result:
    """How a command line ended."""

    code: int
    out: str
    err: str

    def document(self, name: str) -> Any:
        """What --json printed, held to its schema."""
        value = json.loads(self.out)
        assert not problems(value, load_schema(name)), value
        return value

    def error(self) -> Any:
        """What --json said went wrong, held to its schema."""
        value = json.loads(self.err)
        assert not problems(value, load_schema("error")), value
        return value["error"]


def process(
    *args: str,
    cwd: Path | None = None,
    data: str | None = None,
    env: dict[str, str] | None = None,
    stdout: IO[bytes] | int = subprocess.PIPE,
) -> Result:
    """`python -m kaivc ARGS` to its end."""
    done = subprocess.run(
        [*KAI, *args],
        cwd=cwd,
        input=data or "",
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, **(env or {})},
        check=False,
    )
    return Result(done.returncode, done.stdout or "", done.stderr)


def on_a_terminal(
    args: Sequence[str], cwd: Path, answers: Sequence[tuple[str, str]] = (), env: dict[str, str] | None = None
) -> Result:
    """Run with a pseudo-terminal as stdin, stdout and stderr; answer each prompt when it is seen."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execve(sys.executable, [*KAI, *args], {**os.environ, "TERM": "xterm", **(env or {})})  # noqa: S606 - no shell is meant
    seen, todo, until = b"", list(answers), time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        if not select.select([fd], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(fd, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            break
        if not piece:
            break
        seen += piece
        if todo and todo[0][0].encode() in seen:
            os.write(fd, todo.pop(0)[1].encode(errors="surrogateescape"))
    os.close(fd)
    return Result(
        os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]),
        seen.decode(errors="backslashreplace").replace("\r\n", "\n"),
        "",
    )
