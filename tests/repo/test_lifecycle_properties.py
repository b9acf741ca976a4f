"""Whatever comes in whatever order: the tables are as the model of the contract says."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.repo.rows import Db
from tests.support.lifecycle import Life
from tests.support.lifecycle_model import HOUR, Ended, Execution, Model, Start
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant

NOON = parse_instant("2026-05-20T12:00:00Z")
MINUTE = 60 * NANOSECONDS


def bounded(examples: int) -> settings:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


ENDED_OF = "SELECT exit_code FROM execution_results WHERE exec_id = ? AND finished_at IS NOT NULL"

RUNS = ("r1", "r2", "r3")
EXECUTIONS = ("e1", "e2")
minutes = st.integers(0, 200).map(lambda number: NOON + number * MINUTE)
exit_codes = st.sampled_from([0, 0, 1, -1, 125])


@pytest.fixture
def life(db: Db) -> Iterator[Life]:
    with closing(sqlite3.connect(db.path, isolation_level=None)) as other:

        def ask(sql: str, values: Sequence[Any] = ()) -> list[Any]:
            return other.execute(sql, values).fetchall()

        with Life(db.database, ask) as life:
            yield life


def started(exec_ids: st.SearchStrategy[str]) -> st.SearchStrategy[Start]:
    return st.builds(
        Start,
        st.sampled_from(RUNS),
        exec_ids,
        minutes,
        st.sampled_from([None, 0, 20 * NANOSECONDS, HOUR]),
    )


ended = st.builds(
    Ended,
    st.sampled_from(RUNS),
    st.sampled_from(["e1", "e1", "e1", "e2", "", None]),
    minutes,
    st.integers(1, 12),
    exit_code=exit_codes,
    stdout=st.sampled_from(["", "o", "a\x00b"]),
    finished_at=minutes,
    manifest_id=st.sampled_from([None, "job", "other"]),
    request_id=st.sampled_from(["q", "q2"]),
    skipped=st.booleans(),
    parent_result_id=st.sampled_from([None, "r9"]),
)
LATE = NOON + 300 * MINUTE
ticks = st.tuples(st.just("tick"), minutes | st.just(LATE), st.none() | minutes | st.just(LATE))
inserted = st.tuples(st.just("insert"), st.sampled_from(EXECUTIONS), st.integers(0, 3), minutes)
by_others = st.tuples(
    st.sampled_from(["expire", "raise target", "delete row", "delete row", "advance"]),
    st.sampled_from([*EXECUTIONS, *RUNS]),
    st.integers(1, 12),
)
operations = st.lists(
    started(st.sampled_from(["e1", "e1", "e1", "e2", ""]))
    | st.lists(ended, min_size=1, max_size=3)
    | ticks
    | inserted
    | by_others,
    min_size=10,
    max_size=30,
)


@bounded(120)
@given(operations)
def test_any_interleaving_ends_as_the_model_says(life: Life, operations: list[Any]) -> None:
    wipe(life)
    model = Model()
    for operation in operations:
        apply(operation, life, model)
        assert executions_in(life) == {name: asdict(one) for name, one in model.executions.items()}
    assert rows_in(life) == expected_rows(model)


# --- what holds by itself -------------------------------------------------------------------------


@st.composite
def agreeing(draw: st.DrawFn) -> list[Any]:
    """Return each message of a few runs, some twice, whose starts and results agree."""
    events: list[Any] = []
    for sequence, result_id in enumerate(RUNS, 1):
        exec_id, stored_at = draw(st.sampled_from(EXECUTIONS)), draw(minutes)
        start = Start(result_id, exec_id, stored_at, draw(st.sampled_from([None, 0, HOUR])))
        result = Ended(
            *(result_id, exec_id, stored_at + MINUTE, sequence, draw(exit_codes)),
            finished_at=stored_at,
        )
        events += draw(st.sampled_from([[start], [[result]], [start, [result]]]))
    targets = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    for exec_id, target in zip(EXECUTIONS, targets, strict=True):
        events.append(("insert", exec_id, target, NOON + 150 * MINUTE))
    return events


def in_any_order(events: list[Any]) -> st.SearchStrategy[list[Any]]:
    """Return the events in an order of their own, with ticks and redeliveries between them."""
    tick = ("tick", NOON + 200 * MINUTE, NOON + 200 * MINUTE)
    again = [event for event in events if not isinstance(event, tuple)]
    more = st.lists(st.sampled_from([tick, tick, *again]), max_size=6)
    return more.flatmap(lambda more: st.permutations([*events, *more])).map(
        lambda order: [*order, tick]
    )


@bounded(40)
@given(agreeing().flatmap(lambda events: st.tuples(in_any_order(events), in_any_order(events))))
def test_the_tables_do_not_depend_on_the_order_and_the_counts_are_those_of_the_rows(
    life: Life, orders: tuple[list[Any], list[Any]]
) -> None:
    ends = []
    for order in orders:
        wipe(life)
        for operation in order:
            apply(operation, life, Model())
        ends.append((lasting_columns(life), executions_in(life)))
        for exec_id, execution in executions_in(life).items():
            codes = life.ask(ENDED_OF, (exec_id,))
            succeeded = codes.count((0,))
            counts = execution["success_count"], execution["failure_count"]
            assert counts == (succeeded, len(codes) - succeeded)
            is_completed = 0 < len(codes) >= execution["target_count"]
            assert (execution["status"] == "completed") == is_completed
    assert ends[0] == ends[1]


# --- both sides -----------------------------------------------------------------------------------


def wipe(life: Life) -> None:
    for table in ("execution_results", "executions", "checkpoints"):
        life.ask(f"DELETE FROM {table}")


def apply(operation: Any, life: Life, model: Model) -> None:
    """Apply one operation to the tables and to the model."""
    if isinstance(operation, Start):
        model.start(operation)
        life.apply(start_of(operation))
    elif isinstance(operation, list):
        for result in operation:
            model.result(result)
        life.write_results([result_of(result) for result in operation])
    elif operation[0] == "tick":
        _, now, known = operation
        model.tick(now, known)
        w = None if known is None else format_instant(known)
        life.apply({"operation": "tick", "now": format_instant(now), "w": w})
    elif operation[0] == "insert":
        insert(operation, life, model)
    else:
        change(operation, life, model)


def start_of(start: Start) -> dict[str, Any]:
    at = format_instant(start.stored_at)
    payload = {
        "result_id": start.result_id,
        "request_id": "q",
        "exec_id": start.exec_id,
        "pc_id": "p",
        "started_at": at,
        "manifest_id": "job",
        "version": "1.0",
    }
    timeout = None if start.timeout is None else start.timeout // NANOSECONDS
    return {"operation": "start", "payload": payload, "at": at, "timeout_s": timeout}


def result_of(result: Ended) -> dict[str, Any]:
    at = format_instant(result.stored_at)
    payload = asdict(result) | {"pc_id": "p", "stderr": "", "started_at": at}
    payload["finished_at"] = format_instant(result.finished_at)
    return {"operation": "result", "payload": payload, "at": at, "seq": payload.pop("sequence")}


def insert(operation: tuple[str, str, int, int], life: Life, model: Model) -> None:
    _, exec_id, target_count, initiated_at = operation
    if exec_id not in model.executions and exec_id not in executions_in(life):
        model.executions[exec_id] = Execution(target_count, initiated_at)
        values = {"exec_id": exec_id, "target_count": target_count}
        at = format_instant(initiated_at)
        life.apply({"operation": "execution", "initiated_at": at, **values})


def change(operation: tuple[str, str, int], life: Life, model: Model) -> None:
    """Change what another program or an operator changes."""
    kind, name, number = operation
    execution = model.executions.get(name)
    if kind == "advance":
        model.caught_up_to = max(model.caught_up_to, number)
        life.advance(number)
    elif kind == "delete row":
        model.rows.pop(name, None)
        life.apply({"operation": "delete_row", "result_id": name})
    elif execution is not None and kind == "raise target":
        execution.target_count += number
        query = "UPDATE executions SET target_count = target_count + ? WHERE exec_id = ?"
        life.ask(query, (number, name))
    elif execution is not None and execution.status == "pending":
        execution.status = "expired"
        life.ask("UPDATE executions SET status = 'expired' WHERE exec_id = ?", (name,))


def executions_in(life: Life) -> dict[str, dict[str, Any]]:
    names = ("target_count", "initiated_at", "status", "success_count", "failure_count")
    found = life.ask(f"SELECT exec_id, {', '.join(names)} FROM executions")
    rows = {exec_id: dict(zip(names, row, strict=True)) for exec_id, *row in found}
    for row in rows.values():
        row["initiated_at"] = parse_instant(row["initiated_at"])
    return rows


COLUMNS = (
    *("request_id", "exec_id", "started_at", "recorded_at", "job_id", "version", "expires_at"),
    *("exit_code", "stdout", "stderr", "finished_at", "reaped", "skipped", "parent_result_id"),
)
LASTING = (
    *("result_id", "exec_id", "pc_id", "exit_code", "stdout", "stderr", "finished_at", "job_id"),
    *("request_id", "reaped", "skipped"),
)


def rows_in(life: Life) -> dict[str, dict[str, Any]]:
    found = life.ask(f"SELECT result_id, {', '.join(COLUMNS)} FROM execution_results")
    return {result_id: dict(zip(COLUMNS, row, strict=True)) for result_id, *row in found}


def lasting_columns(life: Life) -> list[tuple[Any, ...]]:
    query = f"SELECT {', '.join(LASTING)} FROM execution_results ORDER BY result_id"
    found: list[tuple[Any, ...]] = life.ask(query)
    return found


def expected_rows(model: Model) -> dict[str, dict[str, Any]]:
    rows = {result_id: asdict(row) for result_id, row in model.rows.items()}
    for row in rows.values():
        for name in ("started_at", "recorded_at", "expires_at", "finished_at"):
            row[name] = None if row[name] is None else format_instant(row[name])
    return rows
