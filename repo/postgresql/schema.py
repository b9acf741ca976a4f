"""Which migrations are applied to a server's database, and their SQL."""

from yoyo.migrations import read_sql_migration

from repo.migrations import all_migrations
from repo.postgresql.connection import ENGINE, Server
from repo.statements import statement

_HAS_MIGRATION_TABLE = statement("has_migration_table", ENGINE)
_LIST_APPLIED_MIGRATIONS = statement("list_applied_migrations", ENGINE)


def marked_migrations(server: Server) -> set[str]:
    """Return the ids that yoyo has marked as applied."""
    with server.reading() as connection:
        if connection.fetch(_HAS_MIGRATION_TABLE) == [(0,)]:
            return set()
        return {row[0] for row in connection.fetch(_LIST_APPLIED_MIGRATIONS)}


def migration_sql(server: Server) -> list[str]:
    """Return the statements that `migrate` would run on this database; changes nothing.

    Raises a RepositoryError if the database cannot be read.
    """
    marked = marked_migrations(server)
    return [
        sql
        for one in all_migrations(ENGINE)
        if one.id not in marked
        for sql in read_sql_migration(one.path)[2]
    ]
