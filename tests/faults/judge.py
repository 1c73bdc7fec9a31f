"""Say whether a disk state is one that kaivc may leave behind."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from kaivc import inspection, intents, trees
from kaivc.api import Home
from kaivc.errors import KaiError, NoSuchHome
from kaivc.findings import Finding
from kaivc.storage.salvage import MATTERS, connect
from kaivc.vfs import Vfs
from tests.engine.homes import Files, open_home, read
from tests.faults.stories import Told, told

NOT_SYNCED = {"view", "link", "rollback.log"}
"""What a power cut may leave in part, and the next writer mends."""


class Corrupt(AssertionError):
    """A state that must not be."""


class AfterTheCut(Vfs):
    """The disk of a machine that was started again."""

    def boot_id(self) -> str:
        return "after the cut"


def judge(
    path: Path,
    before: Told | None,
    after: Told,
    *,
    acknowledged: bool,
    again: Callable[[Path], None] | None = None,
) -> str:
    """``before`` or ``after``, as the home at ``path`` shows it once recovered; Corrupt if it is neither.

    ``before`` is None where there was no home. ``again`` is what one does with a home that cannot be opened.
    """
    try:
        home = open_home(path, AfterTheCut())
    except NoSuchHome as error:
        if before is not None or acknowledged:
            raise Corrupt("the home is gone") from error
        return "before"
    except KaiError:
        if again is None or acknowledged:
            raise
        again(path)
        home = open_home(path, AfterTheCut())
        acknowledged = True
    with closing(home):
        outcome = _names(home, before or Told(), after, acknowledged=acknowledged)
        _in_force(home)
        look(home, recovered=False)
        recover(home)
        _contents(home)
        look(home, recovered=True)
        _same("workspace", told(home).files, (after if outcome == "after" else before or Told()).files)
        once = digest(path)
        recover(home)
        if digest(path) != once:
            raise Corrupt("recovering twice changes something")
    return outcome


def _names(home: Home, before: Told, after: Told, *, acknowledged: bool) -> str:
    there = told(home)
    if there.names == after.names:
        return "after"
    if acknowledged:
        raise Corrupt(f"what was acknowledged is not there: {there}")
    if there.refs != before.refs or there.own not in (before.own, after.own):
        raise Corrupt(f"the names are neither as before nor as after: {there}")
    return "before"


def _in_force(home: Home) -> None:
    """`current` may lag behind, but names a version that there is."""
    for name in home.agents():
        repo = home.agent(name).repository
        link = repo.layout.current(name)
        known = {*repo.refs(f"refs/tags/{name}/"), *repo.refs("refs/kai/withdrawn/")}  # renumbered it still is whole
        if os.path.islink(link) and not any(it.endswith(f"/{os.path.basename(os.readlink(link))}") for it in known):
            raise Corrupt(f"`current` of {name} names {os.readlink(link)}, which is no version")


def _contents(home: Home) -> None:
    """Load each version; what its view holds is what the store's own bytes say."""
    for name in home.agents():
        agent = home.agent(name)
        for version in agent.versions():
            view = read(agent.load(version.tag))
            view.pop("snapshot_meta.json")
            store = agent.repository.store
            stored = trees.flatten(store, version.tree_oid)
            shown = {os.fsdecode(path): b"".join(store.stream(entry.oid)) for path, entry in stored.items()}
            _same(f"view of {version.tag}", {name: view}, {name: shown})


def _same(what: str, there: dict[str, Files], wanted: dict[str, Files]) -> None:
    if there != wanted:
        differs = [
            (name, path, there.get(name, {}).get(path), files.get(path))
            for name, files in wanted.items()
            for path in sorted(files.keys() | there.get(name, {}).keys())
            if there.get(name, {}).get(path) != files.get(path)
        ]
        raise Corrupt(f"{what}: (path, there, wanted) {differs!r:.1500}")


def look(home: Home, *, recovered: bool) -> None:
    """fsck finds nothing; before recovery it may find what is not synced cut short."""
    found: list[Finding] = []
    with closing(connect(home.opened.layout.catalog)) as db:
        found += inspection.home(home.opened, db)
        for name in home.agents():
            repo = home.agent(name).repository
            found += inspection.agent(repo, db, repo.row()).findings
    left = [it for it in found if it.is_damage and (recovered or it.where not in NOT_SYNCED)]
    if left:
        raise Corrupt(f"fsck, {'recovered' if recovered else 'as found'}: {left}")


def recover(home: Home) -> None:
    """What the next writer does first."""
    for name in home.agents():
        agent = home.agent(name)
        with agent.repository.lock():
            intents.finish(agent.repository)


def digest(path: Path) -> str:
    """Of all that a user sees: names, bytes, links; the catalog by its rows."""
    sums = hashlib.sha256()
    for directory, names, files in os.walk(path):
        names.sort()
        for name in sorted(files):
            full = os.path.join(directory, name)
            if name.startswith("catalog.sqlite") or "/.kai/locks" in directory or "/.kai/tmp" in directory:
                continue
            sums.update(full.encode())
            if os.path.islink(full):
                sums.update(os.readlink(full).encode())
            else:
                sums.update(Path(full).read_bytes())
    with closing(sqlite3.connect(path / ".kai" / "catalog.sqlite")) as db:
        for table in MATTERS:
            sums.update(repr(db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()).encode())  # noqa: S608
    return sums.hexdigest()
