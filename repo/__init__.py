"""The database: raw SQL from `sql/`, one transaction a batch.

`open_database` is the only way in; it picks the engine from the URL's scheme. Everything that is
one engine's own lives in its package (`repo.sqlite`) and its folder (`sql/sqlite/`).
"""

from repo.engine import Connection, Database, Progress
from repo.observer import NOBODY, Observer
from repo.sqlite.database import Database as SQLite
from repo.sqlite.database import parse_url

__all__ = ["Connection", "Database", "Progress", "check_url", "open_database"]


def open_database(url: str, *, busy_timeout: float = 1.0, observer: Observer = NOBODY) -> Database:
    """Return the database that a URL names; nothing is opened or created yet.

    `busy_timeout` is how many seconds one attempt waits for another process's lock. Raises
    ValueError as `check_url`.
    """
    return SQLite(url, busy_timeout=busy_timeout, observer=observer)


def check_url(url: str) -> str:
    """Return a URL as it is; raises ValueError, without repeating it, if no engine takes it."""
    parse_url(url)
    return url
