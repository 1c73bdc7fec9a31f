"""A home over HTTP as `kai` sees it: real pushes by role, whose token goes where, and answers of what is no server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kaivc import wire
from tests.cli.doors import Result, on_a_terminal, process
from tests.engine.homes import commit, make_home, open_home
from tests.server.daemon import CONTENT, Daemon, daemon

Reply = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def pretender(reply: Reply) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that answers what it likes; its URL, and the headers that it saw."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append({key.lower(): value for key, value in self.headers.items()})
            reply(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def say(status: int, body: bytes, kind: str = CONTENT, **headers: str) -> Reply:
    """An answer."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


END = wire.pack(wire.END, b"")
HELLO = wire.pack_message({"home": "f" * 32, "object_format": "sha256", "agents": []}) + END
DENIED = wire.pack_message({"error": {"code": "E407", "what": "no", "unchanged": "", "hint": "", "facts": {}}})
SECRET = "kai_" + "Canary" * 7 + "x"
ENV = {"KAI_TOKEN": SECRET}


def clone(url: str, to: Path, env: dict[str, str] | None = None, *more: str) -> Result:
    return process("--json", *more, "clone", url, str(to), env=ENV if env is None else env)


# ---------------------------------------------------------------- answers of what is no server


@pytest.mark.parametrize(
    "reply",
    [
        say(200, b"<html>\x1b[2Jhello</html>", "text/html"),
        say(404, b"<html>not here</html>", "text/html"),
        say(200, b"\x1b[31mgarbage"),
        say(200, wire.pack(wire.MESSAGE, b"\xc1")),
        say(200, wire.pack_message({"home": "f" * 32}) + END),
        say(200, wire.pack_message({"home": "f" * 32, "object_format": "md5", "agents": []}) + END),
        say(200, wire.pack_message({"home": "f" * 32, "object_format": "sha256", "agents": ["../x"]}) + END),
        say(400, wire.pack_message({"error": {"code": "E407", "what": "no", "unchanged": "", "hint": ""}})),
        say(401, b"who?", "text/plain", **{"WWW-Authenticate": "Basic"}),
        say(204, b"", "text/html"),
    ],
    ids=range(10),
)
def test_what_is_no_home_is_said_and_never_shown(reply: Reply, tmp_path: Path) -> None:
    with pretender(reply) as (url, _):
        done = clone(url, tmp_path / "c")
    assert done.code == 10
    error = done.error()
    assert error["code"] in ("E401", "E407")
    assert not any(word in done.err for word in ("html", "\x1b", "u001b", SECRET))
    assert not (tmp_path / "c").exists()


def test_an_answer_that_is_cut_is_asked_for_again(tmp_path: Path) -> None:
    count = []

    def reply(handler: BaseHTTPRequestHandler) -> None:
        count.append(1)
        if len(count) == 1:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif len(count) == 2:
            say(503, b"<html>a proxy</html>", "text/html")(handler)
        elif len(count) == 3:
            say(200, HELLO[:10], **{"Content-Length": "999", "Connection": "close"})(handler)
            handler.close_connection = True
        else:
            say(200, HELLO)(handler)

    with pretender(reply) as (url, _):
        done = clone(url, tmp_path / "c")
    assert len(count) >= 4
    assert done.code == 0, done.err


# ---------------------------------------------------------------- whose token goes where


def test_a_token_is_shown_where_one_is_asked_for_and_not_elsewhere(tmp_path: Path) -> None:
    with pretender(say(200, HELLO)) as (url, seen):
        assert clone(url, tmp_path / "a").code == 0
        assert not any("authorization" in it for it in seen), "nobody asked"
    with pretender(say(200, HELLO)) as (other, theirs):
        for status in (301, 302, 303, 307, 308):
            with pretender(say(status, b"", Location=f"{other}/kai/v1?{SECRET}")) as (url, seen):
                done = clone(url, tmp_path / "b")
                assert (done.code, done.error()["code"]) == (10, "E401")
                assert other in done.error()["message"]
                assert SECRET not in done.err
        assert theirs == [], "no redirect is followed"


def test_a_token_that_the_other_side_says_back_is_not_shown(tmp_path: Path) -> None:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        shown = handler.headers.get("authorization", "")
        if not shown:
            say(401, DENIED)(handler)
            return
        error = {"code": "E999", "what": f"you said {shown}", "unchanged": shown, "hint": shown, "facts": {"it": shown}}
        say(500, wire.pack_message({"error": error}))(handler)

    with pretender(reply) as (url, seen):
        done = clone(url, tmp_path / "c", None, "--debug")
    assert seen[-1]["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in done.err + done.out


def test_where_a_token_is_looked_for(tmp_path: Path) -> None:
    made = make_home(tmp_path / "home")
    commit(made.new("bot"), {"logic.py": b"1"})
    secret = made.token_add("ci", "viewer").secret
    made.close()
    mine = tmp_path / "user"
    mine.mkdir()
    with daemon(tmp_path / "home", tmp_path) as server:
        none = clone(server.url, tmp_path / "c0", {"HOME": str(mine)})
        assert none.error()["code"] == "E407"
        (mine / ".netrc").write_text(f"machine 127.0.0.1 login x password {secret}\n")
        (mine / ".netrc").chmod(0o600)
        assert clone(server.url, tmp_path / "c1", {"HOME": str(mine)}).code == 0
        (mine / ".netrc").unlink()
        config = mine / "gitconfig"
        store = mine / "store"
        store.write_text(server.url.replace("://", f"://kai:{secret}@") + "\n")
        subprocess.run(["git", "config", "-f", config, "credential.helper", f"store --file={store}"], check=True)
        helped = {"HOME": str(mine), "GIT_CONFIG_GLOBAL": str(config)}
        assert clone(server.url, tmp_path / "c2", helped).code == 0
        assert secret in store.read_text()
        home = open_home(tmp_path / "home")
        home.token_revoke("ci")
        home.close()
        assert clone(server.url, tmp_path / "c3", helped).error()["code"] == "E407"
        assert secret not in store.read_text(), "the helper was told that it is no good"


# ---------------------------------------------------------------- real pushes, by role


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Daemon]:
    made = make_home(tmp_path / "home")
    bot = made.new("bot")
    commit(bot, {"logic.py": b"1"}, version="1.0.0")
    commit(bot, {"logic.py": b"2"}, version="2.0.0")
    commit(made.new("hidden"), {"logic.py": b"3"})
    made.close()
    with daemon(tmp_path / "home", tmp_path) as server:
        yield server


def tokens(home: Path) -> dict[str, str]:
    opened = open_home(home)
    found = {
        role: opened.token_add(role, role, ["bot", "new"]).secret
        for role in ("viewer", "tester", "operator", "maintainer")
    }
    opened.close()
    return found


def test_pushes_by_role(served: Daemon, tmp_path: Path) -> None:
    secrets = tokens(tmp_path / "home")
    assert clone(served.url, tmp_path / "c", {"KAI_TOKEN": secrets["viewer"]}).code == 0
    copy = tmp_path / "c"

    def kai(role: str, *words: str) -> Result:
        return process(
            "--home", str(copy), "--json", *words, env={"KAI_TOKEN": secrets[role], "KAI_AUTHOR": "Eve <e@x>"}
        )

    here = open_home(copy)
    assert here.agents() == ["bot"], "what may not be read is not cloned"
    here.agent("bot").rollback("v1.0.0")
    here.close()
    for role, code in (("viewer", 7), ("tester", 7), ("operator", 0)):
        done = kai(role, "push", "bot")
        assert done.code == code, (role, done.out, done.err)
        if code:
            assert done.error()["code"] == "E105"
    here = open_home(copy)
    commit(here.agent("bot"), {"logic.py": b"4"}, version="3.0.0")
    commit(here.new("new"), {"logic.py": b"5"})
    commit(here.new("more"), {"logic.py": b"6"})
    here.close()
    for agent in ("bot", "new"):
        for role, code in (("tester", 7), ("operator", 7), ("maintainer", 0)):
            assert kai(role, "push", agent).code == code, (agent, role)
    beyond = kai("maintainer", "push", "more")
    assert (beyond.code, beyond.error()["code"]) == (9, "E302")
    there = open_home(tmp_path / "home")
    assert there.agents() == ["bot", "hidden", "new"]
    moves = [(it.verb, it.actor.partition(" ")[0]) for it in there.agent("bot").reflog().entries[:2]]
    assert moves == [("push", "maintainer"), ("push", "operator")], "the token's actor, not what Eve says"
    assert (there.agent("bot").workspace / "logic.py").read_bytes() == b"4"
    there.close()


def test_a_person_who_has_a_token_need_be_nobody(served: Daemon, tmp_path: Path) -> None:
    secret = tokens(tmp_path / "home")["viewer"]
    said = on_a_terminal(
        ["clone", served.url, str(tmp_path / "c")], tmp_path, [("User at", "\n"), ("Token", secret + "\n")]
    )
    assert said.code == 0, said.out
    assert secret not in said.out


def test_who_is_not_there_is_told_in_words_of_the_system(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        said = process("clone", f"http://127.0.0.1:{port}", str(tmp_path / "c"))
    assert said.code == 10
    assert "Connection refused" in said.err
    assert "HTTPConnection" not in said.err


def test_tls_where_none_is_spoken_says_so(served: Daemon, tmp_path: Path) -> None:
    said = process("clone", served.url.replace("http:", "https:"), str(tmp_path / "c"))
    assert (said.code, "E401" in said.err) == (10, True)
    assert f"is it {served.url}?" in said.err


def test_a_token_is_found_nowhere(served: Daemon, tmp_path: Path) -> None:
    secret = tokens(tmp_path / "home")["maintainer"]
    env = {"KAI_TOKEN": secret}
    said = [clone(served.url, tmp_path / "c", env, "--debug")]
    here = open_home(tmp_path / "c")
    commit(here.agent("bot"), {"logic.py": b"4"}, version="3.0.0")
    here.close()
    said.append(process("--home", str(tmp_path / "c"), "--debug", "push", "bot", env=env))
    said.append(process("--home", str(tmp_path / "c"), "--debug", "push", "nothing", env=env))
    said.append(process("--home", str(tmp_path / "c"), "--debug", "fetch", env=env))
    assert [it.code for it in said] == [0, 0, 9, 0], [it.err for it in said]
    in_url = served.url.replace("://", f"://kai:{secret}@")
    said.append(process("--home", str(tmp_path / "c"), "--json", "remote", "add", "bad", in_url))
    assert said[-1].error()["code"] == "E408"
    assert not any(secret in text for it in said for text in (it.out, it.err))
    code, stderr = served.stop()
    assert (code, stderr) == (0, "")
    assert secret not in " ".join(served.argv)
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert secret.encode() not in path.read_bytes(), path


# ---------------------------------------------------------------- much at once


def test_what_is_sent_is_never_held_whole(served: Daemon, tmp_path: Path) -> None:
    import http.client

    secret = tokens(tmp_path / "home")["maintainer"]
    size = 128 << 20
    parcel = {"id": "aa" * 32, "records": 1, "size": size}
    message = wire.pack_message({"v": 1, "verb": "put", "agent": "bot", "parcel": parcel, "start": 0})
    block = bytes(1 << 20)

    def body() -> Iterator[bytes]:
        yield message
        yield from wire.pack_data(block for _ in range(size >> 20))

    def peak() -> int:
        status = Path(f"/proc/{served.process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))

    before = peak()
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": CONTENT}
    connection.request("POST", "/kai/v1", body=body(), headers=headers, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    connection.close()
    assert peak() - before < 32 << 20
    assert json.loads(json.dumps(served.lines(1)))[-1]["bytes_in"] > size
    assert os.path.isdir(tmp_path / "home/.kai/incoming/bot")
