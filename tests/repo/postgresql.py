"""The same tests on PostgreSQL: statements of other programs are written for SQLite."""

import re
from collections.abc import Sequence
from typing import Any

import psycopg

from repo import open_database
from repo.postgresql.connection import Server
from repo.repository import Repository as AnyRepository
from repo.results import Result
from repo.retry import retry_policy
from tests.repo.rows import Db, Repository
from tests.support.postgresql import Cluster, translated

_RAISE = re.compile(r"SELECT RAISE\((?:ABORT|FAIL|ROLLBACK), ('[^']*')\)")
_IGNORE = re.compile(r"SELECT RAISE\(IGNORE\)")
_EVENT = re.compile(r"(?P<when>\w+ \w+ ON \w+)(?: WHEN (?P<condition>.*))?")


class PostgresDb(Db):
    """A database of a private server."""

    engine = "postgresql"
    rejection = r"\((P0001|23514)\)"

    def __init__(self, cluster: Cluster, name: str, *, busy_timeout: float = 0.05) -> None:
        self.url = cluster.url(name)
        # Tests of one engine use what only its database has.
        self.database = open_database(self.url, busy_timeout=busy_timeout)  # type: ignore[assignment]
        self.server = Server(self.url, busy_timeout=busy_timeout)
        self.cluster = cluster
        self.name = name
        self.parameters: dict[str, Any] = {
            "host": str(cluster.folder),
            "dbname": name,
            "user": "tester",
        }

    def patient(self) -> Repository:
        """Return the repository of starts, which waits long for locks."""
        self.repository._retry = retry_policy(30)
        return self.repository

    def patient_results(self) -> AnyRepository[Result]:
        """Return the repository of results, which waits long for locks."""
        self.results._retry = retry_policy(30)
        return self.results

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with psycopg.connect(**self.parameters, autocommit=True) as one:
            if sql.startswith("CREATE TRIGGER"):
                for statement in _trigger(sql):
                    one.execute(statement.encode())
                return []
            cursor = one.execute(translated(sql).encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def result_ids(self) -> list[str]:
        found = self.ask("SELECT result_id FROM execution_results ORDER BY ctid")
        return [result_id for (result_id,) in found]

    def row_of(self, result_id: str) -> dict[str, Any]:
        query = "SELECT * FROM execution_results WHERE result_id = %s"
        with psycopg.connect(**self.parameters) as one:
            cursor = one.execute(query, (result_id,))
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            (row,) = cursor.fetchall()
        return dict(zip(names, row, strict=True))

    def drop_trigger(self, table: str) -> None:
        self.ask(f"DROP TRIGGER foreign_rule ON {table}")

    def require_foreign_column(self) -> None:
        self.ask("ALTER TABLE execution_results ADD COLUMN site TEXT NOT NULL")

    def accept_every_status(self) -> None:
        self.ask("ALTER TABLE executions DROP CONSTRAINT executions_status_known")

    def shown(self, text: str) -> str:
        return text.replace("\0", "\\x00")


def _trigger(sql: str) -> list[str]:
    """Return a function and a trigger that do what one of SQLite does."""
    found = re.fullmatch(r"CREATE TRIGGER (\w+) (.*) BEGIN (.*); END", sql, re.DOTALL)
    assert found is not None, sql
    name, event, body = found.groups()
    parts = _EVENT.fullmatch(event)
    assert parts is not None, event
    body = _IGNORE.sub("RETURN NULL", _RAISE.sub(r"RAISE EXCEPTION \1", body))
    condition = f"WHEN ({parts['condition']})" if parts["condition"] else ""
    result = "OLD" if "DELETE" in parts["when"] else "NEW"
    return [
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {body}; RETURN {result}; END $$",
        f"CREATE TRIGGER {name} {parts['when']} FOR EACH ROW {condition} EXECUTE FUNCTION {name}()",
    ]
