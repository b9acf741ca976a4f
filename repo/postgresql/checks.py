"""What `projector check` finds on a server and in its database."""

from collections.abc import Iterator
from typing import NamedTuple

from repo.errors import RepositoryError, SchemaError
from repo.findings import Finding, Level, attempt, failed
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
        with server.reading() as connection:
            yield from _of_the_server(_Described(*connection.fetch(_DESCRIBE_SERVER)[0]))
            yield attempt("place", lambda: _check_place(connection))
            yield attempt("indexes", lambda: _check_indexes(connection))
            yield attempt("rights", lambda: _check_rights(connection))
    except RepositoryError as error:
        yield failed("database", error)


class _Described(NamedTuple):
    """The columns of describe_server."""

    version: str
    version_number: int
    encoding: str
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    synchronous_standby_names: str
    standbys: int
    connections_left: int


def _of_the_server(found: _Described) -> Iterator[Finding]:
    level = Level.OK if found.version_number >= _OLDEST else Level.ERROR
    yield Finding("database", level, f"PostgreSQL {found.version}, writable")
    if found.encoding != "UTF8":
        yield Finding("encoding", Level.ERROR, f"{found.encoding}: expected UTF8")
    yield Finding("durability", *_durability(found))
    yield Finding("standbys", *_standbys(found))
    level = Level.OK if found.connections_left >= _FEW_CONNECTIONS else Level.WARNING
    yield Finding("connections", level, f"{found.connections_left} left")


def _durability(found: _Described) -> tuple[Level, str]:
    off = [name for name in ("fsync", "full_page_writes") if getattr(found, name) == "off"]
    if off:
        text = " and ".join(f"{name} is off" for name in off)
        return Level.ERROR, f"{text}: a crash of the server loses commits or the database"
    commits = found.synchronous_commit
    if commits in ("off", "local"):
        text = f"synchronous_commit is {commits} for this role; the worker commits with 'on'"
        return Level.WARNING, text
    return Level.OK, f"synchronous_commit is {commits}"


def _standbys(found: _Described) -> tuple[Level, str]:
    connected = f"{found.standbys} connected"
    if found.synchronous_standby_names:
        level = Level.OK if found.standbys else Level.WARNING
        return level, f"{connected}, synchronous_standby_names is set: a failover loses nothing"
    if found.standbys:
        text = "a failover loses commits, which the worker then reads again from the streams"
        return Level.WARNING, f"{connected}, none of them synchronous: {text}"
    return Level.OK, "none connected, or this role may not see them"


def _check_place(connection: Connection) -> tuple[Level, str]:
    place = connection.place
    if place.startswith("unknown"):
        text = "the server does not report its identity: a failover that loses commits, or a"
        return Level.WARNING, f"{text} restore, is noticed only when the connection is lost"
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
