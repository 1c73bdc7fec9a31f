"""Our server on a port of its own, in this process, and real git as its client."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn

from kaivc import access
from kaivc.access import Token
from kaivc.repository import OpenHome
from kaivc.server import app
from kaivc.server.accesslog import AccessLog
from kaivc.server.endpoint import House
from kaivc.server.guard import Guard
from kaivc.server.limits import Limits


def token(home: OpenHome, role: str = "maintainer", agents: tuple[str, ...] = ("*",)) -> str:
    """A new token of a home."""
    secret = access.new_secret()
    name = os.urandom(6).hex()
    made = Token(
        name, f"t{name}", access.digest_of(secret), "Tess Token <tess@example.org>", access.grant_of(role, agents), 0
    )
    access.change(home, lambda rules: access.with_token(rules, made))
    return secret


@contextmanager
def served(home: OpenHome, *, anonymous: bool = False, limits: Limits | None = None) -> Iterator[Site]:
    """A home that is served."""
    bounds = limits or Limits()
    with TemporaryDirectory() as directory:
        log = Path(directory, "access.log")
        with (
            AccessLog(str(log)) as written,
            House(home, Guard(home.layout, bounds, anonymous=anonymous), bounds, written) as house,
            running(app.build(house)) as place,
        ):
            yield Site(home, place, log)


class Site:
    """Where a home is served; URLs hold a maintainer's token unless another one, or none, is named."""

    def __init__(self, home: OpenHome, place: str, log: Path) -> None:
        self.place = place
        self.log = log
        self.secret = token(home)

    def url(self, name: str, secret: str | None = None) -> str:
        who = self.secret if secret is None else secret
        return f"http://{f'git:{who}@' if who else ''}{self.place}/{name}.git"


@contextmanager
def running(application: Callable[..., object]) -> Iterator[str]:
    """HOST:PORT of an ASGI application that runs."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, log_level="critical", lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


def git(*words: str | os.PathLike[str], at: Path | None = None, ok: bool = True, stdin: bytes = b"") -> str:
    """What git prints, on both streams; it must succeed, or fail."""
    where = ["-C", os.fspath(at)] if at is not None else []
    done = subprocess.run(["git", *where, *words], check=False, input=stdin, capture_output=True, timeout=120)
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert (done.returncode == 0) is ok, text
    return text.strip()
