"""A home on another machine, over ssh: ``kai serve --stdio`` at the far end, and no daemon."""

from __future__ import annotations

import shlex
import subprocess
import threading
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from kaivc.dialogue import Client, over_pipes
from kaivc.errors import NoSuchHome, RefusedUrl, TransportError
from kaivc.records import dataclass
from kaivc.remotes.base import Context
from kaivc.remotes.homes import HomeRemote
from kaivc.wire import Far

KEPT = 4096
"""Bytes of what ssh says on its standard error that are kept, the last ones."""
PATIENCE = 10.0
"""Seconds that ssh has to end once nothing more is asked."""
UNREACHED = 255
NOT_FOUND = 127


@dataclass(frozen=True)
class Address:
    """Where to: what ssh is told, and the home's directory there; one that begins with ``~/`` is below the user's."""

    host: str
    user: str | None
    port: int | None
    path: str


def parse(url: str) -> Address:
    """Read ``ssh://[user@]host[:port]/path``; RefusedUrl for what could be taken for an option."""
    parts = urlsplit(url)
    host, user, path = parts.hostname or "", parts.username, unquote(parts.path)
    if path.startswith("/~/"):
        path = path[1:]
    bad = not host or host.startswith("-") or (user or "").startswith("-") or not path.strip("/")
    if bad or not path.isprintable() or not all(it.isalnum() or it in "._-:%" for it in host):
        raise RefusedUrl(f"{url!r:.200} names no home on another machine", hint="write it as ssh://user@host/path")
    return Address(host, unquote(user) if user else None, parts.port, path)


def command(context: Context, to: Address) -> list[str]:
    """What is run here; the last word is what the far end's shell gets."""
    argv = [context.settings.ssh_command, "-T"]
    if to.port is not None:
        argv += ["-p", str(to.port)]
    if to.user is not None:
        argv += ["-l", to.user]
    where = "~/" + shlex.quote(to.path[2:]) if to.path.startswith("~/") else shlex.quote(to.path)
    return [*argv, "--", to.host, f"{shlex.quote(context.settings.ssh_kai)} --home {where} serve --stdio"]


def connect(context: Context, url: str) -> HomeRemote:
    """The home that an ssh URL names; nothing is run until something is asked."""
    address = parse(url)
    return HomeRemote(context, lambda: _Pipes(context, address).far())


class _Pipes:
    """One ssh, and the messages through it."""

    def __init__(self, context: Context, to: Address) -> None:
        self._to = to
        try:
            self._process = subprocess.Popen(  # noqa: S603 - words, and no shell of ours
                command(context, to),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(context.environ),
                bufsize=1 << 16,
            )
        except OSError as error:
            raise TransportError(
                f"{context.settings.ssh_command} could not be started: {error.strerror}",
                unchanged="nothing moved",
                hint="install an ssh client, or name it with `ssh.command`",
            ) from error
        self._said = bytearray()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def far(self) -> Far:
        """What can be asked through it."""
        return Client(over_pipes(self._write, self._flush, self._read), self._end)

    def _listen(self) -> None:
        stream = self._process.stderr
        while stream is not None and (part := stream.read1(KEPT)):  # type: ignore[attr-defined]
            self._said += part
            del self._said[:-KEPT]

    def _write(self, data: bytes) -> None:
        try:
            self._process.stdin.write(data)  # type: ignore[union-attr]
        except OSError as error:
            raise self._broken() from error

    def _flush(self) -> None:
        try:
            self._process.stdin.flush()  # type: ignore[union-attr]
        except OSError as error:
            raise self._broken() from error

    def _read(self, count: int) -> bytes:
        data: bytes = self._process.stdout.read(count)  # type: ignore[union-attr]
        if count and not data:
            raise self._broken()
        return data

    def _broken(self) -> TransportError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        said = bytes(self._said).decode("utf-8", "replace").strip().splitlines()
        words = said[-1][:500] if said else "it said nothing"
        code = self._process.returncode
        hint = "run the command again: it goes on from where it was cut"
        ours = [it for it in said if it.startswith("kai: ")]
        if ours:  # what it says to do is for who is there
            words = ours[-1].removeprefix("kai: ")[:500]
            if code == NoSuchHome.exit_code:
                hint = f"look at the path in the URL: {self._to.path!r:.200} over there"
        if code == UNREACHED:
            hint = f"look whether `ssh {self._to.host}` works"
        elif code == NOT_FOUND:
            hint = "install kaivc over there, or say where it is with `ssh.kai`"
        return TransportError(f"ssh to {self._to.host} ended: {words}", unchanged="nothing moved here", hint=hint)

    def _end(self) -> None:
        """Let the far end see that nothing more is asked; stop an ssh that goes on regardless."""
        process = self._process
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        with suppress(OSError):
            process.stdout.close()  # type: ignore[union-attr]
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._listener.join(PATIENCE)
        with suppress(OSError):
            process.stderr.close()  # type: ignore[union-attr]
