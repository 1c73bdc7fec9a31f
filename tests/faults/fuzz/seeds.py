"""Inputs to begin with, one well-formed text or more for each target: ``python -m tests.faults.fuzz.seeds``."""

# ruff: noqa: E501, ISC004 - a table of texts
from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import msgpack

from kaivc import access, pktline, wire
from kaivc.names import ObjectId
from kaivc.plans import RestorePlan, Write
from kaivc.storage.gitobjects import Commit, Entry, Tag, encode_commit, encode_tag, encode_tree
from kaivc.storage.journal import GENESIS, Move, Op, encode_op
from kaivc.storage.pack import TRAILER, TRAILER_MAGIC, Base, RecordKind, encode, encode_after
from tests.faults.fuzz.targets import BASE

CORPUS = Path(__file__).parent / "corpus"
OID = ObjectId(bytes(range(32)))
CHECK = "sha256:" + "e3" * 32
MESSAGE = (
    "notes\n\nKai-Format: 1\nKai-Version: 1.2.3-rc.1\nKai-Parent-Version: 1.2.2\nKai-Snapshot-Type: manual\n"
    f"Kai-State-Checksum: {CHECK}\nKai-Config-Checksum: {CHECK}\n"
)
WHO = "Ann Example <ann@example.org>"
RECORD = encode(RecordKind.BLOB, OID, b"some text\n" * 20, 1)
AFTER = encode_after(Base(OID, BASE, 5), RecordKind.BLOB, OID[::-1], BASE + b"x" * 99, 1).record
HEAD = 16 + int.from_bytes(AFTER[4:6], "little")
FOOTER = encode(RecordKind.FOOTER, b"", msgpack.packb({"v": 0, "records": [[1, OID, 8, len(RECORD), 200]]}), 1)
OP = Op("rollback", "abcd", WHO, 1_790_000_000_000_000_000, "why", None, 3, workspace=True)
PLAN = RestorePlan(
    "op", OID, (Write(b"a/b", Entry(0o100644, OID), private=True),), (b"c",), {b"c": Entry(0o100755, OID)}, live=True
)

OFFER = {"id": "ab" * 32, "records": 3, "size": 77}
GRANT = access.grant_of("tester", ["bot", "x-*"])
GIT_PACK = b"PACK\0\0\0\2\0\0\0\2" + b"\x35" + zlib.compress(b"hello") + b"\x6b\x0f" + zlib.compress(b"\5\5\5HELLO")


def _asked(verb: str, **fields: object) -> bytes:
    return wire.pack_message({"v": wire.VERSION, "verb": verb, **fields})


SEEDS: dict[str, list[bytes]] = {
    "pack_record": [RECORD, encode(RecordKind.OP, OID, b"raw", 1), b"\1\1\0\0\x2a" + bytes(12) + RECORD[16:58] + RECORD,
        AFTER, AFTER[2:4] + bytes([0, 0, HEAD - 16]) + bytes(12) + AFTER[16:HEAD] + AFTER[HEAD + 4 : -8],
    ],
    "pack_scan": [RECORD * 2, RECORD + FOOTER + TRAILER.pack(8 + len(RECORD), TRAILER_MAGIC), RECORD[:50] + RECORD, RECORD + AFTER],
    "tree": [
        encode_tree([(b"a", Entry(0o100644, OID)), (b"b", Entry(0o040000, OID)), (b"c", Entry(0o120000, OID))]),
        encode_tree([(b"x y", Entry(0o100755, ObjectId(OID[:20])))]),
    ],
    "commit": [
        encode_commit(Commit(OID, OID, WHO, 1_790_000_000, MESSAGE)),
        encode_commit(Commit(ObjectId(OID[:20]), None, WHO, 0, MESSAGE)),
    ],
    "tag": [encode_tag(Tag(OID, "agent/v1.2.3", WHO, 1_790_000_000, "notes\n"))],
    "message": [MESSAGE.encode()],
    "notes": ["notes\r\n---\n# ------------------------ >8 ------------------------\n\u00fc ".encode()],
    "op_record": [encode_op(OP, "home", "agent", 7, GENESIS, [Move("refs/heads/agent/current", OID, None)])],
    "revision": [
        b"current", b"v1.2.0", b"^1.2", b"current~2", b"@{1}", b"@{2026-11-01T12:00:00.5+01:30}", b"snapshots/x",
        b"backups/12", b"agent@abcdef12", b"agent@v1.0.0-rc.1~3",
    ],
    "names": [b"v1.2.3-rc.1", WHO.encode(), b"my-agent_1.x", b"1.0.0-0a.b-c"],
    "kai_yaml": [
        b"files:\n  config: [config.yaml, '*.toml']\n  state: [state/**]\nstate:\n  keep: ['*.log']\n  monotonic:\n"
        b"    - {path: n.json, pointer: /a/0}\n  secret:\n    - {path: key, name: KEY}\nprivate: [key]\n"
        b"entry: python 'main.py'\ncheck: [make, test]\nisolation:\n  enable: true\n  env: [HOME]\n",
    ],
    "yaml_text": [b"a: [1, 2.5, true, ~, 'x', \"y\\n\", {b: c}]\n# c\nd: |\n  text\n", b"&a b: *a", b"--- !!python/x y"],
    "kaiignore": [b"*.log\n!keep.log\n/build/\na/**/b\n[a-z]?[!x][[:alpha:]]\\ \n# c\n**/x\n", b"*a*a*a*a*b"],
    "settings": [
        b"lock:\n  wait: 10s\nlimits: {max_file: 512 MiB}\nviews: {keep: 3}\nauthor: Ann <a@b>\nhead: x\n",
        b"workspaces:\n  a: {path: /x/y, inode: 7}\nsecrets:\n  KEY: {file: /k}\n",
        b"lock.wait=10s",
    ],
    "snapshot_meta": [
        b'{"version": "1.2.3", "created": "2026-11-01T12:00:00Z", "commit_hash": "ab", "parent": null, '
        b'"snapshot_type": "manual", "notes": "x", "agent_state_checksum": "y", "config_checksum": "z"}',
    ],
    "counter": [b'/a/b~1c/0\n{"a": {"b/c": [7, 1e3, "x"]}}', b"\n12"],
    "plan": [PLAN.encode(4)],
    "stat_cache": [msgpack.packb(("boot", [(b"name", (1, 2, 3, 4, 5), OID, 6), (b"db", tuple(range(10)), OID, 6)]))],
    "chunk_list": [msgpack.packb([(OID, 16384), (OID, 3)])],
    "quoted": [b"a b", b'a"\\\t\n\xff', "\u00fc".encode()],
    "asked": [
        _asked("hello"), _asked("head", agent="bot"), _asked("log", agent="bot", after=3),
        _asked("offer", agent="bot", wants=[OID], haves=[OID]),
        _asked("get", agent="bot", wants=[OID], haves=[], offer=OFFER, start=5),
        _asked("held", agent="bot", parcel=OFFER),
        _asked("put", agent="bot", parcel=OFFER, start=0) + b"".join(wire.pack_data([b"some", b"bytes"])),
        _asked("append", agent="bot", op_id="abcd", actor=WHO, reason="why", updates=[["refs/tags/bot/v1.0.0", None, OID]], parcel=OFFER),
    ],
    "answered": [
        wire.pack_message({"home": "ab" * 16, "object_format": "sha256", "agents": ["bot"], "seq": 3, "digest": OID,
            "refs": {"refs/heads/bot/current": OID}, "held": 7, "backup": 1, **OFFER}) + b"".join(wire.pack_data([b"\4\0\0\0text"])),
        wire.pack_message({"error": {"code": "E202", "what": "x", "unchanged": "", "hint": "", "facts": {"ref": "x"}}}),
    ],
    "parcel": [RECORD, RECORD * 2, RECORD + AFTER],
    "bundle": [
        msgpack.packb({"v": 1, "home": "ab" * 16, "object_format": "sha256", "agents": []}),
        msgpack.packb({"v": 1, "home": "ab" * 16, "object_format": "sha1", "agents": [{"name": "bot", "seq": 3, "digest": OID,
            "refs": {"refs/heads/bot/current": OID}, "log_length": 0, "parcel_length": 0, "after": 0, "needs": [OID], "parcel": OFFER}]}),
    ],
    "remotes": [
        b"remotes:\n  origin: {url: 'https://kai.example.org/x'}\n  far: {url: /home/far}\n",
        b'{"home": "abcd", "seq": 7, "digest": "ab12"}', b'{"home": "abcd", "seq": 1e400, "digest": ""}', b"[" * 1500, b"- " * 1000,
        b"remotes: 2026-99-99", b"remotes: !!timestamp x", b"remotes: &a {b: *a}",
    ],
    "url": [b"https://kai.example.org:8443/x", b"ssh://me@host/~/x", b"me@host:x.git", b"git://host/x", b"/a/b", b"file:///x"],
    "rules": [access.encode(access.Rules((access.Token("ab" * 6, "ci", "ab" * 32, WHO, GRANT, 5, None),), (access.User(7, "ann", GRANT),)))],
    "packets": [pktline.line(b"want x\n") + b"0000" + pktline.line(b"done\n"), b"0004", b"fff0" + b"x" * 99],
    "commands": [
        pktline.line(b"%s %s refs/heads/bot\0 report-status object-format=%s" % (b"0" * len(oid), oid, name)) + b"0000"
        for oid, name in ((b"ab" * 20, b"sha1"), (b"ab" * 32, b"sha256"))
    ],
    "advertised": [
        pktline.line(b"%s refs/heads/x\0side-band-64k report-status\n" % (b"ab" * 20)) + b"0000" + rest
        for rest in (
            pktline.line(b"NAK\n") + b"".join(pktline.banded(1, b"PACK")) + b"".join(pktline.banded(2, b"Counting objects: 50% (1/2)\r")) + b"0000",
            b"".join(pktline.banded(1, pktline.line(b"unpack ok\n") + pktline.line(b"ng refs/x no\n") + b"0000")) + b"0000",
            pktline.line(b"unpack ok\n") + pktline.line(b"ok refs/x\n") + b"0000",
            pktline.line(b"NAK\n") + pktline.line(b"ACK ab\n") + b"PACK",
            b"0008NAK\n0000PACK",
        )
    ],
    "git_pack": [GIT_PACK + hashlib.sha1(GIT_PACK).digest(), GIT_PACK + hashlib.sha256(GIT_PACK).digest()],  # noqa: S324 - git's
    "delta": [b"\xb4\1\x05\x05hello", b"\xb4\1\x0a\x90\x0a", b"\xb4\1\x14\x91\3\x14"],
}  # fmt: skip


def main() -> None:
    """Write them where a fuzzer finds them."""
    for target, texts in SEEDS.items():
        directory = CORPUS / target
        directory.mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(texts):
            (directory / f"seed-{number}").write_bytes(text)


if __name__ == "__main__":
    main()
