"""What must hold after an error or a kill, beside what ``judge`` says: `current` is good at once, the next write works,
and nothing is left lying about."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import kaivc
from kaivc.api import Home
from kaivc.errors import NoSuchHome
from kaivc.layout import UNFINISHED, Layout
from kaivc.vfs import Vfs
from tests.engine.homes import ENVIRON, open_home
from tests.faults.crash import ask
from tests.faults.judge import Corrupt, judge, look
from tests.faults.stories import Story, Told

LONG_AGO = 3 * 86_400
SETTINGS = {"chunks__threshold": "64 KiB", "backups__keep": "0", "backups__max_age": "0s"}


def asked(story: Story, path: Path) -> Told | None:
    """What the home says that a story begins with; None where there is none, or none that can be asked."""
    return None if story.again is not None else ask(path)


def aftermath(story: Story, path: Path, before: Told | None, after: Told, *, acknowledged: bool, killed: bool) -> str:
    """``before`` or ``after``; Corrupt if it is neither, or if anything else is wrong. The home goes on to be used."""
    _in_force(path, before, after)
    if story.also is not None:
        story.also(path, acknowledged)
    if story.again is not None and not acknowledged:
        story.again(path)
        acknowledged = True
    outcome = judge(path, before, after, acknowledged=acknowledged)
    if killed:
        _age(path)
    try:
        home = open_home(path, Vfs(), **SETTINGS)
    except NoSuchHome:
        kaivc.init(path, environ=ENVIRON).close()
        home = open_home(path, Vfs(), **SETTINGS)
    with closing(home):
        _go_on(home)
        look(home, recovered=True)
        left = _scratch(home, killed=killed)
    if left:
        raise Corrupt(f"scratch is left: {left}")
    return outcome


def _in_force(path: Path, before: Told | None, after: Told) -> None:
    """`current` is a version at every moment, under whatever name."""
    links = [link for link in path.glob("*/current") if not link.parent.name.startswith(".")]
    for link in links:
        if not (link.is_symlink() and (link / "snapshot_meta.json").is_file()):
            raise Corrupt(f"{link} is not valid: {os.path.lexists(link)}")
    if before is not None and len(links) < min(_in_force_of(before), _in_force_of(after)):
        raise Corrupt(f"`current` is missing: {links}")


def _in_force_of(it: Told) -> int:
    return sum(f"refs/heads/{name}/current" in it.refs[name] for name in it.files)


def _age(path: Path) -> None:
    """What a kill left of files that nobody names is removed when it is a day old."""
    then = time.time() - LONG_AGO
    for each in (path / ".kai" / "tmp").glob("*"):
        os.utime(each, (then, then), follow_symlinks=False)


def _go_on(home: Home) -> None:
    """The next writers."""
    if not home.agents(removed=True):
        home.new("bot")
    for name in home.agents():
        agent = home.agent(name)
        agent.commit(version="9.9.9", allow_empty=True)
        if agent.status().pending:
            raise Corrupt(f"{name}: {agent.status().pending} is pending after a commit")
        link = os.readlink(agent.repository.layout.current(name))
        lines = Path(agent.repository.layout.rollback_log(name)).read_text(encoding="utf-8").splitlines()
        if link != "versions/v9.9.9" or len(lines) != len(agent.reflog().entries):
            raise Corrupt(f"{name}: current is {link}, rollback.log has {len(lines)} lines")
    for name in home.agents(removed=True):
        home.agent(name).gc()


def _scratch(home: Home, *, killed: bool) -> list[str]:
    """What nobody will use. What a kill left of a small file that is replaced, the next one who does that removes."""
    layout: Layout = home.opened.layout
    root = Path(layout.root)
    found = [it for it in root.iterdir() if it.name.startswith((".new-", ".kai-new-"))]
    for directory in ("staging", "displaced"):
        found += [it for it in (root / ".kai" / directory).rglob("*") if not it.is_dir()]
    found += [it for it in (root / ".kai" / "tmp").glob("*") if it.name != "clock"]
    found += root.glob("*/versions/.[no]*")
    small = [it for it in (*root.glob(".kai/*.new"), *root.glob("*/*.new")) if it.name != UNFINISHED]
    found += [] if killed else small
    found += [*root.rglob(UNFINISHED)]
    found += [it for it in root.glob(".kai/packs/*") if not home.opened.catalog.agent(it.name)]
    named = set(
        home.opened.catalog.rows("SELECT agents.name, packs.name FROM packs JOIN agents ON packs.agent = agents.id")
    )
    found += [it for it in root.glob(".kai/packs/*/*") if (it.parent.name, it.name.split(".")[0]) not in named]
    return [str(it.relative_to(root)) for it in found]
