"""The parts of the benchmark that decide what it says: data, figures, targets, the check."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bench.check import check, digest
from tests.bench.data import BROADCAST, DataSet
from tests.bench.drain import Drained
from tests.bench.figures import Spread, percentile, quantiles
from tests.bench.plan import Plan
from tests.bench.process import BenchFailed
from tests.bench.results import Results
from tests.bench.rivals import BATCHED, PULL, SERIAL, SQLITE, WORKER, drain_rivals
from tests.bench.tables import Templates
from tests.bench.targets import targets
from tests.support.events import stored_text
from worker.codec.durations import parse_duration
from worker.codec.timestamps import NANOSECONDS
from worker.projections.deadline import deadline
from worker.projections.starts import decode_start

RECORDED_AT = "2026-05-20T12:00:00.123456Z"


def drained(rival: str, events_a_second: float, **different: Any) -> Drained:
    measured = Drained(
        part="drain",
        rival=rival,
        label="",
        events=1000,
        old_rows=0,
        workers=1,
        manifests=20,
        seconds=1000 / events_a_second,
        events_a_second=events_a_second,
        cpu_an_event=0.0,
        server_cpu_an_event=0.0,
        peak_memory=0,
        first_event_after=None,
    )
    return replace(measured, **different)


# --- data ---


def test_one_seed_makes_one_data_set() -> None:
    assert list(DataSet(120)) == list(DataSet(120))
    assert list(DataSet(120)) != list(DataSet(120, seed=1))


def test_a_longer_data_set_begins_as_the_shorter_one() -> None:
    assert list(DataSet(200))[:120] == list(DataSet(120))


def test_events_are_starts_in_broadcasts_with_keys_of_their_own() -> None:
    data = DataSet(3 * BROADCAST)
    events = list(data)
    assert len({event.result_id for event in events}) == len(events)
    assert [exec_id for exec_id, _ in data.executions()] == [
        event.exec_id for event in events[::BROADCAST]
    ]
    for event in events:
        assert decode_start(event.payload).result_id == event.result_id
        assert event.subject == f"events.started.{event.exec_id}.{event.pc_id}"


@pytest.mark.parametrize("manifests", [1, 20, 300])
def test_each_event_names_a_manifest_whose_deadline_it_knows(manifests: int) -> None:
    data = DataSet(200, manifests)
    assert len(data.timeouts()) == manifests
    for event in data:
        timeout = parse_duration(data.timeouts()[event.manifest_id])
        assert deadline(0, timeout) == event.deadline_after * NANOSECONDS


# --- figures ---


def test_a_spread_is_a_median_between_the_least_and_the_greatest() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, each) for each in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7.0], 99) == 7


def test_quantiles_end_with_the_greatest_value() -> None:
    assert quantiles([4.0, 1.0, 3.0, 2.0], 2) == [2, 4]
    assert quantiles([1.0], 3) == [1, 1, 1]


# --- plan and targets ---


def test_rivals_take_turns() -> None:
    plan = replace(Plan(), repeat=2, events=100)
    keys = [drain.rival.key for drain in plan.drains()]
    assert keys == [rival.key for rival in drain_rivals()] * 2


def test_the_large_backlog_is_measured_when_it_is_asked_for_and_not_with_the_serial_loop() -> None:
    parts = {drain.part for drain in Plan().drains()}
    large = {drain.rival.key for drain in Plan().full().drains() if drain.part == "large drain"}
    assert parts == {"drain"}
    assert {WORKER, BATCHED} < large
    assert SERIAL not in large


def test_targets_are_ratios_of_medians_and_only_of_what_was_measured() -> None:
    speeds = {WORKER: (900.0, 1000.0, 5000.0), SERIAL: (90.0, 110.0, 100.0), PULL: (1200.0,)}
    results = Results([drained(key, each) for key, some in speeds.items() for each in some])
    found = {target.name: target for target in targets(results)}
    assert found["drain, times (a)"].found == 10
    assert found["drain, times (a)"].reached
    assert found["drain, share of the lower limit, (e) bare pull"].reached
    assert "drain, times (b)" not in found


def test_the_lower_of_the_limits_is_the_bound() -> None:
    results = Results([drained(WORKER, 700), drained(SQLITE, 1000), drained(PULL, 3000)])
    (target,) = targets(results)
    assert "(d)" in target.name
    assert target.found == 0.7
    assert not target.reached


def test_what_the_database_allows_is_the_bound_where_it_is_the_lower_one() -> None:
    results = Results([drained(WORKER, 170), drained(BATCHED, 100), drained(SQLITE, 200)])
    found = {target.name: target for target in targets(results)}
    assert found["drain, times (b)"].bound == pytest.approx(1.6)
    assert found["drain, times (b)"].reached


def test_growth_is_measured_against_that_of_the_bare_database() -> None:
    kept = [(WORKER, 0, 100), (WORKER, 50, 60), (SQLITE, 0, 400), (SQLITE, 50, 320)]
    results = Results(
        [drained(key, speed, part="rows", old_rows=rows) for key, rows, speed in kept]
    )
    (target,) = targets(results)
    assert target.found == pytest.approx(0.75)
    assert not target.reached


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = Results([drained(WORKER, 1000.0)])
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"measurements": results.as_dict()}))
    assert Results.read(path) == results


# --- the check of a run ---


def drained_database(folder: Path, data: DataSet, old_rows: int) -> Path:
    """Return a database as it must be after a drain."""
    path = folder / "measured.db"
    Templates(folder).copy(data, old_rows, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        for event in data:
            times = stored_text(RECORDED_AT), stored_text(RECORDED_AT, plus=event.deadline_after)
            connection.execute(
                "INSERT INTO execution_results (result_id, request_id, exec_id, pc_id, started_at,"
                " version, job_id, recorded_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*event.row(), *times),
            )
        connection.execute("UPDATE executions SET status = 'running'")
    return path


@pytest.mark.parametrize("old_rows", [0, 30])
def test_a_run_that_wrote_everything_passes_the_check(tmp_path: Path, old_rows: int) -> None:
    data = DataSet(120)
    check(drained_database(tmp_path, data, old_rows), data, old_rows, lambda _: RECORDED_AT)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM execution_results WHERE rowid = 7",
        "UPDATE execution_results SET pc_id = 'pc-x' WHERE rowid = 7",
        "UPDATE execution_results SET started_at = '2026-05-20T12:00:00+00:00' WHERE rowid = 7",
        "UPDATE execution_results SET expires_at = NULL WHERE rowid = 7",
        "UPDATE executions SET status = 'pending' WHERE rowid = 2",
        "UPDATE execution_results SET recorded_at = '2026-05-20T12:00:00.123+00:00'",
    ],
)
def test_a_run_that_lost_or_changed_anything_is_void(tmp_path: Path, damage: str) -> None:
    data = DataSet(120)
    path = drained_database(tmp_path, data, 0)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    with pytest.raises(BenchFailed):
        check(path, data, 0, lambda _: RECORDED_AT)


def test_a_digest_is_of_rows_and_not_of_their_order() -> None:
    rows = [("a", "b"), ("c", "d")]
    assert digest(rows) == digest(reversed(rows))
    assert digest(rows) != digest([*rows, rows[0]])
    assert digest([("a", "bc")]) != digest([("ab", "c")])
