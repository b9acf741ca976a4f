"""What makes a figure of the benchmark right: the events, the figures, the check of the tables."""

import sqlite3
from contextlib import closing
from pathlib import Path

import click
import pytest

from tests.bench.contenders import PROJECTOR, CannotBuild, go_rival, other_worker
from tests.bench.data import BROADCAST, TIMEOUTS, make_events
from tests.bench.database import check_tables, fresh_database
from tests.bench.process import BenchFailed
from tests.bench.results import WORKER, Drained, Results, Spread, percentile
from tests.bench.rivals import make_runs, parse_timeouts, write_batch

EVENTS = 2 * BROADCAST + 20
STORED_AT = "2026-05-20T12:00:00.123456Z"
STORED_AT_NANOSECONDS = 1_779_278_400_123_456_000


def test_a_longer_series_of_events_begins_with_the_shorter_one() -> None:
    events = list(make_events(3 * BROADCAST))
    assert events[:EVENTS] == list(make_events(EVENTS))
    assert len({event.members["result_id"] for event in events}) == len(events)
    assert len({event.members["exec_id"] for event in events}) == 3


def test_a_percentile_is_a_measured_value() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, each) for each in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7.0], 99) == 7


def test_a_ratio_compares_measurements_of_the_same_round() -> None:
    seconds = {WORKER: (1.0, 2.0, 1.0), "other": (2.0, 3.0, 4.0)}
    drains = [Drained(program, "", 100, each) for program in seconds for each in seconds[program]]
    assert Results(drains).ratio("other") == Spread(median=2.0, least=1.5, most=4.0)


def test_another_checkout_without_its_own_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="run scripts/setup"):
        other_worker(tmp_path)


def test_the_go_program_is_left_out_without_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBuild, match="go is not on the PATH"):
        go_rival()


def test_the_go_program_is_left_out_if_its_build_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho '# runtime/cgo' >&2\necho 'no C compiler' >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(CannotBuild, match=r"go build fails: no C compiler$"):
        go_rival()


@pytest.fixture(scope="module")
def drained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as a correct drain leaves it."""
    path = fresh_database(tmp_path_factory.mktemp("bench"), PROJECTOR, EVENTS)
    messages = [(event.payload, STORED_AT_NANOSECONDS) for event in make_events(EVENTS)]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        write_batch(connection, make_runs(messages, parse_timeouts(TIMEOUTS)))
    return path


def test_a_correct_drain_passes_the_check(drained: Path) -> None:
    check_tables(drained, EVENTS, lambda _: STORED_AT)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM execution_results WHERE rowid = 7",
        "UPDATE execution_results SET pc_id = 'pc-x' WHERE rowid = 7",
        "UPDATE execution_results SET expires_at = NULL WHERE rowid = 7",
        "UPDATE execution_results SET recorded_at = '2026-05-20T12:00:00.123+00:00'",
        "UPDATE executions SET status = 'pending' WHERE rowid = 2",
    ],
)
def test_a_drain_that_lost_or_changed_a_row_fails(drained: Path, damage: str) -> None:
    path = drained.with_name("damaged.db")
    with closing(sqlite3.connect(drained)) as whole, closing(sqlite3.connect(path)) as damaged:
        whole.backup(damaged)
        with damaged:
            damaged.execute(damage)
    with pytest.raises(BenchFailed):
        check_tables(path, EVENTS, lambda _: STORED_AT)
