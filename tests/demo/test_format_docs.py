"""The pages of docs/format hold a reader; it reads what kaivc wrote, and never imports kaivc."""

import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaivc.layout import Layout
from kaivc.storage import compression
from kaivc.storage.pack import MAGIC, Codec, scan
from tests.conftest import ROOT, require_tool
from tests.engine.homes import copy

FORMAT = ROOT / "docs" / "format"

WRITER = """
import array, os, pathlib, random, sys
import kaivc

EXPIRED = "backups: {keep: 0, max_bytes: 0}\\nreflog: {expire: 0s}\\n"
top = pathlib.Path(sys.argv[1])
home = kaivc.init(top / "home", object_format=sys.argv[2])
(top / "home/.kai/config.yaml").write_text("packs:\\n  seal_at: 3 MiB\\n" + EXPIRED)
home = kaivc.open(top / "home")
agent = home.new("reader")
work = agent.workspace
(work / "logic.py").write_text("print('one')\\n")
(work / "config.yaml").write_text("depth: 3\\n")
(work / "long.txt").write_text("the same line\\n" * 1000)
story = "".join(f"{number} {random.Random(number).random()}\\n" for number in range(300))
(work / "story.txt").write_text(story)
(work / "state").mkdir()
(work / "state/large.bin").write_bytes(random.Random(7).randbytes(2_500_000))
(work / "state/zeros.bin").write_bytes(bytes(1_500_000))
(work / "state/vectors.f32").write_bytes(array.array("f", (random.gauss(0, 1) for _ in range(300_000))).tobytes())
agent.commit(version="1.0.0", notes="first\\n\\n--- not a patch")
(work / "logic.py").write_text("print('two')\\n")
(work / "state/large.bin").write_bytes(random.Random(8).randbytes(2_500_000))
(work / "story.txt").write_text(story + "the end\\n")
agent.commit(bump="minor", notes="second")
(work / "logic.py").write_text("print('dirty')\\n")
agent.rollback("v1.0.0", reason="to look at it")
agent.undo()
agent.redo()
(work / "logic.py").write_text("print('dirty again')\\n")
agent.rollback("v1.1.0")
assert agent.gc().done
home.new("other").workspace.joinpath("a").write_text("a")
home.agent("other").commit()
fork = home.new("fork", source="reader@v1.1.0")
(fork.workspace / "logic.py").write_text("print('forked')\\n")
fork.commit()
home.rename("fork", "branch")
home.agent("branch").commit(notes="under its new name", allow_empty=True)
home.import_(top / "home/reader", name="adopted")
home.remove("other")
home.close()
"""

READ_ALL = """
import sys, pathlib

home = pathlib.Path(sys.argv[1])
db = sqlite3.connect(home / ".kai/catalog.sqlite")
meta = dict(db.execute("SELECT key, value FROM meta"))
agents = dict(db.execute("SELECT name, id FROM agents"))
report = {"format": meta["format"], "rows": check_rows(db), "kinds": {}, "ops": {}}
about = json.loads((home / ".kai/home.json").read_text())
assert about == {key: meta[key] for key in ("format", "home_id", "object_format")} | {"shared": bool(meta["shared"])}
report |= {"sealed": 0, "linked": 0, "indexed": 0, "based": 0, "within": 0}
for name, agent in agents.items():
    found, records, bases, members = {}, [], {}, {}
    agents_packs = [
        pack for (pack,) in db.execute("SELECT name FROM packs WHERE agent = ? ORDER BY id", (agent,))
    ]
    for _ in range(len(agents_packs)):  # a base may lie in any pack
        for pack in agents_packs:
            list(read_pack(home / ".kai/packs" / name / (pack + ".pack"), bases))
    for number, pack, state, committed in db.execute(
        "SELECT id, name, state, committed FROM packs WHERE agent = ?", (agent,)
    ):
        path = home / ".kai/packs" / name / (pack + ".pack")
        listing = list(read_pack(path, bases))
        for offset, length, kind, id_, content in listing:
            report["kinds"][kind] = report["kinds"].get(kind, 0) + 1
            if length:
                found[number, offset] = (length, kind, id_, content)
            else:
                members[number, offset, id_] = (kind, content)
            expected = true_id(kind, content, meta["object_format"])
            assert expected in (None, id_), (kind, id_)
            if kind == "op":
                records.append(content)
        data = path.read_bytes()
        report["linked"] += path.stat().st_nlink > 1
        if state == "sealed":
            report["sealed"] += 1
            assert data.endswith(b"KAIPEND\\1") and committed == len(data)
            (footer_at,) = struct.unpack_from("<Q", data, len(data) - 16)
            _, kind, id_, footer = found[number, footer_at]
            assert (kind, id_) == ("footer", b"")
            numbers = {value: key for key, value in KINDS.items()}
            assert msgpack.unpackb(footer) == {
                "v": 0,
                "records": [[numbers[k], i, o, n, len(c)] for o, n, k, i, c in listing if n and k != "footer"],
            }
        else:
            assert state == "open" and committed <= len(data)
    chunks = {id_: content for _, kind, id_, content in found.values() if kind == "chunk"}
    for id_, kind, pack, offset, length, size, base, within in db.execute(
        "SELECT id, kind, pack, offset, length, size, base, within FROM objects WHERE agent = ?", (agent,)
    ):
        report["based"] += base is not None
        content = found[pack, offset][3]
        if within < 0:
            assert found[pack, offset][:3] == (length, KINDS[kind], id_)
        else:
            assert found[pack, offset][:3] == (length, "block", b"")
            content = content[within : within + size]
            assert members[pack, offset, id_] == (KINDS[kind], content)
            report["within"] += 1
        if KINDS[kind] == "chunk list":
            content = join_chunks(content, chunks)
            assert true_id("blob", content, meta["object_format"]) == id_
        assert len(content) == size
        report["indexed"] += 1
    for digest, payload, pack, offset in db.execute(
        "SELECT digest, payload, pack, offset FROM ops WHERE agent = ?", (agent,)
    ):
        record = payload if payload is not None else found[pack, offset][3]
        assert hashlib.sha256(record).digest() == digest
        records.append(record)
    chain, head = read_chain(records, name)
    row = db.execute("SELECT op_seq, op_head FROM agents WHERE id = ?", (agent,)).fetchone()
    assert row == (len(chain), head)
    assert replay(chain) == dict(db.execute("SELECT name, oid FROM refs WHERE agent = ?", (agent,)))
    called = {name, *(former for (former,) in db.execute("SELECT name FROM former WHERE agent = ?", (agent,)))}
    assert all(op["home"] == meta["home_id"] and op["agent"] in called for op in chain)
    logged = db.execute("SELECT seq, ref, old, new FROM reflog WHERE agent = ? ORDER BY seq, ord", (agent,)).fetchall()
    assert logged == [(op["seq"], *move) for op in chain for move in op["moves"]]
    report["ops"][name] = [op["verb"] for op in chain]
assert "kaivc" not in sys.modules
print(json.dumps(report))
"""


def code_of(page: str) -> str:
    """The Python of one page."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (FORMAT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1, page
    return str(blocks[0])


def reader() -> str:
    """The small reader that the three pages make together."""
    return "import json\n" + "\n".join(map(code_of, ("pack.md", "op-record.md", "catalog.md")))


@pytest.fixture(scope="module", params=["sha256", "sha1"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with large files, sealed packs, a rollback, an undo and a redo."""
    top = tmp_path_factory.mktemp("format")
    argv = [sys.executable, "-c", WRITER, str(top), str(request.param)]
    subprocess.run(argv, check=True, cwd=ROOT, timeout=120)
    yield top / "home"
    subprocess.run(["chmod", "-R", "u+w", top], check=True)


def read(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own, in a directory where kaivc does not lie."""
    argv = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/", timeout=120)


def test_a_stranger_reads_every_record_and_the_chain_with_the_pages_alone(written):
    done = read(reader() + READ_ALL, written)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["format"] == 1
    assert report["sealed"] >= 1
    assert report["within"] >= 3, "the small files of the first commit"
    assert report["based"] >= 2, "trees and a story of which a line was added"
    assert report["linked"] >= 2, "the fork shares a pack, with the op records of another agent in it"
    assert codecs(written) == {int(codec) for codec in Codec}
    assert {"blob", "tree", "commit", "tag", "chunk", "chunk list", "op", "footer", "block"} == set(report["kinds"])
    assert report["ops"] == {
        "reader": ["commit", "commit", "rollback", "undo", "redo", "rollback", "gc"],
        "other": ["commit", "remove"],
        "branch": ["fork", "commit", "rename", "commit"],
        "adopted": ["import"],
    }
    verbs = {verb for of_one in report["ops"].values() for verb in of_one}
    assert verbs | {"restore", "backup"} | BETWEEN_HOMES == told_verbs()
    assert report["indexed"] == report["rows"]["objects"]
    assert report["rows"]["reflog"] >= 8


def test_the_same_is_read_from_a_catalog_that_was_made_anew(written, tmp_path):
    home = tmp_path / "home"
    copy(written, home)
    for path in (home / ".kai").glob("catalog.sqlite*"):
        path.unlink()
    mended = subprocess.run(
        [sys.executable, "-m", "kaivc", "--home", home, "fsck", "--repair"], cwd=ROOT, capture_output=True, check=False
    )
    assert mended.returncode == 0, mended.stdout
    before, after = (json.loads(read(reader() + READ_ALL, it).stdout) for it in (written, home))
    assert after["ops"] == before["ops"]
    assert after["indexed"] >= before["indexed"], "what a shared pack holds beside what the fork needs is indexed too"
    assert {key: after["rows"][key] for key in ("refs", "reflog", "former")} == {
        key: before["rows"][key] for key in ("refs", "reflog", "former")
    }


def codecs(home: Path) -> set[int]:
    """How the records of a home are encoded."""
    found = set()
    for path in (home / ".kai/packs").glob("*/*.pack"):
        with path.open("rb") as file:
            end = path.stat().st_size
            found |= {header.codec for header in scan(file.fileno(), str(path), len(MAGIC), end)}
    return found


def test_the_text_that_commits_and_tags_need_is_the_one_of_the_page():
    done = read(reader() + "import sys\nsys.stdout.buffer.write(TEXT)")
    assert done.stdout.encode() == compression.TEXT
    digest = hashlib.sha256(compression.TEXT).hexdigest()
    assert digest == "bebc3f49be809b22ee2a6981a3e8093fe05ba3e446801d3badab296616b598f5", (
        "it never changes: packs that are there need it"
    )


BETWEEN_HOMES = {"fetch", "pull", "push", "clone", "renumber"}
"""Verbs of which tests/remotes holds what they move."""


def told_verbs() -> set[str]:
    """The verbs of the table in op-record.md."""
    rows = re.findall(r"^\| (`[a-z]+`(?:, `[a-z]+`)*) \| ", (FORMAT / "op-record.md").read_text(), re.MULTILINE)
    return {verb.strip("`") for row in rows[rows.index("`commit`") :] for verb in row.split(", ")}


@pytest.mark.parametrize("file", ["logic.py", "config.yaml", "long.txt", "story.txt"])
def test_one_object_comes_out_of_its_pack_by_hand(written, file):
    for tool in ("sqlite3", "od", "zstd", "sha256sum", "sha1sum"):
        require_tool(tool)
    (script,) = re.findall(r"^```sh\n(.*?)^```$", (FORMAT / "pack.md").read_text(), re.DOTALL | re.MULTILINE)
    path = written / "reader" / "current" / file
    if len(json.loads((path.parent / "snapshot_meta.json").read_text())["commit_hash"]) == 40:
        script = script.replace("sha256sum", "sha1sum")
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=written,
        env={"PATH": os.environ["PATH"], "AGENT": "reader", "FILE": f"reader/current/{file}"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (path.read_bytes(), b"")


@pytest.mark.parametrize("where", ["header", "payload"])
def test_the_pages_reader_sees_a_flipped_bit(written, tmp_path, where):
    pack = max((written / ".kai/packs/reader").glob("*.pack"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    header_len = int.from_bytes(data[8 + 4 : 8 + 6], "little")
    data[8 + 16 if where == "header" else 8 + 16 + header_len + 4] ^= 4
    broken = tmp_path / "broken.pack"
    broken.write_bytes(data)
    done = read(reader() + "import sys\nfor record in read_pack(sys.argv[1], {}): pass\n", broken)
    assert done.returncode != 0
    assert f"the {where} at byte 8 is damaged" in done.stderr


def test_the_pages_reader_sees_a_changed_or_missing_op():
    code = reader() + textwrap.dedent("""
        def chain_of(*reasons, agent="bot"):
            records, prev = [], bytes(32)
            for seq, reason in enumerate(reasons, 1):
                records.append(msgpack.packb({"agent": agent, "prev": prev, "reason": reason, "seq": seq}))
                prev = hashlib.sha256(records[-1]).digest()
            return records
        one, others = chain_of("a", "b", "c"), chain_of("a", "b", "c", "d", agent="another")
        assert len(read_chain(one, "bot")[0]) == len(read_chain([*others, *one, *one], "bot")[0]) == 3
        again = msgpack.packb({"seq": 1, "agent": "bot", "prev": bytes(32), "reason": "a"})
        later = msgpack.packb({"agent": "bot", "prev": hashlib.sha256(one[2]).digest(), "reason": "d", "seq": 5})
        changed, gone = chain_of("a", "x")[:2] + one[2:], one[:1] + one[2:]
        for wrong in (changed, gone, [*one, *chain_of("y")], [again], [*one, later]):
            try:
                read_chain([*others, *wrong], "bot")
            except ValueError as error:
                print(error)
        """)
    done = read(code)
    assert done.stdout.splitlines() == [
        "what came before op 3 is missing or was changed",
        "what came before op 3 is missing or was changed",
        "there is an op 1 beside the chain",
        "op 1 is not in canonical form",
        "the numbers are not 1, 2, 3, ...",
    ], done.stderr


def test_every_table_of_the_schema_is_described(written):
    code = reader() + textwrap.dedent("""
        import sys
        db = sqlite3.connect(sys.argv[1])
        print(json.dumps([name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]))
        """)
    done = read(code, written / ".kai/catalog.sqlite")
    tables = set(json.loads(done.stdout)) - {"sqlite_sequence"}
    described = set(re.findall(r"^\| `(\w+)` \|", (FORMAT / "catalog.md").read_text(), re.MULTILINE))
    assert described == tables


def test_every_path_that_the_code_builds_is_described():
    arguments = {"agent": "AGENT", "name": "NAME", "tag": "vX.Y.Z", "op": "OP", "remote": "REMOTE"}
    home = Layout("/HOME")
    (tree,) = re.findall(r"^```\n(HOME/\n.*?)^```$", (FORMAT / "home.md").read_text(), re.DOTALL | re.MULTILINE)
    described, above = set(), {-2: "/"}
    for line in tree.splitlines():
        depth = len(line) - len(line.lstrip())
        path = above[depth - 2] + line.split()[0]
        above[depth] = path
        described |= {str(it) for it in (Path(path), *Path(path).parents)}
    for name, member in vars(Layout).items():
        if callable(member) and not name.startswith("_"):
            told = inspect.signature(member).parameters.keys() & arguments
            built = member(home, **{key: arguments[key] for key in told})
        elif isinstance(member, property):
            built = getattr(home, name)
        else:
            continue
        for path in built if isinstance(built, tuple) else (built,):
            assert path in described, name


def test_a_checksum_is_what_git_ls_tree_gives(written, tmp_path):
    """The recipe of objects.md, on objects that git itself reads."""
    git = require_tool("git")
    code = reader() + textwrap.dedent("""
        import pathlib, sys, zlib
        home, name = pathlib.Path(sys.argv[1]), "adopted"
        format_ = sqlite3.connect(home / ".kai/catalog.sqlite").execute(
            "SELECT value FROM meta WHERE key = 'object_format'").fetchone()[0]
        out, bases = pathlib.Path(sys.argv[2]), {}
        packs = sorted((home / ".kai/packs" / name).glob("*.pack"))
        for pack in packs * len(packs):  # a base may lie in any of them
            for _, _, kind, id_, content in read_pack(pack, bases):
                if content is not None and kind in ("blob", "tree", "commit", "tag"):
                    path = out / "objects" / id_.hex()[:2] / id_.hex()[2:]
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(zlib.compress(b"%s %d\\0" % (kind.encode(), len(content)) + content))
        print(format_)
        """)
    kind = json.loads((written / "adopted/current/snapshot_meta.json").read_text())
    commit = kind["commit_hash"]
    repo = tmp_path / "loose.git"
    subprocess.run(
        [git, "init", "-q", "--bare", f"--object-format={'sha1' if len(commit) == 40 else 'sha256'}", repo], check=True
    )
    done = read(code, written, repo)
    assert done.returncode == 0, done.stderr
    subprocess.run([git, "-C", repo, "fsck", "--strict"], check=True, capture_output=True)
    listed = subprocess.run(
        [git, "-C", repo, "ls-tree", "-r", "-z", "--full-tree", commit, "config.yaml"], check=True, capture_output=True
    ).stdout
    total = subprocess.run(["sha256sum"], input=listed, check=True, capture_output=True).stdout.decode().split()[0]
    assert kind["config_checksum"] == f"sha256:{total}"
