"""Tally: sorts support tickets, one at each tick, and remembers what it decided.

Runs until SIGTERM. After SIGHUP, and after a pause, it starts again, with the code and settings as they now are.
"""

import json
import os
import signal
import sqlite3
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import classify
import inbox

HERE = Path(__file__).resolve().parent
MEMORY = HERE / "state" / "memory.db"
LEDGER = HERE / "ledger.json"
RUN = HERE / "run"
PAUSE, PAUSED = RUN / "pause", RUN / "paused"

STOP = {signal.SIGTERM, signal.SIGINT}
wanted: list[int] = []
"""The signals that came in."""


def note(number: int, _frame: FrameType | None) -> None:
    """Remember a signal until the tick is done."""
    wanted.append(number)


def settings() -> dict[str, float]:
    """What config.yaml says: one number on each line."""
    lines = (HERE / "config.yaml").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if line.strip() and not line.startswith("#"))
    return {key.strip(): float(value) for key, value in pairs}


def open_memory() -> sqlite3.Connection:
    """The database, in WAL mode; it stays open for as long as the loop runs."""
    MEMORY.parent.mkdir(exist_ok=True)
    db = sqlite3.connect(MEMORY, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(
        "CREATE TABLE IF NOT EXISTS decisions "
        "(ticket INTEGER PRIMARY KEY, subject TEXT NOT NULL, queue TEXT NOT NULL, score INTEGER, rules INTEGER)"
    )
    return db


def sort_again(db: sqlite3.Connection, config: dict[str, float]) -> None:
    """Newer rules are applied to all that is remembered."""
    rows = db.execute("SELECT ticket, subject FROM decisions WHERE rules < ?", (classify.RULES,)).fetchall()
    db.execute("BEGIN IMMEDIATE")
    for number, subject in rows:
        decide(db, number, subject, config)
    db.execute("COMMIT")


def decide(db: sqlite3.Connection, number: int, subject: str, config: dict[str, float]) -> None:
    """Sort one ticket, and remember it."""
    queue, score = classify.sort(subject, config)
    row = (number, subject, queue, score, classify.RULES)
    db.execute("INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?, ?)", row)


def count_call() -> None:
    """Note one more call in the ledger; a reader finds the old count or the new one."""
    ledger = json.loads(LEDGER.read_text())
    ledger["calls"] += 1
    new = RUN / "ledger.new"
    new.write_text(json.dumps(ledger) + "\n")
    new.replace(LEDGER)


def tick(db: sqlite3.Connection, config: dict[str, float]) -> None:
    """Take the next ticket and sort it."""
    (number,) = db.execute("SELECT coalesce(max(ticket), 0) + 1 FROM decisions").fetchone()
    decide(db, number, inbox.ticket(number), config)
    count_call()


def hold_still() -> None:
    """Say that the database is closed, then wait for the end of the pause."""
    with suppress(FileNotFoundError):  # the pause may be over already
        PAUSED.write_text(PAUSE.read_text())
    while PAUSE.exists() and not STOP & set(wanted):
        time.sleep(0.02)
    PAUSED.unlink(missing_ok=True)


def main() -> None:
    """The loop."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, note)
    RUN.mkdir(exist_ok=True)
    if not PAUSE.exists():
        config = settings()
        db = open_memory()
        sort_again(db, config)
        print(f"tally: rules {classify.RULES}, urgent from {config['urgent_from']:g}", flush=True)
        while not wanted and not PAUSE.exists():
            tick(db, config)
            time.sleep(config["tick"])
        db.close()
    if PAUSE.exists():
        hold_still()
    if not STOP & set(wanted):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new process has a handler of its own
        os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    main()
