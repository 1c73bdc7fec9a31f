"""The directory in which the examples of docs/reference are run, made once and copied for each.

::

    agents/        the home, and the working directory; its agent `summarizer` has v1.0.0, v1.1.0 and v2.0.0 (in
                   force), backups/4 and backups/7, and changes in its workspace that are not committed
    my-agent/      files that are no agent's yet: those of v1.0.0
    releases/      versions kept as folders: versions/v1.0.0/ ..., current
    empty/         nothing
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from kaivc import scratch
from kaivc.cli.main import main
from tests.engine.homes import Files, write

AGENT = "summarizer"
MANIFEST = b"entry: [python3, logic.py]\n"
FIRST: Files = {
    "kai.yaml": MANIFEST,
    "logic.py": b"print('one')\n",
    "config.yaml": b"words: 100\n",
    "state.json": b'{"read": 1}\n',
    "prompts/system.txt": b"Summarize.\n",
}
SECOND = FIRST | {"logic.py": b"print('two')\n", "prompts/system.txt": b"Summarize in short.\n"}
THIRD = SECOND | {"logic.py": b"print('three')\n", "config.yaml": b"words: 50\n", "prompts/user.txt": b"Of this:\n"}


def run(*args: str) -> None:
    """One command line that must succeed."""
    assert main(args) == 0, args


def make(top: Path) -> None:
    """All of it, below ``top``."""
    for name in ("my-agent", "empty"):
        (top / name).mkdir()
    write(top / "my-agent", FIRST)
    home = ["--home", str(top / "agents")]
    work = top / "agents" / AGENT / "workspace"
    run("init", str(top / "agents"))
    run("new", AGENT, "--from", str(top / "my-agent"), *home)
    for number, files in (("1.0.0", FIRST), ("1.1.0", SECOND), ("2.0.0", THIRD)):
        write(work, files)
        run("commit", AGENT, "--version", number, "-m", f"release {number}", *home)
    shutil.copytree(top / "agents" / AGENT, top / "releases", symlinks=True, ignore=shutil.ignore_patterns("workspace"))
    for read, target in ((2, "v1.0.0"), (None, "v2.0.0"), (None, "v1.1.0"), (3, "v2.0.0")):
        if read is not None:
            (work / "state.json").write_bytes(b'{"read": %d}\n' % read)
        run("rollback", AGENT, "--to", target, "--reason", "to see", *home)
    write(work, THIRD | {"logic.py": b"print('four')\n", "state.json": b'{"read": 4}\n'})


# ---------------------------------------------------------------- what some examples find otherwise


def no_home_yet(top: Path) -> Path:
    """Where `kai init` is typed."""
    return top / "empty"


def no_agent_yet(top: Path) -> Path:
    """A home without agents."""
    home = top / "empty" / "agents"
    run("init", str(home))
    (top / "empty" / "my-agent").symlink_to(top / "my-agent")
    return home


def nothing_changed(top: Path) -> Path:
    """The workspace is as v2.0.0 has it."""
    write(top / "agents" / AGENT / "workspace", THIRD)
    return top / "agents"


def just_undone(top: Path) -> Path:
    """The last move was an undo."""
    run("undo", AGENT, "--home", str(top / "agents"))
    return top / "agents"


def damaged_view(top: Path) -> Path:
    """Somebody wrote into the view of v1.0.0."""
    path = top / "agents" / AGENT / "versions/v1.0.0/logic.py"
    path.chmod(0o600)
    path.write_bytes(b"print('not this')\n")
    return top / "agents"


def moved_link(top: Path) -> Path:
    """The linked workspace of `live` was moved to `my-agent`."""
    run("new", "live", "--link", str(top / "empty"), "--home", str(top / "agents"))
    (top / "empty").rmdir()
    return top / "agents"


SNAPSHOT = "261122-205340-9f3c1a"


def a_snapshot(top: Path) -> Path:
    """A committed snapshot of the version in force."""
    home = ["--home", str(top / "agents")]
    usual = scratch.new_id
    scratch.new_id = lambda now_ns: SNAPSHOT
    try:
        run("snapshot", AGENT, "--test", "current", "--commit", *home, "--", "sh", "-c", "echo new > new.txt")
    finally:
        scratch.new_id = usual
    return top / "agents"


def no_clone_yet(top: Path) -> Path:
    """A directory of nothing, beside the home."""
    return top / "empty"


def a_remote(top: Path) -> Path:
    """`../office` is the remote `origin`, just fetched, with an agent `helper` of its own."""
    home, office = ["--home", str(top / "agents")], ["--home", str(top / "office")]
    run("clone", str(top / "agents"), str(top / "office"))
    run("new", "helper", "--from", str(top / "my-agent"), *office)
    run("commit", "helper", *office)
    run("remote", "add", "origin", str(top / "office"), *home)
    run("fetch", *home)
    return top / "agents"


def news_at_a_remote(top: Path) -> Path:
    """There a version was made since."""
    a_remote(top)
    write(top / "office" / AGENT / "workspace", THIRD | {"logic.py": b"print('five')\n"})
    run("commit", AGENT, "--home", str(top / "office"))
    return top / "agents"


def news_for_a_remote(top: Path) -> Path:
    """Here a version was made since, and a snapshot is kept."""
    a_remote(top)
    run("commit", AGENT, "--home", str(top / "agents"))
    return a_snapshot(top)


def a_snapshot_at_a_remote(top: Path) -> Path:
    """There it is kept too."""
    news_for_a_remote(top)
    run("push", AGENT, "--ref", f"snapshots/{SNAPSHOT}", "--home", str(top / "agents"))
    return top / "agents"


def a_hub(top: Path) -> Path:
    """`hub` is a git host of the other format."""
    subprocess.run(["git", "init", "-q", "--bare", "--object-format=sha1", str(top / "hub.git")], check=True)
    run("remote", "add", "hub", str(top / "hub.git"), "--home", str(top / "agents"))
    return top / "agents"


def bundles(top: Path) -> Path:
    """Bundles of all agents, and of what came after v1.1.0, beside the home, where a version is taken back since."""
    home = ["--home", str(top / "agents")]
    run("bundle", "create", str(top / "agents" / "agents.kaib"), *home)
    run("bundle", "create", str(top / "agents" / "new.kaib"), AGENT, "--since", "v1.1.0", *home)
    return top / "agents"


def somebody_let_in(top: Path) -> Path:
    """There is a token `old`, and the user `daemon` is a tester."""
    home = ["--home", str(top / "agents")]
    run("token", "add", "old", "--role", "viewer", *home)
    run("role", "grant", "daemon", "tester", *home)
    return top / "agents"


OTHERWISE: dict[str, Callable[[Path], Path]] = {
    "kai agent link": moved_link,
    "kai bundle unbundle": bundles,
    "kai bundle verify": bundles,
    "kai clone": no_clone_yet,
    "kai fetch": news_at_a_remote,
    "kai fsck --repair": damaged_view,
    "kai fsck --repair --dry-run": lambda top: top / "agents",
    "kai init": no_home_yet,
    "kai mirror": a_hub,
    "kai new summarizer --from": no_agent_yet,
    "kai pull": news_at_a_remote,
    "kai push": news_for_a_remote,
    "kai push summarizer --delete": a_snapshot_at_a_remote,
    "kai redo": just_undone,
    "kai remote": a_remote,
    "kai rollback summarizer --to v1.0.0 --force": damaged_view,
    "kai role revoke": somebody_let_in,
    "kai run": nothing_changed,
    "kai run summarizer --dirty": lambda top: top / "agents",
    "kai snapshot drop": a_snapshot,
    "kai snapshot list": a_snapshot,
    "kai snapshot promote": a_snapshot,
    "kai snapshot show": a_snapshot,
    "kai token revoke": somebody_let_in,
    "kai verify summarizer --workspace": nothing_changed,
}
"""By how a line begins, the longest that fits: what is done first, and the working directory."""


def arranged(line: str, top: Path) -> Path:
    """Do what the line needs; the working directory for it."""
    fitting = [start for start in OTHERWISE if line.startswith(start)]
    return OTHERWISE[max(fitting, key=len)](top) if fitting else top / "agents"
