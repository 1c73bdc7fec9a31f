"""Play the main job of kaivc in a directory of its own, and hold it to its word.

An agent runs and its memory, a SQLite database, changes all the time. Versions are made of it while it runs; one of
them is bad and spoils the memory; a rollback brings code, configuration and memory back, and can itself be undone.
Ends with 1, and says why, if anything is not as it was said.
"""

import argparse
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "tally"
PATIENCE = 20.0
"""Seconds that anything may take to come true."""
WIDTH = 100
SOME = 15
"""Tickets enough to look at."""
STRANGE = ("KAI_", "GIT_", "XDG_")
"""What starts so in the environment would change what kai or git does."""

Row = tuple[int, str, str, int, int]


class NotAsSaidError(Exception):
    """Something is not as the demo says."""


class Terminal:
    """Prints: in colours on a terminal that wants them, plain otherwise."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self._number = 0

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text

    def title(self, text: str) -> None:
        """Begin a step."""
        self._number += 1
        print("\n" + self._paint("1;36", f"{self._number}. {text}"), flush=True)

    def say(self, text: str) -> None:
        """Say something between the commands."""
        print()
        for line in textwrap.wrap(" ".join(text.split()), WIDTH):
            print(line, flush=True)

    def command(self, text: str) -> None:
        """Show a command."""
        print("\n" + self._paint("32", "$ ") + self._paint("1", text), flush=True)

    def output(self, text: str) -> None:
        """Show what it printed."""
        for line in text.rstrip("\n").split("\n") if text.strip() else []:
            print(self._paint("2", "  " + line[:220]), flush=True)

    def good(self, text: str) -> None:
        """Show what was looked at and found right."""
        print(self._paint("32", "  ✓ " if self._unicode else "  ok: ") + text, flush=True)

    def bad(self, text: str) -> None:
        """Show what is not as it was said."""
        print(self._paint("1;31", "  ✗ " if self._unicode else "  NOT SO: ") + text, flush=True)


class Watch:
    """Looks at ``current`` all the time, in a thread: it must never be missing."""

    def __init__(self, link: Path) -> None:
        self.looks = 0
        self.missing = 0
        self._link = link
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._stop.wait(0.0005):
            self.looks += 1
            try:
                if not (self._link / "snapshot_meta.json").exists():
                    self.missing += 1
            except OSError:
                self.missing += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Demo:
    """The story, with what it stands on."""

    def __init__(self, top: Path, terminal: Terminal) -> None:
        self.top = top
        self.home = top / "agents"
        self.agent = self.home / "tally"
        self.work = self.agent / "workspace"
        self.show = terminal
        self.log = top / "run.log"
        self.loop: subprocess.Popen[bytes] | None = None
        self._environ = self._environment()

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(STRANGE)}
        kept.pop("SOURCE_DATE_EPOCH", None)
        (self.top / "user/.config/kai").mkdir(parents=True)
        (self.top / "user/.config/kai/config.yaml").write_text(f"isolation:\n  temp_dir: {self.top}/layers\n")
        (self.top / "bin").mkdir()
        for name, start in (("kai", '-m kaivc "$@"'), ("python3", '"$@"')):
            script = self.top / "bin" / name
            script.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {start}\n")
            script.chmod(0o755)
        return kept | {
            "PATH": os.pathsep.join([str(self.top / "bin"), os.environ.get("PATH", os.defpath)]),
            "HOME": str(self.top / "user"),
            "KAI_AUTHOR": "Ada <ada@example.org>",
            "EXAMPLE": str(EXAMPLE),
            "GIT_CONFIG_NOSYSTEM": "1",
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    # ------------------------------------------------------------ doing and looking

    def run(self, command: str, *, where: Path | None = None, code: int = 0, shown: int = 24) -> str:
        """Show a command, run it, show at most so many lines of what it prints."""
        self.show.command(command)
        output = self.quietly(command, where=where, code=code)
        lines = output.rstrip("\n").split("\n")
        if len(lines) > shown:
            lines = [*lines[:shown], f"... {len(lines) - shown} more lines"]
        self.show.output("\n".join(lines))
        return output

    def quietly(self, command: str, *, where: Path | None = None, code: int = 0) -> str:
        """Run a command; NotAsSaidError unless it ends with ``code``."""
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=where or self.home,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        output = done.stdout.decode("utf-8", "replace")
        if done.returncode != code:
            raise NotAsSaidError(f"`{command}` ended with {done.returncode}, not {code}:\n{output}")
        return output

    def status(self) -> dict[str, Any]:
        """What `kai status` says to programs."""
        found: dict[str, Any] = json.loads(self.quietly("kai status tally --json"))["agents"][0]
        return found

    def expect(self, truth: object, text: str) -> None:
        """Hold the demo to its word."""
        if not truth:
            self.show.bad(text)
            raise NotAsSaidError(text)
        self.show.good(text)

    def wait(self, condition: Callable[[], object], text: str) -> None:
        """Wait until something is true."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise NotAsSaidError(f"waited {PATIENCE:g} seconds for this: {text}\n{self.log.read_text()}")
            if self.loop is not None and self.loop.poll() is not None:
                raise NotAsSaidError(f"the agent stopped by itself:\n{self.log.read_text()}")
            time.sleep(0.02)

    def rows(self, database: Path | None = None) -> list[Row]:
        """What a database of the agent holds, after SQLite's own check of it."""
        where = f"{database}?immutable=1" if database else f"{self.work}/state/memory.db?mode=ro"
        db = sqlite3.connect(f"file:{where}", uri=True)
        try:
            if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                raise NotAsSaidError(f"{where} is damaged")
            return db.execute("SELECT ticket, subject, queue, score, rules FROM decisions ORDER BY ticket").fetchall()
        finally:
            db.close()

    def count(self) -> int:
        """How many tickets the running agent remembers."""
        with suppress(sqlite3.Error):
            return len(self.rows())
        return 0

    def rules(self) -> set[int]:
        """By which editions of the rules the tickets were sorted; none while the loop starts again."""
        with suppress(sqlite3.Error):
            return {row[4] for row in self.rows()}
        return set()

    def calls(self) -> int:
        """What the ledger says."""
        return int(json.loads((self.work / "ledger.json").read_text())["calls"])

    def current(self) -> str:
        """Where the link points."""
        return os.readlink(self.agent / "current")

    def grows(self, by: int = 5) -> None:
        """Wait until the agent has done some more."""
        goal = self.count() + by
        self.wait(lambda: self.count() >= goal, f"the agent remembers {goal} tickets")

    def reload(self) -> None:
        """Have the loop start again with the code as it is now."""
        if self.loop is not None:
            self.loop.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End the agent; whatever happens, nothing of it stays."""
        if self.loop is None:
            return
        with suppress(ProcessLookupError):
            self.loop.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.loop.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(self.loop.pid, signal.SIGKILL)
        self.loop.wait(10)
        self.loop = None

    # ------------------------------------------------------------ the story

    def play(self) -> None:
        """All of it."""
        self.begin()
        with Watch(self.agent / "current") as watch:
            self.live()
            self.better()
            spoilt = self.worse()
            self.plan()
            self.back(spoilt)
            self.proof(spoilt)
            self.undo_and_redo(spoilt)
            self.try_first()
            self.check_all()
        self.expect(watch.missing == 0, f"`current` was looked at {watch.looks} times meanwhile, and was always there")
        self.outside()

    def begin(self) -> None:
        """A home, an agent, a first version."""
        self.show.title("A home, an agent, its first version")
        self.show.say(
            "A home is a directory for agents. This agent sorts support tickets; its files are in examples/tally."
        )
        self.run("kai init agents", where=self.top)
        self.run('kai new tally --from "$EXAMPLE/v1"')
        self.run('kai commit tally --version 1.0.0 -m "Sort tickets"')
        self.run("ls -F tally")
        self.expect(self.current() == "versions/v1.0.0", "`current` is a link to a read-only view of v1.0.0")
        meta = json.loads((self.agent / "current" / "snapshot_meta.json").read_text())
        self.expect(
            meta["version"] == "1.0.0", "the view says of itself that it is 1.0.0, commit " + meta["commit_hash"][:12]
        )

    def live(self) -> None:
        """The agent runs."""
        self.show.title("It runs, and its state changes")
        self.show.say("The loop keeps a SQLite database open in WAL mode and writes to it twenty times a second.")
        self.show.command("kai run tally &")
        with self.log.open("wb") as log:
            self.loop = subprocess.Popen(
                ["/bin/sh", "-c", "exec kai run tally"],
                cwd=self.home,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait(lambda: self.count() >= SOME, f"the agent remembers {SOME} tickets")
        self.run("python3 look.py", where=self.work)
        self.run("ls state", where=self.work)
        self.expect(
            (self.work / "state/memory.db-wal").stat().st_size,
            "the newest rows are in the write-ahead log, not in the file",
        )
        self.expect(self.status()["running"], "kai knows that it runs")

    def better(self) -> None:
        """A second version, made while the agent runs."""
        self.show.title("A better version, committed while it runs")
        self.run('cp "$EXAMPLE"/v2/* tally/workspace/')
        self.show.say("SIGHUP has the loop start again with the new rules, which sort again what is remembered.")
        self.reload()
        self.wait(lambda: self.rules() == {2}, "all is sorted by the second rules")
        self.grows()
        before = self.rows()
        self.run('kai commit tally --bump minor -m "Sort money and thanks"')
        captured = self.rows(self.agent / "versions/v1.1.0/state/memory.db")
        self.grows()
        self.expect(self.current() == "versions/v1.1.0", "v1.1.0 is in force; the agent was not stopped for it")
        self.expect(
            captured[: len(before)] == before,
            f"v1.1.0 holds a sound database of {len(captured)} tickets, the newest of them out of the live log",
        )
        names = sorted(path.name for path in (self.agent / "versions/v1.1.0/state").iterdir())
        self.expect(names == ["memory.db"], "and no side files, which do not belong into a version")

    def worse(self) -> list[Row]:
        """A third version spoils the state; what it made of it."""
        self.show.title("A bad version")
        self.show.say("v3 has a typo in its configuration. It goes out like any other.")
        self.run('cp "$EXAMPLE"/v3/* tally/workspace/')
        self.run('kai commit tally --bump minor -m "Polite people need not wait"')
        self.reload()
        self.wait(lambda: self.rules() == {3}, "all is sorted by the third rules")
        self.grows()
        self.run("python3 check.py", where=self.work, code=1)
        self.run("python3 look.py", where=self.work)
        spoilt = self.rows()
        self.expect(
            {row[2] for row in spoilt} == {"urgent"},
            "every ticket that it remembers is urgent now: the state is spoilt",
        )
        self.run("kai status tally")
        status = self.status()
        self.expect(status["dirty"], "kai says so too: the live state is not that of v1.2.0 any more")
        self.show.say("What did v1.2.0 change?")
        patch = self.run("kai diff tally@v1.1.0 v1.2.0")
        self.expect("\n-urgent_from: 3\n+urgent_from: -3\n" in patch, "there is the typo")
        return spoilt

    def plan(self) -> None:
        """A dry run."""
        self.show.title("What would a rollback do?")
        link, config = self.current(), (self.work / "config.yaml").read_bytes()
        self.run("kai rollback tally --to v1.1.0 --dry-run")
        same = (link, config) == (self.current(), (self.work / "config.yaml").read_bytes())
        self.expect(same, "a dry run moves nothing")

    def back(self, spoilt: list[Row]) -> None:
        """The rollback, while the agent runs."""
        self.show.title("Roll back, while it runs")
        self.show.say(
            "kai runs the agent's `quiesce` command, so that it closes its database; moves; then runs `resume`. "
            "The agent goes on with the code that is there now."
        )
        calls = self.calls()
        self.run('kai rollback tally --to v1.1.0 --reason "everything is urgent"')
        self.expect(self.loop is not None and self.loop.poll() is None, "the agent is still running")
        self.expect(self.calls() >= calls >= len(spoilt), f"the ledger did not go back: {self.calls()} calls")
        self.grows()

    def proof(self, spoilt: list[Row]) -> None:
        """Look at everything."""
        self.show.title("Is it all back?")
        view = self.agent / "versions/v1.1.0"
        self.run("readlink tally/current")
        self.expect(self.current() == "versions/v1.1.0", "the link")
        self.run("python3 check.py", where=self.work)
        self.run("python3 look.py", where=self.work)
        for name, what in (("classify.py", "the code"), ("config.yaml", "the configuration")):
            self.expect((self.work / name).read_bytes() == (view / name).read_bytes(), f"{what}, byte for byte")
        then, now = self.rows(view / "state/memory.db"), self.rows()
        self.expect(now[: len(then)] == then, f"the memory: all {len(then)} rows of v1.1.0, in a sound database")
        self.expect({row[4] for row in now} == {2}, f"and {len(now) - len(then)} new rows since, by the second rules")
        self.run("kai reflog tally -n 2")
        self.run("tail -n 1 tally/rollback.log")
        line = json.loads((self.agent / "rollback.log").read_text().splitlines()[-1])
        said = (line["verb"], line["from"], line["to"], line["reason"])
        self.expect(said == ("rollback", "v1.2.0", "v1.1.0", "everything is urgent"), "who, when and why is in the log")
        self.run(f"kai checkout tally@{line['backup']} ../evidence")
        saved = self.rows(self.top / "evidence/state/memory.db")
        self.expect(saved[: len(spoilt)] == spoilt, f"and the spoilt memory is saved, all {len(saved)} rows")

    def undo_and_redo(self, spoilt: list[Row]) -> None:
        """A rollback is a move like any other."""
        self.show.title("Undo it, redo it")
        self.run("kai undo tally")
        self.wait(lambda: self.rules() == {3}, "the third rules are at work again")
        self.expect(self.current() == "versions/v1.2.0", "v1.2.0 is in force again")
        self.expect(self.rows()[: len(spoilt)] == spoilt, "with the spoilt memory, as it was when it was left")
        self.grows()
        self.run("kai redo tally")
        self.wait(lambda: self.rules() == {2}, "the second rules are at work again")
        self.grows()
        self.expect(self.current() == "versions/v1.1.0", "v1.1.0 is in force again")
        self.run("python3 check.py", where=self.work)
        self.run("kai reflog tally")

    def try_first(self) -> None:
        """What a test of the bad version would have said."""
        self.show.title("Try a version before it is in force")
        if self.quietly("kai snapshot tally --test v1.1.0 -- python3 -c 0 >/dev/null 2>&1; echo $?").strip() != "0":
            self.show.say("This machine gives no sandbox with a python3 in it; `kai doctor` says what lacks.")
            return
        self.show.say(
            "A snapshot runs an agent's own check over the files of a version, in a layer apart from all else. What "
            "v1.2.0 made of the memory is in a backup, and can be tested too."
        )
        self.run("kai snapshot tally --test v1.1.0")
        line = json.loads((self.agent / "rollback.log").read_text().splitlines()[-1])
        self.run(f"kai snapshot tally --test {line['backup']}", code=1)
        self.expect(self.current() == "versions/v1.1.0", "the check says no; nothing of it touched the agent that runs")

    def check_all(self) -> None:
        """Hash everything again."""
        self.show.title("Verify")
        self.show.say("Every object of every version is hashed again, and so is every view.")
        self.run("kai verify tally")
        self.stop()
        self.show.say("The agent is stopped now.")
        status = self.status()
        self.expect(not status["running"], "kai knows that it does not run any more")

    def outside(self) -> None:
        """Git reads what kaivc keeps."""
        self.show.title("Objects are Git's own")
        self.run("kai export tally --git ../tally.git")
        if shutil.which("git") is None:
            self.show.say("There is no git here to look at it.")
            return
        self.run("git fsck --strict", where=self.top / "tally.git")
        self.show.good("git finds nothing wrong")
        self.run("git log --all --graph --oneline --decorate", where=self.top / "tally.git")
        if shutil.which("sha256sum") is None:
            return
        total = self.run(
            "git ls-tree -r -z --full-tree v1.1.0 config.yaml | sha256sum", where=self.top / "tally.git"
        ).split()[0]
        meta = json.loads((self.agent / "current" / "snapshot_meta.json").read_text())
        self.expect(
            meta["config_checksum"] == f"sha256:{total}", "a stranger gets the checksum that snapshot_meta.json states"
        )


# ---------------------------------------------------------------- its surroundings


@contextmanager
def scratch(*, keep: bool) -> Iterator[Path]:
    """A directory that is gone afterwards, read-only views and all."""
    top = Path(tempfile.mkdtemp(prefix="kai-demo-")).resolve()
    try:
        yield top
    finally:
        if keep:
            print(f"\nleft for you in {top}")
        else:
            for directory, _, _ in os.walk(top):
                Path(directory).chmod(0o700)
            shutil.rmtree(top)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Play it; 0 when all was as said."""
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__ or "")[0])
    parser.add_argument("--keep", action="store_true", help="leave the directory, to look around in it")
    keep = parser.parse_args().keep
    terminal = Terminal()
    if importlib.util.find_spec("kaivc") is None:
        terminal.bad("this Python does not have kaivc: run `make demo`")
        return 1
    signal.signal(signal.SIGTERM, _interrupted)
    begun = time.monotonic()
    with scratch(keep=keep) as top:
        demo = Demo(top, terminal)
        try:
            demo.play()
        except NotAsSaidError as error:
            terminal.bad(str(error))
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            demo.stop()
    took = f"{time.monotonic() - begun:.0f} seconds"
    terminal.say(f"All of it was as said, in {took}. docs/tutorial.md goes through it step by step.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
