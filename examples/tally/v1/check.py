"""Is the memory sound? Says why not, and ends with 1, when it is not."""

import sqlite3
import sys
from pathlib import Path

MEMORY = Path(__file__).resolve().parent / "state" / "memory.db"
TOO_MANY = 0.5
"""No morning is so bad that more than half of the tickets are urgent."""


def main() -> int:
    """Look at the database and at what is in it."""
    if not MEMORY.exists():
        print("ok: nothing is remembered yet")
        return 0
    db = sqlite3.connect(MEMORY)
    (whole,) = db.execute("PRAGMA integrity_check").fetchone()
    if whole != "ok":
        print(f"bad: the database is damaged: {whole}")
        return 1
    count, urgent = db.execute("SELECT count(*), coalesce(sum(queue = 'urgent'), 0) FROM decisions").fetchone()
    thanks = "SELECT ticket, subject FROM decisions WHERE subject LIKE 'thank%' AND queue = 'urgent' LIMIT 1"
    odd = db.execute(thanks).fetchone()
    db.close()
    if odd is not None:
        print(f"bad: {urgent} of {count} tickets are urgent, even #{odd[0]}, {odd[1]!r}")
        return 1
    if urgent > TOO_MANY * count:
        print(f"bad: {urgent} of {count} tickets are urgent")
        return 1
    print(f"ok: {count} tickets, {urgent} of them urgent")
    return 0


if __name__ == "__main__":
    sys.exit(main())
