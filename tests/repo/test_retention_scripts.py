"""sql/<engine>/retention.sql deletes by hand what a worker's retention deletes, and no more."""

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from repo import execution_results, executions
from repo.statements import statement, texts
from tests.repo.postgresql import PostgresDb
from tests.repo.rows import Db
from tests.support.postgresql import skip_without

pytestmark = pytest.mark.every_engine

SQL = Path(__file__).parents[2] / "sql"
IDS = "SELECT exec_id FROM executions UNION ALL SELECT result_id FROM execution_results ORDER BY 1"
MANY = 10_001


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def run_script(db: Db, days: str | None = "90") -> subprocess.CompletedProcess[str]:
    """Run an engine's script with its own shell, as a DBA does."""
    script = SQL / db.engine / "retention.sql"
    if isinstance(db, PostgresDb):
        command: list[str | Path] = [
            "psql",
            "-X",
            "-q",
            *(["-v", f"days={days}"] if days else []),
            "-f",
            script,
        ]
        place = db.parameters
        at = {"PGHOST": place["host"], "PGDATABASE": place["dbname"], "PGUSER": place["user"]}
    else:
        chosen = [f".parameter set :days {days}"] if days else []
        command, at = ["sqlite3", db.path, *chosen, f".read {script}"], {}
    if shutil.which(str(command[0])) is None:
        skip_without(str(command[0]))
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **at},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def add_execution(db: Db, exec_id: str, at: str) -> None:
    columns = "exec_id, job_id, version, initiated_by, initiated_at, target_count"
    db.ask(f"INSERT INTO executions ({columns}) VALUES ('{exec_id}', 'j', '1', 'o', '{at}', 1)")


def add_run(db: Db, result_id: str, at: str, finished_at: str | None = "x") -> None:
    columns = "result_id, request_id, pc_id, recorded_at, finished_at"
    finished = "NULL" if finished_at is None else f"'{finished_at}'"
    db.ask(
        f"INSERT INTO execution_results ({columns})"
        f" VALUES ('{result_id}', 'q', 'p', '{at}', {finished})"
    )


def fill(db: Db, at_limit: datetime) -> None:
    """Add rows around the limit, in every form of a time; a run of each also in flight."""
    seconds = [at_limit + timedelta(seconds=second) for second in range(-5, 60)]
    at = {f"at {number:02}": one.isoformat() for number, one in enumerate(seconds)}
    at |= {"old": "2020-01-01T00:00:00+00:00", "old .5": "2020-01-01T00:00:00.500+00:00"}
    at |= {"new": now().isoformat(), "later": "9999-01-01T00:00:00+00:00"}
    at |= {"space": "2020-01-01 00:00:00", "no day": "2020-02-30T00:00:00+00:00"}
    at |= {"offset": "2020-01-01T00:00:00+02:00", "Z": "2020-01-01T00:00:00Z", "none": ""}
    for name, time in at.items():
        add_execution(db, f"execution {name}", time)
        add_run(db, f"run {name}", time)
        add_run(db, f"in flight {name}", time, None)


def ids(db: Db) -> set[str]:
    return {name for (name,) in db.ask(IDS)}


def test_the_script_deletes_the_rows_that_the_workers_statements_delete(db: Db) -> None:
    limit = now() - timedelta(days=90)
    fill(db, limit)
    before = ids(db)
    done = run_script(db)
    assert (done.returncode, done.stderr) == (0, "")
    left = ids(db)
    found = re.fullmatch(
        r"deleted (\d+) executions and (\d+) runs before (\S+); no more are left\n", done.stdout
    )
    assert found is not None, done.stdout
    for table in ("executions", "execution_results"):
        db.ask(f"DELETE FROM {table}")
    fill(db, limit)
    by_worker = [
        db.repository.delete_old(delete, found[3])
        for delete in (executions.delete_old, execution_results.delete_old)
    ]
    assert (left, [int(found[1]), int(found[2])]) == (ids(db), by_worker)
    deleted = before - left
    assert deleted >= {"execution old", "execution old .5", "run old", "run old .5", "run at 00"}
    for kept in ("in flight", "new", "later", "space", "no day", "offset", "Z", "none"):
        assert not any(kept in name for name in deleted)
    # One of the seconds around the limit is the limit itself.
    assert db.ask(f"SELECT count(*) FROM executions WHERE initiated_at = '{found[3]}'") == [(1,)]


def test_a_batch_is_bounded_and_runs_wait_until_no_old_execution_is_left(db: Db) -> None:
    db.ask(
        "WITH RECURSIVE numbers (number) AS"
        f" (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < {MANY})"
        " INSERT INTO executions (exec_id, job_id, version, initiated_by, initiated_at,"
        " target_count) SELECT 'e' || number, 'j', '1', 'o', '2020-01-01T00:00:00+00:00', 1"
        " FROM numbers"
    )
    add_run(db, "run", "2020-01-01T00:00:00+00:00")
    texts_ = [run_script(db).stdout for _ in range(3)]
    assert [" before ".join(re.split(r" before \S+; ", text)) for text in texts_] == [
        "deleted 10000 executions and 0 runs before run again, more may be left\n",
        "deleted 1 executions and 1 runs before no more are left\n",
        "deleted 0 executions and 0 runs before no more are left\n",
    ]
    assert ids(db) == set()


@pytest.mark.parametrize("days", ["29", "0", "-90", "30.5", "'30 OR 1'", "36501"])
def test_a_limit_that_the_streams_may_undo_is_refused_and_nothing_is_deleted(
    db: Db, days: str
) -> None:
    add_run(db, "run", "2020-01-01T00:00:00+00:00")
    done = run_script(db, days)
    assert done.returncode != 0
    assert (done.stdout, ids(db)) == ("", {"run"})
    assert "days must be a whole number from 30 to 36500" in done.stderr


def test_without_a_number_of_days_the_limit_is_ninety(db: Db) -> None:
    for days in (88, 92):
        add_run(db, f"{days}", (now() - timedelta(days=days)).isoformat())
    assert run_script(db, None).returncode == 0
    assert ids(db) == {"88"}


def test_the_script_has_the_conditions_of_the_workers_statements(db: Db) -> None:
    script = " ".join((SQL / db.engine / "retention.sql").read_text("utf-8").split())
    for name in ("delete_old_executions", "delete_old_runs"):
        text = " ".join(texts(db.engine)[statement(name)].split())
        _, _, conditions = text.partition(" < ? ")
        assert conditions.partition(" LIMIT ")[0] in script
