"""start-projector's database access: raw SQL from `sql/`, one transaction a batch.

`open_database` is the only way in; it picks the engine from the URL's scheme. Everything that is
one engine's own lives in its package (`repo.sqlite`, `repo.postgresql`) and its folder in `sql/`.
"""

from repo.engine import Connection, Database, Progress
from repo.errors import DriverMissing
from repo.observer import NOBODY, Observer
from repo.postgresql import url as postgresql_url
from repo.sqlite.database import Database as SQLite
from repo.sqlite.database import parse_url as parse_sqlite_url

__all__ = ["Connection", "Database", "Progress", "check_url", "open_database"]


def open_database(url: str, *, busy_timeout: float = 1.0, observer: Observer = NOBODY) -> Database:
    """Return the database that a URL names; nothing is opened or created yet.

    `busy_timeout` is how many seconds one attempt waits for another process's lock. Raises
    ValueError as `check_url`, and DriverMissing where the engine's package is not installed.
    """
    if not url.startswith(postgresql_url.URL_PREFIXES):
        return SQLite(url, busy_timeout=busy_timeout, observer=observer)
    try:
        # Not at the top: an installation that uses the other engine does without this driver.
        from repo.postgresql.database import Database as PostgreSQL  # noqa: PLC0415
    except ImportError as error:
        raise DriverMissing(
            "PostgreSQL needs the package psycopg; install start-projector[postgresql], in a "
            "checkout with pip install '.[postgresql]'"
        ) from error
    return PostgreSQL(url, busy_timeout=busy_timeout, observer=observer)


def check_url(url: str) -> str:
    """Return a URL as it is; raises ValueError, without repeating it, if no engine takes it."""
    if url.startswith(postgresql_url.URL_PREFIXES):
        postgresql_url.parse_url(url)
    else:
        parse_sqlite_url(url)
    return url
