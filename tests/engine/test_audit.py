"""An audit names whatever was changed: what, of which version, which path, what was expected and what is there."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import kaivc
from kaivc.cli.commands.audit import _rendered
from kaivc.errors import InvalidName, NoSuchAgent, NoSuchRevision
from kaivc.findings import Finding
from kaivc.report import AgentReport, AuditReport
from kaivc.storage import salvage
from kaivc.storage.catalog import checksum
from tests.conftest import ROOT
from tests.engine import tampering
from tests.engine.damage import fsck
from tests.engine.homes import commit, copy, make_home, open_home
from tests.engine.tampering import AGENT, EVE

META = "snapshot_meta.json"
Made = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The home of `tampering`, for reading only."""

    @cache
    def make(object_format: str = "sha256") -> Path:
        return tampering.make(tmp_path_factory.mktemp("audit") / "home", object_format)

    return make


@pytest.fixture
def home(made: Made, tmp_path: Path) -> Path:
    """A copy of it, to do as one likes with."""
    copy(made(), tmp_path / "home")
    return tmp_path / "home"


def audited(path: Path, *args: str, **words: str) -> AuditReport:
    opened = open_home(path)
    try:
        return opened.audit(*args, **words)
    finally:
        opened.close()


def of(report: AuditReport, agent: str = AGENT) -> AgentReport:
    return next(it for it in report.agents if it.agent == agent)


def named(report: AuditReport) -> set[tuple[str, tuple[str, ...], str | None]]:
    """Where, of which versions, which path."""
    return {(it.where, it.versions, it.path) for it in report.differences}


# ---------------------------------------------------------------- what is as it should be


@pytest.mark.parametrize("object_format", ["sha256", "sha1"])
def test_a_good_home_is_as_it_should_be(made, object_format):
    report = audited(made(object_format))
    assert report.ok, report.differences
    assert not report.findings
    assert (report.object_format, report.scope) == (object_format, None)
    assert [it.agent for it in report.agents] == ["other", AGENT]
    one = of(report)
    assert [it.version for it in one.versions] == ["v1.0.0", "v1.1.0", "v2.0.0"]
    assert [it.parent for it in one.versions] == [None, "v1.0.0", "v1.1.0"]
    assert [it.in_force for it in one.versions] == [False, False, True]
    assert all(it.view and it.files == 8 and it.objects == 12 for it in one.versions)
    assert all(it.state_stated == it.state_found for it in one.versions)
    assert [it.verb for it in one.moves] == ["commit", "commit", "rollback", "undo", "redo", "undo", "commit"]
    assert [it.to_version for it in one.moves] == [
        "v1.0.0", "v1.1.0", "v1.0.0", "v1.1.0", "v1.0.0", "v1.1.0", "v2.0.0",
    ]  # fmt: skip
    # The redo is undone by the second undo, so that the first undo holds again.
    assert {it.seq: it.undone_by for it in one.moves if it.undone_by} == {3: 4, 5: 6}
    assert one.ops == 8
    assert one.head == tampering.one(made(object_format), "SELECT lower(hex(op_head)) FROM agents WHERE id = 1")


def test_two_audits_of_the_same_home_and_clock_are_equal_wherever_it_lies(made, home):
    first, second = audited(made()), audited(home)
    assert first == second
    assert audited(home) == second
    # An audit leaves nothing behind by which the next one would differ; and the clock is part of it.
    opened = open_home(home)
    opened.opened.clock.now_ns()
    later = opened.audit()
    opened.close()
    assert later != second
    assert replace(later, time_ns=second.time_ns) == second


def test_homes_with_nothing_in_them(tmp_path):
    opened = make_home(tmp_path / "home")
    assert opened.audit().ok
    opened.new("empty")
    report = opened.audit()
    assert report.ok, report.differences
    assert (of(report, "empty").versions, of(report, "empty").moves) == ((), ())
    opened.close()


def test_agents_that_were_forked_renamed_and_removed_are_as_they_should_be(home):
    opened = open_home(home)
    opened.new("fork", source=f"{AGENT}@v1.1.0")
    commit(opened.agent("fork"), {"a": b"b"}, bump="major")
    opened.rename(AGENT, "writer")
    opened.remove("other")
    report = opened.audit()
    opened.close()
    assert report.ok, report.differences
    assert [it.agent for it in report.agents] == ["fork", "other", "writer"]
    assert of(report, "other").removed_ns
    # The moves from before the rename are still there; the rename is none itself.
    assert [it.verb for it in of(report, "writer").moves].count("commit") == 3
    assert "rename" not in {it.verb for it in of(report, "writer").moves}


# ---------------------------------------------------------------- what is not


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (tampering.view_file, {("view", ("v1.1.0",), "logic.py")}),
        (tampering.view_missing, {("view", ("v1.1.0",), "state/large.bin")}),
        (tampering.view_extra, {("view", ("v1.1.0",), ".git/hook")}),
        (tampering.view_meta, {("view", ("v1.1.0",), "snapshot_meta.json")}),
        (tampering.view_mode, {("view", ("v1.1.0",), "logic.py")}),
        (tampering.link, {("link", (), None)}),
        (tampering.rollback_log, {("rollback.log", (), None)}),
        (tampering.reflog_row, {("reflog", (), None), ("rollback.log", (), None)}),
        (tampering.forged_tag, {("tag", ("v1.1.0",), None), ("ref", ("v1.1.0",), None)}),
    ],
)
def test_what_was_changed_is_named_and_nothing_else(home, tamper, expected):
    tamper(home)
    found = named(audited(home))
    if tamper is tampering.view_mode:
        # The inode may be shared with the views of other versions.
        found = {it for it in found if it[1] == ("v1.1.0",)}
    assert found == expected


@pytest.mark.parametrize(
    ("tamper", "where", "word"),
    [
        (tampering.ref_row, "ref", f"refs/tags/{AGENT}/v1.0.0"),
        (tampering.ref_gone, "ref", f"refs/tags/{AGENT}/v1.1.0"),
        (tampering.ref_row_torn, "catalog", f"refs/tags/{AGENT}/v1.1.0"),
        (tampering.current_row, "ref", f"refs/heads/{AGENT}/current"),
        (tampering.reflog_gone, "reflog", "3"),
        (tampering.op_gone, "op", "3"),
        (tampering.newest_op_gone, "op", "8"),
        (tampering.op_record, "op", "1"),
        (tampering.pack_short, "pack", "ends at byte"),
        (tampering.pack_gone, "pack", "missing"),
    ],
)
def test_each_row_record_and_pack_that_was_changed_is_named(home, tamper, where, word):
    tamper(home)
    report = audited(home)
    assert any(it.where == where and word in it.problem for it in report.differences), report.differences
    assert of(report, "other").ok


def difference(report: AuditReport, where: str) -> Finding:
    return next(it for it in report.differences if it.where == where)


def test_what_differs_is_said_with_what_was_expected(home):
    tampering.view_meta(home)
    meta = difference(audited(home), "view")
    assert (meta.problem, meta.expected, meta.found) == (
        "'notes' is not what the store gives", '"zweite | grün"', '"zweite | blau"',
    )  # fmt: skip
    tampering.reflog_row(home)
    row = difference(audited(home), "reflog")
    assert (row.seq, row.expected, row.found) == (3, "long | " + "x" * 300, "somebody else's reason")
    assert "reason differs" in row.problem
    was = tampering.get_ref(home, tampering.TAG).hex()
    tampering.forged_tag(home)
    tag = difference(audited(home), "tag")
    assert (tag.versions, tag.expected, tag.found) == (("v1.1.0",), "Ann Example <ann@example.org>", EVE)
    ref = difference(audited(home), "ref")
    assert (ref.expected, ref.found) == (was, tampering.get_ref(home, tampering.TAG).hex())


def test_a_checksum_that_the_commit_states_wrongly_is_said_with_both(home):
    tampering.forged_commit(home)
    report = audited(home, AGENT, "v1.1.0")
    (version,) = of(report).versions
    assert not version.ok
    assert version.state_stated == "sha256:" + "0" * 64 != version.state_found
    said = next(it for it in version.findings if it.where == "commit")
    assert (said.expected, said.found) == (version.state_stated, version.state_found)
    assert named(report) == {("commit", ("v1.1.0",), None), ("ref", ("v1.1.0",), None), ("view", ("v1.1.0",), META)}


def test_a_flipped_bit_in_a_pack_names_the_file_and_all_versions_that_hold_it(home):
    tampering.pack_byte(home)
    report = audited(home)
    said = [it for it in report.differences if it.path == "config.yaml" and it.pack is not None]
    assert {label for it in said for label in it.versions} >= {"v1.0.0", "v1.1.0", "v2.0.0"}
    assert tampering.pack_of(home).stem in {it.pack for it in said}
    assert not any(version.ok for version in of(report).versions)


def test_no_byte_of_a_pack_can_be_changed_unseen(home):
    pack = tampering.pack_of(home)
    data = pack.read_bytes()
    committed = tampering.one(home, "SELECT committed FROM packs WHERE agent = 1")
    spread = sorted({0, 9, 20, 30, 40, committed - 1, *range(50, committed, max(committed // 23, 1))})
    for offset in spread:
        tampering.flip(home, offset)
        report = audited(home, AGENT)
        assert any(it.pack == pack.stem or it.where == "op" for it in report.differences), offset
        pack.write_bytes(data)
    assert audited(home).ok


def test_a_version_whose_tag_cannot_be_read_is_reported_and_not_raised(home):
    tampering.flip(home, tampering.object_offset(home, tampering.get_ref(home, tampering.TAG)) + 1)
    report = audited(home, AGENT, "v1.1.0")
    (version,) = of(report).versions
    assert (version.version, version.commit, version.ok) == ("v1.1.0", None, False)
    assert version.tag == tampering.get_ref(home, tampering.TAG).hex()


def test_one_version_is_not_blamed_for_another(home):
    tampering.view_meta(home)
    assert audited(home, AGENT, "v1.0.0").ok
    assert audited(home, AGENT, "v2.0.0").ok
    assert not audited(home, AGENT, "current~1").ok
    assert audited(home, AGENT, "current~1").scope == f"{AGENT}@v1.1.0"


# ---------------------------------------------------------------- the head that was kept


def test_a_later_audit_proves_that_the_log_only_grew(home):
    before = of(audited(home))
    opened = open_home(home)
    commit(opened.agent(AGENT), {"a": b"new"}, bump="major")
    opened.close()
    for head in (before.head, f"{before.ops}:{before.head}", of(audited(home)).head):
        report = audited(home, AGENT, expect_head=head)
        assert report.ok, report.differences
        assert report.expected_head == head


def test_a_chain_that_was_forged_as_a_whole_does_not_hold_the_head(home):
    before = of(audited(home))
    tampering.rewrite(home)
    forged = audited(home)
    assert forged.ok, forged.differences  # who may write everything can forge everything...
    head = f"{before.ops}:{before.head}"
    for given, seq in ((head, before.ops), (before.head, None)):
        report = audited(home, AGENT, expect_head=given)
        (said,) = report.differences
        assert (said.where, said.agent, said.seq, said.expected) == ("op", AGENT, seq, before.head)
    assert f"op record {before.ops} is {of(forged).head}" in {
        it.found for it in audited(home, AGENT, expect_head=head).differences
    }


def test_a_digest_under_another_number_is_not_that_head(home):
    head = of(audited(home)).head
    (said,) = audited(home, AGENT, expect_head=f"2:{head}").differences
    assert said.seq == 2


def test_what_cannot_be_audited_is_said(made):
    head = of(audited(made())).head
    with pytest.raises(NoSuchAgent):
        audited(made(), "nobody")
    for rev in ("v9.9.9", "backups/3"):
        with pytest.raises(NoSuchRevision):
            audited(made(), AGENT, rev)
    for wrong in (head[:-1], head.upper(), "x:" + head, "0:" + head, ""):
        with pytest.raises(InvalidName):
            audited(made(), AGENT, expect_head=wrong)
    with pytest.raises(InvalidName):
        audited(made(), expect_head=head)


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize("object_format", ["sha256", "sha1"])
def test_the_commands_of_a_report_print_what_it_says(made, object_format, tmp_path, monkeypatch):
    from tests.demo.test_prove_without_kai import ALLOWED, link_tools

    path = made(object_format)
    steps = [
        step
        for agent in audited(path).agents
        for step in (*agent.recheck, *(step for version in agent.versions for step in version.recheck))
    ]
    link_tools(tmp_path / "bin", ALLOWED)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    script = "".join(f"{step.command}\nprintf '\\0'\n" for step in steps)
    done = subprocess.run(["/bin/sh", "-c", script], cwd=path, capture_output=True, timeout=60, check=False)
    assert not done.stderr, done.stderr
    printed = [text.decode().removesuffix("\n") for text in done.stdout.split(b"\0")[:-1]]
    assert [(step.what, text) for step, text in zip(steps, printed, strict=True)] == [
        (step.what, step.expected) for step in steps
    ]
    # Every version's tag, commit, tree and checksums, and every op record, is among them.
    assert len(steps) > 12 * 4 + 9


def test_the_commands_print_something_else_after_a_change(home, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    report = of(audited(home))
    op = next(step for step in report.recheck if step.what == "op record 1")
    tampering.op_record(home)
    done = subprocess.run(["/bin/sh", "-c", op.command], cwd=home, capture_output=True, text=True, check=True)
    assert done.stdout.strip() != op.expected


def test_the_report_is_of_one_home(home):
    opened = kaivc.open(home)
    assert opened.agent(AGENT).audit().home == opened.opened.id
    opened.close()


# ---------------------------------------------------------------- beside writers

WRITER = """
import itertools, os, sys, kaivc
flags = {"backups.keep": "1", "backups.max_age": "0s", "reflog.expire": "0s", "packs.seal_at": "256 KiB"}
home = kaivc.open(sys.argv[1], flags=flags)
agent = home.agent("summarizer")
print("ready", flush=True)
for number in itertools.count():
    (agent.workspace / "logic.py").write_text(f"print({number})\\n")
    agent.commit(bump="patch")
    (agent.workspace / "state.json").write_bytes(os.urandom(40000))
    agent.rollback("v1.0.0")
    agent.undo()
    if number % 5 == 4:
        agent.gc()
"""


def test_an_audit_beside_writers_finds_nothing(home):
    """A version, a move or a pack that comes or goes meanwhile is no difference."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, home], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        first = audited(home)
        reports = [first, *(audited(home) for _ in range(20))]
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
    assert [it.differences for it in reports if not it.ok] == []
    assert of(reports[-1]).ops > of(first).ops


# ---------------------------------------------------------------- rows of any kind


def put_row(home: Path, table: str, where: str, **values: object) -> None:
    """Change one row, and let its checksum fit: SQLite takes a value of any type in any column."""
    shape = salvage.TABLES[table]
    names = ", ".join(shape.columns)
    db = tampering.db_of(home)
    (row,) = db.execute(f"SELECT {names} FROM {table} WHERE {where}").fetchall()  # noqa: S608
    now = {**dict(zip(shape.columns, row, strict=True)), **values}
    fits = {"checksum": checksum(*(now[name] for name in shape.checked))} if shape.checked else {}
    put = {**values, **fits}
    assert db.execute(
        f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in put)} WHERE {where}",  # noqa: S608
        tuple(put.values()),
    ).rowcount == 1  # fmt: skip
    db.close()


@pytest.mark.parametrize(
    ("table", "where", "values"),
    [
        ("reflog", "agent = 1 AND seq = 1 AND ord = 0", {"old": 7}),
        ("reflog", "agent = 1 AND seq = 1 AND ord = 0", {"time_ns": "soon"}),
        ("reflog", "agent = 1 AND seq = 1 AND ord = 0", {"actor": b"\xff"}),
        ("refs", f"agent = 1 AND name = '{tampering.TAG}'", {"oid": "text"}),
        ("packs", "agent = 1", {"committed": "all"}),
        ("objects", "agent = 1 AND id = (SELECT min(id) FROM objects WHERE agent = 1)", {"size": 1.5}),
        ("ops", "agent = 1 AND seq = 1", {"op_id": b"\x00"}),
    ],
)  # fmt: skip
def test_a_row_with_a_value_of_another_type_is_named_whatever_its_checksum_says(home, table, where, values):
    put_row(home, table, where, **values)
    report = audited(home)
    assert any(it.where == "catalog" and f"a row of {table} " in it.problem for it in report.differences)
    _rendered(report, html=True, json=False)
    _rendered(report, html=False, json=True)


def test_a_damaged_ref_of_the_version_in_force_is_a_finding_and_no_error(home):
    tampering.change(home, "UPDATE refs SET checksum = 1 WHERE agent = 1 AND name = ?", f"refs/heads/{AGENT}/current")
    for args in ((), (AGENT,), (AGENT, "v1.0.0")):
        report = audited(home, *args)
        assert any(it.row is not None and "current" in it.row for it in report.differences)
        assert not any(version.in_force for version in of(report).versions)


def test_when_an_agent_was_removed_is_what_the_op_records_say(home):
    opened = open_home(home)
    opened.remove("other")
    opened.close()
    assert audited(home).ok
    removed = tampering.one(home, "SELECT removed_ns FROM agents WHERE name = 'other'")
    for name, value, stated in (("other", 0, removed), ("other", removed + 1, removed), (AGENT, removed, 0)):
        was = tampering.one(home, "SELECT removed_ns FROM agents WHERE name = ?", name)
        put_row(home, "agents", f"name = '{name}'", removed_ns=value)
        (said,) = [it for it in audited(home).differences if "removal" in it.problem]
        assert (said.agent, said.expected, said.found) == (name, str(stated), str(value))
        assert fsck(home, repair=True).ok
        assert tampering.one(home, "SELECT removed_ns FROM agents WHERE name = ?", name) == was


def test_homes_that_are_opened_and_closed_keep_no_file_open(made):
    def count() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    audited(made())
    before = count()
    for _ in range(3):
        assert audited(made()).ok
    assert count() == before
