"""Inputs to begin with, one well-formed text or more for each target: ``python -m tests.faults.fuzz.seeds``."""

# ruff: noqa: E501, ISC004 - a table of texts
from __future__ import annotations

from pathlib import Path

import msgpack

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
