"""What is remembered, by queue, and how many calls were made."""

import json
import sqlite3
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Print it."""
    db = sqlite3.connect(HERE / "state" / "memory.db")
    for queue, count, last in db.execute(
        "SELECT queue, count(*), (SELECT subject FROM decisions AS one WHERE one.queue = every.queue "
        "ORDER BY ticket DESC LIMIT 1) FROM decisions AS every GROUP BY queue ORDER BY queue"
    ):
        print(f"{queue:8} {count:4}   such as {last!r}")
    db.close()
    print(f"ledger   {json.loads((HERE / 'ledger.json').read_text())['calls']:4}   calls")


if __name__ == "__main__":
    main()
