"""What carries a transfer between two homes: a directory, ssh, HTTP, a bundle. One line of ``CARRIERS`` for each."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import kaivc
from kaivc import api
from kaivc.api import Home
from kaivc.remotes import connect
from kaivc.remotes.base import Remote
from tests.conftest import ROOT
from tests.engine.homes import ENVIRON, Ticking, open_home
from tests.remotes import githosts
from tests.server.loopback import token

PROGRAM = f"{shlex.quote(sys.executable)} -m kaivc"


@dataclass
class Counter:
    """Counts the bytes that arrive, as the progress of a command tells them."""

    received: int = 0

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if what == "receiving":
            self.received = done


@dataclass
class Link:
    """A way to the home at ``far``: its URL, and what a client needs to go there.

    ``publish`` lets the others see what the home holds now, where they do not see it at once.
    """

    far: Path
    url: str
    flags: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    publish: Callable[[], None] = lambda: None
    writable: bool = True

    def open(self, path: Path, counter: Counter | None = None) -> Home:
        """A home that can go there."""
        silent = kaivc.ports.silent
        environ = {**ENVIRON, **self.environ}
        return kaivc.open(path, environ=environ, clock=Ticking(), flags=self.flags, progress=counter or silent)

    def clone(self, path: Path, **words: object) -> Home:
        """A home that is made of what is there."""
        self.publish()
        environ = {**ENVIRON, **self.environ}
        api.clone(self.url, path, environ=environ, clock=Ticking(), flags=self.flags, **words)  # type: ignore[arg-type]
        return self.open(path)

    def fresh(self, path: Path, object_format: str) -> Home:
        """A new home that has it as ``origin``."""
        kaivc.init(path, object_format, environ=ENVIRON, clock=Ticking()).close()
        home = self.open(path)
        home.remote_add("origin", self.url)
        return home

    @contextmanager
    def remote(self, home: Home) -> Iterator[Remote]:
        """A connection."""
        self.publish()
        found = connect(home._context(lambda text, secret: None), self.url)
        try:
            yield found
        finally:
            found.close()


Way = Callable[[Path], AbstractContextManager[Link]]
"""From the path of a home to a way there."""


@contextmanager
def by_path(far: Path) -> Iterator[Link]:
    """A directory of this machine."""
    yield Link(far, str(far))


@contextmanager
def by_pipes(far: Path) -> Iterator[Link]:
    """``kai serve --stdio`` behind something that is called like ssh, and only runs what it is told."""
    program = far.parent / "ssh"
    kai = far.parent / "kai"
    kai.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {PROGRAM} "$@"\n')
    program.write_text("#!/bin/sh\n" + 'for last; do :; done\nexec sh -c "$last"\n')
    for each in (kai, program):
        each.chmod(0o755)
    yield Link(far, f"ssh://nowhere{far}", {"ssh.command": str(program), "ssh.kai": str(kai)})


class Sshd:
    """One sshd for all tests of a session."""

    def __init__(self, host: githosts.Host) -> None:
        self._prefix = host.prefix.removeprefix("git+")
        self._root = host.root

    @contextmanager
    def __call__(self, far: Path) -> Iterator[Link]:
        """ssh to this machine."""
        program, kai = self._root / "ssh-of-the-test", self._root / "kai-of-the-test"
        program.write_text(f'#!/bin/sh\nexec ssh -F {shlex.quote(str(self._root))}/ssh/ssh.conf "$@"\n')
        environ = shlex.join(f"{key}={value}" for key, value in {**ENVIRON, "PYTHONPATH": str(ROOT)}.items())
        kai.write_text(f'#!/bin/sh\nexec env -i {environ} {PROGRAM} "$@"\n')
        for each in (program, kai):
            each.chmod(0o755)
        yield Link(far, f"{self._prefix}{far}", {"ssh.command": str(program), "ssh.kai": str(kai)})


@contextmanager
def by_http(far: Path) -> Iterator[Link]:
    """``kai serve``, a process of its own; the second time at the port of the first."""
    with closing(open_home(far)) as home:
        secret = token(home.opened, "admin")
    port = far.parent / "port"
    listen = f"127.0.0.1:{port.read_text() if port.exists() else 0}"
    argv = [
        sys.executable,
        "-m",
        "kaivc",
        "--home",
        str(far),
        "--json",
        "serve",
        "--listen",
        listen,
        "--max-requests",
        "64",
    ]
    log = far.parent / "access.log"
    environ = {**ENVIRON, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*argv, "--access-log", str(log)], env=environ, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            text = b""
            while not text.endswith(b"}\n"):
                line = process.stdout.readline()
                assert line, f"the server ended: {process.wait()}"
                text += line
            told = json.loads(text)
            port.write_text(str(told["port"]))
            yield Link(far, told["url"], environ={"KAI_TOKEN": secret})
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def by_bundle(far: Path) -> Iterator[Link]:
    """A file that holds what the home had when it was written."""
    path = far.parent / "carried.kai"

    def publish() -> None:
        with closing(open_home(far)) as home:
            home.bundle(path)

    with closing(open_home(far)) as home:
        if any(home.agent(name).repository.current for name in home.agents()):
            home.bundle(path)
    yield Link(far, os.fspath(path), publish=publish, writable=False)


CARRIERS: dict[str, Way | None] = {
    "path": by_path,
    "ssh": None,  # needs a server, which one test after the other uses
    "http": by_http,
    "bundle": by_bundle,
}
