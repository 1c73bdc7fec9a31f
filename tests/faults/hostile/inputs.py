"""The tables of hostile input: words of a command line, texts, trees to import, rows of the catalog, odd files."""

# ruff: noqa: E501, S608 - tables of inputs, and statements made of their own words
from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kaivc.storage.catalog import checksum
from tests.faults.hostile.doors import Door, Sandbox
from tests.faults.hostile.forge import AGENT, NOTHING


@dataclass(frozen=True)
class Input:
    """One hostile input: how it is placed, and the doors that it comes through.

    ``codes``: every door must refuse it with one of these; none: any typed answer will do. ``found``: checks name it.
    """

    name: str
    doors: tuple[Door, ...]
    place: Callable[[Sandbox], object] = lambda _: None
    codes: frozenset[str] = frozenset()
    found: bool = False
    env: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def _doors(*lines: str | tuple[str, ...], writes: bool = True) -> tuple[Door, ...]:
    return tuple(Door(tuple(it.split()) if isinstance(it, str) else it, writes=writes) for it in lines)


# ---------------------------------------------------------------- words of a command line

WORDS = {
    "empty": "",
    "blank": " ",
    "a dash": "--to",
    "dot dot": "..",
    "a path": "../../canary",
    "absolute": "/etc/passwd",
    "a slash at its end": "a/",
    "lock": "x.lock",
    "a device": "con",
    "a line break": "a\nb",
    "ESC": "\x1b[2J\x1b]0;x\x07",
    "C1": "\u009b2J",
    "bidi": "\u202egpj.exe",
    "not UTF-8": "\udcff\udcfe",
    "half a pair": "\ud800",
    "full width": "\uff41\uff42",
    "other digits": "v\u0661.\u0662.\u0663",
    "superscripts": "v\u00b2.0.0",
    "100,000 letters": "a" * 100_000,
    "100,000 digits": "1" * 100_000,
    "braces": "@{" * 500,
    "tildes": "current" + "~1" * 5000,
    "carets": "^" * 5000,
    "percent": "%s%n%x{0}",
    "quotes": "'; DROP TABLE refs; --",
    "wildcards": "*%_?[",
    "a time of none": "@{9999-99-99}",
    "an entry of none": "@{999999999}",
    "a step of none": "current~999999999",
    "a number of none": "v999999999.999999999.999999999",
    "ats": "@" * 100,
    "nested": "summarizer@summarizer@summarizer@v1.0.0",
}


def _said(text: str) -> tuple[Door, ...]:
    return _doors(
        ("show", f"{AGENT}@{text}"),
        ("rollback", AGENT, "--to", text),
        ("status", text),
        ("new", text),
        ("agent", "rename", AGENT, text),
        ("restore", AGENT, "--from", text),
        ("diff", AGENT, text),
        ("reflog", AGENT, text),
    )


def _free(text: str) -> tuple[Door, ...]:
    return _doors(
        ("commit", AGENT, "--bump", "minor", "--allow-empty", "-m", text),
        ("commit", AGENT, "--bump", "minor", "--allow-empty", "--author", text),
        ("commit", AGENT, "--bump", "minor", "--allow-empty", "--op-id", text),
        ("rollback", AGENT, "--to", "v1.0.0", "--reason", text),
        ("cat", AGENT, text),
        ("ls-tree", AGENT, text),
        ("status", AGENT, "-c", f"lock.wait={text}"),
        ("status", AGENT, "-c", text),
        ("audit", AGENT, "--expect-head", text),
    )


# NUL cannot stand in an argument, and the system bounds one at 128 KiB.
ARGUMENTS = [
    *(Input(f"name: {label}", _said(text)) for label, text in WORDS.items()),
    *(Input(f"text: {label}", _free(text)) for label, text in WORDS.items()),
    *(
        Input(f"KAI_AUTHOR: {label}", _doors(f"commit {AGENT} --bump minor --allow-empty"), env={"KAI_AUTHOR": text})
        for label, text in WORDS.items()
        if label in ("ESC", "bidi", "a line break", "C1", "100,000 letters", "not UTF-8", "empty")
    ),
]


# ---------------------------------------------------------------- texts

YAML = {
    "aliases that double": b"a: &a [x,x]\n"
    + b"".join(b"%c: &%c [*%c,*%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 122)),
    "a python object": b"entry: !!python/object/apply:os.system ['touch /tmp/owned']\n",
    "a tag": b"files: !x {}\n",
    "brackets": b"[" * 60_000,
    "braces": b"{a: " * 15_000,
    "indents": b"".join(b" " * n + b"a:\n" for n in range(300)),
    "65,000 keys": b"".join(b"a%d: 1\n" % n for n in range(7_000)),
    "the same key": b"entry: a\nentry: b\n",
    "a merge": b"<<: {entry: x}\n",
    "not UTF-8": b"entry: \xff\xfe\n",
    "NUL": b"entry: a\0b\n",
    "UTF-16": "entry: a\n".encode("utf-16"),
    "a number of 60,000 digits": b"isolation: " + b"9" * 60_000,
    "a float that explodes": b"isolation: 1e999999999\n",
    "escapes in a key": b'"\\e[2J\\x9b": 1\n',
    "bidi in a key": "\u202eyrtne: x\n".encode(),
    "two documents": b"--- {}\n--- {}\n",
    "a huge scalar": b"entry: " + b"x" * 65_000,
    "2 MiB": b"# " + b"x" * (2 << 20),
    "half a pair": b'entry: "\\ud800"\n',
    "a question mark": b"? [a, b]\n: x\n",
    "a list": b"- a\n",
    "tabs": b"\tentry: x\n",
    "a date": b"2001-01-01: 2001-01-01\n",
}

PATTERNS = {
    "stars": b"*a" * 500 + b"b\n",
    "double stars": b"**/" * 300 + b"x\n",
    "doubled doubled stars": b"a**" * 300 + b"\n",
    "1,000 of stars": (b"*a*b*c*d*e*f*g*h*i*j*k\n") * 1000,
    "an open bracket": b"[a-\n",
    "a bracket of all": b"[\x01-\xff]" * 200 + b"\n",
    "a class of none": b"[[:evil:]]\n",
    "a backslash last": b"a\\\n",
    "NUL": b"a\0b\n",
    "a line of 60,000": b"a" * 60_000 + b"\n",
    "60,000 lines": b"a\n" * 30_000,
    "2 MiB": b"a\n" * (1 << 20),
    "not UTF-8": b"\xff\xfe\n",
    "escapes": b"[\x1b[2J\n",
    "all is taken back": b"!*\n!.git\n!.kai\n!**\n",
    "carriage returns": b"a\r\nb\r\r\n",
}


def _workspace(name: str, data: bytes) -> Callable[[Sandbox], object]:
    return lambda box: (box.home / AGENT / "workspace" / name).write_bytes(data)


def _kai(name: str, data: bytes) -> Callable[[Sandbox], object]:
    return lambda box: (box.home / ".kai" / name).write_bytes(data)


_LIVE = _doors(
    f"commit {AGENT} --bump minor",
    f"status {AGENT}",
    f"rollback {AGENT} --to v1.0.0",
    f"restore {AGENT}",
    f"diff {AGENT}",
)
_ANY = _doors(f"status {AGENT}", "doctor", "fsck", f"commit {AGENT} --bump minor --allow-empty")
INVALID = frozenset(["E305", "E309"])
_E306 = frozenset(["E306"])
TEXTS = [
    *(
        Input(f"kai.yaml: {label}", (*_LIVE, *_doors(f"run {AGENT} --dirty -- true")), _workspace("kai.yaml", data))
        for label, data in YAML.items()
    ),
    *(Input(f".kaiignore: {label}", _LIVE, _workspace(".kaiignore", data)) for label, data in PATTERNS.items()),
    *(Input(f"config.yaml: {label}", _ANY, _kai("config.yaml", data)) for label, data in YAML.items()),
    *(Input(f"local.yaml: {label}", _ANY, _kai("local.yaml", data)) for label, data in YAML.items()),
    *(
        Input(f"home.json: {label}", _ANY, _kai("home.json", data))
        for label, data in {
            "empty": b"", "a list": b"[]", "nested": b"[" * 100_000, "NaN": b'{"format": NaN}', "64 MiB": b" " * (64 << 20),
            "other types": b'{"format": [], "home_id": {}, "object_format": 7, "shared": "x"}', "not UTF-8": b"\xff",
        }.items()
    ),
    Input("kai.yaml: cannot be committed", _doors(f"commit {AGENT} --bump minor"),
          _workspace("kai.yaml", YAML["aliases that double"]), INVALID),
    Input("config.yaml: cannot be used", _doors(f"status {AGENT}"), _kai("config.yaml", YAML["a tag"]), _E306),
]  # fmt: skip


# ---------------------------------------------------------------- trees to import


def _meta(**values: object) -> bytes:
    return json.dumps(values).encode()


METAS = {
    "empty": b"",
    "nested": b'{"a":' * 50_000,
    "brackets": b"[" * 200_000,
    "a number of 200,000 digits": b'{"created": ' + b"9" * 200_000 + b"}",
    "NaN": b'{"notes": NaN}',
    "not UTF-8": b'{"notes": "\xff"}',
    "half a pair": b'{"notes": "\\ud800"}',
    "NUL": b'{"notes": "\\u0000"}',
    "a list": b"[]",
    "too large": b" " * (300 << 10) + b"{}",
    "64 MiB": b" " * (64 << 20) + b"{}",
    "other types": _meta(version=7, created=[], notes={}, parent=1.5),
    "another version": _meta(version="9.9.9"),
    "its own parent": _meta(parent="1.0.0"),
    "a parent of none": _meta(parent="../../x"),
    "a time past all": _meta(created="9999-12-31T23:59:59-23:59"),
    "a time before all": _meta(created="0001-01-01T00:00:00+23:59"),
    "a time of letters": _meta(created="\u0661-01-01"),
    "escapes": _meta(notes="\x1b[2J\u202e", created="\x1b[2J"),
    "escapes in a type": _meta(snapshot_type="\x1b[2J"),
    "notes of 200 KB": _meta(notes="n" * 200_000),
    "a key twice": b'{"version": "1.0.0", "version": "2.0.0"}',
}


def _folders(name: str = "v1.0.0", meta: bytes | None = None) -> Callable[[Sandbox], Path]:
    def place(box: Sandbox) -> Path:
        folder = box.top / "import/versions" / name
        folder.mkdir(parents=True)
        (folder / "logic.py").write_text("x\n")
        if meta is not None:
            (folder / "snapshot_meta.json").write_bytes(meta)
        return folder

    return place


def _in_folder(name: str, make: Callable[[Path], object]) -> Callable[[Sandbox], object]:
    return lambda box: make(_folders()(box) / name)


def _beside(name: str, make: Callable[[Path], object]) -> Callable[[Sandbox], object]:
    def place(box: Sandbox) -> None:
        _folders()(box)
        make(box.top / "import" / name)

    return place


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as it:
        here = os.getcwd()
        os.chdir(path.parent)
        it.bind(path.name)
        os.chdir(here)


def _device(path: Path) -> None:
    os.mknod(path, 0o20600, os.makedev(1, 5))  # /dev/zero: it never ends


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


ODD: dict[str, Callable[[Path], object]] = {
    "a pipe": _fifo,
    "a socket": _socket,
    "an endless device": _device,
    "a directory": lambda path: (path / "deep/er").mkdir(parents=True),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to the canary": _link("../../../canary/secret.txt"),
    "a link to /dev/zero": _link("/dev/zero"),
    "a dangling link": _link("nowhere/at/all"),
    "1 TiB of nothing": _huge,
    "garbage": lambda path: path.write_bytes(b"\x1b[2J\xff\0" * 1000),
    "empty": lambda path: path.write_bytes(b""),
}

_IMPORT = _doors(("import", "--layout", "folders", "TOP/import", "--name", "other"))
FOLDERS = [
    *(Input(f"import: {label}", _IMPORT, _folders(meta=meta)) for label, meta in METAS.items()),
    *(
        Input(f"import: folder {label}", _IMPORT, _folders(name))
        for label, name in {
            "escapes": "v1\x1b[2J", "other digits": "v\u0661.0.0", "a dash": "--help", "no number": "latest",
            "200 digits": "v" + "1" * 200 + ".0.0", "not UTF-8": os.fsdecode(b"v1.\xff"),
        }.items()
    ),
    *(Input(f"import: meta is {label}", _IMPORT, _in_folder("snapshot_meta.json", make)) for label, make in ODD.items()),
    *(Input(f"import: current is {label}", _IMPORT, _beside("current", make)) for label, make in ODD.items()),
    *(
        Input(f"import: a file is {label}", _IMPORT, _in_folder("odd", make))
        for label, make in ODD.items()
        if label not in ("garbage", "empty", "a directory", "1 TiB of nothing")
    ),
    *(
        Input(f"import: a name {label}", _IMPORT, _in_folder(name, lambda path: path.write_bytes(b"x")))
        for label, name in {"dotgit": ".GIT", "dotkai": ".KAI", "short": "git~1", "stream": ".git:x"}.items()
    ),
    Input("import: a link out", _IMPORT, _in_folder("out", _link("../../../../canary")), frozenset(["E308"])),
    Input("import: an absolute link", _IMPORT, _in_folder("out", _link("/etc")), frozenset(["E308"])),
]  # fmt: skip


# ---------------------------------------------------------------- rows of the catalog

_READING = _doors(
    f"status {AGENT}", f"log {AGENT}", f"versions {AGENT}", f"reflog {AGENT} --all", f"show {AGENT}@v1.0.0", f"verify {AGENT}",
    f"audit {AGENT}", "agent list", f"rev-parse {AGENT}@backups/3", f"show {AGENT}@{{1}}", "__complete zsh kai show s",
    "doctor", "gc --dry-run", writes=False,
)  # fmt: skip
_WRITING = _doors(
    f"rollback {AGENT} --to v1.0.0", f"commit {AGENT} --bump minor --allow-empty", f"undo {AGENT}", "gc",
    f"new fork --from {AGENT}@v1.0.0", f"fsck {AGENT} --repair", f"agent rename {AGENT} other", f"agent remove {AGENT} --yes",
)  # fmt: skip
_CHECKS = (Door(("fsck",), checks=True),)
EVERYWHERE = (*_CHECKS, *_READING, *_WRITING)

VALUES: dict[str, object] = {
    "text": "\x1b[2J",
    "bytes": b"\xff\0",
    "a float": 1.5,
    "infinity": float("inf"),
    "the largest": (1 << 63) - 1,
    "below zero": -(1 << 63),
    "nothing": b"",
}
COLUMNS = {
    "refs": ("name oid", "name", "oid"),
    "packs": ("id agent name state committed", "name", "state", "committed"),
    "objects": ("id kind pack offset length size", "id", "kind", "pack", "offset", "length", "size"),
    "reflog": (
        "seq ord ref old new actor time_ns reason verb op_id undoes backup workspace",
        "ref", "old", "new", "actor", "time_ns", "verb", "op_id", "undoes", "backup", "workspace",
    ),
    "agents": ("id name created_ns op_seq op_head removed_ns", "name", "created_ns", "op_seq", "op_head", "removed_ns"),
    "ops": ("", "op_id", "digest", "payload", "pack", "offset"),
    "intents": ("kind payload", "kind", "payload"),
    "views": ("", "tag"),
    "stat_cache": ("dir data", "dir", "data"),
    "meta": ("", "value"),
}  # fmt: skip


def _sql(*statements: tuple[str, tuple[object, ...]]) -> Callable[[Sandbox], object]:
    def place(box: Sandbox) -> None:
        db = sqlite3.connect(box.home / ".kai/catalog.sqlite", isolation_level=None)
        db.create_function("fit", -1, checksum)
        for sql, args in statements:
            db.execute(sql, args)
        db.close()

    return place


def _row(table: str, column: str, value: object) -> Callable[[Sandbox], object]:
    """Put a value into a column of the newest row; its checksum fits."""
    checked = COLUMNS[table][0].split()
    todo: list[tuple[str, tuple[object, ...]]] = []
    if table == "intents":
        todo.append((
            "INSERT INTO intents (agent, kind, payload, checksum) VALUES (1, 'workspace', x'80', fit('workspace', x'80'))", (),
        ))  # fmt: skip
    where = "rowid = (SELECT max(rowid) FROM intents)" if table == "intents" else "1"
    if table in ("reflog", "ops"):
        where = f"seq = (SELECT max(seq) FROM {table})"
    if table in ("refs", "objects", "packs"):
        key = {"refs": "name", "objects": "id", "packs": "name"}[table]
        where = f"{key} = (SELECT max({key}) FROM {table})"
    if table == "views":
        where = "tag = (SELECT max(tag) FROM views)"
    if table == "meta":
        where = "key = 'home_id'"
    todo.append((f"UPDATE OR REPLACE {table} SET {column} = ? WHERE {where}", (value,)))
    if checked:
        todo.append((f"UPDATE {table} SET checksum = fit({', '.join(checked)})", ()))
    return _sql(*todo)


ROWS = [
    *(
        Input(f"row: {table}.{column} is {label}", EVERYWHERE, _row(table, column, value))
        for table, (_, *columns) in COLUMNS.items()
        for number, column in enumerate(columns)
        for label, value in list(VALUES.items())[number % 2 :: 2]
    ),
    Input("row: a plan that leads out", EVERYWHERE, _row("intents", "payload", b"".join([
        b"\x88\xa2op\xa1x\xa4base\xc4\x20", NOTHING, b"\xa6writes\x91\x94\xc4\x15../../../canary/secr\xcd\x81\xa4\xc4\x20", NOTHING,
        b"\xc2\xa7removes\x91\xc4\x15../../../canary/secr\xa4left\x90\xa4live\xc2\xabplain_sides\x90\xa6backup\x01"]))),
    Input("row: a rename that leads out", EVERYWHERE, _sql((
        "INSERT INTO intents (agent, kind, payload, checksum) VALUES (1, 'rename', ?, fit('rename', ?))",
        (b"x ../../../canary",) * 2))),
    Input("row: a rename of one word", EVERYWHERE, _sql((
        "INSERT INTO intents (agent, kind, payload, checksum) VALUES (1, 'rename', ?, fit('rename', ?))", (b"x",) * 2))),
    Input("row: a removal of all", EVERYWHERE, _sql((
        "INSERT INTO intents (agent, kind, payload, checksum) VALUES (1, 'remove', ?, fit('remove', ?))",
        (b"../../canary",) * 2))),
    Input("row: an agent that is elsewhere", EVERYWHERE, _sql(
        ("UPDATE agents SET name = '../canary'", ()),
        ("UPDATE agents SET checksum = fit(id, name, created_ns, op_seq, op_head, removed_ns)", ()))),
    Input("row: a pack that is elsewhere", EVERYWHERE, _sql(
        ("UPDATE packs SET name = '../../../canary/secret.txt'", ()),
        ("UPDATE packs SET checksum = fit(id, agent, name, state, committed)", ()))),
    Input("row: a view that is elsewhere", EVERYWHERE, _sql(("UPDATE views SET tag = '../../../canary' WHERE tag = (SELECT max(tag) FROM views)", ()))),
    Input("row: a trigger", EVERYWHERE, _sql(
        ("CREATE TRIGGER evil AFTER INSERT ON reflog BEGIN DELETE FROM refs; END", ()))),
    Input("row: a view for a table", EVERYWHERE, _sql(
        ("ALTER TABLE refs RENAME TO other", ()), ("CREATE VIEW refs AS SELECT * FROM other", ()))),
    Input("row: a table that is gone", EVERYWHERE, _sql(("DROP TABLE reflog", ()))),
    Input("row: a column that is gone", EVERYWHERE, _sql(("ALTER TABLE refs RENAME COLUMN oid TO other", ()))),
]  # fmt: skip


# ---------------------------------------------------------------- odd files in a home


def _instead(path: str, make: Callable[[Path], object]) -> Callable[[Sandbox], object]:
    def place(box: Sandbox) -> None:
        target = box.home / path
        if target.is_symlink() or target.is_file():
            target.unlink()
        elif target.is_dir():
            os.rename(target, box.home / "aside")
        target.parent.mkdir(parents=True, exist_ok=True)
        make(target)

    return place


PLACES = (
    f"{AGENT}/current",
    f"{AGENT}/rollback.log",
    f"{AGENT}/versions",
    f"{AGENT}/versions/v2.0.0",
    f"{AGENT}/workspace",
    f"{AGENT}/workspace/logic.py",
    f"{AGENT}/workspace/kai.yaml",
    f"{AGENT}/workspace/.kaiignore",
    ".kai/config.yaml",
    ".kai/local.yaml",
    ".kai/home.json",
    ".kai/packs/" + AGENT,
    ".kai/tmp",
    ".kai/locks",
    ".kai/catalog.sqlite",
)
FILES = [
    Input(f"{path} is {label}", EVERYWHERE, _instead(path, make)) for path in PLACES for label, make in ODD.items()
]

TABLES = {"words": ARGUMENTS, "texts": TEXTS, "folders": FOLDERS, "rows": ROWS, "files": FILES}
