"""What git reads in an export: who, when, why, and what changed."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kaivc.storage.gitobjects import clean_message
from tests.interop.judge import exported, git, records

TRAILERS = (
    "Kai-Format",
    "Kai-Version",
    "Kai-Parent-Version",
    "Kai-Snapshot-Type",
    "Kai-State-Checksum",
    "Kai-Config-Checksum",
)


def test_the_refs_are_those_of_one_agent_and_head_names_the_branch(subject):
    listed = git(subject.bare, "for-each-ref", "--format=%(refname) %(objecttype) %(*objecttype)")
    assert listed.decode().splitlines() == [
        "refs/heads/current commit ",
        "refs/tags/v1.0.0 tag commit",
        "refs/tags/v1.1.0 tag commit",
        "refs/tags/v2.0.0-rc.1 tag commit",
    ]
    assert git(subject.bare, "symbolic-ref", "HEAD") == b"refs/heads/current\n"
    assert git(subject.bare, "rev-parse", "HEAD").decode().strip() == subject.agent.current.commit
    assert git(subject.bare, "rev-parse", "--show-object-format").decode().strip() == subject.object_format


def test_a_tag_names_its_agent_and_carries_the_notes(subject):
    for version in subject.agent.versions():
        head, _, notes = git(subject.bare, "cat-file", "tag", f"v{version.version}").decode().partition("\n\n")
        fields = dict(line.split(" ", 1) for line in head.split("\n"))
        assert (fields["object"], fields["type"]) == (version.commit, "commit")
        assert fields["tag"] == f"judged/v{version.version}"
        assert fields["tagger"].startswith(f"{version.author} ")
        assert notes == version.notes + "\n"


def test_git_describes_a_commit_by_what_its_tag_calls_itself(subject):
    """The ref of one agent's export is vX, the tag inside is AGENT/vX: git warns, and prints the long form."""
    commit = subject.agent.current.commit
    described = git(subject.bare, "describe", commit).decode()
    assert described.startswith("judged/v1.1.0-0-g")
    assert git(subject.bare, "name-rev", "--tags", "--name-only", commit) == b"v1.1.0^0\n"


def test_the_log_says_the_same(subject):
    pretty = "%H%x00%P%x00%T%x00%an <%ae>%x00%cn <%ce>%x00%at%x00%ct%x00%ai%x00%B"
    for rev in ("v1.1.0", "v2.0.0-rc.1"):
        fields = records(git(subject.bare, "log", "-z", f"--format={pretty}", rev))
        theirs = _rows(fields, 9)
        ours = subject.agent.log(rev).versions
        assert len(theirs) == len(ours)
        for row, version in zip(theirs, ours, strict=True):
            seconds = str(int(datetime.fromisoformat(version.created).timestamp()))
            assert row[:5] == [
                version.commit,
                version.parent_commit or "",
                version.tree,
                version.author,
                version.author,
            ]
            assert row[5:7] == [seconds, seconds]
            assert row[7].endswith(" +0000")
            assert row[8].startswith(version.notes + "\n\nKai-Format: 1\n")


def _rows(fields: list[bytes], width: int) -> list[list[str]]:
    texts = [field.decode() for field in fields]
    return [texts[start : start + width] for start in range(0, len(texts), width)]


def stated(version) -> list[tuple[str, str]]:
    """The trailers that a version's commit should have."""
    values = (
        "1",
        version.version,
        version.parent,
        version.snapshot_type,
        version.agent_state_checksum,
        version.config_checksum,
    )
    return [(name, value) for name, value in zip(TRAILERS, values, strict=True) if value is not None]


def parsed(trailers: bytes) -> list[tuple[str, str]]:
    lines = (line.partition(": ") for line in trailers.decode().splitlines() if line)
    return [(name, value) for name, _, value in lines]


def test_git_reads_the_trailers(subject):
    for version in subject.agent.versions():
        shown = git(subject.bare, "log", "-1", "--format=%(trailers)", version.commit)
        assert parsed(shown) == stated(version)
        message = git(subject.bare, "log", "-1", "--format=%B", version.commit)
        assert parsed(git(subject.bare, "interpret-trailers", "--parse", stdin=message)) == stated(version)
        one = git(subject.bare, "log", "-1", "--format=%(trailers:key=Kai-Version,valueonly)", version.commit)
        assert one.decode().strip() == version.version


CUT = "# ------------------------ >8 ------------------------"
LINES = st.sampled_from(
    [
        "",
        "text",
        " x",
        "é: ü",
        "\x0c",
        "---",
        "--- a",
        "-- ",
        "-----",
        "# comment",
        CUT,
        "Conflicts:",
        "\tpath",
        "Kai-Version: 9.9.9",
        "Signed-off-by: A <a@b>",
        "(cherry picked from commit 0)",
        "diff --git a/a b/b",
        "Index: a",
        "* a: b",
    ]
)


@given(notes=st.lists(LINES | st.text(max_size=12), min_size=1, max_size=8).map("\n".join))
@example(notes=f"text\n{CUT}\nmore")
@example(notes=CUT)
@example(notes="---\nx")
@example(notes="a\n\nConflicts:\n\tb")
def test_no_notes_hide_the_trailers_from_git(notes):
    notes = notes.replace("\0", "").encode("utf-8", "replace").decode().strip() or "something"
    expected = [("Kai-Format", "1"), ("Kai-Version", "1.0.0")]
    message = clean_message(notes) + "\nKai-Format: 1\nKai-Version: 1.0.0\n"
    assert parsed(git("/", "interpret-trailers", "--parse", stdin=message.encode())) == expected


@pytest.mark.parametrize(
    "notes",
    [
        "plain",
        "Kai-Version: 9.9.9",
        "subject\n\nKai-Format: 7\nKai-Version: 9.9.9",
        "---\nall\n---",
        f"cut\n{CUT}\nhere",
        "# a comment\n# and another",
        "\r\n  CR LF\r\nand trailing blanks  \r\n\r\n",
        "ünïcödé 日本\u2028line\x85line",
        "tab\there",
        "x" * 5000,
        "a\n\n\n\n\nb",
    ],
    ids=lambda notes: ascii(notes[:20]),
)
def test_odd_notes_come_through(agent, tmp_path, notes):
    version = agent.commit(notes=notes)
    bare = exported(agent, tmp_path / "bare")
    message = git(bare, "log", "-1", "--format=%B", "current").decode()
    assert message.startswith(version.notes + "\n\nKai-Format: 1\n")
    assert parsed(git(bare, "log", "-1", "--format=%(trailers)", "current")) == stated(version)


@pytest.mark.parametrize(
    "author",
    ["A <>", "Jane Q. Public <j.q@example.invalid>", ". <a@b>", 'O\'Neil, "X" <o@x>', "née 日本 <é@b>", ", <,>"],
)
def test_odd_authors_come_through(agent, tmp_path, author):
    version = agent.commit(author=author)
    bare = exported(agent, tmp_path / "bare")
    assert version.author == author
    raw = git(bare, "cat-file", "commit", "current").decode()
    assert f"\nauthor {author} " in raw
    assert f"\ncommitter {author} " in raw


# ---------------------------------------------------------------- what changed

PAIRS = [("v1.0.0", "v1.1.0"), ("v1.1.0", "v1.0.0"), ("v1.1.0", "v2.0.0-rc.1"), ("v1.0.0", "v2.0.0-rc.1")]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_git_says_the_same_letters(subject, old, new):
    fields = records(git(subject.bare, "diff-tree", "-r", "-z", "--name-status", "--no-renames", old, new))
    theirs = list(zip(fields[1::2], fields[::2], strict=True))
    diff = subject.agent.diff(old, new)
    assert [(change.path, change.status.encode()) for change in diff.changes] == theirs
    assert [(file.path, file.status.encode()) for file in diff.files()] == theirs
    assert bool(theirs) == ((old, new) != ("v1.0.0", "v2.0.0-rc.1"))


@pytest.mark.parametrize(("old", "new"), PAIRS)
@pytest.mark.parametrize("context", [3, 0, 10])
def test_git_applies_the_patch_in_a_clone(subject, tmp_path, old, new, context):
    git(tmp_path, "clone", "-q", "--no-local", str(subject.bare), "clone")
    clone = tmp_path / "clone"
    git(clone, "checkout", "-q", "--detach", old)
    patch = b"".join(subject.agent.diff(old, new).patch(binary=True, context=context))
    options = [] if context else ["--unidiff-zero"]
    git(clone, "apply", "--index", "--allow-empty", *options, stdin=patch)
    assert git(clone, "write-tree").decode().strip() == subject.agent.show(new).version.tree
    assert git(clone, "status", "--porcelain", "-z", "--untracked-files=all").count(b"\0") == len(
        subject.agent.diff(old, new).changes
    )
    git(clone, "diff", "--exit-code")
