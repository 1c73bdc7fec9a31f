"""The two checksums, recomputed by a stranger who has git and the contract's formula only."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess

from tests.interop.judge import EVERYTHING, exported, git, lines_of, records, write

NOTHING = "sha256:" + hashlib.sha256(b"").hexdigest()


def checksum(bare, rev, paths) -> str:
    """SHA-256 over the records of ``git ls-tree`` that are of these paths."""
    listed = records(git(bare, "ls-tree", "-r", "-z", "--full-tree", rev))
    kept = [record + b"\0" for record in listed if record.partition(b"\t")[2] in paths]
    return "sha256:" + hashlib.sha256(b"".join(kept)).hexdigest()


def paths_of(bare, rev) -> set[bytes]:
    return {path for *_, path in lines_of(git(bare, "ls-tree", "-r", "-z", "--full-tree", rev))}


def test_the_default_classes(subject):
    for version in subject.agent.versions():
        paths = paths_of(subject.bare, version.commit)
        state = {path for path in paths if path == b"state.json" or path.startswith(b"state/")}
        assert state
        assert checksum(subject.bare, version.commit, state) == version.agent_state_checksum
        assert checksum(subject.bare, version.commit, {b"config.yaml"}) == version.config_checksum
        assert NOTHING not in (version.agent_state_checksum, version.config_checksum)


def test_no_file_of_a_class_is_the_sha256_of_nothing(agent, tmp_path):
    write(agent.workspace, {b"states/x": b"", b"a/state.json": b"{}", b"a/config.yaml": b"", b"state": b""})
    version = agent.commit()
    assert version.agent_state_checksum == version.config_checksum == NOTHING
    bare = exported(agent, tmp_path / "bare")
    assert checksum(bare, "current", set()) == NOTHING


CONFIG = ["*.yaml", "!kai.yaml", "/spa*/"]
STATE = ["memory/", "/deep/**/file", "*.db", "!keep.db", "**/\\*star", "[nl]*.?xt"]
MORE = {
    b"memory/one": b"1",
    b"a/b/memory/two": b"2",
    b"memory.txt": b"",
    b"notes.txt": b"",
    b"x/logs.txt": b"",
    b"cold.db": b"",
    b"x/keep.db": b"",
    b"x/settings.yaml": b"",
    b"memory/both.yaml": b"",
    b"*star": b"",
    b"y/*star": b"",
    b"y/xstar": b"",
}


def test_the_classes_of_a_manifest_as_git_matches_patterns(agent, tmp_path):
    manifest = json.dumps({"files": {"config": CONFIG, "state": STATE}}).encode()
    write(agent.workspace, {**EVERYTHING, **MORE, b"kai.yaml": manifest})
    version = agent.commit()
    bare = exported(agent, tmp_path / "bare")
    config = matched(bare, tmp_path, CONFIG)
    state = matched(bare, tmp_path, STATE) - config  # of several classes: config, lock, state, logic
    assert {b"x/settings.yaml", b"memory/both.yaml", b"spa ce/tab\tnew\nline"} <= config
    assert {b"a/b/memory/two", b"*star", b"cold.db", b"notes.txt", b"deep/er/st/of/all/file"} <= state
    assert not {b"kai.yaml", b"x/keep.db", b"state.json", b"y/xstar"} & (config | state)
    assert checksum(bare, "current", state) == version.agent_state_checksum
    assert checksum(bare, "current", config) == version.config_checksum


def matched(bare, tmp_path, patterns) -> set[bytes]:
    """The paths that git finds to fit."""
    (tmp_path / "patterns").write_text("\n".join(patterns) + "\n")
    index = tmp_path / "index"
    index.unlink(missing_ok=True)
    variables = {"GIT_INDEX_FILE": str(index), "GIT_DIR": str(bare), "GIT_WORK_TREE": str(tmp_path)}
    listing = ["ls-files", "-z", "--cached", "--ignored", f"--exclude-from={tmp_path / 'patterns'}"]
    for words in (["read-tree", "current"], listing):
        done = subprocess.run(
            ["git", *words], env={"PATH": os.environ["PATH"], **variables}, capture_output=True, check=True
        )
    return set(records(done.stdout))


def test_snapshot_meta_says_what_git_says(subject):
    home = subject.agent.repository.layout.root
    for version in subject.agent.versions():
        path = subject.agent.load(f"v{version.version}") / "snapshot_meta.json"
        assert path.is_relative_to(home)
        meta = json.loads(path.read_text("utf-8"))
        form = "%H%x00%cd%x00%(trailers:key=Kai-Snapshot-Type,valueonly)%x00%P"
        words = ["log", "-1", f"--format={form}", "--date=format:%Y-%m-%dT%H:%M:%SZ", f"v{version.version}"]
        commit, created, snapshot_type, parent = (
            field.strip() for field in git(subject.bare, *words).decode().split("\0")
        )
        number = git(subject.bare, "tag", "--points-at", parent).decode() if parent else None
        paths = paths_of(subject.bare, commit)
        assert meta == {
            "version": version.version,
            "created": created,
            "commit_hash": commit,
            "parent": number.strip().removeprefix("v") if number else None,
            "snapshot_type": snapshot_type,
            "notes": version.notes,
            "agent_state_checksum": checksum(
                subject.bare, commit, {path for path in paths if path == b"state.json" or path.startswith(b"state/")}
            ),
            "config_checksum": checksum(subject.bare, commit, {b"config.yaml"}),
        }
