"""A state machine against a plain-dict model, and round trips of any tree of files."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kaivc.errors import InvalidManifest, NothingToCommit, NothingToUndo, RefusedPath
from kaivc.ignore import IGNORE_FILE, IgnoreRules
from kaivc.manifest import MANIFEST
from kaivc.storage.gitobjects import is_reserved
from tests.engine.homes import Files, make_home, open_home, read, remove, write

NAMES = st.sampled_from(["a.py", "b.txt", "state.json", "config.yaml", "d/x", "d/y", "d/e/z", "state/log"])
DATA = st.sampled_from([b"", b"1", b"2\n", b"x" * 5000, bytes(range(256)) * 10])


class Store(RuleBasedStateMachine):
    """commit, edit, rollback, undo, redo, restore and reopen, against dicts."""

    @initialize(object_format=st.sampled_from(["sha1", "sha256"]))
    def start(self, object_format: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="kai-model-")) / "home"
        self.agent = make_home(self.path, object_format, views__keep="3").new("bot")
        self.live: Files = {}
        self.versions: dict[str, Files] = {}
        self.parents: dict[str, str | None] = {}
        self.current: str | None = None
        self.moves: list[dict[str, object]] = []

    def teardown(self) -> None:
        if hasattr(self, "path"):
            assert self.agent.verify().ok if self.versions else True
            remove(self.path.parent)

    # -------------------------------------------------------- the world

    @rule(name=NAMES, data=DATA)
    def edit(self, name: str, data: bytes) -> None:
        self.live[name] = data
        write(self.agent.workspace, self.live)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.live.pop(name, None)
        write(self.agent.workspace, self.live)

    @rule()
    def reopen(self) -> None:
        self.agent = open_home(self.path, views__keep="3").agent("bot")

    # -------------------------------------------------------- the verbs

    @rule(level=st.sampled_from(["patch", "minor", "major"]))
    def commit(self, level: str) -> None:
        if self.current is not None and self.live == self.versions[self.current]:
            with pytest.raises(NothingToCommit):
                self.agent.commit(bump=level)
            return
        number = self.agent.commit(bump=level).version
        assert number is not None
        assert number not in self.versions
        self.versions[number] = dict(self.live)
        self.parents[number] = self.current
        self._moved("commit", number, None)

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        target = data.draw(st.sampled_from(sorted(self.versions)))
        before = dict(self.live)
        moved = self.agent.rollback(target)
        if target == self.current and before == self.versions[target]:
            assert not moved.applied
            return
        wrote = before != self.versions[target]
        assert bool(moved.backup) == (wrote and before != self.versions[self.current or ""])
        self.live = dict(self.versions[target])
        self._moved("rollback", target, before if wrote else None)

    @precondition(lambda self: self.versions)
    @rule()
    def undo(self) -> None:
        candidates = [move for move in self.moves if move["verb"] != "undo" and not move["undone"]]
        if not candidates or candidates[-1]["old"] is None:
            with pytest.raises(NothingToUndo):
                self.agent.undo()
            return
        move = candidates[-1]
        self.agent.undo()
        move["undone"] = True
        self._reverse("undo", move)

    @precondition(lambda self: self.versions)
    @rule()
    def redo(self) -> None:
        found = None
        for move in reversed(self.moves):
            if move["verb"] == "undo" and not move["redone"]:
                found = move
                break
            if move["verb"] not in ("undo", "redo"):
                break
        if found is None:
            with pytest.raises(NothingToUndo):
                self.agent.redo()
            return
        self.agent.redo()
        found["redone"] = True
        self._reverse("redo", found)

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        source = data.draw(st.sampled_from(sorted(self.versions)))
        self.agent.restore(source=source)
        self.live = dict(self.versions[source])

    def _reverse(self, verb: str, move: dict[str, object]) -> None:
        before, saved = dict(self.live), move["left"]
        if saved is not None:
            self.live = dict(saved)  # type: ignore[call-overload]
        self._moved(verb, str(move["old"]), before if saved is not None and before != self.live else None)

    def _moved(self, verb: str, to: str, left: Files | None) -> None:
        """``left``: what stood in the workspace, if the move wrote it."""
        self.moves.append({"verb": verb, "old": self.current, "left": left, "undone": False, "redone": False})
        self.current = to

    # -------------------------------------------------------- what always holds

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "agent"):
            return
        assert read(self.agent.workspace) == self.live
        if self.current is None:
            return
        assert self.agent.current.version == self.current
        assert {version.version for version in self.agent.versions()} == set(self.versions)
        link = Path(self.agent.repository.layout.current("bot"))
        assert os.readlink(link) == f"versions/v{self.current}"
        seen = read(link.resolve())
        seen.pop("snapshot_meta.json")
        assert seen == self.versions[self.current]
        assert len(self.agent.reflog().entries) == len(self.moves)
        assert self.agent.status().dirty == (self.live != self.versions[self.current])


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)

# ---------------------------------------------------------------- round trips


def _means_something(name: bytes) -> bool:
    """Hypothesis also draws the names that it finds in the sources."""
    rules = IgnoreRules()
    ignored = rules.ignored(name, is_dir=True) or rules.ignored(name, is_dir=False)
    return ignored or is_reserved(name) or name in (IGNORE_FILE, MANIFEST)


PART = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..") and not _means_something(name)
)


@st.composite
def any_tree(draw: st.DrawFn) -> dict[bytes, tuple[str, bytes]]:
    """Paths in any bytes; files, executables and links that stay inside."""
    found: dict[bytes, tuple[str, bytes]] = {}
    for _ in range(draw(st.integers(1, 8))):
        path = b"/".join(draw(st.lists(PART, min_size=1, max_size=3)))
        kind = draw(st.sampled_from(["file", "file", "exec", "link"]))
        data = draw(st.binary(max_size=200)) if kind != "link" else draw(PART)
        found[path] = (kind, data)
    return found


def build(root: bytes, tree: dict[bytes, tuple[str, bytes]]) -> None:
    for path, (kind, data) in tree.items():
        full = os.path.join(root, path)
        try:
            os.makedirs(os.path.dirname(full), exist_ok=True)
            if os.path.lexists(full):
                continue
            if kind == "link":
                os.symlink(data, full)
                continue
            with open(full, "wb") as file:
                file.write(data)
            os.chmod(full, 0o755 if kind == "exec" else 0o644)
        except OSError:  # a link stands where a directory is wanted
            continue


def listing(root: bytes) -> dict[bytes, tuple[str, bytes]]:
    found = {}
    for directory, _, _ in os.walk(root):
        for entry in os.scandir(directory):
            path = os.path.relpath(entry.path, root)
            if entry.is_symlink():
                found[path] = ("link", os.readlink(entry.path))
            elif entry.is_file():
                with open(entry.path, "rb") as file:
                    data = file.read()
                found[path] = ("exec" if entry.stat().st_mode & stat.S_IXUSR else "file", data)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=any_tree(), second=any_tree())
def test_any_tree_comes_back_byte_for_byte(
    first: dict[bytes, tuple[str, bytes]], second: dict[bytes, tuple[str, bytes]]
) -> None:
    base = Path(tempfile.mkdtemp(prefix="kai-trip-"))
    try:
        round_trip(base, first, second)
    finally:
        remove(base)


def round_trip(base: Path, first: dict[bytes, tuple[str, bytes]], second: dict[bytes, tuple[str, bytes]]) -> None:
    agent = make_home(base / "home").new("bot")
    (agent.workspace / ".kaiignore").write_text("!*\n")
    workspace = os.fsencode(agent.workspace)
    taken = {}
    for tree in (first, second):
        for name in os.listdir(workspace):
            full = os.path.join(workspace, name)
            if os.path.isdir(full) and not os.path.islink(full):
                shutil.rmtree(full)
            elif name != b".kaiignore":
                os.unlink(full)
        build(workspace, tree)
        try:
            version = agent.commit(bump="minor", allow_empty=True)
        except (InvalidManifest, RefusedPath):
            return  # a name that no tree may hold, a collision, or a link that leads out
        taken[version.tag] = listing(workspace)
    for tag in [*taken, *reversed(taken)]:
        agent.rollback(tag)
        assert listing(workspace) == taken[tag]
        assert not agent.status().dirty
        view = listing(os.path.realpath(os.fsencode(agent.repository.layout.current("bot"))))
        view.pop(b"snapshot_meta.json")
        assert view == taken[tag]
        target = base / f"out-{tag}-{len(os.listdir(base))}"
        agent.checkout(tag, target)
        assert listing(os.fsencode(target)) == taken[tag]
