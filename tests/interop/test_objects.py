"""Ids: git gives the same bytes, the same trees, the same names."""

from __future__ import annotations

import os

from kaivc import trees
from tests.interop.judge import CHANGED, EVERYTHING, check, data_of, git, lines_of, mode_of, write


def blobs_of(agent, rev):
    repo = agent.repository
    return trees.flatten(repo.store, agent.show(rev).version.tree_oid)


def test_a_blobs_id_is_what_git_hashes(subject):
    for rev, files in (("v1.0.0", EVERYTHING), ("v1.1.0", CHANGED)):
        ours = blobs_of(subject.agent, rev)
        assert ours.keys() == files.keys()
        for path, content in files.items():
            theirs = git(subject.bare, "hash-object", "--stdin", stdin=data_of(content))
            assert ours[path].oid.hex() == theirs.decode().strip(), path
            assert b"%06o" % ours[path].mode == mode_of(content), path


def test_a_live_files_id_is_what_git_hashes(agent, object_format, tmp_path):
    write(agent.workspace, EVERYTHING)
    agent.commit()
    git(tmp_path, "init", "-q", f"--object-format={object_format}", "judge")
    ours = blobs_of(agent, "current")
    plain = [path for path, content in EVERYTHING.items() if mode_of(content) != b"120000"]
    paths = [os.path.join(os.fsencode(agent.workspace), path) for path in plain]
    ids = git(tmp_path / "judge", "hash-object", "--no-filters", "--", *paths).decode().split()
    assert ids == [ours[path].oid.hex() for path in plain]


def test_git_makes_the_same_trees_of_the_same_entries(subject):
    for rev in ("v1.0.0", "v1.1.0", "v2.0.0-rc.1"):
        root = git(subject.bare, "rev-parse", f"{rev}^{{tree}}").strip()
        assert root.decode() == subject.agent.show(rev).version.tree
        listed = git(subject.bare, "ls-tree", "-r", "-t", "-z", "--full-tree", rev)
        subtrees = [oid for _, kind, oid, _ in lines_of(listed) if kind == b"tree"]
        assert subtrees
        for tree in (root, *subtrees):
            entries = git(subject.bare, "ls-tree", "-z", tree)
            shuffled = b"".join(record + b"\0" for record in reversed(entries.split(b"\0")[:-1]))
            assert git(subject.bare, "mktree", "-z", stdin=shuffled).strip() == tree


def test_git_makes_the_same_tree_of_the_workspace_itself(agent, object_format, tmp_path):
    write(agent.workspace, EVERYTHING)
    version = agent.commit()
    git(tmp_path, "init", "-q", f"--object-format={object_format}", "judge")
    git(tmp_path / "judge", f"--work-tree={agent.workspace}", "add", "--all", ":/")
    assert git(tmp_path / "judge", "write-tree").decode().strip() == version.tree


def test_a_version_of_nothing_is_the_empty_tree(agent, tmp_path):
    version = agent.commit()
    agent.export(tmp_path / "bare")
    check(tmp_path / "bare")
    assert git(tmp_path / "bare", "mktree").decode().strip() == version.tree
