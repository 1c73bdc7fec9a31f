"""Git at the other end of two pipes or of a socket: a program of this machine, ssh, or git's own daemon."""

from __future__ import annotations

import os
import re
import select
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from kaivc.errors import RefusedUrl, TransportError
from kaivc.records import dataclass
from kaivc.remotes.gitlines import (
    FLUSH,
    Advertised,
    Read,
    clean,
    hint_for,
    lines_over,
    malformed,
    packet,
    read_advertised,
)

IDLE_SECONDS = 600
"""Nothing came and nothing went for so long: the other end is gone."""
CONNECT_SECONDS = 30
LAST_WORDS_SECONDS = 2
MAX_HELD = 16 << 20
"""What may come while a request is being sent: progress, and a refusal."""
BUFFER = 1 << 16
MAX_ERRORS = 8 << 10
GIT_PORT = 9418
_SIMPLE = re.compile(r"[^;&|<>$`(){}*?~#!\n\r]*\Z")
_KEPT_FROM_GIT = re.compile(
    r"GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|COMMON_DIR|NAMESPACE|PREFIX|CONFIG"
    r"|CONFIG_PARAMETERS|CONFIG_COUNT|REPLACE_REF_BASE|SHALLOW_FILE|GRAFT_FILE|PROTOCOL|TRACE.*)\Z"
)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What git and ssh get as their environment: nothing that means another repository, or writes down what passes."""
    return {key: value for key, value in environ.items() if not _KEPT_FROM_GIT.match(key)}


# ---------------------------------------------------------------- a session


Send = Callable[[memoryview], int | None]
"""Takes some of the bytes, and says how many; None where none fit."""


class Pipes:
    """One service of git at the other end of descriptors; read while writing, so that neither side waits forever."""

    def __init__(self, reading: int, writing: int, errors: int | None, send: Send, end: Callable[[], None]) -> None:
        self._reading, self._writing, self._errors = reading, writing, errors
        self._send = send
        self._end: Callable[[], None] | None = end
        self._held = bytearray()
        self._said = bytearray()
        self._ended = False
        self._asked = False
        for fd in {reading, writing}:
            os.set_blocking(fd, False)
        self.advertised = Advertised({}, {})

    def begin(self) -> Pipes:
        """Read what is there."""
        try:
            self.advertised = read_advertised(lines_over(self.read))
        except TransportError as error:
            told = self._told(error)
            self.close()
            raise told from error
        except BaseException:
            self.close()
            raise
        return self

    def ask(self, request: Callable[[], Iterable[bytes]]) -> Read:
        """Send a request; what reads the answer. A session takes one."""
        self._asked = True
        for piece in request():
            if not self._write(piece):
                break  # it has stopped to listen; it may still say why
        return self.read

    def close(self) -> None:
        """Say goodbye and let go."""
        end, self._end = self._end, None
        if end is None:
            return
        if not self._asked and not self._ended:
            with suppress(OSError):
                self._send(memoryview(FLUSH))
        end()

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, fewer only at the end."""
        while len(self._held) < size and not self._ended:
            self._wait(writing=False)
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    def _write(self, data: bytes) -> bool:
        view = memoryview(data)
        while view:
            if self._ended:
                return False
            if self._wait(writing=True):
                try:
                    view = view[self._send(view) or 0 :]
                except BlockingIOError:
                    continue
                except OSError:
                    return False
        return True

    def _wait(self, *, writing: bool) -> bool:
        """Take what has come; whether something can be written."""
        poll = select.poll()
        watched = {self._reading: select.POLLIN}
        if self._errors is not None:
            watched[self._errors] = select.POLLIN
        if writing:
            watched[self._writing] = watched.get(self._writing, 0) | select.POLLOUT
        for fd, mask in watched.items():
            poll.register(fd, mask)
        ready = dict(poll.poll(IDLE_SECONDS * 1000))
        if not ready:
            raise TransportError(
                f"the other end has been silent for {IDLE_SECONDS} s",
                unchanged="nothing moved here",
                hint="look at the connection, then run the command again",
            )
        if self._errors is not None and self._errors in ready:
            self._take_error()
        if ready.get(self._reading, 0) & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self._take()
        return bool(writing and ready.get(self._writing, 0) & (select.POLLOUT | select.POLLERR | select.POLLHUP))

    def _take(self) -> None:
        try:
            data = os.read(self._reading, BUFFER)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._held += data
        self._ended = self._ended or not data
        if len(self._held) > MAX_HELD:
            raise malformed("it talks without end")

    def _take_error(self) -> None:
        data = os.read(self._errors, BUFFER) if self._errors is not None else b""
        if not data:
            self._errors = None
        self._said = (self._said + data)[-MAX_ERRORS:]

    def _told(self, error: TransportError) -> TransportError:
        """The error with what ssh or git said beside it."""
        while self._errors is not None and select.select([self._errors], [], [], LAST_WORDS_SECONDS)[0]:
            self._take_error()
        lines = [clean(line) for line in bytes(self._said).splitlines()]
        words = "; ".join([line for line in lines if line][-3:])
        if not words or type(error) is not TransportError:
            return error
        return TransportError(
            f"the other end cannot be talked to: {words}", unchanged="nothing moved", hint=_hint(words), said=words
        )


def _hint(words: str) -> str:
    if "publickey" in words or "Permission denied (" in words:
        return "ssh found no key that is let in there: `ssh-add -l` lists yours"
    if "Host key verification" in words:
        return "connect once by hand with `ssh`, and compare the host's key"
    if "dubious ownership" in words:
        return "another user owns the repository: `git config --global --add safe.directory PATH` if you trust it"
    return hint_for(words)


@dataclass(frozen=True)
class Piped:
    """A repository that every session of is a connection of its own."""

    begin: Callable[[str], Pipes]
    secrets: frozenset[str] = frozenset()

    def close(self) -> None:
        """Nothing is shared."""


# ---------------------------------------------------------------- what is at the other end


def program(argv: list[str], environ: Mapping[str, str]) -> Pipes:
    """A program that speaks git's protocol on its standard input and output."""
    try:
        child = subprocess.Popen(  # noqa: S603 - an argv, never a shell
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(environ),
            cwd="/",
            bufsize=0,
        )
    except OSError as error:
        raise TransportError(
            f"{argv[0]} cannot be started: {error.strerror}", unchanged="nothing moved", hint=f"install {argv[0]}"
        ) from error
    if child.stdin is None or child.stdout is None or child.stderr is None:
        raise AssertionError("pipes were asked for")
    stdin, stdout, stderr = child.stdin, child.stdout, child.stderr

    def end() -> None:
        for pipe in (stdin, stdout, stderr):
            with suppress(OSError):
                pipe.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    return Pipes(stdout.fileno(), stdin.fileno(), stderr.fileno(), stdin.write, end).begin()


def local(service: str, path: str, environ: Mapping[str, str]) -> Pipes:
    """A repository of this machine, through git itself: its hooks and its rules hold."""
    return program(["git", service.removeprefix("git-"), path], environ)


@dataclass(frozen=True)
class Address:
    """A repository on another machine; a path that begins with no slash begins where ssh lets one in."""

    host: str
    user: str
    port: int | None
    path: str


def over_ssh(service: str, to: Address, environ: Mapping[str, str], program_name: str) -> Pipes:
    """A repository over ssh; RefusedUrl for what could be taken for an option, or for more than a name."""
    named = to.host and all(it.isalnum() or it in "._-:%" for it in to.host)
    if not named or not to.path or any(it.startswith("-") for it in (to.host, to.user, to.path)):
        raise RefusedUrl(
            "the URL names no repository on another machine",
            unchanged="nothing was sent",
            hint="write it as ssh://user@host/path, or user@host:path",
        )
    argv = [*ssh_command(environ, program_name), "-T"]
    argv += ["-p", str(to.port)] if to.port else []
    argv += ["-l", to.user] if to.user else []
    return program([*argv, "--", to.host, f"{service} {_quoted(to.path)}"], environ)


def ssh_command(environ: Mapping[str, str], program_name: str) -> list[str]:
    """What is started for ssh: GIT_SSH_COMMAND if it needs no shell, GIT_SSH, or the one of the settings."""
    command = environ.get("GIT_SSH_COMMAND", "").strip()
    if command and _SIMPLE.match(command):
        with suppress(ValueError):
            return shlex.split(command)
    return [environ.get("GIT_SSH") or program_name]


def _quoted(path: str) -> str:
    """As git itself quotes it for the shell over there."""
    return "'" + path.replace("'", "'\\''").replace("!", "'\\!'") + "'"


def daemon(service: str, host: str, port: int | None, path: str) -> Pipes:
    """A repository of git's daemon: neither side knows the other, and nothing is encrypted."""
    try:
        link = socket.create_connection((host, port or GIT_PORT), CONNECT_SECONDS)
    except OSError as error:
        raise TransportError(
            f"{host} cannot be reached: {error.strerror or error}",
            unchanged="nothing moved",
            hint="look at the URL and at the connection, then run the command again",
        ) from error
    fd = link.fileno()
    link.sendall(packet(f"{service} {path}\0host={host}{f':{port}' if port else ''}\0".encode()))
    return Pipes(fd, fd, None, link.send, link.close).begin()
