"""Snapshots: a version under test with a layer of its own, and what of it was committed or kept.

A committed snapshot is a branch; what was tested, and how it ended, stands in its record (``trials``).
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Final

from kaivc import layer, leases, materialise, retention, scratch, trees, trials, versions
from kaivc.capture import Capture, Capturer
from kaivc.dirtree import DirTree
from kaivc.errors import InvalidManifest, InvalidName, NoSuchRevision, UnsettledFile
from kaivc.layer import Layer, LayerChange, Lower
from kaivc.manifest import FileClass, Manifest
from kaivc.names import ObjectId, check_name, nearest, snapshot_ref, snapshots_prefix
from kaivc.records import dataclass
from kaivc.repository import OpenHome, Repository
from kaivc.scratch import Scratch
from kaivc.settings import Isolation
from kaivc.sinks import BlobSink, BytesSource, HashSink
from kaivc.storage.chunking import Source
from kaivc.storage.gitobjects import SYMLINK, Entry
from kaivc.trees import Files
from kaivc.trials import Status, Trial
from kaivc.versions import AgentVersion
from kaivc.vfs import Vfs

COMMITTED, LIVE = "committed", "live"
STATES: Final = (COMMITTED, LIVE)
BRANCH: Final = "snapshots/"


# ---------------------------------------------------------------- which there are


@dataclass(frozen=True)
class Snapshot:
    """A snapshot: ``commit`` is None unless it is committed, ``kept`` unless a layer waits, ``trial`` if none is known.

    ``version`` is what people call what was tested, ``base`` its commit; ``created`` as RFC 3339 UTC.
    """

    agent: str
    id: str
    status: str
    running: bool
    version: str
    base: str
    created: str
    commit: str | None
    kept: str | None
    trial: Trial | None

    @property
    def name(self) -> str:
        """As a revision names it, once it is committed."""
        return BRANCH + self.id


def every(repo: Repository) -> list[Snapshot]:
    """All snapshots of an agent, oldest first."""
    prefix = snapshots_prefix(repo.name)
    committed = {name.removeprefix(prefix): oid for name, oid in repo.refs(prefix).items()}
    recorded = {trial.id: trial for trial in trials.every(repo.layout, repo.name)}
    found = (_described(repo, name, committed.get(name), recorded.get(name)) for name in {*committed, *recorded})
    return sorted((it for it in found if it is not None), key=lambda it: (it.created, it.id))


def find(repo: Repository, text: str) -> Snapshot:
    """One snapshot, by ``ID``, ``snapshots/ID`` or ``AGENT@snapshots/ID``; NoSuchRevision with the nearest."""
    name = bare(text, repo.name)
    trial = trials.read(repo.layout, repo.name, name)
    found = _described(repo, name, repo.ref(snapshot_ref(repo.name, name)), trial)
    if found is None:
        raise missing(text, [it.id for it in every(repo)], f"{repo.name} has no snapshot")
    return found


def bare(text: str, agent: str) -> str:
    """The id in a text that names a snapshot of an agent; InvalidName if it can be none."""
    return check_name("snapshot", text.removeprefix(f"{agent}@").removeprefix(BRANCH))


def missing(text: str, known: list[str], what: str) -> NoSuchRevision:
    """The error for a snapshot that is not there, with the nearest, or else the newest."""
    close = nearest(text.rpartition("/")[2].rpartition("@")[2], known) or known[:-4:-1]
    hint = f"did you mean {', '.join(close)}?" if close else "`kai snapshot AGENT --test REV --commit` makes one"
    return NoSuchRevision(f"{what} {text!r:.100}", unchanged="nothing moved", hint=hint, revision=text, nearest=close)


def _described(repo: Repository, name: str, oid: ObjectId | None, trial: Trial | None) -> Snapshot | None:
    if oid is not None:
        return _committed(repo, name, versions.describe(repo, oid), trial)
    if trial is None or trial.scratch is None:
        return None
    mine = trial.uid == os.geteuid()
    # Nobody else can look into a user's scratch: what the record says is taken for true.
    running = scratch.is_at_work(trial.scratch, repo.vfs) if mine else trial.is_open
    kept = None if running or trial.is_open or (mine and not os.path.lexists(trial.scratch)) else trial.scratch
    if not running and kept is None:
        return None  # what a kai left that was killed, or a test that has just ended
    version = _called(trial.base_version, trial.base)
    created = versions.rfc3339(trial.created_ns // 10**9)
    return Snapshot(repo.name, name, trial.status, running, version, trial.base, created, None, kept, trial)


def _committed(repo: Repository, name: str, commit: AgentVersion, trial: Trial | None) -> Snapshot:
    base = commit.parent_commit or ""
    called = _called(commit.parent, base)
    passed = Status.PASSED.value
    return Snapshot(repo.name, name, passed, False, called, base, commit.created, commit.commit, None, trial)


def _called(version: str | None, commit: str) -> str:
    return f"v{version}" if version else commit[: versions.SHORT]


# ---------------------------------------------------------------- isolation


def isolation_of(repo: Repository, manifest: Manifest) -> Isolation:
    """The settings with what the manifest gives laid over them; InvalidManifest if it asks for more than is granted."""
    asked, granted = manifest.isolation, repo.settings.isolation
    looser = asked.loosens(granted)
    if looser:
        keys = ", ".join(f"isolation.{key}" for key in looser)
        raise InvalidManifest(
            f"kai.yaml asks for less isolation than is granted, with {keys}",
            unchanged="nothing ran",
            hint=f"a manifest may only tighten: grant it under `isolation:` in {repo.layout.config} or the user's"
            " config, or take it out of kai.yaml",
            file="kai.yaml",
            keys=[f"isolation.{key}" for key in looser],
        )
    return asked.over(granted)


# ---------------------------------------------------------------- what lies below a layer


class Spool:
    """Takes the bytes of files and keeps each in a file of scratch, by its id; what the store has it leaves there."""

    def __init__(self, repo: Repository, directory: str) -> None:
        self._repo = repo
        self._directory = directory
        self._hash = HashSink(repo.home.format)
        self.held: set[bytes] = set()
        repo.vfs.make_dir(directory)

    def path(self, oid: bytes) -> str:
        """Where the bytes of that id are."""
        return os.path.join(self._directory, oid.hex())

    def contains(self, oid: bytes) -> bool:
        """Whether the bytes of that id need not be read again."""
        return oid in self.held or self._repo.store.contains(ObjectId(oid))

    def put_blob(self, source: Source, size: int, like: ObjectId | None = None) -> ObjectId:
        """Take ``size`` bytes; their id."""
        vfs, temporary = self._repo.vfs, os.path.join(self._directory, "new")
        vfs.unlink(temporary, missing_ok=True)
        fd = vfs.create(temporary)
        try:
            oid = self._hash.put_blob(_Tee(source, vfs, fd), size, like)
        finally:
            vfs.close(fd)
        vfs.rename(temporary, self.path(oid))
        self.held.add(oid)
        return oid


class _Tee:
    """A source that writes down what is read of it."""

    def __init__(self, source: Source, vfs: Vfs, fd: int) -> None:
        self._source, self._vfs, self._fd = source, vfs, fd

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._vfs.write(self._fd, data)
        return bytes(data)


def live_files(
    repo: Repository, base: AgentVersion, manifest: Manifest, spool: Spool
) -> tuple[dict[bytes, Entry], Capture]:
    """A version's files with the workspace's state in place of its own, by the version's classes; the capture too."""
    files = trees.flatten(repo.store, base.tree_oid)
    try:
        capture = Capturer(repo, spool, files, base_manifest=manifest).run()
    except UnsettledFile:
        if manifest.quiesce is None or not leases.is_running(repo):
            raise
        with leases.quiesced(repo, manifest):
            capture = Capturer(repo, spool, files, base_manifest=manifest).run()
    return with_state_of(files, capture.files, manifest), capture


def with_state_of(files: Files, other: Files, manifest: Manifest) -> dict[bytes, Entry]:
    """``files`` with the state of ``other`` in place of their own."""
    rest = {path: entry for path, entry in files.items() if manifest.file_class(path) is not FileClass.STATE}
    state = {path: entry for path, entry in other.items() if manifest.file_class(path) is FileClass.STATE}
    return dict(sorted({**rest, **state}.items()))


def lay_out(repo: Repository, base: AgentVersion, files: Files, directory: str, spool: Spool | None = None) -> None:
    """Write files to a new directory, from the spool where that has them, else from the store."""
    repo.vfs.make_dir(directory, 0o755)
    held = spool.held if spool is not None else set()
    uses = Counter(entry.oid for entry in files.values())
    stored = {path: entry for path, entry in files.items() if entry.oid not in held}
    with DirTree(repo.vfs, directory, 0o755) as tree, retention.reading(repo, base):
        for path, entry in materialise.in_store_order(repo.store, stored):
            materialise.write_file(repo.store, tree, path, entry, materialise.plain_mode(entry))
        for path, entry in files.items():
            if spool is not None and entry.oid in held:
                uses[entry.oid] -= 1
                _put(repo.vfs, spool.path(entry.oid), tree, path, entry, last=not uses[entry.oid])


def _put(vfs: Vfs, source: str, tree: DirTree, path: bytes, entry: Entry, *, last: bool) -> None:
    parent, name = tree.at(path, create=True)
    with open(source, "rb", buffering=0) as file:
        if entry.mode == SYMLINK:
            vfs.symlink(file.read(trees.MAX_LINK), name, parent)
            return
        if last:
            vfs.chmod_fd(file.fileno(), materialise.plain_mode(entry))
            vfs.rename(source, name, None, parent)
            return
        fd = vfs.create(name, at=parent)
        try:
            while piece := file.read(1 << 20):
                vfs.write(fd, piece)
            vfs.chmod_fd(fd, materialise.plain_mode(entry))
        finally:
            vfs.close(fd)


def take_in(lower: Lower, known: Files, sink: BlobSink) -> None:
    """Give ``sink`` the files that lie below a layer and are not among those ``known`` to be stored."""
    with_new = {path: entry for path, entry in lower.files.items() if known.get(path) != entry}
    for path, entry in with_new.items():
        full = os.path.join(os.fsencode(lower.path), path)
        like = known[path].oid if path in known else None
        if entry.mode == SYMLINK:
            target = os.fsencode(os.readlink(full))
            sink.put_blob(BytesSource(target), len(target), like)
            continue
        fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb", buffering=0) as file:
            sink.put_blob(file, os.fstat(fd).st_size, like)


# ---------------------------------------------------------------- what a snapshot changed


def changes(repo: Repository, snapshot: Snapshot) -> tuple[list[LayerChange], list[str]]:
    """What a committed or kept snapshot changed, and what no version could hold of it."""
    if snapshot.commit is not None:
        with retention.reading(repo, at := versions.describe(repo, ObjectId(bytes.fromhex(snapshot.commit)))):
            before = versions.parent(repo, at)
            old = trees.flatten(repo.store, before.tree_oid) if before else {}
            rows = trees.compare(old, trees.flatten(repo.store, at.tree_oid))
            return [_of_change(repo, row) for row in rows], []
    if snapshot.kept is None or snapshot.trial is None or snapshot.trial.top is None:
        return [], []
    found = read_kept(repo, snapshot.trial, snapshot.kept)
    return list(found.changes), [str(it) for it in found.refusals]


def _of_change(repo: Repository, change: trees.Change) -> LayerChange:
    sizes = [repo.store.size(it.oid) if it is not None else None for it in (change.old, change.new)]
    return LayerChange(change.status, change.path, sizes[0], sizes[1])


def read_kept(repo: Repository, trial: Trial, directory: str) -> Layer:
    """The layer of a failed test that waits to be dropped."""
    base = versions.describe(repo, ObjectId(bytes.fromhex(trial.base)))
    manifest = versions.manifest_of(repo, base.tree_oid)
    files = trees.flatten(repo.store, base.tree_oid)
    lower = Lower(Scratch(directory).lower, files, manifest)
    hashes, most = HashSink(repo.home.format), repo.settings.isolation.written
    if not os.path.isdir(lower.path):
        lower = lower._replace(path=_view_of(repo, base))
    elif trial.state == LIVE:
        below = layer.read(repo, lower, lower.path, whole=True, sink=hashes, most=1 << 62)
        lower = lower._replace(files=below.files)
    top = os.path.join(directory, trial.top or "")
    return layer.read(repo, lower, top, whole=bool(trial.whole), sink=hashes, most=most)


def _view_of(repo: Repository, base: AgentVersion) -> str:
    """The view of a version, for the sizes of its files alone; any directory does where it is gone."""
    path = repo.layout.view(repo.name, base.tag)
    return path if os.path.isdir(path) else repo.layout.snapshot_temp(repo.name)


# ---------------------------------------------------------------- by id alone


def located(home: OpenHome, text: str) -> tuple[Repository, str]:
    """The agent that has the snapshot ``ID``, ``snapshots/ID`` or ``AGENT@ID``, and the id.

    NoSuchRevision, with the nearest; InvalidName for an id that several agents have.
    """
    agent, at, rest = text.rpartition("@")
    repos = [home.repository(name) for name in ([agent] if at else home.catalog.agent_names(removed=True))]
    name = bare(rest, "")
    having = [repo for repo in repos if _has(repo, name)]
    if not having:
        known = [it.id for repo in repos for it in every(repo)]
        raise missing(text, sorted(known), "there is no snapshot")
    if len(having) > 1:
        names = [f"{repo.name}@{name}" for repo in having]
        what = f"{len(names)} agents have a snapshot {name}"
        raise InvalidName(what, unchanged="nothing moved", hint=f"say which: {', '.join(names)}", nearest=names)
    return having[0], name


def _has(repo: Repository, name: str) -> bool:
    try:
        return bool(find(repo, name))
    except NoSuchRevision:
        return False
