"""`kai serve` as a process: what is not the protocol, who is slow, who asks too much, and how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kaivc import wire
from kaivc.server.limits import Limits
from tests.cli.doors import process
from tests.conftest import require_tool
from tests.engine.homes import commit, make_home, open_home
from tests.server import loopback
from tests.server.daemon import CONTENT, PATH, Daemon, ask, daemon


@dataclass(frozen=True)
class Served:
    """A home, and tokens for it."""

    path: Path
    tmp: Path
    maintainer: str
    viewer: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    tmp_path = tmp_path_factory.mktemp("served")
    home = make_home(tmp_path / "home")
    commit(home.new("bot"), {"logic.py": b"one", "data.bin": os.urandom(300_000)})
    maintainer, viewer = home.token_add("ci", "maintainer").secret, home.token_add("see", "viewer").secret
    home.close()
    return Served(tmp_path / "home", tmp_path, maintainer, viewer)


@pytest.fixture(scope="module")
def server(served: Served) -> Iterator[Daemon]:
    """One for all tests that look at answers alone."""
    with daemon(served.path, served.tmp) as running:
        yield running


@pytest.fixture
def own(served: Served) -> Iterator[Daemon]:
    """One for a test alone."""
    with daemon(served.path, served.tmp) as running:
        yield running


def raw(port: int, data: bytes, *, wait: float = 10) -> bytes:
    """What comes back for bytes that are sent as they are."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(data)
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def head(token: str, **more: str) -> bytes:
    """The head of a request."""
    fields = {"Host": "x", "Authorization": f"Bearer {token}", "Content-Type": CONTENT, **more}
    return (
        f"POST {PATH} HTTP/1.1\r\n".encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in fields.items()) + b"\r\n"
    )


# ---------------------------------------------------------------- what is not the protocol


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"M",
        b"GET / HTTP/1.0\r\n\r\n",
        os.urandom(64),
        wire.FRAME.pack(b"M", 4) + b"\xff\xff\xff\xff",
        wire.FRAME.pack(b"M", 0xFFFFFFFF),
        wire.FRAME.pack(b"M", 100) + b"short",
        wire.FRAME.pack(b"D", 3) + b"abc",
        wire.pack_message({}),
        wire.pack_message({"v": 2, "verb": "hello"}),
        wire.pack_message({"v": 1, "verb": "shutdown"}),
        wire.pack_message({"v": 1, "verb": "head"}),
        wire.pack_message({"v": 1, "verb": "head", "agent": "../../etc"}),
        wire.pack_message({"v": 1, "verb": "head", "agent": 7}),
        wire.pack_message({"v": 1, "verb": "log", "agent": "bot", "after": -1}),
        wire.pack_message({"v": 1, "verb": "offer", "agent": "bot", "wants": [b"x"], "haves": []}),
        wire.pack_message({"v": 1, "verb": "put", "agent": "bot", "parcel": {"id": "../x", "records": 1, "size": 1}}),
        wire.pack_message({"error": {"code": "E999", "what": "x", "unchanged": "", "hint": "", "facts": {}}}),
        wire.pack(wire.MESSAGE, b"\xc1" * 50),
        wire.pack(wire.MESSAGE, b"\x91" * 5000 + b"\xc0"),
    ],
    ids=range(20),
)
def test_garbage_gets_an_error_of_the_protocol(server: Daemon, served: Served, body: bytes) -> None:
    answer = ask(server.port, served.maintainer, "", body=body)
    assert (answer.status, answer.code) == (400, "E401"), answer.message
    assert answer.headers["content-type"] == CONTENT
    assert ask(server.port, served.maintainer, "hello").status == 200


def test_what_is_no_http_is_refused_and_harms_nobody(server: Daemon, served: Served) -> None:
    assert b" 400 " in raw(server.port, b"\x16\x03\x01\x02\x00 tls at a port without it\r\n\r\n").split(b"\r\n")[0]
    assert b" 400 " in raw(server.port, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000 + b"\r\n").split(b"\r\n")[0]
    assert ask(server.port, served.maintainer, "hello").status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", [PATH, "/", "/bot", "/kai/v1/", "/kai/v2", "/../etc/passwd", "//", "/bot.git/HEAD"])
def test_other_places_and_methods_hold_nothing_and_are_kept_shut(
    server: Daemon, served: Served, method: str, path: str
) -> None:
    def status(headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request(method, path, headers=headers)
        found = connection.getresponse()
        found.read()
        connection.close()
        return found.status

    assert status({}) == 401
    assert status({"Authorization": f"Bearer {served.maintainer}"}) == 404


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer {}", 200),
        ("bearer   {} ", 200),
        ("Basic git:{}", 200),
        ("Basic {}:", 200),
        ("Basic {}:x-oauth-basic", 200),
        ("Bearer {}x", 401),
        ("Bearer", 401),
        ("Digest {}", 401),
        ("Basic !!!", 401),
        ("{}", 401),
        ("Bearer kai_" + "A" * 43, 401),
        ("Bearer " + "A" * 8000, 401),
    ],
)
def test_how_a_token_may_be_shown(server: Daemon, served: Served, header: str, status: int) -> None:
    from base64 import b64encode

    kind, _, text = header.format(served.viewer).partition(" ")
    value = f"{kind} {b64encode(text.encode()).decode()}" if kind == "Basic" and ":" in text else f"{kind} {text}"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(
        "POST", PATH, body=wire.pack_message({"v": 1, "verb": "hello"}), headers={"Authorization": value}
    )
    answer = connection.getresponse()
    assert answer.status == status
    challenges = answer.headers.get_all("www-authenticate") or []
    assert [it.split()[0] for it in challenges] == ([] if status == 200 else ["Bearer", "Basic"])
    connection.close()


# ---------------------------------------------------------------- limits


def test_who_guesses_is_told_to_wait_and_who_knows_is_not(own: Daemon, served: Served) -> None:
    wrong = "kai_" + "B" * 43
    found = [ask(own.port, wrong, "hello").status for _ in range(25)]
    assert found == [401] * 20 + [429] * 5
    assert ask(own.port, wrong, "hello").headers["retry-after"] == "60"
    assert ask(own.port, served.viewer, "hello").status == 200
    assert ask(own.port, None, "hello").status == 401


def test_a_parcel_that_is_too_large_is_refused_before_it_is_sent(served: Served) -> None:
    with daemon(served.path, served.tmp, "--max-parcel", "1MiB") as server:
        parcel = {"id": "aa" * 32, "records": 1, "size": (1 << 20) + 1}
        answer = ask(server.port, served.maintainer, "put", agent="bot", parcel=parcel, start=0, data=b"x")
        assert (answer.status, answer.code) == (413, "E309")
        small = parcel | {"size": 10}
        many = ask(server.port, served.maintainer, "put", agent="bot", parcel=small, start=0, data=bytes(3 << 20))
        assert (many.status, many.code) == (422, "E405")
        assert not list((served.path / ".kai/incoming").rglob("*.parcel")), "what came is removed"


def test_a_parcel_for_which_there_is_no_room_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    home = open_home(served.path)
    real = os.statvfs(served.path)
    parcel = {"id": "ac" * 32, "records": 1, "size": 10 * real.f_frsize}
    with loopback.served(home.opened) as site:
        port = int(site.place.rpartition(":")[2])
        cells: list[tuple[str, dict[str, Any], int, int]] = [
            ("held", {}, 10, 200),
            ("held", {}, 9, 507),
            ("put", {"start": 0, "data": b"x"}, 19, 507),
            ("put", {"start": 0, "data": b"x"}, 20, 200),
            ("put", {"start": real.f_frsize, "data": b"x"}, 19, 409),
        ]
        for verb, more, blocks, status in cells:
            small = os.statvfs_result((*real[:4], blocks, *real[5:]))
            monkeypatch.setattr("os.statvfs", lambda _, found=small: found)
            assert ask(port, served.maintainer, verb, agent="bot", parcel=parcel, **more).status == status
    home.close()


def test_slow_clients_hold_their_own_share_and_block_nobody(served: Served) -> None:
    with daemon(served.path, served.tmp, "--max-requests", "4") as server:
        parcel = {"id": "aa" * 32, "records": 1, "size": 1000}
        message = wire.pack_message({"v": 1, "verb": "put", "agent": "bot", "parcel": parcel, "start": 0})
        slow = []
        for begun in (
            b"POST",
            head(served.maintainer)[:-2],
            *[head(served.maintainer, **{"Content-Length": "9999"})] * 6,
        ):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(begun + (message[:7] if begun.endswith(b"\r\n\r\n") else b""))
            slow.append(connection)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and ask(server.port, served.maintainer, "hello").status != 503:
            time.sleep(0.05)
        busy = ask(server.port, served.maintainer, "hello")
        assert (busy.status, busy.code, busy.headers["retry-after"]) == (503, "E401", "1")
        began = time.monotonic()
        assert [ask(server.port, served.viewer, "head", agent="bot").status for _ in range(20)] == [200] * 20
        assert time.monotonic() - began < 5
        for connection in slow:
            connection.close()
        deadline = time.monotonic() + 10
        while (status := ask(server.port, served.maintainer, "hello").status) != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert status == 200, "they are gone, and so is what they held"


def test_who_sends_no_head_or_no_message_in_time_is_given_up(served: Served) -> None:
    home = open_home(served.path)
    limits = Limits(message=0.5, idle=0.6)
    with loopback.served(home.opened, limits=limits) as site:
        port = int(site.place.rpartition(":")[2])
        began = time.monotonic()
        answer = raw(port, head(served.maintainer, **{"Content-Length": "100"}) + b"M\x10")
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert time.monotonic() - began < 3
        parcel = {"id": "aa" * 32, "records": 1, "size": 1000}
        message = wire.pack_message({"v": 1, "verb": "put", "agent": "bot", "parcel": parcel, "start": 0})
        answer = raw(port, head(served.maintainer, **{"Content-Length": "10000"}) + message + wire.pack(b"D", b"abc"))
        assert b" 408 " in answer.split(b"\r\n")[0]
        held = ask(port, served.maintainer, "held", agent="bot", parcel=parcel)
        assert held.message["held"] == 3, "what had arrived is kept"
    home.close()


@contextmanager
def bare(status: int, body: str, limits: str) -> Iterator[tuple[int, int]]:
    """A server that answers everything so, with limits that a test can wait for: its pid and its port."""
    script = f"""if True:
        from kaivc.server.limits import Limits
        from kaivc.server.listening import Place, bound, run
        async def app(scope, receive, send):
            await send({{"type": "http.response.start", "status": {status}, "headers": []}})
            await send({{"type": "http.response.body", "body": {body}}})
        listener, there = bound(Place("127.0.0.1", 0))
        print(there.port, flush=True)
        run(app, listener, Limits({limits}), context=None, proxy=None, reopen=lambda: None)
    """
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield child.pid, int(child.stdout.readline())
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0


def test_a_head_that_never_ends_is_cut() -> None:
    with bare(204, 'b""', "head=0.5, grace=2") as (_, port):
        for begun in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nA: "):
            began = time.monotonic()
            assert raw(port, begun) == b""
            assert 0.3 < time.monotonic() - began < 5
        assert b" 204 " in raw(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").split(b"\r\n")[0]
        after_one = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTT"
        began = time.monotonic()
        assert raw(port, after_one).count(b" 204 ") == 1
        assert time.monotonic() - began < 5


def sockets(pid: int) -> int:
    """How many a process has open."""
    return sum(os.readlink(it.path).startswith("socket:") for it in os.scandir(f"/proc/{pid}/fd"))


def test_who_does_not_take_an_answer_does_not_keep_its_connection() -> None:
    with (
        bare(200, "bytes(64 << 20)", "idle=1, grace=2") as (pid, port),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(1)
        open_now = sockets(pid)
        deadline = time.monotonic() + 15
        while (left := sockets(pid)) == open_now and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == open_now - 1


def test_who_opens_connections_and_says_nothing_keeps_nobody_out(served: Served) -> None:
    """With few descriptors; where none was left, the event loop did nothing else any more."""
    few = """if True:
        import resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
        from kaivc.cli.main import main
        sys.exit(main())
    """
    with daemon(served.path, served.tmp, python=few) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(320)]
        other = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10, source_address=("127.0.0.2", 0))
        other.request("POST", PATH, headers={"Authorization": f"Bearer {served.viewer}"})
        assert other.getresponse().status == 400, "one address has half of what may be open"
        other.close()
        assert len(os.listdir(f"/proc/{server.process.pid}/fd")) < 300
        for connection in silent:
            connection.close()
        assert in_the_end(lambda: ask(server.port, served.viewer, "hello").status) == 200


def in_the_end(ask: Callable[[], int]) -> int:
    """What is answered once the server has seen that others have hung up."""
    until = time.monotonic() + 10
    while True:
        try:
            return ask()
        except ConnectionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


# ---------------------------------------------------------------- its beginning, its end, its log


def test_it_says_where_it_listens_and_how_to_get_in(tmp_path: Path) -> None:
    make_home(tmp_path / "home").close()
    with daemon(tmp_path / "home", tmp_path) as server:
        assert server.told["url"] == f"http://127.0.0.1:{server.port}"
        assert (server.told["tokens"], server.told["anonymous"], server.told["tls"]) == (0, False, False)
        assert "kai token add" in server.told["notices"][0]
        assert ask(server.port, None, "hello").status == 401, "nobody comes in without a token"
        home = open_home(tmp_path / "home")
        made = home.token_add("late", "viewer")
        assert ask(server.port, made.secret, "hello").status == 200, "at once"
        home.token_revoke(made.token.id)
        assert ask(server.port, made.secret, "hello").status == 401, "at once"
        home.close()


def test_it_opens_to_the_world_only_where_somebody_could_come_in(served: Served, tmp_path: Path) -> None:
    make_home(tmp_path / "bare").close()
    refused = process("--home", str(tmp_path / "bare"), "--json", "serve", "--listen", "0.0.0.0:0")
    assert (refused.code, refused.error()["code"]) == (9, "E306")
    with daemon(served.path, tmp_path, "--listen", "0.0.0.0:0") as server:
        assert any("nothing is encrypted" in it for it in server.told["notices"])


@pytest.mark.parametrize(
    "options",
    [
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1:70000"),
        ("--listen", "192.0.2.1:0"),
        ("--listen", "no.such.host.invalid:0"),
        ("--tls-key", "/dev/null"),
        ("--tls-cert", "/nonexistent"),
        ("--tls-cert", "/dev/null"),
        ("--max-parcel", "much"),
        ("--access-log", "/nonexistent/log"),
    ],
)
def test_what_it_cannot_do_it_says_before_it_begins(served: Served, options: tuple[str, ...]) -> None:
    done = process("--home", str(served.path), "--json", "serve", "--listen", "127.0.0.1:0", *options)
    assert done.code in (9, 10, 11)
    assert done.error()["hint"]
    assert done.out == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_what_is_begun_has_ended(served: Served, number: signal.Signals) -> None:
    with daemon(served.path, served.tmp) as server:
        parcel = {"id": f"{number:02x}" * 32, "records": 1, "size": 1000}
        message = wire.pack_message({"v": 1, "verb": "put", "agent": "bot", "parcel": parcel, "start": 0})
        data = b"".join(wire.pack_data([b"x" * 1000]))
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head(served.maintainer, **{"Content-Length": str(len(message + data))}) + message)
            time.sleep(0.3)
            server.process.send_signal(number)
            time.sleep(0.3)
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", server.port), timeout=2)
            connection.sendall(data)
            connection.settimeout(10)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        assert b" 200 " in answer.split(b"\r\n")[0]
        _, said = server.process.communicate(timeout=10)
        assert (server.process.returncode, said) == (0, "")
        assert server.lines(1)[-1]["bytes_in"] == len(message + data)


def test_the_log_has_a_line_for_each_request(own: Daemon, served: Served) -> None:
    parcel = {"id": "aa" * 32, "records": 1, "size": 1}
    asked: list[tuple[str | None, str, dict[str, Any]]] = [
        (served.viewer, "hello", {}),
        (served.viewer, "head", {"agent": "bot"}),
        (served.viewer, "held", {"agent": "bot", "parcel": parcel}),
        (None, "hello", {}),
        (served.viewer, "head", {"agent": "nobody"}),
        (served.viewer, "", {"body": bytes(20)}),
    ]
    for count, (token, verb, fields) in enumerate(asked, 1):
        ask(own.port, token, verb, **fields)
        lines = own.lines(count)
    shown = [(it["verb"], it["agent"], it["status"], it["code"]) for it in lines]
    assert shown == [
        ("hello", None, 200, None),
        ("head", "bot", 200, None),
        ("held", "bot", 403, "E105"),
        (None, None, 401, "E407"),
        ("head", "nobody", 404, "E302"),
        (None, None, 400, "E401"),
    ]
    home = open_home(served.path)
    viewer = next(it.token for it in home.tokens() if it.token.name == "see")
    home.close()
    assert [it["who"] for it in lines] == [f"{viewer.id} see"] * 3 + [None] + [f"{viewer.id} see"] * 2
    assert lines[0].keys() == {
        *("time", "client", "who", "method", "path", "verb", "agent", "status", "code"),
        *("bytes_in", "bytes_out", "seconds"),
    }
    own.log.rename(served.tmp / "rotated")
    own.process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    ask(own.port, served.viewer, "hello")
    assert len(own.lines(1)) == 1


@pytest.mark.parametrize(("options", "client"), [((), "127.0.0.1"), (("--trusted-proxy", "127.0.0.1"), "203.0.113.9")])
def test_where_a_request_comes_from_says_only_a_proxy_that_is_trusted(
    served: Served, options: tuple[str, ...], client: str
) -> None:
    with daemon(served.path, served.tmp, *options) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("POST", PATH, headers={"X-Forwarded-For": "203.0.113.9"})
        assert connection.getresponse().status == 401
        connection.close()
        assert server.lines(1)[0]["client"] == client


def test_who_may_what_is_read_each_time_and_what_is_damaged_lets_nobody_in(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    secret = home.token_add("ci", "viewer").secret
    home.close()
    file = tmp_path / "home/.kai/access.json"
    whole = file.read_bytes()
    with daemon(tmp_path / "home", tmp_path) as server:
        for data, status in ((whole, 200), (whole[:-20], 422), (b"", 422), (whole, 200)):
            file.write_bytes(data)
            answer = ask(server.port, secret, "hello")
            assert answer.status == status
            assert str(tmp_path).encode() not in answer.raw
        file.unlink()
        assert ask(server.port, secret, "hello").status == 401


def test_where_a_linked_workspace_lay_is_not_told(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (tmp_path / "private").mkdir()
    agent = home.new("bot", link=tmp_path / "private")
    commit(agent, {"logic.py": b"1"})
    old = bytes(agent.repository.current or b"")
    commit(agent, {"logic.py": b"2"})
    now = bytes(agent.repository.current or b"")
    (tmp_path / "private").rename(tmp_path / "moved")
    with loopback.served(home.opened) as site:
        moves = [["refs/heads/bot/current", now, old]]
        entry: dict[str, Any] = {"op_id": "o", "actor": "Eve <eve@example.org>", "reason": "r", "parcel": None}
        port = int(site.place.rpartition(":")[2])
        answer = ask(port, site.secret, "append", agent="bot", updates=moves, **entry)
    home.close()
    assert answer.code == "E323"
    assert b"private" not in answer.raw


def test_hostile_words_are_one_line_of_json(own: Daemon, served: Served) -> None:
    raw(own.port, b"GET /%0a{%22status%22:200}%1b[2J HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert [it["path"] for it in own.lines(1)] == ['/\n{"status":200}\x1b[2J']
    assert b"\x1b" not in own.log.read_bytes()


def test_an_entry_is_made_once_and_names_the_token(served: Served, tmp_path: Path) -> None:
    with daemon(served.path, tmp_path) as server:
        moves = [["refs/heads/bot/snapshots/one", None, b"\x01" * 32]]
        told = ask(server.port, served.maintainer, "head", agent="bot")
        moves[0][2] = told.message["refs"]["refs/heads/bot/current"]
        entry: dict[str, Any] = {"op_id": "once", "actor": "Eve <eve@example.org>", "reason": "r"}
        entry |= {"updates": moves, "parcel": None}
        first = ask(server.port, served.maintainer, "append", agent="bot", **entry)
        again = ask(server.port, served.maintainer, "append", agent="bot", **entry)
        assert first.message == again.message, "an entry of the same op id is made once"
    home = open_home(served.path)
    entry_made = home.agent("bot").repository.reflog(limit=1)[0]
    assert entry_made.actor.startswith("ci <token-"), "who it was says the token, not the peer"
    home.close()


def test_a_repair_beside_it_is_seen(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    commit(home.new("bot"), {"logic.py": b"1"})
    secret = home.token_add("ci", "viewer").secret
    home.close()
    with daemon(tmp_path / "home", tmp_path) as server:
        assert len(ask(server.port, secret, "head", agent="bot").message["refs"]) == 2
        for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
            (tmp_path / "home/.kai" / name).unlink(missing_ok=True)
        assert process("--home", str(tmp_path / "home"), "fsck", "--repair").code == 0
        home = open_home(tmp_path / "home")
        commit(home.agent("bot"), {"logic.py": b"2"})
        home.close()
        assert len(ask(server.port, secret, "head", agent="bot").message["refs"]) == 3


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    at = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *(require_tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(at / "key.pem"), "-out", str(at / "cert.pem"), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return at / "cert.pem", at / "key.pem"


def test_tls(served: Served, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate
    with daemon(served.path, served.tmp, "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        assert server.url.startswith("https://")
        environ = {"KAI_TOKEN": served.viewer}
        refused = process("--json", "clone", server.url, str(served.tmp / "no"), env=environ)
        assert refused.error()["code"] == "E401"
        assert "certificate" in refused.error()["hint"]
        trusted = process(
            "--json", "clone", server.url, str(served.tmp / "yes"), env=environ | {"SSL_CERT_FILE": str(cert)}
        )
        assert trusted.code == 0, trusted.err
        context = ssl.create_default_context(cafile=str(cert))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection(("127.0.0.1", server.port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as wrapped,
        ):
            assert wrapped.version() == "TLSv1.2"


# ---------------------------------------------------------------- anonymous


def test_one_that_shows_no_token_leaves_room_for_others_that_show_none(served: Served) -> None:
    def status(source: str, headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10, source_address=(source, 0))
        connection.request("GET", "/bot.git/info/refs?service=git-upload-pack", headers=headers)
        found = connection.getresponse().status
        connection.close()
        return found

    with daemon(served.path, served.tmp, "--anonymous", "viewer", "--max-requests", "8") as running:
        begun = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nM".encode()
        slow = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(6)]
        for connection in slow:
            connection.sendall(begun)
        deadline = time.monotonic() + 10
        while status("127.0.0.1", {}) != 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (status("127.0.0.1", {}), status("127.0.0.2", {})) == (503, 200)
        assert status("127.0.0.1", {"Authorization": f"Bearer {served.viewer}"}) == 200
        for connection in slow:
            connection.close()


def test_anonymous_reads_and_nothing_else(served: Served) -> None:
    with daemon(served.path, served.tmp, "--anonymous", "viewer") as server:
        assert ask(server.port, None, "hello").message["agents"] == ["bot"]
        assert ask(server.port, None, "head", agent="bot").status == 200
        parcel = {"id": "aa" * 32, "records": 1, "size": 1}
        asked = ask(server.port, None, "held", agent="bot", parcel=parcel)
        assert (asked.status, asked.code) == (401, "E105"), "a program that has a token shows it now"
        assert ask(server.port, "kai_" + "C" * 43, "hello").status == 401, "a wrong token is not nobody"
        assert ask(server.port, served.maintainer, "held", agent="bot", parcel=parcel).status == 200


def test_many_at_once_are_all_answered(server: Daemon, served: Served) -> None:
    found: list[int] = []

    def one() -> None:
        found.extend([ask(server.port, served.viewer, "head", agent="bot").status for _ in range(10)])

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [200] * 80
