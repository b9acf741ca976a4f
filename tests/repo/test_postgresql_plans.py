"""No statement of PostgreSQL scans a table that grows, and its page lists all of them."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from repo.migrations import known_migrations
from repo.postgresql.connection import Connection
from repo.statements import texts
from tests.repo.postgresql import PostgresDb
from tests.support.postgresql import cluster

SQL = Path(__file__).parents[2] / "sql" / "postgresql"
STATEMENTS = sorted(texts("postgresql"))
SCAN = re.compile(r"Seq Scan on (execution_results|executions|rejected_events)\b")


@pytest.fixture(scope="module")
def sample() -> Iterator[PostgresDb]:
    """A database with many runs and rejected events, and the statistics of both."""
    name = cluster().create_database()
    db = PostgresDb(cluster(), name)
    subprocess.run(
        ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-v", "runs=30000", "-f", SQL / "sample.sql"],
        env={"PGHOST": str(cluster().folder), "PGDATABASE": name, "PGUSER": "tester"},
        cwd="/",
        check=True,
    )
    db.ask(
        "INSERT INTO rejected_events (stream, stream_sequence, recorded_at, subject, reason,"
        " rejected_at, payload) SELECT 'S', number, '', '', '', '', ''"
        " FROM generate_series(1, 5000) AS number"
    )
    db.ask("VACUUM ANALYZE")
    # Scanning tables as small as these is cheap: it must be possible without.
    db.ask(f"ALTER DATABASE {name} SET enable_seqscan = off")
    yield db
    cluster().drop_database(name)


@pytest.fixture
def reading(sample: PostgresDb) -> Iterator[Connection]:
    with sample.server.reading() as connection:
        yield connection


def test_the_sample_is_of_every_state(sample: PostgresDb) -> None:
    found = sample.ask(
        "SELECT count(*), count(*) FILTER (WHERE finished_at IS NULL),"
        " count(*) FILTER (WHERE reaped = 1) FROM execution_results"
    )
    assert found == [(30_000, 30, 149)]
    assert sample.ask("SELECT count(*) FROM executions") == [(300,)]


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_scans_a_table_that_grows(reading: Connection, name: str) -> None:
    plan = "\n".join(reading.plan(name))  # type: ignore[arg-type]
    assert SCAN.search(plan) is None, plan


def test_a_scan_would_be_noticed(sample: PostgresDb) -> None:
    with closing(sample.server.connect()) as connection:
        rows = connection.driver.execute(
            "EXPLAIN SELECT 1 FROM execution_results WHERE request_id = 'x'"
        ).fetchall()
    assert SCAN.search("\n".join(row[0] for row in rows))


# --- the page for DBAs ----------------------------------------------------------------------------


def test_the_page_names_every_statement_table_index_and_migration(sample: PostgresDb) -> None:
    named = set(re.findall(r"`(\w+)`", (SQL / "README.md").read_text("utf-8")))
    indexes = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'"
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    found = {name for query in (indexes, tables) for (name,) in sample.ask(query)}
    yoyo = {name for name in found if "yoyo" in name}
    assert {*STATEMENTS, *(found - yoyo), *known_migrations("postgresql")} - named == set()
