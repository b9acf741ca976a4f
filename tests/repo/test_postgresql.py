"""What is PostgreSQL's alone: commits, sessions, locks of other transactions, error codes."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from repo import execution_results, executions, open_database, queries, reaper, results
from repo.deadlines import DeadlineChange
from repo.errors import (
    CorruptDatabaseError,
    DiskError,
    ReadOnlyError,
    RepositoryError,
    RowRejected,
    RowsHeld,
    SchemaError,
    TransientError,
    UnavailableError,
    UnreachableError,
)
from repo.execution_results import START_WRITER
from repo.postgresql.connection import Connection, Server
from repo.postgresql.errors import TRANSLATED
from repo.reaper import Reaping
from repo.repository import Repository, Sweep
from repo.results import write_all
from repo.statements import statement
from tests.repo.postgresql import PostgresDb
from tests.repo.rows import reject_of, rejected_event, result, run, runs
from tests.support.postgresql import Cluster, cluster
from tests.support.waiting import eventually

NOW = "2026-06-01T00:00:00+00:00"
GET_SESSION = statement("get_session", "postgresql")


@pytest.fixture
def engine() -> str:
    return "postgresql"


@pytest.fixture
def pg(db: PostgresDb) -> PostgresDb:
    return db


@pytest.fixture
def connection(pg: PostgresDb) -> Iterator[Connection]:
    with closing(pg.server.connect()) as connection:
        yield connection


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A server for this test only."""
    started = Cluster()
    yield started
    started.remove()


@contextmanager
def other_transaction(pg: PostgresDb, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold what another program has done in a transaction that is still open."""
    with psycopg.connect(**pg.parameters) as other:
        for sql in statements:
            other.execute(sql.encode())
        yield other
        other.rollback()


def setting(connection: Connection, name: str) -> str:
    row = connection.driver.execute(f"SHOW {name}".encode()).fetchone()
    assert row is not None
    return str(row[0])


def test_the_session_that_another_one_waits_for_is_a_lock_holder(pg: PostgresDb) -> None:
    assert pg.database.lock_holders() == []
    lock = "LOCK TABLE execution_results IN EXCLUSIVE MODE"
    with other_transaction(pg, lock) as other, psycopg.connect(**pg.parameters) as waiting:
        waiter = threading.Thread(target=lambda: _ignoring_errors(waiting, lock))
        waiter.start()
        eventually(lambda: pg.database.lock_holders() != [], 10)
        (holder,) = pg.database.lock_holders()
        assert holder.pid == other.info.backend_pid
        assert holder.program is not None
        assert "tester" in holder.program
        waiting.cancel()
        waiter.join()


def _ignoring_errors(connection: psycopg.Connection[Any], sql: str) -> None:
    with suppress(psycopg.Error):
        connection.execute(sql.encode())


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "states"),
    [
        (TransientError, "55P03 40P01 40001 57014 25P03 55006"),
        (UnreachableError, "57P01 57P02 57P03 57P05 08006 08001"),
        (DiskError, "53100 58030"),
        (UnavailableError, "42501 53200 53300 53400 57000 58000 25P01 25P02 26000 XX000"),
        (ReadOnlyError, "25006 55000"),
        (RowRejected, "22001 22P02 23505 23514 23502 44000 P0001 54000"),
        (SchemaError, "42P01 42703 3F000 0A000 38000 39000"),
        (CorruptDatabaseError, "XX001 XX002"),
    ],
)
def test_a_state_becomes_the_error_that_says_what_to_do(
    kind: type[RepositoryError], states: str
) -> None:
    for state in states.split():
        error = psycopg.errors.lookup(state) if state in KNOWN else psycopg.DatabaseError
        raised = error("text")
        raised.sqlstate = state
        with pytest.raises(RepositoryError) as translated, TRANSLATED:
            raise raised
        assert type(translated.value) is kind, state
        assert str(translated.value) == f"text ({state})"


KNOWN = {"57014", "23505", "42P01"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.OperationalError("connection refused"), UnreachableError),
        (psycopg.InterfaceError("the connection is closed"), UnreachableError),
        (psycopg.DataError("a NUL"), RowRejected),
        (UnicodeEncodeError("utf-8", "\udfff", 0, 1, "surrogate"), RowRejected),
        (OverflowError("too large"), RowRejected),
    ],
)
def test_an_error_without_a_state_is_that_of_the_connection_or_of_a_value(
    error: Exception, kind: type[RepositoryError]
) -> None:
    with pytest.raises(RepositoryError) as translated, TRANSLATED:
        raise error
    assert type(translated.value) is kind


def test_misuse_of_the_driver_is_not_reported_as_a_fault(connection: Connection) -> None:
    with pytest.raises(psycopg.ProgrammingError):
        connection.fetch(statement("find_execution"), ())


def test_the_reason_of_a_rejected_row_does_not_repeat_the_row(pg: PostgresDb) -> None:
    pg.ask("ALTER TABLE execution_results ADD CHECK (version <> 's3cret')")
    written = pg.write([run("r1"), run("r2", version="s3cret")])
    (event,) = written.rejected
    assert "check constraint" in event.reason
    assert "s3cret" not in event.reason


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ['"', "\\", '\\"', "{}", "NULL", "null", "", " ", ",", '","', "a\\\\b", "'", "\n", "%s"]
)
def test_any_text_in_an_array_is_stored_unchanged(pg: PostgresDb, text: str) -> None:
    batch = [run(f"{number}{text}", pc_id=text, job_id=text) for number in range(3)]
    assert pg.write(batch).inserted == 3
    assert pg.ask("SELECT DISTINCT pc_id, job_id FROM execution_results") == [(text, text)]
    assert sorted(pg.result_ids()) == sorted(one.result_id for one in batch)


def test_missing_values_and_numbers_in_an_array_are_stored_unchanged(pg: PostgresDb) -> None:
    codes = [0, -1, 2**31, None, 7]
    pg.write_results(
        *(result(f"r{at}", exit_code=code, exec_id=None) for at, code in enumerate(codes))
    )
    found = pg.ask("SELECT exit_code, exec_id FROM execution_results ORDER BY result_id")
    assert found == [(code, None) for code in codes]


@pytest.mark.parametrize(
    "member", ["result_id", "request_id", "exec_id", "pc_id", "version", "job_id"]
)
def test_a_nul_in_any_text_of_a_lone_start_rejects_it(pg: PostgresDb, member: str) -> None:
    written = pg.write([run("r1")._replace(**{member: "bad\0"})])
    assert (written.inserted, written.rows_rejected) == (0, 1)
    assert pg.count("rejected_events") == 1


@pytest.mark.parametrize(
    "member",
    [
        *("result_id", "request_id", "exec_id", "pc_id"),
        *("stdout", "stderr", "job_id", "parent_result_id"),
    ],
)
def test_a_nul_in_any_text_of_a_lone_result_rejects_it(pg: PostgresDb, member: str) -> None:
    columns: dict[str, Any] = {member: "bad\0"}
    written = pg.write_results(result("r1")._replace(**columns))
    assert len(written.rejected) == 1
    assert (pg.count(), pg.count("rejected_events")) == (0, 1)


def test_an_id_that_cannot_be_stored_has_no_row(pg: PostgresDb) -> None:
    pg.write_results(result("r1"))
    with pg.server.reading() as connection:
        assert results.find_states(connection, ["bad\0", "r1", "r2"]) == {"r1": True}
        assert queries.find(connection, "bad\0") is None
        assert queries.find_end(connection, "bad\0") is None


def test_a_key_that_is_too_long_for_its_index_costs_one_row(pg: PostgresDb) -> None:
    incompressible = "".join(random.Random(1).choices("abcdefghijklmnop", k=20_000))
    written = pg.write([run("r1"), run(incompressible), run("r2", pc_id=incompressible)])
    assert (written.inserted, written.rows_rejected) == (2, 1)
    assert "54000" in written.rejected[0].reason


# --- commits and sessions -------------------------------------------------------------------------


def test_a_commit_that_the_server_answers_with_a_rollback_is_an_error(
    connection: Connection,
) -> None:
    with (
        pytest.raises(UnavailableError, match="answered ROLLBACK"),
        connection.write(),
        suppress(psycopg.Error),
    ):
        connection.driver.execute("SELECT 1 / 0")


def test_a_commit_that_no_standby_has_confirmed_is_not_taken_for_one(
    own_cluster: Cluster,
) -> None:
    name = own_cluster.create_database()
    pg = PostgresDb(own_cluster, name)
    own_cluster.ask("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
    own_cluster.ask("SELECT pg_reload_conf()")
    waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with pg, ThreadPoolExecutor(1) as pool:
        written = pool.submit(lambda: pg.write([run("r1")]))
        eventually(lambda: own_cluster.ask(waiting), 10)
        with pytest.raises(UnavailableError, match="not certain"):
            written.result(10)
        assert pg.count() == 1  # and it comes again, since it was not acked


def test_writing_is_durable_and_its_waits_are_bounded_whatever_the_role_says(
    pg: PostgresDb,
) -> None:
    pg.ask("ALTER DATABASE " + pg.name + " SET synchronous_commit = off")
    with closing(pg.server.connect()) as connection, connection.write():
        names = ("synchronous_commit", "lock_timeout", "statement_timeout", "enable_seqscan")
        assert [setting(connection, name) for name in names] == ["on", "50ms", "30s", "off"]
        idle = "idle_in_transaction_session_timeout"
        assert setting(connection, idle) == "1min"
    pg.ask("ALTER DATABASE " + pg.name + " SET statement_timeout = '7s'")
    with closing(pg.server.connect()) as connection, connection.write():
        assert setting(connection, "statement_timeout") == "7s"


def test_a_session_that_a_pooler_shares_is_left_as_it_was(pg: PostgresDb) -> None:
    driver = pg.server.open()
    driver.prepare_threshold = None  # as behind a pooler
    with closing(Connection(driver, pg.server)) as connection:
        before = [setting(connection, name) for name in ("lock_timeout", "enable_seqscan")]
        for _ in range(2):
            with connection.write():
                assert setting(connection, "lock_timeout") == "50ms"
                assert connection.place == pg.server.place()
        assert [setting(connection, name) for name in ("lock_timeout", "enable_seqscan")] == before
        connection.plan(statement("insert_runs"))
        prepared = driver.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
        assert prepared == (0,)


def test_a_session_of_its_own_has_prepared_statements(connection: Connection) -> None:
    assert connection.driver.prepare_threshold == 0
    assert connection.fetch(GET_SESSION) == [(connection.driver.info.backend_pid,)]


def test_reading_cannot_write_and_holds_no_transaction(pg: PostgresDb) -> None:
    with pg.server.reading() as connection:
        with pytest.raises(ReadOnlyError):
            connection.execute(statement("mark_skipped_run"), ("r1",))
        connection.driver.rollback()
        assert connection.fetch(statement("count_runs_of_execution"), ("e",)) == [(0, 0, 0, 0)]
        state = "SELECT state FROM pg_stat_activity WHERE pid = %s"
        with psycopg.connect(**pg.parameters) as other:
            pid = connection.driver.info.backend_pid
            assert other.execute(state.encode(), (pid,)).fetchone() == ("idle",)


def test_a_server_that_is_away_is_unreachable_and_a_closed_connection_not_current(
    own_cluster: Cluster,
) -> None:
    server = Server(own_cluster.url())
    with closing(server.connect()) as connection:
        assert connection.is_current()
        own_cluster.stop()
        with pytest.raises(UnreachableError):
            connection.fetch(GET_SESSION)
        assert not connection.is_current()
    with pytest.raises(UnreachableError):
        server.connect()


def test_a_connection_whose_first_question_fails_is_closed(
    pg: PostgresDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repo.postgresql.connection._GET_SESSION", "begin_write")  # has no rows
    with pytest.raises(psycopg.ProgrammingError):
        pg.server.connect()
    sessions = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'start-projector'"
    eventually(lambda: not pg.ask(f"{sessions} AND datname = '{pg.name}'"), 10)


def test_a_server_that_ends_during_a_check_is_a_finding(
    own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(own_cluster.url(own_cluster.create_database()))
    monkeypatch.setattr(database, "check_writable", own_cluster.stop)
    (found,) = database.check(thorough=False, retry_for=0.1)
    assert (found.name, found.level) == ("database", 2)
    assert "cannot be reached" in found.text


# --- rows that other transactions hold ------------------------------------------------------------


def test_a_held_execution_holds_up_no_run_and_is_promoted_once_it_is_free(pg: PostgresDb) -> None:
    pg.add_executions(e_1="pending", e_2="pending")
    hold = "UPDATE executions SET job_id = 'x' WHERE exec_id = 'e-1'"
    with other_transaction(pg, hold):
        began = time.monotonic()
        written = pg.write([run("r1", exec_id="e-1"), run("r2", exec_id="e-2")])
        assert time.monotonic() - began < 5
        assert (written.inserted, written.promotion_failures) == (2, [])
        assert pg.statuses() == {"e-1": "pending", "e-2": "running"}
    pg.write([run("r3", exec_id="e-2")])
    assert pg.statuses() == {"e-1": "running", "e-2": "running"}


def test_an_execution_that_was_held_for_a_moment_is_promoted_after_the_commit(
    pg: PostgresDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    pg.add_executions(e_1="pending")
    hold = "UPDATE executions SET job_id = 'x' WHERE exec_id = 'e-1'"
    with psycopg.connect(**pg.parameters) as other:
        other.execute(hold.encode())
        commit = Connection._commit

        def commit_and_release(connection: Connection) -> None:
            commit(connection)
            other.rollback()

        monkeypatch.setattr(Connection, "_commit", commit_and_release)
        pg.write([run("r1", exec_id="e-1")])
    assert pg.statuses() == {"e-1": "running"}


def test_a_held_execution_holds_up_no_result_of_another(pg: PostgresDb) -> None:
    pg.add_executions(e_1="running", e_2="running")
    batch = [result(f"r{at}", exec_id=f"e-{at % 2 + 1}") for at in range(6)]
    with other_transaction(pg, "UPDATE executions SET job_id = 'x' WHERE exec_id = 'e-1'"):
        with pytest.raises(RowsHeld) as held:
            pg.write_results(*batch)
        assert held.value.indexes == {0, 2, 4}
        assert pg.count() == 0
        pg.write_results(*batch[1::2])
    pg.write_results(*batch)
    assert (pg.counts("e-1"), pg.counts("e-2")) == ("3/0 completed", "3/0 completed")


def test_a_held_execution_holds_up_no_overdue_run_of_another(pg: PostgresDb) -> None:
    pg.add_executions(e_1="running", e_2="running")
    pg.write([run(f"r{at}", exec_id=f"e-{at % 2 + 1}") for at in range(6)])
    reaping = Reaping(NOW, NOW, NOW)
    with other_transaction(pg, "UPDATE executions SET job_id = 'x' WHERE exec_id = 'e-1'"):
        assert {one.exec_id for one in pg.repository.reap(reaping)} == {"e-2"}
    assert set(reaping.failures) == {"r0", "r2", "r4"}
    assert len(pg.repository.reap(Reaping(NOW, NOW, NOW))) == 3
    assert (pg.counts("e-1"), pg.counts("e-2")) == ("0/3 completed", "0/3 completed")


def test_a_promotion_waits_for_a_count_of_another_worker_after_its_commit(pg: PostgresDb) -> None:
    pg.add_executions(e_1="pending")
    with (
        PostgresDb(pg.cluster, pg.name, busy_timeout=20) as own,
        closing(pg.server.connect()) as counting,
        ThreadPoolExecutor(1) as pool,
    ):
        with counting.write():
            counting.hold_counts(["e-1"])
            written = pool.submit(own.write, [run("r1", exec_id="e-1")])
            eventually(lambda: pg.ask("SELECT 1 FROM pg_locks WHERE NOT granted"), 10)
            assert (pg.count(), pg.statuses()) == (1, {"e-1": "pending"})
        assert written.result(10).inserted == 1
    assert pg.statuses() == {"e-1": "running"}


def test_a_held_row_that_must_be_changed_is_waited_for_and_retried(pg: PostgresDb) -> None:
    pg.add_executions(execution_1="running")
    pg.write([run("r1")])
    hold = "UPDATE execution_results SET stdout = 'x' WHERE result_id = 'r1'"
    with other_transaction(pg, hold), pytest.raises(TransientError):
        pg.write_results(result("r1"))
    assert pg.write_results(result("r1")).rejected == []
    assert pg.counts() == "1/0 running"


def test_a_promotion_that_the_database_refuses_is_not_tried_with_every_batch(
    pg: PostgresDb,
) -> None:
    pg.add_executions(e_1="pending")
    with other_transaction(pg, "UPDATE executions SET job_id = 'x' WHERE exec_id = 'e-1'"):
        pg.write([run("r1", exec_id="e-1")])
    pg.ask("ALTER TABLE executions ADD CHECK (status <> 'running') NOT VALID")
    for name in ("r2", "r3"):
        assert pg.write([run(name, exec_id="e-2")]).inserted == 1
    batches = pg.repository._batches
    assert batches is not None
    assert batches._held == set()


def end_and_count(one: Any, connection: Connection) -> None:
    """End a run and count it, inside the caller's transaction."""
    write_all(None, connection, [one], "~")


def test_a_run_that_ends_while_its_execution_appears_is_counted(pg: PostgresDb) -> None:
    pg.write([run("r1", exec_id="e-1"), run("r2", exec_id="e-1")])
    with closing(pg.server.connect()) as ending, ending.write():
        end_and_count(result("r1", exec_id="e-1"), ending)
        pg.add_executions(e_1="pending")
        pg.write([run("r3", exec_id="e-1")])  # promotes, or leaves it for later
    pg.write([run("r4", exec_id="e-1")])
    pg.patient_results().write([result("r2", exec_id="e-1")], [], reject_of([]))
    assert pg.counts("e-1") == "2/0 running"


def test_a_late_success_beside_the_promotion_is_no_failure(pg: PostgresDb) -> None:
    pg.write([run("r1", exec_id="e-1")])
    pg.repository.reap(Reaping(NOW, NOW, NOW))
    pg.add_executions(e_1="pending")
    with closing(pg.server.connect()) as ending, ending.write():
        end_and_count(result("r1", exec_id="e-1"), ending)
        pg.write([run("r2", exec_id="e-1")])
    pg.write([run("r3", exec_id="e-1")])
    assert pg.counts("e-1") == "1/0 running"


def test_a_first_count_waits_for_that_of_another_worker(pg: PostgresDb) -> None:
    pg.write([run("r1", exec_id="e-1"), run("r2", exec_id="e-1")])
    pg.add_executions(e_1="pending")
    results_of = pg.patient_results()
    with closing(pg.server.connect()) as ending, ThreadPoolExecutor(1) as pool:
        with ending.write():
            end_and_count(result("r1", exec_id="e-1"), ending)
            other = pool.submit(results_of.write, [result("r2", exec_id="e-1")], [], reject_of([]))
            eventually(lambda: pg.ask("SELECT 1 FROM pg_locks WHERE NOT granted"), 10)
        other.result(10)
    assert pg.counts("e-1") == "2/0 running"


def test_a_start_that_another_worker_inserts_meanwhile_is_ended_and_counted_once(
    pg: PostgresDb,
) -> None:
    pg.add_executions(execution_1="running")
    own = pg.patient_results()
    with closing(pg.server.connect()) as starting, ThreadPoolExecutor(1) as pool:
        with starting.write():
            START_WRITER.write_all(starting, [run("r1")], "~")
            ended = pool.submit(own.write, [result("r1")], [], reject_of([]))
            blocked = "SELECT 1 FROM pg_locks WHERE NOT granted"
            eventually(lambda: pg.ask(blocked), 10)
        assert ended.result(10).rejected == []
    row = pg.row_of("r1")
    assert (row["exit_code"], row["version"], pg.counts()) == (0, "1.0.0", "1/0 running")


def test_a_run_that_ends_while_it_is_given_up_is_not_reported_as_reaped(pg: PostgresDb) -> None:
    pg.add_executions(execution_1="running")
    pg.write([run("r1"), run("r2")])
    with closing(pg.server.connect()) as reaping, closing(pg.server.connect()) as other:
        page = reaper.page(reaping, Reaping(NOW, NOW, NOW), 10)
        with other.write():
            other.driver.execute(
                "UPDATE execution_results SET finished_at = recorded_at, exit_code = 0"
                " WHERE result_id = 'r1'"
            )
        with reaping.write():
            reaped = reaper._give_up(reaping, page, NOW)
    assert [one.result_id for one in reaped] == ["r2"]
    assert (pg.row_of("r1")["reaped"], pg.counts()) == (0, "0/1 running")


def test_workers_with_the_same_messages_in_any_order_never_lock_each_other_out(
    pg: PostgresDb,
) -> None:
    ids = [f"e-{number}" for number in range(20)]
    pg.add_executions(**{one.replace("-", "_"): "pending" for one in ids})
    rounds = [[f"r{turn}-{number:02}" for number in range(60)] for turn in range(4)]
    pg.ask(f"ALTER DATABASE {pg.name} SET deadlock_timeout = '20ms'")
    # So that two transactions overlap while each has some rows.
    for event in ("INSERT ON execution_results", "INSERT ON rejected_events"):
        pg.add_trigger(f"BEFORE {event}", "PERFORM pg_sleep(0.001)", f"slow_{event[-6:]}")
    pg.add_trigger("BEFORE UPDATE ON executions", "PERFORM pg_sleep(0.002)", "slow_update")

    together = threading.Barrier(4)

    def work(seed: int) -> None:
        shuffled = random.Random(seed)
        with PostgresDb(pg.cluster, pg.name, busy_timeout=20) as own:
            for turn, names in enumerate(rounds):
                for repository in (own.patient(), own.patient_results()):
                    make: Any = run if repository is own.repository else result
                    batch = [
                        make(name, exec_id=ids[at % 20])
                        for at, name in shuffled.sample([*enumerate(names)], len(names))
                    ]
                    writer: Any = repository
                    writer.write(batch, [], reject_of(batch))
                sequences = shuffled.sample(range(turn * 20, turn * 20 + 20), 20)
                events = [rejected_event(sequence) for sequence in sequences]
                together.wait(60)
                own.patient().write([], events, reject_of([]))
                ends = [
                    result(f"{name}-{seed}", exec_id=one)
                    for name, one in zip(names[:20], ids, strict=True)
                ]
                shuffled.shuffle(ends)
                own.patient_results().write(ends, [], reject_of(ends))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    deadlocks = f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{pg.name}'"
    assert pg.ask(deadlocks) == [(0,)]
    assert (pg.count(), pg.count("rejected_events")) == (560, 80)
    assert {pg.counts(one) for one in ids} == {"28/0 completed"}


def test_the_upkeep_of_one_worker_waits_for_that_of_another(pg: PostgresDb) -> None:
    pg.write([run("r1")])
    pg.add_executions(execution_1="pending", old="pending")
    changes: list[Callable[[], object]] = [
        lambda: pg.repository.reap(Reaping(NOW, NOW, NOW)),
        lambda: pg.repository.sweep(Sweep(old_before=NOW)),
        lambda: pg.repository.delete_old(executions.delete_old, NOW),
    ]
    with closing(pg.server.connect()) as other, other.write():
        other.exclude_other_upkeep()
        for change in changes:
            with pytest.raises(TransientError):
                change()
        assert pg.write([run("r2")]).inserted == 1  # a batch waits for no upkeep
    for change in changes:
        change()
    assert pg.count("executions") == 0


# --- constraints of others ------------------------------------------------------------------------


def test_a_constraint_that_is_checked_at_the_commit_costs_one_row(pg: PostgresDb) -> None:
    pg.ask(
        "ALTER TABLE execution_results ADD CONSTRAINT one_request UNIQUE (request_id)"
        " DEFERRABLE INITIALLY DEFERRED"
    )
    batch = [run("r1", request_id="a"), run("r2", request_id="a"), run("r3", request_id="b")]
    written = pg.write(batch)
    assert (written.inserted, written.rows_rejected) == (2, 1)
    assert "23505" in written.rejected[0].reason


def test_a_missing_right_is_no_rejected_row(pg: PostgresDb) -> None:
    pg.ask("CREATE ROLE limited LOGIN")
    pg.ask("GRANT SELECT ON ALL TABLES IN SCHEMA public TO limited")
    try:
        url = pg.url.replace("tester@", "limited@")
        limited = Repository(
            open_database(url), START_WRITER, retry_for=0.1, give_up=threading.Event()
        )
        with limited, pytest.raises(UnavailableError, match="permission denied"):
            limited.write(runs(3), [], reject_of(runs(3)))
        assert pg.count("rejected_events") == 0
    finally:
        pg.ask("DROP OWNED BY limited")
        pg.ask("DROP ROLE limited")


# --- the place ------------------------------------------------------------------------------------


def test_each_database_of_a_server_has_a_place_of_its_own(pg: PostgresDb) -> None:
    name = cluster().create_database()
    other = open_database(cluster().url(name))
    assert other.place() != pg.database.place()
    cluster().drop_database(name)


def test_a_server_that_does_not_report_its_identity_is_a_warning(
    pg: PostgresDb, caplog: pytest.LogCaptureFixture
) -> None:
    pg.ask("CREATE ROLE closed LOGIN")
    pg.ask("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    pg.ask("GRANT SELECT ON ALL TABLES IN SCHEMA public TO closed")
    try:
        database = open_database(pg.url.replace("tester@", "closed@"))
        assert database.place().startswith("unknown/")
        database.log_warnings()
        assert [record.getMessage() for record in caplog.records] == ["database.place_unknown"]
        found = {one.name: one for one in database.check(thorough=False, retry_for=1)}
        assert "not report its identity" in found["place"].text
        assert "lacks" in found["rights"].text
    finally:
        pg.ask("DROP OWNED BY closed")
        pg.ask("DROP ROLE closed")


# --- roles and views ------------------------------------------------------------------------------


@pytest.fixture
def roles(pg: PostgresDb) -> Iterator[None]:
    """Logins of the three roles that roles.sql makes."""
    file = Path(__file__).parents[2] / "sql" / "postgresql" / "roles.sql"
    pg.ask(file.read_text("utf-8"))
    pg.ask(file.read_text("utf-8"))  # it may be repeated
    for name in ("worker", "operator", "reader"):
        pg.ask(f"CREATE ROLE a_{name} LOGIN IN ROLE projector_{name}")
    yield
    for name in ("worker", "operator", "reader"):
        pg.ask(f"DROP OWNED BY projector_{name}")
        pg.ask(f"DROP ROLE a_{name}")
    for name in ("operator", "worker", "reader"):
        pg.ask(f"DROP ROLE projector_{name}")


def as_role(pg: PostgresDb, name: str) -> PostgresDb:
    own = PostgresDb(pg.cluster, pg.name)
    own.parameters["user"] = name
    own.url = own.url.replace("tester@", f"{name}@")
    own.server = Server(own.url)
    own.database = open_database(own.url)  # type: ignore[assignment]
    return own


@pytest.mark.usefixtures("roles")
def test_the_role_of_a_worker_may_do_all_that_a_worker_does_and_no_more(pg: PostgresDb) -> None:
    pg.add_executions(execution_1="pending", old="pending")
    with as_role(pg, "a_worker") as own:
        assert own.database.pending_migrations() == []
        found = {one.name: one for one in own.database.check(thorough=False, retry_for=1)}
        assert found["rights"].level == 0
        own.write([*runs(9), run("r9", expires_at="2026-05-20T12:00:00+00:00")], [rejected_event()])
        own.write_results(
            *(result(f"r{number}") for number in range(4)),
            result("r4", job_id="another"),
            result("new", skipped=True, parent_result_id="r1"),
        )
        assert len(own.repository.reap(Reaping(NOW, NOW, NOW))) == 5
        own.repository.sweep(Sweep(old_before=NOW))
        own.repository.delete_old(execution_results.delete_old, NOW)
        own.repository.delete_old(executions.delete_old, NOW)
        assert pg.count() == pg.count("executions") == 0
        for forbidden in (
            "UPDATE execution_results SET recorded_at = ''",
            "INSERT INTO executions SELECT * FROM executions",
            "UPDATE executions SET target_count = 1",
            "DELETE FROM rejected_events",
            "DROP TABLE checkpoints",
            "INSERT INTO _yoyo_migration (migration_hash) VALUES ('x')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                own.ask(forbidden)


@pytest.mark.usefixtures("roles")
def test_a_right_on_one_column_that_is_missing_is_named(pg: PostgresDb) -> None:
    pg.ask("REVOKE UPDATE (skipped) ON execution_results FROM projector_worker")
    with as_role(pg, "a_worker") as own:
        found = {one.name: one for one in own.database.check(thorough=False, retry_for=1)}
    assert (found["rights"].level, "UPDATE" in found["rights"].text) == (2, True)


@pytest.mark.usefixtures("roles")
def test_an_operator_retries_and_discards_and_a_reader_reads(pg: PostgresDb) -> None:
    pg.write([run("r1")], [rejected_event(1), rejected_event(2)])
    with as_role(pg, "a_operator") as own:
        again = own.repository.write_again([], [rejected_event(1, reason="new")], reject_of([]))
        assert len(again.still_rejected) == 1
        change = DeadlineChange("r1", run("r1").expires_at, NOW)
        assert own.repository.change_deadlines([change]) == ["r1"]
        assert own.repository.discard_rejected([rejected_event(2).key]) == 1
    with as_role(pg, "a_reader") as own:
        assert own.ask("SELECT state, started IS NOT NULL FROM readable_runs") == [
            ("overdue", True)
        ]
        assert own.ask("SELECT outstanding FROM readable_executions") == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            own.ask("DELETE FROM execution_results")


def test_the_views_show_each_state_and_no_instant_for_a_text_that_is_none(pg: PostgresDb) -> None:
    pg.add_executions(execution_1="running")
    pg.write([run("r1", expires_at="9999-01-01T00:00:00+00:00"), run("r2", expires_at="soon")])
    pg.write_results(result("r3"), result("r4", exit_code=3), result("r5", skipped=True))
    pg.write([run("r6")])
    pg.repository.reap(Reaping(NOW, NOW, NOW))
    found = dict(pg.ask("SELECT result_id, state FROM readable_runs"))
    assert found == {
        "r1": "in flight",
        "r2": "in flight",
        "r3": "succeeded",
        "r4": "failed",
        "r5": "skipped",
        "r6": "given up",
    }
    assert pg.ask("SELECT expires FROM readable_runs WHERE result_id = 'r2'") == [(None,)]
    pg.write([run("r7", started_at="0000-01-01T00:00:00+00:00")])
    assert pg.ask("SELECT started FROM readable_runs WHERE result_id = 'r7'") == [(None,)]
    assert pg.ask("SELECT outstanding FROM readable_executions") == [(-1,)]
