"""Who one is to a git host over HTTP: where a secret goes, and where never; and what URLs and hosts may not do."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import kaivc
from kaivc import api
from kaivc.api import Home
from kaivc.errors import CredentialsNeeded, KaiError, RefusedByRemote, RefusedUrl, TransportError
from kaivc.remotes import credentials, gitpipes
from kaivc.remotes.credentials import Origin
from kaivc.remotes.gitpipes import Address
from tests.engine.homes import ENVIRON, commit
from tests.remotes.githosts import Web, bare, hook, refs, web

CANARY = "canary-71f0c2a9d4"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Web]:
    """A host that asks who one is."""
    root = tmp_path / "web"
    root.mkdir()
    bare(root / "far.git")
    with web(root) as found:
        found.user = ("ann", CANARY)
        yield found


def home_for(server: Web, path: Path, environ: dict[str, str], user: str = "") -> Home:
    """A home with an agent, that knows the server; ``user`` stands in the URL."""
    api.init(path, "sha256").close()
    home = kaivc.open(path, environ={**ENVIRON, **environ})
    commit(home.new("bot"), {"logic.py": b"1\n"})
    url = server.url.replace("//", f"//{user}@") if user else server.url
    home.remote_add("origin", url + "far.git")
    return home


def nowhere(home: Home, *errors: KaiError) -> None:
    """The canary is in nothing that the home keeps, nor in errors."""
    for error in errors:
        assert CANARY not in json.dumps(error.as_dict(), default=str)
    top = Path(home.opened.layout.root)
    done = subprocess.run(["grep", "-rlF", CANARY, str(top)], capture_output=True, text=True, check=False)
    assert not done.stdout


def test_a_token_from_the_environment(server: Web, tmp_path: Path) -> None:
    home = home_for(server, tmp_path / "h", {"KAI_TOKEN": CANARY}, user="ann")
    home.push("bot")
    assert refs(server.root / "far.git")
    nowhere(home)
    assert "Authorization" not in server.asked[0][2]  # nobody is told unasked


def test_netrc(server: Web, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login ann password {CANARY}\n")
    home = home_for(server, tmp_path / "h", {"HOME": str(tmp_path)})
    home.push("bot")
    assert refs(server.root / "far.git")
    nowhere(home)


@pytest.fixture
def helper(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """A credential helper of git's, and what it was told."""
    program, told = tmp_path / "helper", tmp_path / "told"
    program.write_text(
        f'#!/bin/sh\necho "$1" >>{told}\ncat >>{told}\n'
        f'[ "$1" = get ] && printf "username=ann\\npassword=%s\\n" "$(cat {tmp_path}/secret)"\nexit 0\n'
    )
    program.chmod(0o755)
    (tmp_path / ".gitconfig").write_text(f"[credential]\n\thelper = {program}\n")
    return {"HOME": str(tmp_path)}, told


def test_a_credential_helper_of_gits_hears_that_it_was_right(
    server: Web, tmp_path: Path, helper: tuple[dict[str, str], Path]
) -> None:
    environ, told = helper
    (tmp_path / "secret").write_text(CANARY)
    home = home_for(server, tmp_path / "h", environ)
    home.push("bot")
    assert {"get", "store"} <= {*told.read_text().split("\n")}
    nowhere(home)


def test_and_that_it_was_wrong(server: Web, tmp_path: Path, helper: tuple[dict[str, str], Path]) -> None:
    environ, told = helper
    (tmp_path / "secret").write_text("another")
    home = home_for(server, tmp_path / "h", environ)
    with pytest.raises(CredentialsNeeded):
        home.push("bot")
    assert "erase" in told.read_text().split("\n")


def test_a_person_is_asked_last(server: Web, tmp_path: Path) -> None:
    home = home_for(server, tmp_path / "h", {})
    asked: list[tuple[str, bool]] = []

    def ask(question: str, secret: bool) -> str | None:
        asked.append((question, secret))
        return CANARY if secret else "ann"

    home.push("bot", ask=ask)
    assert [secret for _, secret in asked] == [False, True]
    assert all(server.url.rstrip("/") in question for question, _ in asked)
    nowhere(home)


def test_without_any_it_is_said_what_is_needed(server: Web, tmp_path: Path) -> None:
    home = home_for(server, tmp_path / "h", {})
    with pytest.raises(CredentialsNeeded) as caught:
        home.push("bot")
    assert "KAI_TOKEN" in caught.value.hint


def test_a_secret_that_the_host_says_back_is_taken_out(server: Web, tmp_path: Path) -> None:
    far = server.root / "far.git"
    hook(far, "pre-receive", f"echo 'you are {CANARY}' >&2; exit 1\n")
    home = home_for(server, tmp_path / "h", {"KAI_TOKEN": CANARY}, user="ann")
    with pytest.raises(RefusedByRemote) as caught:
        home.push("bot")
    assert "you are ***" in caught.value.what
    server.refusal = (413, f"too much, {CANARY}")
    with pytest.raises(TransportError) as large:
        home.push("bot")
    assert "limits the size" in large.value.hint
    nowhere(home, caught.value, large.value)


def test_a_redirect_to_another_origin_gets_no_secret(server: Web, tmp_path: Path) -> None:
    with web(server.root) as other:
        other.user = ("ann", CANARY)
        server.user = None
        server.redirect = other.url.rstrip("/")
        home = home_for(server, tmp_path / "h", {"KAI_TOKEN": CANARY}, user="ann")
        with pytest.raises(CredentialsNeeded) as caught:
            home.push("bot")
        assert all("Authorization" not in headers for _, _, headers in other.asked)
        nowhere(home, caught.value)
        other.user = None
        home.push("bot")  # what needs no secret is followed
        assert refs(server.root / "far.git")


def test_a_secret_goes_through_no_open_wire() -> None:
    with pytest.raises(CredentialsNeeded) as caught:
        list(credentials.candidates(Origin.of("http://example.org/x"), "", {"KAI_TOKEN": CANARY}, _nobody, own=True))
    assert "https" in caught.value.hint
    found = credentials.candidates(Origin.of("http://[::1]:8080/x"), "", {"KAI_TOKEN": CANARY}, _nobody, own=True)
    assert next(found).secret == CANARY
    assert CANARY not in repr(credentials.Credential("ann", CANARY))


def _nobody(question: str, secret: bool) -> str | None:
    return None


# ---------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    "address",
    [
        Address("-oProxyCommand=touch x", "", None, "/x"),
        Address("host", "-oProxyCommand=x", None, "/x"),
        Address("host", "", None, "-x"),
        Address("", "", None, "/x"),
        Address("a b", "", None, "/x"),
        Address("host;id", "", None, "/x"),
    ],
)
def test_nothing_of_a_url_is_an_option_of_ssh(address: Address) -> None:
    with pytest.raises(RefusedUrl):
        gitpipes.over_ssh("git-upload-pack", address, ENVIRON, "ssh")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["ssh"]),
        ({"GIT_SSH_COMMAND": "ssh -F 'a file' -v"}, ["ssh", "-F", "a file", "-v"]),
        ({"GIT_SSH_COMMAND": "ssh; touch x"}, ["ssh"]),
        ({"GIT_SSH_COMMAND": "ssh $(id)"}, ["ssh"]),
        ({"GIT_SSH_COMMAND": "ssh 'unclosed"}, ["ssh"]),
        ({"GIT_SSH": "/opt/ssh"}, ["/opt/ssh"]),
    ],
)
def test_what_is_started_for_ssh_needs_no_shell(variables: dict[str, str], expected: list[str]) -> None:
    assert gitpipes.ssh_command(variables, "ssh") == expected


def test_a_path_on_another_machine_is_one_word_there(tmp_path: Path) -> None:
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\nfor it; do printf "%s\\n" "$it" >>{tmp_path}/argv; done\n')
    program.chmod(0o755)
    with pytest.raises(TransportError):
        gitpipes.over_ssh("git-upload-pack", Address("h", "u", 22, "/a'b; !id"), {"GIT_SSH": str(program)}, "ssh")
    assert (tmp_path / "argv").read_text().splitlines() == [
        *("-T", "-p", "22", "-l", "u", "--", "h"),
        "git-upload-pack '/a'\\''b; '\\!'id'",
    ]


# ---------------------------------------------------------------- hosts that are none

ID = b"1" * 64
HOSTILE = {
    "nothing": b"",
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "minus": b"-001",
    "cut": b"00ff" + ID,
    "error": b"001bERR access \033[31mdenied\n",
    "no id": b"0010zzzz refs/x\n0000",
    "short id": b"003c" + b"1" * 39 + b" refs/heads/main\n0000",
    "format": b"00%02x%s refs/heads/main\0 object-format=md5\n0000" % (64 + 42 + 2, ID),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_git_host_leaves_nothing(name: str, tmp_path: Path) -> None:
    home = kaivc.init(tmp_path / "h", "sha256")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            link, _ = listener.accept()
            with link:
                link.recv(1000)
                link.sendall(HOSTILE[name])

        thread = threading.Thread(target=serve)
        thread.start()
        home.remote_add("origin", f"git://127.0.0.1:{listener.getsockname()[1]}/x.git")
        with pytest.raises((TransportError, RefusedByRemote)) as caught:
            home.fetch()
        thread.join()
    assert "\033" not in caught.value.what
    assert not list((tmp_path / "h" / ".kai").glob("incoming/*/*"))
    home.close()
