"""Git hosts of a test's own, with real git behind each: a path, sshd, git's daemon, and smart HTTP."""

from __future__ import annotations

import base64
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.conftest import require_tool

FORMATS = ("sha1", "sha256")


def git(where: Path, *words: str | Path, code: int = 0) -> str:
    """What git says in a repository."""
    argv = ["git", "-C", str(where), *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def bare(path: Path, object_format: str = "sha256") -> Path:
    """A new bare repository."""
    argv = ["git", "init", "-q", "--bare", f"--object-format={object_format}", "--initial-branch=current", str(path)]
    subprocess.run(argv, check=True, timeout=60)
    git(path, "config", "http.receivepack", "true")
    return path


def refs(path: Path) -> dict[str, str]:
    """The refs of a repository, in hex."""
    lines = git(path, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return dict(line.split(" ") for line in lines)


def require_clean(path: Path) -> None:
    """What git's own check says of all that lies there: nothing."""
    argv = ["git", "-C", str(path), "fsck", "--full", "--strict", "--no-dangling", "--no-progress"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "unborn branch" not in line]
    assert (done.returncode, [line for line in said if not line.startswith("notice:")]) == (0, []), said


def hook(path: Path, name: str, text: str) -> None:
    """Let a repository run a program at its events."""
    file = path / "hooks" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("#!/bin/sh\n" + text)
    file.chmod(0o755)


@dataclass
class Host:
    """Repositories below ``root``, as others reach them; ``environ`` is what those need."""

    root: Path
    prefix: str
    environ: dict[str, str] = field(default_factory=dict)

    def url(self, path: Path) -> str:
        """How a repository is reached."""
        below = self.prefix.startswith(("git+http", "git:"))
        return self.prefix + str(path.relative_to(self.root) if below else path)


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listening(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "the server ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not listen")


@contextmanager
def _running(argv: Sequence[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _listening(port, process)
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def by_ssh(root: Path) -> Iterator[Host]:
    """An sshd of this user's own, on a port of its own, with keys of its own; one connection is kept for all."""
    require_tool("ssh")
    sshd = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    assert sshd, "no sshd: scripts/install-test-tools"
    keys = root / "ssh"
    keys.mkdir(mode=0o700)
    short = tempfile.mkdtemp(prefix="kai-ssh-", dir="/tmp")  # the name of a socket has at most 107 bytes
    for name in ("host", "user"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(argv, check=True, timeout=60)
    (keys / "authorized").write_bytes((keys / "user.pub").read_bytes())
    port = free_port()
    (keys / "known").write_text(f"[127.0.0.1]:{port} {(keys / 'host.pub').read_text()}")
    (keys / "sshd.conf").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/authorized\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        f"SetEnv GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*\n"
    )
    (keys / "ssh.conf").write_text(
        f"Host *\n  IdentityFile {keys}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {keys}/known\n"
        f"  StrictHostKeyChecking yes\n  BatchMode yes\n  ControlPath {short}/%C\n"
    )
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    user = getpass.getuser()
    with _running([sshd, "-D", "-f", str(keys / "sshd.conf")], port):
        argv = ["ssh", "-F", str(keys / "ssh.conf"), "-M", "-N", "-p", str(port), "-l", user, "127.0.0.1"]
        kept = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Host(root, f"git+ssh://{user}@127.0.0.1:{port}", {"GIT_SSH_COMMAND": f"ssh -F {keys}/ssh.conf"})
        finally:
            kept.terminate()
            kept.wait(10)
            shutil.rmtree(short)


@contextmanager
def by_daemon(root: Path) -> Iterator[Host]:
    """Git's own daemon, which lets anybody write here."""
    port = free_port()
    helpers = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    argv = [f"{helpers}/git-daemon", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1", f"--port={port}"]
    with _running([*argv, f"--base-path={root}", "--reuseaddr", str(root)], port):
        yield Host(root, f"git://127.0.0.1:{port}/")


# ---------------------------------------------------------------- HTTP


class Web(ThreadingHTTPServer):
    """``git http-backend`` behind HTTP; what was asked is kept, with its headers."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.user: tuple[str, str] | None = None
        self.redirect = ""
        self.refusal: tuple[int, str] | None = None
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    """One request, as CGI: RFC 3875."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        """What is there."""
        self._answer()

    def do_POST(self) -> None:
        """A request of git's."""
        self._answer()

    def _answer(self) -> None:
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        body = self._body()
        if self.server.redirect:
            self._say(302, b"", {"Location": self.server.redirect + self.path})
        elif self.server.user and self.headers.get("Authorization") != _basic(*self.server.user):
            words = f"who is {self.headers.get('Authorization')}".encode()
            self._say(401, words, {"WWW-Authenticate": 'Basic realm="git"', "Content-Type": "text/plain"})
        elif self.server.refusal and self.command == "POST":
            status, words = self.server.refusal
            self._say(status, words.encode(), {"Content-Type": "text/plain"})
        else:
            self._run(body)

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _say(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _run(self, body: Iterator[bytes]) -> None:
        path, _, query = self.path.partition("?")
        variables = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": os.environ["HOME"],
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "REMOTE_USER": "somebody",
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        backend = subprocess.Popen(
            ["git", "http-backend"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables
        )
        assert backend.stdin
        assert backend.stdout
        try:
            for piece in body:
                backend.stdin.write(piece)
            backend.stdin.close()
        except BrokenPipeError:
            pass
        headers: dict[str, str] = {}
        while line := backend.stdout.readline().strip().decode():
            name, _, value = line.partition(": ")
            headers[name] = value
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.close_connection = True
        self.end_headers()
        shutil.copyfileobj(backend.stdout, self.wfile)
        backend.wait(60)


def _basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


@contextmanager
def web(root: Path) -> Iterator[Web]:
    """A web server of this test's own."""
    server = Web(root)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def by_http(root: Path) -> Iterator[Host]:
    """Smart HTTP."""
    with web(root) as server:
        yield Host(root, "git+" + server.url)


@contextmanager
def by_path(root: Path) -> Iterator[Host]:
    """A path of this machine."""
    yield Host(root, "")


@contextmanager
def by_file(root: Path) -> Iterator[Host]:
    """The same as a URL."""
    yield Host(root, "file://")


KINDS = {
    "path": by_path,
    "file": by_file,
    "ssh": by_ssh,
    "daemon": by_daemon,
    "http": by_http,
}
