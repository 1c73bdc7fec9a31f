"""`kai serve` as a process of its own, and the plain requests that a stranger's program would make."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from kaivc import wire
from tests.cli.doors import KAI

PATH = "/kai/v1"
CONTENT = "application/x-kai-transfer"


@dataclass
class Daemon:
    """A server that runs."""

    process: subprocess.Popen[str]
    told: dict[str, Any]
    log: Path
    argv: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.told["port"])

    @property
    def url(self) -> str:
        return str(self.told["url"])

    def lines(self, count: int) -> list[dict[str, Any]]:
        """The access log, once it has so many lines: each is written when its answer has gone."""
        deadline = time.monotonic() + 10
        while len(found := self.log.read_text().splitlines()) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        return [json.loads(line) for line in found]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """How it ended, and what it said on stderr."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


@contextmanager
def daemon(
    home: Path, tmp: Path, *options: str, env: Mapping[str, str] | None = None, python: str | None = None
) -> Iterator[Daemon]:
    """Serve a home, by `kai` or a script that takes its arguments; whatever happens, the process is gone after."""
    log = tmp / f"access-{os.urandom(4).hex()}.log"
    kai = KAI if python is None else [sys.executable, "-c", python]
    argv = [*kai, "--home", str(home), "--json", "serve", "--listen", "127.0.0.1:0", "--access-log", str(log), *options]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    try:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if line.startswith("}"):
                break
        else:
            raise AssertionError(process.communicate()[1])
        yield Daemon(process, json.loads(text), log, argv)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@dataclass(frozen=True)
class Answer:
    """What came back: a message, or the error in it, and the bytes behind."""

    status: int
    message: dict[str, Any]
    raw: bytes
    headers: http.client.HTTPMessage

    @property
    def code(self) -> str | None:
        error = self.message.get("error")
        return None if error is None else str(error["code"])


def ask(
    port: int, token: str | None, verb: str, /, *, data: bytes | None = None, body: bytes | None = None, **fields: Any
) -> Answer:
    """One question over a connection of its own; ``body`` stands in for all that would be sent."""
    sent = wire.pack_message({"v": 1, "verb": verb, **fields}) if body is None else body
    if data is not None:
        sent += b"".join(wire.pack_data([data]))
    headers = {"Content-Type": CONTENT} | ({"Authorization": f"Bearer {token}"} if token else {})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", PATH, body=sent, headers=headers)
        response = connection.getresponse()
        raw = response.read()
        return Answer(response.status, first_message(raw), raw, response.headers)
    finally:
        connection.close()


def first_message(raw: bytes) -> dict[str, Any]:
    """The message that an answer begins with."""
    kind, length = wire.FRAME.unpack_from(raw)
    assert kind == wire.MESSAGE
    found: dict[str, Any] = msgpack.unpackb(raw[wire.FRAME.size : wire.FRAME.size + length], strict_map_key=False)
    return found
