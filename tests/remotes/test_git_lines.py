"""What comes from a git host is read with care: answers, packs that are looked into, words that are told."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc.errors import KaiError, RefusedByRemote, TransportError
from kaivc.ports import silent
from kaivc.remotes import githttp, gitlines, gitnames
from kaivc.remotes.credentials import Origin
from kaivc.remotes.gitlines import FLUSH, Advertised, Command, Side, packet

OID = bytes.fromhex("12" * 20)
PLAIN = Advertised({}, {})
BANDS = Advertised({}, {"side-band-64k": "", "report-status": "", "atomic": ""})


def entry(kind: int, data: bytes) -> bytes:
    head = bytearray([kind << 4 | len(data) & 15 | (0x80 if len(data) > 15 else 0)])
    rest = len(data) >> 4
    while rest:
        head.append(rest & 0x7F | (0x80 if rest > 0x7F else 0))
        rest >>= 7
    return bytes(head) + zlib.compress(data)


def pack(*entries: bytes) -> bytes:
    data = struct.pack(">4sII", b"PACK", 2, len(entries)) + b"".join(entries)
    return data + hashlib.sha1(data, usedforsecurity=False).digest()


TAG = b"object %s\ntype commit\ntag bot/v1.0.0\ntagger A <a@b> 1 +0000\n\nnotes\n" % OID.hex().encode()


@pytest.mark.parametrize("there", [PLAIN, BANDS], ids=["plain", "bands"])
@pytest.mark.parametrize("acks", [[b"NAK\n"], [b"ACK %s\n" % OID.hex().encode()] * 3])
def test_a_pack_behind_acknowledgements(there: Advertised, acks: list[bytes]) -> None:
    sent = pack(entry(1, b"x"), entry(4, TAG))
    body = packet(b"\2Counting objects:  50% (1/2)\r") + packet(b"\1" + sent) + FLUSH if there is BANDS else sent
    read = io.BytesIO(b"".join(map(packet, acks)) + body).read
    seen: list[tuple[str, int, int | None]] = []
    side = Side(lambda what, done, total: seen.append((what, done, total)))
    assert gitlines.read_pack(read, there, side)(1 << 20) == sent
    assert seen == ([("there: counting objects", 1, 2)] if there is BANDS else [])


@pytest.mark.parametrize(
    "answer",
    [b"", FLUSH, packet(b"what\n"), packet(b"ERR no\n"), packet(b"NAK\n") + packet(b"\3fatal\n"), b"zzzz"],
)
def test_an_answer_that_is_none(answer: bytes) -> None:
    with pytest.raises((TransportError, RefusedByRemote)):
        gitlines.read_pack(io.BytesIO(answer).read, BANDS, Side(silent))(10)


@given(st.binary(max_size=300))
def test_whatever_comes_is_an_error_of_ours_or_nothing(data: bytes) -> None:
    for take in (
        lambda: gitlines.read_advertised(gitlines.lines_over(io.BytesIO(data).read)),
        lambda: gitlines.read_pack(io.BytesIO(data).read, BANDS, Side(silent))(1000),
        lambda: gitlines.read_report(io.BytesIO(data).read, BANDS, Side(silent)),
        lambda: gitnames.owner_in(io.BytesIO(data).read, "sha1"),
        lambda: gitnames.owner_in(io.BytesIO(b"PACK\0\0\0\2\0\0\0\5" + data).read, "sha1"),
    ):
        with suppress(KaiError):
            take()


@pytest.mark.parametrize("head", [b"0000", b"0001", b"0003"])
def test_a_length_that_none_has_reads_no_more(head: bytes) -> None:
    """It asked for a negative count of bytes, which is all that the other end cares to send."""
    stream = io.BytesIO(packet(b"NAK\n") + head + bytes(1 << 20))
    with pytest.raises(TransportError):
        gitlines.read_pack(stream.read, PLAIN, Side(silent))(10)
    assert stream.tell() < 100


def test_a_report_says_which_refs_were_refused_and_why() -> None:
    words = [b"unpack ok\n", b"ok refs/heads/current\n", b"ng refs/tags/v1.0.0 \033[1mno\n"]
    report = b"".join(map(packet, words)) + FLUSH
    banded = packet(b"\1" + report[:20]) + packet(b"\2a word\n") + packet(b"\1" + report[20:]) + FLUSH
    side = Side(silent)
    assert gitlines.read_report(io.BytesIO(banded).read, BANDS, side) == {"refs/tags/v1.0.0": "[1mno"}
    assert side.said == ["a word"]


def test_a_push_says_what_must_still_be_there() -> None:
    there = Advertised({}, {"atomic": "", "object-format": "sha256", "report-status": "", "agent": "git/2"})
    new = bytes.fromhex("34" * 32)
    asked = gitlines.push_request(there, [Command("refs/heads/a", None, new), Command("refs/heads/b", new, None)], "me")
    zero, digits = b"0" * 64, new.hex().encode()
    first = zero + b" " + digits + b" refs/heads/a\0 report-status atomic object-format=sha256 agent=me"
    assert asked == packet(first) + packet(digits + b" " + zero + b" refs/heads/b") + FLUSH


# ---------------------------------------------------------------- whose a repository is


def test_the_first_tag_says_whose_it_is() -> None:
    sent = pack(entry(1, b"c" * 5000), entry(4, TAG), entry(2, b"never read"))
    assert gitnames.owner_in(io.BytesIO(sent).read, "sha1") == "bot"
    assert gitnames.owner_in(io.BytesIO(pack(entry(1, b"c"), entry(3, b"x"))).read, "sha1") is None
    for name in (b"v1.0.0", b"../x/v1.0.0", b"Bot/v1.0.0"):
        other = pack(entry(4, TAG.replace(b"bot/v1.0.0", name)))
        assert gitnames.owner_in(io.BytesIO(other).read, "sha1") is None


@pytest.mark.parametrize("kind", [1, 4])
def test_a_bomb_is_not_inflated(kind: int) -> None:
    bomb = pack(entry(kind, bytes(200 << 20)))
    with pytest.raises(TransportError):
        gitnames.owner_in(io.BytesIO(bomb).read, "sha1")


def test_names_that_an_agent_has_there() -> None:
    listed = ["refs/heads/other/current", "refs/tags/third/v1.0.0", "refs/heads/UPPER/current", "refs/heads/main"]
    snapshot = "refs/heads/snapshots/current"  # a snapshot of that name
    refs = dict.fromkeys([*listed, snapshot, "refs/pull/1/head"], OID)
    assert gitnames.full_agents(refs) == ("other", "third")
    short = {"refs/heads/current": OID, "refs/tags/v1.0.0": OID, "refs/tags/v1": OID, "refs/heads/snapshots/x": OID}
    assert set(gitnames.ours("bot", short | refs, short=True)) == {
        *("refs/heads/bot/current", "refs/tags/bot/v1.0.0", "refs/heads/bot/snapshots/x"),
        "refs/heads/bot/snapshots/current",
    }


# ---------------------------------------------------------------- proxies


@pytest.mark.parametrize(
    ("url", "variables", "expected"),
    [
        ("https://a.example/", {}, None),
        ("https://a.example/", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("https://a.example/", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("http://a.example/", {"https_proxy": "http://p:1"}, None),
        ("https://a.example/", {"https_proxy": "http://p:1", "no_proxy": "b.example, .example"}, None),
        ("https://a.example/", {"https_proxy": "http://p:1", "no_proxy": "xample"}, "http://p:1"),
        ("https://a.example/", {"all_proxy": "http://p:1", "NO_PROXY": "*"}, None),
    ],
)
def test_proxies(url: str, variables: dict[str, str], expected: str | None) -> None:
    assert githttp.proxy_for(Origin.of(url), variables) == expected
