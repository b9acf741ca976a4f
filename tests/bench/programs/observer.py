"""Watches a table and notes when each row became visible to another process.

SQLite's `data_version` tells whether anything was committed; only then are the new rows read, by
their rowids. Between two looks it sleeps, so as not to take a core from what it watches; the time
between looks is a bound of what it adds to a latency, and is told. Prints a JSON object.
"""

import json
import sqlite3
import time
from argparse import ArgumentParser
from contextlib import closing

_PAUSE = 0.0001
_NEW = "SELECT rowid, result_id FROM execution_results WHERE rowid > ? ORDER BY rowid"


def main() -> None:
    """Say "ready", watch until all rows are there, print when each was."""
    parser = ArgumentParser()
    parser.add_argument("--database", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--within", type=float, required=True)
    given = parser.parse_args()
    path = f"file:{given.database}?mode=ro"
    with closing(sqlite3.connect(path, uri=True, isolation_level=None)) as connection:
        seen, looks = watch(connection, given.rows, time.monotonic() + given.within)
    print(json.dumps({"seen": seen, "looks": looks}))


def watch(
    connection: sqlite3.Connection, rows: int, deadline: float
) -> tuple[dict[str, int], list[int]]:
    """Return when each row was seen, and the time between looks; nanoseconds of one clock."""
    seen: dict[str, int] = {}
    looks: list[int] = []
    last_rowid = version = 0
    looked = time.monotonic_ns()
    while len(seen) < rows and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        (now_version,) = connection.execute("PRAGMA data_version").fetchone()
        now = time.monotonic_ns()
        looks.append(now - looked)
        looked = now
        if now_version == version:
            continue
        version = now_version
        new = connection.execute(_NEW, (last_rowid,)).fetchall()
        now = time.monotonic_ns()
        seen.update((result_id, now) for _, result_id in new)
        last_rowid = new[-1][0] if new else last_rowid
    return seen, looks


if __name__ == "__main__":
    main()
