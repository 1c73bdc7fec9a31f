"""docs/how-to/prove-without-kai.md, run as it stands: it says yes to good homes, and no to each that is not."""

import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgpack
import pytest

from kaivc.storage import gitobjects
from kaivc.storage.catalog import checksum
from kaivc.storage.gitobjects import FORMATS, Kind
from kaivc.vfs import Vfs
from tests.conftest import ROOT, require_tool
from tests.engine.homes import copy, make_home, write

PAGE = ROOT / "docs" / "how-to" / "prove-without-kai.md"
ALLOWED = (
    "git", "sha256sum", "sqlite3", "cat", "comm", "du", "head", "mkdir", "mktemp", "od", "sort", "tail", "tr", "wc",
)  # fmt: skip
FILES = {
    "logic.py": b"print('one')\n",
    "config.yaml": b"depth: 3\n",
    "state.json": b"{}\n",
    "state/large.bin": bytes(range(256)) * 6000,
    # With these, a git that converts would not see that a line ending was changed.
    ".gitattributes": b"* text=auto\n",
    "run.bat": b"one\r\ntwo\r\n",
    os.fsdecode(b"odd \xff\nname"): b"odd",
}


def script() -> str:
    """All commands of the page, in its order."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The home of an object format, for reading only."""

    @cache
    def made(object_format: str) -> Path:
        return make(tmp_path_factory.mktemp("prove") / "home", object_format)

    return made


def make(path: Path, object_format: str) -> Path:
    """A home with three versions, a rollback, an undo, a redo, and a restore that moves no ref."""
    home = make_home(path, object_format)
    agent = home.new("summarizer")
    write(agent.workspace, FILES)
    (agent.workspace / "logic.py").chmod(0o755)
    (agent.workspace / "link").symlink_to("logic.py")
    agent.commit(notes="the first\n\n--- is 'quoted' \"text\"")
    (agent.workspace / "logic.py").write_text("print('two')\n")
    agent.commit(bump="minor", notes="zweite | grün")
    (agent.workspace / "state.json").write_text('{"n": 1}\n')
    agent.rollback("v1.0.0", reason="long | " + "x" * 300)
    agent.undo()
    agent.redo()
    agent.undo()
    (agent.workspace / "logic.py").write_text("print('three')\n")
    agent.commit(version="2.0.0")
    agent.restore("logic.py", source="v1.0.0")
    home.new("other")
    write(home.agent("other").workspace, {"a": b"a"})
    home.agent("other").commit()
    home.close()
    return path


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with the tools that the page allows itself, and a kai that notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ALLOWED:
        (folder / name).symlink_to(require_tool(name))
    (folder / "kai").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/kai.log\nPYTHONPATH={ROOT} exec {sys.executable} -m kaivc "$@"\n'
    )
    (folder / "kai").chmod(0o755)
    return folder


@pytest.fixture
def prove(tools: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the whole page in a home."""

    def run(home: Path, code: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        environ = {"PATH": str(tools), "TMPDIR": str(scratch), "HOME": str(scratch), **variables}
        done = subprocess.run(
            ["/bin/sh", "-c", code or script()],
            cwd=home, env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        shutil.rmtree(scratch)
        return done

    return run


def differing(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the page found to differ."""
    return [line.removeprefix("DIFFERS").strip() for line in done.stdout.splitlines() if line.startswith("DIFFERS")]


@pytest.mark.parametrize("object_format", ["sha256", "sha1"])
@pytest.mark.parametrize("version", ["v1.0.0", "v1.1.0", "v2.0.0"])
def test_the_page_proves_a_good_version(good, prove, tmp_path, version, object_format):
    home = good(object_format)
    with db_of(home) as db:
        first, *_ = db.execute("SELECT lower(hex(digest)) FROM ops WHERE agent = 1 AND seq = 2").fetchone()
    done = prove(home, VERSION=version, KEPT_HEAD=first)
    assert not differing(done), done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"summarizer {version} is what it says it is\n")
    assert done.stdout.count("\nsame ") > 25
    # kai is called once, for the export; everything else is done by other tools.
    assert (tmp_path / "kai.log").read_text().split()[:2] == ["export", "summarizer"]
    assert (tmp_path / "kai.log").read_text().count("\n") == 1


# ---------------------------------------------------------------- who tampers knows the formats


def db_of(home: Path) -> sqlite3.Connection:
    return sqlite3.connect(home / ".kai/catalog.sqlite", isolation_level=None)


def put_ref(home: Path, name: str, oid: bytes) -> None:
    """Point a ref elsewhere, with the checksum that its row must have."""
    with db_of(home) as db:
        db.execute(
            "UPDATE refs SET oid = ?, checksum = ? WHERE agent = 1 AND name = ?", (oid, checksum(name, oid), name)
        )


def get_ref(home: Path, name: str) -> bytes:
    with db_of(home) as db:
        oid: bytes = db.execute("SELECT oid FROM refs WHERE agent = 1 AND name = ?", (name,)).fetchone()[0]
    return oid


def view_file(home: Path) -> None:
    path = home / "summarizer/versions/v1.1.0/config.yaml"
    path.chmod(0o600)
    path.write_bytes(b"depth: 4\n")


def view_line_ending(home: Path) -> None:
    path = home / "summarizer/versions/v1.1.0/run.bat"
    path.chmod(0o600)
    path.write_bytes(b"one\ntwo\n")


def view_missing(home: Path) -> None:
    Vfs().remove_tree(str(home / "summarizer/versions/v1.1.0/state/large.bin"))


def view_extra(home: Path) -> None:
    (home / "summarizer/versions/v1.1.0").chmod(0o700)
    (home / "summarizer/versions/v1.1.0/.git").mkdir()


def view_meta(home: Path) -> None:
    path = home / "summarizer/versions/v1.1.0/snapshot_meta.json"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"gr\xc3\xbcn", b"blau"))


def view_mode(home: Path) -> None:
    (home / "summarizer/versions/v1.1.0/logic.py").chmod(0o400)


def ref_row(home: Path) -> None:
    put_ref(home, "refs/tags/summarizer/v1.0.0", get_ref(home, "refs/tags/summarizer/v1.1.0"))


def current_row(home: Path) -> None:
    with db_of(home) as db:
        old = db.execute("SELECT old FROM reflog WHERE agent = 1 AND ref LIKE '%/current' AND verb = 'undo'").fetchone()
    put_ref(home, "refs/heads/summarizer/current", old[0])


def forged_tag(home: Path) -> None:
    """A tag object that is well-formed and in the store, but is not the one that was made."""
    import kaivc

    opened = kaivc.open(home)
    repo = opened.agent("summarizer").repository
    name = "refs/tags/summarizer/v1.1.0"
    oid = repo.ref(name)
    tag = repo.store.tag(oid)
    data = gitobjects.encode_tag(gitobjects.Tag(tag.target, tag.name, "Eve <eve@example.org>", tag.time, tag.message))
    from kaivc.storage.writer import StoreWriter

    with StoreWriter(repo.store) as writer:
        forged = writer.put(Kind.TAG, data)
        writer.sync()
        with repo.catalog.transaction() as db:
            writer.record(db)
    opened.close()
    put_ref(home, name, forged)


def reflog_row(home: Path) -> None:
    columns = "seq, ord, ref, old, new, actor, time_ns, reason, verb, op_id, undoes, backup, workspace"
    with db_of(home) as db:
        for row in db.execute(f"SELECT {columns} FROM reflog WHERE agent = 1 AND seq = 3").fetchall():  # noqa: S608
            values = (*row[:7], "somebody else's reason", *row[8:])
            db.execute(
                "UPDATE reflog SET reason = ?, checksum = ? WHERE agent = 1 AND seq = ? AND ord = ?",
                (values[7], checksum(*values), *row[:2]),
            )


def op_record(home: Path) -> None:
    """A byte of an op record in its pack, with the record's checksum made to fit."""
    import struct

    import xxhash

    with db_of(home) as db:
        name, offset = db.execute(
            "SELECT name, offset FROM ops JOIN packs ON packs.id = pack WHERE ops.agent = 1 AND seq = 1"
        ).fetchone()
    path = home / ".kai/packs/summarizer" / f"{name}.pack"
    data = bytearray(path.read_bytes())
    header_len, length = struct.unpack_from("<4xHHQ", data, offset)[0], struct.unpack_from("<8xQ", data, offset)[0]
    start = offset + 16 + header_len + 4
    at = data.index(b"Ann Example", start)
    data[at : at + 3] = b"Eve"
    data[start + length : start + length + 8] = struct.pack(
        "<Q", xxhash.xxh3_64_intdigest(data[start : start + length])
    )
    path.chmod(0o600)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (view_file, {"tree of the files in summarizer/versions/v1.1.0", "files of the view that differ"}),
        (view_line_ending, {"tree of the files in summarizer/versions/v1.1.0", "files of the view that differ"}),
        (
            view_missing,
            {
                "tree of the files in summarizer/versions/v1.1.0",
                "files of the view that differ",
                "number of files and directories in the view",
            },
        ),
        (view_mode, {"tree of the files in summarizer/versions/v1.1.0", "files of the view that differ"}),
        (view_extra, {"number of files and directories in the view"}),
        (view_meta, {"meta: notes"}),
        (ref_row, {"names that are not where the last move took them", "parent"}),
        (current_row, {"names that are not where the last move took them"}),
        (forged_tag, {"names that are not where the last move took them", "what the tag says"}),
        (reflog_row, {"what op 3 says"}),
        (op_record, {"SHA-256 of op 1", "what op 1 says"}),
    ],
)
def test_the_page_says_what_was_tampered_with(good, prove, tmp_path, tamper, named):
    copy(good("sha1" if tamper in (view_file, ref_row) else "sha256"), tmp_path / "home")
    tamper(tmp_path / "home")
    done = prove(tmp_path / "home")
    assert set(differing(done)) == named, done.stdout + done.stderr
    assert done.returncode == 1


def test_a_log_that_was_rewritten_as_a_whole_does_not_hold_the_head_that_was_kept(good, prove, tmp_path):
    """Who may write everything can forge a whole chain: the head that was kept elsewhere is what tells."""
    home = tmp_path / "home"
    copy(good("sha256"), home)
    with db_of(home) as db:
        kept = db.execute("SELECT lower(hex(op_head)) FROM agents WHERE id = 1").fetchone()[0]
        rewrite(db, home)
    assert not differing(prove(home))
    done = prove(home, KEPT_HEAD=kept)
    assert differing(done) == ["the head that you kept is in the chain"]
    assert done.returncode == 1


def rewrite(db: sqlite3.Connection, home: Path) -> None:
    """Let Eve have done everything; every digest and checksum fits."""
    ops = db.execute("SELECT seq, payload, packs.name, offset FROM ops LEFT JOIN packs ON packs.id = pack "
                     "WHERE ops.agent = 1 ORDER BY seq").fetchall()  # fmt: skip
    prev = bytes(32)
    for seq, inline, name, offset in ops:
        payload = inline
        if inline is None:
            data = (home / ".kai/packs/summarizer" / f"{name}.pack").read_bytes()
            header_len = int.from_bytes(data[offset + 4 : offset + 6], "little")
            length = int.from_bytes(data[offset + 8 : offset + 16], "little")
            payload = data[offset + 20 + header_len :][:length]
        fields = {**msgpack.unpackb(payload), "actor": "Eve <eve@example.org>", "prev": prev}
        record = msgpack.packb(dict(sorted(fields.items())))
        prev = hashlib.sha256(record).digest()
        db.execute("UPDATE ops SET payload = ?, digest = ?, pack = NULL, offset = NULL WHERE agent = 1 AND seq = ?",
                   (record, prev, seq))  # fmt: skip
    columns = "seq, ord, ref, old, new, actor, time_ns, reason, verb, op_id, undoes, backup, workspace"
    for row in db.execute(f"SELECT {columns} FROM reflog WHERE agent = 1").fetchall():  # noqa: S608
        values = (*row[:5], "Eve <eve@example.org>", *row[6:])
        db.execute("UPDATE reflog SET actor = ?, checksum = ? WHERE agent = 1 AND seq = ? AND ord = ?",
                   (values[5], checksum(*values), *row[:2]))  # fmt: skip
    columns = "id, name, created_ns, op_seq, op_head, removed_ns"
    agent = list(db.execute(f"SELECT {columns} FROM agents WHERE id = 1").fetchone())  # noqa: S608
    agent[4] = prev
    db.execute("UPDATE agents SET op_head = ?, checksum = ? WHERE id = 1", (prev, checksum(*agent)))


def test_git_itself_tells_a_forged_object(good, tmp_path, prove):
    """The export is only bytes: one that is changed has another id, whoever wrote it."""
    change = 'git -C "$repo" tag -f "$version" HEAD >/dev/null 2>&1; git -C "$repo" branch -f other "$version"\n'
    exported = "id=$(sqlite3"
    assert script().count(exported) == 1
    done = prove(good("sha256"), script().replace(exported, change + exported))
    assert "refs" in differing(done), done.stdout + done.stderr
    assert done.returncode == 1


def test_no_other_tool_is_used():
    """The tools that a stranger has are those that the page names."""
    assert "coreutils" in PAGE.read_text()
    assert FORMATS.keys() == {"sha1", "sha256"}
    for foreign in ("python", "jq", "xxd", "zstd", "awk", "sed", "grep", "perl"):
        assert not re.search(rf"\b{foreign}\b", script()), foreign
