"""What `projector check` finds on a server and in its database."""

from collections.abc import Callable, Iterator
from typing import Any

from repo.errors import RepositoryError, SchemaError
from repo.findings import Finding, Level
from repo.postgresql.connection import Connection, Server
from repo.retry import retry_policy
from repo.statements import statement

_DESCRIBE_SERVER = statement("describe_server", "postgresql")
_LIST_INVALID_INDEXES = statement("list_invalid_indexes", "postgresql")
_LIST_MISSING_RIGHTS = statement("list_missing_rights", "postgresql")

_OLDEST = 130000
_FEW_CONNECTIONS = 10


def check(server: Server, *, thorough: bool, retry_for: float) -> Iterator[Finding]:
    """Yield each finding as soon as it is known; nothing is created or changed.

    `thorough` finds no more here: checksums and amcheck are the server's own. A lock is waited for
    up to `retry_for` seconds.
    """
    del thorough
    try:
        retry_policy(retry_for)(server.check_writable)
    except RepositoryError as error:
        yield _failed("database", error)
        return
    with server.reading() as connection:
        row = connection.fetch(_DESCRIBE_SERVER)[0]
        yield from _of_the_server(row)
        yield _attempt("place", lambda: _check_place(connection))
        yield _attempt("indexes", lambda: _check_indexes(connection))
        yield _attempt("rights", lambda: _check_rights(connection))


def _of_the_server(row: tuple[Any, ...]) -> Iterator[Finding]:
    (
        version,
        number,
        encoding,
        fsync,
        full_page_writes,
        commits,
        standby_names,
        standbys,
        left,
    ) = row
    level = Level.OK if number >= _OLDEST else Level.ERROR
    yield Finding("database", level, f"PostgreSQL {version}, writable")
    if encoding != "UTF8":
        yield Finding("encoding", Level.ERROR, f"{encoding}: expected UTF8")
    unsafe = [
        f"{name} is off"
        for name, value in (("fsync", fsync), ("full_page_writes", full_page_writes))
        if value == "off"
    ]
    if unsafe:
        text = f"{' and '.join(unsafe)}: a crash of the server loses commits or the database"
        yield Finding("durability", Level.ERROR, text)
    elif commits in ("off", "local"):
        text = f"synchronous_commit is {commits} for this role; the worker commits with 'on'"
        yield Finding("durability", Level.WARNING, text)
    else:
        yield Finding("durability", Level.OK, f"synchronous_commit is {commits}")
    if standby_names:
        text = f"{standbys} connected, synchronous_standby_names is set: a failover loses nothing"
        yield Finding("standbys", Level.OK if standbys else Level.WARNING, text)
    elif standbys:
        text = (
            f"{standbys} connected, none of them synchronous: a failover loses commits, which the "
            "worker then reads again from the streams"
        )
        yield Finding("standbys", Level.WARNING, text)
    else:
        yield Finding("standbys", Level.OK, "none connected, or this role may not see them")
    level = Level.OK if left >= _FEW_CONNECTIONS else Level.WARNING
    yield Finding("connections", level, f"{left} left")


def _check_place(connection: Connection) -> tuple[Level, str]:
    place = connection.place
    if place.startswith("unknown"):
        text = "the server does not tell its identity: a failover that loses commits, or a restore"
        return Level.WARNING, f"{text}, is noticed only when the connection is lost"
    return Level.OK, place


def _check_indexes(connection: Connection) -> tuple[Level, str]:
    if invalid := [row[0] for row in connection.fetch(_LIST_INVALID_INDEXES)]:
        text = f"not in use, since their creation was interrupted: {', '.join(invalid)}"
        return Level.WARNING, f"{text}; drop and create them again"
    return Level.OK, "all are in use"


def _check_rights(connection: Connection) -> tuple[Level, str]:
    try:
        missing = [row[0] for row in connection.fetch(_LIST_MISSING_RIGHTS)]
    except SchemaError:
        return Level.OK, "unknown: the tables do not exist yet"
    if missing:
        return Level.ERROR, f"this role lacks {', '.join(missing)}"
    return Level.OK, "this role may do what the worker does"


def _attempt(name: str, look: Callable[[], tuple[Level, str]]) -> Finding:
    try:
        return Finding(name, *look())
    except RepositoryError as error:
        return _failed(name, error)


def _failed(name: str, error: RepositoryError) -> Finding:
    return Finding(name, Level.ERROR, f"{error.summary}: {error}")
